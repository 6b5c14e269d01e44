"""Training steps: what all have in common, and minimum class confusion."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from adapt_batches import HALF, SPECIES, TRAINING, batch, domains, made
from models_sample import library_state  # noqa: F401
from pydantic import ValidationError
from torch.nn import functional

from pidflow.adapt.means import Means
from pidflow.adapt.steps import kinds, mcc, settings_of, step_of
from pidflow.adapt.steps.base import TrainingStep

pytestmark = pytest.mark.usefixtures("library_state")


# settings


@pytest.mark.parametrize("kind", TRAINING)
def test_settings_of_a_step(kind: str) -> None:
    assert kind in kinds()
    settings: Any = settings_of(kind)()
    assert settings.kind == kind and settings.epochs >= 8 and settings.strength > 0
    assert issubclass(step_of(kind), TrainingStep)
    for key, value in {"strength": 0.0, "epochs": 0, "unknown": 1}.items():
        with pytest.raises(ValidationError):
            settings_of(kind).model_validate({key: value})


@pytest.mark.parametrize(
    ("kind", "settings", "alone", "frozen", "balanced"),
    [
        ("self_training", {}, 0, False, False),
        ("dann", {}, 1, False, True),
        ("dann", {"discriminator_epochs": 3, "discriminator": "first"}, 3, True, True),
        ("cdan", {"discriminator_epochs": 2}, 2, False, True),
        ("mmd", {}, 0, False, True),
        ("deep_coral", {}, 0, False, True),
        ("mcc", {}, 0, False, False),
        ("decorrelate", {"method": "flatness", "adversary_epochs": 2}, 0, False, False),
        ("decorrelate", {"method": "adversary", "adversary_epochs": 2}, 2, False, False),
    ],
)
def test_how_a_step_is_trained(
    kind: str, settings: Mapping[str, Any], alone: int, frozen: bool, balanced: bool
) -> None:
    step = made(kind, **settings)
    assert (step.alone, step.frozen, step.balanced) == (alone, frozen, balanced)


@pytest.mark.parametrize("kind", TRAINING)
def test_tracks_beside_the_labelled_ones_are_those_of_data(kind: str) -> None:
    both = domains(pt=np.arange(40))
    step = made(kind, both)
    if kind == "decorrelate":
        own = np.arange(40)[np.arange(40) % 3 < 2]
        np.testing.assert_array_equal(step.others(both), both.simulation.features[own])
        assert (step.others_per_track, step.columns()) == (2, ("pt",))
    else:
        assert step.others(both) is both.data
        assert (step.others_per_track, step.columns()) == (1, ())


@pytest.mark.parametrize("kind", [kind for kind in TRAINING if kind != "self_training"])
def test_figures_are_the_means_of_an_epoch(kind: str) -> None:
    step = made(kind, **({"method": "adversary"} if kind == "decorrelate" else {}))
    first = [float(step.penalty(batch(seed)).detach()) for seed in (1, 2)]
    figures = step.figures()
    assert figures and all(math.isfinite(value) for value in figures.values())
    scale = 1.0 if kind in ("dann", "cdan", "decorrelate") else step.settings.strength
    assert next(iter(figures.values())) * scale == pytest.approx(np.mean(first), rel=1e-5)
    step.penalty(batch(5))
    assert step.figures() != figures and step.figures() == {}


def test_means() -> None:
    means = Means()
    assert means.take() == {}
    for one, two in ((1.0, 2.0), (4.0, 5.0), (4.0, -4.0)):
        means.add(one=torch.tensor(one, requires_grad=True), two=torch.tensor(two))
    assert means.take() == {"one": 3.0, "two": 1.0}
    means.add(one=torch.tensor(7.0))
    assert means.take() == {"one": 7.0}


# confusion


def test_confusion_is_that_of_the_publication() -> None:
    logits = batch(1).logits.detach() * 3
    temperature = 1.7
    rows = [[*row, 0.0] for row in logits.tolist()]
    shares, weights = [], []
    for row in rows:
        odds = [math.exp(value / temperature) for value in row]
        shares.append([value / sum(odds) for value in odds])
        weights.append(1 + math.exp(sum(p * math.log(p) for p in shares[-1])))
    classes = range(SPECIES + 1)
    weights = [len(rows) * weight / sum(weights) for weight in weights]
    total = 0.0
    for one in classes:
        line = [sum(w * p[one] * p[two] for w, p in zip(weights, shares, strict=True)) for two in classes]
        total += sum(line[two] for two in classes if two != one) / sum(line)
    assert float(mcc.confusion(logits, temperature)) == pytest.approx(total / len(classes), rel=1e-5)


def test_gradient_of_the_confusion_is_that_of_fixed_weights() -> None:
    logits = batch(1).logits
    mcc.confusion(logits, 1.7).backward()
    start = logits.detach().double()
    share = torch.softmax(functional.pad(start, (0, 1)) / 1.7, dim=1)
    weight = 1 + torch.exp((share * share.log()).sum(dim=1))

    def fixed(values: torch.Tensor) -> float:
        share = torch.softmax(functional.pad(values, (0, 1)) / 1.7, dim=1)
        together = torch.einsum("ni,n,nj->ij", share, weight, share)
        return float(1 - (together.diagonal() / together.sum(dim=1)).mean())

    for track, head in ((0, 0), (4, 1), (9, 0)):
        change = torch.zeros_like(start)
        change[track, head] = 1e-5
        expected = (fixed(start + change) - fixed(start - change)) / 2e-5
        assert logits.grad is not None
        assert float(logits.grad[track, head]) == pytest.approx(expected, rel=1e-3, abs=1e-7)


def test_confusion_is_that_of_data_and_falls_with_sureness() -> None:
    step = made("mcc", strength=0.5, temperature=2.0)
    given = batch()
    loss = step.penalty(given)
    assert float(loss.detach()) == pytest.approx(0.5 * float(mcc.confusion(given.logits[HALF:].detach(), 2.0)))
    loss.backward()
    assert given.logits.grad is not None
    assert given.logits.grad[:HALF].abs().max() == 0 < given.logits.grad[HALF:].abs().max()
    sure = torch.tensor([[40.0, -40.0], [-40.0, 40.0], [-40.0, -40.0]])
    assert float(mcc.confusion(sure, 1.0)) < 1e-6 < float(mcc.confusion(sure * 0, 1.0))
    assert float(mcc.confusion(sure * 0, 1.0)) == pytest.approx(2 / 3)
