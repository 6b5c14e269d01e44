"""Decorrelation of certainties from a column: flatness and adversary."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from adapt_batches import HALF, SPECIES, area, batch, domains, made, trained
from models_sample import library_state  # noqa: F401
from torch import nn

from pidflow.adapt.steps import decorrelate
from pidflow.adapt.steps.base import Batch, Domains
from pidflow.errors import PidflowError
from pidflow.models.base import Tracks

pytestmark = pytest.mark.usefixtures("library_state")


def test_bins_are_equally_full_of_a_species() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.integers(0, 3, 3000)[:, None] == np.arange(2)).astype(np.uint8)
    column = (rng.exponential(size=3000) * (1 + labels[:, 1])).astype(np.float32)
    column[:50] = np.nan
    found = decorrelate.edges(column, labels, 4)
    assert found.shape == (2, 3) and found.dtype == np.float32
    for own, inner in zip(labels.T > 0, found, strict=True):
        values = column[own & ~np.isnan(column)]
        np.testing.assert_allclose(np.bincount(np.digitize(values, inner)), len(values) / 4, atol=1)
    assert found[1, 1] > 1.5 * found[0, 1]


def test_unevenness_is_the_sum_over_pairs() -> None:
    torch.manual_seed(2)
    logits = torch.randn(9) * 2
    number = torch.tensor([0, 0, 0, 2, 2, 4, 1, 1, 1])
    used = [n for n in range(9) if n != 5]  # a lone track tells nothing of its bin
    values = [float(logits[n]) for n in used]
    soft = decorrelate._SOFT * float(np.std(values, ddof=1))
    total = 0.0
    for threshold in values:
        passed = {n: 1 / (1 + math.exp(-(float(logits[n]) - threshold) / soft)) for n in used}
        squares = {}
        for name, tracks in {"all": used, **{k: [n for n in used if number[n] == k] for k in (0, 1, 2)}}.items():
            pairs = [passed[i] * passed[j] for i in tracks for j in tracks if i != j]
            squares[name] = sum(pairs) / len(pairs)
        total += (3 * squares[0] + 3 * squares[1] + 2 * squares[2]) / 8 - squares["all"]
    assert float(decorrelate.unevenness(logits, number, 5)) == pytest.approx(total / 8, abs=1e-5)


def test_unevenness_of_few_tracks_is_that_of_many_on_average() -> None:
    """It estimates the efficiency's variance over bins, and nought where there is none, however few the tracks."""
    torch.manual_seed(0)
    number = torch.arange(4000) % 4
    flat, sloped = torch.randn(4000), torch.randn(4000) + number * 0.5
    for logits in (flat, sloped):
        own = logits.numpy()
        thresholds = np.quantile(own, np.arange(0.01, 1, 0.02))
        efficiency = np.array([[(own[number == k] > t).mean() for k in range(4)] for t in thresholds])
        expected = float(efficiency.var(axis=1).mean())
        picks = [torch.randperm(4000)[:24] for _ in range(600)]
        found = [float(decorrelate.unevenness(logits[rows], number[rows], 4)) for rows in picks]
        assert np.mean(found) == pytest.approx(expected, abs=4 * np.std(found) / 600**0.5 + 1e-3)
    assert expected > 0.02
    assert float(decorrelate.unevenness(sloped, number, 4)) == pytest.approx(
        float(decorrelate.unevenness(sloped * 5 + 3, number, 4)), rel=1e-3
    )


@pytest.mark.parametrize(("species", "heads"), [((), (0, 1)), ((321,), (1,)), ((211,), (0,)), ((321, 211), (0, 1))])
def test_others_are_true_tracks_of_the_protected_species(species: tuple[int, ...], heads: tuple[int, ...]) -> None:
    pt = np.where(np.arange(60) % 5 == 4, np.nan, np.arange(60) + 100.0 * (np.arange(60) % 3))
    both = domains(60, pt=pt)
    step = made("decorrelate", both, species=species, bins=4)
    rows = [n for n in range(60) if n % 3 in heads and n % 5 != 4]
    np.testing.assert_array_equal(step.others(both), both.simulation.features[rows])
    np.testing.assert_array_equal(step._head, [n % 3 for n in rows])
    # a species' tracks are in rising pt: equal quarters of them are its bins
    for head in heads:
        own = [number for n, number in zip(rows, step._number, strict=True) if n % 3 == head]
        assert own == sorted(own) and len(own) == 16
        assert np.bincount(own).tolist() == [4, 4, 4, 4]


@pytest.mark.parametrize("species", [(999,), (321, 999)])
def test_species_that_the_model_does_not_know_is_refused(species: tuple[int, ...]) -> None:
    with pytest.raises(PidflowError, match="the model has no certainty of species 999; correct 'species' of the step"):
        made("decorrelate", species=species)


@pytest.mark.parametrize(
    ("species", "pt"),
    [((), np.full(40, np.nan)), ((321,), np.where(np.arange(40) % 3 == 1, np.nan, 1))],
)
@pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning")
def test_species_without_a_track_to_protect_is_refused(species: tuple[int, ...], pt: Any) -> None:
    named = ", ".join(map(str, species))
    with pytest.raises(PidflowError, match=rf"no training track of species \[{named}\] has a value of 'pt'; correct"):
        made("decorrelate", domains(pt=pt), species=species)


