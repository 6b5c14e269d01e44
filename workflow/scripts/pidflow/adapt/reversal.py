"""Adversaries: gradient reversal and the networks behind it.

Source: Y. Ganin et al., JMLR 17 (2016) 59.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class ReverseGradient(torch.autograd.Function):
    """The identity forwards; the gradient times −strength backwards."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:
        return -ctx.strength * gradients[0], None


def discriminator(width: int, hidden: int, outputs: int = 1) -> nn.Sequential:
    """Return an adversary: from float32 [N, width] to logits float32 [N, outputs]."""
    return nn.Sequential(
        nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs)
    )


def strength_at(progress: float, final: float) -> float:
    """Return the strength of the reversed gradient at `progress` in [0, 1] (Ganin et al., sect. 5.2.2)."""
    return final * (2.0 / (1.0 + math.exp(-10.0 * progress)) - 1.0)


def domain_loss(guess: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return how badly and how often rightly a discriminator tells data from simulation.

    Parameters
    ----------
    guess
        Its logits of being data, float32 [2B, 1]: B simulated tracks, then B of data.
    weight
        How much each track counts, float32 [2B].

    Returns
    -------
    tuple of Tensor
        Weighted mean of the binary cross-entropy in nats, and the share of tracks that it puts into their sample.
    """
    data = torch.zeros_like(guess)
    data[len(guess) // 2 :] = 1.0
    share = (weight / weight.sum()).unsqueeze(1)
    loss = functional.binary_cross_entropy_with_logits(guess, data, share, reduction="sum")
    return loss, (share * ((guess > 0) == (data > 0))).sum()
