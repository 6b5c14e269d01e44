"""The parametrised central barrel: from particles to the columns of the track and collision trees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pidflow.response import expected_time
from pidflow.simulate import ao2d
from pidflow.simulate.helix import Floats
from pidflow.simulate.particles import PHYSICAL_PRIMARY, PROPERTIES, Particles
from pidflow.simulate.shifts import Conditions
from pidflow.simulate.signals import EVENT_TIME_PS, its_cluster_sizes, outer_path, tof, tpc_signal, trd
from pidflow.simulate.tracking import (
    Candidates,
    Clusters,
    Parameters,
    candidates,
    find_clusters,
    measure,
    reconstructed,
)

ORPHAN_SHARE = 0.015
"""Tracks that no collision claims."""

FAKE_SHARE = 0.007
UNLABELLED_SHARE = 0.003
"""Tracks whose label is another particle's, and whose label is lost (all chosen for the example)."""

VERTEX_RESOLUTION_CM = (0.006, 0.006, 0.008)
"""For one contributor; falls with the root of their number (chosen for the example)."""

REFIT_SPREAD = 0.003
"""Relative spread between the momentum at the vertex, at the TPC and on the way to the TOF (chosen for the example)."""

CHI2_DEGREES = {"fITSChi2NCl": 7, "fTPCChi2NCl": 60}
"""χ² per cluster follows a χ² distribution with this many degrees of freedom, scaled to 1 (chosen for the example)."""


@dataclass(frozen=True)
class Reconstructed:
    """Tracks and collisions of one data frame.

    Attributes
    ----------
    track, extra, collisions
        Leaves of ``O2track_iu``, ``O2trackextra_002`` and (those that are not 0) ``O2collision_001``.
    label, mask
        Leaves of ``O2mctracklabel``.
    """

    track: dict[str, NDArray[Any]]
    extra: dict[str, NDArray[Any]]
    collisions: dict[str, NDArray[Any]]
    label: NDArray[np.int64]
    mask: NDArray[np.int64]


def reconstruct(
    particles: Particles, vertices: Floats, bz: float, state: Conditions, rng: np.random.Generator
) -> Reconstructed:
    """Reconstruct a data frame.

    Parameters
    ----------
    particles
        All particles of the frame after transport.
    vertices
        True (4, events) positions in cm and times in ps.
    bz
        Field along z in kG.
    state
        Detector conditions.
    rng
        Source of randomness.
    """
    paths = candidates(particles, bz, rng)
    clusters = find_clusters(paths, rng)
    parameters, representable = measure(paths, clusters, rng)
    found = np.flatnonzero(reconstructed(clusters, rng) & representable)
    event = particles.event[paths.particle[found]].astype(np.int64)
    collision = np.where(rng.random(len(found)) < ORPHAN_SHARE, ao2d.NO_INDEX, event)
    order = np.argsort(collision, kind="stable")
    found, collision = found[order], collision[order]
    paths, clusters = paths.take(found), clusters.take(found)
    parameters = Parameters(**{name: values[found] for name, values in vars(parameters).items()})

    primary = particles.flags[paths.particle] & PHYSICAL_PRIMARY > 0
    contributes = primary & (collision >= 0)
    track = {
        "fIndexCollisions": collision,
        "fTrackType": np.zeros(len(found)),
        "fX": parameters.x,
        "fAlpha": parameters.alpha,
        "fY": parameters.y,
        "fZ": parameters.z,
        "fSnp": parameters.snp,
        "fTgl": parameters.tgl,
        "fSigned1Pt": parameters.signed_1pt,
    }
    flags = (ao2d.PION << ao2d.PID_SHIFT) + ao2d.PV_CONTRIBUTOR * contributes + ao2d.ORPHAN_TRACK * (collision < 0)
    extra = {"fFlags": flags} | _signals(paths, clusters, parameters, particles.time[paths.particle], state, rng)
    label, mask = _labels(paths.particle, particles, rng)
    return Reconstructed(track, extra, _collisions(vertices, collision[contributes], rng), label, mask)


