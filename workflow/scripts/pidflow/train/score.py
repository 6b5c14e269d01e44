"""Scoring of a dataset with any model."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pidflow.files import replacing
from pidflow.models import load
from pidflow.parquet import batches, matrix
from pidflow.scores import CARRIED, schema


def score_dataset(folder: str | Path, dataset: str | Path, output: str | Path, *, threads: int) -> None:
    """Write the score table of a dataset.

    Parameters
    ----------
    folder
        Model directory.
    dataset
        Dataset (Parquet).
    output
        Score table (`pidflow.scores`), row by row as the dataset.
    threads
        Threads of the model's library.
    """
    model = load(folder, threads)
    model.prepare(dataset)
    columns = schema(model.info.species, spread=model.has_spread)
    read = tuple(dict.fromkeys((*CARRIED, *model.info.features)))
    settings = {"compression": "zstd", "use_dictionary": ["source", "split"]}
    with replacing(output) as temporary, pq.ParquetWriter(temporary, columns, **settings) as writer:
        for table in batches(dataset, read):
            features = matrix(table, model.info.features)
            parts = [model.score(features), *([model.spread(features)] if model.has_spread else [])]
            numbers = [pa.array(values, from_pandas=True) for part in parts for values in part.T]
            arrays = [*(table[name] for name in CARRIED), *numbers]
            writer.write_table(pa.Table.from_arrays(arrays, names=columns.names).cast(columns))
