"""What every model that is a network has in common."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import Field

from pidflow.blocks import Block, Count, NotNegative, Positive
from pidflow.models.base import Fitting, Floats, Model, ModelSettings, Tracks

Share = Annotated[float, Field(ge=0, lt=1)]


class Optimisation(Block):
    """Training of a network."""

    batch: Count = Field(128, description="tracks per step")
    epochs: Count = Field(12, description="most passes over the training set")
    patience: Count = Field(5, description="epochs without a better validation loss before stopping")
    learning_rate: Positive = Field(2e-3, description="peak learning rate")
    weight_decay: NotNegative = Field(1e-4, description="AdamW weight decay")
    average: Share = Field(
        0.998, description="decay per step of the weights' moving average, which becomes the model; 0: none"
    )
    hide_detector: Share = Field(
        0.0, description="probability that training hides a detector from a track, so that it can vanish later"
    )
    balance_species: NotNegative = Field(
        0.0, description="weight of a species' tracks: others per own to this power; undone in its certainties"
    )
    flatten_pt: NotNegative = Field(
        0.0, description="weight of a track: density of its pT to minus this power, which leaves certainties alone"
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="arithmetic of matrix products in training"
    )


class NetworkSettings(ModelSettings):
    """Settings of any network."""

    optimisation: Optimisation = Field(default_factory=Optimisation, description="training")
    calibration: Literal["pattern", "none"] = Field(
        "pattern", description="scale logits on validation tracks, per species and detector pattern"
    )
    init_from: str | None = Field(
        None, description="start from these weights: a model directory, a publication, or a registry's folder"
    )
    transfer: Literal["whole", "frozen", "layerwise"] = Field(
        "whole",
        description="what such a start trains: all, the heads alone, or all with smaller steps before the heads",
    )


S = TypeVar("S", bound=NetworkSettings)


class NetworkModel(Model[S]):
    """A network from raw features to one logit per species; a subclass says which.

    Attributes
    ----------
    complete_only
        Whether only tracks that lack no feature are fitted and scored.
    """

    is_network: ClassVar[bool] = True
    complete_only: bool = False

    @abstractmethod
    def build(self) -> Any:
        """Return the untrained network.

        A torch module from raw features float32 [N, F] with NaN where a value is missing to logits
        float32 [N, S], with a method ``adjust(features)`` that fits its constants to the training set.
        In training it may return several answers, [N, K, S]: each is fitted.
        """

    def fit(self, train: Tracks, validation: Tracks, fitting: Fitting) -> None:
        """Train the network; write its weights and ``history.parquet``."""
        from pidflow.train.network import fit_network

        fit_network(self, train, validation, fitting)

    @cached_property
    def trained(self) -> Any:
        """The calibrated network in evaluation mode (`pidflow.networks.calibration.Calibrated`)."""
        from pidflow.train.network import load_network

        return load_network(self)

    def score(self, features: Floats) -> Floats:
        """Return certainties float32 [N, S]; NaN for a track that the network does not take."""
        import numpy as np

        from pidflow.train.engine import predict

        certainty = predict(self.trained, features)
        if self.complete_only:
            certainty[np.isnan(features).any(axis=1)] = np.nan
        return certainty

    def graph(self, number: int) -> Any:
        """Return the ONNX graph of one species."""
        from pidflow.train.graph import network_graph

        return network_graph(self.trained, number, len(self.info.features))
