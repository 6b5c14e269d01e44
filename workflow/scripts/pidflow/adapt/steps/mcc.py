"""Minimum class confusion: on data, the network shall not waver between two species.

Source: Y. Jin, X. Wang, M. Long, J. Wang, ECCV 2020, arXiv:1912.03699. There a track is of exactly one class, here each
head answers for itself; so a class "none", whose logit is 0, joins them: the odds of a species against none are those
of its head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from pidflow.adapt.steps.base import Batch, TrainingStep, TrainingStepSettings
from pidflow.blocks import Positive

if TYPE_CHECKING:
    from torch import Tensor


class Settings(TrainingStepSettings):
    """The confusion of species on data."""

    kind: Literal["mcc"] = "mcc"
    strength: Positive = Field(0.1, description="weight of the confusion")
    temperature: Positive = Field(2.5, description="logits are divided by this before the softmax")


def confusion(logits: Tensor, temperature: float) -> Tensor:
    """Return the mean share of a class's tracks that are taken for other classes.

    Parameters
    ----------
    logits
        Of tracks of data, float32 [N, S].
    temperature
        Divides the logits.
    """
    import torch
    from torch.nn import functional

    whole = functional.pad(logits, (0, 1)) / temperature
    log_share, share = torch.log_softmax(whole, dim=1), torch.softmax(whole, dim=1)
    # no gradient: a track shall not count more by being surer
    weight = (1.0 + torch.exp((share * log_share).sum(dim=1))).detach()
    weight = weight / weight.mean()
    together = share.T @ (share * weight.unsqueeze(1))
    together = together / together.sum(dim=1, keepdim=True)
    return 1.0 - together.diagonal().mean()


class Step(TrainingStep):
    """Trains the network with the confusion of species on data as a penalty."""

    Settings = Settings
    balanced: ClassVar[bool] = False

    def penalty(self, batch: Batch) -> Tensor:
        """Return the weighted confusion."""
        found = confusion(batch.logits[batch.size :], self.settings.temperature)
        self.means.add(confusion=found)
        weighted: Tensor = self.settings.strength * found
        return weighted
