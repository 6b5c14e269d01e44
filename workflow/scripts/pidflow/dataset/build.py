"""From the track tables of a run to one dataset: selected, masked, with nσ and the split."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pidflow.config.models import Dataset
from pidflow.dataset.response import Response, read_response
from pidflow.dataset.selection import PROMPT_CUTS, apply_masks, cut_results, require_columns
from pidflow.dataset.split import split_of
from pidflow.errors import PidflowError
from pidflow.files import read_json, replacing, write_json
from pidflow.parquet import batches
from pidflow.physics import SPECIES
from pidflow.tracks import DATASET_COLUMNS, DETECTOR_PATTERNS, ROW_ID, schema


def build_dataset(
    tables: list[str | Path],
    response: str | Path,
    inputs: str | Path,
    output: str | Path,
    quality: str | Path,
    *,
    settings: Dataset,
    v0s: Sequence[str | Path] = (),
    probes: str | Path | None = None,
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
    v0s
        V0 tables of the same sample.
    probes
        Dataset of the legs of V0 candidates, which only the cuts on tracks from the collision itself
        (`pidflow.dataset.selection.PROMPT_CUTS`) are not applied to; None: not written.

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
    legs = _legs(v0s)
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(_writer(stack.enter_context(replacing(output)), columns))
        probe_writer = None if probes is None else stack.enter_context(
            _writer(stack.enter_context(replacing(probes)), columns)
        )  # fmt: skip
        for table in chain.from_iterable(batches(path) for path in tables):
            kept, of_leg = np.ones((2, table.num_rows), dtype=bool)
            cut_flow["read"] += table.num_rows
            for name, passed in cut_results(table, settings.selection).items():
                kept &= passed
                if name not in PROMPT_CUTS:
                    of_leg &= passed
                cut_flow[name] += int(kept.sum())
            selected = _complete(table.filter(pa.array(kept)), expected, settings)
            patterns.update(_patterns(selected))
            sets.update(selected["split"].to_pylist())
            writer.write_table(selected.select(columns.names).cast(columns))
            if probe_writer is not None:
                found = _complete(_only(table.filter(pa.array(of_leg)), legs), expected, settings)
                probe_writer.write_table(found.select(columns.names).cast(columns))
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


def _writer(path: Path, columns: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(path, columns, compression="zstd", compression_level=1, use_dictionary=["source", "split"])


def _legs(v0s: Sequence[str | Path]) -> pa.Table:
    """Return the row ids of the tracks that are legs of V0 candidates."""
    empty = schema().empty_table().select(list(ROW_ID))
    parts = [pq.read_table(path, columns=list(ROW_ID)).cast(empty.schema) for path in v0s]
    return pa.concat_tables([empty, *parts]).group_by(list(ROW_ID)).aggregate([])


def _only(table: pa.Table, legs: pa.Table) -> pa.Table:
    """Return the rows of a track table that are in a table of row ids, in their order."""
    ids = table.select(list(ROW_ID)).append_column("position", pa.array(np.arange(table.num_rows)))
    ids = ids.set_column(0, "source", ids["source"].cast(legs.schema.field("source").type))
    found = ids.join(legs, list(ROW_ID), join_type="left semi")
    return table.take(pa.array(np.sort(found["position"].to_numpy())))


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
