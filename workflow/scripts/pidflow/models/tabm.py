"""TabM: many perceptrons in one, on piecewise-linear encodings, with the mask of missing values as input."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from pidflow.blocks import Count
from pidflow.models.network import NetworkModel, NetworkSettings, Share


class Settings(NetworkSettings):
    """Many perceptrons in one (TabM) on encoded values and the mask of missing ones."""

    kind: Literal["tabm"] = "tabm"
    members: Count = Field(16, description="perceptrons in one")
    hidden: tuple[Count, ...] = Field((128, 128), description="hidden widths", min_length=1)
    dropout: Share = Field(0.0, description="dropout")
    encoding: Literal["linear", "piecewise", "periodic"] = Field("piecewise", description="encoding of a value")
    encoding_size: Count = Field(16, description="bins or frequencies of the encoding")


class Model(NetworkModel[Settings]):
    """TabM with multiplicative adapters before the first layer."""

    Settings = Settings

    def build(self) -> Any:
        """Return the untrained network."""
        from pidflow.networks.tabm import TabM

        options = self.settings.model_dump(include={"members", "hidden", "dropout", "encoding", "encoding_size"})
        return TabM(len(self.info.features), len(self.info.species), **options)
