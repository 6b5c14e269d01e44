"""TPC signal against momentum of the tracks selected as each species."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mplhep
import numpy as np
from hist import Hist, axis
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from numpy.typing import NDArray

from pidflow.evaluate.figures.style import P_TPC_LABEL, class_label, drawing, plain_log_ticks
from pidflow.evaluate.scored import ScoredTracks, read_scored

_BINS = 110
_MOMENTUM = (0.1, 10.0)
_HIGHEST = 5.0
"""Top of the signal axis, in units of the median, which lies near the minimum-ionising signal."""


@dataclass(frozen=True)
class Selection:
    """What one row of panels shows.

    Attributes
    ----------
    label
        Sample and model.
    dataset, scores
        Parquet files aligned row by row.
    """

    label: str
    dataset: str | Path
    scores: str | Path


def plot_signal(
    selections: Sequence[Selection],
    output: str | Path,
    *,
    species: tuple[int, ...],
    threshold: float,
    title: str,
) -> None:
    """Draw the selected tracks of datasets, of every split; truth is not needed.

    Parameters
    ----------
    selections
        One row of panels each.
    output
        Image file.
    species
        PDG codes; one column each.
    threshold
        Certainty from which a track is selected.
    title
        Title of the figure.
    """
    columns = ["tpc_signal", "tpc_inner_param", "p"]
    shown = [read_scored(each.dataset, each.scores, species, columns, split=None) for each in selections]
    coordinates = [_coordinates(tracks) for tracks in shown]
    highest = _HIGHEST * float(np.nanmedian(coordinates[0][1]))
    background = [_fill(momentum, signal, highest) for momentum, signal in coordinates]
    norm = LogNorm(1.0, max(10.0, *(float(everything.values().max()) for everything in background)))
    with drawing(output, 1.6 + 2.6 * len(species), 0.9 + 2.7 * len(shown), title) as figure:
        grid = figure.subplots(len(shown), len(species), sharex=True, sharey=True, squeeze=False)
        rows = zip(grid, selections, shown, coordinates, background, strict=True)
        for row, selection, tracks, (momentum, signal), everything in rows:
            most = max(float(everything.values().max()), 10.0)
            for i, axes in enumerate(row):
                axes.contourf(
                    everything.axes[0].centers,
                    everything.axes[1].centers,
                    everything.values().T,
                    levels=[0.5, max(most / 30, 1.5), most],
                    colors=["0.92", "0.85"],
                )
                selected = tracks.certainty[:, i] >= threshold
                histogram = _fill(momentum[selected], signal[selected], highest)
                mesh = mplhep.hist2dplot(histogram, ax=axes, norm=norm, cmap="viridis", cbar=False, flow="none")[0]
                mesh.set_rasterized(True)
                axes.text(0.96, 0.95, f"{selected.sum():,}", transform=axes.transAxes, ha="right", va="top")
                axes.set(xlabel="", ylabel="")
            row[0].set_ylabel(f"{selection.label}\nTPC d$\\mathit{{E}}$/d$\\mathit{{x}}$ (arb. units)")
        for axes, pdg in zip(grid[0], species, strict=True):
            axes.set_title(f"selected as {class_label(pdg, species)}")
        for axes in grid[-1]:
            axes.set_xlabel(P_TPC_LABEL)
        grid[0, 0].set(xscale="log", xlim=_MOMENTUM, ylim=(0.0, highest))
        plain_log_ticks(grid[0, 0])
        figure.colorbar(ScalarMappable(norm, "viridis"), ax=grid, label="Selected tracks per bin", pad=0.01, aspect=30)


def _coordinates(tracks: ScoredTracks) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the momentum at the inner TPC wall (that at the vertex where it is null) and the signal."""
    inner = tracks.floats("tpc_inner_param")
    return np.where(np.isnan(inner), tracks.floats("p"), inner), tracks.floats("tpc_signal")


def _fill(momentum: NDArray[np.float64], signal: NDArray[np.float64], highest: float) -> Hist[Any]:
    histogram: Hist[Any] = Hist(
        axis.Regular(_BINS, *_MOMENTUM, transform=axis.transform.log), axis.Regular(_BINS, 0.0, highest)
    )
    return histogram.fill(momentum, signal)
