"""Calibration of the TPC and TOF response on a run's own simulation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.optimize import least_squares

from pidflow.config.models import Split
from pidflow.dataset.split import split_of
from pidflow.errors import PidflowError
from pidflow.files import read_json, write_json
from pidflow.physics import SPECIES
from pidflow.response import (
    TPC_REFERENCE_CLUSTERS,
    TofResponse,
    TpcResponse,
    bethe_bloch_aleph,
    expected_time,
)

Array = NDArray[np.float64]

_MIP = 50.0
"""Scale of the curve: ALICE calibrates the TPC so that a minimum-ionising particle gives 50."""

_START = (0.032, 20.0, 1e-11, 2.72, 6.1)
"""Where the fit starts; near the defaults of O2Physics ``Common/Core/PID/TPCPIDResponse.h``."""

_FEWEST = 30
"""Tracks that a bin needs to count."""

_MOST_BINS = 40

_MAX_TRACKS = 400_000

_COLUMNS = (
    "collision_id", "pdg_code", "p", "tpc_signal", "tpc_inner_param", "tpc_n_cls_found",
    "tof_signal", "tof_event_time", "tof_exp_mom", "length",
)  # fmt: skip


@dataclass(frozen=True)
class Response:
    """The response of the detectors that the run has; None for a detector that it lacks."""

    tpc: TpcResponse | None
    tof: TofResponse | None


def read_response(path: str | Path) -> Response:
    """Read a response that `fit_response` wrote."""
    content = read_json(path)
    tpc, tof = content["tpc"], content["tof"]
    return Response(
        TpcResponse(tpc["mip"], tuple(tpc["bethe_bloch"]), tpc["resolution"], tpc["resolution_exponent"])
        if tpc
        else None,
        TofResponse(tof["resolution"], tof["momentum_term"]) if tof else None,
    )


def robust_width(values: Array) -> float:
    """Return half the distance between the 15.87 % and 84.13 % quantiles: σ of a normal, deaf to tails."""
    low, high = np.quantile(values, (0.158655, 0.841345))
    return float(high - low) / 2.0


def fit_response(tables: Iterable[str | Path], output: str | Path, *, split: Split) -> None:
    """Fit the response to labelled training tracks and write it as JSON.

    Parameters
    ----------
    tables
        Track tables of the run's simulation.
    output
        JSON with the keys ``tpc`` and ``tof``, null for a detector without signals.
    split
        Sets; only training tracks are used.

    Raises
    ------
    PidflowError
        If no labelled track has a TPC signal.
    """
    tables = list(tables)
    columns = _training_columns(tables, split)
    labelled = {species: np.abs(columns["pdg_code"]) == species.pdg for species in SPECIES}
    momentum = np.where(np.isnan(columns["tpc_inner_param"]), columns["p"], columns["tpc_inner_param"])
    mass = np.full(len(momentum), np.nan)
    for species, chosen in labelled.items():
        mass[chosen] = species.mass
    tpc = _fit_tpc(momentum, mass, columns["tpc_signal"], columns["tpc_n_cls_found"])
    if tpc is None:
        raise PidflowError(f"{tables[0]}: no labelled track with a TPC signal; check the simulation and its labels")
    flight = columns["tof_signal"] - columns["tof_event_time"]
    tof = _fit_tof(flight, columns["length"], columns["tof_exp_mom"], mass)
    write_json(output, {"tpc": asdict(tpc), "tof": asdict(tof) if tof else None})


def _training_columns(tables: list[str | Path], split: Split) -> dict[str, Array]:
    quota = _MAX_TRACKS // len(tables)  # from every file, since files may hold one species each
    parts = []
    for path in tables:
        table = pq.read_table(path, columns=list(_COLUMNS))
        train = split_of(table["collision_id"].to_numpy(), split) == "train"
        parts.append(table.filter(pa.array(train)).slice(0, quota))
    table = pa.concat_tables(parts)
    return {name: table[name].cast(pa.float64()).to_numpy() for name in _COLUMNS if name != "collision_id"}


def _profile(mass: Array, momentum: Array, signal: Array) -> tuple[Array, Array, Array]:
    """Return βγ, median signal and number of tracks in bins of βγ, species by species."""
    points = []
    for species in SPECIES:
        chosen = mass == species.mass
        beta_gamma, own = momentum[chosen] / species.mass, signal[chosen]
        if len(own) < _FEWEST:
            continue
        bins = min(_MOST_BINS, len(own) // _FEWEST)
        edges = np.quantile(beta_gamma, np.linspace(0.0, 1.0, bins + 1))[1:-1]
        number = np.digitize(beta_gamma, edges)
        for bin_number in np.unique(number):
            inside = number == bin_number
            if inside.sum() >= _FEWEST:
                points.append((np.median(beta_gamma[inside]), np.median(own[inside]), inside.sum()))
    if not points:
        return np.empty(0), np.empty(0), np.empty(0)
    bg, median, count = np.array(points, dtype=np.float64).T
    return bg, median, count


def _fit_tpc(momentum: Array, mass: Array, signal: Array, clusters: Array) -> TpcResponse | None:
    usable = np.isfinite(momentum * mass * signal) & (signal > 0) & (momentum > 0)
    momentum, mass, signal, clusters = momentum[usable], mass[usable], signal[usable], clusters[usable]
    bg, median, count = _profile(mass, momentum, signal)
    if len(bg) < len(_START):
        return None
    weight = np.sqrt(np.minimum(count, 1000.0))

    def parameters(free: Array) -> tuple[float, float, float, float, float]:
        p1, p2, log_p3, p4, p5 = free
        return float(p1), float(p2), float(np.exp(log_p3)), float(p4), float(p5)

    def residuals(free: Array) -> Array:
        curve = _MIP * bethe_bloch_aleph(bg, parameters(free))
        return np.asarray(weight * (np.log(np.maximum(curve, 1e-3)) - np.log(median)))

    start = np.array(_START)
    start[2] = np.log(start[2])
    lower, upper = (1e-3, 1.0, np.log(1e-20), 0.5, 0.5), (1.0, 100.0, 0.0, 5.0, 20.0)
    fit = least_squares(residuals, start, bounds=(lower, upper), loss="soft_l1", x_scale=np.abs(start))
    bethe_bloch = parameters(fit.x)

    clusters = np.where(np.isnan(clusters), TPC_REFERENCE_CLUSTERS, clusters)
    expected = np.empty(len(signal))
    for species in SPECIES:
        chosen = mass == species.mass
        expected[chosen] = _MIP * bethe_bloch_aleph(momentum[chosen] / species.mass, bethe_bloch)
    deviation = signal / expected - 1.0
    edges = np.unique(np.quantile(clusters, np.linspace(0.0, 1.0, 9)))
    number = np.clip(np.digitize(clusters, edges) - 1, 0, max(len(edges) - 2, 0))
    filled = [n for n in np.unique(number) if (number == n).sum() >= _FEWEST]
    log_ratio = np.array([np.log(TPC_REFERENCE_CLUSTERS / np.median(clusters[number == n])) for n in filled])
    log_width = np.array([np.log(robust_width(deviation[number == n])) for n in filled])
    if len(filled) > 2 and np.ptp(log_ratio) > 0.05:
        exponent, intercept = np.polyfit(log_ratio, log_width, 1)
        return TpcResponse(_MIP, bethe_bloch, float(np.exp(intercept)), float(exponent))
    return TpcResponse(_MIP, bethe_bloch, robust_width(deviation), 0.0)


def _fit_tof(flight: Array, length: Array, momentum: Array, mass: Array) -> TofResponse | None:
    usable = np.isfinite(flight * length * momentum * mass)
    flight, length, momentum, mass = flight[usable], length[usable], momentum[usable], mass[usable]
    slopes, widths = [], []
    for species in SPECIES:
        chosen = mass == species.mass
        if chosen.sum() < _FEWEST:
            continue
        expected = expected_time(length[chosen], momentum[chosen], species.mass)
        slope = expected * species.mass**2 / (species.mass**2 + momentum[chosen] ** 2)
        deviation = flight[chosen] - expected
        edges = np.quantile(momentum[chosen], np.linspace(0.0, 1.0, 1 + min(12, int(chosen.sum()) // _FEWEST)))
        number = np.digitize(momentum[chosen], edges[1:-1])
        for bin_number in np.unique(number):
            inside = number == bin_number
            slopes.append(np.median(slope[inside]))
            widths.append(robust_width(deviation[inside]))
    if len(widths) < 2:
        return None
    slope_squared, width = np.square(slopes), np.array(widths)

    def residuals(free: Array) -> Array:
        return np.asarray(np.log(np.sqrt(free[0] ** 2 + free[1] ** 2 * slope_squared)) - np.log(width))

    fit = least_squares(residuals, (float(width.min()), 0.01), bounds=((1.0, 0.0), (1000.0, 0.2)), loss="soft_l1",
                        x_scale=(50.0, 0.01))  # fmt: skip
    return TofResponse(float(fit.x[0]), float(fit.x[1]))
