"""Template histograms of a signal's coordinate, which can be moved and widened by any amount.

A template is kept as its Fourier transform, in which a shift is a phase and Gaussian widening a factor, both exact
and smooth in their parameters. Kernel smoothing keeps the variance: each track's distance from the centre of its
species is shortened before the kernel widens it again (B. W. Silverman, Density Estimation (1986) sect. 6.4).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pidflow.adapt.response.signals import Floats

SMOOTHING = 0.4
"""Width of the kernel in units of the resolution."""

FLAT = 0.003
"""Share of tracks that lie anywhere, so that one far from all species pulls at nothing."""

_PADDING = 0.25
_STEP = 1e-3


@dataclass(frozen=True)
class Axis:
    """Equal bins, and a margin on both sides that keeps what is moved from coming in on the other.

    Attributes
    ----------
    low, high
        Range in units of the coordinate.
    bins
        Bins in it.
    """

    low: float
    high: float
    bins: int

    @property
    def step(self) -> float:
        """Width of a bin."""
        return (self.high - self.low) / self.bins

    @property
    def margin(self) -> int:
        """Bins on each side."""
        return int(self.bins * _PADDING)

    @property
    def padded(self) -> int:
        """Bins with both margins."""
        return self.bins + 2 * self.margin

    def number(self, values: Floats) -> NDArray[np.intp]:
        """Return the bin of values [n], negative or too large outside the range."""
        return np.floor((values - self.low) / self.step).astype(np.intp)

    @property
    def centres(self) -> Floats:
        """Middles of the bins."""
        return np.asarray(self.low + self.step * (np.arange(self.bins) + 0.5), np.float64)


@dataclass(frozen=True)
class Templates:
    """Templates of several species in several cells.

    Attributes
    ----------
    axis
        Bins of the coordinate.
    transform
        Fourier transforms of the densities, complex128 [C, G, K]; a density sums to 1 with the margins.
    width
        Resolution of each, [C, G], in units of the coordinate.
    kept
        Share of the variance that the tracks have before widening: tracks' distances from their species'
        centre were multiplied by its root.
    """

    axis: Axis
    transform: NDArray[np.complex128]
    width: Floats
    kept: float

    @classmethod
    def fill(
        cls,
        axis: Axis,
        shape: tuple[int, int],
        cell: NDArray[np.intp],
        coordinate: Floats,
        weight: Floats,
        width: Floats,
        kept: float,
    ) -> Templates:
        """Fill templates.

        Parameters
        ----------
        axis
            Bins.
        shape
            C cells and G groups of species.
        cell
            Flat index of cell and group of each track, [n].
        coordinate
            With distances from the centre shortened already, [n].
        weight
            How much each track counts, [n].
        width
            Resolution of each track, [n].
        kept
            As the attribute.
        """
        cells = shape[0] * shape[1]
        # shared between the two bins whose centres are nearest, so that it is continuous
        place = (coordinate - axis.low) / axis.step - 0.5 + axis.margin
        low = np.floor(place).astype(np.intp)
        share = place - low
        counts = np.zeros((cells, axis.padded))
        for number, part in ((low, 1.0 - share), (low + 1, share)):
            inside = (number >= 0) & (number < axis.padded)
            flat = cell[inside] * axis.padded + number[inside]
            counts += np.bincount(flat, (weight * part)[inside], counts.size).reshape(counts.shape)
        total = counts.sum(axis=1, keepdims=True)
        density = np.divide(counts, total, out=np.zeros_like(counts), where=total > 0)
        mean_square = np.bincount(cell, weight * width**2, cells) / np.maximum(np.bincount(cell, weight, cells), 1e-12)
        transform = np.fft.rfft(density, axis=1)
        return cls(axis, transform.reshape(*shape, -1), np.sqrt(mean_square).reshape(shape), kept)

    def densities(
        self, offset: Floats, scale2: Floats, *, relative: bool, derivatives: bool = False
    ) -> tuple[Floats, ...]:
        """Return the moved and widened templates as densities per bin, [C, G, B].

        Parameters
        ----------
        offset
            Of each cell, [C].
        scale2
            Square of the resolution's scale in each cell, [C].
        relative
            Whether what widens a logarithmic coordinate is Gaussian in the signal itself.
        derivatives
            Whether to return the derivatives with respect to offset and squared scale too.
        """
        frequency = 2j * np.pi * np.fft.rfftfreq(self.axis.padded, self.axis.step)
        kernel = self._relative_kernel if relative else self._kernel
        moved = self.transform * np.exp(-frequency * offset[:, None, None])
        # no narrower than the smallest kernel; the slope there still tells the fit which way to go
        scale2 = np.maximum(scale2, self.kept + SMOOTHING**2 / 2)
        spectra = [moved * kernel(scale2)]
        if derivatives:
            spectra.append(-frequency * spectra[0])
            spectra.append(moved * (kernel(scale2 + _STEP) - kernel(scale2 - _STEP)) / (2.0 * _STEP))
        found = [np.fft.irfft(part, self.axis.padded, axis=2) for part in spectra]
        inside = slice(self.axis.margin, self.axis.margin + self.axis.bins)
        density, *others = (part[:, :, inside] for part in found)
        density = (1.0 - FLAT) * np.maximum(density, 0.0) + FLAT / self.axis.bins
        return density, *((1.0 - FLAT) * part for part in others)

    def _variance(self, scale2: Floats) -> Floats:
        """Return what the templates lack of the wanted variance, [C, G]."""
        # a group without tracks has no width
        return np.maximum((scale2[:, None] - self.kept) * self.width**2, (0.05 * self.axis.step) ** 2)

    def _kernel(self, scale2: Floats) -> NDArray[np.complex128]:
        """Return the Fourier transform of Gaussian widening, [C, G, K]."""
        angular = 2.0 * np.pi * np.fft.rfftfreq(self.axis.padded, self.axis.step)
        kernel: NDArray[np.complex128] = np.exp(-0.5 * angular**2 * self._variance(scale2)[:, :, None]).astype(complex)
        return kernel

    def _relative_kernel(self, scale2: Floats) -> NDArray[np.complex128]:
        """Return the Fourier transform of ln(1 + Gaussian), [C, G, K].

        It lowers the mean of a logarithm by half its variance, except for the part that smoothing took away before.
        """
        variance = self._variance(scale2)
        added = np.maximum(scale2[:, None] - 1.0, 0.0) * self.width**2
        place = np.fft.fftfreq(self.axis.padded, 1.0 / self.axis.padded) * self.axis.step
        logarithm = place[None, None, :] - 0.5 * (variance - added)[:, :, None]
        sigma = np.sqrt(variance)[:, :, None]
        kernel = np.exp(-0.5 * (np.expm1(logarithm) / sigma) ** 2 + logarithm)
        kernel /= kernel.sum(axis=2, keepdims=True)
        return np.asarray(np.fft.rfft(kernel, axis=2))
