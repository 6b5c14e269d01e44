"""Weak decays and photon conversions from pairs of tracks of one collision.

The topology of a V0 (displaced tracks of opposite sign that meet, and whose sum points back to the
vertex) as in AliceO2 ``DetectorsVertexing/SVertexer``; its use as a pure sample of known species:
ALICE performance, Int. J. Mod. Phys. A 29 (2014) 1430044, section 7.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pidflow.config.v0 import V0Cuts
from pidflow.ingest.helix import Array, TrackParameters
from pidflow.ingest.reader import Columns
from pidflow.ingest.table import to_table
from pidflow.physics import CURVATURE_PER_KG, species_of
from pidflow.v0s import KINDS, REGIONS, schema

_LEAST_CURVATURE = 1e-7
"""1/cm; a radius of 100 km, on whose circle the start of the search is looked for at least."""

_NEWTON_STEPS = 8
_CONVERGED_CM = 1e-3
"""Last step of the search; the next one would be of the order of its square over the radius."""

_LONGEST_STEP_CM = 50.0
"""Keeps nearly parallel tracks, whose least distance is nowhere in particular, in the detector."""

_FAR_CM = 2.0
"""Legs that are further apart along the beam where their circles cross are no pair."""
_PAIRS_AT_A_TIME = 32_768


@dataclass(frozen=True)
class _Helices:
    """Helices in the laboratory by the transverse arc length s from where they are given; arrays [n].

    φ(s) = φ₀ + c·s, and the position follows by integration; see `pidflow.physics.CURVATURE_PER_KG`.
    """

    x: Array
    y: Array
    z: Array
    phi: Array
    tgl: Array
    curvature: Array
    centre: Array
    radius: Array
    """Of the circle in the transverse plane, cm: centre [2, n], radius with the sign of the curvature [n]."""

    @classmethod
    def of(cls, parameters: TrackParameters, bz: float) -> _Helices:
        sin, cos = np.sin(parameters.alpha), np.cos(parameters.alpha)
        x, y = parameters.x * cos - parameters.y * sin, parameters.x * sin + parameters.y * cos
        phi = parameters.alpha + np.arcsin(np.clip(parameters.snp, -1.0, 1.0))
        curvature = CURVATURE_PER_KG * bz * parameters.q_over_pt
        enough = np.abs(curvature) > _LEAST_CURVATURE
        radius = 1.0 / np.where(enough, curvature, np.copysign(_LEAST_CURVATURE, curvature))
        centre = np.stack([x - radius * np.sin(phi), y + radius * np.cos(phi)])
        return cls(x, y, parameters.z, phi, parameters.tgl, curvature, centre, radius)

    def __getitem__(self, chosen: Any) -> _Helices:
        return _Helices(*(values[..., chosen] for values in vars(self).values()))

    def at(self, path: Array) -> tuple[Array, Array]:
        """Return position [3, n] and tangent [3, n], of unit length in the transverse plane, after `path` [n]."""
        half = 0.5 * self.curvature * path
        chord = path * np.sinc(half / np.pi)
        middle, end = self.phi + half, self.phi + 2.0 * half
        position = np.stack(
            [self.x + chord * np.cos(middle), self.y + chord * np.sin(middle), self.z + path * self.tgl]
        )
        return position, np.stack([np.cos(end), np.sin(end), self.tgl])

    def path_to(self, x: Array, y: Array) -> Array:
        """Return the shortest signed path, less than half a turn, to points (x, y) of the circle."""
        phi = np.arctan2((x - self.centre[0]) / self.radius, -(y - self.centre[1]) / self.radius)
        turn = (phi - self.phi + np.pi) % (2.0 * np.pi) - np.pi
        path: Array = turn * self.radius
        return path


@dataclass(frozen=True)
class ClosestApproach:
    """Where two tracks are closest.

    Attributes
    ----------
    first, second
        Points on the tracks in the laboratory, cm, float64 [3, n].
    first_direction, second_direction
        Tangents there, of unit length in the transverse plane, float64 [3, n].
    """

    first: Array
    second: Array
    first_direction: Array
    second_direction: Array

    @property
    def distance(self) -> Array:
        """Distance in cm, [n]."""
        distance: Array = np.sqrt(np.sum((self.first - self.second) ** 2, axis=0))
        return distance

    @property
    def middle(self) -> Array:
        """Point half way, cm, [3, n]."""
        return 0.5 * (self.first + self.second)


def closest_approach(first: TrackParameters, second: TrackParameters, bz: float) -> ClosestApproach:
    """Return where tracks of pairs are closest in space.

    Parameters
    ----------
    first, second
        The two tracks of each pair anywhere on their helix, [n].
    bz
        Field along the beam in kG, with its sign.

    Notes
    -----
    The search starts where the circles in the transverse plane cross, at the one of the two points
    where the tracks differ less in z, or half way between circles that do not cross, and minimises
    the distance in the two path lengths by Newton's method; where the second derivatives are not
    positive, without the terms of the curvature (Gauss–Newton). AliceO2 ``DCAFitterN`` likewise.
    Material is neglected.
    """
    return _closest(_Helices.of(first, bz), _Helices.of(second, bz))


def _closest(first: _Helices, second: _Helices) -> ClosestApproach:
    s1, s2, _ = _transverse_start(first, second)
    return _from_start(first, second, s1, s2)


def _from_start(first: _Helices, second: _Helices, s1: Array, s2: Array) -> ClosestApproach:
    active = np.arange(len(s1))
    for _ in range(_NEWTON_STEPS):
        step1, step2 = _newton_step(first[active], second[active], s1[active], s2[active])
        s1[active] -= np.clip(step1, -_LONGEST_STEP_CM, _LONGEST_STEP_CM)
        s2[active] -= np.clip(step2, -_LONGEST_STEP_CM, _LONGEST_STEP_CM)
        active = active[np.maximum(np.abs(step1), np.abs(step2)) > _CONVERGED_CM]
        if not len(active):
            break
    r1, t1 = first.at(s1)
    r2, t2 = second.at(s2)
    return ClosestApproach(r1, r2, t1, t2)


def _newton_step(first: _Helices, second: _Helices, s1: Array, s2: Array) -> tuple[Array, Array]:
    """Return the steps [n] back from path lengths towards the least distance."""
    r1, t1 = first.at(s1)
    r2, t2 = second.at(s2)
    apart = r1 - r2
    g1, g2 = np.sum(apart * t1, axis=0), -np.sum(apart * t2, axis=0)
    h12 = -np.sum(t1 * t2, axis=0)
    flat1, flat2 = 1.0 + first.tgl**2, 1.0 + second.tgl**2
    h11 = flat1 + first.curvature * (apart[1] * t1[0] - apart[0] * t1[1])
    h22 = flat2 - second.curvature * (apart[1] * t2[0] - apart[0] * t2[1])
    convex = (h11 > 0) & (h22 > 0) & (h11 * h22 > h12 * h12)
    h11, h22 = np.where(convex, h11, flat1), np.where(convex, h22, flat2)
    determinant = np.maximum(h11 * h22 - h12 * h12, 1e-12)
    return (h22 * g1 - h12 * g2) / determinant, (h11 * g2 - h12 * g1) / determinant


def _transverse_start(first: _Helices, second: _Helices) -> tuple[Array, Array, Array]:
    """Return the path lengths at which the circles of two tracks cross or come closest, and how far apart in z, [n]."""
    centre1, radius1, centre2, radius2 = first.centre, first.radius, second.centre, second.radius
    r1, r2 = np.abs(radius1), np.abs(radius2)
    across = centre2 - centre1
    between = np.maximum(np.hypot(*across), 1e-9)
    across = across / between
    # along the line of centres, from the first: the foot of the crossing points
    foot = 0.5 * (between + (r1 - r2) * (r1 + r2) / between)
    height2 = (r1 - foot) * (r1 + foot)
    crossing = height2 > 0
    outside = between > np.maximum(r1, r2)
    # circles that miss each other: the points on the line of centres that face each other
    side1 = np.where(outside | (r1 > r2), r1, -r1)
    side2 = np.where(outside | (r2 > r1), -r2, r2)
    half = 0.5 * (side1 + between + side2)
    foot = np.where(crossing, foot, half)
    height = np.sqrt(np.where(crossing, height2, 0.0))
    starts = []
    for side in (height, -height):
        x = centre1[0] + foot * across[0] - side * across[1]
        y = centre1[1] + foot * across[1] + side * across[0]
        s1, s2 = first.path_to(x, y), second.path_to(x, y)
        starts.append((s1, s2, np.abs(first.z + s1 * first.tgl - second.z - s2 * second.tgl)))
    (s1, s2, apart), (other1, other2, other_apart) = starts
    nearer = apart <= other_apart
    return np.where(nearer, s1, other1), np.where(nearer, s2, other2), np.where(nearer, apart, other_apart)


def parallel_approach(first: TrackParameters, second: TrackParameters, bz: float) -> ClosestApproach:
    """Return where tracks of opposite charge are parallel in the transverse plane, as after a conversion.

    Parameters
    ----------
    first, second
        The two tracks of each pair anywhere on their helix, [n].
    bz
        Field along the beam in kG, with its sign.

    Notes
    -----
    These are the points on the line of centres between the centres. Where circles touch, the points
    in which they cross are ill-defined, and with them the angle between the legs and the mass.
    AliPhysics ``AliV0ReaderV1`` likewise.
    """
    return _parallel(_Helices.of(first, bz), _Helices.of(second, bz))


def _parallel(first: _Helices, second: _Helices) -> ClosestApproach:
    centre1, radius1, centre2, radius2 = first.centre, first.radius, second.centre, second.radius
    across = centre2 - centre1
    across = across / np.maximum(np.hypot(*across), 1e-9)
    x1, y1 = centre1 + np.abs(radius1) * across
    x2, y2 = centre2 - np.abs(radius2) * across
    r1, t1 = first.at(first.path_to(x1, y1))
    r2, t2 = second.at(second.path_to(x2, y2))
    return ClosestApproach(r1, r2, t1, t2)


def _pairs(sign: Array, collision: NDArray[np.integer]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yield the positive and the negative track of all pairs of one collision, so many at a time.

    Parameters
    ----------
    sign
        Charge of each track, [n]; 0 leaves it out.
    collision
        Row of each track's collision, [n].
    """
    sides = []
    for charge in (1, -1):
        members = np.flatnonzero(sign == charge)
        sides.append(members[np.argsort(collision[members], kind="stable")])
    positive, negative = sides
    if not len(positive) or not len(negative):
        return
    collisions = int(collision.max()) + 1
    n_negative = np.bincount(collision[negative], minlength=collisions)
    first_negative = np.cumsum(n_negative) - n_negative
    partners = n_negative[collision[positive]]
    until = np.cumsum(partners)
    for start in range(0, int(until[-1]), _PAIRS_AT_A_TIME):
        pair = np.arange(start, min(start + _PAIRS_AT_A_TIME, int(until[-1])))
        which = np.searchsorted(until, pair, side="right")
        track = positive[which]
        yield track, negative[first_negative[collision[track]] + pair - (until - partners)[which]]


