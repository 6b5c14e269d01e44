"""Figures of a response calibration: what was fitted to each signal, and the composition of the sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, MaxNLocator

from pidflow.adapt.response.signals import Floats
from pidflow.adapt.response.smooth import design
from pidflow.evaluate.figures.style import COLOURS, LINES, MARKERS, drawing, plain_log_ticks, shade
from pidflow.files import read_json
from pidflow.tracks import DETECTOR_PATTERNS

P_LABEL = r"$\mathit{p}$ (GeV/$\mathit{c}$)"
ETA_LABEL = r"$\mathit{\eta}$"
PHI_LABEL = r"$\mathit{\varphi}$ (rad)"

_SPECIES = {
    "e": r"$\mathrm{e}$",
    "pi": r"$\mathrm{\pi}$, $\mathrm{\mu}$",
    "K": r"$\mathrm{K}$",
    "p": r"$\mathrm{p}$",
}
_CHARGES = (("negative", 0.45), ("positive", 0.55))
"""Charges, and where their points stand in a bin."""

_LEGEND = ("each bin apart", "smooth function", "its uncertainty", "simulation as it is")

_HIGHEST_P = 10.0
"""End of the momentum axis, GeV/c; few tracks lie beyond."""

_CURVE = 200
"""Points of a curve."""


@dataclass(frozen=True)
class _Quantity:
    """Offset or resolution scale of a signal in bins of one variable, in the units of the figure.

    Attributes
    ----------
    edges, place
        Edges of the bins, [n + 1], and mean of the variable in each, [n].
    value, error
        Fitted in each bin apart, [n]; NaN where undefined.
    pull
        Distance from the smooth function over the error, [n].
    curve
        Variable, smooth function, and its lower and upper bound, [4, N].
    """

    edges: Floats
    place: Floats
    value: Floats
    error: Floats
    pull: Floats
    curve: Floats


def plot_calibration(report: str | Path, output: str | Path, *, title: str) -> None:
    """Draw offset and resolution scale of each calibrated signal against momentum and pseudorapidity.

    A signal has a row, in which points are fitted in each bin apart, and the line with its band is the smooth
    function that simulated tracks are changed by. Below stand the pulls of the points from it.

    Parameters
    ----------
    report
        What `pidflow.adapt.sample.adapt_sample` wrote of a response calibration.
    output
        Image file.
    title
        Title of the figure.
    """
    found = read_json(report)["signals"]
    with drawing(output, 15.0, 1.3 + 3.5 * len(found), title) as figure:
        grid = figure.subplots(2 * len(found), 4, sharex="col", squeeze=False, height_ratios=[3.0, 1.0] * len(found))
        for i, (signal, colour, marker) in enumerate(zip(found, _cycle(COLOURS), _cycle(MARKERS), strict=False)):
            for j, name in enumerate(("offset", "scale2")):
                rows = grid[2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
                _draw_signal(rows, signal, name, colour, marker)
            tracks = signal["tracks"]
            grid[2 * i, 0].set_title(signal["signal"], loc="left", fontweight="bold")
            grid[2 * i, 3].set_title(
                f"tracks: {tracks['data']} of data, {tracks['simulation']} simulated", loc="right", fontsize=12
            )
        p_range, eta_range = (_range(found, variable) for variable in ("p", "eta"))
        for axes in grid[:, ::2].flat:
            _against_p(axes, p_range)
            axes.set_xlabel("")
        for axes in grid[:, 1::2].flat:
            axes.set_xlim(*eta_range)
        for axes, label in zip(grid[-1], (P_LABEL, ETA_LABEL) * 2, strict=True):
            axes.set_xlabel(label)
        entries = dict(zip(*grid[0, 0].get_legend_handles_labels()[::-1], strict=True))
        order = [name for name in _LEGEND if name in entries]
        figure.legend([entries[name] for name in order], order, loc="outside lower center", ncols=len(_LEGEND))


def plot_composition(report: str | Path, output: str | Path, *, title: str) -> None:
    """Draw the yields of data relative to simulation, and how simulated tracks lose detectors.

    Parameters
    ----------
    report
        What `pidflow.adapt.sample.adapt_sample` wrote of a response calibration.
    output
        Image file.
    title
        Title of the figure.
    """
    content = read_json(report)
    yields, matching = content["yields"], content["matching"]
    bands = 2 * (yields is not None) + (matching is not None)
    p_range, eta_range = (_range(content["signals"], variable) for variable in ("p", "eta"))
    with drawing(output, 13.5, 1.2 + 3.6 * max(bands, 1), title) as figure:
        grid = figure.subplots(max(bands, 1), 3, squeeze=False)
        if not bands:
            for axes in grid.flat:
                axes.set_axis_off()
            grid[0, 1].text(0.5, 0.5, "neither yields nor matching were fitted", ha="center")
        if yields is not None:
            _draw_yields(list(grid[:2].flat), yields, p_range, eta_range)
            if matching is None:
                grid[1, 2].set_axis_off()
            else:
                _draw_weights(grid[1, 2], matching, p_range)
        if matching is not None:
            _draw_matching(grid[-1], matching, p_range, eta_range)


def _cycle(values: Sequence[str]) -> list[str]:
    return [value for _ in range(10) for value in values]


def _draw_signal(rows: Any, signal: Mapping[str, Any], name: str, colour: str, marker: str) -> None:
    reference = 0.0 if name == "offset" else 1.0
    ends = [reference]
    pulls = [3.0]
    for (axes, below), variable in zip(rows.T, ("p", "eta"), strict=True):
        own = _quantity(signal, name, variable)
        if own is None:
            continue
        for part in (axes, below):
            shade(part, own.edges)
        x, middle, low, high = own.curve
        axes.axhline(reference, color="0.4", lw=1.0, ls="--", zorder=1, label=_LEGEND[3])
        axes.fill_between(x, low, high, color="0.55", alpha=0.45, lw=0, zorder=2, label=_LEGEND[2])
        axes.plot(x, middle, color="0.15", lw=1.4, zorder=3, label=_LEGEND[1])
        style: dict[str, Any] = {"color": colour, "marker": marker, "ls": ""}
        axes.errorbar(own.place, own.value, own.error, elinewidth=1.2, zorder=4, label=_LEGEND[0], **style)
        below.axhspan(-1.0, 1.0, color="0.8", lw=0, zorder=1)
        below.axhline(0.0, color="0.15", lw=1.0, zorder=2)
        below.plot(own.place, own.pull, zorder=4, **style)
        seen = np.isfinite(own.value)
        ends += [*(own.value - own.error)[seen], *(own.value + own.error)[seen], *low, *high]
        pulls += list(np.abs(own.pull))
    margin = 0.08 * (max(ends) - min(ends))
    for axes, below in rows.T:
        axes.set_ylim(min(ends) - margin, max(ends) + margin)
        axes.yaxis.set_major_locator(MaxNLocator(6))
        below.set_ylim(-1.2 * max(pulls), 1.2 * max(pulls))
        below.yaxis.set_major_locator(MaxNLocator(3, symmetric=True))
    for part in rows[:, 1]:
        part.tick_params(labelleft=False)
    rows[0, 0].set_ylabel(label_of(signal, name))
    rows[1, 0].set_ylabel("Pull")


def _logarithmic(signal: Mapping[str, Any]) -> bool:
    """Return whether a signal's offset is the logarithm of a gain; a report that does not tell has times of the TOF."""
    return bool(signal.get("logarithmic", signal["signal"] != "TOF"))


