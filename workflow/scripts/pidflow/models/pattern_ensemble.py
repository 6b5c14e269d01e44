"""One perceptron per set of detectors that saw the track, as in the published study."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from pidflow.blocks import Count
from pidflow.models.network import NetworkModel, NetworkSettings, Share


class Settings(NetworkSettings):
    """One perceptron per set of detectors that saw the track."""

    kind: Literal["pattern_ensemble"] = "pattern_ensemble"
    hidden: tuple[Count, ...] = Field((64, 32, 16), description="hidden widths", min_length=1)
    dropout: Share = Field(0.1, description="dropout")


class Model(NetworkModel[Settings]):
    """Perceptrons that are trained side by side, each by its own tracks."""

    Settings = Settings

    def build(self) -> Any:
        """Return the untrained perceptrons."""
        from pidflow.networks.mlp import PatternEnsemble

        return PatternEnsemble(self.info.features, self.settings.hidden, len(self.info.species), self.settings.dropout)
