"""How good a network is against the share of a run's simulation that trains it, with and without a start."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from pidflow.evaluate.metrics import compute_metrics
from pidflow.evaluate.schema import Estimate
from pidflow.files import read_json, replacing, write_json, write_text
from pidflow.model import HISTORY_FILE, read_info
from pidflow.parquet import batches
from pidflow.train.data import read_tracks
from pidflow.train.score import score_dataset

UNTRAINED = "untrained"
"""Start of the other run's model as it is."""


@dataclass(frozen=True)
class Point:
    """One training of the study.

    Attributes
    ----------
    run
        Run whose simulation trains and tests it.
    start
        ``scratch``; what a start from the other run's weights trained; or ``untrained``, the other run's model.
    fraction
        Share of the run's training collisions.
    tracks, epochs, seconds
        Training tracks, passes over them, and time of the job, None where it left no record.
    f1, auc
        Macro averages on the test set.
    """

    run: int
    start: str
    fraction: float
    tracks: int
    epochs: int
    seconds: float | None
    f1: Estimate
    auc: Estimate


def score_transfer(
    dataset: str | Path,
    source: str | Path,
    models: Mapping[tuple[str, float], str | Path],
    records: Mapping[tuple[str, float], str | Path],
    output: str | Path,
    *,
    run: int,
    threads: int,
    **options: Any,
) -> list[Point]:
    """Measure the trainings of one run on its test set and write them as JSON.

    Parameters
    ----------
    dataset
        Labelled dataset of the run.
    source
        Model directory that they start from.
    models, records
        Model directory, and record of the training job, by start and share.
    output
        JSON file: a list of points.
    run
        Run number.
    threads
        Threads of the models.
    options
        What else `pidflow.evaluate.metrics.compute_metrics` asks for.
    """
    info = read_info(source)
    folders = {(UNTRAINED, 0.0): source, **models}
    names = {key: "_".join(map(str, key)) for key in folders}
    with tempfile.TemporaryDirectory() as folder:
        test = Path(folder, "test.parquet")
        _write_test(dataset, test)
        scores = {name: Path(folder, f"{name}.parquet") for name in names.values()}
        for key, name in names.items():
            score_dataset(folders[key], test, scores[name], threads=threads)
        outputs = {name: Path(folder, f"{name}.json") for name in names.values()}
        metrics = compute_metrics(test, scores, outputs, run=run, sample="simulation", species=info.species, **options)
    tracks = {
        share: len(read_tracks(dataset, "train", info.features, info.species, fraction=share))
        for share in {share for _, share in models}
    }
    points = []
    for (start, share), name in names.items():
        trained = start != UNTRAINED
        points.append(
            Point(
                run=run,
                start=start,
                fraction=share,
                tracks=tracks[share] if trained else 0,
                epochs=pq.read_metadata(Path(folders[start, share], HISTORY_FILE)).num_rows if trained else 0,
                seconds=_seconds(records[start, share]) if trained else 0.0,
                f1=metrics[name].macro.f1,
                auc=metrics[name].macro.auc,
            )
        )
    write_json(output, [{**asdict(p), "f1": p.f1.model_dump(), "auc": p.auc.model_dump()} for p in points])
    return points


def read_points(paths: Iterable[str | Path]) -> list[Point]:
    """Read the points of several runs."""
    return [
        Point(**{**entry, "f1": Estimate(**entry["f1"]), "auc": Estimate(**entry["auc"])})
        for path in paths
        for entry in read_json(path)
    ]


def write_points(points: Sequence[Point], output: str | Path) -> None:
    """Write one line per training, with the attributes of `Point` as columns, of an estimate its interval too."""
    stream = io.StringIO()
    names = [field.name for field in fields(Point)]
    bounds = [f"{name}{side}" for name in ("f1", "auc") for side in ("", "_low", "_high")]
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*names[:-2], *bounds])
    for point in points:
        estimates = [number for own in (point.f1, point.auc) for number in (own.value, own.low, own.high)]
        writer.writerow([*(getattr(point, name) for name in names[:-2]), *estimates])
    write_text(output, stream.getvalue())


def format_points(points: Sequence[Point]) -> str:
    """Return the points as text for a terminal."""
    rows = [["run", "start", "share", "tracks", "epochs", "seconds", "macro F1", "macro AUC"]]
    for point in points:
        seconds = "–" if point.seconds is None else f"{point.seconds:.0f}"
        estimates = ("–" if own.value is None else f"{own.value:.4f}" for own in (point.f1, point.auc))
        share = f"{100 * point.fraction:g} %"
        rows.append([str(point.run), point.start, share, f"{point.tracks:,}", str(point.epochs), seconds, *estimates])
    return "\n".join("".join(f"{cell:>11}" for cell in row) for row in rows)


def _write_test(dataset: str | Path, output: Path) -> None:
    """Write the test tracks of a dataset alone."""
    with replacing(output) as temporary, pq.ParquetWriter(temporary, pq.read_schema(dataset)) as writer:
        for table in batches(dataset):
            writer.write_table(table.filter(pc.field("split") == "test"))


def _seconds(record: str | Path) -> float | None:
    path = Path(record)
    return float(read_json(path)["resources"]["used"]["wall_s"]) if path.is_file() else None
