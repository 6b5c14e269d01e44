"""Closure on pseudo-data: its truth, kept in separate files, joined to the selected tracks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pidflow.errors import PidflowError
from pidflow.files import replacing
from pidflow.tracks import DATASET_COLUMNS, schema

_TRUTH = ("pdg_code", "is_physical_primary", "mother_pdg_code")


def attach_truth(dataset: str | Path, truth: Mapping[str, str], output: str | Path) -> None:
    """Write a copy of the data's dataset with the truth filled in.

    Parameters
    ----------
    dataset
        Dataset of the pseudo-data.
    truth
        Truth file (Parquet, keyed by ``data_frame`` and ``row``) by the data file's name.
    output
        Dataset with labels.

    Raises
    ------
    PidflowError
        If a selected track has no row in the truth.
    """
    tracks = pq.read_table(dataset).drop_columns(list(_TRUTH))
    tracks = tracks.append_column("position", pa.array(range(tracks.num_rows), pa.int64()))
    parts = []
    for source, path in truth.items():
        table = pq.read_table(path, columns=["data_frame", "row", *_TRUTH])
        parts.append(table.append_column("source", pa.array([source] * table.num_rows, pa.string())))
    keys = ["source", "data_frame", "row"]
    joined = tracks.join(pa.concat_tables(parts).append_column("known", pa.array([True] * sum(map(len, parts)))), keys)
    if joined["known"].null_count:
        raise PidflowError(
            f"{dataset}: {joined['known'].null_count} tracks are not in the truth files; make them again"
        )
    columns = schema(DATASET_COLUMNS)
    with replacing(output) as temporary:
        pq.write_table(joined.sort_by("position").select(columns.names).cast(columns), temporary, compression="zstd")
