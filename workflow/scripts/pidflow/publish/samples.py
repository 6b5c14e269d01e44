"""Tracks on which an exported graph has to agree with its model: every detector pattern and every odd value."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pidflow.errors import PidflowError
from pidflow.parquet import matrix
from pidflow.tracks import BY_NAME, O2_MASKED

Floats = NDArray[np.float32]

_EDGES = (0.0, 1e30, -1e30, 3e38, -3e38, -999.0, np.inf, -np.inf)
_DETECTORS = ("its", "tpc", "trd", "tof")
_SPREAD = 1.5


def patterns(features: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return the positions of the features that are missing, by pattern.

    First every combination of what O2Physics itself masks, then every set of whole detectors. A pattern that leaves
    no feature at all is not one that a track can have.
    """
    masked = {f"{name} masked": {*columns} & {*features} for name, columns in O2_MASKED.items()}
    absent = {f"no {name}": {f for f in features if BY_NAME[f].detector == name} for name in _DETECTORS}
    found: dict[frozenset[str], str] = {frozenset(): "complete"}
    for groups in (masked, absent):
        touched = {name: columns for name, columns in groups.items() if columns}
        for count in range(1, len(touched) + 1):
            for names in combinations(touched, count):
                missing = frozenset().union(*(touched[name] for name in names))
                if len(missing) < len(features):
                    found.setdefault(missing, ", ".join(names))
    return {
        name: tuple(index for index, feature in enumerate(features) if feature in missing)
        for missing, name in found.items()
    }


def around(observed: Floats, rows: int, seed: int) -> Floats:
    """Return generated tracks [rows, F], none of which lacks a value, spread wider than observed ones [n, F]."""
    generator = np.random.default_rng(seed)
    with warnings.catch_warnings():
        # a feature that none of the tracks has
        warnings.simplefilter("ignore", RuntimeWarning)
        mean, std = (np.nan_to_num(part) for part in (np.nanmean(observed, axis=0), np.nanstd(observed, axis=0)))
    generated: Floats = (mean + _SPREAD * std * generator.standard_normal((rows, mean.size))).astype(np.float32)
    return generated


def from_dataset(path: str | Path, features: Sequence[str], rows: int) -> Floats:
    """Return the features of the first tracks of a dataset [≤ rows, F], NaN where null.

    Raises
    ------
    PidflowError
        If the dataset lacks a feature.
    """
    with pq.ParquetFile(path) as table:
        if absent := [name for name in features if name not in table.schema_arrow.names]:
            raise PidflowError(f"{path}: it has no column {absent[0]}; build the dataset again")
        batch = next(table.iter_batches(batch_size=rows, columns=list(features)), None)
    if batch is None:
        return np.empty((0, len(features)), np.float32)
    return matrix(pa.Table.from_batches([batch]), features)


def with_missing(values: Floats, missing: Sequence[int]) -> Floats:
    """Return a copy of tracks [n, F] without the features at these positions."""
    copy = values.copy()
    copy[:, list(missing)] = np.nan
    return copy


def mixed(values: Floats, missing: Sequence[Sequence[int]], rows: int) -> Floats:
    """Return tracks [rows, F], repeated as need be, whose pattern changes from row to row."""
    tiled = np.resize(values, (rows, values.shape[1]))
    for index, positions in enumerate(missing):
        tiled[index :: len(missing), list(positions)] = np.nan
    return tiled


def edges(track: Floats) -> Floats:
    """Return odd variants of one track [F]: each odd value in one feature and in all, NaN in one feature."""
    rows = [np.full_like(track, value) for value in _EDGES]
    for index in range(track.size):
        for value in (*_EDGES, np.nan) if track.size > 1 else _EDGES:
            row = track.copy()
            row[index] = value
            rows.append(row)
    return np.stack(rows)
