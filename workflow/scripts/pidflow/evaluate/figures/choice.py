"""Choice among candidates of adaptation, and the efficiencies to expect on data."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from scipy.stats import rankdata

from pidflow.config.adapt import CHOSEN, UNADAPTED
from pidflow.errors import PidflowError
from pidflow.evaluate.figures.style import COLOURS, PT_LABEL, class_label, drawing, error_bars, plain_log_ticks
from pidflow.evaluate.schema import Estimate
from pidflow.files import read_json

_DARK = 0.6
"""Share of the candidates up to whose rank a cell is dark."""

_OUT = "0.45"
"""Colour of candidates that are out."""

_PER_MILLE = 1000.0

_LEGEND = ("expected on data, statistical error", "systematic error", "by the unadapted simulation")


def plot_choice(choice: str | Path, output: str | Path, *, title: str) -> None:
    """Draw what the choice among candidates saw: gains, how well samples resemble data, ranks by all scores.

    Parameters
    ----------
    choice
        JSON that `pidflow.adapt.choice.select` wrote.
    output
        Image file.
    title
        Title of the figure.
    """
    found = read_json(choice)
    candidates: dict[str, Any] = found["candidates"]
    domain = {name: float(own["value"]) for name, own in found["domain_auc"].items()}
    names = list(candidates)
    height = max(3.2, 0.75 * len(names) + 0.4, 0.5 * len(domain))
    with drawing(output, 17.0, height + 2.9, title) as figure:
        # with ratios that are no whole numbers the layout is not reproducible
        gains, ranks, samples = figure.subplots(1, 3, width_ratios=[6, 5, 3])
        _draw_gains(gains, candidates, found[CHOSEN], found["yardstick"])
        _draw_ranks(ranks, candidates, found["score"])
        _draw_domains(samples, domain, found["yardstick"], trusted=bool(found["trusted"]))
        figure.supxlabel(f"{found['reason']}", fontsize=12, fontstyle="italic")


def score_ranks(candidates: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], NDArray[np.float64]]:
    """Return the scores of candidates, and the place of each by each score, 1 the best, [candidates, scores].

    A candidate without the score has NaN.
    """
    scores = list(dict.fromkeys(name for own in candidates.values() for name in own["scores"]))
    table = [[own["scores"].get(name) for name in scores] for own in candidates.values()]
    values = np.array(table, dtype=np.float64)
    return scores, np.asarray(rankdata(-values, method="min", axis=0, nan_policy="omit"), dtype=np.float64)


def plot_efficiency(efficiency: str | Path, output: str | Path, *, title: str) -> None:
    """Draw the efficiency to expect on data against transverse momentum, and that of the unadapted simulation.

    Parameters
    ----------
    efficiency
        CSV of `pidflow.adapt.choice.efficiency`.
    output
        Image file.
    title
        Title of the figure.
    """
    with open(efficiency, newline="", encoding="utf-8") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    if not rows:
        raise PidflowError(f"{efficiency}: no efficiency of any species; choose the adaptation again")
    species = list(dict.fromkeys(int(row["pdg"]) for row in rows))
    kinds = list(dict.fromkeys(abs(code) for code in species))
    charges = [sign for sign in (1, -1) if any(sign * code > 0 for code in species)]
    # the last row of a species is that of all its bins
    bins = {code: [row for row in rows if int(row["pdg"]) == code][:-1] for code in species}
    with drawing(output, 1.0 + 4.0 * len(kinds), 1.4 + 3.2 * len(charges), title) as figure:
        grid = figure.subplots(len(charges), len(kinds), sharex=True, sharey=True, squeeze=False)
        for row_of_panels, sign in zip(grid, charges, strict=True):
            for axes, kind in zip(row_of_panels, kinds, strict=True):
                if bins.get(sign * kind):
                    _draw_efficiency(axes, bins[sign * kind])
                    axes.set_title(class_label(sign * kind, species))
                else:
                    axes.set_axis_off()
        edges = [row[side] for own in bins.values() for row in own for side in ("pt_low", "pt_high")]
        grid[0, 0].set(xscale="log", xlim=(min(edges), max(edges)) if edges else None, ylim=(-0.03, 1.08))
        for axes in grid.flat:
            plain_log_ticks(axes)
        for axes in grid[-1]:
            axes.set_xlabel(PT_LABEL)
        for axes in grid[:, 0]:
            axes.set_ylabel("Efficiency")
        entries = (zip(*axes.get_legend_handles_labels()[::-1], strict=True) for axes in grid.flat)
        handles = dict(pair for pairs in entries for pair in pairs)
        order = [label for label in _LEGEND if label in handles]
        figure.legend([handles[label] for label in order], order, loc="outside lower center", ncols=len(_LEGEND))


def _draw_gains(axes: Axes, candidates: Mapping[str, Any], chosen: str, yardstick: str) -> None:
    estimates = [Estimate.model_validate(own["gain"]) for own in candidates.values()]
    values, bars = (_PER_MILLE * part for part in error_bars(estimates))
    for y, (name, own) in enumerate(candidates.items()):
        accepted = own["accepted"]
        colour = COLOURS[1] if name == chosen else COLOURS[0] if accepted else _OUT
        style: dict[str, Any] = {"fmt": "D" if name == chosen else "o" if accepted else "x", "color": colour}
        axes.errorbar(values[y], y, xerr=bars[:, y : y + 1], ms=9 if name == chosen else 7, capsize=4, **style)
        note = "chosen" if name == chosen else ""
        note = "; ".join(text for text in (note, "" if accepted else f"out: {own['reason']}") if text)
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        style = {
            "transform": axes.get_yaxis_transform(),
            "fontsize": 10,
            "color": colour,
            "ha": "right",
            "va": "center",
            "bbox": box,
        }
        axes.text(0.98, y + 0.34, note, **style)
    axes.axvline(0.0, color="0.6", lw=0.8, zorder=0)
    axes.set(ylim=(len(candidates) - 0.5, -0.5), xlabel=r"Gain in macro AUC ($10^{-3}$)")
    ends = np.array([0.0, *(values - bars[0]), *(values + bars[1]), *values])
    low, high = float(np.nanmin(ends)), float(np.nanmax(ends))
    margin = 0.12 * max(high - low, 0.1)
    axes.set_xlim(low - margin, high + margin)
    axes.set_title(f"on the sample like data: {yardstick}")
    _name_rows(axes, candidates)
    _separate(axes, len(candidates))


def _draw_ranks(axes: Axes, candidates: Mapping[str, Any], trusted: str) -> None:
    scores, ranks = score_ranks(candidates)
    axes.imshow(ranks, cmap="Blues_r", vmin=0.6, vmax=0.4 + 1.15 * len(ranks), aspect="auto")
    for (y, x), rank in np.ndenumerate(ranks):
        style: dict[str, Any] = {
            "color": "white" if rank < _DARK * len(ranks) else "black",
            "ha": "center",
            "va": "center",
        }
        weight = "bold" if scores[x] == trusted else "normal"
        axes.text(x, y, "–" if np.isnan(rank) else f"{rank:.0f}", fontweight=weight, **style)
    axes.set_xticks(range(len(scores)), [name.replace("_", " ") for name in scores], rotation=40, ha="right",
                    rotation_mode="anchor", fontsize=11)  # fmt: skip
    axes.set_yticks(range(len(candidates)), ["" for _ in candidates])
    axes.add_patch(Rectangle((scores.index(trusted) - 0.5, -0.5), 1, len(ranks), fill=False, ec=COLOURS[1], lw=2.5,
                             clip_on=False, zorder=3))  # fmt: skip
    for tick in axes.get_xticklabels():
        tick.set_fontweight("bold" if tick.get_text() == trusted.replace("_", " ") else "normal")
    axes.tick_params(which="both", length=0)
    axes.set_ylim(len(candidates) - 0.5, -0.5)
    axes.set_title("place by each label-free score")


def _draw_domains(axes: Axes, domain: Mapping[str, float], yardstick: str, *, trusted: bool) -> None:
    y = range(len(domain))
    colours = [COLOURS[1] if name == yardstick else COLOURS[0] for name in domain]
    axes.barh(y, [value - 0.5 for value in domain.values()], 0.5, left=0.5, color=colours)
    highest = max(0.6, *domain.values())
    for place, value in zip(y, domain.values(), strict=True):
        axes.text(max(value, 0.5) + 0.02 * (highest - 0.5), place, f"{value:.3f}", va="center")
    axes.set_yticks(y, list(domain))
    axes.set(ylim=(len(domain) - 0.4, -0.6), xlim=(0.5, 0.5 + 1.35 * (highest - 0.5)))
    axes.set_xlabel("AUC, sample against data")
    axes.tick_params(axis="y", which="both", length=0)
    axes.set_title("told from data" if trusted else "told from data: too well")


def _name_rows(axes: Axes, candidates: Mapping[str, Any]) -> None:
    names = ["unadapted" if name == UNADAPTED else name for name in candidates]
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", which="both", length=0)


def _separate(axes: Axes, count: int) -> None:
    for boundary in range(1, count):
        axes.axhline(boundary - 0.5, color="0.88", lw=0.8, zorder=0)


def _draw_efficiency(axes: Axes, bins: Sequence[Mapping[str, float]]) -> None:
    low, high, value, statistical, systematic, unadapted = (
        np.array([own[name] for own in bins])
        for name in ("pt_low", "pt_high", "efficiency", "statistical", "systematic", "unadapted")
    )
    bottom, top = np.maximum(value - systematic, 0.0), np.minimum(value + systematic, 1.0)
    points, band, line = _LEGEND
    style: dict[str, Any] = {"align": "edge", "color": COLOURS[1], "alpha": 0.3, "lw": 0}
    axes.bar(low, top - bottom, high - low, bottom, label=band, **style)
    axes.errorbar(np.sqrt(low * high), value, statistical, fmt="o", color=COLOURS[1], capsize=2, label=points)
    axes.hlines(unadapted, low, high, color=COLOURS[0], ls="--", label=line)
    axes.axhline(1.0, color="0.6", lw=0.8, zorder=0)
