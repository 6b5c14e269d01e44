"""Means of what the batches of an epoch show."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class Means:
    """Collects scalars of batches, and gives their means at the end of an epoch."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._batches = 0

    def add(self, **figures: Tensor) -> None:
        """Take in a batch's scalars, the same names each time."""
        for name, figure in figures.items():
            known = self._sums.get(name)
            self._sums[name] = figure.detach() if known is None else known + figure.detach()
        self._batches += 1

    def take(self) -> dict[str, float]:
        """Return the means by name and start anew."""
        means = {name: float(total) / self._batches for name, total in self._sums.items()}
        self._sums, self._batches = {}, 0
        return means
