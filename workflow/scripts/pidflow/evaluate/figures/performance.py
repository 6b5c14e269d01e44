"""Purity, efficiency and F1 against transverse momentum."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pidflow.evaluate.figures.style import (
    COLOURS,
    MARKERS,
    PT_LABEL,
    class_label,
    drawing,
    error_bars,
    plain_log_ticks,
)
from pidflow.evaluate.schema import read_metrics

_ROWS = (("purity", "Purity"), ("efficiency", "Efficiency"), ("f1", r"$\mathit{F}_{1}$"))


def plot_performance(metrics: Sequence[str | Path], output: str | Path, *, title: str) -> None:
    """Draw the rates of each method, one column per species.

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
        grid = figure.subplots(len(_ROWS), len(species), sharex=True, sharey=True, squeeze=False)
        for i, method in enumerate(methods):
            for part in method.species:
                column = grid[:, species.index(part.pdg)]
                low, high = (np.array([getattr(rates, side) for rates in part.pt]) for side in ("low", "high"))
                share = (i + 1) / (len(methods) + 1)
                x = low ** (1 - share) * high**share
                for axes, (name, _) in zip(column, _ROWS, strict=True):
                    values, bars = error_bars([getattr(rates, name) for rates in part.pt])
                    axes.errorbar(
                        x,
                        values,
                        bars,
                        fmt=MARKERS[i % len(MARKERS)],
                        color=COLOURS[i % len(COLOURS)],
                        label=method.model,
                    )
        edges = [methods[0].species[0].pt[0].low, *(rates.high for rates in methods[0].species[0].pt)]
        for axes in grid.flat:
            for low_edge, high_edge in zip(edges[1::2], edges[2::2], strict=False):
                axes.axvspan(low_edge, high_edge, color="0.95", lw=0, zorder=0)
        for column, pdg in zip(grid.T, species, strict=True):
            column[0].set_title(class_label(pdg, species))
            column[-1].set_xlabel(PT_LABEL)
        for axes, (_, label) in zip(grid[:, 0], _ROWS, strict=True):
            axes.set_ylabel(label)
        grid[0, 0].set(xscale="log", xlim=(edges[0], edges[-1]), ylim=(-0.04, 1.06))
        plain_log_ticks(grid[0, 0])
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