def label_of(signal: Mapping[str, Any], name: str) -> str:
    """Return the label of the axis of a signal's offset or of its resolution scale."""
    if name == "scale2":
        return "Resolution scale"
    if _logarithmic(signal):
        return r"Gain $-$ 1 (%)"
    unit = signal.get("unit", "ps")
    return f"Offset ({unit})" if unit else "Offset"


def _quantity(signal: Mapping[str, Any], name: str, variable: str) -> _Quantity | None:
    """Return what was found of a signal against a variable; None without a bin."""
    points = [point for point in signal["points"] if point["variable"] == variable]
    if not points:
        return None

    def column(key: str) -> Floats:
        return np.array([point[key] for point in points], dtype=float)

    place, value, error = column("mean"), column(name), column(f"{name}_error")
    smooth = column(f"{name}_smooth")
    low, high = column("low"), column("high")
    edges = np.concatenate([low[:1], 0.5 * (high[:-1] + low[1:]), high[-1:]])
    x = np.geomspace(edges[0], edges[-1], _CURVE) if variable == "p" else np.linspace(edges[0], edges[-1], _CURVE)
    middle, spread = _smooth(signal, name, variable, x)
    # tracks of a bin differ in the other variables, too: the line is led through the bins' own values
    middle = middle + np.interp(x, place, smooth - _smooth(signal, name, variable, place)[0])
    shown = [_shown(signal, name, each) for each in (value, middle, middle - spread, middle + spread)]
    slope = 0.5 * (_shown(signal, name, value + error) - _shown(signal, name, value - error))
    return _Quantity(edges, place, shown[0], slope, (value - smooth) / error, np.stack([x, *shown[1:]]))


