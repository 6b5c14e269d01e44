"""Signals of the ITS, TPC, TRD and TOF for reconstructed tracks.

Every width and efficiency has its source beside it; what is *chosen for the example* was set so that
the shares of detector patterns among selected tracks resemble those of ALICE's Run 3 data.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pidflow.physics import C_CM_PER_PS
from pidflow.response import TpcResponse
from pidflow.simulate.helix import Floats
from pidflow.simulate.shifts import Conditions
from pidflow.simulate.tracking import Candidates, Clusters, distance_to_sector_edge

TPC = TpcResponse(
    mip=50.0,
    bethe_bloch=(0.03209809958934784, 19.9768009185791, 2.5266601063857674e-16, 2.7212300300598145, 6.080920219421387),
    resolution=0.06,
    resolution_exponent=0.5,
)
"""Curve: defaults of O2Physics ``TPCPIDResponse.h``. Width: 5.5 to 7 % from peripheral to central
collisions, ALICE performance, Int. J. Mod. Phys. A 29 (2014) 1430044."""

TPC_TAIL = (0.02, 0.15)
"""Share of tracks with an exponential tail to high signals and its relative length (chosen for the example)."""

ITS_CLUSTER_SIZE = (1.2, 1.6)
"""Mean cluster size at normal incidence: constant + slope/β² (chosen for the example)."""

ITS_CLUSTER_SIZE_MAX = 15
"""Four bits per layer."""

TRD_RADII = (300.2, 312.8, 325.4, 338.0, 350.6, 363.2)
"""Middle of the six layers in cm, between 2.90 m and 3.68 m; ALICE TRD, Nucl. Instrum. Meth. A 881 (2018) 88."""

TRD_HALF_LENGTH_CM = 330.0
TRD_DEAD_ZONE_CM = 4.0
TRD_LAYER_EFFICIENCY = 0.92
TRD_MATCHING = 0.96
TRD_TURN_ON = (0.31, 0.05)
TRD_MIN_LAYERS = 2
"""Plateau, pT of the turn-on and its width in GeV/c, fewest tracklets (all chosen for the example)."""

TRD_HOLE_SECTORS = (13, 14, 15)
TRD_HOLE_HALF_LENGTH_CM = 57.0
"""The middle stack in front of PHOS is not installed (522 of 540 chambers, TRD paper above); length chosen
for the example."""

TRD_MIP = 30.0
TRD_WIDTH = 0.20
"""Signal of a minimum-ionising particle, and the relative width with six layers (chosen for the example)."""

TRD_TRANSITION = (0.6, 1000.0)
"""Transition radiation adds up to this share of the signal, with onset near this γ; shape after figures of the
TRD paper above, size chosen for the example."""

TOF_RADIUS_CM = 378.0
"""Middle of 370 to 385 cm; ALICE TOF, arXiv:1806.03825."""

TOF_HALF_LENGTH_CM = 371.0
TOF_DEAD_ZONE_CM = 5.0
TOF_MATCHING = 0.81
TOF_MATCHING_WITHOUT_TRD = 0.13
TOF_TURN_ON = (0.30, 0.10)
"""Plateau with and without a TRD track to extrapolate from; pT of the turn-on and its width, GeV/c.

Chosen for the example; matching is best from the TRD, next to the TOF.
"""

TOF_HIT_PS = 60.0
TOF_CALIBRATION_PS = 45.0
"""The hit (arXiv:1806.03825), and channel calibration and tracking, chosen so that both make the 75 ps measured in
pp of Run 3 (74.7 ± 2.3 ps, arXiv:2511.10311)."""

EVENT_TIME_PS = 25.0
"""Resolution of the collision time (chosen for the example)."""

TOF_MISMATCH = 0.03
"""Share of tracks matched to another particle's hit (chosen for the example)."""

OUTER_INTERACTION = {211: 0.10, 321: 0.10, 2212: 0.12, -2212: 0.18}
"""Hadronic interactions between TPC and TOF (chosen for the example)."""


def its_cluster_sizes(tracks: Candidates, clusters: Clusters, rng: np.random.Generator) -> NDArray[np.uint32]:
    """Return the packed cluster sizes, four bits per layer from the innermost up."""
    constant, slope = ITS_CLUSTER_SIZE
    inverse_beta2 = 1 + (tracks.mass / tracks.p) ** 2
    mean = (constant + slope * inverse_beta2) * np.sqrt(1 + tracks.helix.tgl**2)
    sizes = np.clip(1 + rng.poisson(np.minimum(mean, 40.0) - 1, clusters.its.shape), 1, ITS_CLUSTER_SIZE_MAX)
    packed = np.zeros(len(tracks.p), dtype=np.uint32)
    for layer, size in enumerate(sizes * clusters.its):
        packed |= size.astype(np.uint32) << np.uint32(4 * layer)
    return packed


def tpc_signal(tracks: Candidates, clusters: Clusters, state: Conditions, rng: np.random.Generator) -> Floats:
    """Return the truncated-mean dE/dx; NaN without TPC."""
    n = len(tracks.p)
    mean = np.array(TPC.signal(tracks.p, 1.0))
    for mass in np.unique(tracks.mass):
        own = tracks.mass == mass
        mean[own] = TPC.signal(tracks.p[own], float(mass))
    slant = 1 - 0.1 * tracks.helix.tgl**2
    width = TPC.sigma(mean, clusters.found) * slant * state.shift.resolution_scale
    share, length = TPC_TAIL
    tail = np.where(rng.random(n) < share, rng.exponential(length, n), 0.0)
    gain = state.shift.tpc_gain * (1 + state.shift.tpc_tilt * np.arcsinh(tracks.helix.tgl))
    signal = gain * np.maximum(mean * (1 + tail) + width * rng.normal(size=n), 5.0)
    return np.where(clusters.findable > 0, signal, np.nan)


