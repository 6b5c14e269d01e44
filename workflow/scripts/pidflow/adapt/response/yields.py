"""Yields of species in data, relative to simulation, from all calibrated signals of a track together.

The likelihood of a track under a group of species is the product of its signals' fitted templates, which are taken to be
independent given species, momentum and pseudorapidity. Yields per charge and momentum bin then follow by expectation
maximisation (M. Saerens, P. Latinne, C. Decaestecker, Neural Computation 14 (2002) 21).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pidflow.adapt.response.cells import GROUPS, REST, Grid, charge_of
from pidflow.adapt.response.fit import Comparison, Sample
from pidflow.adapt.response.signals import Columns, Floats

_ITERATIONS = 200
_TOLERANCE = 1e-4
_PRIOR_TRACKS = 10.0
_RATIOS = (0.2, 5.0)


@dataclass(frozen=True)
class Yields:
    """Yields of data relative to simulation.

    Attributes
    ----------
    grid
        Momentum bins, and pseudorapidity bins of `shape`.
    log_p
        Mean ln(p/(GeV/c)) of the data in each momentum bin, [P].
    ratio
        Of each charge, momentum bin and group of species, [2, P, G]; mean 1 over simulated tracks.
    error
        Their statistical errors, [2, P, G].
    shape
        Further factor of each pseudorapidity bin, the same for all species, [E].
    """

    grid: Grid
    log_p: Floats
    ratio: Floats
    error: Floats
    shape: Floats

    def weight(self, columns: Columns, group: NDArray[np.intp]) -> Floats:
        """Return how much simulated tracks of groups [n] count, [n]."""
        log_p, charge = np.log(columns["p"]), charge_of(columns)
        weight = np.ones(len(log_p))
        for j in range(2):
            for g in range(len(GROUPS)):
                own = (charge == j) & (group == g)
                weight[own] = np.exp(np.interp(log_p[own], self.log_p, np.log(self.ratio[j, :, g])))
        return weight * self.shape[self.grid.eta_bin(columns)]

    def plain(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "groups": list(GROUPS),
            "charges": ["negative", "positive"],
            "p": np.exp(self.log_p).tolist(),
            "ratio": self.ratio.tolist(),
            "error": self.error.tolist(),
            "eta_edges": list(self.grid.eta_edges),
            "eta_factor": self.shape.tolist(),
        }


def likelihoods(comparisons: Sequence[tuple[Comparison, Floats]], columns: Columns) -> Floats:
    """Return the likelihood of tracks under each group, up to a common factor, [n, G].

    Parameters
    ----------
    comparisons
        Fitted comparison of each signal, and the coefficients found.
    columns
        Columns of the tracks, [n] each.
    """
    log = np.zeros((len(columns["p"]), len(GROUPS)))
    for comparison, coefficients in comparisons:
        (density,) = comparison.densities(coefficients)
        coordinate = comparison.signal.coordinate(columns)
        number = comparison.axis.number(np.nan_to_num(coordinate, nan=np.inf, posinf=1e30))
        seen = np.isfinite(coordinate) & (number >= 0) & (number < comparison.axis.bins)
        own = {name: values[seen] for name, values in columns.items()}
        log[seen] += np.log(density[comparison.cell_of(own), :, number[seen]])
    return np.exp(log - log.max(axis=1, keepdims=True))


def fit_yields(likelihood: Floats, data: Columns, simulation: Columns, group: NDArray[np.intp], grid: Grid) -> Yields:
    """Fit yields.

    Parameters
    ----------
    likelihood
        Of the data's tracks, [m, G].
    data, simulation
        Columns of both samples.
    group
        Group of each simulated track, [n].
    grid
        Bins.
    """
    known = np.zeros((2, grid.p_bins, len(GROUPS)))
    np.add.at(known, (charge_of(simulation), grid.p_bin(simulation), group), 1.0)
    scale = len(likelihood) / max(len(group), 1)
    charge, p_bin = charge_of(data), grid.p_bin(data)
    ratio, error = np.ones((2, *known.shape))
    for j in range(2):
        for p in range(grid.p_bins):
            own = (charge == j) & (p_bin == p)
            ratio[j, p], error[j, p] = _bin(likelihood[own], known[j, p] * scale)
    log_p = np.array([np.log(data["p"][p_bin == p]).mean() if np.any(p_bin == p) else 0.0 for p in range(grid.p_bins)])
    yields = Yields(grid, log_p, np.clip(ratio, *_RATIOS), error, np.ones(grid.eta_bins))
    weight = yields.weight(simulation, group)
    counts = np.bincount(grid.eta_bin(data), minlength=grid.eta_bins) / max(len(likelihood), 1)
    expected = np.bincount(grid.eta_bin(simulation), weight, grid.eta_bins) / weight.sum()
    return Yields(grid, log_p, yields.ratio, error, np.clip(counts / np.maximum(expected, 1e-9), *_RATIOS))


def _bin(likelihood: Floats, known: Floats) -> tuple[Floats, Floats]:
    """Return ratio and error of each group, [G], given likelihoods [m, G] and the simulation's tracks [G], scaled."""
    total = float(known.sum())
    if not len(likelihood) or total <= 0:
        return np.ones(len(GROUPS)), np.zeros(len(GROUPS))
    prior = _PRIOR_TRACKS * known / total
    rest = known[REST] / total
    share = known / total
    for _ in range(_ITERATIONS):
        part = likelihood * share
        responsibility = part / np.maximum(part.sum(axis=1, keepdims=True), 1e-300)
        count = responsibility.sum(axis=0) + prior
        following = count / count.sum()
        # nothing tells unknown particles from a mixture of the others: their share is the simulation's
        following[:REST] *= (1.0 - rest) / max(following[:REST].sum(), 1e-12)
        following[REST] = rest
        done = float(np.abs(following - share).max()) < _TOLERANCE
        share = following
        if done:
            break
    ratio = np.divide(share * len(likelihood), known, out=np.ones(len(GROUPS)), where=known > 0)
    part = likelihood * share
    gradient = (likelihood / np.maximum(part.sum(axis=1, keepdims=True), 1e-300))[:, :REST]
    information = gradient.T @ gradient + np.diag(_PRIOR_TRACKS / np.maximum(share[:REST], 1e-3))
    spread = np.sqrt(np.maximum(np.diag(np.linalg.inv(information)), 0.0)) * len(likelihood)
    error = np.zeros(len(GROUPS))
    error[:REST] = np.divide(
        np.hypot(spread, ratio[:REST] * np.sqrt(known[:REST])), known[:REST], out=np.zeros(REST), where=known[:REST] > 0
    )
    return ratio, error
