"""Reading of Parquet tables in pieces, and as matrices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pidflow.errors import PidflowError

_BATCH_ROWS = 100_000


def batches(path: str | Path, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Yield the rows of a file in order, in tables of bounded size; None: all columns."""
    # buffered in advance, all row groups would be in memory at once
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for batch in file.iter_batches(_BATCH_ROWS, columns=None if columns is None else list(columns)):
            yield pa.Table.from_batches([batch])


def require(path: str | Path, columns: Sequence[str]) -> None:
    """Refuse a file of this workflow that lacks a column.

    Raises
    ------
    PidflowError
        If there is one.
    """
    present = set(pq.read_schema(path).names)
    if missing := [name for name in columns if name not in present]:
        raise PidflowError(f"{path} lacks column '{missing[0]}'; make the file again with the current configuration")


def matrix(table: pa.Table, columns: Sequence[str]) -> NDArray[np.float32]:
    """Return columns of a table as float32 [N, F], NaN for null."""
    if not columns:
        return np.empty((table.num_rows, 0), dtype=np.float32)
    return np.stack([table[name].cast(pa.float32()).to_numpy() for name in columns], axis=1)
