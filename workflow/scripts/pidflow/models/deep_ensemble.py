"""Average of feature-set networks that differ by their seed, and their spread as an uncertainty."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from pidflow.models import fse
from pidflow.models.base import Fitting, Floats, ModelSettings, Tracks
from pidflow.models.members import Members


class Settings(ModelSettings):
    """Average of feature-set networks that differ by their seed."""

    kind: Literal["deep_ensemble"] = "deep_ensemble"
    members: Annotated[int, Field(ge=2)] = Field(3, description="networks")
    network: fse.Settings = Field(default_factory=fse.Settings, description="each of them")


class Model(Members[Settings]):
    """Networks trained one after the other. Source: B. Lakshminarayanan et al., NeurIPS 2017, arXiv:1612.01474."""

    Settings = Settings
    has_spread = True

    def fit(self, train: Tracks, validation: Tracks, fitting: Fitting) -> None:
        """Train the members; each has its own checkpoint."""
        settings, equal = self.settings.network, np.full(len(self.info.species), 1.0 / self.settings.members)
        names = [f"seed{number}" for number in range(self.settings.members)]
        for number, name in enumerate(names):
            update = {"kind": "fse", "seed": self.info.seed + number, "settings": settings.model_dump(mode="json")}
            info = self.info.model_copy(update=update)
            member = fse.Model(info, self.folder_of(name))
            checkpoint = fitting.checkpoint.with_name(f"{fitting.checkpoint.name}.{name}")
            member.fit(train, validation, replace(fitting, checkpoint=checkpoint))
            info.write(member.folder)
        self.write(dict.fromkeys(names, equal))

    def spread(self, features: Floats) -> Floats:
        """Return the standard deviation of the members' certainties, float32 [N, S]."""
        scores: Floats = np.stack([member.score(features) for member, _ in self.members.values()])
        spread: Floats = scores.std(axis=0, ddof=1)
        return spread
