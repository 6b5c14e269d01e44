"""How the detector of the pseudo-data differs from the simulated one.

All sizes are chosen for the example: *mild* is a calibration that was passed as good, *strong* a run
that was taken with a detector in trouble.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

ShiftName = Literal["none", "mild", "moderate", "strong"]

TRD_SECTORS = 18


@dataclass(frozen=True)
class Shift:
    """Differences of a detector from the simulated one.

    Attributes
    ----------
    tpc_gain
        Factor on the TPC signal.
    tpc_tilt
        Relative change of the TPC signal per unit of η.
    resolution_scale
        Factor on the widths of the TPC, TRD and TOF signals.
    tof_offset
        Added to every time of flight, ps.
    matching
        Factor on the TRD and TOF matching efficiency.
    dead_trd_sectors
        How many TRD sectors are off; which ones depends on the run.
    run_spread
        Relative spread from run to run of the gain's distance from 1, of the tilt and of the offset.
    """

    tpc_gain: float
    tpc_tilt: float
    resolution_scale: float
    tof_offset: float
    matching: float
    dead_trd_sectors: int
    run_spread: float


SHIFTS: dict[ShiftName, Shift] = {
    "none": Shift(1.0, 0.0, 1.0, 0.0, 1.0, 0, 0.0),
    "mild": Shift(0.97, 0.01, 1.1, 25.0, 0.93, 1, 0.1),
    "moderate": Shift(0.95, 0.02, 1.2, 40.0, 0.89, 2, 0.1),
    "strong": Shift(0.93, 0.03, 1.3, 60.0, 0.85, 3, 0.1),
}


@dataclass(frozen=True)
class Conditions:
    """State of the detector in one run and sample.

    Attributes
    ----------
    shift
        With its sizes as they are in this run.
    dead_trd_sectors
        Numbers of the TRD sectors that are off.
    """

    shift: Shift
    dead_trd_sectors: tuple[int, ...]


def conditions(name: ShiftName, run: int) -> Conditions:
    """Return the conditions of a run, the same for all its files."""
    shift = SHIFTS[name]
    rng = np.random.default_rng([run, shift.dead_trd_sectors])
    gain, tilt, offset = 1 + shift.run_spread * rng.normal(size=3)
    varied = Shift(
        tpc_gain=1 + (shift.tpc_gain - 1) * gain,
        tpc_tilt=shift.tpc_tilt * tilt,
        resolution_scale=shift.resolution_scale,
        tof_offset=shift.tof_offset * offset,
        matching=shift.matching,
        dead_trd_sectors=shift.dead_trd_sectors,
        run_spread=shift.run_spread,
    )
    dead = rng.permutation(TRD_SECTORS)[: shift.dead_trd_sectors]
    return Conditions(varied, tuple(sorted(int(sector) for sector in dead)))
