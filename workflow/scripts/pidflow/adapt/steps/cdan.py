"""Conditional domain-adversarial adaptation: the discriminator also sees what the network takes a track for.

Source: M. Long, Z. Cao, J. Wang, M. I. Jordan, NeurIPS 2018, arXiv:1705.10667.

The certainties that condition the discriminator, and the weights made of them, carry no gradient, the former as in the
authors' code: with it the network could fool the discriminator, or make a track count less, by being unsure of data,
while its vectors stay apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pidflow.adapt.adversarial import AdversarialSettings, AdversarialStep
from pidflow.adapt.steps.base import Batch, Domains, Sizes

if TYPE_CHECKING:
    from torch import Tensor, nn


class Settings(AdversarialSettings):
    """A discriminator of vector times certainties, whose gradient reaches the encoder reversed."""

    kind: Literal["cdan"] = "cdan"
    entropy: bool = Field(True, description="tracks of which the network is sure count more")


def joint(vectors: Tensor, certainty: Tensor) -> Tensor:
    """Return the outer product of vectors [N, W] and certainties [N, S], float32 [N, S·W]."""
    return (certainty.unsqueeze(2) * vectors.unsqueeze(1)).flatten(1)


def sureness(logits: Tensor) -> Tensor:
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


class Step(AdversarialStep):
    """Trains the network against a discriminator of its vectors and certainties together."""

    Settings = Settings

    def networks(self, sizes: Sizes, domains: Domains) -> dict[str, nn.Module]:
        """Return the discriminator."""
        return self.build(sizes.width * sizes.species)

    def penalty(self, batch: Batch) -> Tensor:
        """Return the discriminator's loss, in nats."""
        from pidflow.adapt.reversal import strength_at

        logits, weight = batch.logits.detach(), batch.weights.repeat(2)
        if self.settings.entropy:
            weight = weight * sureness(logits)
        return self.loss(
            joint(batch.vectors, logits.sigmoid()), strength_at(batch.progress, self.settings.strength), weight
        )
