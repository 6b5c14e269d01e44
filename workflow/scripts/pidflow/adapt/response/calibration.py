"""The whole calibration of a run: fitted to training tracks, applied to simulated tracks of any set."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pidflow.adapt.response.cells import Grid, group_of
from pidflow.adapt.response.comparison import Comparison
from pidflow.adapt.response.fit import SignalFit, fit_signal
from pidflow.adapt.response.matching import Matching, fit_matching, pattern_of
from pidflow.adapt.response.shape import Sample, Shape
from pidflow.adapt.response.signals import Columns, Floats, Signal, signals
from pidflow.adapt.response.yields import Yields, fit_yields, likelihoods
from pidflow.adapt.steps.base import Surroundings
from pidflow.adapt.tables import (
    columns_of,
    event_time_offset,
    hide,
    pdg_of,
    read_training,
    weighted,
    with_numbers,
    with_signals,
)
from pidflow.dataset.response import Response, read_response
from pidflow.errors import PidflowError

if TYPE_CHECKING:
    from pidflow.adapt.steps.calibrate_response import Settings

_ROUNDS = 3
_BEST_YIELD = 0.02
"""Relative error that yields have at least where they are taken for known."""

_KINEMATICS = ("p", "eta", "phi", "sign", "has_trd", "has_tof", "tpc_n_cls_found")


@dataclass(frozen=True)
class SignalMap:
    """How one signal of simulated tracks becomes that of data.

    Attributes
    ----------
    signal, fit, shape
        The signal, what was fitted, and where and how wide the simulated species are.
    """

    signal: Signal
    fit: SignalFit
    shape: Shape

    def varied(self, random: np.random.Generator) -> SignalMap:
        """Return a map whose coefficients are drawn within their errors."""
        return replace(self, fit=self.fit.varied(random))

    def apply(self, columns: Columns, group: NDArray[np.intp], normal: Floats) -> Floats:
        """Return the signal of simulated tracks of groups [n], given normal numbers [n].

        A signal that has no coordinate stays as it is.
        """
        coordinate = self.signal.coordinate(columns)
        seen = np.isfinite(coordinate)
        own = {name: values[seen] for name, values in columns.items()}
        centre, width = self.shape.of_tracks(own, group[seen], self.signal)
        scale2 = self.fit.scale2_of(own)
        distance = coordinate[seen] - centre
        narrowed = centre + np.sqrt(np.minimum(scale2, 1.0)) * distance
        noise = np.sqrt(np.maximum(scale2 - 1.0, 0.0)) * width * normal[seen]
        found = columns[self.signal.column].copy()
        found[seen] = self.signal.signal(narrowed + self.signal.moved(self.fit.offset_of(own), noise), own)
        return found


@dataclass(frozen=True)
class Calibration:
    """A run's calibration.

    Attributes
    ----------
    maps
        One for each signal that both samples have.
    yields, matching
        None if not asked for.
    event_time
        How much later the event time is in data, ps.
    response
        Response fitted to the simulation, from which nσ follows in both samples.
    """

    maps: tuple[SignalMap, ...]
    yields: Yields | None
    matching: Matching | None
    event_time: float
    response: Response

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that it reads."""
        wanted = (*_KINEMATICS, *(name for each in self.maps for name in each.signal.columns))
        return tuple(dict.fromkeys(wanted))

    def plain(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "signals": [each.fit.plain() for each in self.maps],
            "event_time_offset_ps": self.event_time,
            "yields": None if self.yields is None else self.yields.plain(),
            "matching": None if self.matching is None else self.matching.plain(),
        }

    def varied(self, random: np.random.Generator) -> Calibration:
        """Return a calibration whose response and yields are drawn within their errors."""
        yields = None if self.yields is None else self.yields.varied(random)
        return replace(self, maps=tuple(each.varied(random) for each in self.maps), yields=yields)

    def apply(self, table: pa.Table, random: np.random.Generator) -> pa.Table:
        """Return simulated tracks with data's response, detectors and weights."""
        columns = columns_of(with_numbers(table), self.columns)
        group = group_of(pdg_of(table))
        normal = random.normal(size=(len(self.maps), table.num_rows))
        new: dict[str, Floats] = {}
        for each, numbers in zip(self.maps, normal, strict=True):
            new[each.signal.column] = each.apply(columns, group, numbers)
        weight = np.ones(table.num_rows)
        if self.yields is not None:
            weight = self.yields.weight(columns, group)
        hidden = {"trd": np.zeros(table.num_rows, bool), "tof": np.zeros(table.num_rows, bool)}
        if self.matching is not None:
            trd, tof = self.matching.masked(columns, random)
            hidden = {"trd": (columns["has_trd"] > 0) & ~trd, "tof": (columns["has_tof"] > 0) & ~tof}
            pattern = pattern_of(trd, tof)
            weight = weight * self.matching.weight[self.matching.bins.grid.p_bin(columns), pattern]
        table = with_signals(table, new, self.event_time, self.response)
        return weighted(hide(table, hidden), weight)


