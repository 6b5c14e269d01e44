"""Reader of ESD files (``AliESDs.root``) of Run 1 and Run 2, simulation and data.

What a track holds, and the quantities made of it, follow AliRoot ``STEER/ESD`` and the conversion of ESD to
AO2D, AliPhysics ``RUN3/AliAnalysisTaskAO2Dconverter.cxx``. Versions of the classes are told apart by the
branches that a file has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pidflow.errors import PidflowError
from pidflow.identity import collision_ids
from pidflow.ingest.esd_members import Bits, Counts, EsdTree, Ragged
from pidflow.ingest.frames import fingerprint
from pidflow.ingest.helix import Array, TrackParameters
from pidflow.ingest.kinematics import kinematics
from pidflow.ingest.kinematics_file import KinematicsFile
from pidflow.ingest.reader import Columns, Piece, Reader, Request, masked_unless, recorded
from pidflow.ingest.rootfile import RootFile, damage_told
from pidflow.ingest.table import to_table
from pidflow.ingest.tof import TRACKING_MASS, tof_columns
from pidflow.ingest.v0_finder import v0_table
from pidflow.physics import C_CM_PER_PS

TRACKS_PER_UNIT = 50_000
"""A unit is as many events as have this many tracks together, at least one: some 100 MB while it is read."""

MEMBERS = (
    "fX", "fAlpha", "fP", "fC", "fFlags", "fID", "fLabel", "fITSncls", "fITSClusterMap", "fITSsignal", "fITSchi2",
    "fTPCncls", "fTPCnclsF", "fTPCsignal", "fTPCchi2", "fTRDsignal", "fTRDchi2",
)  # fmt: skip
"""Members of ``AliESDtrack`` that every version has."""

_TOF_IN_TRACK = ("fTOFsignal", "fTrackTime", "fTrackLength")
_CLUSTERS, _HITS, _MATCHES = "AliESDTOFCluster", "AliESDTOFHit", "AliESDTOFMatch"

_TOF_OUT, _TIME = 0x2000, 0x80000000
_NO_TOF_SIGNAL = 99999.0
"""ps; ``AliESDtrack`` before 2014 holds this without a TOF hit."""

_PION = 2
_TRD_PLANES = 6
_TRD_MOMENTA = 2 * _TRD_PLANES
_TRD_WITHOUT_MOMENTA = (3 * _TRD_PLANES, 8 * _TRD_PLANES)
"""Lengths of lists that hold charges alone."""

_PIXEL_LAYERS = 0b11
_SIGMA_1PT2 = 14
_FIELD_TOLERANCE = 0.01


@dataclass(frozen=True)
class Events:
    """Events of a unit.

    Attributes
    ----------
    start, stop
        First entry, and the one after the last.
    sizes
        Number of tracks of each, int64 [events].
    vertex
        Primary vertex, cm, float64 [events, 3]; NaN where there is none.
    time_spread
        Spread of the collision time about 0, ps, float64 [events]; infinite where unknown.
    """

    start: int
    stop: int
    sizes: Counts
    vertex: Array
    time_spread: Array


@dataclass(frozen=True)
class Tracks:
    """Tracks of a unit as the file holds them, in the order of the events.

    Attributes
    ----------
    event
        Index of each track's event within the unit, [n].
    row
        Index in its event, [n].
    members
        `MEMBERS` and, where the file has them, others, [n, …].
    inner
        Parameters at the inner wall of the TPC (``fIp``: x, alpha, five parameters, 15 covariances), float64
        [n, 22]; NaN without TPC.
    clusters, shared
        Pad rows of the TPC with a cluster, and with a shared one; None if the file has no such map.
    trd_slices
        Charges in the TRD, plane by plane; None if the file has no such lists.
    """

    event: NDArray[np.int64]
    row: NDArray[np.int64]
    members: Columns
    inner: Array
    clusters: Bits | None
    shared: Bits | None
    trd_slices: Ragged | None

    def parameters(self) -> TrackParameters:
        """Return the track parameters."""
        y, z, snp, tgl, q_over_pt = self.members["fP"].astype(np.float64).T
        x, alpha = (self.members[name].astype(np.float64) for name in ("fX", "fAlpha"))
        return TrackParameters(x, y, z, alpha, snp, tgl, q_over_pt)


@dataclass(frozen=True)
class Tof:
    """Time of flight of the tracks of a unit, float64 [n]; NaN where a track has none.

    Attributes
    ----------
    signal, length
        ps and cm.
    pion_time
        Expected time of a pion, ps.
    distance
        Distance of the track from the TOF cluster, cm; NaN if the file does not hold it.
    """

    signal: Array
    length: Array
    pion_time: Array
    distance: Array

    def momentum(self) -> Array:
        """Return the momentum that gives the pion its expected time, GeV/c; NaN for one at the speed of light.

        As ``fTOFExpMom`` of AliAnalysisTaskAO2Dconverter.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            beta = self.length / (self.pion_time * C_CM_PER_PS)
            momentum = TRACKING_MASS[_PION] * beta / np.sqrt(1.0 - beta**2)
        return np.where((self.pion_time > 0) & (beta > 0) & (beta < 1), momentum, np.nan)


