"""Reader of raw AO2D files: Run 3 (``O2track_iu``) and converted Run 2 (``O2track``), simulation and data.

Facts of the format: AliceO2 ``Framework/Core/include/Framework/{AnalysisDataModel,DataTypes}.h``; of the
conversion of Run 2: AliPhysics ``RUN3/AliAnalysisTaskAO2Dconverter.cxx``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pidflow.errors import PidflowError
from pidflow.identity import collision_ids
from pidflow.ingest.frames import Frame, FrameReader, collision_blocks, fingerprint, require_joined, require_range
from pidflow.ingest.helix import TrackParameters
from pidflow.ingest.kinematics import kinematics
from pidflow.ingest.o2_columns import ITS_MAP, ITS_SIZES, TruthNames, its_columns, truth_columns
from pidflow.ingest.reader import Columns, Piece, masked_unless, measured, recorded
from pidflow.ingest.table import to_table
from pidflow.ingest.tof import tof_columns, tracked_time
from pidflow.ingest.v0_finder import joined_tables, v0_table
from pidflow.physics import C_CM_PER_PS

_PARAMETERS = ("fX", "fY", "fZ", "fAlpha", "fSnp", "fTgl", "fSigned1Pt")
"""In the order of `TrackParameters`."""

_TRACK = ("fIndexCollisions", "fTrackType", *_PARAMETERS)
_EXTRA = (
    "fTPCInnerParam", "fFlags", "fTPCNClsFindable", "fTPCNClsFindableMinusFound", "fTPCNClsFindableMinusCrossedRows",
    "fTPCNClsShared", "fTRDPattern", "fITSChi2NCl", "fTPCChi2NCl", "fTRDChi2", "fTOFChi2", "fTPCSignal", "fTRDSignal",
    "fLength", "fTOFExpMom", "fTrackTime",
)  # fmt: skip
_COLLISION = ("fPosX", "fPosY", "fPosZ", "fCollisionTime", "fCollisionTimeRes")
_MOTHER = {"": "fIndexMcParticles_Mother0", "_001": "fIndexArray_Mothers"}

_RUN2_TRACK, _RUN2_TRACKLET = 254, 255
"""``fTrackType``; tracklets are no tracks."""

_HYPOTHESIS_SHIFT = 28


class Ao2dFile(FrameReader):
    """One raw AO2D file."""

    versions: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "O2bc": ("", "_001"),
        "O2collision": ("", "_001"),
        "O2track_iu": ("",),
        "O2track": ("",),
        "O2trackcov_iu": ("",),
        "O2trackcov": ("",),
        "O2trackextra": ("", "_001", "_002"),
        "O2run2trackextra": ("", "_001"),
        "O2mctracklabel": ("",),
        "O2mcparticle": ("", "_001"),
    }

    def piece(self, frame: Frame) -> Piece:
        """Return the tracks of one data frame that have a collision and parameters."""
        request = self.request
        tracks = "O2track" if frame.version("O2track") else "O2track_iu"
        track = frame.read(tracks, _TRACK)
        n_tracks = len(track["fX"])
        extra = self._joined(frame, tracks, n_tracks, "O2trackextra", _EXTRA, (ITS_SIZES, ITS_MAP))
        if not {ITS_SIZES, ITS_MAP} & extra.keys():
            table = frame.version("O2trackextra")
            raise PidflowError(f"{frame.where}, table {table} lacks the column {ITS_SIZES}; give a file with it")
        collision = frame.read("O2collision", _COLLISION)
        self.check_run(frame, np.unique(frame.read("O2bc", ("fRunNumber",))["fRunNumber"]).tolist())
        self.check_kind(frame, frame.version("O2mctracklabel") is not None)

        index, n_collisions = track["fIndexCollisions"], len(collision["fPosX"])
        require_range(frame.where, "fIndexCollisions", index, "O2collision", n_collisions)
        usable = TrackParameters(*(track[name] for name in _PARAMETERS)).usable()
        usable &= track["fTrackType"] != _RUN2_TRACKLET
        kept = np.flatnonzero((index >= 0) & usable)
        counts = {
            "data_frames": 1,
            "collisions": n_collisions,
            "tracks": n_tracks,
            "without_collision": int((index < 0).sum()),
            "without_parameters": int(((index >= 0) & ~usable).sum()),
            "fake_labels": 0,
        }
        content = fingerprint(track["fSigned1Pt"], extra["fTPCSignal"])
        extra |= self._optional(frame, tracks, n_tracks)
        truth: Columns = {}
        if request.simulation:
            version = (frame.version("O2mcparticle") or "").removeprefix("O2mcparticle")
            names = TruthNames("O2mctracklabel", "fIndexMcParticles", "O2mcparticle", _MOTHER[version])
            truth, counts["fake_labels"] = truth_columns(frame, (tracks, n_tracks), kept, names)

        innermost = tracks == "O2track_iu"
        pieces = [
            self._block(
                frame.number,
                kept[block],
                {name: values[kept[block]] for name, values in (track | extra).items()},
                collision,
                {name: values[block] for name, values in truth.items()},
                innermost,
            )
            for block in collision_blocks(index[kept])
        ]
        return Piece(
            pa.concat_tables([table for table, _ in pieces]),
            counts,
            {f"DF_{frame.number}": content} if n_tracks else {},
            joined_tables([v0s for _, v0s in pieces]),
        )

    def _block(
        self,
        number: int,
        rows: NDArray[np.intp],
        track: Columns,
        collision: Columns,
        truth: Columns,
        innermost: bool,
    ) -> tuple[pa.Table, pa.Table]:
        """Return the track table and the V0 table of some rows of a data frame."""
        request = self.request
        index = track["fIndexCollisions"]
        first, behind = (int(index[0]), int(index.max()) + 1) if len(index) else (0, 0)
        own = {name: values[first:behind].astype(np.float64) for name, values in collision.items()}
        vertices = np.stack([own[name] for name in _COLLISION[:3]], axis=1)
        parameters = TrackParameters(*(track[name].astype(np.float64) for name in _PARAMETERS))
        identity = self.identity(number, rows, collision_ids(request.source, number, index))
        index = index - first
        at_vertex = kinematics(parameters, vertices[index], request.bz)
        detectors = _detectors(
            track, tgl=parameters.tgl, run2=track["fTrackType"] == _RUN2_TRACK, index=index, collision=own
        )
        v0s = v0_table(
            parameters,
            identity,
            collision=index,
            vertex=vertices,
            dca_xy=at_vertex["dca_xy"],
            candidate=detectors["has_tpc"],
            bz=request.bz,
            settings=request.settings.v0,
            innermost=np.hypot(parameters.x, parameters.y) if innermost else None,
        )
        return to_table(identity | at_vertex | detectors | truth), v0s

    def _joined(
        self, frame: Frame, tracks: str, n: int, table: str, columns: tuple[str, ...], optional: tuple[str, ...] = ()
    ) -> Columns:
        values = frame.read(table, columns, optional)
        require_joined(frame.where, (tracks, n), (table, len(next(iter(values.values())))))
        return values

    def _optional(self, frame: Frame, tracks: str, n: int) -> Columns:
        found: Columns = {}
        for table, column in ((tracks.replace("track", "trackcov"), "fSigma1Pt"), ("O2run2trackextra", "fITSSignal")):
            if frame.version(table):
                found |= self._joined(frame, tracks, n, table, (column,))
        return found


def _detectors(
    extra: Columns, *, tgl: NDArray[np.float64], run2: NDArray[np.bool_], index: NDArray[np.integer], collision: Columns
) -> Columns:
    """Return each detector's columns, masked where it did not see the track (``TracksExtra`` of O2)."""
    findable = extra["fTPCNClsFindable"].astype(np.int16)
    has_tpc, has_trd = findable > 0, extra["fTRDPattern"] > 0
    has_tof = (extra["fTOFChi2"] >= 0) & (extra["fTOFExpMom"] > 0)
    columns = its_columns(extra, tgl, run2) | {
        "has_tpc": has_tpc,
        "has_trd": has_trd,
        "has_tof": has_tof,
        "tpc_signal": recorded(has_tpc, extra["fTPCSignal"]),
        "tpc_inner_param": measured(has_tpc, extra["fTPCInnerParam"]),
        "tpc_n_cls_findable": masked_unless(has_tpc, findable),
        "tpc_n_cls_found": masked_unless(has_tpc, findable - extra["fTPCNClsFindableMinusFound"]),
        "tpc_n_crossed_rows": masked_unless(has_tpc, findable - extra["fTPCNClsFindableMinusCrossedRows"]),
        "tpc_n_cls_shared": masked_unless(has_tpc, extra["fTPCNClsShared"].astype(np.int16)),
        "tpc_chi2_ncl": measured(has_tpc, extra["fTPCChi2NCl"]),
        "trd_signal": recorded(has_trd, extra["fTRDSignal"]),
        "trd_pattern": masked_unless(has_trd, extra["fTRDPattern"].astype(np.int16)),
        "trd_chi2": measured(has_trd, extra["fTRDChi2"]),
        "tof_chi2": measured(has_tof, extra["fTOFChi2"]),
    }
    if "fSigma1Pt" in extra:
        columns["sigma_1pt"] = extra["fSigma1Pt"]
    tof = np.flatnonzero(has_tof)
    length, momentum, time = (extra[name][tof].astype(np.float64) for name in ("fLength", "fTOFExpMom", "fTrackTime"))
    # the converter of Run 2 stores the momentum times the speed of light in cm/ps
    momentum /= np.where(run2[tof], C_CM_PER_PS, 1.0)
    hypothesis = (extra["fFlags"][tof] >> _HYPOTHESIS_SHIFT).astype(np.intp)
    return columns | tof_columns(
        has_tof,
        time * 1e3 + tracked_time(length, momentum, hypothesis),
        length,
        momentum,
        collision=index[tof],
        collision_time=collision["fCollisionTime"] * 1e3,
        collision_time_error=collision["fCollisionTimeRes"] * 1e3,
    )