def fit_calibration(simulation: Path, data: Path, surroundings: Surroundings, settings: Settings) -> Calibration:
    """Fit a run's calibration.

    Parameters
    ----------
    simulation, data
        Datasets of the run; training tracks are used, and of data no truth.
    surroundings
        Masks, response, seed.
    settings
        Bins, and what is calibrated.

    Raises
    ------
    PidflowError
        If a sample has no training track, or both share no signal.
    """
    response = read_response(surroundings.response)
    candidates = signals(response)
    names = tuple(dict.fromkeys((*_KINEMATICS, *(name for each in candidates for name in each.columns))))
    simulated, measured = read_training(simulation, names, ("pdg_code",)), read_training(data, names)
    sim, real, group = columns_of(simulated, names), columns_of(measured, names), group_of(pdg_of(simulated))
    grid = Grid.of(real, settings.p_bins, settings.eta_bins)
    fitted: list[tuple[SignalFit, Comparison]] = []
    yields: Yields | None = None
    matching: Matching | None = None
    random = np.random.default_rng([surroundings.seed, surroundings.run])
    matched = sim
    # with all signals together yields are known better than from any alone, and then the signals too
    for _ in range(_ROUNDS):
        ratio = None if yields is None else yields.smooth
        known_to = None if yields is None else np.maximum(yields.smooth_error / yields.smooth, _BEST_YIELD)
        fitted = []
        for signal in candidates:
            seen = np.isfinite(signal.coordinate(sim))
            parts = Sample.of(sim, signal), Sample.of(real, signal)
            found = fit_signal(signal, grid, *parts, group[seen], ratio, known_to)
            if found is not None:
                fitted.append(found)
        if not fitted:
            raise PidflowError(
                f"{data}: no detector signal has enough tracks in data and in simulation to be calibrated"
            )
        identifying = [(comparison, fit.coefficients) for fit, comparison in fitted if comparison.signal.identifies]
        yields = fit_yields(likelihoods(identifying, real), real, matched, group, grid)
        weight = yields.weight(sim, group) if settings.yields else np.ones(len(group))
        if settings.matching:
            matching = fit_matching(sim, weight, real, grid, surroundings.masks, random)
            trd, tof = matching.masked(sim, random)
            matched = {**sim, "has_trd": trd.astype(float), "has_tof": tof.astype(float)}
    assert yields is not None
    for fit, comparison in fitted:
        print(f"run {surroundings.run}: {_line(fit, comparison.signal)}", flush=True)
    maps = tuple(SignalMap(comparison.signal, fit, comparison.shape) for fit, comparison in fitted)
    return Calibration(maps, yields if settings.yields else None, matching, event_time_offset(sim, real), response)


def _line(fit: SignalFit, signal: Signal) -> str:
    unit = f" {signal.unit}" if signal.unit else ""
    errors = np.sqrt(np.diag(fit.covariance))
    return (
        f"{fit.name}: offset {fit.offset[0]:+.4g} ± {errors[0]:.2g}{unit}, "
        f"squared resolution scale {1 + fit.scale[0]:.3f} ± {errors[len(fit.offset)]:.2g}"
    )
