"""Loss and validation AUC against epoch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from matplotlib.ticker import FormatStrFormatter, MaxNLocator

from pidflow.evaluate.figures.style import COLOURS, LINES, drawing


def plot_history(histories: Mapping[str, str | Path], output: str | Path, *, title: str = "") -> None:
    """Draw the course of each training.

    Parameters
    ----------
    histories
        Parquet file of each training, with columns ``epoch``, ``train_loss``, ``validation_loss``
        and, in all or none of the panels, ``validation_auc``.
    output
        Image file.
    title
        Title of the figure.
    """
    tables = {label: pq.read_table(path) for label, path in histories.items()}
    with_auc = any("validation_auc" in table.column_names for table in tables.values())
    with drawing(output, 11.0 if with_auc else 6.5, 4.4, title) as figure:
        panels = figure.subplots(1, 1 + with_auc, squeeze=False)[0]
        for i, (label, table) in enumerate(tables.items()):
            epoch, train, validation = (table[name].to_numpy() for name in ("epoch", "train_loss", "validation_loss"))
            colour = COLOURS[i % len(COLOURS)]
            panels[0].plot(epoch, train, ls="--", color=colour, label=f"{label}, training")
            panels[0].plot(epoch, validation, marker="o", color=colour, label=f"{label}, validation")
            best = np.nanargmin(validation)
            name = "lowest validation loss" if i == len(tables) - 1 else None
            panels[0].plot(epoch[best], validation[best], "*", ms=14, color=colour, mec="black", zorder=3, label=name)
            if "validation_auc" in table.column_names:
                panels[1].plot(
                    epoch,
                    table["validation_auc"].to_numpy(),
                    marker="o",
                    ls=LINES[i % len(LINES)],
                    color=colour,
                    label=label,
                )
        panels[0].set_yscale("log")
        panels[0].yaxis.set_major_formatter(FormatStrFormatter("%g"))
        panels[0].yaxis.set_minor_formatter(FormatStrFormatter("%g"))
        for axes, label in zip(panels, ("Loss (cross entropy)", "Macro AUC (validation)"), strict=False):
            axes.set(xlabel="Epoch", ylabel=label)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.legend()