class EsdFile(Reader):
    """One ``AliESDs.root``; a unit is a range of events.

    Truth comes from the ``Kinematics.root`` in the same folder.
    """

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self._file = RootFile(request.path)
        self._opened: EsdTree | None = None
        self._truth = KinematicsFile(request.path) if request.simulation else None

    def units(self) -> list[tuple[int, int]]:
        """Return ranges of events of about `TRACKS_PER_UNIT` tracks each, as (first, one after the last)."""
        with damage_told(self.request.path):
            tree = self._tree()
            if self._truth is not None:
                self._truth.require_events(tree.events)
            return event_ranges(tree.sizes("Tracks", 0, tree.events))

    def read(self, unit: tuple[int, int]) -> Piece:
        """Read a range of events."""
        with damage_told(self.request.path):
            tree = self._tree()
            events = read_events(tree, *unit)
            self._check_run(tree, events)
            return self._piece(tree, events)

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._truth is not None:
            self._truth.close()

    def _tree(self) -> EsdTree:
        if self._opened is None:
            self._opened = EsdTree(self.request.path, self._file.handle())
        return self._opened

    def _check_run(self, tree: EsdTree, events: Events) -> None:
        request = self.request
        runs = np.unique(tree.per_event("AliESDRun", "fRunNumber", events.start, events.stop))
        if len(runs) and runs.tolist() != [request.run]:
            found = ", ".join(str(run) for run in runs[:3])
            raise PidflowError(f"{request.path} belongs to run {found}, not {request.run}; list it under its own run")
        field = magnetic_field(tree, events.start, events.stop)
        off = ~(np.abs(field - request.bz) <= _FIELD_TOLERANCE * abs(request.bz))
        if off.any():
            raise PidflowError(
                f"{request.path}: its field is {field[off][0]:.4g} kG, that of the run table {request.bz:.4g}; "
                "correct 'bz' in the run table"
            )

    def _piece(self, tree: EsdTree, events: Events) -> Piece:
        request = self.request
        tracks = read_tracks(tree, events)
        parameters = tracks.parameters()
        vertex = events.vertex[tracks.event]
        collides = np.isfinite(vertex).all(axis=1)
        usable = parameters.usable()
        kept = np.flatnonzero(collides & usable)
        counts = {
            "data_frames": events.stop - events.start,
            "collisions": events.stop - events.start,
            "tracks": len(tracks.row),
            "without_collision": int((~collides).sum()),
            "without_parameters": int((collides & ~usable).sum()),
            "fake_labels": 0,
        }
        entry = events.start + tracks.event
        identity: Columns = {
            "source": request.source,
            "data_frame": entry[kept],
            "row": tracks.row[kept].astype(np.int32),
            "run": np.full(len(kept), request.run, dtype=np.int32),
            "collision_id": collision_ids(request.source, 0, entry[kept]),
        }
        parameters = parameters[kept]
        at_vertex = kinematics(parameters, vertex[kept], request.bz)
        detectors = its_columns(tracks) | tpc_columns(tracks) | trd_columns(tracks)
        variance = tracks.members["fC"][:, _SIGMA_1PT2].astype(np.float64)
        detectors["sigma_1pt"] = np.sqrt(np.where(variance > 0, variance, np.nan))
        detectors = {name: values[kept] for name, values in detectors.items()}
        v0s = v0_table(
            parameters,
            identity,
            collision=tracks.event[kept],
            vertex=events.vertex,
            dca_xy=at_vertex["dca_xy"],
            candidate=detectors["has_tpc"],
            bz=request.bz,
            settings=request.settings.v0,
        )
        truth: Columns = {}
        if self._truth is not None:
            truth, counts["fake_labels"] = self._truth.truth(entry[kept], tracks.members["fLabel"][kept])
        name = f"events {events.start}-{events.stop - 1}"
        return Piece(
            to_table(identity | at_vertex | detectors | _tof_columns(tree, events, tracks, kept) | truth),
            counts,
            {name: fingerprint(tracks.members["fP"])} if len(tracks.row) else {},
            v0s,
        )


