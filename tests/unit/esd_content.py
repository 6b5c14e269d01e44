"""What the ESD fixtures hold: three versions of AliRoot's classes, and numbers that each stores without loss.

`tests/fixtures/write_esd.py` writes it with ROOT; the tests compare what the reader returns with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RUN = 123456
BZ = -5.0
"""kG, in the sense of the reader; AliRoot before 2009 stores its opposite."""

SIZES = np.array([4, 0, 7, 1, 9, 3, 0, 6, 14, 2])
"""Tracks per event."""

EVENTS, TRACKS = len(SIZES), int(SIZES.sum())
EVENT = np.repeat(np.arange(EVENTS), SIZES)
ROW = np.concatenate([np.arange(size) for size in SIZES])

TOF_OUT, TIME = 0x2000, 0x80000000
C_CM_PER_PS = 0.0299792458
PION_MASS = 0.13957039
NO_TOF = 99999.0
T0_SPREAD = 62.5

PARTICLE, TRACK, EXTERNAL, VERTEX_BASE = "AliVParticle", "AliVTrack", "AliExternalTrackParam", "AliVertex"
_FIVE = "Double32_t fX; Double32_t fAlpha; Double32_t fP[5]; Double32_t fC[15];"
_VERTEX = "Double32_t fPosition[3]; Double32_t fSigma; Int_t fNContributors;"
_TPC_MAPS = "TBits fTPCClusterMap; TBits fTPCSharedMap;"
_COMMON = "ULong64_t fFlags; Int_t fID; Int_t fLabel; UChar_t fITSClusterMap; UShort_t fTPCnclsF;"


@dataclass(frozen=True)
class Version:
    """One version of the classes.

    Attributes
    ----------
    name, dot, compression
        Name of the file's stem; what ends the names of branches of objects; ROOT's number of the algorithm
        and level.
    classes
        Name, version, base class and members of each class, in C++; what stands after ``//`` in a member's
        line is ROOT's description of how it is stored.
    """

    name: str
    dot: str
    compression: int
    classes: tuple[tuple[str, int, str, str], ...]

    def members(self, class_name: str) -> str:
        """Return the members of a class."""
        return next(members for name, _, _, members in self.classes if name == class_name)


OLD = Version(
    "v37_2007",
    "",
    101,
    (
        (EXTERNAL, 6, "TObject", _FIVE),
        (
            "AliESDtrack",
            37,
            EXTERNAL,
            f"{_COMMON} {EXTERNAL} *fIp; Float_t fTrackLength; Float_t fTrackTime[5]; Float_t fR[5];"
            "Float_t fITSchi2; Int_t fITSncls; Float_t fITSsignal; Float_t fTPCchi2; Int_t fTPCncls;"
            "TBits fTPCClusterMap; Float_t fTPCsignal; Float_t fTRDchi2; Float_t fTRDsignal;"
            "Float_t fTRDsignals[6][3]; Float_t fTOFsignal;",
        ),
        (VERTEX_BASE, 2, "TNamed", _VERTEX),
        ("AliESDVertex", 6, VERTEX_BASE, "Double32_t fCovXX;"),
        ("AliESDRun", 1, "TObject", "Int_t fRunNumber; Int_t fPeriodNumber; Float_t fMagneticField;"),
    ),
)

_PACKED = f"""{_COMMON}
{EXTERNAL} *fIp; {EXTERNAL} *fTPCInner; {_TPC_MAPS}
Double32_t fITSchi2; // [0.,0.,8]
Double32_t fTPCchi2; // [0.,0.,8]
Double32_t fTRDchi2; // [0.,0.,8]
Double32_t fITSsignal; // [0.,0.,10]
Double32_t fTPCsignal; // [0.,0.,10]
Double32_t fHMPIDtrkPhi; // [-2*pi,2*pi,16]
Double32_t fTRDsignal; Char_t fITSncls; UShort_t fTPCncls; Int_t fTRDnSlices;
Double32_t *fTRDslices; // [fTRDnSlices]
"""

MIDDLE = Version(
    "v56_2011",
    ".",
    404,
    (
        (PARTICLE, 1, "TObject", ""),
        (TRACK, 1, PARTICLE, ""),
        (EXTERNAL, 8, TRACK, _FIVE),
        (
            "AliESDtrack",
            56,
            EXTERNAL,
            f"""{_PACKED}
            Double32_t fR[5]; // [0.,0.,8]
            Double32_t fTPCr[5]; // [0.,0.,8]
            Double32_t fTrackTime[5]; Double32_t fTrackLength; Double32_t fTOFsignal;
            Double32_t fTOFsignalDx; Double32_t fTOFsignalDz;""",
        ),
        (VERTEX_BASE, 4, "TNamed", _VERTEX),
        ("AliESDVertex", 6, VERTEX_BASE, "Double32_t fCovXX;"),
        (
            "AliESDRun",
            6,
            "TObject",
            "Float_t fCurrentL3; Double32_t fMagneticField; Int_t fRunNumber; Float_t fT0spread[4];",
        ),
    ),
)

NEW = Version(
    "v74_2016",
    ".",
    505,
    (
        (PARTICLE, 4, "TObject", ""),
        *MIDDLE.classes[1:3],
        (
            "AliESDtrack",
            74,
            EXTERNAL,
            f"""{_PACKED}
            Double32_t fITSdEdxSamples[4]; // [0.,0.,10]
            Int_t fNtofClusters;
            Int_t *fTOFcluster; // [fNtofClusters]
            """,
        ),
        *MIDDLE.classes[4:7],
        ("AliTOFHeader", 4, "TObject", "Float_t fT0spread;"),
        (
            "AliESDTOFCluster",
            1,
            "TObject",
            "Int_t fID; Char_t fNTOFhits; Char_t fNmatchableTracks; Int_t fHitIndex[4]; Int_t fMatchIndex[7];",
        ),
        ("AliESDTOFHit", 1, "TObject", "Double32_t fTime; Int_t fTOFchannel;"),
        (
            "AliESDTOFMatch",
            1,
            "TObject",
            "Double32_t fDx; Double32_t fDz; Double32_t fTrackLength; Double32_t fIntegratedTimes[9];",
        ),
    ),
)

VERSIONS = {version.name: version for version in (OLD, MIDDLE, NEW)}
MISSING_BASE = ("AliVTrack", 3)
"""In the newest file this class says that it derives from a version of `PARTICLE` that is not described."""

KINEMATICS_COMPRESSION = 207


def _float32(values: Any) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float32).astype(np.float64)


@dataclass(frozen=True)
class Content:
    """Values of one file.

    Attributes
    ----------
    tracks
        Members of ``AliESDtrack`` by name, [TRACKS, …]; without pointers, bit maps and lists.
    inner, tpc_inner
        x, alpha, five parameters, 15 covariances, float64 [TRACKS, 22]; NaN for a null pointer.
    clusters, shared
        Bit maps of 159 pad rows, bool [TRACKS, 159].
    slices
        Charges in the TRD, one array per track, empty without TRD.
    tof_signal, length, times, distance
        Time of flight, ps, cm, ps [TRACKS, 9], cm; NaN without.
    vertices
        By name of the branch: position [EVENTS, 3], contributors [EVENTS], title [EVENTS].
    vertex
        The one that counts, [EVENTS, 3].
    """

    tracks: dict[str, NDArray[Any]]
    inner: NDArray[np.float64]
    tpc_inner: NDArray[np.float64]
    clusters: NDArray[np.bool_]
    shared: NDArray[np.bool_]
    slices: tuple[NDArray[np.float64], ...]
    tof_signal: NDArray[np.float64]
    length: NDArray[np.float64]
    times: NDArray[np.float64]
    distance: NDArray[np.float64]
    vertices: dict[str, tuple[NDArray[np.float64], NDArray[np.int64], list[str]]]
    vertex: NDArray[np.float64]

    def has_tof(self) -> NDArray[np.bool_]:
        """Return which tracks were matched and have integrated times."""
        both = TOF_OUT | TIME
        return np.asarray((self.tracks["fFlags"] & both) == both)


def content(version: Version) -> Content:
    """Return what the file of a version holds."""
    rng = np.random.default_rng(len(version.classes))
    n = TRACKS
    its, tpc, trd, tof = (rng.random(n) < share for share in (0.8, 0.85, 0.5, 0.5))
    parameters = _float32(
        np.stack(
            [
                rng.normal(0, 0.3, n), rng.uniform(-np.pi, np.pi, n), rng.normal(0, 0.5, n), rng.normal(0, 4, n),
                rng.uniform(-0.1, 0.1, n), rng.uniform(-0.9, 0.9, n), rng.choice([-1, 1], n) / rng.uniform(0.2, 4, n),
            ],
            axis=1,
        )
    )  # fmt: skip
    covariance = _float32(rng.uniform(0, 1e-3, (n, 15)))
    inner = np.hstack([parameters, covariance])
    inner[:, 0], inner[:, 6] = _float32(83.65), _float32(parameters[:, 6] * 1.01)
    inner[~tpc] = np.nan
    tpc_inner = inner.copy()
    tpc_inner[:, 6] = _float32(inner[:, 6] * 0.98)

    clusters = np.zeros((n, 159), dtype=bool)
    clusters[tpc] = rng.random((tpc.sum(), 159)) < rng.uniform(0.2, 1, tpc.sum())[:, None]
    shared = clusters & (rng.random((n, 159)) < 0.1)
    its_map = np.where(its, rng.integers(1, 64, n), 0)
    matched = tof & tpc
    flags = np.where(its, 0x5, 0) | np.where(tpc, 0x50, 0)
    flags |= np.where(matched, TOF_OUT, 0) | np.where(rng.random(n) < 0.9, TIME, 0)
    length = np.where(matched, _float32(rng.uniform(370, 500, n)), np.nan)
    momentum = 1.0 / np.abs(parameters[:, 6]) * np.hypot(1, parameters[:, 5])
    masses = np.array([0.000511, 0.10566, PION_MASS, 0.493677, 0.938272, 1.875613, 2.808921, 2.808392, 3.727379])
    times = _float32(length[:, None] / C_CM_PER_PS * np.hypot(1, masses / momentum[:, None]))
    slow = np.flatnonzero(matched)[::5]
    times[slow, 2] = _float32(length[slow] / C_CM_PER_PS * 0.99)
    signal = _float32(times[:, 2] + rng.normal(0, 90, n))
    sizes = {"v37_2007": 0, "v56_2011": 48, "v74_2016": 60}[version.name]
    charges = [_slices(rng, sizes) if on else np.empty(0) for on in trd & tpc]
    signals = np.where((trd & tpc)[:, None, None], _float32(rng.uniform(0, 100, (n, 6, 3))), 0.0)
    signals[rng.random((n, 6)) < 0.4] = -1.0

    def packed(on: NDArray[np.bool_], scale: float) -> NDArray[np.float64]:
        return np.where(on, rng.integers(1, 256, n) * scale, 0.0)

    tracks = {
        "fX": parameters[:, 0],
        "fAlpha": parameters[:, 1],
        "fP": parameters[:, 2:],
        "fC": covariance,
        "fFlags": flags,
        "fID": ROW * 3 + 1,
        "fLabel": labels(),
        "fITSClusterMap": its_map,
        "fITSncls": np.bitwise_count(its_map),
        "fITSchi2": packed(its, 0.125),
        "fITSsignal": packed(its, 0.5),
        "fTPCncls": clusters.sum(axis=1),
        "fTPCnclsF": np.where(tpc, np.minimum(clusters.sum(axis=1) + rng.integers(1, 9, n), 159), 0),
        "fTPCchi2": packed(tpc, 2.0),
        "fTPCsignal": packed(tpc, 1.0),
        "fTRDchi2": packed(trd, 0.25),
        "fTRDsignal": packed(trd, 0.0625),
        "fTRDsignals": signals,
        "fR": rng.integers(1, 256, (n, 5)) / 256,
        "fTPCr": rng.integers(1, 256, (n, 5)) / 512,
        "fITSdEdxSamples": rng.integers(0, 256, (n, 4)) * 0.25,
        "fHMPIDtrkPhi": rng.integers(0, 1 << 16, n) / (1 << 16) * 4 * np.pi - 2 * np.pi,
        "fTrackTime": np.nan_to_num(times[:, :5]),
        "fTrackLength": np.nan_to_num(length),
        "fTOFsignal": np.where(matched, signal, NO_TOF),
        "fTOFsignalDx": _float32(rng.normal(0, 2, n)),
        "fTOFsignalDz": _float32(rng.normal(0, 2, n)),
    }
    distance = np.where(matched, np.hypot(tracks["fTOFsignalDx"], tracks["fTOFsignalDz"]), np.nan)
    if version is OLD:
        distance[:] = np.nan
    vertices, vertex = _vertices(rng, version)
    return Content(
        tracks, inner, tpc_inner, clusters, shared, tuple(charges), signal, length, times, distance, vertices, vertex
    )


def _slices(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    charges = _float32(rng.uniform(1, 2000, size))
    planes = charges[:48].reshape(6, -1) if size else charges.reshape(6, 0)
    planes[rng.random(6) < 0.4] = -1.0
    return charges


def _vertices(
    rng: np.random.Generator, version: Version
) -> tuple[dict[str, tuple[NDArray[np.float64], NDArray[np.int64], list[str]]], NDArray[np.float64]]:
    names = ("PrimaryVertex", "SPDVertex") if version is OLD else ("PrimaryVertex", "SPDVertex", "TPCVertex")
    vertices = {name: (_float32(rng.normal(0, [0.1, 0.1, 5.0], (EVENTS, 3))), np.full(EVENTS, 4), [""] * EVENTS)
                for name in names}  # fmt: skip
    vertex = vertices["PrimaryVertex"][0].copy()
    for event, branches in ((2, ("PrimaryVertex",)), (4, ("PrimaryVertex", "SPDVertex")), (7, ("PrimaryVertex",))):
        for name in branches:
            vertices[name][1][event] = 0 if event == 2 else -1
    vertices["PrimaryVertex"][2][7] = "vertexer: smearMC"
    vertices[names[-1]][1][4] = 0
    vertex[2] = vertices["SPDVertex"][0][2]
    vertex[4] = vertices[names[-1]][0][4]
    return vertices, vertex


def tof_arrays(values: Content) -> dict[str, list[dict[str, NDArray[Any]]]]:
    """Return the TOF's arrays of the newest version, by class and event, and each track's clusters.

    A matched track's first cluster lies after one that no track has, and has a match with another track before
    and after its own.
    """
    found: dict[str, list[dict[str, NDArray[Any]]]] = {
        name: [] for name in ("clusters", "AliESDTOFCluster", "AliESDTOFHit", "AliESDTOFMatch")
    }
    for event in range(EVENTS):
        rows = np.flatnonzero((event == EVENT) & np.isfinite(values.length))
        k = len(rows)
        of_track = [np.empty(0, dtype=int) for _ in range(SIZES[event])]
        for slot, row in enumerate(ROW[rows]):
            of_track[row] = np.array([slot + 1, 0])
        hits = np.arange(k + 1)[::-1]
        match_index = np.full((k + 1, 7), -1)
        match_index[1:, :3] = np.arange(3 * k).reshape(k, 3)
        own = np.arange(k) * 3 + 1
        track_id = np.full(3 * k, 999)
        track_id[own] = values.tracks["fID"][rows]
        lengths, times = np.full(3 * k, 1.0), np.full((3 * k, 9), 2.0)
        lengths[own], times[own] = values.length[rows], values.times[rows]
        dx, dz = np.full(3 * k, 50.0), np.full(3 * k, 50.0)
        dx[own], dz[own] = values.tracks["fTOFsignalDx"][rows], values.tracks["fTOFsignalDz"][rows]
        hit_index = np.full((k + 1, 4), -1)
        hit_index[:, 0] = hits
        found["clusters"].append({"fTOFcluster": of_track})
        found["AliESDTOFCluster"].append(
            {
                "fID": np.arange(k + 1),
                "fNTOFhits": np.ones(k + 1),
                "fNmatchableTracks": np.array([0] + [3] * k),
                "fHitIndex": hit_index,
                "fMatchIndex": match_index,
            }
        )
        time = np.full(k + 1, 7.0)
        time[hits[1:]] = values.tof_signal[rows]
        found["AliESDTOFHit"].append({"fTime": time, "fTOFchannel": np.arange(k + 1)})
        found["AliESDTOFMatch"].append(
            {"fUniqueID": track_id, "fDx": dx, "fDz": dz, "fTrackLength": lengths, "fIntegratedTimes": times}
        )
    return found


def labels() -> NDArray[np.int64]:
    """Return the label of each track: among its event's particles, every seventh negative (fake)."""
    counts = np.array([len(particles(event)["pdg"]) for event in range(EVENTS)])
    label = (np.arange(TRACKS) * 5 + 2) % counts[EVENT]
    return np.where(np.arange(TRACKS) % 7 == 3, -label - 1, label)


