"""The figure of the calibrated response: dE/dx and velocity with the expected curves."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import matplotlib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pidflow.dataset.response import read_response
from pidflow.files import replacing
from pidflow.physics import SPECIES

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.colors import LogNorm

_COLOURS = ("#E69F00", "#D55E00", "#009E73", "#CC79A7", "#56B4E9")
_MAX_TRACKS = 300_000


def plot_response(tables: Iterable[str | Path], response: str | Path, output: str | Path, *, title: str) -> None:
    """Draw TPC signal and TOF velocity against momentum with the fitted expectations.

    Parameters
    ----------
    tables
        Track tables that the response was fitted to.
    response
        What `pidflow.dataset.response.fit_response` wrote.
    output
        Image; its suffix sets the format.
    title
        Title of the figure.
    """
    paths = list(tables)
    quota = _MAX_TRACKS // len(paths)
    parts = (pq.read_table(path, columns=["p", "tpc_inner_param", "tpc_signal", "beta"]) for path in paths)
    table = pa.concat_tables([part.slice(0, quota) for part in parts])
    columns = {name: table[name].cast(pa.float64()).to_numpy() for name in table.column_names}
    at_wall = columns["tpc_inner_param"]
    momentum = np.where(np.isnan(at_wall), columns["p"], at_wall)
    expected = read_response(response)
    edges = np.geomspace(0.1, 20.0, 200)
    panels = 1 + (expected.tof is not None)
    with plt.rc_context({"font.size": 12}):
        figure, axes = plt.subplots(1, panels, figsize=(6.6 * panels, 5.0), layout="constrained", squeeze=False)
        tpc = axes[0, 0]
        signal = columns["tpc_signal"]
        seen = np.isfinite(signal * momentum)
        top = 8.0 * float(np.nanmedian(signal))
        tpc.hist2d(momentum[seen], signal[seen], bins=(edges, np.linspace(0.0, top, 200)), norm=LogNorm(), cmap="Greys")
        if expected.tpc is not None:
            for species, colour in zip(SPECIES, _COLOURS, strict=True):
                tpc.plot(
                    edges, expected.tpc.signal(edges, species.mass), color=colour, lw=1.6, label=f"${species.symbol}$"
                )
            tpc.set_title(f"TPC, resolution {100 * expected.tpc.resolution:.1f} % at 159 clusters")
        tpc.set(xlabel=r"momentum at the TPC ($\mathrm{GeV}/c$)", ylabel="TPC signal (arb. units)", ylim=(0.0, top))
        if expected.tof is not None:
            tof = axes[0, 1]
            seen = np.isfinite(columns["beta"])
            tof.hist2d(
                columns["p"][seen],
                columns["beta"][seen],
                bins=(edges, np.linspace(0.2, 1.15, 200)),
                norm=LogNorm(),
                cmap="Greys",
            )
            for species, colour in zip(SPECIES, _COLOURS, strict=True):
                tof.plot(
                    edges, edges / np.hypot(edges, species.mass), color=colour, lw=1.6, label=f"${species.symbol}$"
                )
            tof.set(xlabel=r"$p$ ($\mathrm{GeV}/c$)", ylabel=r"TOF $\beta$", ylim=(0.2, 1.15))
            tof.set_title(f"TOF, resolution {expected.tof.resolution:.0f} ps")
        for axis in axes.flat:
            axis.set_xscale("log")
            axis.set_xlim(0.1, 20.0)
            # both corners are empty; looking for the best place takes seconds
            axis.legend(title="expected", ncols=2, loc="upper right" if axis is tpc else "lower right")
        figure.suptitle(title)
        with replacing(output) as temporary:
            figure.savefig(temporary, dpi=110)
        plt.close(figure)