def event_ranges(sizes: Counts, tracks_per_unit: int = TRACKS_PER_UNIT) -> list[tuple[int, int]]:
    """Return ranges of events, (first, one after the last).

    Parameters
    ----------
    sizes
        Number of tracks of each event, [events].
    tracks_per_unit
        A range ends with the event that brings it to as many tracks.
    """
    ranges, first, tracks = [], 0, 0
    for event, size in enumerate(sizes.tolist()):
        tracks += size
        if tracks >= tracks_per_unit or event == len(sizes) - 1:
            ranges.append((first, event + 1))
            first, tracks = event + 1, 0
    return ranges


def magnetic_field(tree: EsdTree, start: int, stop: int) -> Array:
    """Return the field along the beam in kG in the sense of `pidflow.physics.CURVATURE_PER_KG`, [events].

    Notes
    -----
    In September 2009 AliRoot turned the sign of the field about: ``kB2C`` in ``AliVParticle.h`` became
    negative. Since the same rework, that of ``AliMagF``, an ESD holds the magnets' currents, which tell one
    convention from the other.
    """
    field = tree.per_event("AliESDRun", "fMagneticField", start, stop).astype(np.float64)
    return field if tree.has("AliESDRun", "fCurrentL3") else -field


def read_events(tree: EsdTree, start: int, stop: int) -> Events:
    """Return what the tracks of a range of events need of their events."""
    return Events(
        start,
        stop,
        tree.sizes("Tracks", start, stop),
        primary_vertex(tree, start, stop),
        time_spread(tree, start, stop),
    )


def primary_vertex(tree: EsdTree, start: int, stop: int) -> Array:
    """Return the best vertex of each event, cm, float64 [events, 3]; NaN where there is none.

    Notes
    -----
    ``AliESDEvent::GetPrimaryVertex``: the vertex of the tracks, else of the pixel detector, if its status is
    good (``AliVertex::GetStatus``), else that of the TPC, whatever its status, else (before the TPC made one)
    that of the pixel detector. So an event in which no vertex was found has the nominal one; its tracks are
    kept, as the conversion to AO2D keeps them.
    """
    vertex = np.full((stop - start, 3), np.nan)
    last = "TPCVertex" if tree.has("TPCVertex") else "SPDVertex"
    missing = np.ones(stop - start, dtype=bool)
    for group in ("PrimaryVertex", "SPDVertex", last):
        if not tree.has(group):
            continue
        position = tree.per_event(group, "fPosition", start, stop)
        good = missing & ((group == last) | _vertex_status(tree, group, start, stop))
        vertex[good] = position[good]
        missing &= ~good
    return vertex


