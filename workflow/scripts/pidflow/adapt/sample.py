"""Adaptation of a run's simulated sample to its data, before any model is trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pidflow.adapt.steps import settings_of, step_of
from pidflow.adapt.steps.base import SampleStep, Surroundings
from pidflow.files import replacing, write_json
from pidflow.parquet import batches

VARIATIONS = 10
"""How often what a step found is drawn anew within its errors."""

VARIATION = "variation"
"""Column that tells the variations apart."""

_MOST_VARIED = 50_000


def adapt_sample(
    simulation: str | Path,
    data: str | Path,
    output: str | Path,
    report: str | Path,
    variations: str | Path,
    *,
    settings: dict[str, Any],
    surroundings: Surroundings,
    probes: Mapping[str, str] | None = None,
) -> None:
    """Write a simulated dataset that looks like the run's data, and what was found on the way.

    Parameters
    ----------
    simulation, data
        Labelled dataset and unlabelled one. Of data, only training tracks are looked at.
    output
        The adapted dataset: the same tracks in the same order, with a column ``weight``.
    report
        JSON of what the step fitted.
    variations
        Test tracks, at most `_MOST_VARIED`, adapted `VARIATIONS` times with what was found drawn anew within its
        errors: a dataset with a column ``variation``, empty if the step knows no errors.
    settings
        The entry of ``adapt.steps``, with its kind.
    surroundings
        What else the step may look at.
    probes
        Dataset of the legs of V0 candidates in simulation, and where the adapted one goes.
    """
    kind = settings["kind"]
    step = step_of(kind)(settings_of(kind).model_validate(settings))
    assert isinstance(step, SampleStep)
    found = step.fit(Path(simulation), Path(data), surroundings)
    seeds = [surroundings.seed, surroundings.run]
    for number, (source, target) in enumerate({str(simulation): output, **(probes or {})}.items()):
        random = np.random.default_rng([*seeds, number])
        _write((step.apply(table, random) for table in batches(source)), target)
    _write(_varied(step, simulation, seeds), variations)
    write_json(report, {"step": settings, "run": surroundings.run, **found})


def _varied(step: SampleStep, simulation: str | Path, seeds: list[int]) -> Iterator[pa.Table]:
    tracks = _test_tracks(simulation)
    for number in range(VARIATIONS):
        random = np.random.default_rng([*seeds, 2, number])
        other = step.varied(random)
        table = tracks.slice(0, 0) if other is None else tracks
        adapted = (other or step).apply(table, random)
        yield adapted.append_column(VARIATION, pa.array([number] * adapted.num_rows, pa.int8()))


def _test_tracks(simulation: str | Path) -> pa.Table:
    parts, rows = [], 0
    for table in batches(simulation):
        parts.append(table.filter(pc.field("split") == "test"))
        rows += parts[-1].num_rows
        if rows >= _MOST_VARIED:
            break
    return pa.concat_tables(parts).slice(0, _MOST_VARIED)


def _write(tables: Iterable[pa.Table], output: str | Path) -> None:
    """Write tables, of which there is at least one, into one file."""
    with replacing(output) as temporary:
        writer: pq.ParquetWriter | None = None
        try:
            for table in tables:
                if writer is None:
                    writer = pq.ParquetWriter(
                        temporary,
                        table.schema,
                        compression="zstd",
                        compression_level=1,
                        use_dictionary=["source", "split"],
                    )
                writer.write_table(table)
        finally:
            if writer is not None:
                writer.close()
