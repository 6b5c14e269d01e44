"""What every network does to raw features first, and the encodings of a number that it may choose from."""

from __future__ import annotations

from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

CLAMP = 8.0
"""Inputs are clamped to ± this after standardisation and logarithm, so that a wild one stays an ordinary number."""

_ENOUGH = 1_000_000

T = TypeVar("T", bound=np.generic)


def thinned(rows: NDArray[T]) -> NDArray[T]:
    """Return about a million of the rows of an array [N, …], evenly spread; all of fewer."""
    return np.ascontiguousarray(rows[:: max(1, len(rows) // _ENOUGH)])


class Inputs(nn.Module):
    """Standardisation with the scale of the training set.

    Attributes
    ----------
    mean, std : Tensor
        float32 [F] buffers.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))

    def adjust(self, features: NDArray[np.float32]) -> None:
        """Set the scale by features [N, F].

        Mean and deviation are taken between the 0.5 % and 99.5 % quantiles, which tails do not move.
        """
        for number, column in enumerate(thinned(features).T.astype(np.float64)):
            values = column[~np.isnan(column)]
            if len(values):
                core = np.clip(values, *np.quantile(values, (0.005, 0.995)))
                self.mean[number] = float(core.mean())
                self.std[number] = float(core.std()) or 1.0

    def forward(self, raw_NF: Tensor) -> tuple[Tensor, Tensor]:
        """Return the standardised values, 0 where missing, and which are missing (bool)."""
        missing_NF = torch.isnan(raw_NF)
        standard = (raw_NF - self.mean) / self.std
        # linear in the core; the long tail of dE/dx, where slow kaons and protons are, stays apart
        standard = (torch.sign(standard) * torch.log(1.0 + standard.abs())).clamp(-CLAMP, CLAMP)
        return torch.where(missing_NF, torch.zeros_like(standard), standard), missing_NF


Encoding = Literal["linear", "piecewise", "periodic"]


class Linear(nn.Module):
    """The value itself."""

    size = 1

    def forward(self, value_NF: Tensor) -> Tensor:
        return value_NF.unsqueeze(-1)


class Piecewise(nn.Module):
    """Piecewise-linear encoding: how far a value is through each of its feature's quantile bins.

    Source: Y. Gorishniy, I. Rubachev, A. Babenko, NeurIPS 2022, arXiv:2203.05556, sect. 3.2.

    Attributes
    ----------
    low, width : Tensor
        float32 [F, E] buffers: lower edges and widths of the bins of standardised values.
    """

    low: Tensor
    width: Tensor

    def __init__(self, features: int, bins: int) -> None:
        super().__init__()
        self.size = bins
        self.register_buffer("low", torch.zeros(features, bins))
        self.register_buffer("width", torch.ones(features, bins))

    def adjust(self, value_NF: Tensor, missing_NF: Tensor) -> None:
        """Set the bins by standardised values and by which are missing."""
        for number, (column, missing) in enumerate(zip(value_NF.T.double(), missing_NF.T, strict=True)):
            present = column[~missing].numpy()
            if not len(present):
                continue
            edges = np.quantile(present, np.linspace(0.0, 1.0, self.size + 1))
            self.low[number] = torch.from_numpy(edges[:-1])
            # a bin between equal quantiles is a step
            self.width[number] = torch.from_numpy(np.maximum(np.diff(edges), 1e-3))

    def forward(self, value_NF: Tensor) -> Tensor:
        return ((value_NF.unsqueeze(-1) - self.low) / self.width).clamp(0.0, 1.0)


class Periodic(nn.Module):
    """Sines and cosines of learned frequencies, beside the value itself.

    Source: Y. Gorishniy, I. Rubachev, A. Babenko, NeurIPS 2022, arXiv:2203.05556, sect. 3.3; σ = 0.3.
    """

    def __init__(self, features: int, frequencies: int) -> None:
        super().__init__()
        self.size = 2 * frequencies + 1
        self.frequency = nn.Parameter(0.3 * torch.randn(features, frequencies))

    def forward(self, value_NF: Tensor) -> Tensor:
        value_NF1 = value_NF.unsqueeze(-1)
        phase = 2 * torch.pi * self.frequency * value_NF1
        return torch.cat([value_NF1, torch.sin(phase), torch.cos(phase)], dim=-1)


Encoder = Linear | Piecewise | Periodic


def encoder_of(kind: Encoding, features: int, size: int) -> Encoder:
    """Return an encoding; `size` is the number of bins or frequencies."""
    if kind == "linear":
        return Linear()
    return Piecewise(features, size) if kind == "piecewise" else Periodic(features, size)


def adjust(inputs: Inputs, encode: Encoder, features: NDArray[np.float32]) -> None:
    """Set scale and encoding by the training set's features [N, F]."""
    inputs.adjust(features)
    if isinstance(encode, Piecewise):
        encode.adjust(*inputs(torch.from_numpy(thinned(features))))
