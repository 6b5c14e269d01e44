"""What the steps with a discriminator of data and simulation have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from pidflow.adapt.steps.base import TrainingStep, TrainingStepSettings
from pidflow.blocks import Count, Positive

if TYPE_CHECKING:
    from torch import Tensor, nn


class AdversarialSettings(TrainingStepSettings):
    """Settings of any step that trains a network against a discriminator."""

    strength: Positive = Field(0.1, description="final weight of the reversed gradient")
    hidden: Count = Field(64, description="hidden width of the discriminator")
    discriminator_epochs: Count = Field(1, description="passes that train the discriminator alone first")


class AdversarialStep(TrainingStep):
    """Trains a network against a discriminator."""

    @property
    def alone(self) -> int:
        """Epochs of the discriminator alone."""
        epochs: int = self.settings.discriminator_epochs
        return epochs

    def build(self, width: int) -> dict[str, nn.Module]:
        """Return a discriminator of vectors of a width."""
        from pidflow.adapt.reversal import discriminator

        self._domain = discriminator(width, self.settings.hidden)
        return {"domain": self._domain}

    def loss(self, vectors: Tensor, strength: float, weights: Tensor) -> Tensor:
        """Return the discriminator's loss, in nats, whose gradient reaches the vectors reversed.

        Parameters
        ----------
        vectors
            Of B simulated tracks, then B of data, float32 [2B, width].
        strength
            Of the reversed gradient.
        weights
            How much each track counts, float32 [2B].
        """
        from pidflow.adapt.reversal import ReverseGradient, domain_loss

        loss, accuracy = domain_loss(self._domain(ReverseGradient.apply(vectors, strength)), weights)
        self.means.add(domain_loss=loss, domain_accuracy=accuracy)
        return loss
