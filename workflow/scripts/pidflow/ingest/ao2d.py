"""Reader of raw AO2D files (Run 3: ``O2track_iu`` with its joined and Monte Carlo tables).

Facts of the format: AliceO2 ``Framework/Core/include/Framework/AnalysisDataModel.h`` and ``DataTypes.h``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pyarrow as pa
import uproot
from numpy.typing import NDArray

from pidflow.errors import PidflowError
from pidflow.identity import collision_ids
from pidflow.ingest.helix import propagate_to_vertex
from pidflow.ingest.rootfile import require_whole
from pidflow.ingest.table import to_table
from pidflow.response import expected_time

_FRAME = re.compile(r"DF_(\d+)(?:;\d+)?")

_TRACK = ("fIndexCollisions", "fTrackType", "fX", "fAlpha", "fY", "fZ", "fSnp", "fTgl", "fSigned1Pt")
_EXTRA = (
    "fTPCInnerParam", "fFlags", "fITSClusterSizes", "fTPCNClsFindable", "fTPCNClsFindableMinusFound",
    "fTPCNClsFindableMinusCrossedRows", "fTPCNClsShared", "fTRDPattern", "fITSChi2NCl", "fTPCChi2NCl", "fTRDChi2",
    "fTOFChi2", "fTPCSignal", "fTRDSignal", "fLength", "fTOFExpMom", "fTrackTime",
)  # fmt: skip
_COLLISION = ("fPosX", "fPosY", "fPosZ", "fCollisionTime")
_LABEL = ("fIndexMcParticles", "fMcMask")
_PARTICLE = ("fPdgCode", "fFlags", "fIndexArray_Mothers")

# name of the table without version → versions that this reader knows
_KNOWN_VERSIONS = {
    "O2bc": ("", "_001"),
    "O2collision": ("_001",),
    "O2track_iu": ("",),
    "O2trackextra": ("_001", "_002"),
    "O2mctracklabel": ("",),
    "O2mcparticle": ("_001",),
}

_TRACKING_MASS = np.array(
    [0.51099895e-3, 0.1056583755, 0.13957039, 0.493677, 0.93827209, 1.87561294, 2.80892113, 2.80839161, 3.72737940]
)
"""GeV/c² by O2's PID index: e, μ, π, K, p, d, t, ³He, α (``ReconstructionDataFormats/PID.h``)."""

_FAKE = 1 << 15
_PHYSICAL_PRIMARY = 4
_ITS_LAYERS = 7
_TOF_SENTINEL_BELOW = 0.0

Columns = dict[str, NDArray[Any]]