def _signals(
    paths: Candidates,
    clusters: Clusters,
    parameters: Parameters,
    start: Floats,
    state: Conditions,
    rng: np.random.Generator,
) -> dict[str, NDArray[Any]]:
    n = len(paths.p)
    absent = np.full(n, np.nan)
    with_its, with_tpc = clusters.its.any(axis=0), clusters.findable > 0
    chi2 = {name: rng.chisquare(degrees, n) / degrees for name, degrees in CHI2_DEGREES.items()}
    outer = outer_path(paths, rng)
    pattern, trd_signal = trd(outer, with_tpc, state, rng)
    hits = tof(outer, start, (with_tpc, pattern > 0), state, rng)
    inner, mean = parameters.p * (1 + REFIT_SPREAD * rng.normal(size=(2, n)))
    mean = ao2d.stored("fTOFExpMom", np.where(hits.matched, mean, np.nan)).astype(np.float64)
    length = ao2d.stored("fLength", np.where(hits.matched, hits.length, np.nan)).astype(np.float64)
    pion = expected_time(length, mean, PROPERTIES[211].mass)
    return {
        "fTPCInnerParam": np.where(with_tpc, inner, 0.0),
        "fITSClusterSizes": its_cluster_sizes(paths, clusters, rng),
        "fTPCNClsFindable": clusters.findable,
        "fTPCNClsFindableMinusFound": clusters.findable - clusters.found,
        "fTPCNClsFindableMinusPID": clusters.findable - clusters.pid,
        "fTPCNClsFindableMinusCrossedRows": clusters.findable - clusters.crossed,
        "fTPCNClsShared": clusters.shared,
        "fTRDPattern": pattern,
        "fITSChi2NCl": np.where(with_its, chi2["fITSChi2NCl"], np.nan),
        "fTPCChi2NCl": np.where(with_tpc, chi2["fTPCChi2NCl"], np.nan),
        "fTRDChi2": np.where(pattern > 0, rng.chisquare(6, n), np.nan),
        "fTOFChi2": np.where(hits.matched, rng.chisquare(2, n) * np.where(hits.mismatched, 3.0, 1.0), np.nan),
        "fTPCSignal": tpc_signal(paths, clusters, state, rng),
        "fTRDSignal": trd_signal,
        "fLength": length,
        "fTOFExpMom": mean,
        "fTrackEtaEMCAL": absent,
        "fTrackPhiEMCAL": absent,
        "fTrackTime": np.where(hits.matched, (hits.time - pion) / 1000, np.nan),
        "fTrackTimeRes": np.where(hits.matched, 0.2, np.nan),
    }


def _labels(
    particle: NDArray[np.int64], particles: Particles, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the labels, some of them another track's of the neighbourhood and marked as fake, some lost."""
    draw = rng.random(len(particle))
    fake = draw < FAKE_SHARE
    label = np.where(fake, np.roll(particle, 1), particle)
    label[draw > 1 - UNLABELLED_SHARE] = ao2d.NO_INDEX
    return label, np.where(fake, ao2d.FAKE_LABEL, 0)


def _collisions(vertices: Floats, contributors: NDArray[np.int64], rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    events = vertices.shape[1]
    number = np.bincount(contributors, minlength=events)
    width = np.array(VERTEX_RESOLUTION_CM)[:, None] / np.sqrt(np.maximum(number, 1))
    position = vertices[:3] + width * rng.normal(size=(3, events))
    time = vertices[3] + EVENT_TIME_PS * rng.normal(size=events)
    return {
        "fPosX": position[0],
        "fPosY": position[1],
        "fPosZ": position[2],
        "fCovXX": width[0] ** 2,
        "fCovYY": width[1] ** 2,
        "fCovZZ": width[2] ** 2,
        "fChi2": rng.chisquare(np.maximum(2 * number, 1)),
        "fNumContrib": number,
        "fCollisionTime": time / 1000,
        "fCollisionTimeRes": np.full(events, EVENT_TIME_PS / 1000),
    }
