"""The raw AO2D layout: trees, leaves, types, sentinels and truncated mantissas.

Facts from AliceO2 ``Framework/Core/include/Framework/AnalysisDataModel.h`` and
``Detectors/AOD/src/AODProducerWorkflowSpec.cxx``. The real files also hold a ``metaData`` map
(TMap) and tables that no particle identification needs (covariances, calorimeters, muons); uproot
cannot write the former, and the latter are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import awkward as ak
import numpy as np
import uproot
from numpy.typing import NDArray

Table = Mapping[str, NDArray[Any] | ak.Array]

ABSENT = -999.0
"""What Run 3 writes for a float that a detector did not deliver."""

NO_INDEX = -1

PION = 2
"""Index of the pion among O2's track hypotheses (AliceO2 ``ReconstructionDataFormats/PID.h``)."""

PID_SHIFT = 28
"""First bit of the track hypothesis in ``fFlags``."""

PV_CONTRIBUTOR = 2
ORPHAN_TRACK = 4
"""Bits of ``fFlags``."""

FAKE_LABEL = 1 << 15
"""Bit of ``fMcMask``."""

_MOTHERS = "fIndexArray_Mothers"
_VERTEX = ("fVx", "fVy", "fVz", "fVt")
_COVARIANCE = ("fCovXX", "fCovXY", "fCovYY", "fCovXZ", "fCovYZ", "fCovZZ")


def _leaves(names: str | tuple[str, ...], dtype: str) -> dict[str, np.dtype[Any]]:
    return {name: np.dtype(dtype) for name in (names.split() if isinstance(names, str) else names)}


TREES: dict[str, dict[str, np.dtype[Any]]] = {
    "O2bc_001": _leaves("fRunNumber", "i4") | _leaves("fGlobalBC fTriggerMask fInputMask", "u8"),
    "O2collision_001": _leaves("fIndexBCs", "i4")
    | _leaves("fPosX fPosY fPosZ", "f4")
    | _leaves(_COVARIANCE, "f4")
    | _leaves("fFlags", "u2")
    | _leaves("fChi2", "f4")
    | _leaves("fNumContrib", "u2")
    | _leaves("fCollisionTime fCollisionTimeRes", "f4"),
    "O2track_iu": _leaves("fIndexCollisions", "i4")
    | _leaves("fTrackType", "u1")
    | _leaves("fX fAlpha fY fZ fSnp fTgl fSigned1Pt", "f4"),
    "O2trackextra_002": _leaves("fTPCInnerParam", "f4")
    | _leaves("fFlags fITSClusterSizes", "u4")
    | _leaves("fTPCNClsFindable", "u1")
    | _leaves("fTPCNClsFindableMinusFound fTPCNClsFindableMinusPID fTPCNClsFindableMinusCrossedRows", "i1")
    | _leaves("fTPCNClsShared fTRDPattern", "u1")
    | _leaves("fITSChi2NCl fTPCChi2NCl fTRDChi2 fTOFChi2 fTPCSignal fTRDSignal fLength fTOFExpMom", "f4")
    | _leaves("fTrackEtaEMCAL fTrackPhiEMCAL fTrackTime fTrackTimeRes", "f4"),
    "O2mctracklabel": _leaves("fIndexMcParticles", "i4") | _leaves("fMcMask", "u2"),
    "O2mccollision": _leaves("fIndexBCs", "i4")
    | _leaves("fGeneratorsID", "i2")
    | _leaves("fPosX fPosY fPosZ fT fWeight fImpactParameter", "f4"),
    "O2mccollisionlabel": _leaves("fIndexMcCollisions", "i4") | _leaves("fMcMask", "u2"),
    "O2mcparticle_001": _leaves("fIndexMcCollisions fPdgCode fStatusCode", "i4")
    | _leaves("fFlags", "u1")
    | {_MOTHERS: np.dtype("i4"), "fIndexSlice_Daughters": np.dtype(("i4", (2,)))}
    | _leaves(("fWeight", "fPx", "fPy", "fPz", "fE", *_VERTEX), "f4"),
}
"""Leaves by tree, in stored order; the mothers are a jagged array with its own counter."""

_MASKS = {
    0xFFFFFC00: ("fSigned1Pt",),
    0xFFFFFFF0: ("fX", "fAlpha"),
    0xFFFFFF00: [
        "fSnp",
        "fTgl",
        "fTPCInnerParam",
        "fITSChi2NCl",
        "fTPCChi2NCl",
        "fTRDChi2",
        "fTOFChi2",
        "fTPCSignal",
        "fTRDSignal",
        "fLength",
        "fTOFExpMom",
    ],
}
MANTISSA = {name: np.uint32(mask) for mask, names in _MASKS.items() for name in names}
"""Bits of the float that are kept on writing: 13 of the mantissa for 1/pT, 15 for signals."""


def stored(name: str, values: NDArray[Any]) -> NDArray[np.float32]:
    """Return a float leaf as it will be read back: float32, mantissa truncated, NaN made `ABSENT`."""
    single = np.where(np.isnan(values), ABSENT, values).astype(np.float32)
    if name in MANTISSA:
        single = (single.view(np.uint32) & MANTISSA[name]).view(np.float32)
    return np.where(np.isnan(values), np.float32(ABSENT), single).astype(np.float32)


def write_frame(file: uproot.WritableDirectory, number: int, tables: Mapping[str, Table]) -> None:
    """Write one ``DF_<number>`` folder.

    Parameters
    ----------
    file
        An open ROOT file.
    number
        Run number in the upper 32 bits, a counter in the lower.
    tables
        Columns by leaf name, by tree. Float leaves may be of any precision.
    """
    for name, table in tables.items():
        leaves = TREES[name]
        if set(table) != set(leaves):
            raise ValueError(f"tree {name} needs exactly the leaves {sorted(leaves)}, got {sorted(table)}")
        types = {leaf: "var * int32" if leaf == _MOTHERS else dtype for leaf, dtype in leaves.items()}
        tree = file.mktree(f"DF_{number}/{name}", types, counter_name=lambda counted: f"{counted}_size")
        tree.extend({leaf: _column(leaf, dtype, table[leaf]) for leaf, dtype in leaves.items()})


def _column(leaf: str, dtype: np.dtype[Any], values: NDArray[Any] | ak.Array) -> NDArray[Any] | ak.Array:
    if leaf == _MOTHERS:
        return values
    return stored(leaf, values) if dtype == np.float32 else np.asarray(values).astype(dtype.base)


def jagged_mothers(mother: NDArray[np.int64]) -> ak.Array:
    """Return the mothers as lists of one or none."""
    has = mother >= 0
    return ak.unflatten(mother[has].astype(np.int32), has.astype(np.int64))
