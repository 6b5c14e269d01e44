"""Self-training: labels of data, corrected for its yields."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from adapt_batches import HALF, PDG, SPECIES, batch, domains, made
from models_sample import library_state  # noqa: F401

from pidflow.adapt.steps import self_training
from pidflow.adapt.steps.base import Domains
from pidflow.models.base import Tracks

pytestmark = pytest.mark.usefixtures("library_state")


def mixture(tracks: int, share: tuple[float, ...], seed: int, width: float = 0.15) -> tuple[np.ndarray, np.ndarray]:
    """Return classes of tracks and their certainties, those of a classifier that knows equal shares."""
    rng = np.random.default_rng(seed)
    own = rng.choice(len(share), tracks, p=share)
    signal = own + width * rng.normal(size=tracks)
    density = np.exp(-0.5 * ((signal[:, None] - np.arange(len(share))) / width) ** 2) + 1e-12
    return own, density / density.sum(axis=1, keepdims=True)


def test_certainties_are_those_of_the_heads_and_of_none() -> None:
    logits = np.array([[-2.0, -1.0], [3.0, 2.0], [0.0, 0.0], [1000.0, -1000.0]], np.float32)
    found = self_training.certainties(logits)
    for row, expected in zip(found, logits.astype(float), strict=True):
        each = [1 / (1 + math.exp(-min(30, max(-30, value)))) for value in expected]
        every = [*each, max(1e-6, 1 - sum(each))]
        np.testing.assert_allclose(row, np.array(every) / sum(every), rtol=1e-9)


@pytest.mark.parametrize("weighted", [False, True])
def test_corrected_certainties_are_those_of_an_explicit_maximisation(weighted: bool) -> None:
    """Share and posterior in turn, for each bin by itself, with 200 tracks of the simulation's composition."""
    rng = np.random.default_rng(5)
    _, simulated = mixture(900, (0.5, 0.3, 0.2), 1, 0.4)
    _, measured = mixture(700, (0.2, 0.2, 0.6), 2, 0.4)
    bins = rng.integers(0, 3, 700), rng.integers(0, 2, 900)  # no simulated track in the last bin
    weights = rng.uniform(0.2, 2.0, 900).astype(np.float32) if weighted else None
    found = self_training.corrected(measured, simulated, *bins, weights)
    expected = measured.copy()
    for number in (0, 1):
        own = [n for n in range(700) if bins[0][n] == number]
        known = [n for n in range(900) if bins[1][n] == number]
        weight = [1.0 if weights is None else float(weights[n]) for n in known]
        before = [sum(w * simulated[n, k] for w, n in zip(weight, known, strict=True)) / sum(weight) for k in range(3)]
        share = before
        for _ in range(50):
            total = [200.0 * part for part in before]
            for n in own:
                odds = [measured[n, k] * share[k] / before[k] for k in range(3)]
                expected[n] = [value / sum(odds) for value in odds]
                total = [one + part for one, part in zip(total, expected[n], strict=True)]
            following = [one / (len(own) + 200.0) for one in total]
            moved = max(abs(one - other) for one, other in zip(following, share, strict=True))
            share = following
            if moved < 1e-6:
                break
    np.testing.assert_allclose(found, expected[:, :2], rtol=1e-9)
    np.testing.assert_array_equal(found[bins[0] == 2], measured[bins[0] == 2, :2])
    assert np.abs(found - measured[:, :2]).max() > 0.1


def test_yields_of_data_are_found_where_tracks_are_many() -> None:
    share = (0.7, 0.05, 0.25)
    _, simulated = mixture(30_000, (1 / 3, 1 / 3, 1 / 3), 1, 0.4)
    own, measured = mixture(30_000, share, 2, 0.4)
    bins = np.zeros(30_000, int)
    found = self_training.corrected(measured, simulated, bins, bins, None)
    true = np.array([(own == k).mean() for k in range(2)])
    np.testing.assert_allclose(found.mean(axis=0), true, atol=0.012)
    assert np.abs(measured[:, :2].mean(axis=0) - true).max() > 0.05
    assert (found >= 0).all() and (found.sum(axis=1) <= 1 + 1e-9).all()
    # of few tracks, the simulation's composition stays
    few = self_training.corrected(measured[:10], simulated, bins[:10], bins, None)
    assert np.abs(few - measured[:10, :2]).max() < 0.1


def test_corrected_certainties_do_not_depend_on_the_order() -> None:
    rng = np.random.default_rng(3)
    _, simulated = mixture(500, (0.5, 0.3, 0.2), 1, 0.4)
    _, measured = mixture(400, (0.2, 0.2, 0.6), 2, 0.4)
    bins, weights = (rng.integers(0, 2, 400), rng.integers(0, 2, 500)), rng.uniform(0.5, 2.0, 500).astype(np.float32)
    found = self_training.corrected(measured, simulated, *bins, weights)
    data, simulation = rng.permutation(400), rng.permutation(500)
    other = self_training.corrected(
        measured[data], simulated[simulation], bins[0][data], bins[1][simulation], weights[simulation]
    )
    np.testing.assert_allclose(other, found[data], rtol=1e-9)


