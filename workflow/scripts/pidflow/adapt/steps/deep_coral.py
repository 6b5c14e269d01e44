"""Adaptation by correlation alignment: the vectors of both samples have the same covariance.

Source: B. Sun, K. Saenko, ECCV 2016 workshops, arXiv:1607.01719.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from pidflow.adapt.means import Means
from pidflow.adapt.steps.base import Batch, TrainingStep, TrainingStepSettings
from pidflow.blocks import Positive

if TYPE_CHECKING:
    from torch import Tensor


class Settings(TrainingStepSettings):
    """The distance of the covariances of the two samples' vectors."""

    kind: Literal["deep_coral"] = "deep_coral"
    strength: Positive = Field(10.0, description="weight of the distance")


def covariance(vectors: Tensor) -> Tensor:
    """Return the unbiased covariance of vectors [N, W], float32 [W, W]."""
    centred = vectors - vectors.mean(dim=0)
    return centred.T @ centred / (len(vectors) - 1)


def distance(vectors: Tensor) -> Tensor:
    """Return ‖C − C'‖² / 4W² (Frobenius) of B simulated tracks, then B of data, float32 [2B, W], B > 1."""
    simulation, data = vectors.chunk(2)
    return (covariance(simulation) - covariance(data)).square().sum() / (4 * vectors.shape[1] ** 2)


class Step(TrainingStep):
    """Trains the network with the distance of its vectors' covariances as a penalty."""

    Settings = Settings

    def __init__(self, settings: Any) -> None:
        super().__init__(settings)
        self._means = Means()

    def penalty(self, batch: Batch) -> Tensor:
        """Return the weighted distance."""
        found = distance(batch.vectors)
        self._means.add(coral=found)
        weighted: Tensor = self.settings.strength * found
        return weighted

    def figures(self) -> dict[str, float]:
        """Return the distance."""
        return self._means.take()
