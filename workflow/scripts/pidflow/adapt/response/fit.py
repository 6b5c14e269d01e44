"""Fit of a signal's offset and resolution to unlabelled data, as a mixture of simulated species with free yields.

In each cell of momentum, pseudorapidity and TPC clusters the data is compared with moved and widened templates
(`pidflow.adapt.response.comparison`). Offset and scale are smooth functions over the cells. Yields follow by
expectation maximisation, the functions by Fisher scoring with the yields profiled (A. P. Dempster, N. M. Laird,
D. B. Rubin, J. R. Stat. Soc. B 39 (1977) 1; Schur complement of the information matrix). No label of data exists here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pidflow.adapt.response.cells import GROUPS, Grid
from pidflow.adapt.response.comparison import SCALE_TERMS, SCALES2, Comparison
from pidflow.adapt.response.shape import Sample
from pidflow.adapt.response.signals import Columns, Floats, Signal
from pidflow.adapt.response.smooth import design

_FEWEST = 300
_SCAN = np.linspace(-4.0, 4.0, 33)
_ITERATIONS = 60


@dataclass(frozen=True)
class SignalFit:
    """What was found for a signal.

    Attributes
    ----------
    name
        The signal.
    unit, logarithmic
        Of its coordinate (`pidflow.adapt.response.signals.Signal`).
    terms, scale_terms
        Smooth functions of the offset and of the squared resolution scale.
    offset, scale
        Their coefficients; the squared scale is 1 + Σ scale · function.
    covariance
        Of both together, from the data's and the simulation's statistics and, where they scatter more than those
        tell, the residuals.
    points
        Offset and scale apart in bins of p and of η (`bins` of each).
    tracks
        Simulated and data tracks that were compared.
    chi2, bins
        Of the data against the fitted templates (`Comparison.goodness`).
    """

    name: str
    unit: str
    logarithmic: bool
    terms: tuple[str, ...]
    scale_terms: tuple[str, ...]
    offset: Floats
    scale: Floats
    covariance: Floats
    points: list[dict[str, Any]]
    tracks: tuple[int, int]
    chi2: float
    bins: int

    @property
    def coefficients(self) -> Floats:
        """All coefficients, those of the offset first."""
        return np.concatenate([self.offset, self.scale])

    def varied(self, random: np.random.Generator) -> SignalFit:
        """Return a fit whose coefficients are drawn from their errors' normal distribution."""
        drawn = random.multivariate_normal(self.coefficients, self.covariance)
        return replace(self, offset=drawn[: len(self.offset)], scale=drawn[len(self.offset) :])

    def offset_of(self, columns: Columns) -> Floats:
        """Return the offset of tracks, [n], in units of the coordinate."""
        return design(columns, self.terms) @ self.offset

    def scale2_of(self, columns: Columns) -> Floats:
        """Return the squared scale of the resolution of tracks, [n]."""
        return np.clip(1.0 + design(columns, self.scale_terms) @ self.scale, *SCALES2)

    def plain(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "signal": self.name,
            "unit": self.unit,
            "logarithmic": self.logarithmic,
            "tracks": {"simulation": self.tracks[0], "data": self.tracks[1]},
            "terms": list(self.terms),
            "offset": self.offset.tolist(),
            "scale_terms": list(self.scale_terms),
            "scale2_minus_1": self.scale.tolist(),
            "covariance": self.covariance.tolist(),
            "chi2": self.chi2,
            "chi2_bins": self.bins,
            "points": self.points,
        }


