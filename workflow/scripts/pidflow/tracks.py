"""The track table: the one schema that every reader writes and every later stage reads.

A row is a reconstructed track. Track parameters are those at the point of closest approach to the
collision vertex. A value that a detector did not deliver is null, never a sentinel. The published
model is fed by O2Physics, so each column that O2Physics can deliver carries its label there
(persistent columns by ``f…``; dynamic ones likewise, which the loader accepts).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from pidflow.physics import SPECIES

Detector = Literal["track", "its", "tpc", "trd", "tof", "truth", "id"]

MISSING_NEVER = "never"


@dataclass(frozen=True)
class Column:
    """One column of the track table.

    Attributes
    ----------
    name
        snake_case name in every Parquet file of the workflow.
    dtype
        Arrow type.
    unit
        Unit in plain text; empty for a pure number.
    detector
        Which detector delivers it.
    missing
        When the value is null.
    o2
        Label under which O2Physics delivers the same quantity, or None.
    approximate
        Why a value derived from raw data can differ from O2Physics' own; empty if it cannot.
    doc
        One line of meaning.
    """

    name: str
    dtype: pa.DataType
    unit: str
    detector: Detector
    missing: str
    o2: str | None
    doc: str
    approximate: str = ""


_F, _I8, _I16, _I32, _I64 = pa.float32(), pa.int8(), pa.int16(), pa.int32(), pa.int64()
_NO_TRD, _NO_TOF = "no TRD tracklet", "no TOF match"
_FLAT = "a flat table may lack it"
_MATERIAL = "energy loss between the innermost update and the vertex is not undone"
_EVENT_TIME = "made of the collision time and the other tracks' TOF; O2Physics has the FT0 too"

_IDENTITY = (
    Column("source", pa.string(), "", "id", MISSING_NEVER, None, "input file, as the run table names it"),
    Column(
        "data_frame",
        _I64,
        "",
        "id",
        MISSING_NEVER,
        None,
        "number n of the folder DF_n, or of the batch of a flat table",
    ),
    Column("row", _I32, "", "id", MISSING_NEVER, None, "row in the track tree of that data frame"),
    Column("run", _I32, "", "id", MISSING_NEVER, None, "data-taking run"),
    Column(
        "collision_id",
        pa.uint64(),
        "",
        "id",
        MISSING_NEVER,
        None,
        "hash of source, data frame and collision; unique over files",
    ),
)

_TRACK = (
    Column("p", _F, "GeV/c", "track", MISSING_NEVER, "fP", "momentum", _MATERIAL),
    Column("pt", _F, "GeV/c", "track", MISSING_NEVER, "fPt", "transverse momentum", _MATERIAL),
    Column("px", _F, "GeV/c", "track", _FLAT, "fPx", "momentum along x", _MATERIAL),
    Column("py", _F, "GeV/c", "track", _FLAT, "fPy", "momentum along y", _MATERIAL),
    Column("pz", _F, "GeV/c", "track", _FLAT, "fPz", "momentum along the beam", _MATERIAL),
    Column("eta", _F, "", "track", _FLAT, "fEta", "pseudorapidity"),
    Column("phi", _F, "rad", "track", _FLAT, "fPhi", "azimuth in [0, 2π)"),
    Column("sign", _I8, "e", "track", _FLAT, "fSign", "charge"),
    Column("x", _F, "cm", "track", _FLAT, "fX", "local x at the vertex"),
    Column("y", _F, "cm", "track", _FLAT, "fY", "local y at the vertex"),
    Column("z", _F, "cm", "track", _FLAT, "fZ", "z at the vertex"),
    Column("alpha", _F, "rad", "track", _FLAT, "fAlpha", "angle of the local frame"),
    Column("dca_xy", _F, "cm", "track", _FLAT, "fDcaXY", "signed transverse impact parameter", _MATERIAL),
    Column("dca_z", _F, "cm", "track", _FLAT, "fDcaZ", "longitudinal impact parameter", _MATERIAL),
    Column("sigma_1pt", _F, "c/GeV", "track", "no covariance in the file", "fSigma1Pt", "uncertainty of q/pT"),
)

_DETECTORS = (
    Column("has_its", pa.bool_(), "", "its", MISSING_NEVER, None, "seen by the ITS"),
    Column("has_tpc", pa.bool_(), "", "tpc", MISSING_NEVER, None, "seen by the TPC"),
    Column("has_trd", pa.bool_(), "", "trd", MISSING_NEVER, None, "seen by the TRD"),
    Column("has_tof", pa.bool_(), "", "tof", MISSING_NEVER, None, "matched to a TOF hit"),
    Column("its_n_cls", _I8, "", "its", "no ITS", "fITSNCls", "ITS clusters"),
    Column("its_inner_hit", pa.bool_(), "", "its", "no ITS", None, "a cluster in the three innermost ITS layers"),
    Column("its_signal", _F, "arb.", "its", "no ITS, or Run 3", "fITSSignal", "ITS dE/dx (Run 1 and 2)"),
    Column(
        "its_mean_cluster_size",
        _F,
        "pixels",
        "its",
        "no ITS, or no sizes recorded",
        None,
        "mean ITS cluster size times cos λ",
    ),
    Column("its_chi2_ncl", _F, "", "its", "no ITS", "fITSChi2NCl", "ITS χ² per cluster"),
    Column("tpc_signal", _F, "arb.", "tpc", "no TPC", "fTPCSignal", "TPC dE/dx"),
    Column("tpc_inner_param", _F, "GeV/c", "tpc", "no TPC", "fTPCInnerParam", "momentum at the inner TPC wall"),
    Column("tpc_n_cls_findable", _I16, "", "tpc", "no TPC", "fTPCNClsFindable", "findable TPC clusters"),
    Column("tpc_n_cls_found", _I16, "", "tpc", "no TPC", "fTPCNClsFound", "found TPC clusters"),
    Column("tpc_n_crossed_rows", _I16, "", "tpc", "no TPC", "fTPCNClsCrossedRows", "crossed TPC pad rows"),
    Column("tpc_n_cls_shared", _I16, "", "tpc", "no TPC", "fTPCNClsShared", "shared TPC clusters"),
    Column("tpc_chi2_ncl", _F, "", "tpc", "no TPC", "fTPCChi2NCl", "TPC χ² per cluster"),
    Column("trd_signal", _F, "arb.", "trd", _NO_TRD, "fTRDSignal", "TRD dE/dx"),
    Column("trd_pattern", _I16, "", "trd", _NO_TRD, "fTRDPattern", "bit map of TRD layers with a tracklet"),
    Column("trd_chi2", _F, "", "trd", _NO_TRD, "fTRDChi2", "TRD matching χ²"),
    Column("tof_signal", _F, "ps", "tof", _NO_TOF, "fTOFSignal", "time of flight before event-time subtraction"),
    Column("tof_event_time", _F, "ps", "tof", _NO_TOF, None, "event time that β and nσ subtract", _EVENT_TIME),
    Column("tof_event_time_error", _F, "ps", "tof", _NO_TOF + ", or unknown", None, "its resolution", _EVENT_TIME),
    Column("beta", _F, "", "tof", _NO_TOF, "fBeta", "velocity over c", _EVENT_TIME),
    Column("tof_chi2", _F, "", "tof", _NO_TOF, "fTOFChi2", "TOF matching χ²"),
    Column("tof_exp_mom", _F, "GeV/c", "tof", _NO_TOF, "fTOFExpMom", "momentum used for the expected time"),
    Column("length", _F, "cm", "tof", _NO_TOF, "fLength", "track length to the TOF"),
)

_TRUTH = (
    Column("pdg_code", _I32, "", "truth", "data, or a fake label", None, "PDG code of the generated particle"),
    Column("is_physical_primary", pa.bool_(), "", "truth", "as pdg_code", None, "generator's physical primary"),
    Column("mother_pdg_code", _I32, "", "truth", "as pdg_code, or no mother", None, "PDG code of the mother"),
)

COLUMNS: tuple[Column, ...] = _IDENTITY + _TRACK + _DETECTORS + _TRUTH
"""Columns that a reader writes, in order."""


def _nsigma(detector: Literal["tpc", "tof"], missing: str) -> tuple[Column, ...]:
    return tuple(
        Column(
            f"{detector}_nsigma_{s.key}",
            _F,
            "σ",
            detector,
            missing,
            f"f{detector.upper()}NSigma{s.key.capitalize()}",
            f"deviation from the expected {detector.upper()} signal of {s.key}",
            "the response is fitted to the run's own simulation",
        )
        for s in SPECIES
    )


DATASET_COLUMNS: tuple[Column, ...] = (
    *COLUMNS,
    *_nsigma("tpc", "no TPC"),
    *_nsigma("tof", "no TOF match"),
    Column("split", pa.string(), "", "id", MISSING_NEVER, None, "train, validation or test"),
)
"""Columns of the dataset: selected tracks with masks applied, nσ and the split.

