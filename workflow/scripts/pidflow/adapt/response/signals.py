"""The detector signals that are calibrated, each in a coordinate in which its response is simple.

In that coordinate the data's response is the simulated one, moved by an offset and widened or narrowed. For a dE/dx
the coordinate is a logarithm, so that the offset is a gain; for the time of flight it is a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pidflow.dataset.response import Response
from pidflow.physics import SPECIES
from pidflow.response import TPC_REFERENCE_CLUSTERS, expected_time

Floats = NDArray[np.float64]
Columns = Mapping[str, Floats]

PION = next(species for species in SPECIES if species.key == "pi")
TRD_LAYERS = 6


@dataclass(frozen=True)
class Signal:
    """A detector signal.

    Attributes
    ----------
    name
        Short name, in results and figures.
    column
        Column of the dataset that holds it.
    columns
        Columns that its coordinate needs.
    expected
        From columns [n] and a mass in GeV/c² to the signal that such a particle should give, [n]; the coordinate is
        relative to a pion's.
    quality
        From columns [n] to the factor by which a track is measured worse than the best, [n].
    logarithmic
        Whether the coordinate is the logarithm of signal over reference, rather than their difference.
    relative_noise
        For a logarithmic one: whether what widens it is Gaussian in the signal, rather than in its logarithm.
    identifies
        Whether yields of species are told from it: one in which they hardly differ adds more of its own
        systematic error than of knowledge.
    unit
        Of the coordinate.
    terms
        Names of the smooth functions that its offset is made of (`pidflow.adapt.response.smooth`).
    """

    name: str
    column: str
    columns: tuple[str, ...]
    expected: Callable[[Columns, float], Floats]
    quality: Callable[[Columns], Floats]
    logarithmic: bool
    relative_noise: bool
    identifies: bool
    unit: str
    terms: tuple[str, ...]

    def coordinate(self, columns: Columns) -> Floats:
        """Return the coordinate of tracks, [n]; NaN without a signal."""
        return self._relative(columns[self.column], columns)

    def centre(self, columns: Columns, mass: float) -> Floats:
        """Return the coordinate that particles of a mass (GeV/c²) should have, [n]."""
        return self._relative(self.expected(columns, mass), columns)

    def _relative(self, value: Floats, columns: Columns) -> Floats:
        pion = self.expected(columns, PION.mass)
        if not self.logarithmic:
            return value - pion
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(value > 0, np.log(value / pion), np.nan)

    def signal(self, coordinate: Floats, columns: Columns) -> Floats:
        """Return the signal of a coordinate, [n]."""
        pion = self.expected(columns, PION.mass)
        return pion * np.exp(coordinate) if self.logarithmic else pion + coordinate

    def moved(self, offset: Floats, noise: Floats) -> Floats:
        """Return how far a track's coordinate moves by an offset and a fluctuation in units of the coordinate, [n]."""
        if self.relative_noise:
            return offset + np.log(np.maximum(1.0 + noise, 0.1))
        return offset + noise


def momentum_at_wall(columns: Columns) -> Floats:
    """Return the momentum at the inner TPC wall, at the vertex where it is unknown, GeV/c, [n]."""
    inner = columns["tpc_inner_param"]
    return np.where(np.isnan(inner), columns["p"], inner)


def _one(columns: Columns, mass: float = 0.0) -> Floats:
    return np.ones(len(columns["p"]))


def _layers(columns: Columns) -> Floats:
    pattern = np.nan_to_num(columns["trd_pattern"]).astype(np.int64)
    layers = sum((pattern >> layer) & 1 for layer in range(TRD_LAYERS))
    return np.sqrt(TRD_LAYERS / np.maximum(layers, 1.0))


def signals(response: Response) -> tuple[Signal, ...]:
    """Return the signals that can be calibrated, given the response fitted to the run's simulation."""
    found = []
    tpc = response.tpc
    if tpc is not None:
        found.append(
            Signal(
                "TPC",
                "tpc_signal",
                ("tpc_signal", "tpc_inner_param", "tpc_n_cls_found"),
                lambda columns, mass: tpc.signal(momentum_at_wall(columns), mass),
                lambda columns: np.sqrt(TPC_REFERENCE_CLUSTERS / np.maximum(columns["tpc_n_cls_found"], 1.0)),
                logarithmic=True,
                relative_noise=True,
                identifies=True,
                unit="",
                terms=("1", "eta", "eta^2", "ln p", "(ln p)^2", "clusters"),
            )
        )
    for name, column, quality in (("ITS", "its_mean_cluster_size", _one), ("ITS dE/dx", "its_signal", _one)):
        found.append(
            Signal(name, column, (column,), _one, quality, True, False, False, "", ("1", "eta", "ln p"))
        )  # fmt: skip
    found.append(
        Signal(
            "TRD", "trd_signal", ("trd_signal", "trd_pattern"), _one, _layers,
            logarithmic=True, relative_noise=False, identifies=False, unit="", terms=("1", "eta", "eta^2", "ln p"),
        )
    )  # fmt: skip
    found.append(
        Signal(
            "TOF",
            "tof_signal",
            ("tof_signal", "tof_event_time", "tof_exp_mom", "length"),
            lambda c, mass: c["tof_event_time"] + expected_time(c["length"], c["tof_exp_mom"], mass),
            _one,
            logarithmic=False,
            relative_noise=False,
            identifies=True,
            unit="ps",
            terms=("1", "eta", "ln p"),
        )
    )
    return tuple(found)
