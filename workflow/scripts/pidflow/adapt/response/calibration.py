"""The whole calibration of a run: fitted to training tracks, applied to simulated tracks of any set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pidflow.adapt.response.cells import Grid, group_of
from pidflow.adapt.response.fit import Sample, Shape, SignalFit, fit_signal
from pidflow.adapt.response.matching import Matching, fit_matching, pattern_of
from pidflow.adapt.response.signals import Columns, Floats, Signal, signals
from pidflow.adapt.response.yields import Yields, fit_yields, likelihoods
from pidflow.adapt.steps.base import Surroundings
from pidflow.dataset.build import n_sigma
from pidflow.dataset.response import Response, read_response
from pidflow.errors import PidflowError
from pidflow.parquet import batches
from pidflow.physics import C_CM_PER_PS
from pidflow.tracks import BY_NAME, WEIGHT

if TYPE_CHECKING:
    from pidflow.adapt.steps.calibrate_response import Settings

_KINEMATICS = ("p", "eta", "phi", "sign", "has_trd", "has_tof", "tpc_n_cls_found")
_MOST = 1_000_000
"""Training tracks of a sample that are looked at."""


def columns_of(table: pa.Table, names: tuple[str, ...]) -> dict[str, Floats]:
    """Return columns as float64 [n], NaN for null."""
    return {name: table[name].cast(pa.float64()).to_numpy() for name in names}


def _read(path: Path, names: tuple[str, ...], more: tuple[str, ...] = ()) -> pa.Table:
    parts, rows = [], 0
    for table in batches(path, [*names, *more, "split"]):
        parts.append(table.filter(pc.field("split") == "train").drop_columns("split"))
        rows += parts[-1].num_rows
        if rows >= _MOST:
            break
    if not rows:
        raise PidflowError(f"{path}: no training track to calibrate the response with; give the run more or larger files")
    table = pa.concat_tables(parts)
    # flags are wanted as numbers
    for name in ("has_trd", "has_tof"):
        table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(pa.int8()))
    return table


def _pdg(table: pa.Table) -> NDArray[np.int64]:
    return np.asarray(pc.fill_null(table["pdg_code"], 0).cast(pa.int64()).to_numpy())


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

    def apply(self, columns: Columns, group: NDArray[np.intp], normal: Floats) -> Floats:
        """Return the signal of simulated tracks of groups [n], given normal numbers [n]; NaN where it was."""
        coordinate = self.signal.coordinate(columns)
        seen = np.isfinite(coordinate)
        own = {name: values[seen] for name, values in columns.items()}
        centre, width = self.shape.of_tracks(own, group[seen], self.signal)
        scale2 = self.fit.scale2_of(own)
        distance = coordinate[seen] - centre
        narrowed = centre + np.sqrt(np.minimum(scale2, 1.0)) * distance
        noise = np.sqrt(np.maximum(scale2 - 1.0, 0.0)) * width * normal[seen]
        found = np.full(len(coordinate), np.nan)
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

    def apply(self, table: pa.Table, random: np.random.Generator) -> pa.Table:
        """Return simulated tracks with data's response, detectors and weights."""
        columns = columns_of(_with_numbers(table), self.columns)
        group = group_of(_pdg(table))
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
        table = _replaced(table, new)
        if "tof_signal" in new:
            table = _with_flight(table, new["tof_signal"], self.event_time)
        table = _replaced(table, n_sigma(table, self.response))
        return _weighted(_hide(table, hidden), weight)


def _with_numbers(table: pa.Table) -> pa.Table:
    for name in ("has_trd", "has_tof"):
        table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(pa.int8()))
    return table


def _replaced(table: pa.Table, new: dict[str, Floats]) -> pa.Table:
    for name, values in new.items():
        column = pa.array(values, from_pandas=True).cast(BY_NAME[name].dtype)
        table = table.set_column(table.schema.get_field_index(name), pa.field(name, column.type), column)
    return table


def _with_flight(table: pa.Table, signal: Floats, event_time: float) -> pa.Table:
    """Return tracks whose event time and velocity agree with a new time."""
    length, before = (table[name].cast(pa.float64()).to_numpy() for name in ("length", "tof_event_time"))
    beta = length / (C_CM_PER_PS * (signal - before))
    return _replaced(
        table, {"beta": beta, "tof_event_time": before + event_time, "tof_signal": signal + event_time}
    )


def _hide(table: pa.Table, hidden: dict[str, NDArray[np.bool_]]) -> pa.Table:
    """Return tracks that lack detectors."""
    for position, name in enumerate(table.column_names):
        column = BY_NAME.get(name)
        if column is None or column.detector not in hidden:
            continue
        mask = pa.array(hidden[column.detector])
        absent = pa.scalar(False) if name.startswith("has_") else pa.scalar(None, column.dtype)
        table = table.set_column(position, name, pc.if_else(mask, absent, table[name]))
    return table


def _weighted(table: pa.Table, weight: Floats) -> pa.Table:
    if WEIGHT.name in table.column_names:
        weight = weight * table[WEIGHT.name].to_numpy()
        table = table.drop_columns(WEIGHT.name)
    return table.append_column(WEIGHT.name, pa.array(weight, WEIGHT.dtype))


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
    simulated, measured = _read(simulation, names, ("pdg_code",)), _read(data, names)
    sim, real, group = columns_of(simulated, names), columns_of(measured, names), group_of(_pdg(simulated))
    maps, compared = [], []
    for signal in candidates:
        seen = np.isfinite(signal.coordinate(sim))
        parts = Sample.of(sim, signal), Sample.of(real, signal)
        if not len(parts[1]):
            continue
        grid = Grid.of(parts[1].columns, settings.p_bins, settings.eta_bins)
        found = fit_signal(signal, grid, *parts, group[seen])
        if found is None:
            continue
        fit, comparison, _ = found
        maps.append(SignalMap(signal, fit, comparison.shape))
        compared.append((comparison, np.concatenate([fit.offset, fit.scale])))
        print(f"run {surroundings.run}: {_line(fit, signal)}", flush=True)
    if not maps:
        raise PidflowError(f"{data}: no detector signal has enough tracks in data and in simulation to be calibrated")
    yields = None
    weight = np.ones(len(group))
    grid = Grid.of(real, settings.p_bins, settings.eta_bins)
    if settings.yields:
        yields = fit_yields(likelihoods(compared, real), real, sim, group, grid)
        weight = yields.weight(sim, group)
    random = np.random.default_rng([surroundings.seed, surroundings.run])
    matching = fit_matching(sim, weight, real, grid, surroundings.masks, random) if settings.matching else None
    return Calibration(tuple(maps), yields, matching, _event_time(sim, real), response)


def _event_time(simulation: Columns, data: Columns) -> float:
    """Return the difference of the samples' mean event times, ps; 0 without TOF."""
    times = [columns["tof_event_time"][np.isfinite(columns["tof_event_time"])] for columns in (data, simulation)]
    return float(times[0].mean() - times[1].mean()) if min(map(len, times)) else 0.0


def _line(fit: SignalFit, signal: Signal) -> str:
    unit = f" {signal.unit}" if signal.unit else ""
    errors = np.sqrt(np.diag(fit.covariance))
    return (
        f"{fit.name}: offset {fit.offset[0]:+.4g} ± {errors[0]:.2g}{unit}, "
        f"squared resolution scale {1 + fit.scale[0]:.3f} ± {errors[len(fit.offset)]:.2g}"
    )
