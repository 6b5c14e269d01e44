"""Efficiency and misidentification of tagged probes against transverse momentum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from pidflow.evaluate.figures.style import COLOURS, MARKERS, PT_LABEL, drawing, error_bars, plain_log_ticks, shade
from pidflow.evaluate.probe_schema import HeadRate, ProbeBin, ProbeRates, ProbeSpecies
from pidflow.physics import symbol

_FEWEST = 10
"""Probes above background from which a rate is shown."""

_ORDER = (211, 321, 2212, 11, 1000010020)
"""Species from the top of the figure down."""

_SOURCES = {
    211: r"from $\mathrm{K}^{0}_{\mathrm{S}}$, $\Lambda$, $\overline{\Lambda}$",
    2212: r"from $\Lambda$, $\overline{\Lambda}$",
    11: r"from $\gamma$",
}


def plot_probes(series: Mapping[str, ProbeRates], output: str | Path, *, title: str) -> None:
    """Draw how often probes of both charges are selected as each species.

    A column holds the probes of one species, a row the certainty of one: where they are the same, the rate is the
    efficiency, else the misidentification probability, on an axis of its own. Series stand side by side within a
    pT bin; a rate of fewer than ten probes above background is left out.

    Parameters
    ----------
    series
        Rates by the name in the legend, of the same bins and species: data, simulation and, where it is known, the
        truth of the data.
    output
        Image file.
    title
        Title of the figure.
    """
    first = next(iter(series.values()))
    columns = [part.pdg for part in first.probes if len(part.pdg) > 1]
    present = {head.pdg for head in _part(first, columns[0]).pt[0].heads}
    rows = [pdg for pdg in _ORDER if pdg in present]
    edges = [own.low for own in first.probes[0].pt] + [first.probes[0].pt[-1].high]
    with drawing(output, 1.2 + 4.1 * len(columns), 1.6 + 2.6 * len(rows), title) as figure:
        grid = figure.subplots(len(rows), len(columns), sharex=True, squeeze=False)
        for row, head in zip(grid, rows, strict=True):
            for axes, codes in zip(row, columns, strict=True):
                shade(axes, edges)
                ends = [
                    _draw(axes, _part(rates, codes), head, name, i, len(series))
                    for i, (name, rates) in enumerate(series.items())
                ]
                _set_axes(axes, edges, codes[0] == head, np.concatenate(ends))
                axes.set_ylabel(_label(codes[0], head))
        for axes, codes in zip(grid[0], columns, strict=True):
            axes.set_title(f"{_both(codes[0])} {_SOURCES[codes[0]]}")
        for axes in grid[-1]:
            axes.set_xlabel(PT_LABEL)
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(series))


def _part(rates: ProbeRates, codes: tuple[int, ...]) -> ProbeSpecies:
    return next(part for part in rates.probes if part.pdg == codes)


def _draw(axes: Axes, part: ProbeSpecies, head: int, name: str, i: int, n: int) -> NDArray[np.float64]:
    """Draw one of `n` series and return the ends of its error bars."""
    bins = [own for own in part.pt if own.n_probes - own.n_background >= _FEWEST]
    values, bars = error_bars([_head(own, head).rate for own in bins])
    low, high = (np.array([getattr(own, side) for own in bins]) for side in ("low", "high"))
    # the middle of the bin holds the points
    share = 0.25 + 0.5 * (i + 0.5) / n
    style: dict[str, Any] = {
        "color": COLOURS[i % len(COLOURS)],
        "marker": MARKERS[i % len(MARKERS)],
        "ls": "",
        "capsize": 2.0,
    }
    axes.errorbar(low ** (1 - share) * high**share, values, bars, elinewidth=1.2, label=name, **style)
    return np.concatenate([values - bars[0], values + bars[1]])[np.isfinite([*values, *values])]


def _head(own: ProbeBin, pdg: int) -> HeadRate:
    return next(head for head in own.heads if head.pdg == pdg)


def _both(pdg: int) -> str:
    """Return the label of a species of both charges; a baryon's charge is told by the bar alone."""
    plain = symbol(pdg, signed=False)
    if pdg == 2212:
        return f"{plain}, {symbol(-pdg)}"
    return rf"{plain[:-1]}^{{\pm}}$"


def _label(probe: int, head: int) -> str:
    if probe == head:
        return f"Efficiency of {symbol(head, signed=False)}"
    return rf"Share of {symbol(probe, signed=False)} taken for {symbol(head, signed=False)}"


def _set_axes(axes: Axes, edges: Sequence[float], is_efficiency: bool, ends: NDArray[np.float64]) -> None:
    low, high = min([0.0, *ends]), max([1.0 if is_efficiency else 0.02, *ends])
    margin = 0.07 * (high - low)
    axes.axhline(1.0 if is_efficiency else 0.0, color="0.6", lw=0.8, zorder=1)
    axes.set(xscale="log", xlim=(edges[0], edges[-1]), ylim=(low - margin, high + margin))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    plain_log_ticks(axes)
