"""Propagation of track parameters along the exact helix to the collision vertex."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pidflow.physics import CURVATURE_PER_KG

Array = NDArray[np.float64]

_STRAIGHT = 1e-9
"""Curvature in 1/cm (a radius of 10 000 km) below which a track is a straight line."""


@dataclass(frozen=True)
class TrackAtVertex:
    """Parameters at the point of closest approach in the transverse plane; float64 arrays [n].

    Attributes
    ----------
    x, y, z
        Position in cm, in the local frame that is turned by `alpha`.
    alpha
        Direction of the track in the transverse plane, rad in [-π, π): the local x axis lies along
        the track there, as after O2's ``propagateToDCA``.
    dca_xy, dca_z
        Distance from the vertex along local y, and along the beam, cm.
    """

    x: Array
    y: Array
    z: Array
    alpha: Array
    dca_xy: Array
    dca_z: Array


def _wrap(angle: Array) -> Array:
    return (angle + np.pi) % (2.0 * np.pi) - np.pi


def propagate_to_vertex(
    *, x: Array, y: Array, z: Array, alpha: Array, snp: Array, tgl: Array, q_over_pt: Array, vertex: Array, bz: float
) -> TrackAtVertex:
    """Move tracks to their closest approach to the vertex in the transverse plane.

    Parameters
    ----------
    x, y, z, alpha
        Local position (cm) and frame angle (rad), float64 [n].
    snp, tgl, q_over_pt
        Sine of the angle to the local x axis, tangent of the dip angle, and charge over transverse
        momentum in e/(GeV/c), float64 [n].
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
    sin_alpha, cos_alpha = np.sin(alpha), np.cos(alpha)
    global_x, global_y = x * cos_alpha - y * sin_alpha, x * sin_alpha + y * cos_alpha
    phi = alpha + np.arcsin(np.clip(snp, -1.0, 1.0))
    offset_x, offset_y = global_x - vertex[:, 0], global_y - vertex[:, 1]
    curvature = CURVATURE_PER_KG * bz * q_over_pt
    straight = np.abs(curvature) < _STRAIGHT
    safe = np.where(straight, 1.0, curvature)

    # the centre as seen from the vertex, times the curvature: finite for stiff tracks too
    centre_x = offset_x * safe - np.sin(phi)
    centre_y = offset_y * safe + np.cos(phi)
    phi_curved = np.arctan2(-centre_x, centre_y)
    path_curved = _wrap(phi_curved - phi) / safe
    # signed distance of the vertex from the circle, free of cancellation for large radii:
    # with u the offset, |centre|² − 1 = c²u² + 2c(u_y cos φ − u_x sin φ)
    excess = safe * (safe * (offset_x**2 + offset_y**2) + 2.0 * (offset_y * np.cos(phi) - offset_x * np.sin(phi)))
    dca_curved = excess / ((1.0 + np.hypot(centre_x, centre_y)) * safe)

    path_straight = -(offset_x * np.cos(phi) + offset_y * np.sin(phi))
    dca_straight = offset_y * np.cos(phi) - offset_x * np.sin(phi)

    phi_dca = _wrap(np.where(straight, phi, phi_curved))
    dca_xy = np.where(straight, dca_straight, dca_curved)
    path = np.where(straight, path_straight, path_curved)
    z_dca = z + tgl * path
    cos_dca, sin_dca = np.cos(phi_dca), np.sin(phi_dca)
    return TrackAtVertex(
        x=vertex[:, 0] * cos_dca + vertex[:, 1] * sin_dca,
        y=-vertex[:, 0] * sin_dca + vertex[:, 1] * cos_dca + dca_xy,
        z=z_dca,
        alpha=phi_dca,
        dca_xy=dca_xy,
        dca_z=z_dca - vertex[:, 2],
    )
