"""The event time from the tracks: against enumeration of all hypotheses, and as an estimator."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from pidflow.ingest.event_time import (
    ABUNDANCE,
    MASSES,
    MIN_OTHERS,
    MOMENTUM_RANGE,
    OUTLIER_SIGMA,
    RESPONSE,
    event_times,
)
from pidflow.response import expected_time

Array = NDArray[np.float64]


class Sample(NamedTuple):
    signal: Array
    length: Array
    momentum: Array
    collision: NDArray[np.int64]
    collision_time: Array
    collision_time_error: Array
    true_time: Array
    mismatched: NDArray[np.bool_]

    def event_times(self, **changes: Array) -> tuple[Array, Array]:
        return event_times(*self._replace(**changes)[:6])

    def pulls(self) -> Array:
        time, error = self.event_times()
        return (time - self.true_time[self.collision]) / error


def generate(seed: int, tracks: list[int], *, error: float = math.nan, mismatched: float = 0.0) -> Sample:
    """Return collisions within ±200 ps with the species' abundances; the collision time has the `error`."""
    rng = np.random.default_rng(seed)
    collision = np.repeat(np.arange(len(tracks)), tracks)
    n = len(collision)
    mass = rng.choice(MASSES, n, p=ABUNDANCE)
    momentum = rng.uniform(MOMENTUM_RANGE[0] + 0.05, 1.9, n)
    length = rng.uniform(375.0, 520.0, n)
    true_time = rng.normal(0.0, 200.0, len(tracks))
    # the width of the response at the true momentum: 80 ps and 1 % of the momentum
    signal = true_time[collision] + expected_time(length, momentum, mass) + 80.0 * rng.normal(size=n)
    measured = momentum * (1 + 0.01 * rng.normal(size=n))
    elsewhere = rng.random(n) < mismatched
    signal[elsewhere] += rng.uniform(-4000.0, 4000.0, elsewhere.sum())
    smear = error if math.isfinite(error) else 300.0
    time = true_time + smear * rng.normal(size=len(tracks))
    return Sample(signal, length, measured, collision, time, np.full(len(tracks), error), true_time, elsewhere)


def enumerated(sample: Sample, track: int) -> tuple[float, float]:
    """Return what `event_times` documents, by trying every hypothesis of every other track, and none."""
    own = int(sample.collision[track])
    options: list[list[tuple[float, float, float] | None]] = []
    for i in np.flatnonzero(sample.collision == own):
        if i == track or not MOMENTUM_RANGE[0] < sample.momentum[i] < MOMENTUM_RANGE[1]:
            continue
        p, length = float(sample.momentum[i]), float(sample.length[i])
        hypotheses: list[tuple[float, float, float] | None] = [None]
        for mass, share in zip(MASSES, ABUNDANCE, strict=True):
            flight = length * math.sqrt(p * p + mass * mass) / (0.0299792458 * p)
            sigma = math.hypot(80.0, 0.01 * flight * mass**2 / (p * p + mass * mass))
            hypotheses.append((float(sample.signal[i]) - flight, sigma, -2 * math.log(share / ABUNDANCE[0])))
        options.append(hypotheses)
    alone = float(sample.collision_time[own]), float(sample.collision_time_error[own])
    known = math.isfinite(alone[1]) and alone[1] > 0
    best = (math.inf, *alone, 0)
    for prior in [None, (*alone, 0.0)] if known else [None]:
        for chosen in itertools.product(*options):
            used = [entry for entry in (prior, *chosen) if entry is not None]
            if not used:
                continue
            weight = sum(sigma**-2 for _, sigma, _ in used)
            time = sum(t / sigma**2 for t, sigma, _ in used) / weight
            cost = sum((t - time) ** 2 / sigma**2 + penalty for t, sigma, penalty in used)
            cost += OUTLIER_SIGMA**2 * (len(chosen) + known - len(used))
            number = sum(entry is not None for entry in chosen)
            best = min(best, (cost, time, weight**-0.5, number))
    return (best[1], best[2]) if best[3] >= MIN_OTHERS else (alone[0], alone[1] if known else math.nan)


