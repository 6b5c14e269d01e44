"""The classical tuning of simulated signals on data: the pion band's place and width per momentum bin, for all species.

In bins of momentum the pion band of each signal is found in both samples by the same cuts, without any truth: the
dominant peak among tracks that the TPC and the TOF place in their own dominant peaks. Its mean and width follow from
Gaussians fitted again and again within ±2 σ. The difference of the means is then added to every simulated signal, and
the residual to the true species' own centre is scaled by the ratio of the widths. Nothing depends on pseudorapidity or
on species, and what else lies under a peak stays there: that is the method which `calibrate_response` must beat.

The idea is that of ``AliPIDResponse::SetTuneOnData`` of AliRoot (``STEER/STEERBase``), which gives simulated tracks
signals after the response that was fitted to data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pidflow.adapt.steps import base

if TYPE_CHECKING:
    import pyarrow as pa

    from pidflow.adapt.response.shape import Shape
    from pidflow.adapt.response.signals import Columns, Floats, Signal
    from pidflow.dataset.response import Response

_CUT = 2.0
"""Where Gaussians are truncated, and tracks cut by the other detectors, in σ."""

_KEPT_VARIANCE = 0.77374
"""Variance of a normal truncated at ±2 σ, in units of σ²: 1 − 4 φ(2) / (2 Φ(2) − 1)."""

_SHRINKAGE = 0.4494
"""d ln(width of what is inside) / d ln(truncation) at ±2 σ, by which a fixed point errs more than one step does."""

_SPREAD_OF_WIDTH = 0.5843
"""Relative error of the width of what lies within ±2 σ, times √n."""

_CORE = 0.4
"""Share of the weight in the shortest interval at which the search for a peak begins."""

_CORE_HALF_WIDTH = 0.5244
"""Half-width in σ of the interval with that share of a normal."""

_FEWEST = 100.0
_ITERATIONS = 100
_KINEMATICS = ("p", "eta", "tpc_n_cls_found")


class Settings(base.StepSettings):
    """Simulated signals moved and scaled as the pion band of data lies and spreads in momentum bins."""

    kind: Literal["tune_on_data"] = "tune_on_data"
    p_bins: Annotated[int, Field(ge=1, le=100)] = Field(12, description="momentum bins of about equally many tracks")


@dataclass(frozen=True)
class Peak:
    """A Gaussian peak.

    Attributes
    ----------
    mean, width
        In units of the coordinate.
    tracks
        Number within ±2 σ that the weights are worth.
    """

    mean: float
    width: float
    tracks: float

    @property
    def mean_error(self) -> float:
        """Statistical error of the mean."""
        return float(self.width / np.sqrt(_KEPT_VARIANCE * self.tracks))

    @property
    def width_error(self) -> float:
        """Statistical error of the width, relative to it."""
        return float(_SPREAD_OF_WIDTH / (1.0 - _SHRINKAGE) / np.sqrt(self.tracks))


def peak_of(values: Floats, weight: Floats) -> Peak | None:
    """Return the dominant peak of values [n] with weights [n]; None where too few tracks make it."""
    order = np.argsort(values, kind="stable")
    ordered, reached = values[order], np.cumsum(weight[order])
    if len(values) < _FEWEST or reached[-1] <= 0:
        return None
    first = np.flatnonzero(reached <= (1.0 - _CORE) * reached[-1])
    last = np.minimum(np.searchsorted(reached, reached[first] + _CORE * reached[-1]), len(values) - 1)
    if not len(first):
        return None
    length = ordered[last] - ordered[first]
    start = int(length.argmin())
    mean = 0.5 * (ordered[last[start]] + ordered[first[start]])
    width = 0.5 * length[start] / _CORE_HALF_WIDTH
    tracks = 0.0
    for _ in range(_ITERATIONS):
        inside = np.abs(values - mean) < _CUT * width
        own, counted = values[inside], weight[inside]
        if counted.sum() <= 0:
            return None
        tracks = float(counted.sum() ** 2 / np.square(counted).sum())
        if tracks < _FEWEST:
            return None
        before = mean, width
        mean = np.average(own, weights=counted)
        width = np.sqrt(np.average(np.square(own - mean), weights=counted) / _KEPT_VARIANCE)
        if abs(mean - before[0]) + abs(width - before[1]) < 1e-6 * width:
            break
    return Peak(float(mean), float(width), tracks)


@dataclass(frozen=True)
class Band:
    """A peak in bins of momentum.

    Attributes
    ----------
    log_p
        Places of the bins, ln(GeV/c), [P].
    mean, width
        Of the peaks, [P].
    """

    log_p: Floats
    mean: Floats
    width: Floats

    def holds(self, coordinate: Floats, log_p: Floats) -> NDArray[np.bool_]:
        """Return which tracks lie within ±2 σ, [n]; none without a signal."""
        middle, width = np.interp(log_p, self.log_p, self.mean), np.interp(log_p, self.log_p, self.width)
        with np.errstate(invalid="ignore"):
            return np.asarray(np.abs(coordinate - middle) < _CUT * width)


@dataclass(frozen=True)
class Sample:
    """Training tracks of one sample.

    Attributes
    ----------
    columns
        Columns of the dataset, [n] each.
    weight
        How much each track counts, [n].
    coordinates
        By signal, [n], NaN without it.
    """

    columns: Columns
    weight: Floats
    coordinates: Mapping[str, Floats]

    @property
    def log_p(self) -> Floats:
        """ln(p / GeV/c), [n]."""
        return np.log(self.columns["p"])

    def bands(self, p_edges: Floats) -> dict[str, Band]:
        """Return the dominant peaks of TPC and TOF among all tracks, for those signals that have any."""
        found = {}
        number = np.digitize(self.columns["p"], p_edges)
        for name in {"TPC", "TOF"} & set(self.coordinates):
            points = []
            for b in range(len(p_edges) + 1):
                own = (number == b) & np.isfinite(self.coordinates[name])
                peak = peak_of(self.coordinates[name][own], self.weight[own])
                if peak is not None:
                    points.append((np.average(self.log_p[own], weights=self.weight[own]), peak.mean, peak.width))
            if points:
                found[name] = Band(*np.array(points).T)
        return found

    def cuts(self, signal: str, bands: Mapping[str, Band]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
        """Yield ever looser selections of pions for a signal, by name, [n]."""
        others = [name for name in ("TPC", "TOF") if name != signal and name in bands]
        for chosen in dict.fromkeys((tuple(others), tuple(others[:1]), ())):
            kept = np.isfinite(self.coordinates[signal])
            for name in chosen:
                kept &= bands[name].holds(self.coordinates[name], self.log_p)
            yield " and ".join(chosen), kept


@dataclass(frozen=True)
class Tuning:
    """How one signal is tuned.

    Attributes
    ----------
    signal, shape
        The signal, and where the simulated species are.
    log_p
        Places of the momentum bins, ln(GeV/c), [P].
    offset, scale
        What is added, and by what residuals are multiplied, [P].
    points
        The same with errors, for the report.
    """

    signal: Signal
    shape: Shape
    log_p: Floats
    offset: Floats
    scale: Floats
    points: list[dict[str, Any]]

    def apply(self, columns: Columns, group: NDArray[np.intp]) -> Floats:
        """Return the signal of simulated tracks of groups [n]; unchanged where the coordinate is unknown."""
        coordinate = self.signal.coordinate(columns)
        centre, _ = self.shape.of_tracks(columns, group, self.signal)
        log_p = np.log(columns["p"])
        residual = coordinate - centre
        moved = centre + np.interp(log_p, self.log_p, self.offset) + np.interp(log_p, self.log_p, self.scale) * residual
        return np.where(np.isfinite(coordinate), self.signal.signal(moved, columns), columns[self.signal.column])


def _points(name: str, simulation: Sample, data: Sample, p_bins: int) -> list[dict[str, Any]]:
    """Compare both samples' pions in each momentum bin, by the strictest cuts under which both have a peak."""
    from pidflow.adapt.response.cells import Grid

    samples = simulation, data
    seen = np.isfinite(data.coordinates[name])
    edges = np.array(Grid.of({key: values[seen] for key, values in data.columns.items()}, p_bins, 1).p_edges)
    number = [np.digitize(sample.columns["p"], edges) for sample in samples]
    bands = [sample.bands(edges) for sample in samples]
    shared = set(bands[0]) & set(bands[1])
    cuts = [
        list(sample.cuts(name, {key: own[key] for key in shared})) for sample, own in zip(samples, bands, strict=True)
    ]
    points = []
    for b in range(len(edges) + 1):
        for (label, first), (_, second) in zip(*cuts, strict=True):
            kept = [own & (bins == b) for own, bins in zip((first, second), number, strict=True)]
            old, new = (
                peak_of(sample.coordinates[name][own], sample.weight[own])
                for sample, own in zip(samples, kept, strict=True)
            )
            if old is None or new is None:
                continue
            points.append(
                {
                    "p": float(np.exp(np.mean(data.log_p[kept[1]]))),
                    "selected_by": label,
                    "tracks": {"simulation": old.tracks, "data": new.tracks},
                    "offset": new.mean - old.mean,
                    "offset_error": float(np.hypot(new.mean_error, old.mean_error)),
                    "scale": new.width / old.width,
                    "scale_error": float(new.width / old.width * np.hypot(new.width_error, old.width_error)),
                }
            )
            break
    return points