@dataclass(frozen=True)
class V0s:
    """Candidates, by number; arrays [k] unless said otherwise.

    Attributes
    ----------
    kind
        Index in `pidflow.v0s.KINDS`.
    region
        Index in `pidflow.v0s.REGIONS`.
    positive, negative
        Rows of the legs among the tracks given.
    position, positive_momentum, negative_momentum
        Decay vertex in cm and momenta of the legs there in GeV/c, in the laboratory, float64 [3, k].
    mass, pt, radius, cos_pointing, dca_daughters, alpha, qt
        As in the V0 table (`pidflow.v0s.COLUMNS`), float64.
    """

    kind: NDArray[np.int64]
    region: NDArray[np.int64]
    positive: NDArray[np.intp]
    negative: NDArray[np.intp]
    position: Array
    positive_momentum: Array
    negative_momentum: Array
    mass: Array
    pt: Array
    radius: Array
    cos_pointing: Array
    dca_daughters: Array
    alpha: Array
    qt: Array

    def __len__(self) -> int:
        return len(self.kind)

    def __getitem__(self, chosen: Any) -> V0s:
        """Return some candidates (slice, mask or indices)."""
        return V0s(*(values[..., chosen] for values in vars(self).values()))


def find_v0s(
    parameters: TrackParameters,
    *,
    collision: NDArray[np.integer],
    vertex: Array,
    dca_xy: Array,
    candidate: NDArray[np.bool_],
    bz: float,
    settings: V0Cuts,
    innermost: Array | None = None,
) -> V0s:
    """Find weak decays of K⁰_S and Λ and photon conversions.

    Parameters
    ----------
    parameters
        Tracks anywhere on their helix, [n]; usable where `candidate`.
    collision
        Row of each track's collision in `vertex`, [n]; a track with a negative one is left out.
    vertex
        Of each collision in the laboratory, cm, float64 [m, 3].
    dca_xy
        Transverse impact parameter of each track to its collision's vertex, cm, float64 [n].
    candidate
        Which tracks may be legs, bool [n].
    bz
        Field along the beam in kG, with its sign.
    settings
        Cuts.
    innermost
        Distance of each track's innermost cluster from the beam line, cm, float64 [n]; None where it
        is not known: then decays beyond a leg's first cluster are not rejected.

    Returns
    -------
    V0s
        Ordered by kind, then by the positive track.

    Notes
    -----
    A pair in the signal window of another kind is dropped (mutual rejection): of K⁰_S if it may be a
    Λ, of Λ if it may be a K⁰_S, of both if it may be a photon, and of photons if it may be a Λ. Each
    kind uses a track once: a candidate stays if it points back better than all others of its kind
    that share a leg with it. Pairs are looked at in groups of bounded size.
    """
    displaced = candidate & (collision >= 0) & (np.abs(dca_xy) > settings.dca_xy_min)
    sign = np.where(displaced, np.sign(parameters.q_over_pt), 0.0)
    limit = np.full(len(sign), np.inf) if innermost is None else innermost
    leg = np.flatnonzero(sign)
    helices, pt = _Helices.of(parameters[leg], bz), 1.0 / np.abs(parameters.q_over_pt[leg])
    sign, collision, limit = sign[leg], collision[leg], limit[leg]
    found = []
    for positive, negative in _pairs(sign, collision):
        legs = _Legs(
            positive,
            negative,
            pt[positive],
            pt[negative],
            vertex[collision[positive]].T,
            np.minimum(limit[positive], limit[negative]),
        )
        possible = np.flatnonzero(_may_decay(legs, helices, settings))
        legs = legs[possible]
        found += _select(legs, helices[legs.positive], helices[legs.negative], settings)
    joined = _joined(found)
    joined = replace(joined, positive=leg[joined.positive], negative=leg[joined.negative])
    kept = _best_of_each_track(joined)
    return joined[kept[np.lexsort((joined.positive[kept], joined.kind[kept]))]]


