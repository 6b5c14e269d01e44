"""Speed and memory of training, beside a plain implementation of the published method.

Run as ``make bench-training``. Prints a table and writes ``benchmarks/results/training.json``.

The reference (``reference.py``) trains one network per species; the workflow one trunk with a head per species. Rates
are of steps on the training set of the first example run with twenty features, both on all cores, in rounds that take
turns, medians. The time to the reference's AUC is that of whole trainings: all six networks of the reference to their
last epoch, and the workflow's own ``fit``, with everything that it does, for the shortest schedule of those tried
whose network reaches the reference's macro AUC on the validation set. FLOP are counted from the sizes, three times the
forward pass; the matrix product that they are compared with is measured in the same rounds. Memory is the peak of a
process that trains one epoch on ten million tracks.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(Path(__file__).parent))

RESULTS = Path(__file__).parent / "results" / "training.json"
DATASET = "results/900001/dataset/simulation.parquet"
FEATURES = (
    "tpc_signal", "trd_signal", "trd_pattern", "tof_signal", "beta", "p", "pt", "px", "py", "pz", "sign", "x", "y", "z",
    "alpha", "eta", "dca_xy", "dca_z", "tpc_n_cls_found", "tpc_n_cls_shared",
)  # fmt: skip
SPECIES = (211, 321, 2212, -211, -321, -2212)
EPOCHS = 10
SCHEDULES = (1, 2, 3, 4, 6, 8, 12)
ROUNDS, STEPS = 5, 40
MATRIX = 4096
MANY, MANY_FEATURES, MANY_BATCH = 10_000_000, 8, 1024


def flop_per_track(features: int) -> float:
    """Return the floating-point operations of one training step per track: forward, and twice as many backward."""
    from pidflow.models.fse import Sizes

    sizes = Sizes()
    width, forward = sizes.width, sizes.feed_forward
    token = 2 * sizes.embedding_hidden + 2 * sizes.embedding_hidden * width
    layer = 8 * width**2 + 4 * width * forward + 4 * width * features
    pool = 4 * width * sizes.pooling_hidden
    heads = 2 * width * sizes.classifier_hidden + 2 * sizes.classifier_hidden * len(SPECIES)
    return 3.0 * (features * (token + sizes.layers * layer + pool) + heads)


def own_model(folder: Path, features: tuple[str, ...], **optimisation: object) -> object:
    """Return the workflow's network with its default settings but these."""
    from pidflow.model import ModelInfo
    from pidflow.models.fse import Model, Settings

    settings = Settings.model_validate({"optimisation": optimisation})
    info = ModelInfo(
        kind="fse", run=900001, species=SPECIES, features=features, masks={}, seed=1, settings=settings.model_dump()
    )
    return Model(info, folder)


def own_steps(features: np.ndarray, labels: np.ndarray, batch: int) -> Callable[[], None]:
    """Return a function that makes some steps of the workflow's training."""
    import torch

    from pidflow.train.engine import Average, shuffled
    from pidflow.train.network import class_loss

    model = own_model(Path("unused"), FEATURES)
    network = model.build()
    network.adjust(features)
    options = model.settings.optimisation
    average = Average(network, options.average)
    optimiser = torch.optim.AdamW(network.parameters(), options.learning_rate, fused=True)
    raw, known = torch.from_numpy(features), torch.from_numpy(labels)

    def steps() -> None:
        network.train()
        for step, rows in enumerate(shuffled(STEPS * batch, batch)):
            loss = class_loss(network(raw[rows % len(raw)]), known[rows % len(raw)])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            average.update(step)

    return steps


def measure_rates(train: object, batch: int) -> dict[str, float]:
    """Return tracks/s of the reference and of the workflow, and FLOP/s of a matrix product."""
    import reference
    import torch

    mean, std = np.nanmean(train.features, axis=0), np.nanstd(train.features, axis=0)
    standard = ((train.features - mean) / np.where(std > 0, std, 1))[: STEPS * reference.BATCH]
    label = train.labels[: len(standard), 0].astype(np.float32)
    own = own_steps(train.features, train.labels, batch)
    square = torch.rand(MATRIX, MATRIX)
    found: dict[str, list[float]] = {"reference": [], "own": [], "matmul": []}
    own()
    for _ in range(ROUNDS):
        found["reference"].append(reference.tracks_per_second(standard, label))
        begin = time.perf_counter()
        own()
        found["own"].append(STEPS * batch / (time.perf_counter() - begin))
        begin = time.perf_counter()
        square @ square
        found["matmul"].append(2.0 * MATRIX**3 / (time.perf_counter() - begin))
    return {name: statistics.median(values) for name, values in found.items()}


