"""Small samples and models for the tests of training."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from pidflow.model import ModelInfo, checkpoint_beside
from pidflow.models import load, model_of
from pidflow.models.base import Fitting, Model, Tracks

SPECIES = (211, 321)
FEATURES = ("its_signal", "tpc_signal", "trd_signal", "beta", "p", "sign")
OWN = {"its": (0,), "tpc": (1,), "trd": (2,), "tof": (3,)}
"""Positions of each detector's features."""

OPTIMISATION = {"batch": 64, "epochs": 4, "patience": 4, "learning_rate": 0.01, "average": 0.9}
SIZES = {
    "embedding_hidden": 16, "width": 8, "layers": 1, "heads": 2, "feed_forward": 16, "pooling_hidden": 8,
    "classifier_hidden": 8, "dropout": 0.1, "encoding_size": 4,
}  # fmt: skip


def fse(encoding: str = "linear", **optimisation: Any) -> dict[str, Any]:
    """Return the settings of a small feature-set network."""
    return {"kind": "fse", "network": SIZES | {"encoding": encoding}, "optimisation": OPTIMISATION | optimisation}


def mlp(missing: str = "mean", **optimisation: Any) -> dict[str, Any]:
    """Return the settings of a small perceptron."""
    return {"kind": "mlp", "missing": missing, "hidden": [16, 8], "optimisation": OPTIMISATION | optimisation}


NETWORKS: dict[str, dict[str, Any]] = {
    "fse": fse(),
    "fse_piecewise": fse("piecewise", hide_detector=0.1),
    "fse_periodic": fse("periodic"),
    "mlp_mean": mlp("mean"),
    "mlp_regression": mlp("regression"),
    "mlp_delete": mlp("delete", batch=16),
    "pattern_ensemble": {"kind": "pattern_ensemble", "hidden": [16], "optimisation": OPTIMISATION},
    "tabm": {
        "kind": "tabm", "members": 4, "hidden": [16, 16], "dropout": 0.1, "encoding_size": 4,
        "optimisation": OPTIMISATION,
    },
}  # fmt: skip
"""Small settings of every kind of network and of its variants."""


def sample(n_tracks: int, seed: int) -> Tracks:
    """Return tracks of both species and of others; ITS, TRD and TOF lack from some, the TPC from few."""
    rng = np.random.default_rng(seed)
    number = rng.integers(0, 3, n_tracks)
    columns = (
        30.0 + 8.0 * number, 50.0 + 20.0 * number, 100.0 + 8.0 * number, 1.0 - 0.1 * number,
        rng.exponential(1.0, n_tracks) + 0.1, rng.choice([-1.0, 1.0], n_tracks),
    )  # fmt: skip
    features = np.stack(columns, axis=1)
    features[:, :4] += rng.normal(size=(n_tracks, 4)) * (6.0, 12.0, 8.0, 0.05)
    for positions, share in zip(OWN.values(), (0.2, 0.05, 0.3, 0.4), strict=True):
        features[rng.random(n_tracks) < share, positions] = np.nan
    return Tracks(features.astype(np.float32), (number[:, None] == np.arange(2)).astype(np.float32))


def described(settings: dict[str, Any], **changes: Any) -> ModelInfo:
    """Return the description of a model as its training writes it."""
    whole = model_of(settings["kind"]).Settings.model_validate(settings).model_dump(mode="json")
    content = {
        "kind": settings["kind"], "run": 5, "species": SPECIES, "features": FEATURES, "masks": {}, "seed": 11,
        "settings": whole,
    }  # fmt: skip
    return ModelInfo(**content | changes)


def fit(
    folder: Path, settings: dict[str, Any], train: Tracks, validation: Tracks, *, info: dict[str, Any] | None = None,
    **changes: Any,
) -> Model[Any]:  # fmt: skip
    """Fit a model, write its directory and return it as it is read from there."""
    description = described(settings, **(info or {}))
    folder.mkdir(parents=True, exist_ok=True)
    fitting = Fitting(**{"threads": 1, "checkpoint": checkpoint_beside(folder)} | changes)
    model_of(description.kind)(description, folder).fit(train, validation, fitting)
    description.write(folder)
    return load(folder)


def evaluate(graph: Any, raw: NDArray[np.float32], batch: int | None = None) -> NDArray[np.float32]:
    """Return the answers of an ONNX graph [n], so many tracks at a time."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    step = batch or len(raw)
    parts = [session.run(None, {"features": raw[n : n + step]})[0] for n in range(0, len(raw), step)]
    assert all(part.shape[1:] == (1,) for part in parts)
    return np.concatenate(parts)[:, 0]


def content(model: Path) -> dict[str, bytes]:
    """Return all files of a model directory."""
    return {path.relative_to(model).as_posix(): path.read_bytes() for path in model.rglob("*") if path.is_file()}


@pytest.fixture
def library_state() -> Iterator[None]:
    """Leave the tensor library's global switches as they were."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(strict)