def _shown(signal: Mapping[str, Any], name: str, values: Floats) -> Floats:
    """Return values of the fit in the units of the figure."""
    if name == "scale2":
        return np.sqrt(np.maximum(values, 0.0))
    return np.asarray(100.0 * np.expm1(values)) if _logarithmic(signal) else values


def _smooth(signal: Mapping[str, Any], name: str, variable: str, x: Floats) -> tuple[Floats, Floats]:
    """Return the smooth function and its error at places [n], averaged over the bins of the other variable."""
    means = {
        other: np.array([point["mean"] for point in signal["points"] if point["variable"] == other])
        for other in ("p", "eta")
    }
    other = "eta" if variable == "p" else "p"
    offset = name == "offset"
    terms, coefficients = (
        (signal["terms"], signal["offset"]) if offset else (signal["scale_terms"], signal["scale2_minus_1"])
    )
    count = len(signal["terms"])
    own = slice(0, count) if offset else slice(count, None)
    covariance = np.array(signal["covariance"])[own, own]
    pairs = {variable: np.repeat(x, len(means[other])), other: np.tile(means[other], len(x))}
    pairs["tpc_n_cls_found"] = np.full(len(pairs["p"]), np.nan)
    functions = design(pairs, terms).reshape(len(x), -1, len(terms)).mean(axis=1)
    error = np.sqrt(np.einsum("nt,tu,nu->n", functions, covariance, functions))
    return (0.0 if offset else 1.0) + functions @ np.array(coefficients), error


def _range(signals: Sequence[Mapping[str, Any]], variable: str) -> tuple[float, float]:
    """Return the range of a variable over all calibrated signals."""
    points = [point for signal in signals for point in signal["points"] if point["variable"] == variable]
    highest = max(point["high"] for point in points)
    return min(point["low"] for point in points), min(highest, _HIGHEST_P) if variable == "p" else highest


def _edges(inner: Sequence[float], outer: tuple[float, float]) -> Floats:
    """Return inner edges with the outer ones."""
    return np.array([min([outer[0], *inner]), *inner, max([outer[1], *inner])])


def _against_p(axes: Axes, p_range: tuple[float, float]) -> None:
    axes.set(xscale="log", xlim=p_range, xlabel=P_LABEL)
    plain_log_ticks(axes)


