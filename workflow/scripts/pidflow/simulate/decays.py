"""Weak decays, decays in flight and photon conversions of the particles that generators leave whole.

Two-body phase space, exponential lifetimes, charged particles on their helix. Three-body kaon
decays end the kaon and leave nothing; neither K⁰_L decays nor hadronic interactions make particles.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pidflow.physics import C_CM_PER_PS
from pidflow.simulate.helix import Floats, Helix
from pidflow.simulate.particles import (
    PRODUCED_BY_TRANSPORT,
    PROPERTIES,
    SELF_CONJUGATE,
    Particles,
    concatenate,
    mass_of,
)

CHANNELS: dict[int, tuple[tuple[float, tuple[int, int]], ...]] = {
    111: ((0.98823, (22, 22)),),
    211: ((0.99988, (-13, 14)),),
    310: ((0.6920, (211, -211)), (0.3069, (111, 111))),
    321: ((0.6356, (-13, 14)), (0.2067, (211, 111))),
    3112: ((0.99848, (2112, -211)),),
    3122: ((0.641, (2212, -211)), (0.359, (2112, 111))),
    3222: ((0.5147, (2212, 111)), (0.4843, (2112, 211))),
    3312: ((0.99887, (3122, -211)),),
    3322: ((0.99524, (3122, 111)),),
    3334: ((0.678, (3122, -321)), (0.236, (3322, -211)), (0.086, (3312, 111))),
}
"""Two-body channels by PDG code; Particle Data Group, Phys. Rev. D 110 (2024) 030001."""

MAX_RADIUS_CM = 84.0
"""Daughters born further out, inside the TPC's sensitive volume, are not followed."""

MATERIAL = (
    (1.9, 0.0022),
    (2.34, 0.0035),
    (3.15, 0.0035),
    (3.93, 0.0035),
    (19.6, 0.010),
    (24.55, 0.010),
    (34.4, 0.010),
    (39.3, 0.010),
    (61.0, 0.025),
    (79.0, 0.025),
)
"""Radius in cm and thickness in radiation lengths at normal incidence.

Beam pipe and ITS layers: ITS2 technical design report, J. Phys. G 41 (2014) 087002. The two TPC
walls, which also stand for supports and services, are chosen for the example.
"""

CONVERSION_PER_RADIATION_LENGTH = 7 / 9
"""Pair production at high energy; Particle Data Group, passage of particles through matter."""

DECAY_PROCESS, PAIR_PROCESS = 4, 5
"""Transport processes kPDecay and kPPair, the status code of a particle made by transport."""


def transport(particles: Particles, bz: float, rng: np.random.Generator) -> Particles:
    """Decay and convert until nothing is left to.

    Parameters
    ----------
    particles
        From the generator; those with status 1 are transported.
    bz
        Field along z in kG.
    rng
        Source of randomness.

    Returns
    -------
    Particles
        The input, with decay lengths, followed by the particles made, whose mothers point to earlier rows.
    """
    indices = np.flatnonzero(particles.status == 1)
    active = particles.take(indices)
    everything = [particles]
    lengths = []
    size = len(particles)
    while len(indices):
        flight, made = _one_generation(active, indices, bz, rng)
        lengths.append((indices, flight))
        everything.append(made)
        active, indices = made, np.arange(size, size + len(made))
        size += len(made)
    joined = concatenate(everything)
    for rows, flight in lengths:
        joined.flight[rows] = flight
    return joined


