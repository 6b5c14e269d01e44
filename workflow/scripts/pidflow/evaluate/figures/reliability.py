"""True share against certainty."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter

from pidflow.evaluate.figures.style import COLOURS, class_label, drawing, error_bars
from pidflow.evaluate.schema import read_metrics

_COLUMNS = 3


def plot_reliability(metrics: str | Path, output: str | Path, *, title: str) -> None:
    """Draw the reliability diagram of one method: true share against mean certainty, one panel per species.

    Below each, the number of tracks in each bin of certainty.

    Parameters
    ----------
    metrics
        Metrics file.
    output
        Image file.
    title
        Title of the figure.

    Notes
    -----
    M. H. DeGroot, S. E. Fienberg, J. R. Stat. Soc. D 32 (1983) 12.
    """
    species = read_metrics(metrics).species
    codes = [part.pdg for part in species]
    columns = min(_COLUMNS, len(species))
    rows = -(-len(species) // columns)
    most = max((bin_.n for part in species for bin_ in part.calibration), default=1)
    with drawing(output, 0.8 + 3.9 * columns, 0.8 + 4.9 * rows, title) as figure:
        grid = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=(3, 1) * rows)
        for column in range(columns - (-len(species) % columns), columns):
            for axes in grid[-2:, column]:
                axes.set_axis_off()
        for i, part in enumerate(species):
            band, column = divmod(i, columns)
            upper, lower = grid[2 * band : 2 * band + 2, column]
            certainty = np.array([bin_.certainty for bin_ in part.calibration])
            share, bars = error_bars([bin_.share for bin_ in part.calibration])
            upper.plot([0, 1], [0, 1], color="0.6", ls="--", lw=1.0, zorder=1)
            upper.errorbar(certainty, share, bars, fmt="o", color=COLOURS[0], capsize=2, zorder=2)
            upper.set(title=class_label(part.pdg, codes), ylabel="True share", ylim=(-0.04, 1.04), xlim=(-0.03, 1.03))
            error = part.overall.ece
            if error.value is not None:
                spread = "" if error.low is None or error.high is None else f" ± {(error.high - error.low) / 2:.4f}"
                upper.text(0.05, 0.93, f"ECE {error.value:.4f}{spread}", transform=upper.transAxes, va="top")
            lower.bar(
                [bin_.low for bin_ in part.calibration],
                [bin_.n for bin_ in part.calibration],
                [bin_.high - bin_.low for bin_ in part.calibration],
                align="edge",
                color=COLOURS[5],
                ec="white",
                lw=0.5,
            )
            lower.set(xlabel="Certainty", ylabel="Tracks", yscale="log", ylim=(0.7, 3 * most), xlim=(-0.03, 1.03))
            lower.yaxis.set_major_locator(LogLocator(numticks=4))
            lower.yaxis.set_minor_formatter(NullFormatter())
            upper.tick_params(labelbottom=False)
        figure.align_ylabels()
