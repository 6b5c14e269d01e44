"""Adaptation by maximum mean discrepancy: the vectors of both samples have the same means in many kernels' spaces.

Sources: M. Long, Y. Cao, J. Wang, M. I. Jordan, ICML 2015, arXiv:1502.02791 (several kernels, inside a network);
A. Gretton et al., JMLR 13 (2012) 723 (unbiased estimate, lemma 6).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from pidflow.adapt.steps.base import Batch, TrainingStep, TrainingStepSettings
from pidflow.blocks import Positive

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class Settings(TrainingStepSettings):
    """A distance of the two samples' vectors, the mean over Gaussian kernels of several widths."""

    kind: Literal["mmd"] = "mmd"
    strength: Positive = Field(1.0, description="weight of the squared discrepancy")
    widths: Annotated[tuple[Positive, ...], Field(min_length=1)] = Field(
        (0.25, 0.5, 1.0, 2.0, 4.0), description="squared widths of the kernels, in mean squared distances of tracks"
    )


def discrepancy(vectors: Tensor, weights: Tensor, widths: Sequence[float]) -> Tensor:
    """Return the unbiased estimate of the squared maximum mean discrepancy of two samples.

    Parameters
    ----------
    vectors
        Of B simulated tracks, then B of data, float32 [2B, W], B > 1.
    weights
        How much a simulated track and its partner of data count, float32 [B].
    widths
        Kernels exp(−d² / (width · s)), where s is the mean of d² over all pairs of tracks and carries no gradient.
    """
    import torch

    norm = vectors.square().sum(dim=1)
    distance = (norm[:, None] + norm[None, :] - 2.0 * vectors @ vectors.T).clamp(min=0.0)
    tracks, half = len(vectors), len(vectors) // 2
    others = 1.0 - torch.eye(tracks, device=vectors.device)
    scale = ((distance * others).sum() / (tracks * (tracks - 1))).detach().clamp(min=1e-12)
    kernel = others * torch.stack([torch.exp(-distance / (width * scale)) for width in widths]).mean(dim=0)
    share = weights / weights.sum()
    within = (share @ (kernel[:half, :half] + kernel[half:, half:]) @ share) / (1.0 - share.square().sum())
    between = share @ kernel[:half, half:] @ share
    return within - 2.0 * between


class Step(TrainingStep):
    """Trains the network with the discrepancy of its vectors as a penalty."""

    Settings = Settings

    def penalty(self, batch: Batch) -> Tensor:
        """Return the weighted squared discrepancy."""
        found = discrepancy(batch.vectors, batch.weights, self.settings.widths)
        self.means.add(mmd=found)
        weighted: Tensor = self.settings.strength * found
        return weighted