def _one_generation(
    parents: Particles, indices: NDArray[np.int64], bz: float, rng: np.random.Generator
) -> tuple[Floats, Particles]:
    """Return the decay lengths of `parents` and all their daughters."""
    flight = np.full(len(parents), np.inf)
    made = [parents.take(np.empty(0, dtype=np.int64))]
    helix = parents.helix(bz)
    for pdg in np.unique(parents.pdg):
        code, sign = abs(int(pdg)), 1 if pdg > 0 else -1
        members = np.flatnonzero(parents.pdg == pdg)
        if code == 22:
            made.append(_convert(parents, members, indices, helix, rng))
        if code not in CHANNELS:
            continue
        p = np.sqrt(np.sum(parents.momentum[:, members] ** 2, axis=0))
        length = rng.exponential(PROPERTIES[code].ctau, len(members)) * p / PROPERTIES[code].mass
        flight[members] = length
        s = length / np.sqrt(1 + helix.tgl[members] ** 2)
        x, y, z, phi = helix.take(members).at(s)
        draw = rng.random(len(members))
        inside = np.hypot(x, y) < MAX_RADIUS_CM
        low = 0.0
        for share, daughters in CHANNELS[code]:
            chosen = np.flatnonzero(inside & (draw >= low) & (draw < low + share))
            low += share
            pair = tuple(d if d in SELF_CONJUGATE else d * sign for d in daughters)
            parent = members[chosen]
            momentum = parents.momentum[:, parent]
            pt = np.hypot(momentum[0], momentum[1])
            momentum = np.stack([pt * np.cos(phi[chosen]), pt * np.sin(phi[chosen]), momentum[2]])
            energy = np.hypot(p[chosen], PROPERTIES[code].mass)
            time = parents.time[parent] + length[chosen] * energy / (np.maximum(p[chosen], 1e-9) * C_CM_PER_PS)
            made.append(
                _daughters(
                    parents.event[parent],
                    indices[parent],
                    (pair[0], pair[1]),
                    two_body(momentum, PROPERTIES[code].mass, pair, rng),
                    np.stack([x[chosen], y[chosen], z[chosen]]),
                    time,
                    DECAY_PROCESS,
                )
            )
    return flight, concatenate(made)


def two_body(
    momentum: Floats, mass: float, daughters: tuple[int, ...], rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Return the momenta (3, N) of two daughters, isotropic in the rest frame of parents with `momentum` (3, N)."""
    m1, m2 = (PROPERTIES[abs(d)].mass for d in daughters)
    star = np.sqrt((mass**2 - (m1 + m2) ** 2) * (mass**2 - (m1 - m2) ** 2)) / (2 * mass)
    n = momentum.shape[1]
    cos, azimuth = rng.uniform(-1, 1, n), rng.uniform(0, 2 * np.pi, n)
    sin = np.sqrt(1 - cos**2)
    direction = np.stack([sin * np.cos(azimuth), sin * np.sin(azimuth), cos])
    energy = np.sqrt(np.sum(momentum**2, axis=0) + mass**2)
    along = star * np.sum(momentum * direction, axis=0) / (mass * (energy + mass))
    e1 = np.hypot(star, m1)
    first = star * direction + momentum * (along + e1 / mass)
    return first, momentum - first


def _convert(
    parents: Particles,
    members: NDArray[np.int64],
    indices: NDArray[np.int64],
    helix: Helix,
    rng: np.random.Generator,
) -> Particles:
    """Turn photons into collinear electron-positron pairs with a flat sharing of the energy."""
    line = helix.take(members)
    radii = np.array([radius for radius, _ in MATERIAL])
    slant = np.sqrt(1 + line.tgl**2)
    ahead = radii[:, None] > np.hypot(line.x, line.y)
    thickness = np.array([x0 for _, x0 in MATERIAL])[:, None] * slant * ahead
    absorbed = 1 - np.exp(-CONVERSION_PER_RADIATION_LENGTH * np.cumsum(thickness, axis=0))
    layer = np.sum(rng.random(len(members)) >= absorbed, axis=0)
    energy = parents.energy[members]
    chosen = np.flatnonzero((layer < len(radii)) & (energy > 0.02))
    parent = members[chosen]
    line = line.take(chosen)
    s = line.crossing(radii[layer[chosen]])
    x, y, z, _ = line.at(s)
    share = rng.random(len(chosen))
    momentum = parents.momentum[:, parent]
    return _daughters(
        parents.event[parent],
        indices[parent],
        (-11, 11),
        (momentum * share, momentum * (1 - share)),
        np.stack([x, y, z]),
        parents.time[parent] + s * slant[chosen] / C_CM_PER_PS,
        PAIR_PROCESS,
    )


def _daughters(
    event: NDArray[np.int32],
    mother: NDArray[np.int64],
    pdg: tuple[int, int],
    momenta: tuple[Floats, Floats],
    position: Floats,
    time: Floats,
    process: int,
) -> Particles:
    n = len(event)
    codes = np.repeat(np.array(pdg, dtype=np.int32), n)
    momentum = np.concatenate(momenta, axis=1)
    return Particles(
        event=np.tile(event, 2),
        pdg=codes,
        mother=np.tile(mother, 2),
        momentum=momentum,
        energy=np.sqrt(np.sum(momentum**2, axis=0) + mass_of(codes) ** 2),
        position=np.tile(position, 2),
        time=np.tile(time, 2),
        flags=np.full(2 * n, PRODUCED_BY_TRANSPORT, dtype=np.uint8),
        status=np.full(2 * n, process, dtype=np.int32),
        flight=np.full(2 * n, np.inf),
    )
