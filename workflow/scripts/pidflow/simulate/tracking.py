"""Which particles become tracks, with which clusters, and how well their parameters are measured.

Geometry and efficiencies of a parametrised ITS2 and TPC; sources stand at each constant.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pidflow.simulate.helix import Floats, Helix
from pidflow.simulate.particles import TRACKED, Particles, charge_of, mass_of

PT_MIN = 0.1
ETA_MAX = 0.95

ITS_RADII = (2.34, 3.15, 3.93, 19.6, 24.55, 34.4, 39.3)
"""cm; ITS2 technical design report, J. Phys. G 41 (2014) 087002."""

ITS_STAVES = (12, 16, 20, 24, 30, 42, 48)
"""Staves per layer, same source; a track's local frame follows the stave of its innermost cluster."""

ITS_LAYER_EFFICIENCY = 0.98
ITS_MATCHING = 0.975
TPC_MATCHING = 0.98
TRACK_EFFICIENCY = 0.97
"""Chosen for the example."""

ITS_STANDALONE_CLUSTERS = 4
"""Fewest clusters of a track without TPC."""

TPC_ROWS = 152
TPC_ROW_RADII = (
    (0, 85.225),
    (62, 131.725),
    (63, 135.2),
    (96, 168.2),
    (97, 171.4),
    (126, 206.2),
    (127, 209.65),
    (151, 245.65),
)
"""Pad row and its radius in cm at the ends of the four pad sizes; AliceO2 ``GPU/GPUTracking``, ``GPUTPCGeometry.h``."""

TPC_HALF_LENGTH_CM = 250.0
"""Drift length of one half; ALICE upgrades, JINST 19 (2024) P05062."""

TPC_SECTORS = 18
TPC_DEAD_ZONE_CM = 1.5
"""Half width of the gap between two sectors' pads (chosen for the example)."""

TPC_MIN_CLUSTERS = 30
TPC_CLUSTER_EFFICIENCY = 0.975
"""Chosen for the example."""

ROWS_PER_STEP = 4
"""Rows between two points at which the path through the TPC is looked at."""

PT_RESOLUTION = (0.009, 0.0015)
"""Relative pT resolution with ITS and TPC: constant ⊕ slope·pT (GeV/c).

About 1 % at 1 GeV/c: ALICE performance, Int. J. Mod. Phys. A 29 (2014) 1430044.
"""

PT_RESOLUTION_ONE_DETECTOR = 3.0
"""Factor for a track that lacks the ITS or the TPC (chosen for the example)."""

DCA_RESOLUTION_CM = (0.0015, 0.0040)
"""Impact parameter resolution, constant ⊕ slope/pT: near 45 µm at 1 GeV/c (ITS2, as above)."""

ANGLE_RESOLUTION_RAD = 0.0004
"""Direction at the innermost cluster beyond what the impact parameter resolution holds (chosen for the example)."""

TPC_POSITION_RESOLUTION_CM = 0.1
"""Of a track without ITS at the inner TPC wall (chosen for the example)."""

KINK_ANGLE_RAD = 0.05
DECAY_MOMENTUM = {211: 0.0298, 321: 0.2356}
"""A decay whose typical kink, decay momentum over momentum, is smaller does not break the track.

Decay momentum of the muon in GeV/c: Particle Data Group, Phys. Rev. D 110 (2024) 030001.
"""

INTERACTION_PROBABILITY = {211: 0.05, 321: 0.05, 2212: 0.06, -2212: 0.10}
"""Hadronic interactions before the outer TPC radius, spread evenly in radius (chosen for the example)."""


@dataclass(frozen=True)
class Candidates:
    """Charged particles in the acceptance and their paths; arrays of shape (N,).

    Attributes
    ----------
    particle
        Row in the frame's particles.
    pdg, charge, mass, p, pt
        True values, GeV.
    helix
        True path.
    end
        Transverse arc length in cm at which it ends.
    """

    particle: NDArray[np.int64]
    pdg: NDArray[np.int32]
    charge: Floats
    mass: Floats
    p: Floats
    pt: Floats
    helix: Helix
    end: Floats

    def reaches(self, radius: float | Floats, half_length: float) -> tuple[NDArray[np.bool_], Floats]:
        """Tell who crosses a barrel of `half_length` (cm), and at which arc length."""
        s = self.helix.crossing(radius)
        finite = np.isfinite(s)
        safe = np.where(finite, s, 0.0)
        inside = np.abs(self.helix.z + safe * self.helix.tgl) < half_length
        return finite & inside & (s < self.end), safe

    def take(self, index: NDArray[np.generic]) -> Candidates:
        """Return the candidates at `index`."""
        return Candidates(
            self.particle[index],
            self.pdg[index],
            self.charge[index],
            self.mass[index],
            self.p[index],
            self.pt[index],
            self.helix.take(index),
            self.end[index],
        )


