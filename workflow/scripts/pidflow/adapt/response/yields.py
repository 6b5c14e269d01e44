"""Yields of species in data, relative to simulation, from all calibrated signals of a track together.

The likelihood of a track under a group of species is the product of its signals' fitted templates, which are taken to
be independent given species, momentum and pseudorapidity. Yields per charge and momentum bin then follow by expectation
maximisation (M. Saerens, P. Latinne, C. Decaestecker, Neural Computation 14 (2002) 21).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pidflow.adapt.response.cells import GROUPS, REST, Grid, charge_of
from pidflow.adapt.response.comparison import Comparison
from pidflow.adapt.response.matching import pattern_of
from pidflow.adapt.response.signals import Columns, Floats
from pidflow.adapt.response.templates import FLAT

_ITERATIONS = 200
_TOLERANCE = 1e-4
_PRIOR_TRACKS = 10.0
_LEAST = 1e-3
_RATIOS = (0.2, 5.0)
_DEGREE = 3
_PRIOR_SPREAD = 1.0


@dataclass(frozen=True)
class Yields:
    """Yields of data relative to simulation.

    Attributes
    ----------
    grid
        Momentum bins, and pseudorapidity bins of `shape`.
    log_p
        Mean ln(p/(GeV/c)) of the data in each momentum bin, [P].
    ratio, error
        Of each charge, momentum bin and group of species, and their statistical errors, [2, P, G].
    smooth, smooth_error
        The same as a smooth function of momentum: a polynomial in ln p of the logarithm, fitted to the bins, [2, P, G].
    shape
        Further factor of each pseudorapidity bin, the same for all species, [E].
    """

    grid: Grid
    log_p: Floats
    ratio: Floats
    error: Floats
    smooth: Floats
    smooth_error: Floats
    shape: Floats

    @classmethod
    def of(cls, grid: Grid, log_p: Floats, ratio: Floats, error: Floats) -> Yields:
        """Return yields with their smooth function, and no dependence on pseudorapidity yet."""
        smooth, smooth_error = _smoothed(log_p, ratio, error)
        return cls(grid, log_p, ratio, error, smooth, smooth_error, np.ones(grid.eta_bins))

    def weight(self, columns: Columns, group: NDArray[np.intp]) -> Floats:
        """Return how much simulated tracks of groups [n] count, [n]."""
        log_p, charge = np.log(columns["p"]), charge_of(columns)
        weight = np.ones(len(log_p))
        for j in range(2):
            for g in range(len(GROUPS)):
                own = (charge == j) & (group == g)
                weight[own] = np.exp(np.interp(log_p[own], self.log_p, np.log(self.smooth[j, :, g])))
        return weight * self.shape[self.grid.eta_bin(columns)]

    def varied(self, random: np.random.Generator) -> Yields:
        """Return yields whose norm per charge and group is drawn within its error."""
        relative = np.minimum(self.smooth_error / self.smooth, 1.0).mean(axis=1, keepdims=True)
        return replace(self, smooth=self.smooth * np.exp(relative * random.normal(size=relative.shape)))

    def plain(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "groups": list(GROUPS),
            "charges": ["negative", "positive"],
            "p": np.exp(self.log_p).tolist(),
            "ratio": self.ratio.tolist(),
            "error": self.error.tolist(),
            "smooth": self.smooth.tolist(),
            "smooth_error": self.smooth_error.tolist(),
            "eta_edges": list(self.grid.eta_edges),
            "eta_factor": self.shape.tolist(),
        }


def _smoothed(log_p: Floats, ratio: Floats, error: Floats) -> tuple[Floats, Floats]:
    """Return the smooth function of momentum through ratios [2, P, G] at its bins, and its errors."""
    smooth, spread = ratio.copy(), error.copy()
    middle, reach = log_p.mean(), max(float(np.ptp(log_p)) / 2.0, 1e-6)
    functions = np.stack([((log_p - middle) / reach) ** power for power in range(_DEGREE + 1)], axis=1)
    for j in range(2):
        for g in range(REST + 1):
            relative = error[j, :, g] / ratio[j, :, g]
            weight = np.where(relative > 0, 1.0 / np.maximum(relative, 0.01) ** 2, 0.0)
            if g == REST or np.count_nonzero(weight) <= _DEGREE + 1:
                continue
            # where there is nothing to tell, the ratio is 1, give or take a factor
            information = (functions * weight[:, None]).T @ functions + np.eye(_DEGREE + 1) / _PRIOR_SPREAD**2
            covariance = np.linalg.inv(information)
            coefficients = covariance @ (functions.T @ (weight * np.log(ratio[j, :, g])))
            smooth[j, :, g] = np.exp(functions @ coefficients)
            spread[j, :, g] = smooth[j, :, g] * np.sqrt(np.einsum("pk,kl,pl->p", functions, covariance, functions))
    return np.clip(smooth, *_RATIOS), spread


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
        density = comparison.densities_at_reference(coefficients)
        coordinate = comparison.signal.coordinate(columns)
        seen = np.isfinite(coordinate)
        own = {name: values[seen] for name, values in columns.items()}
        cell = comparison.cell_of(own)
        for group in range(len(GROUPS)):
            moved = comparison.moved_to_reference(coordinate[seen], own, group)
            number = comparison.axis.number(moved)
            inside = (number >= 0) & (number < comparison.axis.bins)
            found = np.full(len(number), FLAT / comparison.axis.bins)
            found[inside] = density[cell[inside], group, number[inside]]
            log[seen, group] += np.log(found)
    return np.asarray(np.exp(log - log.max(axis=1, keepdims=True)))


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
    known = np.zeros((2, grid.p_bins, 4, len(GROUPS)))
    np.add.at(known, (charge_of(simulation), grid.p_bin(simulation), seen_of(simulation), group), 1.0)
    scale = len(likelihood) / max(len(group), 1)
    charge, p_bin, seen = charge_of(data), grid.p_bin(data), seen_of(data)
    ratio, error = np.ones((2, 2, grid.p_bins, len(GROUPS)))
    for j in range(2):
        for p in range(grid.p_bins):
            own = (charge == j) & (p_bin == p)
            ratio[j, p], error[j, p] = _bin(likelihood[own], seen[own], known[j, p] * scale)
    log_p = np.array([np.log(data["p"][p_bin == p]).mean() if np.any(p_bin == p) else 0.0 for p in range(grid.p_bins)])
    yields = Yields.of(grid, log_p, np.clip(ratio, *_RATIOS), error)
    weight = yields.weight(simulation, group)
    counts = np.bincount(grid.eta_bin(data), minlength=grid.eta_bins) / max(len(likelihood), 1)
    expected = np.bincount(grid.eta_bin(simulation), weight, grid.eta_bins) / weight.sum()
    return replace(yields, shape=np.clip(counts / np.maximum(expected, 1e-9), *_RATIOS))


def _bin(likelihood: Floats, seen: NDArray[np.intp], known: Floats) -> tuple[Floats, Floats]:
    """Return ratio and error of each group, [G], in one bin.

    Parameters
    ----------
    likelihood
        Of the data's tracks, [m, G].
    seen
        Their detector patterns, [m].
    known
        Simulated tracks, scaled to the data's size, [4, G] by pattern. How a species is shared among the patterns is
        simulation's; how many tracks a pattern has in all is data's.
    """
    total = known.sum(axis=0)
    ratio, error = np.ones((2, len(GROUPS)))
    if not len(likelihood) or total[:REST].sum() <= 0:
        return ratio, 0.0 * error
    tracks = np.bincount(seen, minlength=4)
    prior = _PRIOR_TRACKS * total / total.sum()
    for _ in range(_ITERATIONS):
        per_track = known / np.maximum((known * ratio).sum(axis=1, keepdims=True), 1e-300)
        part = likelihood * (per_track * ratio)[seen]
        count = (part / np.maximum(part.sum(axis=1, keepdims=True), 1e-300)).sum(axis=0)
        expected = (per_track * tracks[:, None]).sum(axis=0)
        following = np.where(total > 0, np.maximum(count + prior, _LEAST) / np.maximum(expected + prior, _LEAST), 1.0)
        # nothing tells unknown particles from a mixture of the others: their share is the simulation's
        following *= total[:REST].sum() / max((following * total)[:REST].sum(), 1e-12)
        following[REST] = 1.0
        done = float(np.abs(following - ratio).max()) < _TOLERANCE
        ratio = following
        if done:
            break
    amount = known * ratio
    share = amount / np.maximum(amount.sum(axis=1, keepdims=True), 1e-300)
    part = likelihood * share[seen]
    gradient = (part / np.maximum(part.sum(axis=1, keepdims=True), 1e-300) - share[seen])[:, :REST] / ratio[:REST]
    # shares alone leave the norm free, which the number of tracks fixes
    norm = np.outer(total[:REST], total[:REST]) / total.sum()
    information = gradient.T @ gradient + norm + np.diag(np.maximum(prior[:REST], _LEAST))
    spread = np.sqrt(np.maximum(np.diag(np.linalg.inv(information)), 0.0))
    # both samples' statistics
    error[:REST] = np.hypot(spread, ratio[:REST] / np.sqrt(np.maximum(total[:REST], 1.0)))
    error[REST] = 0.0
    return ratio * (len(likelihood) / total.sum()), error


def seen_of(columns: Columns) -> NDArray[np.intp]:
    """Return the detector pattern of tracks, [n]."""
    return pattern_of(columns["has_trd"] > 0, columns["has_tof"] > 0)
