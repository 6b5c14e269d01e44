"""The rule by which one of the adapted models is chosen, and the areas that it compares."""

from collections.abc import Mapping

import numpy as np
import pytest
from choice_sample import looked

from pidflow.adapt.choice import select
from pidflow.adapt.choice.sample import Looked
from pidflow.adapt.choice.scores import macro_auc
from pidflow.adapt.choice.select import Measured, rejected, replicated_auc
from pidflow.config.adapt import AUTOMATIC, UNADAPTED, Choice
from pidflow.evaluate.intervals import replica_weights
from pidflow.tracks import DETECTOR_PATTERNS

# areas under the curve and their replicas


def tracks_with_ties(weighted: bool = True) -> Looked:
    rng = np.random.default_rng(2)
    labels = (rng.integers(0, 4, 300)[:, None] == np.arange(3)).astype(np.uint8)
    certainty = np.round(np.clip(0.3 * labels + rng.uniform(0.0, 0.7, (300, 3)), 0, 1), 1)
    certainty[rng.random((300, 3)) < 0.1] = np.nan
    collision = rng.integers(0, 60, 300) * 7 + 3
    return looked(certainty, labels, collision=collision, weights=rng.uniform(0.1, 3.0, 300) if weighted else None)


@pytest.mark.parametrize("weighted", [False, True])
def test_area_is_that_of_the_scores(weighted: bool) -> None:
    tracks = tracks_with_ties(weighted)
    found = replicated_auc(tracks.features, tracks, 5, 1)
    assert found.shape == (6,)
    assert found[0] == pytest.approx(macro_auc(tracks.features, tracks.labels, tracks.weights), rel=1e-12)


def test_replicas_repeat_collisions() -> None:
    tracks = tracks_with_ties()
    assert tracks.labels is not None
    found = replicated_auc(tracks.features, tracks, 12, 9)
    names, place = np.unique(tracks.collision, return_inverse=True)
    often = replica_weights(9, 12, len(names))[place]
    for replica, area in enumerate(found):
        rows = np.repeat(np.arange(300), often[:, replica])
        expected = macro_auc(tracks.features[rows], tracks.labels[rows], tracks.weights[rows])
        assert area == pytest.approx(expected, rel=1e-12)
    assert np.std(found[1:]) > 0.005
    # the same collisions in the replicas of every model
    better = replicated_auc(tracks.features, tracks, 12, 9)
    np.testing.assert_array_equal(found, better)


def test_species_without_tracks_does_not_count() -> None:
    tracks = tracks_with_ties()
    labels = np.array(tracks.labels)
    labels[:, 1] = 0
    absent = looked(tracks.features, labels, collision=tracks.collision, weights=tracks.weights)
    two = looked(tracks.features[:, [0, 2]], labels[:, [0, 2]], collision=tracks.collision, weights=tracks.weights)
    np.testing.assert_allclose(
        replicated_auc(absent.features, absent, 4, 1), replicated_auc(two.features, two, 4, 1), rtol=1e-12
    )


# the rule


def found(*auc: float, floor: float = 0.9, **patterns: float) -> Measured:
    own = dict.fromkeys(DETECTOR_PATTERNS, floor) | {name.replace("_", "+"): v for name, v in patterns.items()}
    return Measured(np.array(auc), own, {})


@pytest.mark.parametrize(
    ("patterns", "reason"),
    [
        ({}, ""),
        ({"TPC": 0.86, "TPC_TOF": 0.95}, ""),
        ({"TPC_TRD": 0.85}, ""),
        ({"TPC_TRD": 0.8499}, "loses 0.0501 macro AUC on TPC+TRD tracks of simulation, more than 0.05"),
        ({"TPC": 0.5, "TPC_TRD_TOF": 0.1}, "loses 0.4000 macro AUC on TPC tracks of simulation, more than 0.05"),
        ({"TPC_TOF": float("nan")}, "loses nan macro AUC on TPC+TOF tracks of simulation, more than 0.05"),
    ],
)
def test_candidate_that_loses_on_a_pattern_is_out(patterns: dict[str, float], reason: str) -> None:
    # 0.9 − 0.85 is a little more than 0.05 in binary
    measured = {UNADAPTED: found(0.9, floor=0.9 - 1e-9), "other": found(0.99, **patterns)}
    assert rejected("other", measured, Choice()) == reason
    assert rejected(UNADAPTED, measured, Choice()) == ""
    assert rejected("other", measured, Choice(floor=0.99)) == (
        "" if "nan" not in reason else reason.replace("05", "99")
    )


def test_pattern_that_simulation_lacks_rejects_no_one() -> None:
    measured = {UNADAPTED: found(0.9, TPC_TRD=float("nan")), "other": found(0.9, TPC_TRD=float("nan"))}
    assert rejected("other", measured, Choice()) == ""


