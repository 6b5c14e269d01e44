"""Domain-adversarial adaptation: a network whose vectors do not tell data from simulation.

Sources: Y. Ganin et al., JMLR 17 (2016) 59 (gradient reversal and its schedule); M. Kabus et al.,
JINST 17 (2022) C07016 (application to ALICE particle identification).
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
    """A discriminator of data and simulation, whose gradient reaches the encoder reversed."""

    kind: Literal["dann"] = "dann"
    strength: Positive = Field(0.1, description="final weight of the reversed gradient")
    hidden: Count = Field(64, description="hidden width of the discriminator")
    discriminator_epochs: Count = Field(1, description="passes that train the discriminator alone first")
    schedule: Literal["rising", "constant"] = Field("rising", description="strength over the training")
    discriminator: Literal["joint", "first"] = Field(
        "joint", description="trained along with the network, or first and then left as it is"
    )


class Step(TrainingStep):
    """Trains the network against a discriminator of its vectors."""

    Settings = Settings

    def __init__(self, settings: Any) -> None:
        super().__init__(settings)
        self._means = Means()

    @property
    def alone(self) -> int:
        """Epochs of the discriminator alone."""
        epochs: int = self.settings.discriminator_epochs
        return epochs

    @property
    def frozen(self) -> bool:
        """Whether the discriminator then stays as it is."""
        return bool(self.settings.discriminator == "first")

    def networks(self, sizes: Sizes, domains: Domains) -> dict[str, nn.Module]:
        """Return the discriminator."""
        from pidflow.adapt.reversal import discriminator

        self._domain = discriminator(sizes.width, self.settings.hidden)
        return {"domain": self._domain}

    def penalty(self, batch: Batch) -> Tensor:
        """Return the discriminator's loss, in nats."""
        from pidflow.adapt.reversal import ReverseGradient, domain_loss, strength_at

        final = self.settings.strength
        strength = final if self.settings.schedule == "constant" else strength_at(batch.progress, final)
        loss, accuracy = domain_loss(self._domain(ReverseGradient.apply(batch.vectors, strength)))
        self._means.add(domain_loss=loss, domain_accuracy=accuracy)
        return loss

    def figures(self) -> dict[str, float]:
        """Return loss (nats) and accuracy of the discriminator."""
        return self._means.take()