class Ao2dFile:
    """One raw AO2D file, read data frame by data frame.

    Parameters
    ----------
    path
        Local ROOT file.
    source
        Name of the file in the run table; part of every row's identity.
    run
        Run that the file must belong to.
    bz
        Magnetic field along the beam in kG, with its sign.
    simulation
        Whether the file must carry Monte Carlo truth (and must not, if False).

    Attributes
    ----------
    counts
        What was read and dropped so far.
    """

    def __init__(self, path: str | Path, *, source: str, run: int, bz: float, simulation: bool) -> None:
        self.path, self.source, self.run, self.bz, self.simulation = Path(path), source, run, bz, simulation
        self.counts = {
            "data_frames": 0,
            "collisions": 0,
            "tracks": 0,
            "without_collision": 0,
            "without_parameters": 0,
            "fake_labels": 0,
        }

    def tables(self) -> Iterator[pa.Table]:
        """Yield the track table of each data frame.

        Raises
        ------
        PidflowError
            If the file is damaged, lacks a table or a column, or does not belong to the run.
        """
        try:
            with uproot.open(self.path) as file:
                require_whole(self.path, file)
                frames = sorted({match[1] for key in file.keys(recursive=False) if (match := _FRAME.fullmatch(key))})
                if not frames:
                    found = ", ".join(sorted(file.keys(recursive=False, cycle=False))[:5]) or "nothing"
                    raise PidflowError(
                        f"{self.path}: no data frame DF_<n> in the file, only {found}; give a raw AO2D file"
                    )
                for frame in frames:
                    yield self._frame(file[f"DF_{frame}"], int(frame))
        except PidflowError:
            raise
        except Exception as error:  # uproot reports damage by many exception types, struct.error among them
            reason = f"{type(error).__name__}: {error}".split("\n", 1)[0][:120]
            raise PidflowError(
                f"{self.path}: damaged or truncated file ({reason}); transfer or produce it again"
            ) from error

    def _tree_name(self, folder: Any, table: str) -> str:
        names: set[str] = {key.split(";")[0] for key in folder.keys(recursive=False)}
        versions = sorted(name for name in names if re.fullmatch(rf"{table}(_\d{{3}})?", name))
        for name in versions:
            if name.removeprefix(table) in _KNOWN_VERSIONS[table]:
                return name
        where = f"{self.path}: data frame {folder.path[-1]}"
        if versions:
            known = " or ".join(table + suffix for suffix in _KNOWN_VERSIONS[table])
            raise PidflowError(f"{where} holds {versions[0]}, which this reader does not know; give files with {known}")
        shown = ", ".join(sorted(names)[:6]) or "nothing"
        raise PidflowError(f"{where} lacks the table {table} (it holds {shown}); give a raw AO2D file that has it")

    def _read(self, folder: Any, table: str, columns: tuple[str, ...]) -> Columns:
        tree = folder[self._tree_name(folder, table)]
        if absent := [name for name in columns if name not in tree]:
            where = f"{self.path}: data frame {folder.path[-1]}, table {tree.name}"
            raise PidflowError(f"{where} lacks the column {absent[0]}; give a file written with it")
        arrays = tree.arrays(list(columns), library="ak")
        # a list column (the mothers) counts by its first entry, -1 if it has none
        firsts = {name: arrays[name] if arrays[name].ndim == 1 else ak.firsts(arrays[name]) for name in columns}
        return {name: ak.to_numpy(ak.fill_none(values, -1)) for name, values in firsts.items()}

    def _frame(self, folder: Any, number: int) -> pa.Table:
        where = f"{self.path}: data frame DF_{number}"
        track = self._read(folder, "O2track_iu", _TRACK)
        extra = self._read(folder, "O2trackextra", _EXTRA)
        collision = self._read(folder, "O2collision", _COLLISION)
        self._check_run(folder, where, number)
        has_truth = any(key.startswith("O2mctracklabel") for key in folder.keys(recursive=False))
        if has_truth and not self.simulation:
            raise PidflowError(f"{where} holds Monte Carlo labels; list the file under 'simulation', not 'data'")

        n_tracks, n_collisions = len(track["fX"]), len(collision["fPosX"])
        if len(extra["fFlags"]) != n_tracks:
            raise PidflowError(f"{where}: O2trackextra and O2track_iu differ in length; produce the file again")
        index = track["fIndexCollisions"]
        if n_tracks and (index.max() >= n_collisions or index.min() < -1):
            raise PidflowError(f"{where}: fIndexCollisions points outside O2collision; produce the file again")
        parameters = np.stack([track[name] for name in _TRACK[2:]])
        usable = np.isfinite(parameters).all(axis=0) & (track["fSigned1Pt"] != 0)
        kept = np.flatnonzero((index >= 0) & usable)
        self.counts["data_frames"] += 1
        self.counts["collisions"] += n_collisions
        self.counts["tracks"] += n_tracks
        self.counts["without_collision"] += int((index < 0).sum())
        self.counts["without_parameters"] += int(((index >= 0) & ~usable).sum())

        truth = self._truth(folder, where, n_tracks, kept) if self.simulation else {}
        track = {name: values[kept] for name, values in track.items()}
        extra = {name: values[kept] for name, values in extra.items()}
        own = {name: values[track["fIndexCollisions"]].astype(np.float64) for name, values in collision.items()}
        columns: Columns = {
            "source": np.full(len(kept), self.source, dtype=object),
            "data_frame": np.full(len(kept), number, dtype=np.int64),
            "row": kept.astype(np.int32),
            "run": np.full(len(kept), self.run, dtype=np.int32),
            "collision_id": collision_ids(self.source, number, track["fIndexCollisions"]),
        }
        columns |= _kinematics(track, own, self.bz)
        columns |= _detectors(track, extra, own)
        return to_table(columns | truth)

    def _check_run(self, folder: Any, where: str, number: int) -> None:
        # recent writers put the run into the upper half of the data frame's number
        named = [number >> 32] if number >> 32 else []
        runs = sorted({*named, *self._read(folder, "O2bc", ("fRunNumber",))["fRunNumber"].tolist()})
        if runs and runs != [self.run]:
            found = ", ".join(str(run) for run in runs[:3])
            raise PidflowError(f"{where} belongs to run {found}, not {self.run}; list it under its own run")

    def _truth(self, folder: Any, where: str, n_tracks: int, kept: NDArray[np.intp]) -> Columns:
        label = self._read(folder, "O2mctracklabel", _LABEL)
        particle = self._read(folder, "O2mcparticle", _PARTICLE)
        if len(label["fMcMask"]) != n_tracks:
            raise PidflowError(f"{where}: O2mctracklabel and O2track_iu differ in length; produce the file again")
        index, n_particles = label["fIndexMcParticles"][kept], len(particle["fPdgCode"])
        if len(index) and (index.max() >= n_particles or index.min() < -1):
            raise PidflowError(f"{where}: fIndexMcParticles points outside O2mcparticle; produce the file again")
        fake = (index < 0) | ((label["fMcMask"][kept] & _FAKE) != 0)
        self.counts["fake_labels"] += int(fake.sum())
        if not n_particles:
            return {}
        index = np.where(fake, 0, index)
        mother = particle["fIndexArray_Mothers"][index]
        if len(mother) and mother.max() >= n_particles:
            raise PidflowError(f"{where}: fIndexArray_Mothers points outside O2mcparticle; produce the file again")
        return {
            "pdg_code": np.ma.array(particle["fPdgCode"][index], mask=fake),
            "is_physical_primary": np.ma.array((particle["fFlags"][index] & _PHYSICAL_PRIMARY) != 0, mask=fake),
            "mother_pdg_code": np.ma.array(particle["fPdgCode"][np.maximum(mother, 0)], mask=fake | (mother < 0)),
        }


