"""Misidentification against efficiency."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pidflow.evaluate.figures.methods import method_style
from pidflow.evaluate.figures.style import class_label, drawing
from pidflow.evaluate.ranking import area, ranking_score, roc_curve
from pidflow.evaluate.scored import read_tracks

_MOST_POINTS = 600
"""Points drawn of a smooth curve."""

_FEW_POINTS = 20
"""Up to here a curve is that of cuts: its points are marked, for only they can be reached."""


def plot_roc(
    dataset: str | Path,
    scores: Mapping[str, str | Path],
    output: str | Path,
    *,
    species: tuple[int, ...],
    title: str,
) -> None:
    """Draw the ROC curve of each method on the test tracks, one panel per species.

    Parameters
    ----------
    dataset
        Parquet file with truth.
    scores
        Score table of each method; more than about six make the figure unreadable.
    output
        Image file.
    species
        PDG codes.
    title
        Title of the figure.
    """
    tracks_of_dataset = read_tracks(dataset, ["pdg_code"])
    methods = {name: tracks_of_dataset.scored(path, species) for name, path in scores.items()}
    columns = min(3, len(species))
    rows = -(-len(species) // columns)
    with drawing(output, 0.6 + 4.2 * columns, 0.9 + 3.6 * rows, title) as figure:
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for i, pdg in enumerate(species):
            axes = grid.flat[i]
            for name, tracks in methods.items():
                is_true, score = tracks.is_true(pdg), ranking_score(tracks.certainty[:, i])
                if is_true.all() or not is_true.any():
                    continue
                efficiency, misidentification = roc_curve(score, is_true)
                shown = np.flatnonzero(misidentification > 0)
                style = method_style(name)
                if shown.size <= _FEW_POINTS:
                    style["lw"] = 0.7
                else:
                    style["marker"] = ""
                if shown.size > _MOST_POINTS:
                    # even steps in efficiency keep the shape at both ends
                    steps = np.linspace(efficiency[shown[0]], 1.0, _MOST_POINTS)
                    shown = np.unique(shown[0] + np.searchsorted(efficiency[shown], steps).clip(max=shown.size - 1))
                axes.plot(
                    efficiency[shown],
                    misidentification[shown],
                    label=f"{name}  AUC {area(score, is_true):.4f}",
                    **style,
                )
            axes.set_title(class_label(pdg, species))
            if axes.lines:
                axes.legend(loc="upper left", fontsize=11)
            else:
                axes.text(0.5, 0.5, "no true tracks", transform=axes.transAxes, ha="center")
        for axes in grid.flat[len(species) :]:
            axes.set_axis_off()
        for i in range(len(species)):
            if i % columns == 0:
                grid.flat[i].set_ylabel("Misidentification probability")
            if i + columns >= len(species):
                grid.flat[i].set_xlabel("Efficiency")
                grid.flat[i].tick_params(labelbottom=True)
        # room above 1 for the legend
        grid[0, 0].set(
            yscale="log",
            xlim=(0.0, 1.02),
            ylim=(1e-4, 10 ** (0.35 * len(methods))),
            yticks=[1e-4, 1e-3, 1e-2, 1e-1, 1.0],
        )