There ``has_trd`` and ``has_tof`` tell what the model may see: false below the mask's momentum too.
"""

WEIGHT = Column(
    "weight", _F, "", "id", "in a sample that was not adapted", None, "how much a simulated track counts as data"
)
"""In a simulated dataset that was adapted to data."""

ROW_ID: tuple[str, ...] = ("source", "data_frame", "row")
BY_NAME: dict[str, Column] = {column.name: column for column in DATASET_COLUMNS}

O2_MASKED: dict[str, tuple[str, ...]] = {
    "trd": ("trd_signal", "trd_pattern"),
    "tof": ("tof_signal", "beta"),
}
"""Features that O2Physics itself hands to the model as NaN, by detector.

Source: O2Physics ``Tools/PIDML/pidOnnxModel.h``. Any other absent value reaches the model as the
framework's sentinel.
"""

DETECTOR_PATTERNS: tuple[str, ...] = ("TPC", "TPC+TRD", "TPC+TOF", "TPC+TRD+TOF")
"""Detector patterns of a selected track, by index ``has_trd + 2 * has_tof`` after the masks."""


def schema(columns: tuple[Column, ...] = COLUMNS) -> pa.Schema:
    """Return the Arrow schema of a track table (or of the dataset, given its columns)."""
    return pa.schema([pa.field(column.name, column.dtype) for column in columns])


def o2_label(name: str) -> str:
    """Return the label under which O2Physics delivers a feature; the plain name if it has none."""
    return BY_NAME[name].o2 or name
