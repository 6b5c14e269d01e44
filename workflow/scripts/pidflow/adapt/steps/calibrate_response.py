"""Response calibration: fit the detector's response to unlabelled data, then map and smear the simulation onto it.

For each signal an offset (a gain for a dE/dx) and a scale of the resolution, smooth in momentum, η and clusters; the
species' yields; the matching efficiencies. See `pidflow.adapt.response`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from pidflow.adapt.steps import base

if TYPE_CHECKING:
    import pyarrow as pa

    from pidflow.adapt.response.calibration import Calibration

Bins = Annotated[int, Field(ge=1, le=100)]


class Settings(base.StepSettings):
    """Calibration of the simulated response to data, by mixtures of the simulated species."""

    kind: Literal["calibrate_response"] = "calibrate_response"
    p_bins: Bins = Field(12, description="momentum bins of about equally many tracks, in which yields are free")
    eta_bins: Bins = Field(6, description="pseudorapidity bins")
    yields: bool = Field(True, description="weigh simulated species by their yields in data")
    matching: bool = Field(True, description="take TRD and TOF from simulated tracks at the data's rate")


class Step(base.SampleStep):
    """Maps, smears, masks and weighs simulated tracks."""

    Settings = Settings
    calibration: Calibration

    def fit(self, simulation: Path, data: Path, surroundings: base.Surroundings) -> dict[str, Any]:
        """Fit response, yields and matching efficiencies to training tracks."""
        from pidflow.adapt.response.calibration import fit_calibration

        self.calibration = fit_calibration(simulation, data, surroundings, self.settings)
        return self.calibration.plain()

    def varied(self, random: np.random.Generator) -> Step:
        """Return a step with response and yields drawn within their errors."""
        other = Step(self.settings)
        other.calibration = self.calibration.varied(random)
        return other

    def apply(self, table: pa.Table, random: np.random.Generator) -> pa.Table:
        """Return tracks with data's response, detectors and composition."""
        return self.calibration.apply(table, random)