TRAINED_ON = {UNADAPTED: "simulation", "one": "a", "two": "b", "best": "b", "worst": "a"}
WHERE = "on the simulated sample '{}', which resembles data most"


def rule(
    measured: Mapping[str, Measured], yardstick: str = "c", method: str = AUTOMATIC, **settings: float
) -> tuple[str, str]:
    """Choose; by default, no candidate was trained on the yardstick."""
    chosen = Choice(**settings)
    reasons = {name: rejected(name, measured, chosen) for name in measured}
    return select._chosen(measured, reasons, TRAINED_ON, yardstick, method, chosen)


BEFORE = found(0.8, 0.79, 0.81, 0.80, 0.80)
AFTER = found(0.82, 0.80, 0.84, 0.83, 0.81)
"""The gain is 0.02, with replicas 0.01, 0.03, 0.03, 0.01: an error of 0.01."""


def test_best_on_the_yardstick_is_chosen() -> None:
    measured = {UNADAPTED: BEFORE, "one": found(0.81, 0.80, 0.82, 0.81, 0.81), "two": AFTER}
    for yardstick in ("a", "b", "c", "simulation"):
        expected = ("two", f"its macro AUC is the highest {WHERE.format(yardstick)}")
        assert rule(measured, yardstick, significance=0.9) == expected


def test_unadapted_model_stays_within_the_error_of_the_gain() -> None:
    measured = {UNADAPTED: BEFORE, "two": AFTER}
    assert rule(measured, significance=1.9)[0] == "two"
    chosen, why = rule(measured, significance=2.5)
    assert chosen == UNADAPTED
    assert why == (
        f"its macro AUC {WHERE.format('c')}, is within 2.5 standard errors of the highest "
        "(two, higher by 0.02000 ± 0.01000), and it is the model as it was"
    )
    # the error is that of the difference, not of either
    apart = {UNADAPTED: BEFORE, "two": found(0.82, 0.81, 0.83, 0.82, 0.82)}
    assert rule(apart, significance=100.0)[0] == "two"


def test_unadapted_model_stays_if_nothing_is_better() -> None:
    for auc in (0.79, 0.8):
        chosen, why = rule({UNADAPTED: BEFORE, "two": found(auc, 0.9, 0.9, 0.9, 0.9)}, significance=0.0)
        assert (chosen, why) == (UNADAPTED, f"its macro AUC is the highest {WHERE.format('c')}")


def test_of_equals_the_one_that_was_trained_on_the_yardstick_is_chosen() -> None:
    # behind 'two' by 0.01, with replicas 0, 0.02, 0.02, 0: an error of 0.01
    measured = {UNADAPTED: BEFORE, "one": found(0.81, 0.80, 0.82, 0.81, 0.81), "two": AFTER}
    assert rule(measured, "a", significance=0.9)[0] == "two"
    chosen, why = rule(measured, "a", significance=1.1)
    assert chosen == "one"
    assert why == (
        f"its macro AUC {WHERE.format('a')}, is within 1.1 standard errors of the highest "
        "(two, higher by 0.01000 ± 0.01000), and it was trained on that sample"
    )
    # before the unadapted model too, even if that is the best
    assert rule(measured, "a", significance=2.5)[0] == "one"
    assert rule({UNADAPTED: AFTER, "one": measured["one"]}, "a", significance=1.1)[0] == "one"
    # of several, the best; the unadapted model if the plain sample is the yardstick
    several = measured | {"best": found(0.815, 0.80, 0.83, 0.82, 0.81)}
    assert rule(several, "b", significance=2.5)[0] == "two"
    assert rule(several, "simulation", significance=2.5)[0] == UNADAPTED
    # none of them was: the best, if the unadapted model is not an equal
    assert rule(measured, "c", significance=1.1)[0] == "two"


def test_rejected_candidate_is_not_chosen() -> None:
    measured = {UNADAPTED: BEFORE, "best": found(0.99, 0.99, 0.99, 0.99, 0.99, TPC=0.5), "two": AFTER}
    for yardstick in ("b", "c"):
        assert rule(measured, yardstick, significance=1.0)[0] == "two"
        assert rule({name: measured[name] for name in (UNADAPTED, "best")}, yardstick)[0] == UNADAPTED


def test_named_candidate_is_taken_whatever_its_scores() -> None:
    measured = {UNADAPTED: BEFORE, "worst": found(0.1, 0.1, 0.1, 0.1, 0.1, TPC=0.5), "two": AFTER}
    assert rule(measured, method="worst") == ("worst", "the configuration names it")
