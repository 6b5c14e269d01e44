"""Macro metrics side by side: closure on pseudo-data, and all methods on all runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FormatStrFormatter, NullLocator

from pidflow.evaluate.figures.style import COLOURS, MARKERS, drawing, error_bars
from pidflow.evaluate.paired import CEILING
from pidflow.evaluate.schema import read_metrics
from pidflow.evaluate.tables import SHARE, Row, table_rows

_QUANTITIES = (("f1", r"Macro $\mathit{F}_{1}$"), ("auc", "Macro AUC"))


def plot_closure(metrics: Mapping[str, str | Path], output: str | Path, *, title: str = "") -> None:
    """Draw macro F1 and AUC of each model on pseudo-data.

    Parameters
    ----------
    metrics
        Metrics file by label, from the worst expected to the best: unadapted, adapted, oracle.
    output
        Image file.
    title
        Title of the figure.
    """
    models = {label: read_metrics(path) for label, path in metrics.items()}
    with drawing(output, 9.5, 4.6, title) as figure:
        for axes, (name, label) in zip(figure.subplots(1, 2), _QUANTITIES, strict=True):
            values, bars = error_bars([getattr(model.macro, name) for model in models.values()])
            x = np.arange(values.size)
            axes.bar(x, values, 0.6, yerr=bars, color=COLOURS[: values.size], capsize=5, ecolor="black")
            for position, value, (down, up) in zip(x, values, bars.T, strict=True):
                text = f"{value:.4f} ± {(up + down) / 2:.4f}" if np.isfinite(value + up) else "undefined"
                top = (position, float(np.nan_to_num(value + up)))
                axes.annotate(text, top, (0, 5), textcoords="offset points", ha="center", fontsize=11)
            axes.set_xticks(x, list(models))
            axes.tick_params(axis="x", which="both", length=0)
            axes.set(ylabel=label, xlim=(-0.65, values.size - 0.35), ylim=(0.0, 1.12))


def plot_comparison(metrics: Sequence[str | Path], output: str | Path, *, title: str = "") -> None:
    """Draw macro F1, macro AUC and share of the ceiling of each method and run on all tracks.

    A row of panels per sample, in which methods are sorted by their mean macro F1, the ceiling
    first. The axis of the AUC is stretched towards 1, for the best methods lie close together.

    Parameters
    ----------
    metrics
        Metrics files of any runs, samples and methods.
    output
        Image file.
    title
        Title of the figure.
    """
    rows = [row for row in table_rows([read_metrics(path) for path in metrics]) if row.tracks == "all"]
    samples = list(dict.fromkeys(row.sample for row in rows))
    runs = sorted({row.run for row in rows})
    quantities = [*_QUANTITIES]
    if any(row.macro[SHARE].value is not None for row in rows):
        quantities.append((SHARE, "Share of ceiling"))
    methods = {sample: _sorted_methods([row for row in rows if row.sample == sample]) for sample in samples}
    heights = [1.0 + max(0.34, 0.17 * len(runs)) * len(methods[sample]) for sample in samples]
    with drawing(output, 1.6 + 4.4 * len(quantities), 0.9 + sum(heights), title) as figure:
        grid = figure.subplots(
            len(samples), len(quantities), sharex="col", sharey="row", squeeze=False, height_ratios=heights
        )
        for row_of_panels, sample in zip(grid, samples, strict=True):
            names = methods[sample]
            for axes, (key, label) in zip(row_of_panels, quantities, strict=True):
                if all(row.macro[key].value is None for row in rows if row.sample == sample):
                    axes.set_visible(False)
                    continue
                for i, run in enumerate(runs):
                    shown = [row for row in rows if (row.sample, row.run) == (sample, run)]
                    y = [names.index(row.method) + 0.6 * ((i + 0.5) / len(runs) - 0.5) for row in shown]
                    values, bars = error_bars([row.macro[key] for row in shown])
                    style = {"fmt": MARKERS[i % len(MARKERS)], "color": COLOURS[i % len(COLOURS)]}
                    axes.errorbar(values, y, xerr=bars, capsize=2, label=f"run {run}", **style)
                for boundary in range(1, len(names)):
                    axes.axhline(boundary - 0.5, color="0.88", lw=0.8, zorder=0)
                axes.set_xlabel(label)
                axes.tick_params(axis="y", which="both", length=0)
                axes.tick_params(axis="x", labelbottom=True)
            row_of_panels[0].set_title(sample, loc="left")
            row_of_panels[0].set_yticks(range(len(names)), names)
            row_of_panels[0].set_ylim(len(names) - 0.5, -0.5)
            for tick in row_of_panels[0].get_yticklabels():
                tick.set_style("italic" if tick.get_text() == CEILING else "normal")
        for axes, (key, _) in zip(grid[0, 1:], quantities[1:], strict=True):
            _stretch(axes, [bound for row in rows for bound in (row.macro[key].low, row.macro[key].high)])
        figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=min(len(runs), 6))


def _sorted_methods(rows: Sequence[Row]) -> list[str]:
    """Return the methods of a sample from the highest mean macro F1 down, the ceiling first."""
    values: dict[str, list[float]] = {}
    for row in rows:
        values.setdefault(row.method, []).append(row.macro["f1"].value or 0.0)
    return sorted(values, key=lambda method: (method != CEILING, -float(np.mean(values[method])), method))


def _stretch(axes: Axes, values: Sequence[float | None]) -> None:
    """Make an axis of values up to 1 logarithmic in their distance from 1, wide enough for all of them."""
    distances = [1.0 - value for value in values if value is not None and value < 1.0] or [0.5]
    far, near = 1.2 * max(distances), max(min(distances), 1e-5) / 1.2
    axes.set_xscale("function", functions=(lambda x: -np.log(np.maximum(1.0 - x, 1e-9)), lambda y: 1.0 - np.exp(-y)))
    axes.set_xlim(1.0 - far, 1.0 - near)
    steps = [first * 10.0**power for power in range(-5, 1) for first in (1, 2, 5)]
    axes.xaxis.set_major_locator(FixedLocator([1.0 - step for step in steps if near <= step <= far]))
    axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.xaxis.set_minor_locator(NullLocator())
