"""Matching efficiencies: simulated tracks lose a detector as often as data lacks it.

The data's rate of tracks with a detector over the simulated one is a product of a function of momentum, of
pseudorapidity and of azimuth, found by raking (W. E. Deming, F. F. Stephan, Ann. Math. Stat. 11 (1940) 427), in classes
of what the inner detectors saw: the TRD first, then the TOF among tracks with and without the TRD. What simulation
lacks cannot be added; there the factor ends at 1 and a weight per detector pattern and momentum bin is left to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pidflow.adapt.response.cells import Grid
from pidflow.adapt.response.signals import Columns, Floats

PHI_BINS = 18
"""One per sector of TPC, TRD and TOF."""

_ROUNDS = 20
_FEWEST = 50.0
_WEIGHTS = (0.2, 5.0)


@dataclass(frozen=True)
class Bins:
    """Bins of a track in which rates are compared: momentum, pseudorapidity, azimuth.

    Attributes
    ----------
    grid
        Momentum and pseudorapidity.
    """

    grid: Grid

    @property
    def counts(self) -> tuple[int, int, int]:
        """Number of bins of each."""
        return self.grid.p_bins, self.grid.eta_bins, PHI_BINS

    def of(self, columns: Columns) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
        """Return the bins of tracks, three times [n]."""
        phi = np.nan_to_num(columns["phi"]) % (2.0 * np.pi)
        sector = np.minimum((phi / (2.0 * np.pi) * PHI_BINS).astype(np.intp), PHI_BINS - 1)
        return self.grid.p_bin(columns), self.grid.eta_bin(columns), sector


@dataclass(frozen=True)
class Rate:
    """How often simulated tracks keep a detector.

    Attributes
    ----------
    detector
        ``trd`` or ``tof``.
    among
        Class of tracks: what the TRD saw, or None for all.
    factors
        Data's rate over simulation's in bins of momentum, pseudorapidity and azimuth; their product, at
        most 1, is the probability to keep the detector.
    data, simulation
        Rate of tracks with the detector before.
    """

    detector: str
    among: bool | None
    factors: tuple[Floats, Floats, Floats]
    data: float
    simulation: float

    def kept(self, bins: tuple[NDArray[np.intp], ...]) -> Floats:
        """Return the probability to keep the detector, [n]."""
        product = np.ones(len(bins[0]))
        for factor, number in zip(self.factors, bins, strict=True):
            product = product * factor[number]
        return np.clip(product, 0.0, 1.0)

    def plain(self) -> dict[str, Any]:
        """Return it as plain values."""
        names = ("p", "eta", "phi")
        return {
            "detector": self.detector,
            "among": {None: "all", True: "with TRD", False: "without TRD"}[self.among],
            "rate_data": self.data,
            "rate_simulation": self.simulation,
            **{f"factor_{name}": factor.tolist() for name, factor in zip(names, self.factors, strict=True)},
        }


@dataclass(frozen=True)
class Matching:
    """All that is done about matching.

    Attributes
    ----------
    bins
        Of the rates.
    limits
        Momentum below which a detector is hidden, GeV/c.
    rates
        In the order in which detectors are taken away.
    weight
        Factor that is left for each momentum bin and detector pattern, [P, 4].
    """

    bins: Bins
    limits: Mapping[str, float]
    rates: tuple[Rate, ...]
    weight: Floats

    def masked(self, columns: Columns, random: np.random.Generator) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return which tracks have TRD and TOF after masking, two times [n]."""
        return _masked(self.rates, self.bins, columns, random.random((2, len(columns["p"]))))

    def plain(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "p_edges": list(self.bins.grid.p_edges),
            "eta_edges": list(self.bins.grid.eta_edges),
            "rates": [rate.plain() for rate in self.rates],
            "pattern_weight": self.weight.tolist(),
        }


