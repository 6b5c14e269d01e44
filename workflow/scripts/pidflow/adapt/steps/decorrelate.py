"""Decorrelation: the certainty of a species' own tracks does not tell a protected column, so its efficiency is flat.

Only simulation is used: beside the labelled batch there are tracks of the protected species alone, of which a batch has
a handful. Sources: G. Louppe, M. Kagan, K. Cranmer, NeurIPS 2017, arXiv:1611.01046 (adversary);
A. Rogozhnikov et al., JINST 10 (2015) T03002, arXiv:1410.4140 (flatness), here with the sum over bins as a U-statistic:
without the pairs of a track with itself, batches with few tracks per bin are right on average.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from pidflow.adapt.steps.base import Batch, Domains, Sizes, TrainingStep, TrainingStepSettings
from pidflow.blocks import Count, Positive
from pidflow.errors import PidflowError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from pidflow.models.base import Floats

_SOFT = 0.1


class Settings(TrainingStepSettings):
    """An efficiency that does not depend on a column."""

    kind: Literal["decorrelate"] = "decorrelate"
    species: tuple[int, ...] = Field((), description="PDG codes whose efficiency is made flat; empty: all")
    column: str = Field("pt", description="dataset column that certainties of true tracks shall not tell")
    bins: int = Field(8, ge=2, description="bins of the column, equally full of a species' tracks")
    method: Literal["flatness", "adversary"] = Field(
        "flatness",
        description="variance of the efficiency over bins, or a network that guesses the bin by the certainty",
    )
    epochs: Count = Field(20, description="passes over the simulated training set")
    learning_rate: Positive = Field(3e-4, description="peak learning rate")
    strength: Positive = Field(10.0, description="weight of the variance, or of the adversary's reversed gradient")
    hidden: Count = Field(64, description="hidden width of the adversary")
    adversary_epochs: Count = Field(1, description="passes that train the adversary alone first")


def edges(column: NDArray[np.float32], labels: NDArray[np.uint8], bins: int) -> NDArray[np.float32]:
    """Return the inner edges of bins equally full of a species' tracks.

    Parameters
    ----------
    column
        float32 [N], NaN where missing.
    labels
        [N, S], each species with a track that has a value.
    bins
        Number K of bins.

    Returns
    -------
    NDArray
        float32 [S, K − 1].
    """
    inner = np.arange(1, bins) / bins
    return np.stack([np.nanquantile(column[own > 0], inner) for own in labels.T]).astype(np.float32)


def unevenness(logits: Tensor, number: Tensor, bins: int) -> Tensor:
    """Return an unbiased estimate of the efficiency's variance over bins, the mean over thresholds.

    Thresholds are the tracks' own logits, so it does not depend on the logits' scale.

    Parameters
    ----------
    logits
        A species' head, for tracks of that species, float32 [N].
    number
        Their bins, int64 [N], below `bins`.

    Returns
    -------
    Tensor
        Scalar; 0 if no bin has two tracks.
    """
    import torch
    from torch.nn import functional

    paired = torch.bincount(number, minlength=bins)[number] > 1
    logits, number = logits[paired], number[paired]
    if not len(logits):
        return logits.sum()
    known = logits.detach()
    member = functional.one_hot(number, bins).to(logits.dtype)
    count = member.sum(dim=0)
    member, count = member[:, count > 0], count[count > 0]
    soft = _SOFT * known.std().clamp(min=1e-6)
    passed = torch.sigmoid((logits[:, None] - known[None, :]) / soft)
    alone = passed.square()
    in_bin = ((member.T @ passed).square() - member.T @ alone) / (count * (count - 1.0))[:, None]
    everywhere = (passed.sum(dim=0).square() - alone.sum(dim=0)) / (len(known) * (len(known) - 1.0))
    return ((count / count.sum()) @ in_bin - everywhere).mean()


class Step(TrainingStep):
    """Trains the network against what its certainties tell of a column."""

    Settings = Settings
    balanced: ClassVar[bool] = False
    others_per_track: ClassVar[int] = 2

    @property
    def alone(self) -> int:
        """Epochs of the adversary alone."""
        epochs: int = self.settings.adversary_epochs
        return epochs if self.settings.method == "adversary" else 0

    def others(self, domains: Domains) -> Floats:
        """Return the true tracks of the protected species that have a value of the column."""
        if unknown := [pdg for pdg in self.settings.species if pdg not in domains.species]:
            raise PidflowError(f"the model has no certainty of species {unknown[0]}; correct 'species' of the step")
        column, labels = domains.columns[self.settings.column], domains.simulation.labels
        chosen = np.array([not self.settings.species or pdg in self.settings.species for pdg in domains.species])
        rows = np.flatnonzero((labels[:, chosen] > 0).any(axis=1) & ~np.isnan(column))
        if not len(rows):
            raise PidflowError(
                f"no training track of species {list(self.settings.species)} has a value of '{self.settings.column}'; "
                "correct 'species' or 'column' of the step"
            )
        self._head = labels[rows].argmax(axis=1)
        inner = edges(column, labels, self.settings.bins)
        self._number = (column[rows, None] > inner[self._head]).sum(axis=1)
        return domains.simulation.features[rows]

    def columns(self) -> tuple[str, ...]:
        """Return the protected column."""
        return (self.settings.column,)

    def networks(self, sizes: Sizes, domains: Domains) -> dict[str, nn.Module]:
        """Return the adversary, if there is one."""
        from pidflow.adapt.reversal import discriminator

        if self.settings.method == "flatness":
            return {}
        self._adversary = discriminator(1 + sizes.species, self.settings.hidden, self.settings.bins)
        return {"adversary": self._adversary}

    def penalty(self, batch: Batch) -> Tensor:
        """Return the weighted variance, or the adversary's loss in nats."""
        import torch

        rows, device = batch.rows.numpy(), batch.logits.device
        species, number = (torch.from_numpy(part[rows]).to(device) for part in (self._head, self._number))
        logits = batch.logits[batch.size :].gather(1, species[:, None])[:, 0]
        if self.settings.method == "flatness":
            found = self._uneven(logits, species, number)
            self.means.add(unevenness=found)
            weighted: Tensor = self.settings.strength * found
            return weighted
        return self._guessed(logits, species, number, batch)

    def _uneven(self, logits: Tensor, species: Tensor, number: Tensor) -> Tensor:
        import torch

        own = [species == head for head in np.unique(self._head)]
        return torch.stack([unevenness(logits[rows], number[rows], self.settings.bins) for rows in own]).mean()

    def _guessed(self, logits: Tensor, species: Tensor, number: Tensor, batch: Batch) -> Tensor:
        import torch
        from torch.nn import functional

        from pidflow.adapt.reversal import ReverseGradient, strength_at

        passed = ReverseGradient.apply(logits, strength_at(batch.progress, self.settings.strength))
        code = functional.one_hot(species, batch.labels.shape[1]).to(logits.dtype)
        guess = self._adversary(torch.cat([passed.unsqueeze(1), code], dim=1))
        loss = functional.cross_entropy(guess, number, reduction="sum") / max(1, len(number))
        self.means.add(adversary_loss=loss)
        return loss