def v0_table(
    parameters: TrackParameters,
    tracks: Columns,
    *,
    collision: NDArray[np.integer],
    vertex: Array,
    dca_xy: Array,
    candidate: NDArray[np.bool_],
    bz: float,
    settings: V0Cuts | None,
    innermost: Array | None = None,
) -> pa.Table:
    """Return the V0 table of some tracks, empty without `settings`; other arguments as of `find_v0s`.

    Parameters
    ----------
    tracks
        Columns that identify the tracks (`pidflow.tracks.ROW_ID`, run and collision), [n].
    """
    if settings is None:
        return schema().empty_table()
    v0s = find_v0s(
        parameters,
        collision=collision,
        vertex=vertex,
        dca_xy=dca_xy,
        candidate=candidate,
        bz=bz,
        settings=settings,
        innermost=innermost,
    )
    return as_table(v0s, tracks)


def as_table(v0s: V0s, tracks: Columns) -> pa.Table:
    """Return the V0 table of some tracks: two rows for each candidate, the positive leg first.

    Parameters
    ----------
    v0s
        What `find_v0s` gave.
    tracks
        Columns that identify the tracks given to `find_v0s` (`pidflow.tracks.ROW_ID`, run and collision), [n].
    """
    track = np.stack([v0s.positive, v0s.negative], axis=1).ravel()
    number = np.repeat(np.arange(len(v0s)), 2)
    columns = {name: values if isinstance(values, str) else values[track] for name, values in tracks.items()}
    columns |= {
        "v0": number,
        "kind": np.array([kind.key for kind in KINDS])[v0s.kind[number]],
        "region": np.array(REGIONS)[v0s.region[number]],
        "leg_pdg_code": np.array([(kind.positive, kind.negative) for kind in KINDS])[v0s.kind].ravel(),
        "mass": v0s.mass[number],
        "v0_pt": v0s.pt[number],
        "radius": v0s.radius[number],
        "cos_pointing": v0s.cos_pointing[number],
        "dca_daughters": v0s.dca_daughters[number],
        "alpha": v0s.alpha[number],
        "qt": v0s.qt[number],
    }
    return to_table(columns, schema())


