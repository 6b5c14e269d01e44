"""Purity, efficiency and F1 against transverse momentum."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pidflow.evaluate.figures.methods import main_methods, method_style, ordered
from pidflow.evaluate.figures.style import PT_LABEL, class_label, drawing, error_bars, plain_log_ticks, shade
from pidflow.evaluate.schema import Metrics, SpeciesMetrics, read_metrics

_QUANTITIES = (("purity", "Purity"), ("efficiency", "Efficiency"), ("f1", r"$\mathit{F}_{1}$"))
_FEWEST = 10
"""Tracks in the denominator of a rate from which the figure of all methods shows it."""

_COLUMNS = 3
"""Species side by side in the figure of all methods."""


def plot_performance(metrics: Sequence[str | Path], output: str | Path, *, title: str) -> None:
    """Draw the rates of a few methods, one column per species.

    Points stand within their pT bin side by side, so that intervals do not cover one another.

    Parameters
    ----------
    metrics
        Metrics files of the same run and sample, one per method.
    output
        Image file.
    title
        Title of the figure.
    """
    methods = [read_metrics(path) for path in metrics]
    species = [part.pdg for part in methods[0].species]
    with drawing(output, 1.0 + 2.7 * len(species), 8.2, title) as figure:
        grid = figure.subplots(len(_QUANTITIES), len(species), sharex=True, sharey=True, squeeze=False)
        for i, method in enumerate(methods):
            style = {**method_style(method.model), "ls": ""}
            for column, part in zip(grid.T, method.species, strict=True):
                x = _places(part, (i + 1) / (len(methods) + 1))
                for axes, (name, _) in zip(column, _QUANTITIES, strict=True):
                    _draw(axes, x, part, name, label=method.model, **style)
        edges = _edges(methods[0])
        for axes in grid.flat:
            shade(axes, edges)
        for column, pdg in zip(grid.T, species, strict=True):
            column[0].set_title(class_label(pdg, species))
            column[-1].set_xlabel(PT_LABEL)
        for axes, (_, label) in zip(grid[:, 0], _QUANTITIES, strict=True):
            axes.set_ylabel(label)
        _set_axes(grid[0, 0], edges)
        _legend(figure, grid[0, 0], "outside lower center", len(methods))


def plot_methods_pt(metrics: Sequence[str | Path], output: str | Path, *, published: str, title: str) -> None:
    """Draw purity and efficiency of all methods, a panel for each species and quantity.

    The published method, the cuts, the trees and the ceiling carry intervals and strong lines; the
    others are thin. A rate of fewer than ten tracks is left out.

    Parameters
    ----------
    metrics
        Metrics files of the same run and sample, one per method.
    output
        Image file.
    published
        Method that is published.
    title
        Title of the figure.
    """
    models = {method.model: method for method in map(read_metrics, metrics)}
    methods = ordered(models)
    main = main_methods(methods, published)
    first = models[methods[0]]
    species = [part.pdg for part in first.species]
    columns = min(_COLUMNS, len(species))
    bands = -(-len(species) // columns)
    edges = _edges(first)
    lowest = 0.9
    with drawing(output, 3.4 + 4.3 * columns, 1.0 + 5.8 * bands, title) as figure:
        grid = figure.subplots(2 * bands, columns, sharex=True, sharey=True, squeeze=False)
        for i, pdg in enumerate(species):
            band, column = divmod(i, columns)
            for axes, (name, label) in zip(grid[2 * band : 2 * band + 2, column], _QUANTITIES[:2], strict=True):
                shade(axes, edges)
                for j, method in enumerate(methods):
                    part = models[method].species[i]
                    # the middle of the bin holds the points
                    x = _places(part, 0.3 + 0.4 * (j + 0.5) / len(methods))
                    total = np.array([rates.n_selected if name == "purity" else rates.n_true for rates in part.pt])
                    x[total < _FEWEST] = np.nan
                    values = error_bars([getattr(rates, name) for rates in part.pt])[0][total >= _FEWEST]
                    lowest = min([lowest, *values])
                    style = method_style(method)
                    if method in main:
                        style |= {"lw": 2.0, "markersize": 6, "zorder": 3, "elinewidth": 1.2}
                    else:
                        style |= {"lw": 1.0, "markersize": 3.5, "alpha": 0.85, "zorder": 2}
                    _draw(axes, x, part, name, bars=method in main, label=method, **style)
                if column == 0:
                    axes.set_ylabel(label)
            grid[2 * band, column].set_title(class_label(pdg, species))
            if i + columns >= len(species):
                grid[2 * band + 1, column].set_xlabel(PT_LABEL)
                grid[2 * band + 1, column].tick_params(labelbottom=True)
        for axes in [axes for i in range(len(species), bands * columns) for axes in grid[-2:, i % columns]]:
            axes.set_axis_off()
        _set_axes(grid[0, 0], edges)
        grid[0, 0].set_ylim(lowest - 0.08)
        _legend(figure, grid[0, 0], "outside right center", 1)


def _places(part: SpeciesMetrics, share: float) -> NDArray[np.float64]:
    """Return the places of points at a share of the bins' widths in ln pT, shape (n_bins,), GeV/c."""
    low, high = (np.array([getattr(rates, side) for rates in part.pt]) for side in ("low", "high"))
    return np.asarray(low ** (1 - share) * high**share)


def _draw(axes: Axes, x: NDArray[np.float64], part: SpeciesMetrics, name: str, bars: bool = True, **style: Any) -> None:
    values, intervals = error_bars([getattr(rates, name) for rates in part.pt])
    axes.errorbar(x, values, intervals if bars else None, **style)


def _edges(metrics: Metrics) -> list[float]:
    bins = metrics.species[0].pt
    return [bins[0].low, *(rates.high for rates in bins)]


def _set_axes(axes: Axes, edges: Sequence[float]) -> None:
    axes.set(xscale="log", xlim=(edges[0], edges[-1]), ylim=(-0.04, 1.06))
    plain_log_ticks(axes)


def _legend(figure: Figure, axes: Axes, place: str, columns: int) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc=place, ncols=columns)
