"""A multilayer perceptron, with the ways of the published study to treat missing values."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from pidflow.blocks import Count
from pidflow.models.network import NetworkModel, NetworkSettings, Share


class Settings(NetworkSettings):
    """Multilayer perceptron on imputed values, or on complete tracks alone."""

    kind: Literal["mlp"] = "mlp"
    missing: Literal["mean", "regression", "delete"] = Field(
        "mean", description="missing values: the mean, a linear prediction from the others, or no such track at all"
    )
    hidden: tuple[Count, ...] = Field((64, 32, 16), description="hidden widths", min_length=1)
    dropout: Share = Field(0.1, description="dropout")


class Model(NetworkModel[Settings]):
    """A perceptron on imputed values."""

    Settings = Settings

    @property
    def complete_only(self) -> bool:  # type: ignore[override]
        """Whether only tracks that lack no feature are fitted and scored."""
        return self.settings.missing == "delete"

    def build(self) -> Any:
        """Return the untrained network."""
        from pidflow.networks.mlp import ImputedPerceptron, MeanImputation, RegressionImputation

        features, species = len(self.info.features), len(self.info.species)
        impute = RegressionImputation if self.settings.missing == "regression" else MeanImputation
        return ImputedPerceptron(impute(features), features, self.settings.hidden, species, self.settings.dropout)
