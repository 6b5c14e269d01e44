"""Track-table columns that follow from track parameters and the collision vertex."""

from __future__ import annotations

import numpy as np

from pidflow.ingest.helix import Array, TrackParameters, propagate_to_vertex
from pidflow.ingest.reader import Columns


def kinematics(parameters: TrackParameters, vertex: Array, bz: float) -> Columns:
    """Return momentum, position and impact parameters at the closest approach to the vertex.

    Parameters
    ----------
    parameters
        Tracks anywhere on their helix, [n].
    vertex
        Vertex of each track, cm, float64 [n, 3].
    bz
        Field along the beam in kG, with its sign.

    Notes
    -----
    Formulas of the dynamic columns of ``Tracks`` in AliceO2 ``AnalysisDataModel.h``.
    """
    at = propagate_to_vertex(parameters, vertex, bz)
    pt = 1.0 / np.abs(parameters.q_over_pt)
    return {
        "p": pt * np.sqrt(1.0 + parameters.tgl * parameters.tgl),
        "pt": pt,
        "px": pt * at.cos_alpha,
        "py": pt * at.sin_alpha,
        "pz": pt * parameters.tgl,
        "eta": np.arcsinh(parameters.tgl),
        "phi": np.where(at.alpha < 0, at.alpha + 2.0 * np.pi, at.alpha),
        "sign": np.where(parameters.q_over_pt > 0, 1, -1).astype(np.int8),
        "x": at.x,
        "y": at.y,
        "z": at.z,
        "alpha": at.alpha,
        "dca_xy": at.dca_xy,
        "dca_z": at.dca_z,
    }
