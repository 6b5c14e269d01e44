"""A random forest for all species together, missing values handled by the trees."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from pidflow.blocks import Count, Fraction
from pidflow.models import base
from pidflow.models.base import Fitting, Floats

if TYPE_CHECKING:
    from pidflow.models.base import Tracks
    from pidflow.train.trees import Forest

FOREST_FILE = "forest.safetensors"


class Settings(base.ModelSettings):
    """A random forest; a track's certainty is the mean share of the species in the leaves that it reaches."""

    kind: Literal["random_forest"] = "random_forest"
    trees: Count = Field(100, description="trees")
    min_leaf: Count = Field(10, description="fewest training tracks in a leaf")
    max_features: Literal["sqrt", "log2"] | Fraction | None = Field(
        "sqrt", description="features tried at a split: root or logarithm of their number, a share; null: all"
    )
    tracks: Count = Field(200_000, description="most training tracks drawn for a tree")


class Model(base.Model[Settings]):
    """A random forest of scikit-learn, kept as flat arrays."""

    Settings = Settings

    def fit(self, train: Tracks, validation: Tracks, fitting: Fitting) -> None:
        from sklearn.ensemble import RandomForestClassifier

        from pidflow.train.trees import from_sklearn

        species = len(self.info.species)
        label = np.where(train.labels.any(axis=1), train.labels.argmax(axis=1), species)
        # scikit-learn refuses a read-only map of a file
        features = np.require(train.features, requirements="W")
        classifier = RandomForestClassifier(
            self.settings.trees,
            min_samples_leaf=self.settings.min_leaf,
            max_features=self.settings.max_features,
            max_samples=min(self.settings.tracks, len(train)),
            n_jobs=fitting.threads,
            random_state=self.info.seed,
        ).fit(features, label, train.weights)
        from_sklearn(classifier, range(species)).save(self.folder / FOREST_FILE)

    def score(self, features: Floats) -> Floats:
        return self._forest.certainty(features)

    def graph(self, number: int) -> Any:
        return self._forest.graph(len(self.info.features), number)

    @cached_property
    def _forest(self) -> Forest:
        from pidflow.train.trees import load

        return load(self.folder / FOREST_FILE)
