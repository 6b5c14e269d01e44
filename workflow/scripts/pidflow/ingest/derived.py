"""Readers of derived AO2D files, whose tracks O2Physics has propagated to the vertex.

Facts of the formats: O2Physics ``Tools/PIDML/{pidMl.h,pidMlProducer.cxx}`` and
``PWGUD/DataModel/UDTables.h``, ``PWGUD/TableProducer/{SGCandProducer,UPCCandidateProducer}.cxx``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pidflow.errors import PidflowError
from pidflow.identity import collision_ids
from pidflow.ingest.frames import Frame, FrameReader, fingerprint, require_joined, require_range
from pidflow.ingest.helix import Array
from pidflow.ingest.o2_columns import ITS_MAP, ITS_SIZES, TruthNames, its_columns, truth_columns
from pidflow.ingest.reader import Columns, Piece, masked_unless, measured
from pidflow.ingest.table import to_table
from pidflow.ingest.tof import tof_columns
from pidflow.response import expected_time

Mask = NDArray[np.bool_]

_SENTINEL = -999.0
"""What O2Physics writes for an absent time or β; a time can be lower, where the bunch crossing is mistaken."""

_MOMENTUM = ("fPx", "fPy", "fPz", "fSign")

_POSITION = {"x": "fX", "y": "fY", "z": "fZ"}
_IMPACT = {"dca_xy": "fDcaXY", "dca_z": "fDcaZ"}
_TPC = {"tpc_signal": "fTPCSignal", "tpc_inner_param": "fTPCInnerParam", "tpc_chi2_ncl": "fTPCChi2NCl"}
_TRD = {"trd_signal": "fTRDSignal", "trd_chi2": "fTRDChi2"}
"""By column of the track table: the leaf that holds it."""

_ITS_MAPS = (ITS_SIZES, ITS_MAP)


class PidMlFile(FrameReader):
    """Trees of O2Physics' PID ML producer.

    A frame can hold the same tracks twice: in an "ml" tree and in one with all columns. The longer
    tree is read (one that was switched off can be there, empty), of two equal ones that with all
    columns. Recent productions record the collision; in the others the data frame stands for it,
    which keeps the tracks of a collision on one side of every split. The producer keeps global tracks
    only, all of which have the ITS, and of simulated ones those that have a particle, fake or not.
    """

    versions: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "O2pidtracksmc": ("",),
        "O2pidtracksmcml": ("",),
        "O2pidtracksdata": ("",),
        "O2pidtracksdataml": ("",),
    }

    _trees: ClassVar[Mapping[bool, tuple[str, str]]] = {
        True: ("O2pidtracksmc", "O2pidtracksmcml"),
        False: ("O2pidtracksdata", "O2pidtracksdataml"),
    }
    _columns = (
        *_MOMENTUM, "fP", "fPt", "fAlpha", "fTPCSignal", "fTPCNClsShared", "fTRDSignal", "fTRDPattern", "fTOFSignal",
        "fBeta", *_POSITION.values(), *_IMPACT.values(),
    )  # fmt: skip
    _later = (
        "fIndexCollisions", "fSigma1Pt", "fTPCNClsFindable", "fTpcNClsFound", "fTPCChi2NCl", "fLength",
        "fTOFChi2", "fITSClusterMap", "fTRDChi2",
    )  # fmt: skip
    """Leaves that the tree with all columns holds in recent productions."""
    _truth = ("fPdgCode", "fIsPhysicalPrimary")

    def piece(self, frame: Frame) -> Piece:
        """Return the tracks of one data frame."""
        self.check_run(frame, ())
        tree = self._tree(frame)
        truth = self._truth if self.request.simulation else ()
        values = frame.read(tree, (*self._columns, *truth), self._later)
        n_tracks = len(values["fP"])
        collision = values.get("fIndexCollisions", np.zeros(n_tracks, dtype=np.int64))
        usable = _usable(values, "fP", "fPt", *_MOMENTUM)
        counts = _counts(collision, usable)
        if "fIndexCollisions" in values:
            counts["collisions"] = len(np.unique(collision[collision >= 0]))
        content = fingerprint(values["fPt"], values["fTPCSignal"])

        kept = np.flatnonzero((collision >= 0) & usable)
        values = {name: column[kept] for name, column in values.items()}
        columns = self.identity(frame.number, kept, collision_ids(self.request.source, frame.number, collision[kept]))
        columns |= _at_vertex(values, values["fP"], values["fPt"])
        columns |= {name: values[leaf] for name, leaf in {**_POSITION, **_IMPACT}.items()}
        columns |= {"alpha": values["fAlpha"], **_pidml_detectors(values)}
        if truth:
            columns |= {"pdg_code": values["fPdgCode"], "is_physical_primary": values["fIsPhysicalPrimary"] != 0}
        return Piece(to_table(columns), counts, {f"DF_{frame.number}": content} if n_tracks else {})

    def _tree(self, frame: Frame) -> str:
        simulation = self.request.simulation
        own = [name for name in self._trees[simulation] if frame.version(name)]
        others = [name for name in self._trees[not simulation] if frame.version(name)]
        if any(frame.rows(name) for name in others) or (others and not own):
            listed, other = ("data", "simulation") if simulation else ("simulation", "data")
            raise PidflowError(f"{frame.where} holds {others[0]}; list the file under '{listed}', not '{other}'")
        return max(own, key=frame.rows) if own else self._trees[simulation][1]


class UdFile(FrameReader):
    """Tables of O2Physics' UD candidates (ultra-peripheral and diffractive collisions).

    The time of a collision is not recorded, so the event time is made of the tracks' own times
    (`pidflow.ingest.event_time`) with the bunch crossing in the place of the collision; where the
    tables hold O2Physics' β, the event time is the one in it.
    """

    versions: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "O2udcollision": ("", "_001"),
        "O2udtrack": ("",),
        "O2udtrcolid": ("",),
        "O2udtrackextra": ("",),
        "O2udtrackdca": ("",),
        "O2udtrackcov": ("",),
        "O2udtrackpid": ("",),
        "O2udmctracklabel": ("",),
        "O2udmcparticle": ("",),
        "O2udmcparticles": ("",),
    }

    _index = "fIndexUDCollisions"
    _extra = (
        "fTPCNClsFindable", "fTPCNClsFindableMinusFound", "fTPCNClsFindableMinusCrossedRows", "fTPCNClsShared",
        "fTRDPattern", "fITSChi2NCl", "fTPCChi2NCl", "fTRDChi2", "fTOFChi2", "fTPCSignal", "fTOFSignal", "fTRDSignal",
        "fLength", "fTOFExpMom",
    )  # fmt: skip
    _beside: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "O2udtrackdca": tuple(_IMPACT.values()),
        "O2udtrackcov": tuple(_POSITION.values()),
        "O2udtrackpid": ("fBeta",),
    }
    """Tables that some productions have beside the tracks, and the leaves that are read if they are there."""

    def piece(self, frame: Frame) -> Piece:
        """Return the tracks of one data frame that have a collision."""
        track = self._tracks(frame)
        n_tracks = len(track["fPx"])
        runs = frame.read("O2udcollision", ("fRunNumber",))["fRunNumber"]
        self.check_run(frame, np.unique(runs).tolist())
        self.check_kind(frame, frame.version("O2udmctracklabel") is not None)
        collision = track[self._index]
        require_range(frame.where, self._index, collision, "O2udcollision", len(runs))
        usable = _usable(track, *_MOMENTUM)
        counts = _counts(collision, usable) | {"collisions": len(runs)}
        content = fingerprint(track["fPx"], track["fTPCSignal"])

        kept = np.flatnonzero((collision >= 0) & usable)
        truth: Columns = {}
        if self.request.simulation:
            particle = "O2udmcparticle" if frame.version("O2udmcparticle") else "O2udmcparticles"
            names = TruthNames("O2udmctracklabel", "fIndexUDMcParticles", particle, "fIndexArray_Mothers")
            truth, counts["fake_labels"] = truth_columns(frame, ("O2udtrack", n_tracks), kept, names)
        track = {name: values[kept] for name, values in track.items()}
        columns = self.identity(frame.number, kept, collision_ids(self.request.source, frame.number, collision[kept]))
        pt = np.hypot(track["fPx"].astype(np.float64), track["fPy"])
        columns |= _at_vertex(track, np.hypot(pt, track["fPz"]), pt)
        columns |= {name: track[leaf] for name, leaf in {**_POSITION, **_IMPACT}.items() if leaf in track}
        columns |= _ud_detectors(track, tgl=_tangent(track), n_collisions=len(runs))
        return Piece(to_table(columns | truth), counts, {f"DF_{frame.number}": content} if n_tracks else {})

    def _tracks(self, frame: Frame) -> Columns:
        """Return the columns of the tables that are joined to the tracks."""
        track = frame.read("O2udtrack", _MOMENTUM, (self._index,))
        tables: dict[str, tuple[tuple[str, ...], tuple[str, ...]]]
        tables = {"O2udtrackextra": (self._extra, ("fTPCInnerParam", *_ITS_MAPS))}
        tables |= {table: ((), leaves) for table, leaves in self._beside.items() if frame.version(table)}
        if self._index not in track:
            # productions of 2022 keep the index in a table of its own
            tables["O2udtrcolid"] = ((self._index,), ())
        n_tracks = len(track["fPx"])
        for table, (required, optional) in tables.items():
            values = frame.read(table, required, optional)
            if values:
                require_joined(frame.where, ("O2udtrack", n_tracks), (table, len(next(iter(values.values())))))
            track |= values
        if not track.keys() & set(_ITS_MAPS):
            raise PidflowError(
                f"{frame.where}, table O2udtrackextra lacks the column {_ITS_MAPS[0]}; give a file with it"
            )
        return track


def _usable(values: Columns, *names: str) -> Mask:
    """Return which tracks have finite values of all `names`, a transverse momentum and a charge."""
    finite = np.logical_and.reduce([np.isfinite(values[name]) for name in names])
    usable: Mask = finite & (np.hypot(values["fPx"], values["fPy"]) > 0) & (values["fSign"] != 0)
    return usable


def _counts(collision: NDArray[Any], usable: Mask) -> dict[str, int]:
    return {
        "data_frames": 1,
        "tracks": len(collision),
        "without_collision": int((collision < 0).sum()),
        "without_parameters": int(((collision >= 0) & ~usable).sum()),
        "fake_labels": 0,
    }


def _at_vertex(values: Columns, p: NDArray[Any], pt: NDArray[Any]) -> Columns:
    """Return momentum and direction from the components at the vertex."""
    px, py, pz = (values[name] for name in _MOMENTUM[:3])
    return {
        "p": p,
        "pt": pt,
        "px": px,
        "py": py,
        "pz": pz,
        "eta": np.arcsinh(_tangent(values)),
        "phi": np.arctan2(py.astype(np.float64), px) % (2.0 * np.pi),
        "sign": np.sign(values["fSign"]).astype(np.int8),
    }


def _pidml_detectors(values: Columns) -> Columns:
    """Return each detector's columns; absent values are NaN, -999 or 0, by the date of the production."""
    has_tpc, has_trd = values["fTPCSignal"] > 0, values["fTRDPattern"] > 0
    has_tof = _present(values["fTOFSignal"]) & _present(values["fBeta"])
    columns: Columns = {"has_its": np.ones(len(has_tpc), dtype=bool), "has_tpc": has_tpc}
    if "fITSClusterMap" in values:
        columns |= its_columns(values, _tangent(values), np.zeros(len(has_tpc), dtype=bool))
    if "fTPCNClsFindable" in values:
        columns["tpc_n_cls_findable"] = masked_unless(has_tpc, values["fTPCNClsFindable"].astype(np.int16))
    if "fTpcNClsFound" in values:
        columns["tpc_n_cls_found"] = masked_unless(has_tpc, values["fTpcNClsFound"])
    if "fSigma1Pt" in values:
        columns["sigma_1pt"] = values["fSigma1Pt"]
    return columns | _tpc_and_trd(values, has_tpc, has_trd) | _tof_of_beta(values, has_tof)


