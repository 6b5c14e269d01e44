"""Tracks as arrays for training and scoring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pidflow.errors import PidflowError
from pidflow.parquet import matrix


@dataclass(frozen=True)
class Tracks:
    """A set of tracks.

    Attributes
    ----------
    features
        float32 [N, F], NaN where missing.
    labels
        float32 [N, S], 1 where the track is of the species.
    """

    features: NDArray[np.float32]
    labels: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.features)


def read_tracks(path: str | Path, split: str, features: Sequence[str], species: Sequence[int]) -> Tracks:
    """Read one set of a labelled dataset.

    Raises
    ------
    PidflowError
        If the set is empty or lacks one of the species.
    """
    table = pq.read_table(path, columns=[*features, "pdg_code"], filters=pc.field("split") == split)
    pdg = pc.fill_null(table["pdg_code"], 0).to_numpy()
    labels = (pdg[:, None] == np.array(species)).astype(np.float32)
    for code, count in zip(species, labels.sum(axis=0), strict=True):
        if count == 0:
            raise PidflowError(
                f"{path}: no {split} track of species {code}; add simulation or remove it from 'species'"
            )
    return Tracks(matrix(table, features), labels)


def read_features(path: str | Path, split: str, features: Sequence[str]) -> NDArray[np.float32]:
    """Read the features of one set of a dataset without any label, float32 [N, F]."""
    return matrix(pq.read_table(path, columns=list(features), filters=pc.field("split") == split), features)