def joined_tables(tables: list[pa.Table]) -> pa.Table:
    """Return the V0 tables of parts of a data frame as one, its candidates numbered through."""
    table = pa.concat_tables(tables)
    position = table.schema.get_field_index("v0")
    number = pa.array(np.arange(table.num_rows, dtype=np.int32) // 2)
    return table.set_column(position, table.schema.field(position), number)


def _joined(parts: list[V0s]) -> V0s:
    integers, none, vectors = np.empty(0, dtype=np.int64), np.empty(0), np.empty((3, 0))
    empty = V0s(*(integers,) * 4, *(vectors,) * 3, *(none,) * 7)
    return V0s(*(np.concatenate([vars(part)[name] for part in (empty, *parts)], axis=-1) for name in vars(empty)))


@dataclass(frozen=True)
class _Legs:
    """Tracks of pairs, their pT, their collision's vertex [3, n] and the radius of their first cluster."""

    positive: NDArray[np.intp]
    negative: NDArray[np.intp]
    positive_pt: Array
    negative_pt: Array
    vertex: Array
    innermost: Array

    def __getitem__(self, chosen: Any) -> _Legs:
        return _Legs(*(values[..., chosen] for values in vars(self).values()))


class _Decay:
    """Decays at a closest approach of their legs.

    Attributes
    ----------
    approach
        Where the legs meet.
    position, flight, positive, negative, momentum
        Decay vertex, way from the collision, cm; momenta of the legs and their sum, GeV/c; [3, n].
    radius, cos_pointing
        Transverse length of the flight, cm, and cosine of its angle to the momentum, [n].
    """

    def __init__(self, approach: ClosestApproach, legs: _Legs) -> None:
        self.approach = approach
        self.position = approach.middle
        self.flight = self.position - legs.vertex
        self.positive = legs.positive_pt * approach.first_direction
        self.negative = legs.negative_pt * approach.second_direction
        self.momentum = self.positive + self.negative
        self.radius = np.hypot(self.flight[0], self.flight[1])
        product = _length(self.momentum) * _length(self.flight)
        self.cos_pointing = np.sum(self.momentum * self.flight, axis=0) / np.maximum(product, 1e-12)

    def mass(self, positive: int, negative: int) -> Array:
        """Return the invariant mass for legs of these PDG codes, GeV/c²."""
        energy = np.hypot(_length(self.positive), species_of(positive).mass)
        energy += np.hypot(_length(self.negative), species_of(negative).mass)
        mass: Array = np.sqrt(np.maximum(energy**2 - np.sum(self.momentum**2, axis=0), 0.0))
        return mass

    def points_back(self, legs: _Legs, cuts: V0Cuts, radius_min: float, beyond_innermost: float) -> NDArray[np.bool_]:
        """Tell which decays lie where they can and point to the collision."""
        passed: NDArray[np.bool_] = (self.cos_pointing > cuts.cos_pointing_min) & (self.radius > radius_min)
        passed &= self.radius < cuts.radius_max
        passed &= np.hypot(self.position[0], self.position[1]) < legs.innermost + beyond_innermost
        return passed


def _length(vector: Array) -> Array:
    x, y, z = vector
    length: Array = np.sqrt(x * x + y * y + z * z)
    return length


def _select(legs: _Legs, first: _Helices, second: _Helices, cuts: V0Cuts) -> list[V0s]:
    """Return the candidates of all kinds among pairs."""
    touching = np.flatnonzero(np.abs(_gap(first, second)) < cuts.conversion_gap_max)
    photon = _photons(legs[touching], first[touching], second[touching], cuts)
    is_photon = np.zeros(len(legs.positive), dtype=bool)
    is_photon[touching] = photon.allowed & (photon.mass < cuts.gamma.signal)
    s1, s2, apart = _transverse_start(first, second)
    near = np.flatnonzero(apart < _FAR_CM)
    legs_near = legs[near]
    decay = _Decay(_from_start(first[near], second[near], s1[near], s2[near]), legs_near)
    meet = decay.approach.distance < cuts.dca_daughters_max
    mass = [decay.mass(kind.positive, kind.negative) for kind in KINDS[:-1]]
    k0s, *hyperons = (
        meet & (np.abs(own - kind.mass) < cuts.windows(kind.key).signal)
        for own, kind in zip(mass, KINDS[:-1], strict=True)
    )
    hyperon = hyperons[0] | hyperons[1]

    weak = meet & decay.points_back(legs_near, cuts, cuts.radius_min, cuts.beyond_innermost_max)
    weak &= ~is_photon[near]
    is_hyperon = np.zeros(len(legs.positive), dtype=bool)
    is_hyperon[near[hyperon]] = True
    allowed = (weak & ~hyperon, weak & ~k0s, weak & ~k0s)
    found = [
        _candidates(number, decay, legs_near, own, possible, cuts)
        for number, (own, possible) in enumerate(zip(mass, allowed, strict=True))
    ]
    conversions = photon.allowed & ~is_hyperon[touching]
    return [*found, _candidates(len(found), photon.decay, legs[touching], photon.mass, conversions, cuts)]


def _gap(first: _Helices, second: _Helices) -> Array:
    """Return the distance in cm of circles that lie side by side, [n]; negative where they overlap."""
    gap: Array = np.hypot(*(second.centre - first.centre)) - np.abs(first.radius) - np.abs(second.radius)
    return gap


_ROUGH_POINTING = 0.2
_ROUGH_CM = 0.5
"""Tangent of the largest transverse pointing angle, and the lengths that add to it: the 3-dimensional decay vertex
lies no further from the crossing in the transverse plane."""


def _may_decay(legs: _Legs, helices: _Helices, cuts: V0Cuts) -> NDArray[np.bool_]:
    """Return which pairs may pass the cuts, by the crossings of their circles alone: neither trigonometry nor z."""
    centre1, radius1 = helices.centre[:, legs.positive], helices.radius[legs.positive]
    centre2, radius2 = helices.centre[:, legs.negative], helices.radius[legs.negative]
    r1, r2 = np.abs(radius1), np.abs(radius2)
    across = centre2 - centre1
    between = np.maximum(np.sqrt(across[0] ** 2 + across[1] ** 2), 1e-9)
    across = across / between
    foot = 0.5 * (between + (r1 - r2) * (r1 + r2) / between)
    height = np.sqrt(np.maximum((r1 - foot) * (r1 + foot), 0.0))
    gap = np.maximum(between - (r1 + r2), np.abs(r1 - r2) - between)
    touching = gap < cuts.conversion_gap_max + cuts.dca_daughters_max
    reach = np.minimum(legs.innermost + 2.0 * cuts.beyond_innermost_max, cuts.radius_max) + _ROUGH_CM
    possible = np.zeros(len(r1), dtype=bool)
    for side in (height, -height):
        x = centre1[0] + foot * across[0] - side * across[1]
        y = centre1[1] + foot * across[1] + side * across[0]
        weight1, weight2 = legs.positive_pt / radius1, legs.negative_pt / radius2
        px = (centre1[1] - y) * weight1 + (centre2[1] - y) * weight2
        py = (x - centre1[0]) * weight1 + (x - centre2[0]) * weight2
        flight_x, flight_y = x - legs.vertex[0], y - legs.vertex[1]
        pt = np.maximum(np.sqrt(px * px + py * py), 1e-9)
        along, beside = (px * flight_x + py * flight_y) / pt, (px * flight_y - py * flight_x) / pt
        points = np.abs(beside) < _ROUGH_POINTING * along + _ROUGH_CM
        possible |= points & (x * x + y * y < reach * reach)
    possible &= touching
    return possible


class _Photons(NamedTuple):
    decay: _Decay
    mass: Array
    allowed: NDArray[np.bool_]


def _photons(legs: _Legs, first: _Helices, second: _Helices, cuts: V0Cuts) -> _Photons:
    """Return which pairs may be conversions, and what they are then."""
    decay = _Decay(_parallel(first, second), legs)
    gap = np.abs(decay.approach.first - decay.approach.second)
    allowed = (np.hypot(gap[0], gap[1]) < cuts.conversion_gap_max) & (gap[2] < cuts.conversion_gap_max)
    allowed &= decay.points_back(legs, cuts, cuts.conversion_radius_min, 2.0 * cuts.beyond_innermost_max)
    return _Photons(decay, decay.mass(KINDS[-1].positive, KINDS[-1].negative), allowed)


MASS_RANGE = 1.5
"""Candidates are kept up to this many times the outer edge of the sidebands, to show the spectrum."""


def _candidates(number: int, decay: _Decay, legs: _Legs, mass: Array, allowed: NDArray[np.bool_], cuts: V0Cuts) -> V0s:
    kind = KINDS[number]
    windows = cuts.windows(kind.key)
    chosen = np.flatnonzero(allowed & (np.abs(mass - kind.mass) < MASS_RANGE * windows.sideband_to))
    distance = np.abs(mass[chosen] - kind.mass)
    sideband = (distance >= windows.sideband_from) & (distance < windows.sideband_to)
    positive, negative, momentum = decay.positive[:, chosen], decay.negative[:, chosen], decay.momentum[:, chosen]
    alpha, qt = _armenteros(positive, negative)
    return V0s(
        kind=np.full(len(chosen), number),
        region=np.where(distance < windows.signal, 0, np.where(sideband, 1, 2)),
        positive=legs.positive[chosen],
        negative=legs.negative[chosen],
        position=decay.position[:, chosen],
        positive_momentum=positive,
        negative_momentum=negative,
        mass=mass[chosen],
        pt=np.hypot(momentum[0], momentum[1]),
        radius=decay.radius[chosen],
        cos_pointing=decay.cos_pointing[chosen],
        dca_daughters=decay.approach.distance[chosen],
        alpha=alpha,
        qt=qt,
    )


def _armenteros(positive: Array, negative: Array) -> tuple[Array, Array]:
    """Return α = (p∥⁺ − p∥⁻)/(p∥⁺ + p∥⁻) and q_T; J. Podolanski, R. Armenteros, Phil. Mag. 45 (1954) 13."""
    momentum = positive + negative
    total = np.maximum(_length(momentum), 1e-12)
    along_positive = np.sum(positive * momentum, axis=0) / total
    along_negative = np.sum(negative * momentum, axis=0) / total
    across = np.sqrt(np.maximum(np.sum(positive**2, axis=0) - along_positive**2, 0.0))
    return (along_positive - along_negative) / total, across


def _best_of_each_track(v0s: V0s) -> NDArray[np.intp]:
    """Return which candidates point back better than all others of their kind with one of their legs."""
    kept = np.ones(len(v0s), dtype=bool)
    for legs in (v0s.positive, v0s.negative):
        order = np.lexsort((-v0s.cos_pointing, legs, v0s.kind))
        again = (np.diff(legs[order]) == 0) & (np.diff(v0s.kind[order]) == 0)
        kept[order[1:][again]] = False
    return np.flatnonzero(kept)