def _draw_yields(
    grid: Sequence[Axes], yields: Mapping[str, Any], p_range: tuple[float, float], eta_range: tuple[float, float]
) -> None:
    """Draw the species in the first panels and the shape in pseudorapidity in the next."""
    p, ratio, error, smooth = (np.array(yields[key], dtype=float) for key in ("p", "ratio", "error", "smooth"))
    x = np.geomspace(*p_range, _CURVE)
    for axes, (group, label) in zip(grid, _SPECIES.items(), strict=False):
        g = yields["groups"].index(group)
        ends = [0.9, 1.1]
        for j, (charge, share) in enumerate(_CHARGES):
            value, bar, colour = ratio[j, :, g], error[j, :, g], COLOURS[j]
            applied = np.exp(np.interp(np.log(x), np.log(p), np.log(smooth[j, :, g])))
            axes.plot(x, applied, color=colour, lw=1.2, alpha=0.8, ls=LINES[j], zorder=2)
            style: dict[str, Any] = {"color": colour, "marker": MARKERS[j], "ls": "", "elinewidth": 1.1}
            axes.errorbar(p * (0.9 + 0.2 * share), value, bar, zorder=3, label=charge, **style)
            shown = np.minimum(bar, 0.3)
            ends += [*np.minimum(value - shown, 3.0), *np.minimum(value + shown, 3.0), *smooth[j, :, g]]
        margin = 0.06 * (max(ends) - min(ends))
        axes.axhline(1.0, color="0.4", lw=1.0, ls="--", zorder=1)
        axes.set(ylim=(max(min(ends) - margin, 0.0), max(ends) + margin * (5 if axes is grid[0] else 1)), title=label)
        axes.set_ylabel("Yield, data / simulation")
        _against_p(axes, p_range)
    grid[1].legend(loc="lower left")
    axes = grid[len(_SPECIES)]
    axes.stairs(yields["eta_factor"], _edges(yields["eta_edges"], eta_range), baseline=None, color="0.15", lw=1.6)
    axes.axhline(1.0, color="0.4", lw=1.0, ls="--", zorder=1)
    most = max(0.1, *(1.25 * abs(value - 1.0) for value in yields["eta_factor"]))
    axes.set(title="all species", xlabel=ETA_LABEL, ylabel="Further factor", xlim=eta_range)
    axes.set_ylim(max(1.0 - most, 0.0), 1.0 + most)


def _draw_weights(axes: Axes, matching: Mapping[str, Any], p_range: tuple[float, float]) -> None:
    edges = _edges(matching["p_edges"], p_range)
    weight = np.array(matching["pattern_weight"], dtype=float)
    for i, (pattern, values) in enumerate(zip(DETECTOR_PATTERNS, weight.T, strict=True)):
        axes.stairs(values, edges, baseline=None, color=COLOURS[i], ls=LINES[i], lw=1.6, label=pattern)
    axes.axhline(1.0, color="0.4", lw=1.0, ls="--", zorder=1)
    high = max(1.1, float(weight.max()))
    low = min(0.9, float(weight.min()))
    # the legend stands in the upper part
    axes.set(title="detectors", ylabel="Weight left", ylim=(low - 0.1 * (high - low), high + 0.5 * (high - low)))
    _against_p(axes, p_range)
    axes.legend(loc="upper left", ncols=2)


def _draw_matching(
    grid: Sequence[Axes], matching: Mapping[str, Any], p_range: tuple[float, float], eta_range: tuple[float, float]
) -> None:
    """Draw the factors of each rate; the rates themselves stand in the legend."""
    rates = matching["rates"]
    sectors = len(rates[0]["factor_phi"]) if rates else 1
    places = (
        ("p", _edges(matching["p_edges"], p_range), P_LABEL),
        ("eta", _edges(matching["eta_edges"], eta_range), ETA_LABEL),
        ("phi", np.linspace(0.0, 2.0 * np.pi, sectors + 1), PHI_LABEL),
    )
    top = max([1.1, *(value for rate in rates for name, *_ in places for value in rate[f"factor_{name}"])])
    for axes, (name, edges, label) in zip(grid, places, strict=True):
        for i, rate in enumerate(rates):
            text = (
                f"{rate['detector'].upper()}{'' if rate['among'] == 'all' else ' ' + rate['among']}: "
                f"{100 * rate['rate_data']:.1f} % in data, {100 * rate['rate_simulation']:.1f} % in simulation"
            )
            style: dict[str, Any] = {"color": COLOURS[i], "ls": LINES[i], "lw": 1.6, "label": text}
            axes.stairs(rate[f"factor_{name}"], edges, baseline=None, **style)
        axes.axhline(1.0, color="0.4", lw=1.0, ls="--", zorder=1)
        axes.set(xlabel=label, xlim=(edges[0], edges[-1]), ylim=(0.0, 1.08 * top))
    grid[0].set_ylabel("Matching factor")
    _against_p(grid[0], p_range)
    grid[2].xaxis.set_major_locator(FixedLocator([0, 1, 2, 3, 4, 5, 6]))
    handles, labels = grid[0].get_legend_handles_labels()
    if labels:
        grid[0].figure.legend(
            handles, labels, loc="outside lower center", ncols=1, title="Tracks with the detector before"
        )
