"""Quantile mapping: each simulated signal takes the value that data has at the same quantile.

In cells of momentum, pseudorapidity and, if asked for, charge a coordinate x becomes F_data⁻¹(F_simulation(x)), where F
is the cumulative distribution of all species together; between the middles of momentum bins the maps are interpolated.
No species is told from another, so that a difference in composition is taken for one of the response; where the bands
of species lie apart, a quantile between them is hardly known, and follows those that are.

Sources: A. J. Cannon, S. R. Sobie, T. Q. Murdock, J. Climate 28 (2015) 6938 (quantile mapping); CMS, JHEP 07 (2021)
027, arXiv:2103.06956 (simulated photons morphed to data by quantile regression; there each variable given those before
it, here each for itself).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pidflow.adapt.steps import base
from pidflow.blocks import Count

if TYPE_CHECKING:
    import pyarrow as pa

    from pidflow.adapt.response.cells import Grid
    from pidflow.adapt.response.signals import Columns, Floats, Signal
    from pidflow.dataset.response import Response

Bins = Annotated[int, Field(ge=1, le=100)]

_KINEMATICS = ("p", "eta", "sign", "tpc_n_cls_found")
_TRACKS_PER_QUANTILE = 20


class Settings(base.StepSettings):
    """Simulated signals mapped onto the quantiles of data."""

    kind: Literal["quantile_morph"] = "quantile_morph"
    p_bins: Bins = Field(12, description="momentum bins of about equally many tracks")
    eta_bins: Bins = Field(4, description="pseudorapidity bins")
    charge: bool = Field(False, description="map either charge for itself")
    quantiles: Count = Field(50, description="quantiles of a cell at most; at least 20 tracks lie between two")
    fewest: Count = Field(100, description="tracks that a cell needs in either sample; with fewer, signals stay")


def quantiles_of(values: Floats, weight: Floats, levels: Floats) -> Floats:
    """Return the quantiles of values [n] with weights [n] at levels [Q]."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weight[order])
    return np.interp(levels, (reached - 0.5 * weight[order]) / reached[-1], values[order])


def shrunk(shift: Floats, variance: Floats, levels: Floats) -> Floats:
    """Return shifts [Q] drawn to a move and a widening that all share, each by how much of its scatter is error.

    The scatter beyond the errors follows from moments (R. DerSimonian, N. Laird, Control. Clin. Trials 7 (1986) 177).

    Parameters
    ----------
    shift
        Differences of quantiles, [Q].
    variance
        Their statistical variances, [Q].
    levels
        Of the quantiles, [Q].
    """
    variance = np.maximum(variance, 1e-12 * (variance.max() or 1.0))
    trust = 1.0 / variance
    normal = np.array([NormalDist().inv_cdf(level) for level in levels])
    terms = np.stack([np.ones(len(normal)), normal], axis=1)[:, : len(shift)]
    common = terms @ np.linalg.lstsq(terms * np.sqrt(trust)[:, None], shift * np.sqrt(trust), rcond=None)[0]
    true = max(0.0, float(np.average(np.square(shift - common) - variance, weights=trust)))
    return np.asarray(common + (shift - common) * true / (true + variance))


