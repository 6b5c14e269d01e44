"""Datasets as sample steps read and change them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pidflow.adapt.response.signals import Columns, Floats
from pidflow.dataset.build import n_sigma
from pidflow.dataset.response import Response
from pidflow.errors import PidflowError
from pidflow.parquet import batches
from pidflow.physics import C_CM_PER_PS
from pidflow.tracks import BY_NAME, WEIGHT

_MOST = 1_000_000
"""Training tracks of a sample that are looked at."""


def read_training(path: Path, names: tuple[str, ...], more: tuple[str, ...] = ()) -> pa.Table:
    """Return columns of training tracks, of which flags are numbers, with the weight if there is one.

    Raises
    ------
    PidflowError
        If there is no training track.
    """
    weight = tuple({WEIGHT.name} & set(pq.read_schema(path).names))
    parts, rows = [], 0
    for table in batches(path, [*names, *more, *weight, "split"]):
        parts.append(table.filter(pc.field("split") == "train").drop_columns("split"))
        rows += parts[-1].num_rows
        if rows >= _MOST:
            break
    if not rows:
        raise PidflowError(f"{path}: no training track to adapt the simulation with; give the run more or larger files")
    return with_numbers(pa.concat_tables(parts))


def with_numbers(table: pa.Table) -> pa.Table:
    """Return tracks whose flags are numbers."""
    for name in ("has_trd", "has_tof"):
        if name in table.column_names:
            table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(pa.int8()))
    return table


def columns_of(table: pa.Table, names: tuple[str, ...]) -> dict[str, Floats]:
    """Return columns as float64 [n], NaN for null."""
    return {name: table[name].cast(pa.float64()).to_numpy() for name in names}


def pdg_of(table: pa.Table) -> NDArray[np.int64]:
    """Return the PDG codes of simulated tracks, [n]; 0 for an unknown particle."""
    return np.asarray(pc.fill_null(table["pdg_code"], 0).cast(pa.int64()).to_numpy())


def weight_of(table: pa.Table) -> Floats:
    """Return how much each track counts, [n]; 1 in a sample without weights."""
    if WEIGHT.name not in table.column_names:
        return np.ones(table.num_rows)
    return np.asarray(table[WEIGHT.name].to_numpy(), np.float64)


def event_time_offset(simulation: Columns, data: Columns) -> float:
    """Return the difference of the samples' mean event times, ps; 0 without TOF."""
    times = [columns["tof_event_time"][np.isfinite(columns["tof_event_time"])] for columns in (data, simulation)]
    return float(times[0].mean() - times[1].mean()) if min(map(len, times)) else 0.0


def replaced(table: pa.Table, new: Mapping[str, Floats]) -> pa.Table:
    """Return tracks with new values [n] of columns, NaN for null."""
    for name, values in new.items():
        column = pa.array(values, from_pandas=True).cast(BY_NAME[name].dtype)
        table = table.set_column(table.schema.get_field_index(name), pa.field(name, column.type), column)
    return table


def with_flight(table: pa.Table, signal: Floats, event_time: float) -> pa.Table:
    """Return tracks whose event time and velocity agree with a new time.

    Parameters
    ----------
    table
        Tracks with the event time that they had.
    signal
        Time at the TOF, ps, [n], on the clock of that event time.
    event_time
        How much later both are to be, ps.
    """
    length, before = (table[name].cast(pa.float64()).to_numpy() for name in ("length", "tof_event_time"))
    beta = length / (C_CM_PER_PS * (signal - before))
    return replaced(table, {"beta": beta, "tof_event_time": before + event_time, "tof_signal": signal + event_time})


def with_signals(table: pa.Table, new: Mapping[str, Floats], event_time: float, response: Response) -> pa.Table:
    """Return tracks with new signals and all that follows from them: velocity, event time, nσ.

    An nσ whose signal a mask hides stays as it was.

    Parameters
    ----------
    table
        Tracks.
    new
        Signals [n] by column, NaN for null.
    event_time
        How much later the event time is to be, ps.
    response
        Response from which nσ follows.
    """
    table = replaced(table, new)
    if "tof_signal" in new:
        table = with_flight(table, new["tof_signal"], event_time)
    sigmas = n_sigma(table, response)
    before = columns_of(table, tuple(sigmas))
    return replaced(table, {name: np.where(np.isnan(now), before[name], now) for name, now in sigmas.items()})


def hide(table: pa.Table, hidden: Mapping[str, NDArray[np.bool_]]) -> pa.Table:
    """Return tracks that lack detectors, where told so [n] by detector."""
    for position, name in enumerate(table.column_names):
        column = BY_NAME.get(name)
        if column is None or column.detector not in hidden:
            continue
        mask = pa.array(hidden[column.detector])
        absent = pa.scalar(False) if name.startswith("has_") else pa.scalar(None, column.dtype)
        table = table.set_column(position, name, pc.if_else(mask, absent, table[name]))
    return table


def weighted(table: pa.Table, weight: Floats) -> pa.Table:
    """Return tracks with weights [n], multiplied into those that they have."""
    if WEIGHT.name in table.column_names:
        weight = weight * table[WEIGHT.name].to_numpy()
        table = table.drop_columns(WEIGHT.name)
    return table.append_column(WEIGHT.name, pa.array(weight, WEIGHT.dtype))
