"""Macro F1 and AUC against the share of a run's simulation that trains a network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from pidflow.evaluate.figures.style import COLOURS, drawing, error_bars
from pidflow.evaluate.transfer import UNTRAINED, Point

_QUANTITIES = (("f1", r"Macro $\mathit{F}_{1}$"), ("auc", "Macro AUC"))
_STARTS = {
    "scratch": ("from scratch", "o", "--", False),
    "whole": ("from run {source}", "s", "-", True),
    "frozen": ("from run {source}, heads alone", "^", "-.", True),
    "layerwise": ("from run {source}, smaller steps before the heads", "D", (0, (4, 1)), True),
}
_APART = 0.02


def plot_transfer(points: Sequence[Point], output: str | Path, *, source: int, title: str) -> None:
    """Draw both quantities against the share, a colour per run and a line per start.

    The dotted line is the other run's model without any training.

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
    shares = sorted({point.fraction for point in points if point.start != UNTRAINED})
    with drawing(output, 11.5, 5.4, title) as figure:
        panels = figure.subplots(1, 2)
        for axes, (name, label) in zip(panels, _QUANTITIES, strict=True):
            for i, run in enumerate(runs):
                colour = COLOURS[i % len(COLOURS)]
                own = [point for point in points if point.run == run]
                for j, start in enumerate(starts):
                    line = sorted((point for point in own if point.start == start), key=lambda point: point.fraction)
                    _, marker, style, filled = _STARTS[start]
                    values, bars = error_bars([getattr(point, name) for point in line])
                    # side by side, so that intervals do not cover one another
                    place = 1 + _APART * (i * len(starts) + j - (len(runs) * len(starts) - 1) / 2)
                    axes.errorbar(
                        [place * point.fraction for point in line],
                        values,
                        bars,
                        color=colour,
                        marker=marker,
                        ls=style,
                        mfc=colour if filled else "white",
                        ms=7,
                        mew=1.4,
                        capsize=2.5,
                        elinewidth=1.2,
                    )
                for point in own:
                    if point.start == UNTRAINED and (value := getattr(point, name).value) is not None:
                        axes.axhline(value, color=colour, ls=":", lw=1.6, zorder=1)
            axes.set(xscale="log", xlabel="Share of the run's training simulation", ylabel=label)
            axes.set_xlim(shares[0] / 1.4, shares[-1] * 1.4)
            axes.xaxis.set_major_locator(FixedLocator(shares))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
            axes.margins(y=0.08)
        handles = [Line2D([], [], color=COLOURS[i % len(COLOURS)], lw=5) for i in range(len(runs))]
        names = [f"run {run}" for run in runs]
        for start in starts:
            text, marker, style, filled = _STARTS[start]
            face = "0.2" if filled else "white"
            handles.append(Line2D([], [], color="0.2", marker=marker, ls=style, mfc=face, ms=7, mew=1.4))
            names.append(text.format(source=source))
        if any(point.start == UNTRAINED for point in points):
            handles.append(Line2D([], [], color="0.2", ls=":", lw=1.6))
            names.append(f"model of run {source} as it is")
        figure.legend(handles, names, loc="outside lower center", ncols=min(len(handles), 4))
