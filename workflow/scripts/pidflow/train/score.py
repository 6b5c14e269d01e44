"""Scoring of a dataset with any model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pidflow.files import replacing
from pidflow.model import ModelInfo, read_info
from pidflow.parquet import batches, matrix
from pidflow.scores import CARRIED, schema

Scorer = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def load_scorer(folder: str | Path, info: ModelInfo, threads: int) -> Scorer:
    """Return the function that turns features float32 [N, F] into certainties float32 [N, S]."""
    if info.kind == "fse":
        import torch

        from pidflow.train import network as fse
        from pidflow.train.engine import predict

        torch.set_num_threads(threads)
        module = torch.nn.Sequential(fse.load(folder), torch.nn.Sigmoid())
        return lambda features: predict(module, features)
    if info.kind == "gbdt":
        from pidflow.train import gbdt

        return gbdt.Scorer(folder, info)
    from pidflow.train import nsigma

    return nsigma.Scorer(info)


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
        Threads of the tensor library.
    """
    info = read_info(folder)
    scorer = load_scorer(folder, info, threads)
    columns = schema(info.species)
    read = tuple(dict.fromkeys((*CARRIED, *info.features)))
    settings = {"compression": "zstd", "use_dictionary": ["source", "split"]}
    with replacing(output) as temporary, pq.ParquetWriter(temporary, columns, **settings) as writer:
        for table in batches(dataset, read):
            certainty = scorer(matrix(table, info.features))
            scored = [table[name] for name in CARRIED] + [pa.array(values) for values in certainty.T]
            writer.write_table(pa.Table.from_arrays(scored, names=columns.names).cast(columns))