def _present(values: NDArray[Any]) -> Mask:
    """Return which values are neither NaN nor a sentinel."""
    present: Mask = np.isfinite(values) & (values != _SENTINEL)
    return present


def _tangent(values: Columns) -> Array:
    """Return the tangent of the dip angle."""
    px, py, pz = (values[name].astype(np.float64) for name in _MOMENTUM[:3])
    tangent: Array = pz / np.hypot(px, py)
    return tangent


def _tpc_and_trd(values: Columns, has_tpc: Mask, has_trd: Mask) -> Columns:
    columns: Columns = {
        "has_trd": has_trd,
        "tpc_n_cls_shared": masked_unless(has_tpc, values["fTPCNClsShared"].astype(np.int16)),
        "trd_pattern": masked_unless(has_trd, values["fTRDPattern"].astype(np.int16)),
    }
    for present, leaves in ((has_tpc, _TPC), (has_trd, _TRD)):
        columns |= {name: measured(present, values[leaf]) for name, leaf in leaves.items() if leaf in values}
    return columns


def _tof_of_beta(values: Columns, has_tof: Mask) -> Columns:
    """Return the TOF columns that β and the signal give; with the length, the event time too."""
    columns: Columns = {
        "has_tof": has_tof,
        "tof_signal": masked_unless(has_tof, values["fTOFSignal"]),
        "beta": masked_unless(has_tof, values["fBeta"]),
    }
    if "fTOFChi2" in values:
        columns["tof_chi2"] = measured(has_tof, values["fTOFChi2"])
    if "fLength" in values:
        columns["length"] = measured(has_tof, values["fLength"])
        columns["tof_event_time"] = masked_unless(has_tof & (values["fLength"] > 0), _event_time(values))
    return columns