def _vertex_status(tree: EsdTree, group: str, start: int, stop: int) -> NDArray[np.bool_]:
    title = tree.per_event(group, "fTitle", start, stop).astype(str)
    cosmic = (np.char.find(title, "cosmics") >= 0) & (np.char.find(title, "failed") < 0)
    smeared = np.char.find(title, "smearMC") >= 0
    status: NDArray[np.bool_] = (tree.per_event(group, "fNContributors", start, stop) > 0) | cosmic | smeared
    return status


def time_spread(tree: EsdTree, start: int, stop: int) -> Array:
    """Return the spread of the collision time in ps, [events]; infinite where the file does not hold it.

    That of the event's TOF header, else of the run.
    """
    spread = np.full(stop - start, np.inf)
    for group in ("AliESDRun", "AliTOFHeader"):
        if tree.has(group, "fT0spread"):
            found = tree.per_event(group, "fT0spread", start, stop).reshape(stop - start, -1)[:, 0]
            spread = np.where(found > 0, found.astype(np.float64), spread)
    return spread


def read_tracks(tree: EsdTree, events: Events) -> Tracks:
    """Return the tracks of a range of events as the file holds them.

    Raises
    ------
    PidflowError
        If the file lacks one of `MEMBERS`, or a branch does not hold one value per track.
    """
    span, sizes = (events.start, events.stop), events.sizes
    members = {name: tree.values("Tracks", name, *span, sizes) for name in MEMBERS}
    optional = ("fTRDsignals", "fTRDnSlices", *_TOF_IN_TRACK, "fTOFsignalDx", "fTOFsignalDz", "fNtofClusters")
    members |= {name: tree.values("Tracks", name, *span, sizes) for name in optional if tree.has("Tracks", name)}
    total = len(members["fX"])
    slices = None
    if tree.has("Tracks", "fTRDslices"):
        slices = tree.lists("Tracks", "fTRDslices", *span, sizes, members["fTRDnSlices"], ">f4")
    maps = {
        name: tree.bits("Tracks", name, *span, sizes) if tree.has("Tracks", f"{name}.fAllBits") else None
        for name in ("fTPCClusterMap", "fTPCSharedMap")
    }
    return Tracks(
        event=np.repeat(np.arange(len(sizes)), sizes),
        row=np.arange(total) - np.repeat(np.cumsum(sizes) - sizes, sizes),
        members=members,
        inner=tree.track_parameters("Tracks", "fIp", *span, sizes),
        clusters=maps["fTPCClusterMap"],
        shared=maps["fTPCSharedMap"],
        trd_slices=slices,
    )


def its_columns(tracks: Tracks) -> Columns:
    """Return the ITS columns, masked for tracks without a cluster there."""
    members = tracks.members
    clusters = members["fITSncls"].astype(np.int64)
    present = clusters > 0
    return {
        "has_its": present,
        "its_n_cls": masked_unless(present, clusters.astype(np.int8)),
        "its_inner_hit": masked_unless(present, (members["fITSClusterMap"] & _PIXEL_LAYERS) != 0),
        "its_signal": recorded(present, members["fITSsignal"]),
        "its_chi2_ncl": masked_unless(present, members["fITSchi2"] / np.maximum(clusters, 1)),
    }


