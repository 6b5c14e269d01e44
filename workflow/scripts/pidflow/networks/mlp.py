"""Multilayer perceptrons: on imputed values, and one per detector pattern."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pidflow.networks.inputs import Inputs, thinned
from pidflow.tracks import BY_NAME

_RIDGE = 1e-3


def perceptron(inputs: int, hidden: Sequence[int], outputs: int, dropout: float) -> nn.Sequential:
    """Return hidden layers with leaky ReLU and dropout after each, and a linear last layer.

    Source: the networks of EPJC 84 (2024) 691, sect. 3 (hidden layers of 64, 32 and 16, dropout 0.1).
    """
    layers: list[nn.Module] = []
    for size, following in pairwise((inputs, *hidden)):
        layers += [nn.Linear(size, following), nn.LeakyReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear((inputs, *hidden)[-1], outputs))


class ImputedPerceptron(nn.Module):
    """A perceptron on imputed values; returns logits float32 [N, S] of raw features float32 [N, F]."""

    def __init__(
        self, impute: MeanImputation | RegressionImputation, features: int, hidden: Sequence[int], species: int,
        dropout: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.impute = impute
        self.body = perceptron(features, hidden, species, dropout)

    def adjust(self, features: NDArray[np.float32]) -> None:
        """Fit the imputation to features [N, F]."""
        self.impute.adjust(features)

    def forward(self, raw_NF: Tensor) -> Tensor:
        logits: Tensor = self.body(self.impute(raw_NF))
        return logits


class MeanImputation(nn.Module):
    """Standardised features [N, F]; a missing one has the training set's mean, which is 0."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.inputs = Inputs(features)

    def adjust(self, features: NDArray[np.float32]) -> None:
        """Fit the scale to features [N, F]."""
        self.inputs.adjust(features)

    def forward(self, raw_NF: Tensor) -> Tensor:
        value_NF: Tensor = self.inputs(raw_NF)[0]
        return value_NF


class RegressionImputation(nn.Module):
    """Standardised features [N, F]; a missing one is predicted linearly from those that tracks never lack.

    Attributes
    ----------
    weight, offset : Tensor
        float32 [F, F] and [F] buffers of the least-squares fit to the training tracks that have the feature.
    """

    weight: Tensor
    offset: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.inputs = Inputs(features)
        self.register_buffer("weight", torch.zeros(features, features))
        self.register_buffer("offset", torch.zeros(features))

    def adjust(self, features: NDArray[np.float32]) -> None:
        """Fit scale and regression to features [N, F]."""
        self.inputs.adjust(features)
        value, missing = (part.numpy() for part in self.inputs(torch.from_numpy(thinned(features))))
        always = ~missing.any(axis=0)
        known = np.append(value[:, always].astype(np.float64), np.ones((len(value), 1)), axis=1)
        for number in np.flatnonzero(~always):
            own = known[~missing[:, number]]
            normal = own.T @ own + _RIDGE * np.eye(own.shape[1])
            solution = np.linalg.solve(normal, own.T @ value[~missing[:, number], number])
            self.weight[torch.from_numpy(np.flatnonzero(always)), number] = torch.from_numpy(solution[:-1]).float()
            self.offset[number] = float(solution[-1])

    def forward(self, raw_NF: Tensor) -> Tensor:
        value_NF, missing_NF = self.inputs(raw_NF)
        return torch.where(missing_NF, value_NF @ self.weight + self.offset, value_NF)


class PatternEnsemble(nn.Module):
    """One perceptron per set of detectors that saw the track, each trained by the tracks of its set.

    Attributes
    ----------
    stand_in : Tensor
        int64 [2^D] buffer: which set's perceptron answers for each set, its own if training had enough such tracks.
    """

    FEWEST = 200
    """Training tracks from which a set has its own perceptron."""

    stand_in: Tensor
    seen_by: Tensor

    def __init__(self, features: Sequence[str], hidden: Sequence[int], species: int, dropout: float) -> None:
        super().__init__()
        self.inputs = Inputs(len(features))
        detectors = [d for d in ("its", "tpc", "trd", "tof") if any(BY_NAME[f].detector == d for f in features)]
        own = [[float(BY_NAME[name].detector == detector) for detector in detectors] for name in features]
        self.register_buffer("seen_by", torch.tensor(own).reshape(len(features), len(detectors)), persistent=False)
        self.sets = 2 ** len(detectors)
        self.register_buffer("stand_in", torch.arange(self.sets))
        self.members = nn.ModuleList(perceptron(len(features), hidden, species, dropout) for _ in range(self.sets))

    def seen(self, raw_NF: Tensor) -> Tensor:
        """Return the number of each track's set of detectors, int64 [N]."""
        seen = (1.0 - torch.isnan(raw_NF).to(raw_NF.dtype)) @ self.seen_by > 0
        return (seen.long() * 2 ** torch.arange(seen.shape[1], device=raw_NF.device)).sum(dim=1)

    def adjust(self, features: NDArray[np.float32]) -> None:
        """Fit the scale to features [N, F] and give every set a perceptron that training can reach."""
        self.inputs.adjust(features)
        counts = np.zeros(self.sets, dtype=np.int64)
        for start in range(0, len(features), 100_000):
            part = self.seen(torch.from_numpy(features[start : start + 100_000])).numpy()
            counts += np.bincount(part, minlength=self.sets)
        large = [number for number in range(self.sets) if counts[number] >= self.FEWEST] or [int(counts.argmax())]
        for number in range(self.sets):
            if number not in large:
                # the set that shares most detectors; among equals the one with most tracks
                self.stand_in[number] = max(large, key=lambda other: (-(number ^ other).bit_count(), counts[other]))

    def forward(self, raw_NF: Tensor) -> Tensor:
        value_NF, _ = self.inputs(raw_NF)
        member_N = self.stand_in[self.seen(raw_NF)]
        logits: Tensor | None = None
        for number, member in enumerate(self.members):
            answer = member(value_NF)
            logits = answer if logits is None else torch.where((member_N == number)[:, None], answer, logits)
        assert logits is not None
        return logits
