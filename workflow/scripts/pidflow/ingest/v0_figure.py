"""The figure of the V0 samples: mass spectra with their backgrounds, and the Armenteros–Podolanski plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mplhep
import numpy as np
from hist import Hist, axis
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import SubFigure
from matplotlib.ticker import MaxNLocator

from pidflow.config.v0 import V0Cuts
from pidflow.evaluate.figures.style import COLOURS, drawing
from pidflow.ingest.tag_and_probe import Spectrum, read_spectra
from pidflow.ingest.v0_finder import MASS_RANGE
from pidflow.physics import species_of

_BINS = 72
_QT_MAX = 0.25


@dataclass(frozen=True)
class V0Sample:
    """What one part of the figure shows.

    Attributes
    ----------
    name
        Name of the sample.
    tables
        Parquet files of the V0 schema.
    summary
        What `pidflow.ingest.tag_and_probe.summarise` made of them.
    """

    name: str
    tables: Sequence[str | Path]
    summary: Mapping[str, Any]


def plot_v0s(samples: Sequence[V0Sample], output: str | Path, *, cuts: V0Cuts, title: str) -> None:
    """Draw the mass spectrum of each kind with its windows, and the kinematics of all in the signal windows.

    Parameters
    ----------
    samples
        One below the other.
    output
        Image file.
    cuts
        The cuts that the tables were made with.
    title
        Title of the figure.
    """
    with drawing(output, 13.5, 0.4 + 8.0 * len(samples), title) as figure:
        parts = figure.subfigures(len(samples), 1, squeeze=False)[:, 0]
        for part, sample in zip(parts, samples, strict=True):
            _draw_sample(part, sample, cuts)


def _draw_sample(part: SubFigure, sample: V0Sample, cuts: V0Cuts) -> None:
    part.suptitle(sample.name)
    spectra = read_spectra(sample.tables)
    grid = part.add_gridspec(2, 3)
    for i, spectrum in enumerate(spectra):
        _draw_mass(part.add_subplot(grid[divmod(i, 3)]), spectrum, sample.summary["kinds"][spectrum.kind.key], cuts)
    _draw_armenteros(part.add_subplot(grid[1, 1:]), spectra)


def _draw_mass(axes: Axes, spectrum: Spectrum, numbers: Mapping[str, Any], cuts: V0Cuts) -> None:
    kind, windows = spectrum.kind, cuts.windows(spectrum.kind.key)
    reach = MASS_RANGE * windows.sideband_to
    lowest = kind.mass - reach if kind.mass > 0 else 0.0
    histogram: Hist[Any] = Hist(axis.Regular(_BINS, lowest, kind.mass + reach)).fill(spectrum.mass)
    sides = (-1, 1) if kind.mass > 0 else (1,)
    inner = kind.mass - windows.signal if kind.mass > 0 else 0.0
    axes.axvspan(inner, kind.mass + windows.signal, color=COLOURS[5], alpha=0.3, lw=0, label="signal window")
    for side in sides:
        edges = sorted(kind.mass + side * edge for edge in (windows.sideband_from, windows.sideband_to))
        axes.axvspan(*edges, color=COLOURS[4], alpha=0.25, lw=0, label="sidebands" if side == 1 else None)
    mplhep.histplot(histogram, ax=axes, color="black", lw=1.2, yerr=False, flow="none")
    width = (kind.mass + reach - lowest) / _BINS
    level = numbers["background"]["value"] / (kind.mass + windows.signal - inner) * width
    axes.hlines(level, lowest, kind.mass + reach, color=COLOURS[1], ls="--", label="background")
    top = max(float(histogram.values().max()), 1.0)
    # linear below one candidate per bin, so that empty bins and small backgrounds are seen
    axes.set_yscale("symlog", linthresh=1.0, linscale=0.5)
    axes.set(xlim=(lowest, kind.mass + reach), ylim=(0.0, 30.0 * top), title=kind.symbol)
    axes.set_xlabel(r"$\mathit{m}$ (GeV/$\mathit{c}^{2}$)")
    axes.set_ylabel(f"Candidates per {1e3 * width:.2g} MeV/$\\mathit{{c}}^{{2}}$")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.text(0.04, 0.96, _text(numbers), transform=axes.transAxes, va="top", fontsize=11)
    axes.legend(loc="upper right", fontsize=10)


def _text(numbers: Mapping[str, Any]) -> str:
    lines = [f"{numbers['signal']:,} candidates"]
    if purity := numbers["purity"]:
        up, down = purity["high"] - purity["value"], purity["value"] - purity["low"]
        lines.append(f"purity ${purity['value']:.3f}^{{+{up:.3f}}}_{{-{down:.3f}}}$")
    if peak := numbers["peak"]:
        lines.append(f"width {1e3 * peak['width']:.2f} MeV/$\\mathit{{c}}^{{2}}$")
    return "\n".join(lines)


def _draw_armenteros(axes: Axes, spectra: list[Spectrum]) -> None:
    histogram: Hist[Any] = Hist(axis.Regular(160, -1.0, 1.0), axis.Regular(100, 0.0, _QT_MAX))
    for spectrum in spectra:
        histogram.fill(spectrum.alpha[spectrum.signal], spectrum.qt[spectrum.signal])
    norm = LogNorm(1.0, max(float(histogram.values().max()), 10.0))
    mesh = mplhep.hist2dplot(histogram, ax=axes, norm=norm, cmap="viridis", cbar=False, flow="none")[0]
    mesh.set_rasterized(True)
    for spectrum, colour in zip(spectra, COLOURS, strict=False):
        if spectrum.kind.mass > 0:
            axes.plot(*_ellipse(spectrum), color=colour, lw=1.0, ls="--", label=spectrum.kind.symbol)
    axes.set(xlabel=r"$\alpha$", ylabel=r"$\mathit{q}_{\mathrm{T}}$ (GeV/$\mathit{c}$)", ylim=(0.0, _QT_MAX))
    axes.set_title("Armenteros–Podolanski, signal windows")
    axes.legend(loc="upper right", fontsize=10, ncols=3)
    axes.figure.colorbar(mesh, ax=axes, label="Candidates per bin", pad=0.01)


def _ellipse(spectrum: Spectrum) -> tuple[Any, Any]:
    """Return α and q_T of a fast decay by the angle of its legs in the rest frame."""
    kind = spectrum.kind
    m1, m2 = species_of(kind.positive).mass, species_of(kind.negative).mass
    total = kind.mass**2
    star = np.sqrt((total - (m1 + m2) ** 2) * (total - (m1 - m2) ** 2)) / (2.0 * kind.mass)
    angle = np.linspace(0.0, np.pi, 200)
    return (m1**2 - m2**2) / total + 2.0 * star / kind.mass * np.cos(angle), star * np.sin(angle)
