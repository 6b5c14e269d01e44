"""The look that all figures share: the ALICE style at the size of a report, in colour-blind-safe colours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import mplhep
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler
from matplotlib.ticker import FixedLocator, FormatStrFormatter
from numpy.typing import NDArray

from pidflow.evaluate.schema import Estimate
from pidflow.files import replacing
from pidflow.physics import symbol

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""M. Okabe, K. Ito, Color Universal Design (2008)."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))

_POSITION_DIGITS = 5

PT_LABEL = r"$\mathit{p}_{\mathrm{T}}$ (GeV/$\mathit{c}$)"
P_TPC_LABEL = r"$\mathit{p}_{\mathrm{TPC}}$ (GeV/$\mathit{c}$)"

_RC: Any = {
    **mplhep.style.ALICE,
    "font.size": 12,
    "axes.titlesize": 15,
    "axes.labelsize": 14,
    "axes.labelpad": 4,
    "figure.titlesize": 16,
    "legend.fontsize": 12,
    "lines.markersize": 5,
    "lines.linewidth": 1.4,
    "xtick.labelsize": 12,
    "ytick.labelsize": 12,
    "xtick.major.size": 6,
    "ytick.major.size": 6,
    "xtick.minor.size": 3,
    "ytick.minor.size": 3,
    "axes.prop_cycle": cycler(color=COLOURS),
    "figure.constrained_layout.w_pad": 0.08,
    "figure.constrained_layout.h_pad": 0.06,
    "svg.hashsalt": "pidflow",
}


@contextlib.contextmanager
def drawing(output: str | Path, width: float, height: float, title: str) -> Iterator[Figure]:
    """Yield a figure of `width` × `height` inches; write it to `output` when the block ends well.

    The bytes depend on the content alone: no date, no version, fixed identifiers.
    """
    with mpl.rc_context(_RC):
        figure = Figure(figsize=(width, height), layout="constrained")
        if title:
            figure.suptitle(title)
        yield figure
        _settle(figure)
        metadata = {"Date": None} if Path(output).suffix == ".svg" else {"Software": None}
        with replacing(output) as temporary:
            figure.savefig(temporary, dpi=110, metadata=metadata)


def _settle(figure: Figure) -> None:
    """Lay a figure out once and for all; the solver's last digits, which are not reproducible, are rounded away."""
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.execute(figure)
    figure.set_layout_engine("none")
    for axes in figure.axes:
        axes.set_position(np.round(axes.get_position().bounds, _POSITION_DIGITS).tolist())


def is_signed(species: Sequence[int]) -> bool:
    """Return whether charges are told apart: a sample without charge has positive PDG codes only."""
    return min(species) < 0


def class_label(pdg: int | str, species: Sequence[int | str]) -> str:
    """Return the label of a species, or of a class that is none, such as ``other``."""
    if isinstance(pdg, str):
        return pdg
    return symbol(pdg, is_signed([code for code in species if isinstance(code, int)]))


def error_bars(estimates: Sequence[Estimate]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return values, shape (n,), and distances to the bounds, shape (2, n); NaN where undefined.

    A percentile interval can miss the value itself; the distance is then 0.
    """
    nan = float("nan")
    values, low, high = (
        np.array(
            [nan if (number := getattr(estimate, name)) is None else number for estimate in estimates], dtype=float
        )
        for name in ("value", "low", "high")
    )
    return values, np.maximum(np.stack([values - low, high - values]), 0.0)


def shade(axes: Axes, edges: Iterable[float]) -> None:
    """Shade every other bin between edges of momentum or pseudorapidity, the second one first."""
    edges = list(edges)
    for low, high in zip(edges[1::2], edges[2::2], strict=False):
        axes.axvspan(low, high, color="0.95", lw=0, zorder=0)


def plain_log_ticks(axes: Axes) -> None:
    """Mark a logarithmic momentum axis at 0.1, 0.3, 1, … GeV/c, written as plain numbers."""
    axes.xaxis.set_major_locator(FixedLocator([0.1, 0.3, 1.0, 3.0, 10.0, 30.0]))
    axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.xaxis.set_minor_formatter("")
