"""The classical selection: |nσ| of the TPC at low momentum, TPC and TOF combined above."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from pidflow.blocks import Positive
from pidflow.models import base
from pidflow.models.base import Fitting, Floats
from pidflow.physics import charge_sign, species_of

if TYPE_CHECKING:
    from pidflow.models.base import Tracks


class Settings(base.ModelSettings):
    """The classical cut: TPC below a momentum, TPC and TOF combined above."""

    kind: Literal["nsigma"] = "nsigma"
    n_sigma: Positive = Field(3.0, description="largest deviation accepted")
    tof_from: Annotated[float, Field(ge=0)] = Field(0.5, description="momentum from which TOF is used, GeV/c")
    require_tof: bool = Field(True, description="reject tracks without TOF above that momentum")


class Model(base.Model[Settings]):
    """Certainty 1/(1 + (nσ/cut)²), which is 0.5 at the cut and 0 where a required detector is missing.

    Notes
    -----
    nσ is |nσ_TPC| below the momentum ``tof_from`` and √(nσ_TPC² + nσ_TOF²) above, as in
    EPJC 84 (2024) 691, sect. 2. A track of the other charge gets 0, if charges are known.
    """

    Settings = Settings
    exported: ClassVar[bool] = False

    @classmethod
    def columns(cls, selected: Sequence[str], species: Sequence[int]) -> tuple[str, ...]:
        keys = dict.fromkeys(species_of(pdg).key for pdg in species)
        return ("p", "sign", *(f"{detector}_nsigma_{key}" for detector in ("tpc", "tof") for key in keys))

    def fit(self, train: Tracks, validation: Tracks, fitting: Fitting) -> None:
        """Do nothing: the response is in the columns."""

    def score(self, features: Floats) -> Floats:
        column = dict(zip(self.info.features, features.T.astype(np.float64), strict=True))
        certainties = []
        for pdg in self.info.species:
            key = species_of(pdg).key
            tpc, tof = np.abs(column[f"tpc_nsigma_{key}"]), np.abs(column[f"tof_nsigma_{key}"])
            alone = np.inf if self.settings.require_tof else tpc
            combined = np.where(np.isnan(tof), alone, np.hypot(tpc, tof))
            deviation = np.where(column["p"] < self.settings.tof_from, tpc, combined)
            certainty = 1.0 / (1.0 + (deviation / self.settings.n_sigma) ** 2)
            wrong_charge = column["sign"] * charge_sign(pdg) < 0
            certainties.append(np.where(np.isnan(deviation) | wrong_charge, 0.0, certainty))
        return np.stack(certainties, axis=1).astype(np.float32)
