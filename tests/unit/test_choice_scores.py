"""Scores of adapted models, against closed forms, loops over pairs and densities that are known."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import spearmanr

from pidflow.adapt.choice.scores import (
    class_probabilities,
    deep_embedded_validation,
    density_ratio,
    importance_weighted_likelihood,
    information_maximisation,
    log_likelihood,
    macro_auc,
    mixup_agreement,
    probe_agreement,
    regret,
    soft_neighbourhood,
    spearman,
    species_plausibility,
)

Array = NDArray[np.float64]


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(7)


def labelled(random: np.random.Generator, n: int, species: int = 3) -> tuple[Array, NDArray[np.uint8], Array]:
    """Return certainties with ties, labels of which some are of no species, and weights."""
    labels = (random.integers(0, species + 1, n)[:, None] == np.arange(species)).astype(np.uint8)
    certainty = np.round(np.clip(0.3 * labels + random.uniform(0.05, 0.65, (n, species)), 0.01, 0.99), 1)
    return certainty, labels, random.uniform(0.2, 3.0, n)


def test_macro_auc_is_the_weighted_share_of_pairs_won(random: np.random.Generator) -> None:
    certainty, labels, weights = labelled(random, 60)
    areas = []
    for score, label in zip(certainty.T, labels.T, strict=True):
        won = pairs = 0.0
        for i, j in itertools.product(np.flatnonzero(label == 1), np.flatnonzero(label == 0)):
            pairs += weights[i] * weights[j]
            won += weights[i] * weights[j] * (1.0 if score[i] > score[j] else 0.5 * (score[i] == score[j]))
        areas.append(won / pairs)
    assert macro_auc(certainty, labels, weights) == pytest.approx(np.mean(areas), rel=1e-12)
    assert macro_auc(certainty, labels) == pytest.approx(macro_auc(certainty, labels, np.full(60, 3.0)))
    assert macro_auc(certainty, labels) != pytest.approx(macro_auc(certainty, labels, weights), abs=1e-3)


def test_macro_auc_ranks_nan_last_and_leaves_out_species_without_tracks() -> None:
    labels = np.array([[1, 0], [0, 0], [1, 0], [0, 0]], np.uint8)
    certainty = np.array([[np.nan, 0.5], [0.0, 0.4], [0.9, 0.3], [0.5, 0.1]])
    assert macro_auc(certainty, labels) == 0.5
    assert math.isnan(macro_auc(certainty, np.zeros_like(labels)))


def test_log_likelihood_is_that_of_the_labels(random: np.random.Generator) -> None:
    certainty, labels, weights = labelled(random, 20)
    total = 0.0
    for row, label, weight in zip(certainty, labels, weights, strict=True):
        total += weight * sum(math.log(c if one else 1 - c) for c, one in zip(row, label, strict=True)) / 3
    assert log_likelihood(certainty, labels, weights) == pytest.approx(total / weights.sum())
    assert log_likelihood(labels.astype(float), labels) == pytest.approx(0.0, abs=1e-6)
    assert math.isfinite(log_likelihood(1.0 - labels, labels))


def test_importance_weighting_gives_the_likelihood_on_data(random: np.random.Generator) -> None:
    n = 200_000
    label = random.random(n) < 0.5
    certainty = np.where(label, 0.9, 0.4)[:, None]
    ratio = np.where(label, 0.4, 1.6)
    # data holds one true track in five
    expected = 0.2 * math.log(0.9) + 0.8 * math.log(0.6)
    found = importance_weighted_likelihood(certainty, label[:, None].astype(np.uint8), ratio)
    assert found == pytest.approx(expected, abs=0.005)


def test_weights_of_simulation_count_as_copies(random: np.random.Generator) -> None:
    certainty, labels, _ = labelled(random, 40)
    copies, ratio = random.integers(1, 4, 40), random.uniform(0.1, 4.0, 40)
    repeated = [np.repeat(values, copies, axis=0) for values in (certainty, labels, ratio)]
    for score in (importance_weighted_likelihood, deep_embedded_validation):
        assert score(certainty, labels, ratio, copies.astype(float)) == pytest.approx(score(*repeated))
    for plain in (macro_auc, log_likelihood):
        assert plain(certainty, labels, copies.astype(float)) == pytest.approx(plain(*repeated[:2]))


def test_control_variate_keeps_the_mean_and_narrows_the_spread(random: np.random.Generator) -> None:
    plain, controlled = [], []
    for _ in range(400):
        label = random.random(300) < 0.5
        ratio = np.where(label, 0.4, 1.6)
        certainty = np.where(label, 0.9, 0.5 + 0.1 * random.random(300))[:, None]
        arguments = certainty, label[:, None].astype(np.uint8), ratio
        plain.append(importance_weighted_likelihood(*arguments))
        controlled.append(deep_embedded_validation(*arguments))
    assert np.mean(controlled) == pytest.approx(np.mean(plain), abs=4 * np.std(plain) / 20)
    assert np.std(controlled) < 0.2 * np.std(plain)


def test_control_variate_has_no_say_on_a_ratio_of_mean_one_or_a_constant_one(random: np.random.Generator) -> None:
    certainty, labels, _ = labelled(random, 50)
    ratio = random.uniform(0.1, 3.0, 50)
    for own in (ratio / ratio.mean(), np.full(50, 1.3)):
        likelihood = importance_weighted_likelihood(certainty, labels, own)
        assert deep_embedded_validation(certainty, labels, own) == pytest.approx(likelihood)


def alone(*samples: Array) -> NDArray[np.uint64]:
    """Return a collision for each track."""
    return np.arange(sum(map(len, samples)), dtype=np.uint64)


def test_tracks_of_a_collision_do_not_tell_its_sample(random: np.random.Generator) -> None:
    """A number that all tracks of a collision share would be known from the other folds."""
    shared = random.normal(size=400)
    collision = np.repeat(np.arange(400, dtype=np.uint64), 10)
    features = np.repeat(shared, 10)[:, None]
    found = density_ratio(features[:2000], features[2000:], seed=1, collisions=collision, folds=3, iterations=40)
    apart = density_ratio(features[:2000], features[2000:], seed=1, collisions=alone(features), folds=3, iterations=40)
    assert found.discriminator_auc < 0.6 < 0.8 < apart.discriminator_auc


def normal_density_ratio(x: Array, shift: float) -> Array:
    return np.asarray(np.exp(shift * x - 0.5 * shift**2))


def test_density_ratio_of_two_normals(random: np.random.Generator) -> None:
    simulation, data = random.normal(0.0, 1.0, (6000, 2)), random.normal(0.0, 1.0, (4000, 2))
    data[:, 0] += 0.7
    for sample in (simulation, data):
        sample[random.random(len(sample)) < 0.3, 1] = np.nan
    found = density_ratio(simulation, data, seed=1, collisions=alone(simulation, data), folds=3, iterations=25)
    expected = normal_density_ratio(simulation[:, 0], 0.7)
    assert found.ratio.mean() == pytest.approx(1.0)
    assert found.scale == pytest.approx(1.0, abs=0.06)
    np.testing.assert_allclose(found.unscaled, found.ratio * found.scale)
    assert np.mean(np.abs(np.log(found.unscaled / expected))) < 0.25
    assert np.average(simulation[:, 0], weights=found.ratio) == pytest.approx(0.7, abs=0.08)
    assert found.effective_share == pytest.approx(math.exp(-(0.7**2)), abs=0.07)
    # the area of two normals one shift apart
    assert found.discriminator_auc == pytest.approx(0.5 * math.erfc(-0.7 / 2), abs=0.02)


def test_density_ratio_of_equal_samples_is_one_out_of_fold(random: np.random.Generator) -> None:
    simulation, data = random.normal(size=(2000, 3)), random.normal(size=(2000, 3))
    found = density_ratio(simulation, data, seed=1, collisions=alone(simulation, data), folds=3, iterations=20)
    assert found.discriminator_auc == pytest.approx(0.5, abs=0.03)
    assert found.effective_share > 0.85
    again = density_ratio(simulation, data, seed=1, collisions=alone(simulation, data), folds=3, iterations=20)
    np.testing.assert_array_equal(found.ratio, again.ratio)


def test_density_ratio_is_relative_to_the_weighted_simulation(random: np.random.Generator) -> None:
    simulation, data = random.normal(0.0, 1.0, (6000, 1)), random.normal(0.7, 1.0, (3000, 1))
    weights = normal_density_ratio(simulation[:, 0], 0.7)
    found = density_ratio(
        simulation, data, seed=1, collisions=alone(simulation, data), folds=3, iterations=20, weights=weights
    )
    assert found.discriminator_auc == pytest.approx(0.5, abs=0.03)
    assert np.average(found.ratio, weights=weights) == pytest.approx(1.0)
    assert np.average(simulation[:, 0], weights=weights * found.ratio) == pytest.approx(0.7, abs=0.08)
    assert found.effective_share == pytest.approx(math.exp(-(0.7**2)), abs=0.08)


def test_discriminator_is_judged_on_the_weighted_simulation(random: np.random.Generator) -> None:
    simulation, data = random.normal(0.0, 1.0, (6000, 1)), random.normal(1.4, 1.0, (3000, 1))
    weights = normal_density_ratio(simulation[:, 0], 0.7)
    found = density_ratio(
        simulation, data, seed=1, collisions=alone(simulation, data), folds=3, iterations=20, weights=weights
    )
    assert found.discriminator_auc == pytest.approx(0.5 * math.erfc(-0.7 / 2), abs=0.03)


def test_density_ratio_is_clipped(random: np.random.Generator) -> None:
    simulation, data = random.normal(0.0, 1.0, (600, 1)), random.normal(8.0, 1.0, (600, 1))
    found = density_ratio(
        simulation, data, seed=1, collisions=alone(simulation, data), folds=2, iterations=20, most=5.0
    )
    assert found.unscaled.min() == pytest.approx(0.2)
    assert found.discriminator_auc > 0.99


def test_class_probabilities_are_those_of_one_yes_or_none(random: np.random.Generator) -> None:
    certainty = random.uniform(0.01, 0.99, (5, 3))
    for row, found in zip(certainty, class_probabilities(certainty), strict=True):
        answers = [np.prod([c if i == yes else 1 - c for i, c in enumerate(row)]) for yes in range(4)]
        np.testing.assert_allclose(found, np.array(answers) / sum(answers))


def test_soft_neighbourhood_is_the_mean_entropy_over_the_others(random: np.random.Generator) -> None:
    vectors = random.random((23, 4))
    entropies = []
    for i, one in enumerate(vectors):
        cosines = [
            one @ other / np.linalg.norm(one) / np.linalg.norm(other) for j, other in enumerate(vectors) if j != i
        ]
        p = np.exp(np.array(cosines) / 0.1)
        p /= p.sum()
        entropies.append(-(p * np.log(p)).sum())
    for batch in (5, 23, 100):
        found = soft_neighbourhood(vectors, seed=1, temperature=0.1, batch=batch)
        assert found == pytest.approx(np.mean(entropies))


def test_soft_neighbourhood_prefers_dense_clusters_and_is_fooled_by_collapse(random: np.random.Generator) -> None:
    centres = np.eye(4)[random.integers(0, 4, 200)]
    dense, loose = (centres + random.normal(0.0, width, centres.shape) for width in (0.02, 0.4))
    assert soft_neighbourhood(dense, seed=1) > soft_neighbourhood(loose, seed=1)
    assert soft_neighbourhood(np.ones((200, 4)), seed=1) == pytest.approx(math.log(199))
    assert soft_neighbourhood(np.ones((200, 4)), seed=1, most=50) == pytest.approx(math.log(49))


def test_information_maximisation_of_known_tables() -> None:
    sure = np.eye(4)[:, :3].repeat(10, axis=0)
    assert information_maximisation(sure) == pytest.approx(math.log(4), abs=1e-4)
    assert information_maximisation(np.full((10, 3), 0.5)) == pytest.approx(0.0, abs=1e-9)
    certainty = np.array([[0.5], [0.8]])
    mean, entropies = 0.65, [math.log(2), -0.8 * math.log(0.8) - 0.2 * math.log(0.2)]
    expected = -mean * math.log(mean) - (1 - mean) * math.log(1 - mean) - np.mean(entropies)
    assert information_maximisation(certainty) == pytest.approx(expected)


def linear(features: Array) -> Array:
    """Certainties of two species on either side of 0 in the first feature."""
    logits = np.nan_to_num(features[:, :1]) * np.array([8.0, -8.0])
    return np.asarray(1.0 / (1.0 + np.exp(-logits)))


def test_mixup_agreement_tells_a_smooth_model_from_a_rough_one(random: np.random.Generator) -> None:
    features = random.normal(0.0, 0.2, (1000, 2)) + random.choice([-1.0, 1.0], (1000, 1))

    def rough(values: Array) -> Array:
        return linear(np.where(np.abs(values) < 0.5, -1.0, values))

    smooth = mixup_agreement(linear, features, linear(features), seed=1)
    assert smooth > 0.65 and smooth > mixup_agreement(rough, features, rough(features), seed=1) + 0.1
    assert smooth == mixup_agreement(linear, features, linear(features), seed=1)


def test_mixup_mixes_alike_tracks_alone_each_sort_in_turn(random: np.random.Generator) -> None:
    features = random.normal(0.0, 1.0, (400, 3))
    features[:, 2] = random.choice([-1.0, 1.0], 400)
    features[random.random(400) < 0.4, 1] = np.nan
    certainty = linear(features)
    known = {(*np.isnan(row), row[2]) for row in features}
    seen: list[Array] = []

    def predict(mixed: Array) -> Array:
        seen.append(mixed)
        return linear(mixed)

    mixup_agreement(predict, features, certainty, seed=1, groups=(features[:, 2] > 0).astype(int))
    within, between = seen
    assert len(within) == len(between) == 400
    for mixed in seen:
        assert {(*np.isnan(row), round(row[2], 9)) for row in mixed} == known
    largest = np.abs(features[:, 0]).max()
    assert np.abs(between[:, 0]).max() < 0.55 * largest < np.abs(within[:, 0]).max()
    assert np.isnan(within[:, 1]).sum() == np.isnan(features[:, 1]).sum()


def test_mixup_counts_classes_alike_and_needs_partners() -> None:
    features = np.concatenate([np.full((97, 1), 2.0), np.full((3, 1), -2.0)])

    def forgets_the_rare(values: Array) -> Array:
        return linear(np.abs(values))

    # pions agree within their class and in mixtures with a heavier pion, the rare class never
    assert mixup_agreement(forgets_the_rare, features, linear(features), seed=1) == pytest.approx(0.5)
    lonely = np.array([[1.0, np.nan], [1.0, 2.0]])
    assert math.isnan(mixup_agreement(linear, lonely, linear(lonely), seed=1))


def test_species_plausibility_of_known_yields() -> None:
    bins = np.array([0, 0, 0, 1, -1])
    certainty = np.array([[0.6, 0.2], [0.4, 0.6], [0.5, 0.7], [0.2, 0.8], [0.0, 1.0]])
    # shares (0.5, 0.5) and (0.2, 0.8), of three tracks and one
    expected = np.array([[40.0, 60.0], [0.4, 0.6], [1.0, 1.0]])
    first = 3 * abs(math.log(0.5 / 0.4)) + abs(math.log(0.2 / 0.4))
    second = 3 * abs(math.log(0.5 / 0.6)) + abs(math.log(0.8 / 0.6))
    assert species_plausibility(certainty, bins, expected) == pytest.approx(-(first + second) / 8)
    assert species_plausibility(certainty, bins, np.array([[5.0, 5.0], [2.0, 8.0], [0.0, 1.0]])) == pytest.approx(0.0)


def test_species_plausibility_leaves_out_what_is_not_expected_and_bounds_what_is_missing() -> None:
    bins = np.zeros(2, np.int64)
    certainty = np.array([[1.0, 0.0], [1.0, 0.0]])
    assert species_plausibility(certainty, bins, np.array([[1.0, 0.0]])) == pytest.approx(0.0)
    missing = species_plausibility(certainty, bins, np.array([[0.5, 0.5]]), least=0.01)
    assert missing == pytest.approx(-0.5 * (math.log(2) + math.log(0.5 / 0.01)))
    assert math.isnan(species_plausibility(certainty, bins, np.zeros((1, 2))))


def test_probe_agreement_is_chi_squared_per_rate(random: np.random.Generator) -> None:
    data = np.array([0.9, 0.5, np.nan]), np.array([0.03, 0.1, 0.1])
    simulation = np.array([0.8, 0.5, 0.2]), np.array([0.04, 0.1, 0.1])
    assert probe_agreement(data, simulation) == pytest.approx(-2.0)
    errors = np.full(4000, 0.02), np.full(4000, 0.05)
    first, second = (0.5 + error * random.normal(size=4000) for error in errors)
    assert probe_agreement((first, errors[0]), (second, errors[1])) == pytest.approx(-1.0, abs=0.1)
    assert math.isnan(probe_agreement(([np.nan], [np.nan]), ([0.5], [0.1])))


def test_spearman_is_that_of_scipy(random: np.random.Generator) -> None:
    score, truth = np.round(random.random(30), 1), random.random(30)
    assert spearman(score, truth) == pytest.approx(spearmanr(score, truth).statistic)
    assert spearman(score, np.exp(score)) == pytest.approx(1.0)
    assert spearman([1.0, np.nan, 2.0, 3.0], [5.0, 9.0, 6.0, 7.0]) == pytest.approx(1.0)
    assert math.isnan(spearman([1.0, 1.0], [1.0, 2.0]))
    assert math.isnan(spearman([np.nan], [1.0]))


def test_regret_is_what_the_choice_costs() -> None:
    truth = [0.7, 0.9, 0.8]
    assert regret([3.0, 1.0, 2.0], truth) == pytest.approx(0.2)
    assert regret([1.0, 3.0, 2.0], truth) == 0.0
    assert regret([np.nan, 1.0, 2.0], truth) == pytest.approx(0.1)
    assert regret([3.0, 1.0, 3.0], truth) == pytest.approx(0.15)
    assert math.isnan(regret([np.nan] * 3, truth))