def particles(event: int) -> dict[str, NDArray[np.int64]]:
    """Return the particles of an event by label: code, status, mother, and whether they are physical primaries.

    The first ``n_primaries`` are the generator's.
    """
    rows = [
        (2212, 21, -1, False),  # a beam particle
        (3212, 11, 0, False),  # a Σ⁰, decayed by the generator
        (211, 1, 0, True),
        (-11, 1, 0, True),
        (130, 11, 0, True),  # a K⁰L that the generator decayed …
        (-211, 1, 4, False),  # … and what came of it
        (421, 11, 0, False),  # a D⁰ that transport decays
        (3122, 1, 0, True),
        (1000010020, 1, 0, True),
        (111, 11, 0, False),
    ][: 10 - event % 2]
    n_primaries = len(rows)
    rows += [
        (2212, 1, 7, False),  # of the Λ
        (-211, 1, 7, False),
        (-321, 1, 6, True),  # of the D⁰
        (211, 1, 6, True),
        (13, 1, n_primaries + 3, False),  # of the D⁰'s pion
        (3122, 1, 1, True),  # of the Σ⁰
        (22, 1, 9, True) if n_primaries == 10 else (22, 1, 2, False),
        (11, 1, n_primaries + 6, False),  # a conversion
        (999, 1, 2, False),
        (411, 1, 6, False),  # a heavy hadron of the D⁰ …
        (321, 1, n_primaries + 9, True),  # … and what came of it
        (421, 1, 2, False),  # a heavy hadron of an interaction in the material …
        (-321, 1, n_primaries + 11, False),  # … and what came of it
    ]
    pdg, status, mother, primary = (np.array(column) for column in zip(*rows, strict=True))
    return {"pdg": pdg, "status": status, "mother": mother, "primary": primary, "n_primaries": np.array(n_primaries)}
