"""Tracks as arrays for training, mapped from a file: memory holds only the pages in use."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pidflow.errors import PidflowError
from pidflow.identity import uniform
from pidflow.models.base import Floats, Tracks
from pidflow.parquet import batches, matrix


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

    def label(table: pa.Table) -> Floats:
        pdg = pc.fill_null(table["pdg_code"], 0).to_numpy()
        labels: Floats = (pdg[:, None] == codes).astype(np.float32)
        return labels

    columns = [*features, "pdg_code"]
    values, labels = _mapped(
        path, split, columns, fraction, (len(features), lambda table: matrix(table, features)), (len(species), label)
    )
    for code, count in zip(species, np.count_nonzero(labels, axis=0), strict=True):
        if count == 0:
            raise PidflowError(
                f"{path}: no {split} track of species {code}; add simulation or remove it from 'species'"
            )
    return Tracks(values, labels)


def read_features(path: str | Path, split: str, features: Sequence[str]) -> Floats:
    """Read the features of one set of a dataset without any label, float32 [N, F]."""
    return _mapped(path, split, features, 1.0, (len(features), lambda table: matrix(table, features)))[0]


def _mapped(
    path: str | Path, split: str, columns: Sequence[str], fraction: float,
    *parts: tuple[int, Callable[[pa.Table], Floats]],
) -> list[Floats]:  # fmt: skip
    """Return arrays made of a set's rows, by width and function, mapped from nameless files of the temporary folder."""
    rows = 0
    with contextlib.ExitStack() as stack:
        # the mappings outlive the files
        files: list[BinaryIO] = [stack.enter_context(tempfile.TemporaryFile()) for _ in parts]
        for table in batches(path, [*dict.fromkeys((*columns, "split", "collision_id"))]):
            table = table.filter(pc.field("split") == split)
            if fraction < 1.0:
                table = table.filter(pa.array(uniform(table["collision_id"].to_numpy(), "fraction") < fraction))
            rows += table.num_rows
            for file, (_, function) in zip(files, parts, strict=True):
                file.write(np.ascontiguousarray(function(table)).data)
        if not rows:
            return [np.empty((0, width), dtype=np.float32) for width, _ in parts]
        return [
            # a private mapping: tensors want writable memory
            np.asarray(np.memmap(file, np.float32, "c", shape=(rows, width)))
            for file, (width, _) in zip(files, parts, strict=True)
        ]