def _event_time(values: Columns) -> Array:
    """Return the event time in ps that β was made with, O2Physics ``pidTOFbeta``: β = L/(c·(signal − event time))."""
    length, beta, signal = (values[name].astype(np.float64) for name in ("fLength", "fBeta", "fTOFSignal"))
    with np.errstate(divide="ignore", invalid="ignore"):
        event_time: Array = signal - expected_time(length, 1.0, 0.0) / beta
    return event_time


def _ud_detectors(track: Columns, *, tgl: Array, n_collisions: int) -> Columns:
    """Return each detector's columns, as of raw AO2D."""
    findable = track["fTPCNClsFindable"].astype(np.int16)
    has_tpc, has_trd = findable > 0, track["fTRDPattern"] > 0
    has_tof = (track["fTOFChi2"] >= 0) & (track["fTOFExpMom"] > 0)
    columns = its_columns(track, tgl, np.zeros(len(findable), dtype=bool)) | {
        "has_tpc": has_tpc,
        "has_tof": has_tof,
        "tpc_n_cls_findable": masked_unless(has_tpc, findable),
        "tpc_n_cls_found": masked_unless(has_tpc, findable - track["fTPCNClsFindableMinusFound"]),
        "tpc_n_crossed_rows": masked_unless(has_tpc, findable - track["fTPCNClsFindableMinusCrossedRows"]),
        "tof_chi2": measured(has_tof, track["fTOFChi2"]),
        **_tpc_and_trd(track, has_tpc, has_trd),
        **tof_columns(
            has_tof,
            track["fTOFSignal"][has_tof].astype(np.float64),
            track["fLength"][has_tof].astype(np.float64),
            track["fTOFExpMom"][has_tof].astype(np.float64),
            collision=track["fIndexUDCollisions"][has_tof],
            collision_time=np.zeros(n_collisions),
            collision_time_error=np.full(n_collisions, np.inf),
        ),
    }
    if "fBeta" in track:
        given = has_tof & _present(track["fBeta"])
        error = columns["tof_event_time_error"]
        columns["tof_event_time"] = np.ma.where(given, _event_time(track), columns["tof_event_time"])
        columns["tof_event_time_error"] = np.ma.array(error, mask=np.ma.getmaskarray(error) | given)
        columns["beta"] = np.ma.where(given, track["fBeta"], columns["beta"])
    return columns