def tpc_columns(tracks: Tracks) -> Columns:
    """Return the TPC columns, masked for tracks without a findable cluster there (as ``hasTPC`` of O2)."""
    members = tracks.members
    found, findable = (members[name].astype(np.int64) for name in ("fTPCncls", "fTPCnclsF"))
    present = findable > 0
    momentum = inner_momentum(tracks.inner)
    columns = {
        "has_tpc": present,
        "tpc_signal": recorded(present, members["fTPCsignal"]),
        "tpc_inner_param": masked_unless(present & np.isfinite(momentum), momentum),
        "tpc_n_cls_findable": masked_unless(present, findable.astype(np.int16)),
        "tpc_n_cls_found": masked_unless(present, found.astype(np.int16)),
        "tpc_chi2_ncl": masked_unless(present & (found > 0), members["fTPCchi2"] / np.maximum(found, 1)),
    }
    if tracks.clusters is not None:
        columns["tpc_n_crossed_rows"] = masked_unless(present, tracks.clusters.crossed_rows().astype(np.int16))
    if tracks.shared is not None:
        columns["tpc_n_cls_shared"] = masked_unless(present, tracks.shared.count().astype(np.int16))
    return columns


def inner_momentum(inner: Array) -> Array:
    """Return the momentum in GeV/c at the parameters [n, 22], NaN where there are none."""
    with np.errstate(divide="ignore"):
        momentum: Array = np.hypot(1.0, inner[:, 5]) / np.abs(inner[:, 6])
    return momentum


def trd_columns(tracks: Tracks) -> Columns:
    """Return the TRD columns, masked for tracks without charge there."""
    pattern = trd_pattern(tracks)
    if pattern is None:
        return {"has_trd": np.zeros(len(tracks.row), dtype=bool)}
    present = pattern > 0
    return {
        "has_trd": present,
        "trd_signal": recorded(present, tracks.members["fTRDsignal"]),
        "trd_pattern": masked_unless(present, pattern.astype(np.int16)),
        "trd_chi2": masked_unless(present, tracks.members["fTRDchi2"]),
    }


def trd_pattern(tracks: Tracks) -> NDArray[np.int64] | None:
    """Return a bit for each plane with a positive charge, [n]; None if the file holds no charges.

    Notes
    -----
    ``AliESDtrack::GetTRDslice(plane)``, which is the mean over the slices of what is positive. The list of
    charges ends with the momentum in each plane and its error since 2009. ``GetNumberOfTRDslices`` tells so by
    the length and takes 48 for six slices with momenta; the files from before hold eight slices, without.
    """
    planes = 1 << np.arange(_TRD_PLANES)
    if tracks.trd_slices is None:
        if "fTRDsignals" not in tracks.members:
            return None
        signals = tracks.members["fTRDsignals"].reshape(len(tracks.row), _TRD_PLANES, -1)
        return np.asarray((signals > 0).any(axis=2) @ planes)
    pattern = np.zeros(len(tracks.row), dtype=np.int64)
    for rows, values in tracks.trd_slices.blocks():
        length = values.shape[1]
        slices = (length if length in _TRD_WITHOUT_MOMENTA else max(length - _TRD_MOMENTA, 0)) // _TRD_PLANES
        signals = values[:, : slices * _TRD_PLANES].reshape(len(rows), _TRD_PLANES, slices)
        pattern[rows] = (signals > 0).any(axis=2) @ planes
    return pattern


def read_tof(tree: EsdTree, events: Events, tracks: Tracks) -> Tof:
    """Return the time of flight: from the clusters (since 2014), or from the tracks."""
    if tree.has("Tracks", "fTOFcluster") and tree.has(_CLUSTERS):
        return _tof_of_clusters(tree, events, tracks)
    nothing = np.full(len(tracks.row), np.nan)
    if not all(name in tracks.members for name in _TOF_IN_TRACK):
        return Tof(nothing, nothing, nothing, nothing)
    signal, times, length = (tracks.members[name].astype(np.float64) for name in _TOF_IN_TRACK)
    distance = nothing
    if {"fTOFsignalDx", "fTOFsignalDz"} <= tracks.members.keys():
        distance = np.hypot(*(tracks.members[name].astype(np.float64) for name in ("fTOFsignalDx", "fTOFsignalDz")))
    measured = np.where(signal < _NO_TOF_SIGNAL, signal, np.nan)
    return Tof(measured, length, times[:, _PION], distance)