def _kinematics(track: Columns, collision: Columns, bz: float) -> Columns:
    """Return the parameters at the vertex; formulas of the ``Tracks`` dynamic columns of O2."""
    parameter = {name: track[name].astype(np.float64) for name in _TRACK[2:]}
    q_over_pt, tgl = parameter["fSigned1Pt"], parameter["fTgl"]
    at = propagate_to_vertex(
        x=parameter["fX"],
        y=parameter["fY"],
        z=parameter["fZ"],
        alpha=parameter["fAlpha"],
        snp=parameter["fSnp"],
        tgl=tgl,
        q_over_pt=q_over_pt,
        vertex=np.stack([collision["fPosX"], collision["fPosY"], collision["fPosZ"]], axis=1),
        bz=bz,
    )
    pt = 1.0 / np.abs(q_over_pt)
    return {
        "p": pt * np.hypot(1.0, tgl),
        "pt": pt,
        "px": pt * np.cos(at.alpha),
        "py": pt * np.sin(at.alpha),
        "pz": pt * tgl,
        "eta": np.arcsinh(tgl),
        "phi": at.alpha % (2.0 * np.pi),
        "sign": np.where(q_over_pt > 0, 1, -1).astype(np.int8),
        "x": at.x,
        "y": at.y,
        "z": at.z,
        "alpha": at.alpha,
        "dca_xy": at.dca_xy,
        "dca_z": at.dca_z,
    }


def _detectors(track: Columns, extra: Columns, collision: Columns) -> Columns:
    """Return each detector's columns, masked where it did not see the track (``TracksExtra`` of O2)."""
    findable = extra["fTPCNClsFindable"].astype(np.int16)
    sizes = extra["fITSClusterSizes"][:, None] >> (4 * np.arange(_ITS_LAYERS, dtype=np.uint32)) & 0xF
    n_its = (sizes > 0).sum(axis=1)
    has_its, has_tpc = n_its > 0, findable > 0
    has_trd = extra["fTRDPattern"] > 0
    has_tof = (extra["fTOFChi2"] >= _TOF_SENTINEL_BELOW) & (extra["fTOFExpMom"] > _TOF_SENTINEL_BELOW)

    length = extra["fLength"].astype(np.float64)
    momentum = np.where(has_tof, extra["fTOFExpMom"], 1.0).astype(np.float64)
    hypothesis = np.minimum(extra["fFlags"] >> 28, len(_TRACKING_MASS) - 1)
    tracked_time = np.empty(len(length))
    for number, mass in enumerate(_TRACKING_MASS):
        chosen = hypothesis == number
        tracked_time[chosen] = expected_time(length[chosen], momentum[chosen], mass)
    tof_signal = extra["fTrackTime"].astype(np.float64) * 1e3 + tracked_time
    event_time = collision["fCollisionTime"] * 1e3
    with np.errstate(divide="ignore", invalid="ignore"):
        beta = expected_time(length, 1.0, 0.0) / (tof_signal - event_time)

    def only(present: NDArray[np.bool_], values: Any) -> NDArray[Any]:
        return np.ma.array(values, mask=~present)

    cos_lambda = 1.0 / np.hypot(1.0, track["fTgl"])
    return {
        "has_its": has_its,
        "has_tpc": has_tpc,
        "has_trd": has_trd,
        "has_tof": has_tof,
        "its_n_cls": only(has_its, n_its.astype(np.int8)),
        "its_inner_hit": only(has_its, (sizes[:, :3] > 0).any(axis=1)),
        "its_mean_cluster_size": only(has_its, sizes.sum(axis=1) / np.maximum(n_its, 1) * cos_lambda),
        "its_chi2_ncl": only(has_its, extra["fITSChi2NCl"]),
        "tpc_signal": only(has_tpc, extra["fTPCSignal"]),
        "tpc_inner_param": only(has_tpc, extra["fTPCInnerParam"]),
        "tpc_n_cls_findable": only(has_tpc, findable),
        "tpc_n_cls_found": only(has_tpc, findable - extra["fTPCNClsFindableMinusFound"]),
        "tpc_n_crossed_rows": only(has_tpc, findable - extra["fTPCNClsFindableMinusCrossedRows"]),
        "tpc_n_cls_shared": only(has_tpc, extra["fTPCNClsShared"].astype(np.int16)),
        "tpc_chi2_ncl": only(has_tpc, extra["fTPCChi2NCl"]),
        "trd_signal": only(has_trd, extra["fTRDSignal"]),
        "trd_pattern": only(has_trd, extra["fTRDPattern"].astype(np.int16)),
        "trd_chi2": only(has_trd, extra["fTRDChi2"]),
        "tof_signal": only(has_tof, tof_signal),
        "tof_event_time": only(has_tof, event_time),
        "beta": only(has_tof, beta),
        "tof_chi2": only(has_tof, extra["fTOFChi2"]),
        "tof_exp_mom": only(has_tof, extra["fTOFExpMom"]),
        "length": only(has_tof, extra["fLength"]),
    }