KNOWN = [(0, 0), (0, 1), (0, 1), (0, 2), (0, 2), (0, 2), (1, 1), (1, 1), (1, 2), (1, 2), (1, 0)]
"""Species and bin of the others of `protected`; of either species, one is alone in its bin."""


def protected(**settings: Any) -> tuple[Any, Batch]:
    """Return a step of three bins, and a batch with others of which species and bin are known."""
    step = made("decorrelate", domains(72, pt=np.arange(72)), bins=3, **settings)
    taken: dict[tuple[int, int], int] = {}
    rows = []
    for cell in KNOWN:
        own = np.flatnonzero((step._head == cell[0]) & (step._number == cell[1]))
        assert len(own) == 8
        rows.append(own[taken.get(cell, 0)])
        taken[cell] = taken.get(cell, 0) + 1
    return step, batch(others=len(KNOWN), rows=torch.from_numpy(np.array(rows)), progress=1.0)


@pytest.mark.parametrize("method", ["flatness", "adversary"])
def test_only_the_own_head_of_the_others_is_decorrelated(method: str) -> None:
    step, given = protected(method=method)
    # the labels of the batch itself do not matter
    relabelled = replace(given, labels=1 - given.labels, columns={})
    loss = step.penalty(given)
    assert float(step.penalty(relabelled).detach()) == float(loss.detach())
    loss.backward()
    assert given.logits.grad is not None and given.vectors.grad is None
    touched = {(int(n), int(s)) for n, s in given.logits.grad.nonzero()}
    own = {(HALF + n, head) for n, (head, _) in enumerate(KNOWN)}
    # of the flatness, a lone track tells nothing of its bin
    assert touched == (own if method == "adversary" else own - {(HALF, 0), (HALF + len(KNOWN) - 1, 1)})


def test_flatness_is_the_mean_over_the_protected_species() -> None:
    step, given = protected(strength=3.0)
    logits = given.logits.detach()[HALF:]
    number = torch.tensor([number for _, number in KNOWN])
    parts = [
        decorrelate.unevenness(logits[own, head], number[own], 3) for head, own in ((0, range(6)), (1, range(6, 11)))
    ]
    assert float(step.penalty(given).detach()) == pytest.approx(3.0 * float(sum(parts)) / 2, rel=1e-5)
    # a species of which there is no track in the batch costs nothing, but counts
    alone = Batch(
        given.vectors[: HALF + 6], given.logits[: HALF + 6], given.labels, given.weights, {}, given.rows[:6], 1.0
    )
    assert float(step.penalty(alone).detach()) == pytest.approx(3.0 * float(parts[0]) / 2, rel=1e-5)


def test_bins_of_one_track_each_cost_nothing() -> None:
    step, given = protected()
    lone = Batch(
        given.vectors[: HALF + 2], given.logits[: HALF + 2], given.labels, given.weights, {}, given.rows[:2], 1.0
    )
    loss = step.penalty(lone)
    loss.backward()
    assert float(loss.detach()) == 0.0 and given.logits.grad is not None and not given.logits.grad.any()


def test_adversary_of_a_column_is_reversed() -> None:
    step, given = protected(method="adversary", strength=0.5)
    loss = step.penalty(given)
    logits = given.logits.detach().requires_grad_()
    parts = []
    for track, (head, number) in enumerate(KNOWN):
        code = torch.zeros(SPECIES)
        code[head] = 1.0
        guess = step._adversary(torch.cat([logits[HALF + track, head].reshape(1), code]))
        parts.append(-torch.log_softmax(guess, dim=0)[number])
    expected = torch.stack(parts).mean()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    loss.backward()
    expected.backward()
    assert logits.grad is not None
    torch.testing.assert_close(given.logits.grad, -0.5 * math.tanh(5.0) * logits.grad)


class Sloped:
    """Tracks whose first feature tells the species the better the higher the second one, which is pt."""

    def __init__(self) -> None:
        torch.manual_seed(7)
        raw, labels = self(4000)
        tracks = Tracks(raw.numpy(), labels.numpy().astype(np.uint8))
        self.domains = Domains(tracks, raw.numpy(), ("p", "beta"), {"pt": raw[:, 1].numpy()}, (211,))

    def __call__(self, tracks: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.randint(2, (tracks, 1)).float()
        pt = torch.rand(tracks)
        return torch.stack([torch.randn(tracks) + labels[:, 0] * (1.0 + 2.5 * pt), pt], dim=1), labels


def spread(network: nn.Module, sample: Any) -> float:
    """Return the deviation of the efficiency over bins of pt, where it is 80 % on average."""
    torch.manual_seed(97)
    raw, labels = sample(20_000)
    own = labels[:, 0] > 0
    with torch.no_grad():
        logits = network(raw[own])[:, 0].numpy()
    passed, pt = logits > np.quantile(logits, 0.2), raw[own, 1].numpy()
    return float(np.std([passed[(pt * 5).astype(int) == number].mean() for number in range(5)]))


@pytest.mark.parametrize(("method", "strength"), [("flatness", 10.0), ("adversary", 1.0)])
def test_decorrelated_efficiency_is_flat(method: str, strength: float) -> None:
    sample = Sloped()
    before = trained(None, sample, 600)
    step = decorrelate.Step(decorrelate.Settings(method=method, strength=strength))
    after = trained(step, sample, 600)
    assert spread(before, sample) > 0.08
    assert spread(after, sample) < 0.5 * spread(before, sample)
    assert area(after, sample) > area(before, sample) - 0.03
