"""Where each species' signal lies in the simulation, and how wide it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pidflow.adapt.response.cells import GROUPS, MASSES, PIONS, REST
from pidflow.adapt.response.signals import Columns, Floats, Signal
from pidflow.dataset.response import robust_width

_FEWEST_OF_BIN = 20


@dataclass(frozen=True)
class Sample:
    """Tracks of one sample that have a signal.

    Attributes
    ----------
    columns
        Columns of the dataset, [n] each.
    coordinate
        Of the signal, [n].
    weight
        How much each counts, [n].
    """

    columns: Columns
    coordinate: Floats
    weight: Floats

    @classmethod
    def of(cls, columns: Columns, signal: Signal, weight: Floats | None = None) -> Sample:
        """Return the tracks that have the signal and all that its coordinate needs."""
        coordinate = signal.coordinate(columns)
        seen = np.isfinite(coordinate)
        kept = {name: values[seen] for name, values in columns.items()}
        return cls(kept, coordinate[seen], np.ones(int(seen.sum())) if weight is None else weight[seen])

    def __len__(self) -> int:
        return len(self.coordinate)


@dataclass(frozen=True)
class Shape:
    """Where each species' signal lies in the simulation, and how wide it is.

    Attributes
    ----------
    log_p
        Middle of each momentum bin, ln(GeV/c), [P].
    distance, width
        Median distance of the coordinate from its expectation, and the robust width around it for a track of the
        best quality, [G, P].
    """

    log_p: Floats
    distance: Floats
    width: Floats

    @classmethod
    def of(cls, sample: Sample, group: NDArray[np.intp], signal: Signal, bins: int = 16) -> Shape:
        """Measure the simulated tracks of groups [n]."""
        log_p = np.log(sample.columns["p"])
        quality = signal.quality(sample.columns)
        edges = np.quantile(log_p, np.linspace(0.0, 1.0, bins + 1))
        middle = 0.5 * (edges[1:] + edges[:-1])
        number = np.clip(np.digitize(log_p, edges[1:-1]), 0, bins - 1)
        distance, width = np.full((2, len(GROUPS), bins), np.nan)
        for g in range(REST):
            own = group == g
            columns = {name: values[own] for name, values in sample.columns.items()}
            off = sample.coordinate[own] - signal.centre(columns, MASSES[g])
            for b in range(bins):
                if np.count_nonzero(inside := number[own] == b) >= _FEWEST_OF_BIN:
                    distance[g, b] = np.median(off[inside])
                    width[g, b] = robust_width((off[inside] - distance[g, b]) / quality[own][inside])
            _fill(middle, distance[g])
            _fill(middle, width[g])
        # a group that is hardly there, and unknown particles, are like pions
        for values in (distance, width):
            values[~np.isfinite(values).all(axis=1)] = values[PIONS]
        return cls(middle, distance, width)

    def of_tracks(self, columns: Columns, group: NDArray[np.intp], signal: Signal) -> tuple[Floats, Floats]:
        """Return centre and resolution of tracks of groups [n], each [n]."""
        log_p = np.log(columns["p"])
        centre, width = np.empty((2, len(log_p)))
        for g in range(len(GROUPS)):
            own = group == g
            centre[own] = self.centre_of(g, {name: values[own] for name, values in columns.items()}, signal)
            width[own] = np.interp(log_p[own], self.log_p, self.width[g])
        return centre, width * signal.quality(columns)

    def centre_of(self, group: int, columns: Columns, signal: Signal) -> Floats:
        """Return where tracks [n] should lie if they are of a group, [n]."""
        distance = np.interp(np.log(columns["p"]), self.log_p, self.distance[group])
        return np.asarray(signal.centre(columns, MASSES[group]) + distance)


def _fill(place: Floats, values: Floats) -> None:
    known = np.isfinite(values)
    if known.any():
        values[~known] = np.interp(place[~known], place[known], values[known])
