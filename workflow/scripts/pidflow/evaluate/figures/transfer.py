"""Macro F1 and AUC against the share of a run's simulation that trains a network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FormatStrFormatter, NullLocator

from pidflow.evaluate.figures.style import COLOURS, MARKERS, drawing, error_bars
from pidflow.evaluate.transfer import UNTRAINED, Point

_QUANTITIES = (("f1", r"Macro $\mathit{F}_{1}$"), ("auc", "Macro AUC"))
_STARTS = {
    UNTRAINED: ("run {source}'s model as it is", "black", ":"),
    "scratch": ("from scratch", COLOURS[1], "--"),
    "whole": ("started from it", COLOURS[0], "-"),
    "frozen": ("started from it, heads alone", COLOURS[2], "-."),
    "layerwise": ("started from it, smaller steps before the heads", COLOURS[3], (0, (5, 1))),
}
_APART = 0.045
"""Distance of points side by side, in ln of the share."""


def plot_transfer(points: Sequence[Point], output: str | Path, *, source: int, title: str) -> None:
    """Draw both quantities against the share, a colour per start and a marker per run.

    Axes are stretched towards 1, for good networks lie close together.

    Parameters
    ----------
    points
        Trainings of any runs (`pidflow.evaluate.transfer`).
    output
        Image file.
    source
        Run whose model is the start.
    title
        Title of the figure.
    """
    runs = list(dict.fromkeys(point.run for point in points))
    starts = [start for start in _STARTS if any(point.start == start for point in points)]
    trained = [start for start in starts if start != UNTRAINED]
    shares = sorted({point.fraction for point in points if point.start != UNTRAINED})
    # where the logarithmic axis shows that nothing was trained
    nothing = shares[0] / 3
    with drawing(output, 12.0, 5.6, title) as figure:
        for axes, (name, label) in zip(figure.subplots(1, 2), _QUANTITIES, strict=True):
            for i, run in enumerate(runs):
                for j, start in enumerate(starts):
                    own = [point for point in points if (point.run, point.start) == (run, start)]
                    own.sort(key=lambda point: point.fraction)
                    # side by side, so that intervals do not cover one another
                    if start == UNTRAINED:
                        place = i - (len(runs) - 1) / 2
                    else:
                        place = i * len(trained) + trained.index(start) - (len(runs) * len(trained) - 1) / 2
                    values, bars = error_bars([getattr(point, name) for point in own])
                    _, colour, line = _STARTS[start]
                    axes.errorbar(
                        [(point.fraction or nothing) * np.exp(_APART * place) for point in own],
                        values,
                        bars,
                        color=colour,
                        ls=line,
                        marker=MARKERS[i % len(MARKERS)],
                        ms=6.5,
                        capsize=2.5,
                        elinewidth=1.2,
                        zorder=2 + j / 10,
                    )
                    if start == UNTRAINED:
                        for value in values[np.isfinite(values)]:
                            axes.axhline(value, color=colour, ls=line, lw=1.0, alpha=0.6, zorder=1)
            axes.set(xscale="log", xlabel="Share of the run's training simulation", ylabel=label)
            axes.set_xlim(nothing / 1.6, shares[-1] * 1.6)
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_xticks([nothing, *shares], [f"{100 * share:g} %" for share in (0.0, *shares)])
            axes.axvline(np.sqrt(nothing * shares[0]), color="0.8", lw=0.8, zorder=0)
            estimates = [getattr(point, name) for point in points]
            stretch(axes, [bound for own in estimates for bound in (own.low, own.high)])
        handles = [Line2D([], [], color=_STARTS[start][1], ls=_STARTS[start][2], lw=2) for start in starts]
        names = [_STARTS[start][0].format(source=source) for start in starts]
        for i, run in enumerate(runs):
            handles.append(Line2D([], [], color="0.3", ls="", marker=MARKERS[i % len(MARKERS)], ms=7))
            names.append(f"run {run}")
        figure.legend(handles, names, loc="outside lower center", ncols=min(len(handles), 5))


def stretch(axes: Axes, values: Sequence[float | None]) -> None:
    """Make an axis of values up to 1 logarithmic in their distance from 1, wide enough for all of them."""
    distances = [1.0 - value for value in values if value is not None and value < 1.0] or [0.5]
    far, near = 1.25 * max(distances), max(min(distances), 1e-5) / 1.25
    axes.set_yscale("function", functions=(lambda y: -np.log(np.maximum(1.0 - y, 1e-9)), lambda x: 1.0 - np.exp(-x)))
    axes.set_ylim(1.0 - far, 1.0 - near)
    steps = [first * 10.0**power for power in range(-5, 1) for first in (1, 1.2, 1.5, 2, 3, 5, 7)]
    axes.yaxis.set_major_locator(FixedLocator([1.0 - step for step in steps if near <= step <= far]))
    axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.yaxis.set_minor_locator(NullLocator())