def fit_signal(
    signal: Signal,
    grid: Grid,
    simulation: Sample,
    data: Sample,
    group: NDArray[np.intp],
    yields: Floats | None = None,
    known_to: Floats | None = None,
) -> tuple[SignalFit, Comparison] | None:
    """Fit one signal.

    Parameters
    ----------
    signal
        The signal.
    grid
        Cells.
    simulation, data
        Tracks with it.
    group
        Group of each simulated track, [n].
    yields, known_to
        Yields relative to simulation that are known from elsewhere, and their relative errors, [2, P, G];
        None: they are free here.

    Returns
    -------
    tuple or None
        The fit and what it compared; None if either sample has too few tracks.
    """
    if min(len(simulation), len(data)) < _FEWEST:
        return None
    comparison = Comparison(signal, grid, simulation, data, group)
    coefficients = np.zeros(len(signal.terms) + len(SCALE_TERMS))
    even = np.ones((2, grid.p_bins, len(GROUPS)))
    fixed, best = yields is not None, -np.inf
    current = even if yields is None else yields
    for move in _SCAN * comparison.resolution:
        trial = coefficients.copy()
        trial[0] = move
        (density,) = comparison.densities(trial)
        value = comparison.likelihood(density, current if fixed else comparison.maximise_yields(density, even, 4))
        if value > best:
            best, start = value, trial
    coefficients = start
    for number in range(_ITERATIONS):
        (density,) = comparison.densities(coefficients)
        if not fixed:
            current = comparison.maximise_yields(density, current, 5)
        score, information, *_ = comparison.information(coefficients, current, known_to)
        step = np.linalg.solve(information, score)
        limit = np.array([0.5 * comparison.resolution] * len(signal.terms) + [0.2] * len(SCALE_TERMS))
        step *= min(1.0, float((limit / np.maximum(np.abs(step), 1e-12)).min()))
        coefficients = coefficients + step
        if number % 5 == 4:
            _, scale2 = comparison.offset(coefficients)
            mean = np.average(scale2, weights=comparison.counts.sum(axis=(0, 2)))
            comparison.templates = comparison.fill(float(mean))
        if number > 10 and float((np.abs(step) / limit).max()) < 2e-3:
            break
    _, information, local_score, local_information = comparison.information(coefficients, current, known_to)
    terms = len(signal.terms)
    chi2, bins = comparison.goodness(coefficients, current)
    points = _points(comparison, coefficients, local_score, local_information)
    covariance = np.linalg.inv(information) * comparison.inflation
    covariance *= max(1.0, _scatter(points))
    fit = SignalFit(
        signal.name,
        signal.unit,
        signal.logarithmic,
        signal.terms,
        SCALE_TERMS,
        coefficients[:terms],
        coefficients[terms:],
        covariance,
        points,
        (len(simulation), len(data)),
        chi2,
        bins,
    )
    return fit, comparison


def _points(comparison: Comparison, coefficients: Floats, score: Floats, information: Floats) -> list[dict[str, Any]]:
    """Return offset and scale apart in each bin of p and η: one step of Newton's method from the smooth function."""
    grid = comparison.grid
    offset, scale2 = comparison.offset(coefficients)
    eta_of_cell = np.arange(comparison.cells) // comparison.halves % grid.eta_bins
    columns = comparison.data.columns
    found = []
    for variable, number, bins, value in (
        ("p", comparison.p_of_cell, grid.p_bins, columns["p"]),
        ("eta", eta_of_cell, grid.eta_bins, columns["eta"]),
    ):
        of_track = number[comparison.cell_of(columns)]
        for b in range(bins):
            cells = number == b
            h = information[cells].sum(axis=0)
            own = of_track == b
            if not own.any() or np.linalg.cond(h) > 1e12:
                continue
            step = np.linalg.solve(h, score[cells].sum(axis=0))
            error = np.sqrt(np.diag(np.linalg.inv(h)) * comparison.inflation)
            counts = comparison.counts.sum(axis=(0, 2))[cells]
            smooth = [float(np.average(values[cells], weights=counts)) for values in (offset, scale2)]
            found.append(
                {
                    "variable": variable,
                    "low": float(value[own].min()),
                    "high": float(value[own].max()),
                    "mean": float(value[own].mean()),
                    "offset": smooth[0] + float(step[0]),
                    "offset_error": float(error[0]),
                    "offset_smooth": smooth[0],
                    "scale2": smooth[1] + float(step[1]),
                    "scale2_error": float(error[1]),
                    "scale2_smooth": smooth[1],
                }
            )
    return found


def _scatter(points: list[dict[str, Any]]) -> float:
    """Return χ² per point of what the smooth functions leave."""
    pulls = [
        (point[name] - point[f"{name}_smooth"]) / point[f"{name}_error"]
        for point in points
        for name in ("offset", "scale2")
    ]
    return float(np.mean(np.square(pulls))) if pulls else 1.0