def _drawn(tracks: NDArray[np.intp], weight: Floats) -> NDArray[np.intp]:
    """Return as many of the tracks, each as often as its weight of [n] says; all once if the weights are equal."""
    reached = np.cumsum(weight[tracks])
    return np.asarray(tracks[np.searchsorted(reached, (np.arange(len(tracks)) + 0.5) / len(tracks) * reached[-1])])


class Step(base.SampleStep):
    """Moves simulated signals, and scales their residuals."""

    Settings = Settings

    def fit(self, simulation: Path, data: Path, surroundings: base.Surroundings) -> dict[str, Any]:
        """Find the pion band of each signal in training tracks of both samples."""
        from pidflow.adapt import tables
        from pidflow.adapt.response import shape, signals
        from pidflow.adapt.response.cells import group_of
        from pidflow.dataset.response import read_response
        from pidflow.errors import PidflowError

        self._response: Response = read_response(surroundings.response)
        known = signals.signals(self._response)
        self._columns = tuple(dict.fromkeys((*_KINEMATICS, *(name for each in known for name in each.columns))))
        simulated = tables.read_training(simulation, self._columns, ("pdg_code",))
        group = group_of(tables.pdg_of(simulated))
        samples = []
        for table in (simulated, tables.read_training(data, self._columns)):
            columns = tables.columns_of(table, self._columns)
            coordinates = {signal.name: signal.coordinate(columns) for signal in known}
            samples.append(Sample(columns, tables.weight_of(table), coordinates))
        self._tunings = []
        for signal in known:
            if not all(np.isfinite(sample.coordinates[signal.name]).any() for sample in samples):
                continue
            points = _points(signal.name, samples[0], samples[1], self.settings.p_bins)
            if not points:
                continue
            drawn = _drawn(np.flatnonzero(np.isfinite(samples[0].coordinates[signal.name])), samples[0].weight)
            own = {name: values[drawn] for name, values in samples[0].columns.items()}
            bands = shape.Shape.of(shape.Sample.of(own, signal), group[drawn], signal)
            places = (np.array([point[key] for point in points]) for key in ("p", "offset", "scale"))
            log_p, offset, scale = np.log(next(places)), *places
            self._tunings.append(Tuning(signal, bands, log_p, offset, scale, points))
        if not self._tunings:
            raise PidflowError(
                f"{data}: no detector signal has enough tracks in data and in simulation to be tuned; "
                "give the run more or larger files"
            )
        self._event_time = tables.event_time_offset(samples[0].columns, samples[1].columns)
        return {
            "signals": [
                {"signal": each.signal.name, "unit": each.signal.unit, "points": each.points} for each in self._tunings
            ],
            "event_time_offset_ps": self._event_time,
        }

    def apply(self, table: pa.Table, random: np.random.Generator) -> pa.Table:
        """Return tracks with tuned signals; nothing is drawn."""
        from pidflow.adapt import tables
        from pidflow.adapt.response.cells import group_of

        columns, group = tables.columns_of(table, self._columns), group_of(tables.pdg_of(table))
        new = {each.signal.column: each.apply(columns, group) for each in self._tunings}
        return tables.with_signals(table, new, self._event_time, self._response)
