"""From the track tables of a run to one dataset: selected, masked, with nσ and the split."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pidflow.config.models import Dataset
from pidflow.dataset.response import Response, read_response
from pidflow.dataset.selection import apply_masks, cut_results, require_columns
from pidflow.dataset.split import split_of
from pidflow.errors import PidflowError
from pidflow.files import read_json, replacing, write_json
from pidflow.parquet import batches
from pidflow.physics import SPECIES
from pidflow.tracks import DATASET_COLUMNS, DETECTOR_PATTERNS, schema


def build_dataset(
    tables: list[str | Path],
    response: str | Path,
    inputs: str | Path,
    output: str | Path,
    quality: str | Path,
    *,
    settings: Dataset,
) -> None:
    """Write a run's dataset and the account of what was kept.

    Parameters
    ----------
    tables
        Track tables of one sample of the run.
    response
        Fitted response (`pidflow.dataset.response`).
    inputs
        JSON of the sample's input files (`pidflow.ingest.inputs`).
    output
        Dataset, Parquet with `pidflow.tracks.DATASET_COLUMNS`.
    quality
        JSON: input files with checksums, files that were skipped and why, tracks after each cut, shares
        of detector patterns and sets.
    settings
        The ``dataset`` block of the configuration.

    Raises
    ------
    PidflowError
        If no track survives, or a cut needs a column that the input lacks.
    """
    require_columns(tables, settings.selection)
    expected, given = read_response(response), read_json(inputs)
    cut_flow: Counter[str] = Counter()
    patterns: Counter[str] = Counter()
    sets: Counter[str] = Counter()
    columns = schema(DATASET_COLUMNS)
    with replacing(output) as temporary:
        with pq.ParquetWriter(
            temporary, columns, compression="zstd", compression_level=1, use_dictionary=["source", "split"]
        ) as writer:
            for table in chain.from_iterable(batches(path) for path in tables):
                kept = np.ones(table.num_rows, dtype=bool)
                cut_flow["read"] += table.num_rows
                for name, passed in cut_results(table, settings.selection).items():
                    kept &= passed
                    cut_flow[name] += int(kept.sum())
                selected = _complete(table.filter(pa.array(kept)), expected, settings)
                patterns.update(_patterns(selected))
                sets.update(selected["split"].to_pylist())
                writer.write_table(selected.select(columns.names).cast(columns))
        if not sets:
            after = ", ".join(f"{name} {count}" for name, count in cut_flow.items()) or "none read"
            raise PidflowError(f"{tables[0]}: no track passes the selection ({after}); loosen 'dataset.selection'")
    total = sum(sets.values())
    write_json(
        quality,
        {
            "inputs": given["files"],
            "skipped": given["skipped"],
            "cut_flow": dict(cut_flow),
            "selected": total,
            "pattern_share": {name: patterns[name] / total for name in DETECTOR_PATTERNS},
            "sets": {name: sets[name] for name in ("train", "validation", "test")},
        },
    )


def _complete(table: pa.Table, response: Response, settings: Dataset) -> pa.Table:
    for name, values in n_sigma(table, response).items():
        table = table.append_column(name, pa.array(values, pa.float32(), from_pandas=True))
    split = split_of(table["collision_id"].to_numpy(), settings.split)
    return apply_masks(table.append_column("split", pa.array(split)), settings.masks)


def n_sigma(table: pa.Table, response: Response) -> dict[str, NDArray[np.float64]]:
    """Return nσ of every species for TPC and TOF, float64 [n], NaN where the detector has no signal."""

    def column(name: str) -> NDArray[Any]:
        values: NDArray[Any] = table[name].cast(pa.float64()).to_numpy()
        return values

    absent = np.full(table.num_rows, np.nan)
    # flat tables may lack the momentum at the inner wall; the vertex momentum stands in
    momentum = column("tpc_inner_param")
    momentum = np.where(np.isnan(momentum), column("p"), momentum)
    flight = column("tof_signal") - column("tof_event_time")
    result = {}
    for species in SPECIES:
        result[f"tpc_nsigma_{species.key}"] = (
            absent
            if response.tpc is None
            else response.tpc.n_sigma(column("tpc_signal"), momentum, column("tpc_n_cls_found"), species.mass)
        )
    for species in SPECIES:
        result[f"tof_nsigma_{species.key}"] = (
            absent
            if response.tof is None
            else response.tof.n_sigma(flight, column("length"), column("tof_exp_mom"), species.mass)
        )
    return result


def _patterns(table: pa.Table) -> Counter[str]:
    index = table["has_trd"].to_numpy().astype(int) + 2 * table["has_tof"].to_numpy()
    return Counter(
        {
            DETECTOR_PATTERNS[number]: int(count)
            for number, count in zip(*np.unique(index, return_counts=True), strict=True)
        }
    )
