"""Conditional domain-adversarial adaptation: the discriminator also sees what the network takes a track for.

Source: M. Long, Z. Cao, J. Wang, M. I. Jordan, NeurIPS 2018, arXiv:1705.10667.

The certainties that condition the discriminator, and the weights made of them, carry no gradient, the former as in the
authors' code: with it the network could fool the discriminator, or make a track count less, by being unsure of data,
while its vectors stay apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from pidflow.adapt.means import Means
from pidflow.adapt.steps.base import Batch, Domains, Sizes, TrainingStep, TrainingStepSettings
from pidflow.blocks import Count, Positive

if TYPE_CHECKING:
    from torch import Tensor, nn


class Settings(TrainingStepSettings):
    """A discriminator of vector times certainties, whose gradient reaches the encoder reversed."""

    kind: Literal["cdan"] = "cdan"
    strength: Positive = Field(0.1, description="final weight of the reversed gradient")
    hidden: Count = Field(64, description="hidden width of the discriminator")
    discriminator_epochs: Count = Field(1, description="passes that train the discriminator alone first")
    entropy: bool = Field(True, description="tracks of which the network is sure count more")


def joint(vectors: Tensor, certainty: Tensor) -> Tensor:
    """Return the outer product of vectors [N, W] and certainties [N, S], float32 [N, S·W]."""
    return (certainty.unsqueeze(2) * vectors.unsqueeze(1)).flatten(1)


def weights(logits: Tensor) -> Tensor:
    """Return how much tracks count that the heads are so sure of.

    Parameters
    ----------
    logits
        Of B simulated tracks, then B of data, float32 [2B, S].

    Returns
    -------
    Tensor
        1 + exp(−H) with the heads' mean binary entropy H in nats, float32 [2B], of mean 1 over either sample.
    """
    import torch
    from torch.nn import functional

    # −p log p − (1−p) log(1−p) without a logarithm of 0
    entropy = (functional.softplus(logits) - torch.sigmoid(logits) * logits).mean(dim=1)
    weight = (1.0 + torch.exp(-entropy)).reshape(2, -1)
    return (weight / weight.mean(dim=1, keepdim=True)).flatten()


class Step(TrainingStep):
    """Trains the network against a discriminator of its vectors and certainties together."""

    Settings = Settings

    def __init__(self, settings: Any) -> None:
        super().__init__(settings)
        self._means = Means()

    @property
    def alone(self) -> int:
        """Epochs of the discriminator alone."""
        epochs: int = self.settings.discriminator_epochs
        return epochs

    def networks(self, sizes: Sizes, domains: Domains) -> dict[str, nn.Module]:
        """Return the discriminator."""
        from pidflow.adapt.reversal import discriminator

        self._domain = discriminator(sizes.width * sizes.species, self.settings.hidden)
        return {"domain": self._domain}

    def penalty(self, batch: Batch) -> Tensor:
        """Return the discriminator's loss, in nats."""
        from pidflow.adapt.reversal import ReverseGradient, domain_loss, strength_at

        logits = batch.logits.detach()
        vectors = ReverseGradient.apply(batch.vectors, strength_at(batch.progress, self.settings.strength))
        guess = self._domain(joint(vectors, logits.sigmoid()))
        loss, accuracy = domain_loss(guess, weights(logits) if self.settings.entropy else None)
        self._means.add(domain_loss=loss, domain_accuracy=accuracy)
        return loss

    def figures(self) -> dict[str, float]:
        """Return loss (nats) and accuracy of the discriminator."""
        return self._means.take()
