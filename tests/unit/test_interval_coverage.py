"""Coverage of the 68 % and 95 % intervals, by pseudo-experiments.

The bootstrap by collision and Wilson's interval of a rate cover within 2 points. The
Clopper–Pearson interval never covers less than asked for; it covers more, on average over the
rates below by 16.7 (68 %) and 3.2 points (95 %) for 20 tracks, 2.5 and 0.8 for 1000, 1.2 and 0.4
for 5000.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from scipy.special import expit, logit, ndtr, ndtri
from scipy.stats import binomtest

from pidflow.evaluate.intervals import clopper_pearson, percentile, replica_weights
from pidflow.evaluate.resampling import BOTH, SELECTED, TRUE, Sample, resample
from pidflow.evaluate.working_points import selections

CONFIDENCES = (0.68, 0.95)
RATES = (0.02, 0.05, 0.1, 0.3, 0.5, 0.8, 0.9, 0.95, 0.99)
TOTALS = (20, 50, 100, 200, 500, 1000, 5000)
DRAWS = 20_000

MULTIPLICITY, COLLISIONS = 4, 200
CALLS, PER_CALL, REPLICAS = 32, 80, 200
SHARE, SHIFT, THRESHOLD = 0.4, 1.0, 0.6
SPREAD = np.sqrt(2.0)
"""Of a track's score: 1 of its own and 1 of its collision."""