def candidates(particles: Particles, bz: float, rng: np.random.Generator) -> Candidates:
    """Return the particles that may leave a track in a field of `bz` kG."""
    px, py, pz = particles.momentum
    pt = np.hypot(px, py)
    transported = (particles.status == 1) | (particles.flags & 1 > 0)
    central = np.abs(pz) < np.sinh(ETA_MAX) * pt
    rows = np.flatnonzero(transported & np.isin(np.abs(particles.pdg), TRACKED) & (pt > PT_MIN) & central)
    chosen = particles.take(rows)
    p = np.sqrt(np.sum(chosen.momentum**2, axis=0))
    helix = chosen.helix(bz)
    flight = chosen.flight.copy()
    for code, star in DECAY_MOMENTUM.items():
        flight[(np.abs(chosen.pdg) == code) & (p > star / KINK_ANGLE_RAD)] = np.inf
    end = flight / np.sqrt(1 + helix.tgl**2)
    probability = np.zeros(len(rows))
    for code, value in INTERACTION_PROBABILITY.items():
        probability[np.abs(chosen.pdg) == code if code > 0 else chosen.pdg == code] = value
    radius = TPC_ROW_RADII[-1][1] * rng.random(len(rows))
    end = np.where(rng.random(len(rows)) < probability, np.minimum(end, helix.crossing(radius)), end)
    return Candidates(rows, chosen.pdg, charge_of(chosen.pdg), mass_of(chosen.pdg), p, pt[rows], helix, end)


@dataclass(frozen=True)
class Clusters:
    """What the ITS and the TPC saw of each candidate; arrays of shape (N,) unless said otherwise.

    Attributes
    ----------
    its
        Layers with a cluster, (7, N).
    innermost
        Radius of the innermost cluster or pad row, cm.
    findable, found, crossed, shared, pid
        TPC pad rows; all 0 without TPC.
    """

    its: NDArray[np.bool_]
    innermost: Floats
    findable: NDArray[np.int64]
    found: NDArray[np.int64]
    crossed: NDArray[np.int64]
    shared: NDArray[np.int64]
    pid: NDArray[np.int64]

    def take(self, index: NDArray[np.generic]) -> Clusters:
        """Return the clusters of the candidates at `index`."""
        return Clusters(
            self.its[:, index],
            self.innermost[index],
            self.findable[index],
            self.found[index],
            self.crossed[index],
            self.shared[index],
            self.pid[index],
        )


def find_clusters(tracks: Candidates, rng: np.random.Generator) -> Clusters:
    """Lay clusters along the paths and match the two detectors."""
    n = len(tracks.p)
    its = np.stack([tracks.reaches(radius, TPC_HALF_LENGTH_CM)[0] for radius in ITS_RADII])
    its &= rng.random(its.shape) < ITS_LAYER_EFFICIENCY
    its &= (np.sum(its, axis=0) >= 2) & (rng.random(n) < ITS_MATCHING)

    rows, innermost = _tpc_rows(tracks)
    findable = np.where(rng.random(n) < TPC_MATCHING, rows, 0)
    findable[findable < TPC_MIN_CLUSTERS] = 0
    found = rng.binomial(findable, TPC_CLUSTER_EFFICIENCY - 0.002 / tracks.pt)
    crossed = found + rng.binomial(findable - found, 0.7)
    shared = rng.binomial(found, 0.01 * rng.random(n) ** 4 * 10)
    pid = rng.binomial(found, 0.96)

    with_its = its.any(axis=0)
    innermost = np.where(with_its, np.array(ITS_RADII)[np.argmax(its, axis=0)], innermost)
    return Clusters(its, innermost, findable, found, crossed, shared, pid)


