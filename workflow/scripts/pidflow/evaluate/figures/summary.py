"""Macro metrics side by side: closure on pseudo-data, and all methods on all runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pidflow.evaluate.figures.style import COLOURS, MARKERS, drawing, error_bars
from pidflow.evaluate.schema import Metrics, read_metrics

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
    """Draw macro F1 of each method and run, one panel per sample.

    Parameters
    ----------
    metrics
        Metrics files of any runs, samples and methods.
    output
        Image file.
    title
        Title of the figure.
    """
    everything = [read_metrics(path) for path in metrics]
    samples = list(dict.fromkeys(entry.sample for entry in everything))
    methods = list(dict.fromkeys(entry.model for entry in everything))
    runs = sorted({entry.run for entry in everything})
    height = 1.8 + max(0.55, 0.22 * len(runs)) * len(methods)
    with drawing(output, 1.5 + 5.0 * len(samples), height, title) as figure:
        panels = figure.subplots(1, len(samples), sharex=True, sharey=True, squeeze=False)[0]
        for axes, sample in zip(panels, samples, strict=True):
            for i, run in enumerate(runs):
                shown: list[Metrics] = [entry for entry in everything if (entry.sample, entry.run) == (sample, run)]
                y = [methods.index(entry.model) + 0.7 * ((i + 0.5) / len(runs) - 0.5) for entry in shown]
                values, bars = error_bars([entry.macro.f1 for entry in shown])
                style = {"fmt": MARKERS[i % len(MARKERS)], "color": COLOURS[i % len(COLOURS)]}
                axes.errorbar(values, y, xerr=bars, capsize=3, label=f"run {run}", **style)
            for boundary in range(1, len(methods)):
                axes.axhline(boundary - 0.5, color="0.85", lw=0.8, zorder=0)
            axes.set_title(sample)
            axes.set_xlabel(r"Macro $\mathit{F}_{1}$")
            axes.tick_params(axis="y", which="both", length=0)
        panels[0].set_yticks(range(len(methods)), methods)
        panels[0].set_ylim(len(methods) - 0.5, -0.5)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(len(runs), 6))
