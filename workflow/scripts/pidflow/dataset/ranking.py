"""The result of the feature ranking, as it passes from the step that computes it to the one that draws it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pidflow.files import replacing

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Ranking:
    """Importance of features.

    Attributes
    ----------
    features
        Names, [F].
    share
        Share of the summed mean |SHAP| per fold, [folds, F].
    values
        SHAP values of held-out tracks of the last fold, [n, F, classes].
    inputs
        The same tracks' features, [n, F].
    classes
        |PDG code| per class; 0 stands for all other tracks.
    """

    features: tuple[str, ...]
    share: Array
    values: Array
    inputs: Array
    classes: tuple[int, ...]

    def write(self, path: str | Path) -> None:
        """Write the ranking as a NumPy archive."""
        with replacing(path) as temporary:
            np.savez_compressed(
                temporary,
                features=np.array(self.features),
                share=self.share,
                values=self.values,
                inputs=self.inputs,
                classes=np.array(self.classes),
            )

    @classmethod
    def read(cls, path: str | Path) -> Ranking:
        """Read a ranking that `write` left."""
        with np.load(path, allow_pickle=False) as archive:
            return cls(
                tuple(archive["features"].tolist()),
                archive["share"],
                archive["values"],
                archive["inputs"],
                tuple(archive["classes"].tolist()),
            )
