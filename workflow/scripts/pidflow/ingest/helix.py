"""Propagation of track parameters along the exact helix to the collision vertex."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pidflow.physics import CURVATURE_PER_KG

Array = NDArray[np.float64]

_STRAIGHT = 1e-9
"""Curvature in 1/cm (a radius of 10 000 km) below which a track is a straight line."""


@dataclass(frozen=True)
class TrackParameters:
    """Parameters of tracks anywhere on their helix; float64 arrays [n].

    Attributes
    ----------
    x, y, z, alpha
        Local position in cm, and angle of the local frame in rad.
    snp, tgl, q_over_pt
        Sine of the angle to the local x axis, tangent of the dip angle, and charge over transverse
        momentum in e/(GeV/c).
    """

    x: Array
    y: Array
    z: Array
    alpha: Array
    snp: Array
    tgl: Array
    q_over_pt: Array

    def __getitem__(self, chosen: Any) -> TrackParameters:
        """Return the parameters of some tracks (slice, mask or indices)."""
        return TrackParameters(*(getattr(self, field.name)[chosen] for field in fields(self)))

    def usable(self) -> NDArray[np.bool_]:
        """Return which tracks have finite parameters and a charge."""
        finite = np.logical_and.reduce([np.isfinite(getattr(self, field.name)) for field in fields(self)])
        usable: NDArray[np.bool_] = finite & (self.q_over_pt != 0)
        return usable


@dataclass(frozen=True)
class TrackAtVertex:
    """Parameters at the point of closest approach in the transverse plane; float64 arrays [n].

    Attributes
    ----------
    x, y, z
        Position in cm, in the local frame that is turned by `alpha`.
    alpha, cos_alpha, sin_alpha
        Direction of the track in the transverse plane, rad in [-π, π]: the local x axis lies along
        the track there, as after O2's ``propagateToDCA``.
    dca_xy, dca_z
        Distance from the vertex along local y, and along the beam, cm.
    """

    x: Array
    y: Array
    z: Array
    alpha: Array
    cos_alpha: Array
    sin_alpha: Array
    dca_xy: Array
    dca_z: Array


def propagate_to_vertex(parameters: TrackParameters, vertex: Array, bz: float) -> TrackAtVertex:
    """Move tracks to their closest approach to the vertex in the transverse plane.

    Parameters
    ----------
    parameters
        Tracks, [n].
    vertex
        Vertex of each track in the laboratory, cm, float64 [n, 3].
    bz
        Field along the beam in kG, with its sign.

    Notes
    -----
    The direction turns by ``curvature`` per unit of transverse path, with curvature
    ``CURVATURE_PER_KG · bz · q/pT``. On the circle, the closest point lies on the line from the
    centre to the vertex, which gives direction and path in closed form. Material is neglected.
    """
    sin_alpha, cos_alpha = np.sin(parameters.alpha), np.cos(parameters.alpha)
    snp = np.clip(parameters.snp, -1.0, 1.0)
    csp = np.sqrt((1.0 - snp) * (1.0 + snp))
    cos_phi, sin_phi = cos_alpha * csp - sin_alpha * snp, sin_alpha * csp + cos_alpha * snp
    vertex_x, vertex_y, vertex_z = vertex[:, 0], vertex[:, 1], vertex[:, 2]
    offset_x = parameters.x * cos_alpha - parameters.y * sin_alpha - vertex_x
    offset_y = parameters.x * sin_alpha + parameters.y * cos_alpha - vertex_y
    along = offset_x * cos_phi + offset_y * sin_phi
    across = offset_y * cos_phi - offset_x * sin_phi
    curvature = CURVATURE_PER_KG * bz * parameters.q_over_pt
    straight = np.abs(curvature) < _STRAIGHT
    safe = np.where(straight, 1.0, curvature)

    # the centre as seen from the vertex, times the curvature: finite for stiff tracks too;
    # along and across the direction of the track: (c·along, 1 + c·across)
    centre_along, centre_across = safe * along, 1.0 + safe * across
    distance = np.sqrt(centre_along * centre_along + centre_across * centre_across)
    cos_turn = np.where(straight, 1.0, centre_across / distance)
    sin_turn = np.where(straight, 0.0, -centre_along / distance)
    path = np.where(straight, -along, np.arctan2(sin_turn, cos_turn) / safe)
    # signed distance of the vertex from the circle, (|centre| − 1)/c, free of cancellation for large radii
    dca_curved = (safe * (along * along + across * across) + 2.0 * across) / (1.0 + distance)
    dca_xy = np.where(straight, across, dca_curved)

    z_dca = parameters.z + parameters.tgl * path
    cos_dca = cos_phi * cos_turn - sin_phi * sin_turn
    sin_dca = sin_phi * cos_turn + cos_phi * sin_turn
    return TrackAtVertex(
        x=vertex_x * cos_dca + vertex_y * sin_dca,
        y=-vertex_x * sin_dca + vertex_y * cos_dca + dca_xy,
        z=z_dca,
        alpha=np.arctan2(sin_dca, cos_dca),
        cos_alpha=cos_dca,
        sin_alpha=sin_dca,
        dca_xy=dca_xy,
        dca_z=z_dca - vertex_z,
    )