def pattern_of(trd: NDArray[np.bool_], tof: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return the index in `pidflow.tracks.DETECTOR_PATTERNS`, [n]."""
    return trd.astype(np.intp) + 2 * tof.astype(np.intp)


def _masked(
    rates: tuple[Rate, ...], bins: Bins, columns: Columns, draw: Floats
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    number = bins.of(columns)
    seen = {"trd": columns["has_trd"] > 0, "tof": columns["has_tof"] > 0}
    for rate in rates:
        own = np.ones(len(number[0]), bool) if rate.among is None else seen["trd"] == rate.among
        keep = draw[int(rate.detector == "tof")] < rate.kept(number)
        seen[rate.detector] = seen[rate.detector] & (keep | ~own)
    return seen["trd"], seen["tof"]


def fit_matching(
    simulation: Columns,
    weight: Floats,
    data: Columns,
    grid: Grid,
    limits: Mapping[str, float],
    random: np.random.Generator,
) -> Matching:
    """Compare the rates of tracks with TRD and TOF.

    Parameters
    ----------
    simulation, data
        Columns of both, [n] and [m] each.
    weight
        How much each simulated track counts, [n].
    grid
        Bins.
    limits
        Momentum below which each detector is hidden, GeV/c.
    random
        Decides which simulated tracks lose the TRD before the TOF is looked at.
    """
    bins = Bins(grid)
    draw = random.random((2, len(weight)))
    rates: tuple[Rate, ...] = ()
    for detector, among in (("trd", None), ("tof", False), ("tof", True)):
        trd, tof = _masked(rates, bins, simulation, draw)
        now = {**simulation, "has_trd": trd.astype(float), "has_tof": tof.astype(float)}
        rate = _rate(detector, among, (now, weight), (data, np.ones(len(data["p"]))), bins, limits.get(detector, 0.0))
        if rate is not None:
            rates = (*rates, rate)
    trd, tof = _masked(rates, bins, simulation, draw)
    shape = (grid.p_bins, 4)
    measured = pattern_of(data["has_trd"] > 0, data["has_tof"] > 0)
    left = _shares(grid.p_bin(data), measured, np.ones(len(measured)), shape)
    right = _shares(grid.p_bin(simulation), pattern_of(trd, tof), weight, shape)
    ratio = np.divide(left, right, out=np.ones(shape), where=right > 0)
    return Matching(bins, limits, rates, np.clip(ratio, *_WEIGHTS))


def _shares(p_bin: NDArray[np.intp], pattern: NDArray[np.intp], weight: Floats, shape: tuple[int, int]) -> Floats:
    """Return the share of each pattern in each momentum bin, with a few tracks of every pattern added."""
    counts = np.asarray(np.bincount(p_bin * 4 + pattern, weight, shape[0] * 4), float).reshape(shape)
    mean = counts.sum(axis=0) / max(counts.sum(), 1e-12)
    counts = counts + np.where(counts > 0, mean, 0.0) * _FEWEST
    return np.asarray(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-12))


def _rate(
    detector: str,
    among: bool | None,
    simulation: tuple[Columns, Floats],
    data: tuple[Columns, Floats],
    bins: Bins,
    limit: float,
) -> Rate | None:
    """Return how often tracks of a class keep a detector; None where the class has too few tracks with it."""
    parts = []
    for columns, weight in (simulation, data):
        own = columns["p"] >= limit
        if among is not None:
            own &= (columns["has_trd"] > 0) == among
        numbers = tuple(number[own] for number in bins.of(columns))
        parts.append((numbers, weight[own], columns[f"has_{detector}"][own] > 0))
    (sim_bins, sim_weight, sim_seen), (data_bins, data_weight, data_seen) = parts
    if min((sim_weight * sim_seen).sum(), data_seen.sum()) < _FEWEST:
        return None
    # the data's rate in each bin is what a simulated track of that bin should have
    factors = [np.ones(count) for count in bins.counts]
    wanted = []
    for axis, count in enumerate(bins.counts):
        all_of = np.bincount(data_bins[axis], data_weight, count)
        seen_of = np.bincount(data_bins[axis], data_weight * data_seen, count)
        tracks = np.bincount(sim_bins[axis], sim_weight, count)
        rate = np.divide(seen_of, all_of, out=np.zeros(count), where=all_of > 0)
        wanted.append((rate * tracks, all_of > 0))
    for _ in range(_ROUNDS):
        for axis, count in enumerate(bins.counts):
            product = np.ones(len(sim_weight))
            for factor, number in zip(factors, sim_bins, strict=True):
                product = product * factor[number]
            now = np.bincount(sim_bins[axis], sim_weight * sim_seen * np.minimum(product, 1.0), count)
            goal, known = wanted[axis]
            change = np.divide(goal + 1.0, now + 1.0, out=np.ones(count), where=known)
            factors[axis] = np.clip(factors[axis] * change, 0.0, 3.0)
    return Rate(
        detector,
        among,
        (factors[0], factors[1], factors[2]),
        float(np.average(data_seen, weights=data_weight)),
        float(np.average(sim_seen, weights=sim_weight)),
    )