def time_to_auc(train: object, validation: object, threads: int) -> dict[str, float]:
    """Return seconds and macro AUC of the reference's six networks, and of the workflow's shortest that suffices."""
    import reference

    from pidflow.models.base import Fitting
    from pidflow.train.engine import macro_auc

    seconds, areas = 0.0, []
    for number in range(len(SPECIES)):
        label, held_out = (part.labels[:, number].astype(np.float32) for part in (train, validation))
        history = reference.train(train.features, label, validation.features, held_out, epochs=EPOCHS, seed=number)
        seconds += sum(epoch.seconds for epoch in history)
        areas.append(history[-1].auc)
        print(f"reference {SPECIES[number]}: AUC {areas[-1]:.4f}, {seconds:.0f} s so far", flush=True)
    goal = float(np.mean(areas))
    for epochs in SCHEDULES:
        with tempfile.TemporaryDirectory() as folder:
            model = own_model(Path(folder), FEATURES, epochs=epochs, patience=epochs)
            begin = time.perf_counter()
            model.fit(train, validation, Fitting(threads=threads, checkpoint=Path(folder) / "checkpoint"))
            taken = time.perf_counter() - begin
            reached = macro_auc(model.score(validation.features), validation.labels)
        if reached >= goal:
            break
    return {
        "reference_s": seconds,
        "reference_auc": goal,
        "own_s": taken,
        "own_auc": reached,
        "own_epochs": epochs,
        "reached": float(reached >= goal),
    }


def write_many(path: Path) -> None:
    """Write a dataset with many training tracks."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    features, generator, rows = FEATURES[:MANY_FEATURES], np.random.default_rng(0), 1_000_000
    total = int(MANY / 0.7)
    with pq.ParquetWriter(path, _schema(features)) as writer:
        for start in range(0, total, rows):
            count = min(rows, total - start)
            columns = {name: generator.normal(size=count).astype(np.float32) for name in features}
            columns["pdg_code"] = generator.choice(np.array(SPECIES, np.int32), count)
            columns["split"] = np.where(np.arange(start, start + count) < MANY, "train", "validation")
            columns["collision_id"] = np.arange(start, start + count, dtype=np.uint64)
            writer.write_table(pa.table(columns, schema=_schema(features)), row_group_size=100_000)


def train_many(folder: Path) -> None:
    """Train one epoch on many tracks and write the peak memory of this process, MiB."""
    from pidflow.models.base import Fitting
    from pidflow.train.data import read_tracks

    path, features = folder / "many.parquet", FEATURES[:MANY_FEATURES]
    subprocess.run([sys.executable, __file__, "--write", str(path)], check=True)
    train, validation = (read_tracks(path, split, features, SPECIES) for split in ("train", "validation"))
    model = own_model(folder / "model", features, epochs=1, batch=MANY_BATCH)
    begin = time.perf_counter()
    model.fit(train, validation, Fitting(threads=os.cpu_count() or 1, checkpoint=folder / "checkpoint"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    (folder / "peak.json").write_text(json.dumps([peak, len(train) / (time.perf_counter() - begin)]))


def _schema(features: tuple[str, ...]) -> object:
    import pyarrow as pa

    named = [(name, pa.float32()) for name in features]
    return pa.schema([*named, ("pdg_code", pa.int32()), ("split", pa.string()), ("collision_id", pa.uint64())])


def main() -> None:
    """Measure and report."""
    subprocess.run([sys.executable, "-m", "snakemake", "--quiet", "all", "--", DATASET], cwd=ROOT, check=True)
    import torch

    from pidflow.models.fse import Settings
    from pidflow.train.data import read_tracks

    threads, batch = os.cpu_count() or 1, Settings().optimisation.batch
    torch.set_num_threads(threads)
    train, validation = (read_tracks(ROOT / DATASET, split, FEATURES, SPECIES) for split in ("train", "validation"))
    rates = measure_rates(train, batch)
    timing = time_to_auc(train, validation, threads)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, __file__, "--many", folder], check=True)
        peak, rate_many = json.loads((Path(folder) / "peak.json").read_text())
    result = {
        "ratio_per_network": rates["own"] / rates["reference"],
        "ratio_six_species": len(SPECIES) * rates["own"] / rates["reference"],
        "ratio_time_to_reference_auc": timing["reference_s"] / timing["own_s"],
        "flops_share_of_matmul": rates["own"] * flop_per_track(len(FEATURES)) / rates["matmul"],
        "peak_rss_mib_10m_tracks": round(peak),
        "tracks_per_second_10m_tracks": round(rate_many),
        "tracks_per_second": round(rates["own"]),
        "tracks_per_second_reference": round(rates["reference"]),
        "matmul_gflop_per_second": rates["matmul"] / 1e9,
        "flop_per_track": flop_per_track(len(FEATURES)),
        **timing,
        "batch": batch,
        "features": len(FEATURES),
        "features_10m_tracks": MANY_FEATURES,
        "batch_10m_tracks": MANY_BATCH,
        "threads": threads,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    for name, value in result.items():
        print(f"{name:34}{value if isinstance(value, str) else f'{value:,.4g}':>16}")
    print(f"\n{RESULTS}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--many", metavar="FOLDER")
    parser.add_argument("--write", metavar="FILE")
    arguments = parser.parse_args()
    if arguments.write:
        write_many(Path(arguments.write))
    elif arguments.many:
        train_many(Path(arguments.many))
    else:
        main()
