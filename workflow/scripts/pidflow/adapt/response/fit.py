"""Fit of a signal's offset and resolution to unlabelled data, as a mixture of simulated species with free yields.

In each cell of momentum, pseudorapidity and TPC clusters the data is described by the simulation's own template of each
group of species, moved by an offset and widened by a scale that all species share. Both are smooth functions over the
cells; the yields are free per charge and momentum bin. Yields follow by expectation maximisation, the functions by
Fisher scoring with the yields profiled (A. P. Dempster, N. M. Laird, D. B. Rubin, J. R. Stat. Soc. B 39 (1977) 1; Schur
complement of the information matrix). No label of data exists here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pidflow.adapt.response.cells import GROUPS, MASSES, PIONS, REST, Grid, charge_of
from pidflow.adapt.response.signals import Columns, Floats, Signal
from pidflow.adapt.response.smooth import design
from pidflow.adapt.response.templates import SMOOTHING, Axis, Templates
from pidflow.dataset.response import robust_width

SCALE_TERMS = ("1", "eta^2", "ln p")
"""Functions that the squared scale of the resolution is made of."""

_FEWEST = 300
_FEWEST_OF_REGION = 50
_FEWEST_OF_BIN = 20
_FEWEST_EXPECTED = 10.0
_BINS_PER_WIDTH = 4.0
_MOST_WIDTHS = 60.0
_SCAN = np.linspace(-4.0, 4.0, 33)
_PRIOR_OFFSET = 1.0
"""Spread, in units of the resolution, that the slopes of the offset are expected to have at most."""

_PRIOR_SCALE = 0.3
_PRIOR_YIELD = 1.0
_SCALES2 = (0.3, 6.0)
_ITERATIONS = 60
_PAIRINGS = 4
"""How often each track lends its distance from the centre to another's centre, against the noise of templates."""


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


@dataclass(frozen=True)
class SignalFit:
    """What was found for a signal.

    Attributes
    ----------
    name
        The signal.
    unit, logarithmic
        Of its coordinate (`pidflow.adapt.response.signals.Signal`).
    terms, scale_terms
        Smooth functions of the offset and of the squared resolution scale.
    offset, scale
        Their coefficients; the squared scale is 1 + Σ scale · function.
    covariance
        Of both together, from the data's and the simulation's statistics and, where they scatter more than those
        tell, the residuals.
    points
        Offset and scale apart in bins of p and of η (`bins` of each).
    tracks
        Simulated and data tracks that were compared.
    chi2, bins
        Of the data against the fitted templates (`Comparison.goodness`).
    """

    name: str
    unit: str
    logarithmic: bool
    terms: tuple[str, ...]
    scale_terms: tuple[str, ...]
    offset: Floats
    scale: Floats
    covariance: Floats
    points: list[dict[str, Any]]
    tracks: tuple[int, int]
    chi2: float
    bins: int

    @property
    def coefficients(self) -> Floats:
        """All coefficients, those of the offset first."""
        return np.concatenate([self.offset, self.scale])

    def varied(self, random: np.random.Generator) -> SignalFit:
        """Return a fit whose coefficients are drawn from their errors' normal distribution."""
        drawn = random.multivariate_normal(self.coefficients, self.covariance)
        return replace(self, offset=drawn[: len(self.offset)], scale=drawn[len(self.offset) :])

    def offset_of(self, columns: Columns) -> Floats:
        """Return the offset of tracks, [n], in units of the coordinate."""
        return design(columns, self.terms) @ self.offset

    def scale2_of(self, columns: Columns) -> Floats:
        """Return the squared scale of the resolution of tracks, [n]."""
        return np.clip(1.0 + design(columns, self.scale_terms) @ self.scale, *_SCALES2)

    def plain(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "signal": self.name,
            "unit": self.unit,
            "logarithmic": self.logarithmic,
            "tracks": {"simulation": self.tracks[0], "data": self.tracks[1]},
            "terms": list(self.terms),
            "offset": self.offset.tolist(),
            "scale_terms": list(self.scale_terms),
            "scale2_minus_1": self.scale.tolist(),
            "covariance": self.covariance.tolist(),
            "chi2": self.chi2,
            "chi2_bins": self.bins,
            "points": self.points,
        }


