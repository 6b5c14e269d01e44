"""Confusion matrix."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pidflow.evaluate.figures.style import class_label, drawing
from pidflow.evaluate.schema import read_metrics


def plot_confusion(metrics: str | Path, output: str | Path, *, title: str) -> None:
    """Draw which species the tracks of each true class are assigned to, each row normalised to 1.

    Parameters
    ----------
    metrics
        Metrics file.
    output
        Image file.
    title
        Title of the figure.
    """
    confusion = read_metrics(metrics).confusion
    counts = np.array(confusion.counts, dtype=float)
    total = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, total, out=np.full_like(counts, np.nan), where=total > 0)
    with drawing(output, 1.03 * len(confusion.columns) + 2.0, 0.85 * len(confusion.rows) + 1.5, title) as figure:
        axes = figure.subplots()
        image = axes.imshow(np.ma.masked_invalid(shares), cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
        for (row, column), share in np.ndenumerate(shares):
            if np.isfinite(share):
                text = f"{share:.3f}" if counts[row, column] else "0"
                axes.text(column, row, text, ha="center", va="center", color="white" if share > 0.55 else "black")
        axes.set_xticks(
            range(len(confusion.columns)), [class_label(name, confusion.columns) for name in confusion.columns]
        )
        axes.set_yticks(
            range(len(confusion.rows)),
            [
                f"{class_label(name, confusion.rows)}\n({int(n):,})"
                for name, n in zip(confusion.rows, total[:, 0], strict=True)
            ],
        )
        axes.tick_params(which="both", length=0)
        axes.minorticks_off()
        axes.set_xlabel("Assigned species")
        axes.set_ylabel("True species (tracks)")
        figure.colorbar(image, ax=axes, label="Share of the true species", pad=0.02)
