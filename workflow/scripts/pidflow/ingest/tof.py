"""Time of flight from what raw data holds: the hypothesis of the tracking, the event time, β."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pidflow.ingest.event_time import event_times
from pidflow.ingest.helix import Array
from pidflow.ingest.reader import Columns, masked_unless
from pidflow.physics import C_CM_PER_PS
from pidflow.response import expected_time

TRACKING_MASS = np.array(
    [0.51099895e-3, 0.1056583755, 0.13957039, 0.493677, 0.93827209, 1.87561294, 2.80892113, 2.80839161, 3.72737940]
)
"""GeV/c² by O2's PID index: e, μ, π, K, p, d, t, ³He, α (AliceO2 ``ReconstructionDataFormats/PID.h``)."""


def tracked_time(length: Array, momentum: Array, hypothesis: NDArray[np.integer]) -> Array:
    """Return the expected time in ps under the hypothesis that the tracking used.

    Parameters
    ----------
    length, momentum
        cm and GeV/c, float64 [n].
    hypothesis
        O2's PID index, [n]; bits 28 to 31 of ``fFlags``.
    """
    mass = TRACKING_MASS[np.minimum(hypothesis, len(TRACKING_MASS) - 1)]
    return expected_time(length, momentum, mass)


def tof_columns(
    present: NDArray[np.bool_],
    signal: Array,
    length: Array,
    momentum: Array,
    *,
    collision: NDArray[np.integer],
    collision_time: Array,
    collision_time_error: Array,
) -> Columns:
    """Return the TOF columns, masked where the track has no hit.

    Parameters
    ----------
    present
        Which tracks have a hit, bool [n].
    signal, length, momentum
        Measured time in ps, track length in cm, momentum of the expected time in GeV/c, of the tracks with a
        hit; float64 [k].
    collision
        Row of the collision of each track with a hit, [k].
    collision_time, collision_time_error
        Of each collision, ps, float64 [m]; an error that is not positive and finite means unknown.
    """
    event_time, error = event_times(signal, length, momentum, collision, collision_time, collision_time_error)
    with np.errstate(divide="ignore", invalid="ignore"):
        beta = length / (C_CM_PER_PS * (signal - event_time))
    columns = {
        "tof_signal": signal,
        "tof_event_time": event_time,
        "tof_event_time_error": error,
        "beta": beta,
        "tof_exp_mom": momentum,
        "length": length,
    }
    return {name: _spread(present, values) for name, values in columns.items()}


def _spread(present: NDArray[np.bool_], values: Array) -> NDArray[np.float64]:
    """Return values [k] of the tracks that are `present`, [n], masked elsewhere."""
    whole = np.zeros(len(present))
    whole[present] = values
    return masked_unless(present, whole)
