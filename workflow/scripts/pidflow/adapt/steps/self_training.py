"""Self-training: a network learns from its own soft certainties on data, corrected for the yields found there.

At the start of each epoch the averaged network scores the data's training tracks; in bins of charge, momentum and
detector pattern its certainties are corrected for the yields of data relative to simulation, found by expectation
maximisation, and become the labels of these tracks for the epoch. The iteration ends when they no longer change.

Sources: M. Saerens, P. Latinne, C. Decaestecker, Neural Computation 14 (2002) 21 (yields); Q. Xie et al., CVPR 2020,
arXiv:1911.04252 (soft labels from a teacher, iterated).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pidflow.adapt.steps.base import Batch, Domains, Sizes, TrainingStep, TrainingStepSettings
from pidflow.blocks import Count, Positive
from pidflow.tracks import BY_NAME

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pidflow.models.base import Floats

DETECTORS = ("trd", "tof")
_SMALL = 1e-6
_ITERATIONS = 50
_PRIOR_TRACKS = 200.0
"""Tracks of the simulation's composition that are added to each bin: where species are hardly told apart, free yields
drift from epoch to epoch."""


class Settings(TrainingStepSettings):
    """Training on data with the network's own certainties as labels."""

    kind: Literal["self_training"] = "self_training"
    strength: Positive = Field(1.0, description="weight of a track of data, relative to a simulated one")
    bins: Count = Field(8, description="momentum bins in which yields are corrected")
    tolerance: Annotated[float, Field(ge=0)] = Field(
        0.002, description="mean change of the labels from one epoch to the next at which training ends"
    )


class Step(TrainingStep):
    """Trains the network on simulation and data, the data's labels being its own certainties."""

    Settings = Settings
    balanced: ClassVar[bool] = False

    def __init__(self, settings: Any) -> None:
        super().__init__(settings)
        self._change = float("nan")

    def networks(self, sizes: Sizes, domains: Domains) -> dict[str, nn.Module]:
        """Sort the tracks of both samples into bins; there is no network."""
        samples = (domains.simulation.features, domains.data)
        self._bins = [bins_of(features, domains, self.settings.bins) for features in samples]
        return {}

    def memory(self, domains: Domains) -> nn.Module:
        """Return the labels of the data's tracks, float32 [M, S], NaN before there are any."""
        import torch

        class Labels(torch.nn.Module):
            values: Tensor

        self._labels = Labels()
        shape = (len(domains.data), domains.simulation.labels.shape[1])
        self._labels.register_buffer("values", torch.full(shape, torch.nan))
        return self._labels

    def begin(self, epoch: int, domains: Domains, predict: Callable[[Floats], Floats]) -> bool:
        """Score the data anew; False when that changes nothing."""
        simulated, measured = (certainties(predict(part)) for part in (domains.simulation.features, domains.data))
        weights = domains.simulation.weights
        labels = corrected(measured, simulated, self._bins[1], self._bins[0], weights).astype(np.float32)
        known = self._labels.values.numpy()
        self._change = float(np.abs(labels - known).mean())
        known[:] = labels
        return not self._change < self.settings.tolerance

    def penalty(self, batch: Batch) -> Tensor:
        """Return the cross-entropy of the data half with its labels."""
        from torch.nn import functional

        labels = self._labels.values[batch.rows].to(batch.logits.device)
        loss: Tensor = functional.binary_cross_entropy_with_logits(batch.logits[batch.size :], labels)
        return loss * float(self.settings.strength)

    def figures(self) -> dict[str, float]:
        """Return the mean change of the labels before this epoch."""
        return {"label_change": self._change}


def certainties(logits: Floats) -> NDArray[np.float64]:
    """Return probabilities of the species and of none of them, [n, S + 1], from one-vs-all logits [n, S]."""
    each = 1.0 / (1.0 + np.exp(-np.clip(logits.astype(np.float64), -30.0, 30.0)))
    total = each.sum(axis=1, keepdims=True)
    none = np.maximum(1.0 - total, _SMALL)
    every = np.concatenate([each, none], axis=1)
    return np.asarray(every / every.sum(axis=1, keepdims=True))


def bins_of(features: Floats, domains: Domains, count: int) -> NDArray[np.intp]:
    """Return the bin of charge, momentum and detector pattern of tracks, [n]; what is no feature tells none."""
    number = np.zeros(len(features), dtype=np.intp)
    names = domains.features
    if momentum := next((name for name in ("p", "pt") if name in names), None):
        edges = np.nanquantile(domains.data[:, names.index(momentum)], np.linspace(0.0, 1.0, count + 1)[1:-1])
        number = np.digitize(features[:, names.index(momentum)], edges)
    if "sign" in names:
        number = 2 * number + (features[:, names.index("sign")] > 0)
    for detector in DETECTORS:
        own = [place for place, name in enumerate(names) if BY_NAME[name].detector == detector]
        number = 2 * number + ~np.isnan(features[:, own]).all(axis=1)
    return np.asarray(number, dtype=np.intp)


def corrected(
    measured: NDArray[np.float64],
    simulated: NDArray[np.float64],
    bin_of_data: NDArray[np.intp],
    bin_of_simulation: NDArray[np.intp],
    weights: Floats | None,
) -> NDArray[np.float64]:
    """Return the data's certainties [m, S] after correction for its yields.

    Parameters
    ----------
    measured, simulated
        Probabilities of the classes in data, [m, S + 1], and in simulation, [n, S + 1].
    bin_of_data, bin_of_simulation
        Bins in which yields are corrected, [m] and [n].
    weights
        How much each simulated track counts, [n]; None: all the same.
    """
    found = measured.copy()
    for number in np.unique(bin_of_data):
        own, known = bin_of_data == number, bin_of_simulation == number
        if not known.any():
            continue
        before = np.average(simulated[known], axis=0, weights=None if weights is None else weights[known])
        share, posterior = before, measured[own]
        for _ in range(_ITERATIONS):
            posterior = measured[own] * (share / np.maximum(before, _SMALL))
            posterior /= posterior.sum(axis=1, keepdims=True)
            following = (posterior.sum(axis=0) + _PRIOR_TRACKS * before) / (own.sum() + _PRIOR_TRACKS)
            done = np.abs(following - share).max() < _SMALL
            share = following
            if done:
                break
        found[own] = posterior
    return found[:, :-1]
