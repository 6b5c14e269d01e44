"""Share of the gap between the unadapted model and the oracle that adaptation closes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from scipy.special import ndtri

from pidflow.evaluate.figures.style import COLOURS, drawing, error_bars
from pidflow.evaluate.paired import difference, share_of_ceiling
from pidflow.evaluate.schema import Estimate, Metrics, read_metrics

_LEAST = 5.0
"""Standard errors from which a gap is drawn: the share of a smaller one says nothing."""


@dataclass(frozen=True)
class Gap:
    """What adaptation could gain in one quantity, and which share of it each model gains.

    Attributes
    ----------
    label
        Of the quantity.
    room, error
        Oracle minus unadapted, with its standard error.
    share
        By model; without an interval where replicas are not kept.
    """

    label: str
    room: float
    error: float
    share: Mapping[str, Estimate]

    @property
    def is_significant(self) -> bool:
        """Whether the gap is so many standard errors that shares of it are meaningful."""
        return self.room >= _LEAST * self.error and self.room > 0.0


def auc_gap(models: Mapping[str, Metrics], unadapted: Metrics, oracle: Metrics) -> Gap:
    """Return the closure of the gap in macro AUC, with paired bootstrap intervals.

    Parameters
    ----------
    models
        Metrics of adapted models by label.
    unadapted, oracle
        Metrics on the same tracks.

    Raises
    ------
    PidflowError
        If metrics were not made on the same tracks with the same replicas.
    """
    room = difference(oracle, unadapted).value
    pairs = zip(oracle.macro.auc_replicas, unadapted.macro.auc_replicas, strict=True)
    spread = [high - low for high, low in pairs if high is not None and low is not None]
    error = float(np.std(spread, ddof=1)) if len(spread) > 1 else math.inf
    share = {label: share_of_ceiling(metrics, unadapted, oracle) for label, metrics in models.items()}
    return Gap("macro AUC", math.nan if room is None else room, error, share)


def f1_gap(models: Mapping[str, Metrics], unadapted: Metrics, oracle: Metrics) -> Gap:
    """Return the closure of the gap in macro F1 at the threshold.

    Replicas of F1 are not kept: shares have no interval, and the error of the gap is that of two values that do not
    fluctuate together, which is larger than the true one.

    Parameters
    ----------
    models, unadapted, oracle
        As of `auc_gap`.
    """
    low, high = unadapted.macro.f1, oracle.macro.f1
    room = _difference(high.value, low.value)
    error = math.hypot(*(_error(own.macro.f1, own.confidence) for own in (unadapted, oracle)))
    shares = {
        label: _difference(own.macro.f1.value, low.value) / room if room else math.nan for label, own in models.items()
    }
    share = {
        label: Estimate(value=None if math.isnan(value) else value, low=None, high=None)
        for label, value in shares.items()
    }
    return Gap(r"macro $\mathit{F}_{1}$ at the threshold", room, error, share)


def plot_closure_gap(
    models: Mapping[str, str | Path],
    unadapted: str | Path,
    oracle: str | Path,
    output: str | Path,
    *,
    chosen: str,
    title: str = "",
) -> None:
    """Draw which share of the way from the unadapted model to the oracle each adapted model goes.

    A gap of less than five standard errors is not drawn.

    Parameters
    ----------
    models
        Closure metrics of adapted models by label.
    unadapted, oracle
        Closure metrics of the model trained on simulation and of that trained with labels of pseudo-data.
    output
        Image file.
    chosen
        The label that is marked: the model that label-free scores chose.
    title
        Title of the figure.
    """
    read = {label: read_metrics(path) for label, path in models.items()}
    ends = read_metrics(unadapted), read_metrics(oracle)
    with drawing(output, 13.0, 2.0 + 0.5 * max(len(read), 3), title) as figure:
        grid = figure.subplots(1, 2, sharey=True)
        for axes, gap in zip(grid, (auc_gap(read, *ends), f1_gap(read, *ends)), strict=True):
            _draw(axes, gap, chosen)
        grid[0].set_yticks(range(len(read)), list(read))
        grid[0].set_ylim(len(read) - 0.4, -0.6)
        for tick in grid[0].get_yticklabels():
            tick.set_fontweight("bold" if tick.get_text() == chosen else "normal")


def _draw(axes: Axes, gap: Gap, chosen: str) -> None:
    axes.set_title(f"{gap.label}: gap {gap.room:.5f} ± {gap.error:.5f}")
    axes.tick_params(axis="y", which="both", length=0)
    if not gap.is_significant:
        axes.text(0.5, 0.5, "gap not significant", transform=axes.transAxes, ha="center", va="center", fontsize=16)
        axes.set_xticks([])
        return
    values, bars = error_bars(list(gap.share.values()))
    y = np.arange(len(values))
    colours = [COLOURS[1] if label == chosen else COLOURS[0] for label in gap.share]
    axes.barh(y, values, 0.6, xerr=None if np.isnan(bars).all() else bars, color=colours, capsize=4, ecolor="black")
    for place, value, (_, up) in zip(range(len(values)), values, bars.T, strict=True):
        end = max(0.0, value + float(np.nan_to_num(up))) if np.isfinite(value) else 0.0
        text = f"{100.0 * value:.0f} %".replace("-", "\N{MINUS SIGN}") if np.isfinite(value) else "undefined"
        axes.annotate(text, (end, place), (5, 0), textcoords="offset points", va="center", fontsize=11)
    ends = np.array([0.0, 1.0, *(values - np.nan_to_num(bars[0])), *(values + np.nan_to_num(bars[1]))])
    low, high = float(np.nanmin(ends)), float(np.nanmax(ends))
    margin = 0.06 * (high - low)
    axes.set_xlim(low - (margin if low < 0.0 else 0.0), high + 3.0 * margin)
    for end in (0.0, 1.0):
        axes.axvline(end, color="0.4", lw=1.0, ls="--", zorder=0)
    axes.set_xlabel("Share of the gap closed (0 unadapted, 1 oracle)")


def _difference(high: float | None, low: float | None) -> float:
    return math.nan if high is None or low is None else high - low


def _error(estimate: Estimate, confidence: float) -> float:
    """Return the standard error that an interval stands for."""
    if estimate.low is None or estimate.high is None:
        return math.inf
    return float((estimate.high - estimate.low) / (2.0 * ndtri((1.0 + confidence) / 2.0)))
