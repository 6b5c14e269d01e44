"""The event time of each track: its collision's time and the times of flight of the other tracks.

The time of the tracks is that of the χ² combination over mass hypotheses, ALICE Collaboration,
Eur. Phys. J. Plus 132 (2017) 99, arXiv:1610.03055; AliceO2 ``TOFReconstruction/EventTimeMaker.h``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from pidflow.physics import BY_PDG
from pidflow.response import TofResponse, expected_time

Array = NDArray[np.float64]

MASSES = tuple(BY_PDG[pdg].mass for pdg in (211, 321, 2212))
"""Hypotheses of a track, GeV/c²."""

ABUNDANCE = (0.80, 0.13, 0.07)
"""A-priori share of each hypothesis between 0.5 and 2 GeV/c.

Chosen between the ratios of the pT-integrated yields (K/π ≈ 0.13, p/π ≈ 0.06) and those at 2 GeV/c in pp at 13 TeV,
ALICE Collaboration, Eur. Phys. J. C 80 (2020) 693, arXiv:2003.02394. It decides where χ² cannot: tracks of similar
momenta fit as well when all of them are taken for kaons.
"""

RESPONSE = TofResponse(resolution=80.0, momentum_term=0.01)
"""Resolution of a track's start time: 80 ps of the TOF, ALICE performance, Int. J. Mod. Phys. A 29 (2014) 1430044,
and 1 % of the momentum, the same source, at 1 GeV/c."""

MOMENTUM_RANGE = (0.5, 2.0)
"""GeV/c of contributing tracks; O2Physics ``filterForTOFEventTime``. Energy loss blurs slower ones, and
the hypotheses of faster ones coincide."""

OUTLIER_SIGMA = 4.0
"""A track (or the collision time) that is further off counts as mismatched; AliceO2 ``getStartTimeInSet``."""

MIN_OTHERS = 3
"""Fewest other tracks that agree on a time, as in AliceO2 ``getStartTimeInSet``: two tracks of any species
agree on some time by chance of their hypotheses."""

_TRACKS_AT_A_TIME = 4096
_MOST_PADDING = 6
"""Collisions are padded to a common number of tracks by less than one in so many; small ones are not."""

_COLLISION_TIME = 1 << 24
"""Counts as this many tracks, to be told from them in a sum."""


def event_times(
    signal: Array,
    length: Array,
    momentum: Array,
    collision: NDArray[np.integer],
    collision_time: Array,
    collision_time_error: Array,
) -> tuple[Array, Array]:
    """Return the event time of each track and its resolution, without the track's own time.

    Parameters
    ----------
    signal, length, momentum
        Measured time in ps, track length in cm, momentum of the expected time in GeV/c of the tracks
        with a TOF hit, float64 [n].
    collision
        Row of each track's collision in 0 … m-1, in any order, [n].
    collision_time, collision_time_error
        ps, float64 [m]; an error that is not positive and finite means that the precision is unknown.

    Returns
    -------
    time, error
        ps, float64 [n]. With fewer than `MIN_OTHERS` other tracks the collision's own; the error is
        then NaN where it is unknown.

    Notes
    -----
    With the start time tᵢₕ = signal − expected time of track i under hypothesis h, its resolution
    σᵢₕ, the hypothesis' abundance fₕ and the collision time t_c of error σ_c, the event time of a
    track minimises, over t and the hypotheses of the other tracks of the collision,

        min[(t_c − t)²/σ_c², κ²] + Σᵢ minₕ min[(tᵢₕ − t)²/σᵢₕ² − 2 ln(fₕ/f_π), κ²],   κ = `OUTLIER_SIGMA`,

    so it is the inverse-variance mean of the collision time and of the start times that agree with
    it; what costs κ² is left out. Between the points at which a term's minimum passes from one
    parabola to the next the sum is one parabola. Its coefficients in all intervals are running sums
    over the sorted points, so the global minimum is exact, for any number of tracks n, at a cost of
    O(n log n). A term is at most κ², so without one track the minimum lies in an interval where the
    sum of all tracks is within κ² of its own minimum: only those few are searched again.
    """
    collision_time = np.asarray(collision_time, dtype=np.float64)
    known = np.isfinite(collision_time) & np.isfinite(collision_time_error) & (collision_time_error > 0)
    low, high = MOMENTUM_RANGE
    measured = np.isfinite(signal) & np.isfinite(length) & (length > 0)
    contributes = np.flatnonzero(measured & (momentum > low) & (momentum < high))
    contributes = contributes[np.argsort(collision[contributes], kind="stable")]
    counts = np.bincount(collision[contributes], minlength=len(collision_time))
    first = np.cumsum(counts) - counts

    time = collision_time[collision]
    error = np.where(known, collision_time_error, np.nan)[collision]
    of_all_time, of_all_error = collision_time.copy(), np.where(known, collision_time_error, np.nan)
    for width, chosen in _groups(counts):
        slots = np.arange(width)
        present = slots < counts[chosen, None]
        tracks = contributes[np.where(present, first[chosen, None] + slots, first[chosen, None])]
        delay, sigma = _start_times(signal[tracks], length[tracks], momentum[tracks])
        origin = delay[0, :, 0]
        terms = _track_terms(delay - origin[:, None], sigma, present)
        prior = _collision_terms(collision_time[chosen] - origin, collision_time_error[chosen], known[chosen])
        found, precision, others = _minimise(terms, prior)
        enough = others >= MIN_OTHERS
        found += origin[:, None]
        of_all = enough[:, -1]
        of_all_time[chosen[of_all]] = found[of_all, -1]
        of_all_error[chosen[of_all]] = precision[of_all, -1]
        own = enough[:, :-1] & present
        time[tracks[own]] = found[:, :-1][own]
        error[tracks[own]] = precision[:, :-1][own]
    outside = np.ones(len(signal), dtype=bool)
    outside[contributes] = False
    time[outside], error[outside] = of_all_time[collision[outside]], of_all_error[collision[outside]]
    return time, error


def _groups(counts: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield collisions of similar numbers of contributing tracks, with the width that holds them."""
    fewer, width = MIN_OTHERS - 1, MIN_OTHERS
    while fewer < counts.max(initial=0):
        members = np.flatnonzero((counts > fewer) & (counts <= width))
        step = max(_TRACKS_AT_A_TIME // width, 1)
        for start in range(0, len(members), step):
            yield width, members[start : start + step]
        fewer, width = width, width + 1 + width // _MOST_PADDING


def _start_times(signal: Array, length: Array, momentum: Array) -> tuple[Array, Array]:
    """Return the start time of tracks [...] under each hypothesis and its resolution, ps, [3, ...]."""
    delay = [signal - expected_time(length, momentum, mass) for mass in MASSES]
    sigma = [RESPONSE.sigma(length, momentum, mass) for mass in MASSES]
    return np.stack(delay), np.stack(sigma)


@dataclass(frozen=True)
class _Terms:
    """Terms of the sum, each a chain of parabolas a·t² − 2b·t + c that begins with c = κ².

    Attributes
    ----------
    at
        Where a chain passes to its next parabola, ps, ascending, [collisions, terms, steps]; infinite
        behind the last.
    chain
        a, b, c and the number of times that the mean gains: of the parabolas between the steps,
        [4, collisions, terms, steps + 1].
    """

    at: Array
    chain: Array

    def changes(self) -> Array:
        """Return what each step adds to the coefficients, [4, collisions, terms, steps]."""
        return np.where(self.at < np.inf, np.diff(self.chain, axis=-1), 0.0)

    def coefficients(self, rows: NDArray[np.intp], time: Array) -> Array:
        """Return the coefficients of each term of collisions `rows` behind a step at `time`, [4, rows, terms]."""
        terms = self.at.shape[1]
        passed = np.sum(self.at[rows] <= time[:, None, None], axis=-1, dtype=np.int8)
        first = (rows[:, None] * terms + np.arange(terms)) * self.chain.shape[-1]
        found: Array = np.take(self.chain.reshape(4, -1), first + passed, axis=1)
        return found


def _track_terms(delay: Array, sigma: Array, present: NDArray[np.bool_]) -> _Terms:
    """Return the terms of tracks, given [3, collisions, tracks]; those not `present` have no effect."""
    shape = present.shape
    delay, sigma = delay.reshape(len(MASSES), -1), sigma.reshape(len(MASSES), -1)
    centre = delay[0]
    relative = delay - centre
    weight = 1.0 / sigma**2
    penalty = -2.0 * np.log(np.array(ABUNDANCE) / ABUNDANCE[0])
    at = np.sort(_crossings(relative, sigma, penalty), axis=0)
    none = len(MASSES)
    best = _lowest_behind(at, relative, weight, penalty)
    before = np.concatenate([np.full((1, best.shape[1]), none, dtype=best.dtype), best[:-1]])
    changed = (best != before) & np.isfinite(at) & present.ravel()

    step, track = np.nonzero(changed)
    place = np.cumsum(changed, axis=0, dtype=np.int8)[step, track]
    steps = int(place.max(initial=1))
    at_steps = np.full((best.shape[1], steps), np.inf)
    at_steps[track, place - 1] = at[step, track] + centre[track]
    nothing = np.zeros_like(centre)
    parabolas = (
        (*weight, nothing),
        (*(weight * delay), nothing),
        (*(weight * delay**2 + penalty[:, None]), nothing + OUTLIER_SIGMA**2),
        (*np.ones_like(weight), nothing),
    )
    chain = np.zeros((len(parabolas), best.shape[1], steps + 1))
    which = best[step, track]
    for values, coefficient in zip(parabolas, chain, strict=True):
        table = np.stack(values)
        coefficient[:, 0] = table[none]
        coefficient[track, place] = table[which, track]
    return _Terms(at_steps.reshape(*shape, -1), chain.reshape(len(parabolas), *shape, -1))


def _crossings(delay: Array, sigma: Array, penalty: Array) -> Array:
    """Return where the parabolas of hypotheses [3, n] meet κ² and each other, [12, n]; infinite if they do not."""
    reach = sigma * np.sqrt(OUTLIER_SIGMA**2 - penalty)[:, None]
    points = [*(delay - reach), *(delay + reach)]
    weight = 1.0 / sigma**2
    first, second = weight * delay, weight * delay**2 + penalty[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        for i, j in combinations(range(len(MASSES)), 2):
            # a·t² − 2b·t + c = 0, by the form that does not cancel and holds for a = 0
            a, b, c = weight[i] - weight[j], first[i] - first[j], second[i] - second[j]
            larger = b + np.copysign(np.sqrt(b * b - a * c), b)
            points += [larger / a, c / larger]
    at = np.stack(points)
    at[~np.isfinite(at)] = np.inf
    return at


def _lowest_behind(at: Array, delay: Array, weight: Array, penalty: Array) -> NDArray[np.int8]:
    """Return which hypothesis costs least behind each of the sorted points [12, n]; 3 if all cost more than κ²."""
    following = np.concatenate([at[1:], np.full((1, at.shape[1]), np.inf)])
    between = np.where(np.isfinite(following), 0.5 * (at + following), at + 1.0)
    lowest = np.full(at.shape, OUTLIER_SIGMA**2)
    best = np.full(at.shape, len(MASSES), dtype=np.int8)
    for h in range(len(MASSES)):
        cost = (between - delay[h]) ** 2 * weight[h] + penalty[h]
        np.copyto(best, np.int8(h), where=cost < lowest)
        np.minimum(lowest, cost, out=lowest)
    return best


def _collision_terms(time: Array, error: Array, known: NDArray[np.bool_]) -> _Terms:
    """Return the terms of collision times [collisions]; no effect where the error is not `known`."""
    safe, centre = np.where(known, error, 1.0), np.where(known, time, 0.0)
    at = np.where(known, centre + OUTLIER_SIGMA * safe * np.array([[-1.0], [1.0]]), np.inf)
    chain = np.zeros((4, len(time), 1, 3))
    chain[2] = OUTLIER_SIGMA**2
    chain[:, :, 0, 1] = safe**-2, centre / safe**2, centre**2 / safe**2, np.full(len(time), _COLLISION_TIME)
    return _Terms(at.T[:, None, :], chain)


def _minimise(terms: _Terms, prior: _Terms) -> tuple[Array, Array, NDArray[np.int64]]:
    """Return time, error and number of tracks used, [collisions, tracks + 1]: without each track, and with all."""
    rows, width, _ = terms.at.shape
    at = np.concatenate([terms.at.reshape(rows, -1), prior.at.reshape(rows, -1)], axis=-1)
    changes = np.concatenate([part.changes().reshape(4, rows, -1) for part in (terms, prior)], axis=-1)
    order = np.argsort(at, axis=-1, kind="stable")
    flat = order + np.arange(rows)[:, None] * at.shape[1]
    at = at.ravel()[flat]
    sums = np.cumsum(np.take(changes.reshape(4, -1), flat, axis=1), axis=-1)
    sums[2] += OUTLIER_SIGMA**2 * (width + 1)
    cost = _cost(sums)
    row, interval = np.nonzero(cost <= cost.min(axis=-1, keepdims=True) + OUTLIER_SIGMA**2)
    candidates = np.bincount(row, minlength=rows)
    first = np.cumsum(candidates) - candidates

    lowest = np.full((rows, width + 1), np.inf)
    result = np.zeros((3, rows, width + 1))
    for rank in range(int(candidates.max(initial=0))):
        chosen = np.flatnonzero(candidates > rank)
        place = interval[first[chosen] + rank]
        of_all = sums[:, chosen, place][..., None]
        own = terms.coefficients(chosen, at[chosen, place])
        total = np.concatenate([of_all - own, of_all], axis=-1)
        value = _cost(total)
        better = value < lowest[chosen]
        lowest[chosen] = np.where(better, value, lowest[chosen])
        result[:, chosen] = np.where(better, total[[0, 1, 3]], result[:, chosen])
    weight, weighted, number = result
    others = np.rint(number).astype(np.int64) % _COLLISION_TIME
    weight = np.where(others >= MIN_OTHERS, weight, 1.0)
    return weighted / weight, 1.0 / np.sqrt(weight), others


def _cost(coefficients: Array) -> Array:
    """Return the minimum of parabolas [4, ...]; infinite for those that hold no time."""
    a, b, c, n = coefficients
    cost = np.full(a.shape, np.inf)
    np.divide(b * b, -a, out=cost, where=n > 0.5)
    cost += c
    return cost
