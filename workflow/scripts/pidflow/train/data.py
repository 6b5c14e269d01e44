"""Tracks as arrays for training and scoring."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pidflow.errors import PidflowError

_BATCH_ROWS = 100_000


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


def matrix(table: pa.Table, features: Sequence[str]) -> NDArray[np.float32]:
    """Return the features of a table as float32 [N, F], NaN for null."""
    if not features:
        return np.empty((table.num_rows, 0), dtype=np.float32)
    return np.stack([table[name].cast(pa.float32()).to_numpy() for name in features], axis=1)


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


def batches(path: str | Path, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield the rows of a dataset in order, in tables of bounded size."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_BATCH_ROWS, columns=list(columns)):
            yield pa.Table.from_batches([batch])
