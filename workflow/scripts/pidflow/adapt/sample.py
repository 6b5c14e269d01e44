"""Adaptation of a run's simulated sample to its data, before any model is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from pidflow.adapt.steps import settings_of, step_of
from pidflow.adapt.steps.base import SampleStep, Surroundings
from pidflow.files import replacing, write_json
from pidflow.parquet import batches


def adapt_sample(
    simulation: str | Path,
    data: str | Path,
    output: str | Path,
    report: str | Path,
    *,
    settings: dict[str, Any],
    surroundings: Surroundings,
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
    settings
        The entry of ``adapt.steps``, with its kind.
    surroundings
        What else the step may look at.
    """
    kind = settings["kind"]
    step = step_of(kind)(settings_of(kind).model_validate(settings))
    assert isinstance(step, SampleStep)
    found = step.fit(Path(simulation), Path(data), surroundings)
    random = np.random.default_rng([surroundings.seed, surroundings.run, 1])
    with replacing(output) as temporary:
        writer: pq.ParquetWriter | None = None
        try:
            for table in batches(simulation):
                adapted = step.apply(table, random)
                if writer is None:
                    writer = pq.ParquetWriter(
                        temporary, adapted.schema, compression="zstd", compression_level=1,
                        use_dictionary=["source", "split"],
                    )  # fmt: skip
                writer.write_table(adapted)
        finally:
            if writer is not None:
                writer.close()
    write_json(report, {"step": settings, "run": surroundings.run, **found})
