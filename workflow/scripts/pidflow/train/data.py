"""Tracks as arrays for training, mapped from a file: memory holds only the pages in use."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pidflow.errors import PidflowError
from pidflow.identity import uniform
from pidflow.models.base import Floats, Tracks
from pidflow.parquet import batches, matrix
from pidflow.tracks import WEIGHT


def read_tracks(
    path: str | Path, split: str, features: Sequence[str], species: Sequence[int], *, fraction: float = 1.0
) -> Tracks:
    """Read one set of a labelled dataset.

    Parameters
    ----------
    path
        Dataset.
    split
        ``train``, ``validation`` or ``test``.
    features, species
        Columns and PDG codes.
    fraction
        Share of the set's collisions to read; a smaller share is part of a larger one.

    Raises
    ------
    PidflowError
        If the set is empty or lacks one of the species.
    """
    codes = np.array(species)
    weighted = WEIGHT.name in pq.read_schema(path).names

    def label(table: pa.Table) -> NDArray[np.uint8]:
        pdg = pc.fill_null(table["pdg_code"], 0).to_numpy()
        labels: NDArray[np.uint8] = (pdg[:, None] == codes).astype(np.uint8)
        return labels

    def weight(table: pa.Table) -> Floats:
        return matrix(table, [WEIGHT.name])[:, 0]

    columns = [*features, "pdg_code", *([WEIGHT.name] if weighted else [])]
    functions = (lambda t: matrix(t, features), label, *((weight,) if weighted else ()))
    values, labels, *weights = _mapped(path, split, columns, fraction, *functions)
    for code, count in zip(species, np.count_nonzero(labels, axis=0), strict=True):
        if count == 0:
            raise PidflowError(
                f"{path}: no {split} track of species {code}; add simulation or remove it from 'species'"
            )
    return Tracks(values, labels, weights[0] / weights[0].mean() if weights else None)


def read_features(path: str | Path, split: str, features: Sequence[str]) -> Floats:
    """Read the features of one set of a dataset without any label, float32 [N, F]."""
    return _mapped(path, split, features, 1.0, lambda table: matrix(table, features))[0]


def _mapped(
    path: str | Path,
    split: str,
    columns: Sequence[str],
    fraction: float,
    *functions: Callable[[pa.Table], NDArray[Any]],
) -> list[NDArray[Any]]:
    """Return arrays [N, …] made of a set's rows by functions, mapped from nameless files of the temporary folder."""
    rows, parts = 0, []
    with contextlib.ExitStack() as stack:
        # the mappings outlive the files
        files: list[BinaryIO] = [stack.enter_context(tempfile.TemporaryFile()) for _ in functions]
        for table in batches(path, [*dict.fromkeys((*columns, "split", "collision_id"))]):
            table = table.filter(pc.field("split") == split)
            if fraction < 1.0:
                table = table.filter(pa.array(uniform(table["collision_id"].to_numpy(), "fraction") < fraction))
            rows += table.num_rows
            parts = [np.ascontiguousarray(function(table)) for function in functions]
            for file, part in zip(files, parts, strict=True):
                file.write(part.data)
        if not parts:
            raise PidflowError(f"{path}: the dataset is empty; build it again")
        if not rows:
            return parts
        return [
            # a private mapping: tensors want writable memory
            np.asarray(np.memmap(file, part.dtype, "c", shape=(rows, *part.shape[1:])))
            for file, part in zip(files, parts, strict=True)
        ]


def read_columns(path: str | Path, split: str, columns: Sequence[str]) -> dict[str, Floats]:
    """Read further columns of one set of a dataset, float32 [N] each by name, rows as those of `read_tracks`.

    Raises
    ------
    PidflowError
        If the dataset lacks a column.
    """

    def reader(name: str) -> Callable[[pa.Table], NDArray[Any]]:
        return lambda table: matrix(table, [name])[:, 0]

    if not columns:
        return {}
    if lacking := sorted(set(columns) - set(pq.read_schema(path).names)):
        raise PidflowError(f"{path}: no column {', '.join(lacking)}; choose columns that datasets have")
    arrays = _mapped(path, split, columns, 1.0, *(reader(name) for name in columns))
    return dict(zip(columns, arrays, strict=True))
