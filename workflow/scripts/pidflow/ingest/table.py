"""Writing of the track table: complete columns, nulls for what is missing, streamed in row groups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pidflow.files import replacing, sha256
from pidflow.origin import as_metadata
from pidflow.tracks import schema

READER_VERSION = 1
_ROWS_PER_GROUP = 50_000


def to_table(columns: Mapping[str, np.ndarray[Any, Any]]) -> pa.Table:
    """Return a track table of the columns given, each [n]; a column that is absent becomes null.

    NaN in a float column becomes null; a masked array's masked entries too.
    """
    length = len(next(iter(columns.values())))
    arrays = []
    for field in schema():
        values = columns.get(field.name)
        if values is None:
            arrays.append(pa.nulls(length, field.type))
            continue
        mask = np.ma.getmaskarray(values) if np.ma.isMaskedArray(values) else None
        data = np.ma.getdata(values)
        arrays.append(pa.array(data, mask=mask, from_pandas=True, safe=False).cast(field.type, safe=False))
    return pa.Table.from_arrays(arrays, schema=schema())


def write_tracks(
    tables: Iterable[pa.Table], output: str | Path, source_file: str | Path, counts: dict[str, int]
) -> None:
    """Stream track tables into one Parquet file.

    Parameters
    ----------
    tables
        Tables of the track schema, for instance one per data frame.
    output
        Parquet file, written under its final name when complete.
    source_file
        Input file; its name and SHA-256 go into the metadata.
    counts
        What the reader saw and dropped; read after the last table.
    """
    settings = {"compression": "zstd", "compression_level": 1, "use_dictionary": ["source"]}
    with replacing(output) as temporary, pq.ParquetWriter(temporary, schema(), **settings) as writer:
        pending: list[pa.Table] = []
        for table in tables:
            pending.append(table)
            if sum(part.num_rows for part in pending) >= _ROWS_PER_GROUP:
                writer.write_table(pa.concat_tables(pending))
                pending = []
        if pending:
            writer.write_table(pa.concat_tables(pending))
        origin = {
            "source": str(source_file),
            "sha256": sha256(source_file),
            "reader_version": READER_VERSION,
            "counts": counts,
        }
        writer.add_key_value_metadata(as_metadata(origin))