def reconstructed(clusters: Clusters, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Tell which candidates the track finding delivers."""
    enough = (clusters.findable > 0) | (np.sum(clusters.its, axis=0) >= ITS_STANDALONE_CLUSTERS)
    found: NDArray[np.bool_] = enough & (rng.random(len(clusters.found)) < TRACK_EFFICIENCY)
    return found


def _tpc_rows(tracks: Candidates) -> tuple[NDArray[np.int64], Floats]:
    """Return the number of pad rows that the path crosses on active pads, and the first radius."""
    row_numbers, row_radii = np.array(TPC_ROW_RADII).T
    steps = np.interp(np.arange(ROWS_PER_STEP / 2, TPC_ROWS, ROWS_PER_STEP), row_numbers, row_radii)
    rows = np.zeros(len(tracks.p), dtype=np.int64)
    first = np.full(len(tracks.p), steps[-1])
    for radius in steps[::-1]:
        there, s = tracks.reaches(radius, TPC_HALF_LENGTH_CM)
        x, y, _, _ = tracks.helix.at(s)
        active = there & (distance_to_sector_edge(x, y, TPC_SECTORS) > TPC_DEAD_ZONE_CM)
        rows += ROWS_PER_STEP * active
        first[active] = radius
    return rows, first


def distance_to_sector_edge(x: Floats, y: Floats, sectors: int) -> Floats:
    """Return the distance in cm along the azimuth to the nearest of `sectors` boundaries."""
    width = 2 * np.pi / sectors
    local = np.mod(np.arctan2(y, x), width)
    return np.hypot(x, y) * np.minimum(local, width - local)


@dataclass(frozen=True)
class Parameters:
    """Measured O2 track parameters at the innermost update; arrays of shape (N,).

    Attributes
    ----------
    x, y, z
        cm, in the frame turned by `alpha`.
    alpha
        rad.
    snp, tgl, signed_1pt
        sin φ in the local frame, tan λ, and charge over pT in c/GeV.
    """

    x: Floats
    alpha: Floats
    y: Floats
    z: Floats
    snp: Floats
    tgl: Floats
    signed_1pt: Floats

    @property
    def p(self) -> Floats:
        """Measured momentum, GeV/c."""
        return np.sqrt(1 + self.tgl**2) / np.abs(self.signed_1pt)


def measure(tracks: Candidates, clusters: Clusters, rng: np.random.Generator) -> tuple[Parameters, NDArray[np.bool_]]:
    """Return the smeared parameters, and which of them the local frame can hold (|snp| < 1)."""
    n = len(tracks.p)
    s = tracks.helix.crossing(clusters.innermost)
    x, y, z, phi = tracks.helix.at(np.where(np.isfinite(s), s, 0.0))
    layer = np.argmax(clusters.its, axis=0)
    with_its, with_tpc = clusters.its.any(axis=0), clusters.findable > 0
    staves = np.where(with_its, np.array(ITS_STAVES)[layer], TPC_SECTORS)
    width = 2 * np.pi / staves
    alpha = (np.floor(np.arctan2(y, x) / width) + 0.5) * width

    constant, slope = PT_RESOLUTION
    one_detector = np.where(with_its & with_tpc, 1.0, PT_RESOLUTION_ONE_DETECTOR)
    relative = one_detector * np.hypot(constant, slope * tracks.pt) * rng.normal(size=n)
    constant, slope = DCA_RESOLUTION_CM
    width_cm = np.where(with_its, np.hypot(constant, slope / tracks.pt), TPC_POSITION_RESOLUTION_CM)
    sideways, along = width_cm * rng.normal(size=(2, n))
    turn, tilt = ANGLE_RESOLUTION_RAD * one_detector * np.hypot(1, 0.5 / tracks.pt) * rng.normal(size=(2, n))

    direction = phi - alpha
    cos = np.cos(direction)
    parameters = Parameters(
        x=x * np.cos(alpha) + y * np.sin(alpha),
        alpha=np.mod(alpha + np.pi, 2 * np.pi) - np.pi,
        y=y * np.cos(alpha) - x * np.sin(alpha) + sideways / np.maximum(cos, 0.1),
        z=z + along,
        snp=np.sin(direction + turn),
        tgl=tracks.helix.tgl + tilt,
        signed_1pt=tracks.charge / (tracks.pt * np.maximum(1 + relative, 0.1)),
    )
    return parameters, np.isfinite(s) & (cos > 0.05) & (np.cos(direction + turn) > 0.02)