@pytest.mark.parametrize("error", [math.nan, 30.0, 250.0])
def test_it_is_the_best_of_all_assignments(error: float) -> None:
    sample = generate(3, [2, 3, 4, 5, 6] * 5 + [4] * 60, error=error, mismatched=0.15)
    # fast tracks, whose hypotheses overlap, slow ones, whose resolutions differ, and some out of the range
    momentum = sample.momentum.copy()
    momentum[100:] = 1.98
    momentum[::7] = 0.52
    momentum[::11] = 2.5
    rng = np.random.default_rng(4)
    blur = np.where(np.arange(len(momentum)) < 100, 0.0, rng.normal(0.0, 150.0, len(momentum)))
    sample = sample._replace(momentum=momentum, signal=sample.signal + blur)
    expected = np.array([enumerated(sample, i) for i in range(len(momentum))])
    time, resolution = sample.event_times()
    np.testing.assert_allclose(time, expected[:, 0], rtol=0, atol=1e-6)
    np.testing.assert_allclose(resolution, expected[:, 1], rtol=1e-9)
    from_tracks = time != sample.collision_time[sample.collision]
    assert 30 < from_tracks.sum() < len(time) - 20


@pytest.mark.parametrize(("error", "tails"), [(math.nan, 3e-3), (150.0, 1e-3)])
def test_it_is_unbiased_and_its_error_is_right(error: float, tails: float) -> None:
    rng = np.random.default_rng(5)
    sample = generate(6, list(rng.poisson(7.0, 4000)), error=error, mismatched=0.02)
    pulls = sample.pulls()
    time, resolution = sample.event_times()
    used = time != sample.collision_time[sample.collision]
    assert used.mean() > 0.9
    if math.isfinite(error):
        assert (resolution[used] < error).all()
    # tracks of a collision share the event time: collisions are what fluctuates
    collisions = len(np.unique(sample.collision[used]))
    inside = np.abs(pulls[used]) < 5
    assert 1 - inside.mean() < tails
    core = pulls[used][inside]
    assert abs(core.mean()) < 4 * 1.1 / math.sqrt(collisions)
    assert np.std(core) == pytest.approx(1.0, abs=0.06)


def test_a_track_has_no_part_in_its_own_time() -> None:
    sample = generate(7, [4, 5, 7, 12, 40] * 4, error=100.0)
    time, resolution = sample.event_times()
    for track in range(0, len(time), 5):
        for shift in (-900.0, 55.0, 1e5):
            signal = sample.signal.copy()
            signal[track] += shift
            moved, error = sample.event_times(signal=signal)
            assert moved[track] == pytest.approx(time[track], abs=1e-6)
            assert error[track] == pytest.approx(resolution[track], rel=1e-9)
    signal = sample.signal + np.where(np.arange(len(time)) == 0, 55.0, 0.0)
    others = np.flatnonzero(sample.collision == 0)[1:]
    assert np.all(np.abs(sample.event_times(signal=signal)[0] - time)[others] > 5)


def test_residuals_of_the_own_time_have_their_full_width() -> None:
    sample = generate(8, [6] * 3000)
    time, resolution = sample.event_times()
    residual = sample.signal - time - expected_time(sample.length, sample.momentum, MASSES[0])
    width = np.hypot(RESPONSE.sigma(sample.length, sample.momentum, MASSES[0]), resolution)
    pions = np.abs(residual) < 4 * width
    assert 0.7 < pions.mean() < 0.9
    assert np.std(residual[pions] / width[pions]) == pytest.approx(1.0, abs=0.04)


def test_mismatched_tracks_are_left_out() -> None:
    sample = generate(9, [8] * 400)
    signal = sample.signal.copy()
    signal[::8] += 30_000.0  # one track of each collision
    time, resolution = sample.event_times(signal=signal)
    clean_time, clean_error = sample.event_times()
    wrong = np.arange(len(signal)) % 8 == 0
    np.testing.assert_allclose(time[wrong], clean_time[wrong], atol=1e-6)
    change = np.abs(time - clean_time)[~wrong]
    assert np.mean(change < 150) > 0.98
    ratio = resolution[~wrong] / clean_error[~wrong]
    assert np.median(ratio) == pytest.approx(math.sqrt(7 / 6), rel=0.03)