def test_bins_are_of_momentum_charge_and_detectors() -> None:
    rng = np.random.default_rng(0)
    names = ("tpc_signal", "trd_signal", "beta", "sign", "p")
    parts = []
    for tracks, scale in ((300, 1.0), (400, 2.0)):
        features = rng.exponential(scale, (tracks, 5)).astype(np.float32)
        features[:, 3] = rng.choice([-1.0, 1.0], tracks)
        for column in (1, 2):
            features[rng.random(tracks) < 0.4, column] = np.nan
        parts.append(features)
    both = Domains(Tracks(parts[0], np.zeros((300, 2), np.uint8)), parts[1], names)
    edges = np.quantile(parts[1][:, 4], [0.25, 0.5, 0.75])
    found = [self_training.bins_of(part, both, 4) for part in parts]
    cells: dict[int, set[tuple[Any, ...]]] = {}
    for part, numbers in zip(parts, found, strict=True):
        for row, number in zip(part, numbers, strict=True):
            cell = (int((row[4] >= edges).sum()), row[3] > 0, *np.isnan(row[1:3]))
            cells.setdefault(int(number), set()).add(cell)
    assert all(len(own) == 1 for own in cells.values())
    assert len(cells) == len(set().union(*cells.values())) == 4 * 2 * 4
    # what is no feature has one bin
    few = Domains(both.simulation, parts[1][:, :1], names[:1])
    assert set(self_training.bins_of(parts[1][:, :1], few, 4)) == {0}


def self_trained(seed: int = 0) -> tuple[Any, Domains]:
    both = domains(60, seed)
    return made("self_training", both, bins=2, tolerance=0.01, strength=0.5), both


def logits_of(features: Any, offset: float = 0.0) -> Any:
    return np.stack([features[:, 0] + offset, -features[:, 0] - 1.0], axis=1).astype(np.float32)


def test_self_training_stops_once_labels_stay() -> None:
    step, both = self_trained()
    changes = []
    labels: list[Any] = []
    # of the third score, hardly anything is new
    for epoch, (offset, goes_on) in enumerate([(0.0, True), (0.5, True), (0.5001, False), (1.0, True)]):
        assert step.begin(epoch, both, lambda part, by=offset: logits_of(part, by)) is goes_on
        probability = [self_training.certainties(logits_of(p, offset)) for p in (both.data, both.simulation.features)]
        bins = [self_training.bins_of(part, both, 2) for part in (both.data, both.simulation.features)]
        labels.append(self_training.corrected(*probability, *bins, None))
        np.testing.assert_allclose(step._labels.values, labels[-1], rtol=1e-6)
        changes.append(step.figures()["label_change"])
    assert math.isnan(changes[0])
    for number in (1, 2, 3):
        assert changes[number] == pytest.approx(np.abs(labels[number] - labels[number - 1]).mean(), rel=1e-3)
    assert changes[2] < 0.01 < changes[1]


def test_self_training_without_tolerance_never_stops() -> None:
    both = domains(60)
    step = made("self_training", both, tolerance=0.0)
    assert all(step.begin(epoch, both, logits_of) for epoch in range(3))
    assert step.figures() == {"label_change": 0.0}


def test_labels_of_data_are_the_targets_of_the_other_half() -> None:
    step, both = self_trained()
    step.begin(0, both, logits_of)
    rows = torch.tensor([7, 3, 3, 50, 0, 12])
    given = batch(rows=rows)
    loss = step.penalty(given)
    total = 0.0
    for logits, label in zip(given.logits.detach()[HALF:].tolist(), step._labels.values[rows].numpy(), strict=True):
        for logit, target in zip(logits, label, strict=True):
            certainty = 1 / (1 + math.exp(-logit))
            total -= target * math.log(certainty) + (1 - target) * math.log(1 - certainty)
    assert float(loss.detach()) == pytest.approx(0.5 * total / (HALF * SPECIES), rel=1e-5)
    loss.backward()
    assert given.logits.grad is not None and not given.logits.grad[:HALF].any()
    assert given.logits.grad[HALF:].abs().min() > 0


def test_simulated_weights_count_in_the_yields() -> None:
    step, both = self_trained()
    weight = np.where(both.simulation.features[:, 0] > 0, 9.0, 0.1).astype(np.float32)
    tracks = Tracks(both.simulation.features, both.simulation.labels, weight)
    step.begin(0, Domains(tracks, both.data, both.features, both.columns, PDG), logits_of)
    probability = [self_training.certainties(logits_of(part)) for part in (both.data, tracks.features)]
    bins = [self_training.bins_of(part, both, 2) for part in (both.data, tracks.features)]
    plain, weighted = (self_training.corrected(*probability, *bins, each) for each in (None, weight))
    np.testing.assert_allclose(step._labels.values, weighted, rtol=1e-6)
    assert np.abs(plain - weighted).max() > 5e-4
