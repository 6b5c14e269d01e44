"""Domain-adversarial adaptation: a network whose vectors do not tell data from simulation.

Sources: Y. Ganin et al., JMLR 17 (2016) 59 (gradient reversal and its schedule); M. Kabus et al.,
JINST 17 (2022) C07016 (application to ALICE particle identification).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pidflow.adapt.adversarial import AdversarialSettings, AdversarialStep
from pidflow.adapt.steps.base import Batch, Domains, Sizes

if TYPE_CHECKING:
    from torch import Tensor, nn


class Settings(AdversarialSettings):
    """A discriminator of data and simulation, whose gradient reaches the encoder reversed."""

    kind: Literal["dann"] = "dann"
    schedule: Literal["rising", "constant"] = Field("rising", description="strength over the training")
    discriminator: Literal["joint", "first"] = Field(
        "joint", description="trained along with the network, or first and then left as it is"
    )


class Step(AdversarialStep):
    """Trains the network against a discriminator of its vectors."""

    Settings = Settings

    @property
    def frozen(self) -> bool:
        """Whether the discriminator then stays as it is."""
        return bool(self.settings.discriminator == "first")

    def networks(self, sizes: Sizes, domains: Domains) -> dict[str, nn.Module]:
        """Return the discriminator."""
        return self.build(sizes.width)

    def penalty(self, batch: Batch) -> Tensor:
        """Return the discriminator's loss, in nats."""
        from pidflow.adapt.reversal import strength_at

        final = self.settings.strength
        strength = final if self.settings.schedule == "constant" else strength_at(batch.progress, final)
        return self.loss(batch.vectors, strength, batch.weights.repeat(2))
