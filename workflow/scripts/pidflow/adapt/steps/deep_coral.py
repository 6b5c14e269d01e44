"""Adaptation by correlation alignment: the vectors of both samples have the same covariance.

Source: B. Sun, K. Saenko, ECCV 2016 workshops, arXiv:1607.01719.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pidflow.adapt.steps.base import Batch, TrainingStep, TrainingStepSettings
from pidflow.blocks import Positive

if TYPE_CHECKING:
    from torch import Tensor


class Settings(TrainingStepSettings):
    """The distance of the covariances of the two samples' vectors."""

    kind: Literal["deep_coral"] = "deep_coral"
    strength: Positive = Field(10.0, description="weight of the distance")


def covariance(vectors: Tensor, weights: Tensor) -> Tensor:
    """Return the unbiased covariance of vectors [N, W] of which each counts so much [N], float32 [W, W]."""
    share = (weights / weights.sum()).unsqueeze(1)
    centred = vectors - (share * vectors).sum(dim=0)
    return (share * centred).T @ centred / (1.0 - share.square().sum())


def distance(vectors: Tensor, weights: Tensor) -> Tensor:
    """Return ‖C − C'‖² / 4W² (Frobenius) of B simulated tracks, then B of data, float32 [2B, W], B > 1.

    A simulated track and its partner of data have the same weight [B].
    """
    simulation, data = (covariance(half, weights) for half in vectors.chunk(2))
    return (simulation - data).square().sum() / (4 * vectors.shape[1] ** 2)


class Step(TrainingStep):
    """Trains the network with the distance of its vectors' covariances as a penalty."""

    Settings = Settings

    def penalty(self, batch: Batch) -> Tensor:
        """Return the weighted distance."""
        found = distance(batch.vectors, batch.weights)
        self.means.add(coral=found)
        weighted: Tensor = self.settings.strength * found
        return weighted
