"""Expected detector signals per species: the ground on which nσ and the example simulation stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pidflow.physics import C_CM_PER_PS

TPC_REFERENCE_CLUSTERS = 159
"""Number of pad rows of the Run 1 and 2 TPC; the resolution is quoted for a track that has all."""


def bethe_bloch_aleph(beta_gamma: ArrayLike, parameters: Sequence[float]) -> NDArray[np.float64]:
    """Return the ALEPH parametrisation of the energy loss.

    Parameters
    ----------
    beta_gamma
        βγ of the particle, any shape, positive.
    parameters
        Five parameters of the curve.

    Returns
    -------
    ndarray
        Energy loss in units of the minimum-ionising signal, as wide as `beta_gamma`.

    Notes
    -----
    W. Blum, W. Riegler, L. Rolandi, *Particle Detection with Drift Chambers*, 2nd ed., eq. 10.30;
    in the form of AliceO2 ``Common/MathUtils`` ``BetheBlochAleph``.
    """
    p1, p2, p3, p4, p5 = parameters
    bg = np.asarray(beta_gamma, dtype=np.float64)
    beta_power = (bg / np.sqrt(1.0 + bg * bg)) ** p4
    return (p2 - beta_power - np.log(p3 + bg**-p5)) * p1 / beta_power


def expected_time(length: ArrayLike, momentum: ArrayLike, mass: ArrayLike) -> NDArray[np.float64]:
    """Return the time of flight in ps over `length` (cm) at `momentum` (GeV/c) for `mass` (GeV/c²).

    Source: O2Physics ``Common/Core/PID/PIDTOF.h``: L·√(m² + p²)/(c·p).
    """
    p = np.asarray(momentum, dtype=np.float64)
    m = np.asarray(mass, dtype=np.float64)
    return np.asarray(length, dtype=np.float64) * np.sqrt(m * m + p * p) / (C_CM_PER_PS * p)


@dataclass(frozen=True)
class TpcResponse:
    """TPC dE/dx: mean signal and resolution.

    Attributes
    ----------
    mip
        Signal of a minimum-ionising particle, in the units of ``tpc_signal``.
    bethe_bloch
        The five ALEPH parameters.
    resolution
        Relative width of the signal at `TPC_REFERENCE_CLUSTERS` clusters.
    resolution_exponent
        The width grows as (reference / clusters) to this power.
    """

    mip: float
    bethe_bloch: tuple[float, float, float, float, float]
    resolution: float
    resolution_exponent: float

    def signal(self, momentum: ArrayLike, mass: float) -> NDArray[np.float64]:
        """Return the mean signal of a singly charged particle at `momentum` (GeV/c)."""
        bg = np.asarray(momentum, dtype=np.float64) / mass
        return self.mip * bethe_bloch_aleph(bg, self.bethe_bloch)

    def sigma(self, signal: ArrayLike, clusters: ArrayLike) -> NDArray[np.float64]:
        """Return the width, in signal units, of a mean `signal` measured with `clusters`."""
        n = np.maximum(np.asarray(clusters, dtype=np.float64), 1.0)
        relative = self.resolution * (TPC_REFERENCE_CLUSTERS / n) ** self.resolution_exponent
        return np.asarray(signal, dtype=np.float64) * relative

    def n_sigma(
        self, measured: ArrayLike, momentum: ArrayLike, clusters: ArrayLike, mass: float
    ) -> NDArray[np.float64]:
        """Return (measured − expected)/σ; NaN where any argument is."""
        expected = self.signal(momentum, mass)
        return (np.asarray(measured, dtype=np.float64) - expected) / self.sigma(expected, clusters)


@dataclass(frozen=True)
class TofResponse:
    """Time of flight: a width that grows at low momentum.

    Attributes
    ----------
    resolution
        Width in ps of (time − event time − expected time) at high momentum: the TOF hit and the
        event time together.
    momentum_term
        Relative momentum resolution that adds to it: |∂t/∂p|·p times this, in quadrature.
    """

    resolution: float
    momentum_term: float

    def sigma(self, length: ArrayLike, momentum: ArrayLike, mass: float) -> NDArray[np.float64]:
        """Return the width in ps."""
        p = np.asarray(momentum, dtype=np.float64)
        time = expected_time(length, p, mass)
        slope = time * mass * mass / (mass * mass + p * p)
        return np.hypot(self.resolution, self.momentum_term * slope)

    def n_sigma(
        self, time_of_flight: ArrayLike, length: ArrayLike, momentum: ArrayLike, mass: float
    ) -> NDArray[np.float64]:
        """Return (measured − expected)/σ for a time after event-time subtraction, in ps."""
        measured = np.asarray(time_of_flight, dtype=np.float64)
        return (measured - expected_time(length, momentum, mass)) / self.sigma(length, momentum, mass)
