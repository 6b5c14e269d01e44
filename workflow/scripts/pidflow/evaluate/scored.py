"""A dataset and the scores of its tracks, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pidflow.errors import PidflowError
from pidflow.scores import certainty_column
from pidflow.tracks import BY_NAME, ROW_ID


@dataclass(frozen=True)
class ScoredTracks:
    """Tracks with a certainty per species.

    Attributes
    ----------
    species
        PDG codes, in the order of the certainties.
    certainty
        Shape (n_tracks, n_species), in [0, 1]; NaN where the method cannot score the track.
    columns
        Columns of the dataset, by name, each of length n_tracks.
    """

    species: tuple[int, ...]
    certainty: NDArray[np.float32]
    columns: pa.Table

    def floats(self, name: str) -> NDArray[np.float64]:
        """Return a column, shape (n_tracks,), in its unit; NaN for null."""
        return np.asarray(self.columns[name].cast(pa.float64()).to_numpy())

    def is_true(self, pdg: int) -> NDArray[np.bool_]:
        """Return which tracks are of the species, shape (n_tracks,); a null PDG code is of none."""
        return np.asarray(pc.fill_null(pc.equal(self.columns["pdg_code"], pdg), False).to_numpy())


def read_scored(
    dataset: str | Path, scores: str | Path, species: Sequence[int], columns: Sequence[str], split: str | None = "test"
) -> ScoredTracks:
    """Read columns of a dataset with the scores of the same tracks.

    Parameters
    ----------
    dataset, scores
        Parquet files, aligned row by row.
    species
        PDG codes whose certainties are read.
    columns
        Columns of the dataset to read.
    split
        Set to keep; None keeps all tracks.

    Raises
    ------
    PidflowError
        If the files do not hold the same tracks in the same order, lack a column, or have no
        track in the set.
    """
    certainties = [certainty_column(pdg) for pdg in species]
    _require(dataset, [*ROW_ID, "split", *columns])
    _require(scores, [*ROW_ID, *certainties])
    _require_same_rows(dataset, scores)
    tracks = pq.read_table(dataset, columns=[*columns, "split"])
    certainty = pq.read_table(scores, columns=certainties)
    if split is not None:
        kept = pc.equal(tracks["split"], split)
        tracks, certainty = tracks.filter(kept), certainty.filter(kept)
    if tracks.num_rows == 0:
        raise PidflowError(f"{dataset} holds no track of split '{split or 'any'}'; give the run more or larger files")
    values = np.stack([certainty[name].cast(pa.float32()).to_numpy() for name in certainties], axis=1)
    return ScoredTracks(tuple(species), values, tracks.select(list(columns)))


def _require(path: str | Path, names: Sequence[str]) -> None:
    present = set(pq.read_schema(path).names)
    if missing := [name for name in names if name not in present]:
        raise PidflowError(f"{path} lacks column '{missing[0]}'; make the file again with the current configuration")


def _require_same_rows(dataset: str | Path, scores: str | Path) -> None:
    for name in ROW_ID:
        dtype = BY_NAME[name].dtype
        ours, theirs = (pq.read_table(path, columns=[name])[name].cast(dtype) for path in (dataset, scores))
        if not ours.equals(theirs):
            raise PidflowError(
                f"{scores} does not score the tracks of {dataset} row by row ('{name}' differs); score it again"
            )