@dataclass(frozen=True)
class Map:
    """The map of one cell, monotone; beyond its outermost quantiles it is a constant shift.

    Attributes
    ----------
    simulation
        Simulated quantiles, ascending, [Q].
    shift
        How far data's lie from them, [Q].
    """

    simulation: Floats
    shift: Floats

    @classmethod
    def of(cls, simulation: Floats, weight: Floats, data: Floats, most: int) -> Map:
        """Compare simulated coordinates [n] with weights [n] and data's [m], at so many quantiles at most."""
        tracks = weight.sum() ** 2 / np.square(weight).sum(), float(len(data))
        number = max(1, min(most, int(min(tracks)) // _TRACKS_PER_QUANTILE))
        levels = (np.arange(number) + 0.5) / number
        samples = (simulation, weight), (data, np.ones(len(data)))
        (old, *low), (new, *high) = (
            [quantiles_of(*sample, levels + step * np.sqrt(levels * (1.0 - levels) / n)) for step in (0.0, -1.0, 1.0)]
            for sample, n in zip(samples, tracks, strict=True)
        )
        variance = np.square(0.5 * (low[1] - low[0])) + np.square(0.5 * (high[1] - high[0]))
        moved = np.maximum.accumulate(old + shrunk(new - old, variance, levels))
        # equal quantiles of a discrete signal go to the mean of what they meet
        old, place, counts = np.unique(old, return_inverse=True, return_counts=True)
        return cls(old, np.bincount(place, moved) / counts - old)

    def shift_of(self, coordinate: Floats) -> Floats:
        """Return how far coordinates [n] move."""
        return np.interp(coordinate, self.simulation, self.shift)


@dataclass(frozen=True)
class Morph:
    """The maps of one signal.

    Attributes
    ----------
    signal, grid
        The signal, and bins of momentum and pseudorapidity.
    charge
        Whether charges are apart.
    log_p
        Places of the momentum bins, ln(GeV/c), [P].
    maps
        By class of pseudorapidity and charge, then by momentum bin; None where a cell has too few tracks.
    """

    signal: Signal
    grid: Grid
    charge: bool
    log_p: Floats
    maps: list[list[Map | None]]

    @classmethod
    def fit(
        cls, signal: Signal, settings: Settings, simulation: Columns, weight: Floats, data: Columns
    ) -> Morph | None:  # fmt: skip
        """Compare both samples; None if no cell has enough tracks."""
        from pidflow.adapt.response.cells import Grid
        from pidflow.adapt.response.shape import Sample

        old, new = Sample.of(simulation, signal, weight), Sample.of(data, signal)
        if not len(old) or not len(new):
            return None
        grid = Grid.of(new.columns, settings.p_bins, settings.eta_bins)
        number = grid.p_bin(new.columns)
        log_p = np.log(new.columns["p"])
        # tied momenta can leave the bin below an edge empty
        filled = np.unique(number)
        places = np.interp(np.arange(grid.p_bins), filled, [log_p[number == b].mean() for b in filled])
        empty = cls(signal, grid, settings.charge, places, [])
        classes = grid.eta_bins * (2 if settings.charge else 1)
        before, after = (
            empty.classes(sample.columns) * grid.p_bins + grid.p_bin(sample.columns) for sample in (old, new)
        )
        maps: list[list[Map | None]] = []
        for row in np.arange(classes * grid.p_bins).reshape(classes, -1):
            maps.append([])
            for cell in row:
                first, second = before == cell, after == cell
                enough = min(np.count_nonzero(old.weight[first]), second.sum()) >= settings.fewest
                maps[-1].append(
                    Map.of(old.coordinate[first], old.weight[first], new.coordinate[second], settings.quantiles)
                    if enough
                    else None
                )
        return cls(signal, grid, settings.charge, places, maps) if any(any(row) for row in maps) else None

    def classes(self, columns: Columns) -> NDArray[np.intp]:
        """Return the class of pseudorapidity and charge of tracks, [n]."""
        from pidflow.adapt.response.cells import charge_of

        number = self.grid.eta_bin(columns)
        return number + self.grid.eta_bins * charge_of(columns) if self.charge else number

    def apply(self, columns: Columns) -> Floats:
        """Return the signal of simulated tracks, [n]; unchanged where the coordinate is unknown."""
        coordinate = self.signal.coordinate(columns)
        place = np.interp(np.log(columns["p"]), self.log_p, np.arange(len(self.log_p), dtype=float))
        number, shift = self.classes(columns), np.zeros(len(coordinate))
        for c, row in enumerate(self.maps):
            for b, each in enumerate(row):
                near = (number == c) & (np.abs(place - b) < 1.0)
                if each is not None:
                    shift[near] += (1.0 - np.abs(place[near] - b)) * each.shift_of(coordinate[near])
        moved = self.signal.signal(coordinate + shift, columns)
        return np.where(np.isfinite(coordinate), moved, columns[self.signal.column])

    def plain(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "signal": self.signal.name,
            "unit": self.signal.unit,
            "p": np.exp(self.log_p).tolist(),
            "eta_edges": list(self.grid.eta_edges),
            "cells": sum(map(len, self.maps)),
            "cells_mapped": sum(each is not None for row in self.maps for each in row),
            "median_shift": [
                [None if each is None else float(np.median(each.shift)) for each in row] for row in self.maps
            ],
        }


class Step(base.SampleStep):
    """Maps simulated signals."""

    Settings = Settings

    def fit(self, simulation: Path, data: Path, surroundings: base.Surroundings) -> dict[str, Any]:
        """Compare the quantiles of each signal in training tracks of both samples."""
        from pidflow.adapt import tables
        from pidflow.adapt.response.signals import signals
        from pidflow.dataset.response import read_response
        from pidflow.errors import PidflowError

        self._response: Response = read_response(surroundings.response)
        known = signals(self._response)
        self._columns = tuple(dict.fromkeys((*_KINEMATICS, *(name for each in known for name in each.columns))))
        simulated = tables.read_training(simulation, self._columns)
        old = tables.columns_of(simulated, self._columns)
        new = tables.columns_of(tables.read_training(data, self._columns), self._columns)
        weight = tables.weight_of(simulated)
        found = (Morph.fit(signal, self.settings, old, weight, new) for signal in known)
        self._morphs = [each for each in found if each is not None]
        if not self._morphs:
            raise PidflowError(
                f"{data}: no detector signal has enough tracks in data and in simulation to be mapped; "
                "lower 'fewest' or the numbers of bins, or give the run more or larger files"
            )
        self._event_time = tables.event_time_offset(old, new)
        return {"signals": [each.plain() for each in self._morphs], "event_time_offset_ps": self._event_time}

    def apply(self, table: pa.Table, random: np.random.Generator) -> pa.Table:
        """Return tracks with mapped signals; nothing is drawn."""
        from pidflow.adapt import tables

        columns = tables.columns_of(table, self._columns)
        new = {each.signal.column: each.apply(columns) for each in self._morphs}
        return tables.with_signals(table, new, self._event_time, self._response)
