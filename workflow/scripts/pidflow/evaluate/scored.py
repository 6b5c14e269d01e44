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
from pidflow.parquet import require
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

    def take(self, rows: NDArray[np.intp]) -> ScoredTracks:
        """Return the tracks at `rows`, shape (n_kept,), in that order."""
        return ScoredTracks(self.species, self.certainty[rows], self.columns.take(pa.array(rows)))


@dataclass(frozen=True)
class Tracks:
    """Tracks of a dataset, to be joined to the scores of several methods.

    Attributes
    ----------
    path
        File of the dataset.
    ids
        Columns that identify a row, of all tracks.
    kept
        Which tracks are of the wanted set, shape (n_rows,).
    columns
        Columns of those, by name.
    """

    path: str | Path
    ids: pa.Table
    kept: pa.Array
    columns: pa.Table

    def scored(self, scores: str | Path, species: Sequence[int]) -> ScoredTracks:
        """Return the tracks with their certainties.

        Parameters
        ----------
        scores
            Score table (Parquet), aligned row by row with the dataset.
        species
            PDG codes whose certainties are read.

        Raises
        ------
        PidflowError
            If the table lacks a column or does not hold the same tracks in the same order.
        """
        certainties = [certainty_column(pdg) for pdg in species]
        require(scores, [*ROW_ID, *certainties])
        table = pq.read_table(scores, columns=[*ROW_ID, *certainties], read_dictionary=["source"])
        for name in ROW_ID:
            if not self.ids[name].equals(_id(table, name)):
                raise PidflowError(
                    f"{scores} does not score the tracks of {self.path} row by row ('{name}' differs); score it again"
                )
        table = table.filter(self.kept)
        values = np.stack([table[name].cast(pa.float32()).to_numpy() for name in certainties], axis=1)
        return ScoredTracks(tuple(species), values, self.columns)


def read_tracks(dataset: str | Path, columns: Sequence[str], split: str | None = "test") -> Tracks:
    """Read columns of a dataset.

    Parameters
    ----------
    dataset
        Parquet file.
    columns
        Columns to read.
    split
        Set to keep; None keeps all tracks.

    Raises
    ------
    PidflowError
        If the file lacks a column or has no track in the set.
    """
    names = list(dict.fromkeys([*ROW_ID, "split", *columns]))
    require(dataset, names)
    table = pq.read_table(dataset, columns=names, read_dictionary=["source"])
    kept = pc.equal(table["split"], split) if split else pa.array(np.ones(table.num_rows, bool))
    tracks = table.select(list(columns)).filter(kept)
    if tracks.num_rows == 0:
        raise PidflowError(f"{dataset} holds no track of split '{split or 'any'}'; give the run more or larger files")
    return Tracks(dataset, pa.table({name: _id(table, name) for name in ROW_ID}), kept, tracks)


def read_scored(
    dataset: str | Path, scores: str | Path, species: Sequence[int], columns: Sequence[str], split: str | None = "test"
) -> ScoredTracks:
    """Read columns of a dataset with the scores of the same tracks (`read_tracks`, `Tracks.scored`)."""
    return read_tracks(dataset, columns, split).scored(scores, species)


def _id(table: pa.Table, name: str) -> pa.ChunkedArray:
    return table[name].cast(BY_NAME[name].dtype)
