"""Writing of track tables: complete columns, nulls for what is missing, streamed in row groups."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pidflow.files import replacing
from pidflow.ingest.reader import Piece
from pidflow.origin import as_metadata
from pidflow.tracks import schema
from pidflow.v0s import schema as v0_schema

READER_VERSION = 2
_ROWS_PER_GROUP = 50_000
_TRACKS = schema()
_SETTINGS = {"compression": "lz4", "write_statistics": False, "store_schema": False}


def to_table(columns: Mapping[str, Any], fields: pa.Schema = _TRACKS) -> pa.Table:
    """Return a table of the columns given, each [n] or one text; a column that is absent becomes null.

    A value that is not finite becomes null, and masked entries of a masked array.

    Parameters
    ----------
    columns
        By name; ``row`` must be an array.
    fields
        Schema of the table, that of tracks unless said otherwise.
    """
    length = len(columns["row"])
    arrays = [
        _array(columns[field.name], field.type, length) if field.name in columns else pa.nulls(length, field.type)
        for field in fields
    ]
    return pa.Table.from_arrays(arrays, schema=fields)


def _array(values: Any, wanted: pa.DataType, length: int) -> pa.Array:
    if isinstance(values, str):
        text = values.encode()
        offsets = np.arange(length + 1, dtype=np.int32) * np.int32(len(text))
        return pa.Array.from_buffers(wanted, length, [None, pa.py_buffer(offsets), pa.py_buffer(text * length)])
    if pa.types.is_string(wanted):
        return pa.array(values.tolist(), wanted)
    data = np.ma.getdata(values)
    valid = ~np.ma.getmaskarray(values) if np.ma.isMaskedArray(values) else None
    if data.dtype.kind == "f":
        finite = np.isfinite(data)
        valid = finite if valid is None else valid & finite
        if not pa.types.is_floating(wanted):
            data = np.where(finite, data, 0)
    if pa.types.is_boolean(wanted):
        content = np.packbits(data != 0, bitorder="little")
    else:
        with np.errstate(over="ignore", invalid="ignore"):
            content = np.ascontiguousarray(data, dtype=wanted.to_pandas_dtype())
    bitmap = None if valid is None or valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(wanted, len(data), [bitmap, pa.py_buffer(content)])


class TrackWriter:
    """A track table and its table of V0 candidates, written beside their names and renamed when whole.

    Parameters
    ----------
    tracks, v0s
        Parquet files.
    """

    def __init__(self, tracks: str | Path, v0s: str | Path) -> None:
        self._stack = ExitStack()
        self._paths = tracks, v0s
        self._pending: list[pa.Table] = []
        self._filled: set[str] = set()

    def __enter__(self) -> Self:
        writers = []
        for path, columns in zip(self._paths, (_TRACKS, v0_schema()), strict=True):
            temporary = self._stack.enter_context(replacing(path))
            strings = [field.name for field in columns if pa.types.is_string(field.type)]
            writer = pq.ParquetWriter(temporary, columns, use_dictionary=strings, **_SETTINGS)
            writers.append(self._stack.enter_context(writer))
        self._tracks, self._v0s = writers
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def write(self, piece: Piece) -> None:
        """Write what one unit gave, in row groups of useful size."""
        self._pending.append(piece.tracks)
        columns = zip(piece.tracks.column_names, piece.tracks.columns, strict=True)
        self._filled.update(name for name, column in columns if column.null_count < len(column))
        if sum(table.num_rows for table in self._pending) >= _ROWS_PER_GROUP:
            self._flush()
        if piece.v0s is not None:
            self._v0s.write_table(piece.v0s)

    def _flush(self) -> None:
        if self._pending:
            self._tracks.write_table(pa.concat_tables(self._pending), row_group_size=_MAX_ROW_GROUP)
            self._pending = []

    def finish(self, origin: dict[str, Any]) -> None:
        """Write what is left, where it came from, and which columns of the tracks hold anything."""
        self._flush()
        origin = {**origin, "filled": sorted(self._filled)}
        for writer in (self._tracks, self._v0s):
            writer.add_key_value_metadata(as_metadata(origin))


_MAX_ROW_GROUP = 200_000