class Comparison:
    """Simulated templates and data in cells, and the likelihood between them.

    Parameters
    ----------
    signal
        The signal.
    grid
        Cells of momentum and pseudorapidity.
    simulation, data
        Tracks with the signal.
    group
        Group of species of each simulated track, [n].
    """

    def __init__(self, signal: Signal, grid: Grid, simulation: Sample, data: Sample, group: NDArray[np.intp]) -> None:
        self.signal, self.grid = signal, grid
        self.simulation, self.data, self.group = simulation, data, group
        self.shape = Shape.of(simulation, group, signal)
        self.centre, self.width = self.shape.of_tracks(simulation.columns, group, signal)
        self.factor = signal.quality(simulation.columns)
        self.split = float(np.median(data.columns["tpc_n_cls_found"])) if "clusters" in signal.terms else np.inf
        self.halves = 2 if np.isfinite(self.split) else 1
        self.cells = grid.p_bins * grid.eta_bins * self.halves
        self.p_of_cell = np.arange(self.cells) // (grid.eta_bins * self.halves)
        pions = group == PIONS
        self.resolution = float(np.median(self.width[pions] if pions.any() else self.width))
        self.axis = self._axis()
        self.counts = self._counts(data)
        self.known = self._known()
        cell = self.cell_of(data.columns)
        inside = np.bincount(cell, minlength=self.cells)

        def mean(terms: Sequence[str]) -> Floats:
            sums = [np.bincount(cell, values, self.cells) for values in design(data.columns, terms).T]
            return np.asarray(np.stack(sums, axis=1) / np.maximum(inside, 1)[:, None])

        self.design, self.scale_design = mean(signal.terms), mean(SCALE_TERMS)
        self.reference = float(np.median(self.centre[pions])) if pions.any() else 0.0
        self.inflation = 1.0 + len(data) / max(simulation.weight.sum() ** 2 / (simulation.weight**2).sum(), 1.0)
        self.templates = self.fill(1.0)

    def cell_of(self, columns: Columns) -> NDArray[np.intp]:
        """Return the cell of tracks, [n]."""
        cell = self.grid.p_bin(columns) * self.grid.eta_bins + self.grid.eta_bin(columns)
        if self.halves == 2:
            cell = 2 * cell + (columns["tpc_n_cls_found"] > self.split)
        return np.asarray(cell, dtype=np.intp)

    def _axis(self) -> Axis:
        pooled = np.concatenate([self.simulation.coordinate, self.data.coordinate])
        lowest, low, high = np.quantile(pooled, (0.002, 0.05, 0.9995))
        # what lies far below all species is no signal of theirs
        low = max(lowest - 2.0 * self.resolution, low - 8.0 * self.resolution)
        high = min(high + 2.0 * self.resolution, low + _MOST_WIDTHS * self.resolution)
        return Axis(float(low), float(high), int(np.clip(_BINS_PER_WIDTH * (high - low) / self.resolution, 24, 320)))

    def _counts(self, data: Sample) -> Floats:
        """Return the data's histogram, [2, C, B]."""
        number = self.axis.number(data.coordinate)
        inside = (number >= 0) & (number < self.axis.bins)
        flat = (charge_of(data.columns) * self.cells + self.cell_of(data.columns)) * self.axis.bins + number
        shape = (2, self.cells, self.axis.bins)
        return np.bincount(flat[inside], minlength=int(np.prod(shape))).reshape(shape).astype(float)

    def _known(self) -> Floats:
        """Return the simulated tracks of each charge, cell and group, [2, C, G]."""
        columns = self.simulation.columns
        flat = (charge_of(columns) * self.cells + self.cell_of(columns)) * len(GROUPS) + self.group
        shape = (2, self.cells, len(GROUPS))
        return np.asarray(np.bincount(flat, self.simulation.weight, int(np.prod(shape))), float).reshape(shape)

    def fill(self, scale2: float, *, at_reference: bool = False) -> Templates:
        """Return templates that can be widened to a squared scale or more.

        With `at_reference` each species' tracks are moved by their centre to one place (`moved_to_reference`), so
        that the template is as narrow as the resolution.
        """
        kept = (1.0 - SMOOTHING**2) * min(1.0, scale2)
        own = self.cell_of(self.simulation.columns)
        distance = self.simulation.coordinate - self.centre
        regions = self.cells // self.grid.p_bins
        move, quality = self._by_region(distance, own % regions)
        distance = (distance - move[own % regions]) / self.width
        pairings = [distance] if at_reference else self._paired(distance, own // regions)
        centre = np.full(len(self.centre), self.reference) if at_reference else self.centre
        base = self.width / self.factor
        parts = []
        # all tracks of a momentum bin make the templates of all its cells, each with the cell's own resolution
        for region in range(regions):
            width = base * quality[region]
            cell = (own // regions * regions + region) * len(GROUPS) + self.group
            for each in pairings:
                coordinate = centre + move[region] + np.sqrt(kept) * each * width
                parts.append((cell, coordinate, self.simulation.weight, width))
        shape = (self.cells, len(GROUPS))
        cell, coordinate, weight, width = (np.concatenate(each) for each in zip(*parts, strict=True))
        return Templates.fill(self.axis, shape, cell, coordinate, weight, width, kept)

    def _paired(self, distance: Floats, p_bin: NDArray[np.intp]) -> list[Floats]:
        """Return distances [n], handed around several times among the tracks of a momentum bin and group."""
        key = p_bin * len(GROUPS) + self.group
        order = np.argsort(key, kind="stable")
        start, end = (np.searchsorted(key[order], key[order], side) for side in ("left", "right"))
        found = []
        for number in range(_PAIRINGS):
            size = end - start
            other = np.empty_like(distance)
            other[order] = distance[order[start + (np.arange(len(key)) - start + number * size // _PAIRINGS) % size]]
            found.append(other)
        return found

    def moved_to_reference(self, coordinate: Floats, columns: Columns, group: int) -> Floats:
        """Return tracks' coordinates [n], were they of a group, with their centre moved to one place."""
        return coordinate - self.shape.centre_of(group, columns, self.signal) + self.reference

    def _by_region(self, distance: Floats, region: NDArray[np.intp]) -> tuple[Floats, Floats]:
        """Return how far each region of η and clusters lies off, and how much worse than the best it is measured."""
        regions = self.cells // self.grid.p_bins
        move, quality = np.zeros(regions), np.ones(regions)
        for number in range(regions):
            inside = region == number
            if inside.any():
                quality[number] = np.sqrt(np.mean(self.factor[inside] ** 2))
            pions = inside & (self.group == PIONS)
            if np.count_nonzero(pions) >= _FEWEST_OF_REGION:
                move[number] = np.median(distance[pions])
                quality[number] *= robust_width((distance[pions] - move[number]) / self.width[pions])
        return move, quality

    def offset(self, coefficients: Floats) -> tuple[Floats, Floats]:
        """Return offset and squared scale of each cell, [C], for all coefficients."""
        terms = self.design.shape[1]
        scale2 = np.clip(1.0 + self.scale_design @ coefficients[terms:], *_SCALES2)
        return self.design @ coefficients[:terms], scale2

    def densities(self, coefficients: Floats, derivatives: bool = False) -> tuple[Floats, ...]:
        """Return the templates for coefficients, and their derivatives by the cell's offset and squared scale."""
        return self._widened(self.templates, coefficients, derivatives)

    def densities_at_reference(self, coefficients: Floats) -> Floats:
        """Return the templates for coefficients at the middle of each momentum bin, [C, G, B]."""
        templates = self.fill(float(self.offset(coefficients)[1].mean()), at_reference=True)
        return self._widened(templates, coefficients)[0]

    def _widened(self, templates: Templates, coefficients: Floats, derivatives: bool = False) -> tuple[Floats, ...]:
        offset, scale2 = self.offset(coefficients)
        return templates.densities(offset, scale2, relative=self.signal.relative_noise, derivatives=derivatives)

    def expectation(self, density: Floats, yields: Floats) -> tuple[Floats, Floats, Floats]:
        """Return parts [2, C, G, B], their sum's share [2, C, B] of each cell, and its norm [2, C]."""
        amount = self.known * yields[:, self.p_of_cell]
        part = amount[:, :, :, None] * density[None]
        norm = np.maximum(part.sum(axis=(2, 3)), 1e-12)
        return part, part.sum(axis=2) / norm[:, :, None], norm

    def likelihood(self, density: Floats, yields: Floats) -> float:
        """Return the logarithm of the likelihood."""
        _, share, _ = self.expectation(density, yields)
        return float((self.counts * np.log(np.maximum(share, 1e-12))).sum())

    def maximise_yields(self, density: Floats, yields: Floats, iterations: int) -> Floats:
        """Return yields, relative to the simulation's, [2, P, G], after steps of expectation maximisation."""
        total = self.counts.sum(axis=2)
        for _ in range(iterations):
            part, share, norm = self.expectation(density, yields)
            seen = np.einsum("jcb,jcgb->jcg", self.counts / np.maximum(share, 1e-12), part) / norm[:, :, None]
            expected = part.sum(axis=3) / norm[:, :, None] * total[:, :, None] / yields[:, self.p_of_cell]
            numerator, denominator = (self._by_momentum(each) for each in (seen, expected))
            yields = (numerator + _PRIOR_YIELD) / (denominator + _PRIOR_YIELD)
            yields = yields / yields[:, :, REST:]
            yields = self._normalised(yields)
        return yields

    def _by_momentum(self, values: Floats) -> Floats:
        found = np.zeros((2, self.grid.p_bins, values.shape[2]))
        for j in range(2):
            np.add.at(found[j], self.p_of_cell, values[j])
        return found

    def _normalised(self, yields: Floats) -> Floats:
        """Return yields of which unknown particles have their simulated share."""
        known = self._by_momentum(self.known)
        own = known[:, :, :REST]
        rest = (own * yields[:, :, :REST]).sum(axis=2) / np.maximum(own.sum(axis=2), 1e-12)
        yields = yields / np.maximum(rest, 1e-6)[:, :, None]
        yields[:, :, REST] = 1.0
        return yields

    def information(
        self, coefficients: Floats, yields: Floats, known_to: Floats | None = None
    ) -> tuple[Floats, Floats, Floats, Floats]:
        """Return each cell's score and information of offset and squared scale, yields profiled.

        Parameters
        ----------
        coefficients
            Of offset and squared scale, [T].
        yields
            Relative to the simulation's, [2, P, G].
        known_to
            Relative errors of yields that were found elsewhere, [2, P, G]; None: they are free here.

        Returns
        -------
        score, information
            [T] and [T, T] of all coefficients, with weak priors on the slopes.
        local_score, local_information
            [C, 2] and [C, 2, 2] of the cells' own offset and squared scale, with the yields as they are.
        """
        density, by_offset, by_scale = self.densities(coefficients, derivatives=True)
        part, share, norm = self.expectation(density, yields)
        total = self.counts.sum(axis=2)[:, :, None]
        amount = (self.known * yields[:, self.p_of_cell])[:, :, :, None]

        def change(parts: Floats) -> Floats:
            mixed = parts.sum(axis=2) / norm[:, :, None]
            return np.asarray(total * (mixed - share * mixed.sum(axis=2, keepdims=True)))

        expected = np.maximum(total * share, 1e-9)
        derivative = np.stack([change(amount * by_offset[None]), change(amount * by_scale[None])])  # [2, j, C, B]
        shares = part[:, :, :REST] / norm[:, :, None, None]
        own = total[:, :, None] * (shares - share[:, :, None] * shares.sum(axis=3, keepdims=True))  # [j, C, G, B]
        ratio = self.counts / expected - 1.0
        score = np.einsum("jcb,ajcb->jca", ratio, derivative)
        info = np.einsum("ajcb,djcb->jcad", derivative / expected, derivative)
        score_yield = np.einsum("jcb,jcgb->jcg", ratio, own)
        info_yield = np.einsum("jcgb,jchb->jcgh", own / expected[:, :, None], own)
        mixed = np.einsum("ajcb,jcgb->jcag", derivative / expected, own)
        terms = self.design.shape[1]
        matrix = np.zeros((self.cells, 2, terms + self.scale_design.shape[1]))
        matrix[:, 0, :terms], matrix[:, 1, terms:] = self.design, self.scale_design
        g = np.einsum("jca,cat->t", score, matrix)
        h = np.einsum("jcad,cat,cdu->tu", info, matrix, matrix)
        for j in range(2):
            for p in range(self.grid.p_bins):
                cells = np.flatnonzero(self.p_of_cell == p)
                prior = _PRIOR_YIELD * np.ones(REST) if known_to is None else known_to[j, p, :REST] ** -2.0
                block = info_yield[j, cells].sum(axis=0) + np.diag(prior)
                cross = np.einsum("cag,cat->tg", mixed[j, cells], matrix[cells])
                solved = np.linalg.solve(block, cross.T)
                g -= solved.T @ score_yield[j, cells].sum(axis=0)
                h -= cross @ solved
        precision = self._precision()
        return (
            g - precision * coefficients,
            h + np.diag(precision),
            score.sum(axis=0),
            info.sum(axis=0),
        )

    def goodness(self, coefficients: Floats, yields: Floats) -> tuple[float, int]:
        """Return χ² of data against the templates and its number of bins, cells of a momentum bin taken together.

        Both samples' statistics are in it; bins with fewer than `_FEWEST_EXPECTED` expected tracks are left out.
        """
        (density,) = self.densities(coefficients)
        _, share, _ = self.expectation(density, yields)
        expected = self.counts.sum(axis=2)[:, :, None] * share
        shape = (self.grid.p_bins, -1, self.axis.bins)
        seen, wanted = (part.sum(axis=0).reshape(shape).sum(axis=1) for part in (self.counts, expected))
        used = wanted >= _FEWEST_EXPECTED
        return float(((seen - wanted)[used] ** 2 / wanted[used]).sum() / self.inflation), int(used.sum())

    def _precision(self) -> Floats:
        offset = [0.0 if name == "1" else (_PRIOR_OFFSET * self.resolution) ** -2 for name in self.signal.terms]
        scale = [0.0 if name == "1" else _PRIOR_SCALE**-2 for name in SCALE_TERMS]
        return np.array(offset + scale)


def fit_signal(
    signal: Signal,
    grid: Grid,
    simulation: Sample,
    data: Sample,
    group: NDArray[np.intp],
    yields: Floats | None = None,
    known_to: Floats | None = None,
) -> tuple[SignalFit, Comparison] | None:
    """Fit one signal.

    Parameters
    ----------
    signal
        The signal.
    grid
        Cells.
    simulation, data
        Tracks with it.
    group
        Group of each simulated track, [n].
    yields, known_to
        Yields relative to simulation that are known from elsewhere, and their relative errors, [2, P, G];
        None: they are free here.

    Returns
    -------
    tuple or None
        The fit and what it compared; None if either sample has too few tracks.
    """
    if min(len(simulation), len(data)) < _FEWEST:
        return None
    comparison = Comparison(signal, grid, simulation, data, group)
    coefficients = np.zeros(len(signal.terms) + len(SCALE_TERMS))
    even = np.ones((2, grid.p_bins, len(GROUPS)))
    fixed, best = yields is not None, -np.inf
    current = even if yields is None else yields
    for move in _SCAN * comparison.resolution:
        trial = coefficients.copy()
        trial[0] = move
        (density,) = comparison.densities(trial)
        value = comparison.likelihood(density, current if fixed else comparison.maximise_yields(density, even, 4))
        if value > best:
            best, start = value, trial
    coefficients = start
    for number in range(_ITERATIONS):
        (density,) = comparison.densities(coefficients)
        if not fixed:
            current = comparison.maximise_yields(density, current, 5)
        score, information, *_ = comparison.information(coefficients, current, known_to)
        step = np.linalg.solve(information, score)
        limit = np.array([0.5 * comparison.resolution] * len(signal.terms) + [0.2] * len(SCALE_TERMS))
        step *= min(1.0, float((limit / np.maximum(np.abs(step), 1e-12)).min()))
        coefficients = coefficients + step
        if number % 5 == 4:
            _, scale2 = comparison.offset(coefficients)
            mean = np.average(scale2, weights=comparison.counts.sum(axis=(0, 2)))
            comparison.templates = comparison.fill(float(mean))
        if number > 10 and float((np.abs(step) / limit).max()) < 2e-3:
            break
    _, information, local_score, local_information = comparison.information(coefficients, current, known_to)
    terms = len(signal.terms)
    chi2, bins = comparison.goodness(coefficients, current)
    points = _points(comparison, coefficients, local_score, local_information)
    covariance = np.linalg.inv(information) * comparison.inflation
    covariance *= max(1.0, _scatter(points))
    fit = SignalFit(
        signal.name,
        signal.unit,
        signal.logarithmic,
        signal.terms,
        SCALE_TERMS,
        coefficients[:terms],
        coefficients[terms:],
        covariance,
        points,
        (len(simulation), len(data)),
        chi2,
        bins,
    )
    return fit, comparison


def _points(comparison: Comparison, coefficients: Floats, score: Floats, information: Floats) -> list[dict[str, Any]]:
    """Return offset and scale apart in each bin of p and η: one step of Newton's method from the smooth function."""
    grid = comparison.grid
    offset, scale2 = comparison.offset(coefficients)
    eta_of_cell = np.arange(comparison.cells) // comparison.halves % grid.eta_bins
    columns = comparison.data.columns
    found = []
    for variable, number, bins, value in (
        ("p", comparison.p_of_cell, grid.p_bins, columns["p"]),
        ("eta", eta_of_cell, grid.eta_bins, columns["eta"]),
    ):
        of_track = number[comparison.cell_of(columns)]
        for b in range(bins):
            cells = number == b
            h = information[cells].sum(axis=0)
            own = of_track == b
            if not own.any() or np.linalg.cond(h) > 1e12:
                continue
            step = np.linalg.solve(h, score[cells].sum(axis=0))
            error = np.sqrt(np.diag(np.linalg.inv(h)) * comparison.inflation)
            counts = comparison.counts.sum(axis=(0, 2))[cells]
            smooth = [float(np.average(values[cells], weights=counts)) for values in (offset, scale2)]
            found.append(
                {
                    "variable": variable,
                    "low": float(value[own].min()),
                    "high": float(value[own].max()),
                    "mean": float(value[own].mean()),
                    "offset": smooth[0] + float(step[0]),
                    "offset_error": float(error[0]),
                    "offset_smooth": smooth[0],
                    "scale2": smooth[1] + float(step[1]),
                    "scale2_error": float(error[1]),
                    "scale2_smooth": smooth[1],
                }
            )
    return found


def _scatter(points: list[dict[str, Any]]) -> float:
    """Return χ² per point of what the smooth functions leave."""
    pulls = [
        (point[name] - point[f"{name}_smooth"]) / point[f"{name}_error"]
        for point in points
        for name in ("offset", "scale2")
    ]
    return float(np.mean(np.square(pulls))) if pulls else 1.0
