"""Rate of scoring: ONNX Runtime, single tracks and batches, beside the published method in eager torch.

Run as ``make bench-serving``. Prints a table and writes ``benchmarks/results/serving.json``. The network has the
published sizes and twenty features, weights are those of the initialisation, since they do not change the rate; tracks
mix all detector patterns. Every rate is the best of several rounds that take turns, on one thread and on all.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch

sys.path.insert(0, str(Path(__file__).parent))

import reference

from pidflow.model import ModelInfo
from pidflow.models.fse import Model, Settings
from pidflow.networks.calibration import Calibrated
from pidflow.train.graph import network_graph

RESULTS = Path(__file__).parent / "results" / "serving.json"
FEATURES = (
    "tpc_signal", "trd_signal", "trd_pattern", "tof_signal", "beta", "p", "pt", "px", "py", "pz", "sign", "x", "y", "z",
    "alpha", "eta", "dca_xy", "dca_z", "tpc_n_cls_found", "tpc_n_cls_shared",
)  # fmt: skip
SPECIES = (211, 321, 2212, -211, -321, -2212)
BATCH, ROUNDS, SECONDS = 4096, 7, 0.5


def tracks() -> np.ndarray:
    """Return tracks [n, F] with every combination of missing TRD and TOF in turn."""
    generator = np.random.default_rng(0)
    values = generator.normal(size=(BATCH, len(FEATURES))).astype(np.float32)
    for first, detector in enumerate(((1, 2), (3, 4))):
        rows = np.arange(BATCH) // 2**first % 2 == 0
        values[np.ix_(rows, detector)] = np.nan
    return values


def rate(score: Callable[[np.ndarray], object], values: np.ndarray, batch: int) -> float:
    """Return tracks per second of a function that is called batch by batch."""
    score(values[:batch])
    done, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < SECONDS:
        start = done % len(values)
        done += batch
        score(values[start : start + batch])
    return done / (time.perf_counter() - begin)


def session(path: Path, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return the scoring function of a graph."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    loaded = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda values: loaded.run(None, {"features": values})[0]


def main() -> None:
    """Measure and report."""
    torch.manual_seed(0)
    values = tracks()
    info = ModelInfo(
        kind="fse", run=1, species=SPECIES, features=FEATURES, masks={}, seed=0, settings=Settings().model_dump()
    )
    network = Model(info, "unused").build()
    network.adjust(values)
    trained = Calibrated(network, FEATURES, len(SPECIES)).eval()
    plain = reference.build(len(FEATURES)).eval()
    threads = os.cpu_count() or 1
    ways: dict[str, tuple[Callable[[np.ndarray], object], int]] = {}
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        path = Path(folder) / "graph.onnx"
        path.write_bytes(network_graph(trained, 0, len(FEATURES)).SerializeToString())
        for count in (1, threads):
            for batch in (1, BATCH):
                ways[f"onnx, batch {batch}, threads {count}"] = (session(path, count), batch)
        ways["published, eager torch"] = (lambda part: torch.sigmoid(plain(torch.from_numpy(part))), BATCH)
        ways["own, eager torch"] = (lambda part: trained(torch.from_numpy(part)), BATCH)
        rates = dict.fromkeys(ways, 0.0)
        for _ in range(ROUNDS):
            for name, (score, batch) in ways.items():
                rates[name] = max(rates[name], rate(score, values, batch))
        difference = np.abs(session(path, 1)(values)[:, 0] - trained(torch.from_numpy(values))[:, 0].numpy()).max()
    print(f"{'':34}{'tracks/s':>12}")
    for name, value in rates.items():
        print(f"{name:34}{value:12,.0f}")
    many = f"onnx, batch {BATCH}, threads {threads}"
    one = f"onnx, batch 1, threads {threads}"
    result = {
        "ratio_batch4096_to_batch1": rates[many] / rates[one],
        "ratio_batch4096_to_batch1_one_thread": rates[f"onnx, batch {BATCH}, threads 1"]
        / rates["onnx, batch 1, threads 1"],
        "ratio_to_torch_eager": rates[many] / rates["published, eager torch"],
        "worst_difference": float(difference),
        **{f"tracks_per_second {name}": round(value) for name, value in rates.items()},
        "features": len(FEATURES),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(f"\n{RESULTS}")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
