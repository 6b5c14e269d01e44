"""Likelihood of a signal of unlabelled data, described cell by cell as a mixture of simulated species.

The template of each group of species is the simulation's own, moved by an offset and widened by a scale that all
species share; yields are free per charge and momentum bin.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pidflow.adapt.response.cells import GROUPS, PIONS, REST, Grid, charge_of
from pidflow.adapt.response.shape import Sample, Shape
from pidflow.adapt.response.signals import Columns, Floats, Signal
from pidflow.adapt.response.smooth import design
from pidflow.adapt.response.templates import SMOOTHING, Axis, Templates
from pidflow.dataset.response import robust_width

SCALE_TERMS = ("1", "eta^2", "ln p")
"""Functions that the squared scale of the resolution is made of."""

SCALES2 = (0.3, 6.0)
"""Least and largest squared scale."""

_FEWEST_OF_REGION = 50
_FEWEST_EXPECTED = 10.0
_BINS_PER_WIDTH = 4.0
_MOST_WIDTHS = 60.0
_PRIOR_OFFSET = 1.0
"""Spread, in units of the resolution, that the slopes of the offset are expected to have at most."""

_PRIOR_SCALE = 0.3
_PRIOR_YIELD = 1.0
_PAIRINGS = 4
"""How often each track lends its distance from the centre to another's centre, against the noise of templates."""


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
        scale2 = np.clip(1.0 + self.scale_design @ coefficients[terms:], *SCALES2)
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