def outer_path(tracks: Candidates, rng: np.random.Generator) -> Candidates:
    """Return `tracks`, some of them ended by an interaction between the TPC and the TOF."""
    probability = np.zeros(len(tracks.p))
    for code, value in OUTER_INTERACTION.items():
        probability[np.abs(tracks.pdg) == code if code > 0 else tracks.pdg == code] = value
    radius = rng.uniform(TRD_RADII[0], TOF_RADIUS_CM, len(tracks.p))
    stopped = np.where(rng.random(len(tracks.p)) < probability, tracks.helix.crossing(radius), np.inf)
    return replace(tracks, end=np.minimum(tracks.end, stopped))


def trd(
    tracks: Candidates, with_tpc: NDArray[np.bool_], state: Conditions, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], Floats]:
    """Return the bit map of layers with a tracklet and the signal (NaN where the map is empty)."""
    n = len(tracks.p)
    hits = np.zeros((len(TRD_RADII), n), dtype=bool)
    for layer, radius in enumerate(TRD_RADII):
        there, s = tracks.reaches(radius, TRD_HALF_LENGTH_CM)
        x, y, z, _ = tracks.helix.at(s)
        sector = np.floor(np.mod(np.arctan2(y, x), 2 * np.pi) / (2 * np.pi / 18)).astype(np.int64)
        active = distance_to_sector_edge(x, y, 18) > TRD_DEAD_ZONE_CM
        hole = np.isin(sector, TRD_HOLE_SECTORS) & (np.abs(z) < TRD_HOLE_HALF_LENGTH_CM)
        hits[layer] = there & active & ~hole & ~np.isin(sector, state.dead_trd_sectors)
    hits &= rng.random(hits.shape) < TRD_LAYER_EFFICIENCY
    efficiency = TRD_MATCHING * state.shift.matching * _turn_on(tracks.pt, TRD_TURN_ON)
    matched = with_tpc & (rng.random(n) < efficiency)
    layers = np.sum(hits, axis=0)
    matched &= layers >= TRD_MIN_LAYERS
    pattern = np.sum(hits * (1 << np.arange(len(TRD_RADII)))[:, None], axis=0)

    beta_gamma = tracks.p / tracks.mass
    share, onset = TRD_TRANSITION
    transition = share / (1 + (onset / beta_gamma) ** 2)
    mean = TRD_MIP * np.array(TPC.signal(beta_gamma, 1.0)) / TPC.mip * (1 + transition)
    width = TRD_WIDTH * np.sqrt(len(TRD_RADII) / np.maximum(layers, 1)) * state.shift.resolution_scale
    signal = mean * np.exp(width * rng.normal(size=n))
    return np.where(matched, pattern, 0).astype(np.uint8), np.where(matched, signal, np.nan)


def _turn_on(pt: Floats, shape: tuple[float, float]) -> Floats:
    centre, width = shape
    return 1 / (1 + np.exp(-(pt - centre) / width))


@dataclass(frozen=True)
class TofHits:
    """Matched TOF hits; arrays of shape (N,).

    Attributes
    ----------
    matched
        Whether the track has a hit.
    length
        Path from the beam line to the hit, cm, as the reconstruction integrates it.
    time
        Measured time after the bunch crossing, ps.
    mismatched
        Whether the hit is another particle's.
    """

    matched: NDArray[np.bool_]
    length: Floats
    time: Floats
    mismatched: NDArray[np.bool_]


def tof(
    tracks: Candidates,
    start: Floats,
    usable: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    state: Conditions,
    rng: np.random.Generator,
) -> TofHits:
    """Match tracks to TOF hits.

    Parameters
    ----------
    tracks
        Paths.
    start
        Production time after the bunch crossing, ps; shape (N,).
    usable
        Which tracks have the TPC and which the TRD.
    state
        Detector conditions.
    rng
        Source of randomness.
    """
    n = len(tracks.p)
    with_tpc, with_trd = usable
    there, s = tracks.reaches(TOF_RADIUS_CM, TOF_HALF_LENGTH_CM)
    x, y, _, _ = tracks.helix.at(s)
    active = distance_to_sector_edge(x, y, 18) > TOF_DEAD_ZONE_CM
    plateau = np.where(with_trd, TOF_MATCHING, TOF_MATCHING_WITHOUT_TRD)
    efficiency = state.shift.matching * plateau * _turn_on(tracks.pt, TOF_TURN_ON)
    matched = with_tpc & there & active & (rng.random(n) < efficiency)
    slant = np.sqrt(1 + tracks.helix.tgl**2)
    beta = 1 / np.sqrt(1 + (tracks.mass / tracks.p) ** 2)
    sigma = np.hypot(TOF_HIT_PS, TOF_CALIBRATION_PS) * state.shift.resolution_scale
    time = start + s * slant / (C_CM_PER_PS * beta) + sigma * rng.normal(size=n) + state.shift.tof_offset
    mismatched = matched & (rng.random(n) < TOF_MISMATCH)
    pool = time[matched]
    if len(pool):
        time[mismatched] = rng.choice(pool, int(mismatched.sum()))
    length = (s + np.hypot(tracks.helix.x, tracks.helix.y)) * slant
    return TofHits(matched, length, time, mismatched)
