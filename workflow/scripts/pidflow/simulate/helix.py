"""Helices in a homogeneous field along z, parametrised by the transverse arc length.

With curvature c (1/cm, signed) the direction turns as φ(s) = φ₀ + c·s, and
x(s) = x₀ + (sin φ(s) − sin φ₀)/c, y(s) = y₀ − (cos φ(s) − cos φ₀)/c, z(s) = z₀ + s·tan λ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pidflow.physics import CURVATURE_PER_KG

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Helix:
    """Helices of N particles, from their production vertices outwards.

    Attributes
    ----------
    x, y, z
        Start, in cm; shape (N,).
    phi
        Azimuth of the momentum at the start, rad.
    tgl
        Tangent of the dip angle.
    curvature
        1/cm, signed; 0 for a neutral particle.
    """

    x: Floats
    y: Floats
    z: Floats
    phi: Floats
    tgl: Floats
    curvature: Floats

    @classmethod
    def from_momentum(cls, position: Floats, momentum: Floats, charge: ArrayLike, bz: float) -> Helix:
        """Build from positions (3, N) in cm, momenta (3, N) in GeV/c, charges in e and the field in kG."""
        px, py, pz = momentum
        pt = np.maximum(np.hypot(px, py), 1e-9)
        curvature = CURVATURE_PER_KG * bz * np.asarray(charge) / pt
        return cls(position[0], position[1], position[2], np.arctan2(py, px), pz / pt, curvature)

    def at(self, s: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Return x, y, z in cm and the azimuth of the momentum after the transverse arc length `s`."""
        half = 0.5 * self.curvature * s
        chord = s * np.sinc(half / np.pi)
        return (
            self.x + chord * np.cos(self.phi + half),
            self.y + chord * np.sin(self.phi + half),
            self.z + s * self.tgl,
            self.phi + 2 * half,
        )

    def crossing(self, radius: ArrayLike) -> Floats:
        """Return the arc length at which the helix first crosses a cylinder around the beam from inside.

        Parameters
        ----------
        radius
            In cm; one number or shape (N,).

        Returns
        -------
        ndarray
            Shape (N,), in cm; infinite if the helix starts outside or never gets there.

        Notes
        -----
        In τ = (2/c)·tan(c·s/2) the condition x² + y² = R² is the quadratic A·τ² + 2a·τ − Q = 0 with
        Q = R² − ρ₀², a = x₀ cos φ₀ + y₀ sin φ₀, b = y₀ cos φ₀ − x₀ sin φ₀ and
        A = 1 + c·b − c²·Q/4, which stays well conditioned down to c = 0. A negative τ is an angle
        past half a turn.
        """
        c = self.curvature
        cos, sin = np.cos(self.phi), np.sin(self.phi)
        q = np.asarray(radius, dtype=np.float64) ** 2 - self.x**2 - self.y**2
        a = self.x * cos + self.y * sin
        b = self.y * cos - self.x * sin
        with np.errstate(invalid="ignore", divide="ignore"):
            tau = q / (a + np.sqrt(a * a + (1 + c * b - 0.25 * c * c * q) * q))
            half = np.arctan(0.5 * c * tau)
            half = np.where(tau < 0, half + np.sign(c) * np.pi, half)
            s = np.where(np.abs(c) > 1e-12, 2 * half / np.where(c == 0, 1, c), tau)
        return np.where((q > 0) & np.isfinite(s) & (s > 0), s, np.inf)

    def take(self, index: NDArray[np.generic]) -> Helix:
        """Return the helices at `index`."""
        return Helix(*(getattr(self, name)[index] for name in ("x", "y", "z", "phi", "tgl", "curvature")))
