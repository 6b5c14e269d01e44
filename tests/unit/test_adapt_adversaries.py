"""Steps with a discriminator of domains, 'dann' and 'cdan': reversed gradients, losses and what they achieve."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from adapt_batches import HALF, Shifted, area, batch, made, trained
from models_sample import library_state  # noqa: F401

from pidflow.adapt import reversal
from pidflow.adapt.steps import cdan, settings_of, step_of
from pidflow.adapt.steps.base import Batch

pytestmark = pytest.mark.usefixtures("library_state")


@pytest.mark.parametrize("strength", [0.0, 0.3, 2.0])
def test_reversed_gradient(strength: float) -> None:
    values = torch.randn(4, 3, requires_grad=True)
    weight = torch.randn(4, 3)
    passed = reversal.ReverseGradient.apply(values, strength)
    assert torch.equal(passed, values)
    (passed * weight).sum().backward()
    torch.testing.assert_close(values.grad, -strength * weight)


def test_strength_grows_from_nothing_to_its_final_value() -> None:
    assert reversal.strength_at(0.0, 0.7) == 0.0
    for progress in (0.1, 0.5, 1.0):
        # 2/(1 + e⁻²ˣ) − 1 is tanh x
        assert reversal.strength_at(progress, 0.7) == pytest.approx(0.7 * math.tanh(5 * progress))
    assert reversal.strength_at(1.0, 0.7) == pytest.approx(0.7, rel=1e-4)


@pytest.mark.parametrize("outputs", [1, 5])
def test_discriminator_sizes(outputs: int) -> None:
    network = reversal.discriminator(3, 7, outputs)
    assert network(torch.zeros(4, 3)).shape == (4, outputs)
    assert sum(parameter.numel() for parameter in network.parameters()) == 3 * 7 + 7 + 7 * 7 + 7 + (7 + 1) * outputs


@pytest.mark.parametrize("weighted", [False, True])
def test_domain_loss_is_the_cross_entropy(weighted: bool) -> None:
    torch.manual_seed(1)
    guess = torch.randn(8, 1)
    weight = torch.rand(8) if weighted else torch.ones(8)
    loss, accuracy = reversal.domain_loss(guess, weight)
    total = right = 0.0
    for track in range(8):
        certainty = 1 / (1 + math.exp(-float(guess[track])))
        total -= float(weight[track]) * math.log(certainty if track >= 4 else 1 - certainty)
        right += float(weight[track]) * ((certainty > 0.5) == (track >= 4))
    assert float(loss) == pytest.approx(total / float(weight.sum()), rel=1e-5)
    assert float(accuracy) == pytest.approx(right / float(weight.sum()))


@pytest.mark.parametrize(("schedule", "strength"), [("rising", 0.2 * math.tanh(5 * 0.1)), ("constant", 0.2)])
def test_dann_gradient_is_reversed_for_the_encoder_only(schedule: str, strength: float) -> None:
    step = made("dann", strength=0.2, schedule=schedule)
    given = batch(progress=0.1)
    step.penalty(given).backward()
    own = [parameter.grad.clone() for parameter in step._domain.parameters()]
    step._domain.zero_grad()
    plain = given.vectors.detach().requires_grad_()
    reversal.domain_loss(step._domain(plain), torch.ones(2 * HALF))[0].backward()
    assert plain.grad is not None and plain.grad.abs().max() > 1e-3
    torch.testing.assert_close(given.vectors.grad, -strength * plain.grad)
    for one, other in zip(own, step._domain.parameters(), strict=True):
        torch.testing.assert_close(one, other.grad)


def test_cdan_input_is_the_outer_product() -> None:
    given = batch()
    vectors, certainty = given.vectors.detach().numpy(), given.logits.detach().sigmoid().numpy()
    expected = np.stack([np.outer(c, v).ravel() for c, v in zip(certainty, vectors, strict=True)])
    found = cdan.joint(given.vectors, given.logits.sigmoid())
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-6)


def test_cdan_weights_are_those_of_the_entropy() -> None:
    logits = torch.tensor([[0.0, 0.0], [3.0, -1.0], [50.0, -200.0], [0.5, 4.0], [1.0, 1.0], [-2.0, 0.0]])
    expected = []
    for row in logits.tolist():
        entropy = 0.0
        for logit in row:
            p = 1 / (1 + math.exp(-logit))
            entropy -= sum(share * math.log(share) for share in (p, 1 - p) if share > 0)
        expected.append(1 + math.exp(-entropy / 2))
    raw = np.array(expected)
    normal = np.concatenate([raw[:3] / raw[:3].mean(), raw[3:] / raw[3:].mean()])
    found = cdan.sureness(logits).numpy()
    np.testing.assert_allclose(found, normal, rtol=1e-5)
    # of a track of which nothing is known: 1 + 1/2; of a sure one: 2
    assert found[0] / found[2] == pytest.approx(0.75)


@pytest.mark.parametrize("entropy", [False, True])
def test_cdan_conditions_carry_no_gradient(entropy: bool) -> None:
    step = made("cdan", entropy=entropy, strength=0.4)
    given = batch(progress=1.0)
    loss = step.penalty(given)
    certainty = given.logits.detach().sigmoid()
    weight = cdan.sureness(given.logits.detach()) if entropy else torch.ones(2 * HALF)
    plain = given.vectors.detach().requires_grad_()
    expected = reversal.domain_loss(step._domain(cdan.joint(plain, certainty)), weight)[0]
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    loss.backward()
    expected.backward()
    assert given.logits.grad is None and plain.grad is not None
    torch.testing.assert_close(given.vectors.grad, -0.4 * math.tanh(5.0) * plain.grad)


@pytest.mark.parametrize("kind", ["dann", "cdan"])
def test_a_weight_stands_for_so_many_tracks_and_partners(kind: str) -> None:
    given = batch()
    weights = torch.tensor([2.0, 1.0, 0.0, 3.0, 1.0, 1.0])
    step = made(kind, **({"entropy": False} if kind == "cdan" else {}))
    rows = torch.repeat_interleave(torch.arange(HALF), weights.long())
    both = torch.cat([rows, HALF + rows])
    repeated = Batch(given.vectors[both], given.logits[both], given.labels[rows], torch.ones(8), {}, both, 0.5)
    found, expected = (float(step.penalty(each).detach()) for each in (replace(given, weights=weights), repeated))
    assert found == pytest.approx(expected, rel=1e-5)
    assert found != pytest.approx(float(step.penalty(given).detach()), rel=1e-3)


@pytest.mark.parametrize("kind", ["dann", "cdan"])
def test_encoder_beats_the_discriminator(kind: str) -> None:
    accuracy, auc = {}, {}
    for strength in (1e-9, 3.0):
        step: Any = step_of(kind)(settings_of(kind).model_validate({"kind": kind, "strength": strength}))
        network = trained(step, Shifted(), 500)
        accuracy[strength], auc[strength] = step.figures()["domain_accuracy"], area(network, Shifted())
    assert accuracy[1e-9] > 0.75
    assert accuracy[3.0] - 0.5 < 0.5 * (accuracy[1e-9] - 0.5)
    assert auc[3.0] > auc[1e-9] - 0.02