def wilson(passed: np.ndarray, total: int, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209."""
    z2 = ndtri((1 + confidence) / 2) ** 2
    centre = (passed + z2 / 2) / (total + z2)
    half = np.sqrt(z2 * (passed * (total - passed) / total + z2 / 4)) / (total + z2)
    return centre - half, centre + half


def coverage(interval: Callable[..., tuple[np.ndarray, ...]], confidence: float) -> np.ndarray:
    """Return the share of pseudo-experiments whose interval holds the true rate, shape (n_totals, n_rates)."""
    rng = np.random.default_rng(11)
    found = np.empty((len(TOTALS), len(RATES)))
    for i, total in enumerate(TOTALS):
        low, high = interval(np.arange(total + 1.0), total, confidence)
        for j, rate in enumerate(RATES):
            drawn = rng.binomial(total, rate, DRAWS)
            found[i, j] = ((low[drawn] <= rate) & (rate <= high[drawn])).mean()
    return found


@pytest.mark.parametrize("confidence", CONFIDENCES)
def test_clopper_pearson_never_undercovers_and_overcovers_less_with_more_tracks(confidence, record_property):
    found = coverage(clopper_pearson, confidence)
    error = np.sqrt(confidence * (1 - confidence) / DRAWS)
    assert found.min() > confidence - 3.5 * error
    excess = found.mean(axis=1) - confidence
    for total, points in zip(TOTALS, 100 * excess, strict=True):
        record_property(f"overcoverage_points_{total}_tracks", round(float(points), 2))
    assert (np.diff(excess) < error).all()
    assert excess[TOTALS.index(5000)] < 0.02


@pytest.mark.parametrize("confidence", CONFIDENCES)
def test_wilson_covers_within_2_points_on_average(confidence):
    assert abs(coverage(wilson, confidence).mean() - confidence) < 0.02
    for passed, total in ((0, 20), (7, 20), (990, 1000)):
        exact = binomtest(passed, total).proportion_ci(confidence, method="wilson")
        np.testing.assert_allclose(wilson(np.array(passed), total, confidence), exact, rtol=0, atol=1e-12)


def experiments(seed: int, *, by_collision: bool = True) -> dict[str, np.ndarray]:
    """Return AUC and F1, shape (1 + n_replicas, n_experiments).

    Each "species" is an experiment of its own on the same collisions. Tracks of a class share a
    fluctuation of their collision, as a wrong event time makes it.
    """
    rng = np.random.default_rng(seed)
    collision = np.repeat(np.arange(COLLISIONS), MULTIPLICITY)
    is_true = rng.random((PER_CALL, collision.size)) < SHARE
    common = rng.normal(size=(PER_CALL, 2, COLLISIONS))
    score = common[np.arange(PER_CALL)[:, None], is_true.astype(int), collision] + SHIFT * is_true
    score += rng.normal(size=score.shape)
    drawn = collision if by_collision else np.arange(collision.size)
    nowhere = np.zeros(collision.size, np.intp)
    weights = replica_weights(seed, REPLICAS, int(drawn[-1]) + 1)
    sample = Sample(is_true, nowhere, nowhere, drawn, weights, n_pt=1)
    found = resample(sample, expit(score).T.astype(np.float32), THRESHOLD)
    counts = np.moveaxis(found.counts.sum(axis=(2, 3)), -1, 0)
    f1 = 2 * counts[BOTH] / (2 * counts[BOTH] + counts[TRUE] + counts[SELECTED])
    return {"auc": found.auc[:, :, 0], "f1": f1}


def truth() -> dict[str, float]:
    efficiency, misidentified = ndtr((SHIFT - logit(THRESHOLD)) / SPREAD), ndtr(-logit(THRESHOLD) / SPREAD)
    selected = SHARE * efficiency + (1 - SHARE) * misidentified
    return {"auc": ndtr(SHIFT / SPREAD / np.sqrt(2)), "f1": 2 * SHARE * efficiency / (SHARE + selected)}


def bootstrap_coverage(calls: int, *, by_collision: bool = True) -> dict[tuple[str, float], float]:
    covered: dict[tuple[str, float], list[bool]] = {}
    for seed in range(calls):
        for name, values in experiments(seed, by_collision=by_collision).items():
            for confidence in CONFIDENCES:
                intervals = [percentile(own[0], own[1:], confidence) for own in values.T]
                covered.setdefault((name, confidence), []).extend(
                    interval.low <= truth()[name] <= interval.high for interval in intervals
                )
    return {key: float(np.mean(values)) for key, values in covered.items()}


@cache
def by_collision() -> dict[tuple[str, float], float]:
    return bootstrap_coverage(CALLS)


@pytest.mark.parametrize("confidence", CONFIDENCES)
@pytest.mark.parametrize("metric", ["auc", "f1"])
def test_bootstrap_by_collision_covers_within_2_points(metric, confidence, record_property):
    found = by_collision()[metric, confidence]
    record_property("coverage", found)
    # an interval that truly misses 4 points more often fails by at least 2 standard deviations
    assert 2 * np.sqrt(confidence * (1 - confidence) / (CALLS * PER_CALL)) < 0.02
    assert abs(found - confidence) < 0.02


def test_these_pseudo_experiments_see_a_bootstrap_by_track_undercover():
    found = bootstrap_coverage(4, by_collision=False)
    assert all(found[metric, confidence] < confidence - 0.04 for metric in ("auc", "f1") for confidence in CONFIDENCES)


@cache
def chosen() -> dict[str, np.ndarray]:
    """Return what thresholds look like on the tracks that chose them and on others.

    ``purity`` and ``f1``, shape (n_experiments, 2): measured minus true value on validation and on
    test tracks. ``covered``, shape (n_experiments, n_confidences, 2): whether the intervals of
    purity and efficiency on test tracks hold the true rates.
    """
    rng = np.random.default_rng(5)
    share, shift, n = 0.1, 1.5, 1000
    found: dict[str, list] = {"purity": [], "f1": [], "covered": []}
    for _ in range(800):
        is_true = rng.random((2, n)) < share
        certainty = expit(rng.normal(size=(2, n)) + shift * is_true).astype(np.float32)
        sets = [selections(certainty[i], is_true[i]) for i in range(2)]
        for name, criterion, requested in (("purity", "purity", 0.8), ("f1", "max_f1", None)):
            threshold = sets[0].choose(criterion, requested)
            if threshold is None or threshold > sets[1].thresholds[0]:
                continue
            efficiency, misidentified = ndtr(shift - logit(threshold)), ndtr(-logit(threshold))
            selected = share * efficiency + (1 - share) * misidentified
            true = {"purity": share * efficiency / selected, "f1": 2 * share * efficiency / (share + selected)}
            measured = [
                dict(zip(("purity", "efficiency", "f1"), own.measure(threshold, 0.68), strict=True)) for own in sets
            ]
            values = [own["f1"] if name == "f1" else own["purity"].value for own in measured]
            found[name].append(np.array(values) - true[name])
            rates = [sets[1].measure(threshold, confidence)[:2] for confidence in CONFIDENCES]
            known = (true["purity"], efficiency)
            found["covered"].append(
                [[rate.low <= own <= rate.high for rate, own in zip(pair, known, strict=True)] for pair in rates]
            )
    return {name: np.array(values) for name, values in found.items()}


@pytest.mark.parametrize("quantity", ["purity", "f1"])
def test_a_threshold_looks_too_good_on_the_tracks_that_chose_it_and_not_on_others(quantity):
    bias = chosen()[quantity]
    mean, error = bias.mean(axis=0), bias.std(axis=0) / np.sqrt(len(bias))
    assert mean[0] > 0.02 and mean[0] > 10 * error[0]
    assert abs(mean[1]) < 3 * error[1]


def test_rates_at_a_chosen_threshold_cover_on_tracks_that_did_not_choose_it():
    covered = chosen()["covered"]
    for found, confidence in zip(covered.mean(axis=0), CONFIDENCES, strict=True):
        assert (found > confidence - 3 * np.sqrt(confidence * (1 - confidence) / len(covered))).all()
