"""Course of a search for better settings, and its value against each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullLocator

from pidflow.evaluate.figures.style import COLOURS, drawing
from pidflow.evaluate.figures.transfer import stretch
from pidflow.evaluate.tuning import Trial, best_trial

_LABELS = {"validation_loss": "Cross entropy (validation)", "validation_auc": "Macro AUC (validation)"}
_COLUMNS = 4
"""Most panels side by side."""


def plot_tuning(
    trials: Sequence[Trial], output: str | Path, *, objective: str, space: Mapping[str, Any], title: str
) -> None:
    """Draw the value of each trial with the best so far, and below it the value against each parameter.

    Parameters
    ----------
    trials
        Trials, by number.
    output
        Image file.
    objective
        ``validation_loss`` or ``validation_auc``.
    space
        Lists of choices, or ranges with ``low``, ``high`` and ``log``, by dotted key.
    title
        Title of the figure.
    """
    ended = [trial for trial in trials if trial.value is not None]
    best = ended.index(best_trial(trials, objective))
    number = np.array([trial.number for trial in ended])
    value = np.array([trial.value for trial in ended], dtype=float)
    so_far = (np.minimum if objective == "validation_loss" else np.maximum).accumulate(value)
    rows = -(-len(space) // _COLUMNS)
    columns = -(-len(space) // rows)
    with drawing(output, 13.0, 4.2 + 3.3 * rows, title) as figure:
        grid = figure.add_gridspec(1 + rows, columns, height_ratios=[1.25, *[1.0] * rows])
        course = figure.add_subplot(grid[0, :])
        course.plot(number, value, "o", color=COLOURS[0], ms=6, label="trial")
        course.step(number, so_far, where="post", color=COLOURS[1], label="best so far", zorder=1)
        course.plot(number[best], value[best], "*", ms=17, color=COLOURS[4], mec="black", label="best")
        course.set(xlabel="Trial", ylabel=_LABELS[objective])
        course.xaxis.set_major_locator(MaxNLocator(integer=True))
        course.xaxis.set_minor_locator(NullLocator())
        if objective == "validation_loss":
            course.set_yscale("log")
            course.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
            course.yaxis.set_major_formatter(FormatStrFormatter("%g"))
            course.yaxis.set_minor_locator(NullLocator())
            course.set_ylim(value.min() / 1.1, value.max() * 1.1)
        else:
            stretch(course, value.tolist())
        course.legend(loc="upper right" if objective == "validation_loss" else "lower right", ncols=3)
        shades = None
        for place, (key, values) in enumerate(space.items()):
            axes = figure.add_subplot(grid[1 + place // columns, place % columns], sharey=course)
            chosen = [trial.parameters[key] for trial in ended]
            x = _positions(axes, chosen, values, number)
            shades = axes.scatter(x, value, c=number, cmap="viridis_r", s=34, ec="black", lw=0.4)
            axes.plot(x[best], value[best], "*", ms=15, color=COLOURS[4], mec="black", zorder=3)
            axes.set_xlabel(key.replace("_", " ").replace(".", ": "), fontsize=12)
            axes.tick_params(axis="y", labelleft=place % columns == 0)
        if shades is not None:
            figure.colorbar(shades, ax=figure.axes[1:], label="Trial", aspect=30 * rows, pad=0.01).ax.minorticks_off()


def _positions(axes: Axes, chosen: Sequence[Any], values: Any, number: Any) -> Any:
    """Set up the axis of one parameter and return the places of the trials on it."""
    if isinstance(values, Mapping):
        if values.get("log"):
            axes.set_xscale("log")
        return np.array(chosen, dtype=float)
    places = np.array([list(values).index(choice) for choice in chosen], dtype=float)
    axes.set_xticks(range(len(values)), [str(choice) for choice in values])
    axes.set_xlim(-0.6, len(values) - 0.4)
    axes.tick_params(axis="x", which="minor", bottom=False, top=False)
    # side by side by number, so that trials with the same choice do not cover one another
    return places + 0.5 * (number / max(1, number.max()) - 0.5)