def test_a_wrong_collision_time_is_left_out() -> None:
    sample = generate(10, [10] * 300, error=20.0)
    wrong = sample._replace(collision_time=sample.collision_time + 3000.0)
    time, _ = wrong.event_times()
    unknown, _ = sample.event_times(collision_time_error=np.full(300, math.nan))
    assert np.mean(np.abs(time - unknown) < 1e-6) > 0.99
    assert np.std(sample.pulls()) < 1.2


def test_a_large_collision_is_as_precise_as_its_tracks_allow() -> None:
    sample = generate(11, [900] * 30 + [30] * 30, mismatched=0.05)
    _, resolution = sample.event_times()
    large = sample.collision < 30
    assert np.median(resolution[large]) == pytest.approx(80 / math.sqrt(0.95 * 900), rel=0.12)
    pulls = sample.pulls()
    per_collision = np.array([pulls[sample.collision == i].mean() for i in range(60)])
    assert np.std(per_collision) == pytest.approx(1.0, abs=0.3)
    assert abs(per_collision.mean()) < 0.5


@pytest.mark.parametrize("error", [math.nan, -1.0, 0.0, math.inf])
def test_too_few_others_leave_the_collision_time_alone(error: float) -> None:
    sample = generate(12, [1, 3, 4], error=40.0)
    time, resolution = sample.event_times()
    few = sample.collision < 2
    np.testing.assert_array_equal(time[few], sample.collision_time[sample.collision[few]])
    assert (resolution[few] == 40.0).all() and (resolution[~few] < 40.0).all()
    time, resolution = sample.event_times(collision_time_error=np.full(3, error))
    np.testing.assert_array_equal(time[few], sample.collision_time[sample.collision[few]])
    assert np.isnan(resolution[few]).all()
    assert (resolution[~few] > 40.0).all()


def test_tracks_outside_the_momentum_range_get_a_time_but_give_none() -> None:
    sample = generate(13, [6])
    momentum = np.append(sample.momentum, [0.3, 4.0, np.nan])
    signal = np.append(sample.signal, [1e5, -1e5, 0.0])
    length = np.append(sample.length, [400.0, 400.0, 400.0])
    collision = np.zeros(9, dtype=np.int64)
    time, resolution = event_times(
        signal, length, momentum, collision, sample.collision_time, sample.collision_time_error
    )
    alone, error = sample.event_times()
    np.testing.assert_allclose(time[:6], alone, atol=1e-6)
    assert np.ptp(time[6:]) == 0.0 and resolution[6] < error.min()


def test_the_order_of_tracks_and_collisions_does_not_matter() -> None:
    rng = np.random.default_rng(14)
    sample = generate(15, list(rng.integers(1, 60, 120)), error=90.0, mismatched=0.1)
    time, resolution = sample.event_times()
    order = rng.permutation(len(time))
    renamed = rng.permutation(120)
    inverse = np.argsort(renamed)
    shuffled = Sample(
        sample.signal[order],
        sample.length[order],
        sample.momentum[order],
        renamed[sample.collision[order]],
        sample.collision_time[inverse],
        sample.collision_time_error[inverse],
        sample.true_time[inverse],
        sample.mismatched[order],
    )
    other_time, other_resolution = shuffled.event_times()
    np.testing.assert_allclose(other_time, time[order], atol=1e-6)
    np.testing.assert_allclose(other_resolution, resolution[order], rtol=1e-9)
    again = sample.event_times()
    assert again[0].tobytes() == time.tobytes() and again[1].tobytes() == resolution.tobytes()


def test_the_origin_of_time_does_not_matter() -> None:
    sample = generate(16, [5, 9, 20], error=60.0)
    time, resolution = sample.event_times()
    late, same = sample.event_times(signal=sample.signal + 1e7, collision_time=sample.collision_time + 1e7)
    np.testing.assert_allclose(late - 1e7, time, atol=1e-5)
    np.testing.assert_allclose(same, resolution, rtol=1e-7)


def test_no_tracks_and_no_collisions() -> None:
    none = np.empty(0)
    for collisions in (0, 3):
        times = np.zeros(collisions)
        time, error = event_times(none, none, none, np.empty(0, dtype=np.int64), times, times + 1)
        assert time.shape == error.shape == (0,)
