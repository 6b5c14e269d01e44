"""Generated particles of one data frame as columns, and the properties that transport needs."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pidflow.simulate.helix import Floats, Helix

PRODUCED_BY_TRANSPORT = 1
PHYSICAL_PRIMARY = 4
"""Bits of ``O2mcparticle.fFlags`` (AliceO2 ``Framework/Core/include/Framework/AnalysisDataModel.h``)."""


class Properties(NamedTuple):
    """Mass in GeV/c², charge in e and c·τ in cm of the particle (not the antiparticle)."""

    mass: float
    charge: int
    ctau: float


STABLE = float("inf")

PROPERTIES = {
    11: Properties(0.00051099895, -1, STABLE),
    12: Properties(0.0, 0, STABLE),
    13: Properties(0.1056583755, -1, 65865.4),
    14: Properties(0.0, 0, STABLE),
    22: Properties(0.0, 0, STABLE),
    111: Properties(0.1349768, 0, 2.53e-6),
    211: Properties(0.13957039, 1, 780.45),
    310: Properties(0.497611, 0, 2.6844),
    321: Properties(0.493677, 1, 371.1),
    2112: Properties(0.93956542, 0, STABLE),
    2212: Properties(0.93827209, 1, STABLE),
    3112: Properties(1.197449, -1, 4.434),
    3122: Properties(1.115683, 0, 7.89),
    3222: Properties(1.18937, 1, 2.404),
    3312: Properties(1.32171, -1, 4.91),
    3322: Properties(1.31486, 0, 8.71),
    3334: Properties(1.67245, -1, 2.461),
}
"""By PDG code; Particle Data Group, Phys. Rev. D 110 (2024) 030001."""

TRACKED = (11, 13, 211, 321, 2212)
"""Absolute PDG codes of the charged particles that live long enough to be tracked."""

SELF_CONJUGATE = (22, 111, 310)


def mass_of(pdg: NDArray[np.int32]) -> Floats:
    """Return the masses in GeV/c²; NaN for particles that transport does not know."""
    return _lookup(pdg, {code: p.mass for code, p in PROPERTIES.items()}, np.nan)


def charge_of(pdg: NDArray[np.int32]) -> Floats:
    """Return the charges in e; 0 for particles that transport does not know."""
    return np.sign(pdg) * _lookup(pdg, {code: float(p.charge) for code, p in PROPERTIES.items()}, 0.0)


def _lookup(pdg: NDArray[np.int32], table: dict[int, float], default: float) -> Floats:
    codes, inverse = np.unique(np.abs(pdg), return_inverse=True)
    return np.array([table.get(int(code), default) for code in codes], dtype=np.float64)[inverse]


@dataclass(frozen=True)
class Particles:
    """Particles of one data frame; every array has N along its last axis.

    Attributes
    ----------
    event
        Number of the collision within the frame.
    pdg
        PDG code.
    mother
        Index of the mother in these arrays; -1 if none is kept.
    momentum
        (3, N), GeV/c.
    energy
        GeV.
    position
        Production vertex (3, N), cm.
    time
        Production time after the bunch crossing, ps.
    flags
        Bits of ``O2mcparticle.fFlags``.
    status
        Generator status, or the transport process.
    flight
        Path length in cm after which the particle decays; infinite if it does not.
    """

    event: NDArray[np.int32]
    pdg: NDArray[np.int32]
    mother: NDArray[np.int64]
    momentum: Floats
    energy: Floats
    position: Floats
    time: Floats
    flags: NDArray[np.uint8]
    status: NDArray[np.int32]
    flight: Floats

    def __len__(self) -> int:
        return len(self.pdg)

    def take(self, index: NDArray[np.generic]) -> Particles:
        """Return the particles at `index`; mothers keep pointing into the original arrays."""
        return Particles(*(getattr(self, field.name)[..., index] for field in fields(self)))

    def helix(self, bz: float) -> Helix:
        """Return the particles' paths in a field of `bz` kG."""
        return Helix.from_momentum(self.position, self.momentum, charge_of(self.pdg), bz)


def concatenate(parts: list[Particles]) -> Particles:
    """Join `parts`; mothers must already point into the joined arrays."""
    return Particles(
        *(np.concatenate([getattr(part, field.name) for part in parts], axis=-1) for field in fields(Particles))
    )


def select(particles: Particles, keep: NDArray[np.bool_]) -> Particles:
    """Keep the marked particles and their ancestors, ordered so that siblings are neighbours.

    Parameters
    ----------
    particles
        Mothers may stand anywhere in the arrays.
    keep
        Shape (N,).

    Returns
    -------
    Particles
        Grouped by event, within an event by generation and then by mother, which makes the
        daughters of every particle one contiguous slice.
    """
    keep = keep.copy()
    depth = np.zeros(len(particles), dtype=np.int64)
    ancestor = particles.mother.copy()
    while (has := ancestor >= 0).any():
        depth[has] += 1
        keep[ancestor[has & keep]] = True
        ancestor[has] = particles.mother[ancestor[has]]
    rank = np.full(len(particles), -1, dtype=np.int64)
    levels = []
    for level in range(int(depth.max(initial=0)) + 1):
        members = np.flatnonzero(keep & (depth == level))
        mothers = particles.mother[members]
        mother_rank = np.where(mothers >= 0, rank[mothers], -1)
        members = members[np.lexsort((mother_rank, particles.event[members]))]
        rank[members] = np.arange(len(members))
        levels.append(members)
    order = np.concatenate(levels)
    order = order[np.lexsort((depth[order], particles.event[order]))]
    position = np.full(len(particles), -1, dtype=np.int64)
    position[order] = np.arange(len(order))
    chosen = particles.take(order)
    mother = np.where(chosen.mother >= 0, position[chosen.mother], -1)
    return Particles(*(mother if field.name == "mother" else getattr(chosen, field.name) for field in fields(chosen)))


def daughter_slices(particles: Particles) -> NDArray[np.int32]:
    """Return first and last daughter of each particle, shape (N, 2); -1 where there is none."""
    slices = np.full((len(particles), 2), -1, dtype=np.int32)
    child = np.flatnonzero(particles.mother >= 0)
    mother = particles.mother[child]
    slices[mother[::-1], 0] = child[::-1]
    slices[mother, 1] = child
    return slices
