"""Groups of species and cells of momentum, pseudorapidity and charge."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pidflow.adapt.response.signals import Columns, Floats
from pidflow.physics import BY_PDG

GROUPS = ("e", "pi", "K", "p", "rest")
"""Muons are with the pions, from which no signal tells them here; `rest` has all else, unknown particles too."""

PIONS = GROUPS.index("pi")
REST = len(GROUPS) - 1
MASSES = tuple(BY_PDG[code].mass for code in (11, 211, 321, 2212, 211))
"""Of each group, GeV/c²; most unknown particles are pions."""

_GROUP_OF = {11: 0, 13: 1, 211: 1, 321: 2, 2212: 3}


def group_of(pdg: NDArray[np.int64]) -> NDArray[np.intp]:
    """Return the group of PDG codes [n]; 0 stands for an unknown particle."""
    group = np.full(len(pdg), REST)
    for code, number in _GROUP_OF.items():
        group[np.abs(pdg) == code] = number
    return group


@dataclass(frozen=True)
class Grid:
    """Cells of momentum, pseudorapidity and charge.

    Attributes
    ----------
    p_edges
        Inner edges of the momentum bins, GeV/c.
    eta_edges
        Inner edges of the pseudorapidity bins.
    """

    p_edges: tuple[float, ...]
    eta_edges: tuple[float, ...]

    @classmethod
    def of(cls, columns: Columns, p_bins: int, eta_bins: int) -> Grid:
        """Return a grid of about equally many of the given tracks in each bin of either variable."""

        def inner(values: Floats, bins: int) -> tuple[float, ...]:
            edges = np.quantile(values, np.linspace(0.0, 1.0, bins + 1)[1:-1]) if len(values) else ()
            return tuple(float(edge) for edge in np.unique(edges))

        return cls(inner(columns["p"], p_bins), inner(np.nan_to_num(columns["eta"]), eta_bins))

    @property
    def p_bins(self) -> int:
        """Number of momentum bins."""
        return len(self.p_edges) + 1

    @property
    def eta_bins(self) -> int:
        """Number of pseudorapidity bins."""
        return len(self.eta_edges) + 1

    def p_bin(self, columns: Columns) -> NDArray[np.intp]:
        """Return the momentum bin of tracks, [n]."""
        return np.digitize(columns["p"], self.p_edges)

    def eta_bin(self, columns: Columns) -> NDArray[np.intp]:
        """Return the pseudorapidity bin of tracks, [n]."""
        return np.digitize(np.nan_to_num(columns["eta"]), self.eta_edges)


def charge_of(columns: Columns) -> NDArray[np.intp]:
    """Return 1 for positive tracks and 0 for others, [n]."""
    return (np.nan_to_num(columns["sign"]) > 0).astype(np.intp)
