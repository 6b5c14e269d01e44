"""Steps that bring the vectors of both samples together, 'mmd' and 'deep_coral'."""

import math

import numpy as np
import pytest
import torch
from adapt_batches import HALF, WIDTH, Shifted, area, batch, made, trained
from models_sample import library_state  # noqa: F401
from torch import nn

from pidflow.adapt import reversal
from pidflow.adapt.steps import deep_coral, mmd

pytestmark = pytest.mark.usefixtures("library_state")

WEIGHTS = [torch.ones(HALF), torch.tensor([2.0, 1.0, 0.5, 3.0, 1.0, 0.1])]


@pytest.mark.parametrize("weights", WEIGHTS)
def test_mmd_is_the_unbiased_estimate(weights: torch.Tensor) -> None:
    widths = (0.5, 3.0)
    vectors = batch().vectors.detach() + torch.arange(2 * HALF)[:, None].ge(HALF) * 0.7
    x = vectors.double().numpy()
    squared = [[float(((a - b) ** 2).sum()) for b in x] for a in x]
    scale = np.mean([squared[i][j] for i in range(12) for j in range(12) if i != j])

    def kernel(i: int, j: int) -> float:
        return sum(math.exp(-squared[i][j] / (width * scale)) for width in widths) / len(widths)

    def mean(first: int, second: int, pairs: list[tuple[int, int]]) -> float:
        share = [float(weights[i] * weights[j]) for i, j in pairs]
        values = [kernel(first + i, second + j) for i, j in pairs]
        return sum(w * value for w, value in zip(share, values, strict=True)) / sum(share)

    every = [(i, j) for i in range(HALF) for j in range(HALF)]
    different = [(i, j) for i, j in every if i != j]
    expected = mean(0, 0, different) + mean(HALF, HALF, different) - 2 * mean(0, HALF, every)
    assert float(mmd.discrepancy(vectors, weights, widths)) == pytest.approx(expected, abs=1e-6)
    penalty = made("mmd", strength=3.0, widths=widths).penalty(batch(vectors=vectors, weights=weights))
    assert float(penalty) == pytest.approx(3 * expected, abs=3e-6)


def test_mmd_of_equal_samples_is_nought_on_average() -> None:
    torch.manual_seed(0)
    found = [float(mmd.discrepancy(torch.randn(16, 2), torch.ones(8), (1.0,))) for _ in range(400)]
    assert abs(np.mean(found)) < 3 * np.std(found) / 20
    apart = torch.cat([torch.randn(8, 2), torch.randn(8, 2) + 1.5])
    assert float(mmd.discrepancy(apart, torch.ones(8), (1.0,))) > 3 * np.std(found)


def test_gradient_of_mmd_is_that_of_fixed_widths() -> None:
    vectors = batch().vectors
    mmd.discrepancy(vectors, torch.ones(HALF), (1.0,)).backward()
    moved, step = vectors.detach().double(), 1e-5
    distance = torch.cdist(moved, moved).square()
    scale = float(distance.sum() / (12 * 11))

    def fixed(values: torch.Tensor) -> float:
        kernel = torch.exp(-torch.cdist(values, values).square() / scale)
        one, other = kernel[:HALF, :HALF], kernel[HALF:, HALF:]
        pairs = HALF * (HALF - 1)
        within = (one.sum() - one.trace() + other.sum() - other.trace()) / pairs
        return float(within - 2 * kernel[:HALF, HALF:].mean())

    for track, axis in ((0, 0), (3, 2), (8, 1)):
        change = torch.zeros_like(moved)
        change[track, axis] = step
        expected = (fixed(moved + change) - fixed(moved - change)) / (2 * step)
        assert vectors.grad is not None
        assert float(vectors.grad[track, axis]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_coral_is_the_distance_of_covariances(weights: torch.Tensor) -> None:
    vectors = batch().vectors.detach()
    one, other = (np.cov(half.numpy().T, aweights=weights.numpy()) for half in vectors.chunk(2))
    expected = np.linalg.norm(one - other, "fro") ** 2 / (4 * WIDTH**2)
    assert float(deep_coral.distance(vectors, weights)) == pytest.approx(expected, rel=1e-5)
    penalty = made("deep_coral", strength=2.0).penalty(batch(vectors=vectors, weights=weights))
    assert float(penalty) == pytest.approx(2 * expected, rel=1e-5)


def told_apart(network: nn.Module) -> float:
    """Return the accuracy with which a new discriminator tells simulation from data by their vectors."""
    torch.manual_seed(99)
    domain = reversal.discriminator(8, 32)
    optimiser = torch.optim.Adam(domain.parameters(), 3e-3)
    right = []
    sample = Shifted()
    for _ in range(300):
        simulation, data = sample(256)[0], sample.data(256)
        with torch.no_grad():
            vectors = network[0](torch.cat([simulation, data]))  # type: ignore[index]
        loss, accuracy = reversal.domain_loss(domain(vectors), torch.ones(512))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        right.append(float(accuracy))
    return float(np.mean(right[-50:]))


def test_discrepancy_hides_the_domain_even_from_a_new_discriminator() -> None:
    before = trained(None, Shifted(), 400)
    assert told_apart(before) > 0.8
    after = trained(mmd.Step(mmd.Settings(strength=3.0)), Shifted(), 400)
    assert told_apart(after) < 0.65
    assert area(after, Shifted()) > area(before, Shifted()) - 0.01