def _tof_of_clusters(tree: EsdTree, events: Events, tracks: Tracks) -> Tof:
    """Follow a track's first cluster to its first hit, and to the match with the track.

    As ``AliESDtrack::GetTOFsignal``, ``GetIntegratedLength`` and ``GetIntegratedTimes`` of AliRoot since 2014:
    of the matches of a cluster, the last that names the track's ``fID`` counts.
    """
    span = events.start, events.stop
    n_clusters, n_hits, n_matches = (tree.sizes(group, *span) for group in (_CLUSTERS, _HITS, _MATCHES))
    n_of_track = tracks.members["fNtofClusters"]
    clusters = tree.lists("Tracks", "fTOFcluster", *span, events.sizes, n_of_track, ">i4")
    hits_of, matches_of = (tree.values(_CLUSTERS, name, *span, n_clusters) for name in ("fHitIndex", "fMatchIndex"))
    n_matched = tree.values(_CLUSTERS, "fNmatchableTracks", *span, n_clusters)
    time = tree.values(_HITS, "fTime", *span, n_hits)
    track_id, dx, dz, length, times = (
        tree.values(_MATCHES, name, *span, n_matches)
        for name in ("fUniqueID", "fDx", "fDz", "fTrackLength", "fIntegratedTimes")
    )

    found = {name: np.full(len(tracks.row), np.nan) for name in ("signal", "length", "pion_time", "distance")}
    on = np.flatnonzero(clusters.counts > 0)
    event = tracks.event[on]
    cluster = _locate(tree, "Tracks.fTOFcluster", clusters.first(0)[on], event, n_clusters)
    hit = _locate(tree, f"{_CLUSTERS}.fHitIndex", hits_of[cluster, 0], event, n_hits)
    found["signal"][on] = time[hit]
    for slot in range(matches_of.shape[1]):
        used = np.flatnonzero(n_matched[cluster] > slot)
        match = _locate(tree, f"{_CLUSTERS}.fMatchIndex", matches_of[cluster[used], slot], event[used], n_matches)
        own = track_id[match] == tracks.members["fID"][on[used]]
        row, match = on[used[own]], match[own]
        found["length"][row] = length[match]
        found["pion_time"][row] = times[match, _PION]
        found["distance"][row] = np.hypot(dx[match], dz[match])
    return Tof(**found)


def _locate(
    tree: EsdTree, branch: str, index: NDArray[np.integer[Any]], event: NDArray[np.integer[Any]], sizes: Counts
) -> NDArray[np.int64]:
    """Return rows in the array of all events, given the index in each one's own event."""
    if ((index < 0) | (index >= sizes[event])).any():
        raise PidflowError(f"{tree.path}: {branch} points outside its event; produce the file again")
    rows: NDArray[np.int64] = (np.cumsum(sizes) - sizes)[event] + index
    return rows


def _tof_columns(tree: EsdTree, events: Events, tracks: Tracks, kept: NDArray[np.intp]) -> Columns:
    """Return the TOF columns of the tracks that are kept.

    A track has TOF if it was matched (``TOFout``) and its times were integrated (``TIME``), as in
    AliAnalysisTaskAO2Dconverter, and if it has a momentum for the expected times, as O2 requires.
    """
    tof = read_tof(tree, events, tracks)
    signal, length, momentum, distance = (
        values[kept] for values in (tof.signal, tof.length, tof.momentum(), tof.distance)
    )
    flags = tracks.members["fFlags"][kept].astype(np.uint64)
    matched = ((flags & _TOF_OUT) != 0) & ((flags & _TIME) != 0)
    present = matched & np.isfinite(signal) & np.isfinite(momentum)
    columns = tof_columns(
        present,
        signal[present],
        length[present],
        momentum[present],
        collision=tracks.event[kept][present],
        collision_time=np.zeros(len(events.sizes)),
        collision_time_error=events.time_spread,
    )
    return columns | {"has_tof": present, "tof_chi2": masked_unless(present & np.isfinite(distance), distance)}
