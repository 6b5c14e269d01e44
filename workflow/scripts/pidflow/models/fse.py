"""Feature-set embedding with a transformer encoder and attention pooling, EPJC 84 (2024) 691."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from pidflow.blocks import Block, Count
from pidflow.models.network import NetworkModel, NetworkSettings, Share


class Sizes(Block):
    """The feature-set network: sizes of the published model."""

    embedding_hidden: Count = Field(128, description="hidden width of the feature-set embedding")
    width: Count = Field(32, description="width of a token")
    layers: Count = Field(2, description="encoder layers")
    heads: Count = Field(2, description="attention heads")
    feed_forward: Count = Field(128, description="hidden width of an encoder layer")
    pooling_hidden: Count = Field(64, description="hidden width of the attention pooling")
    classifier_hidden: Count = Field(64, description="hidden width of the classifier")
    dropout: Share = Field(0.0, description="dropout; 0.1 in the publication, without an average of weights")
    encoding: Literal["linear", "piecewise", "periodic"] = Field("linear", description="encoding of a value")
    encoding_size: Count = Field(16, description="bins or frequencies of the encoding")

    @model_validator(mode="after")
    def _whole_heads(self) -> Self:
        if self.width % self.heads:
            raise ValueError("'width' must be a multiple of 'heads'")
        return self


class Settings(NetworkSettings):
    """Feature-set embedding with a transformer encoder and attention pooling."""

    kind: Literal["fse"] = "fse"
    network: Sizes = Field(default_factory=Sizes, description="architecture")


class Model(NetworkModel[Settings]):
    """One trunk for all species, one head each; missing values are absent tokens."""

    Settings = Settings

    def build(self) -> Any:
        """Return the untrained network."""
        from pidflow.networks.fse import Encoder, FeatureSetNetwork

        sizes = self.settings.network
        encoder = Encoder(len(self.info.features), **sizes.model_dump(exclude={"classifier_hidden"}))
        return FeatureSetNetwork(encoder, len(self.info.species), sizes.classifier_hidden, sizes.dropout)
