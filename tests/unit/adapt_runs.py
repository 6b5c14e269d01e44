"""Adaptations of a small network, and looks into them, for the tests of the loop and of steps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import models_sample
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from models_sample import fse
from tracks_sample import make_dataset

from pidflow.adapt import network
from pidflow.adapt.network import adapt_network
from pidflow.adapt.steps import dann
from pidflow.adapt.steps.base import Batch
from pidflow.files import write_json
from pidflow.models import load
from pidflow.models import settings_of as model_settings
from pidflow.train.fit import fit_model

SPECIES = (211, 321, 2212)
FEATURES = ("tpc_signal", "beta", "p", "sign")
DANN = {"kind": "dann", "epochs": 2, "discriminator_epochs": 1, "hidden": 8, "learning_rate": 0.001}
STEPS: dict[str, dict[str, Any]] = {
    "dann": DANN,
    "dann_first": DANN | {"discriminator": "first", "schedule": "constant"},
    "cdan": DANN | {"kind": "cdan"},
    "mmd": {"kind": "mmd", "epochs": 2},
    "deep_coral": {"kind": "deep_coral", "epochs": 2},
    "mcc": {"kind": "mcc", "epochs": 2},
    "flatness": {"kind": "decorrelate", "epochs": 2, "bins": 4},
    "adversary": {"kind": "decorrelate", "epochs": 2, "bins": 4, "method": "adversary", "hidden": 8},
    "self_training": {"kind": "self_training", "epochs": 2, "bins": 3, "tolerance": 0.0},
}


@pytest.fixture(scope="module", name="folder")
def folder_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("adapt")
    for name, options in {
        "simulation": {"seed": 1},
        "data": {"seed": 3, "labelled": False, "shift": 3.0},
    }.items():
        pq.write_table(make_dataset(2400, **options), path / f"{name}.parquet")
    write_json(path / "features.json", {"features": list(FEATURES)})
    return path


def train(folder: Path, model: Path, kind: str = "fse", simulation: Path | None = None, **optimisation: Any) -> Path:
    own: dict[str, Any] = fse(**{"average": 0.95, "patience": 3} | optimisation) if kind == "fse" else {"kind": kind}
    if kind == "mlp":
        own = models_sample.mlp()
    settings = model_settings(kind).model_validate(own).model_dump(mode="json")
    fit_model(
        simulation or folder / "simulation.parquet", folder / "features.json", folder / "response.json", model,
        run=5, species=SPECIES, masks={"tof": 0.5, "trd": 0.8}, seed=11, settings=settings, threads=1,
    )  # fmt: skip
    return model


def adapt(
    folder: Path, model: Path, target: Path, *, simulation: Path | None = None, data: Path | None = None,
    step: str = "dann", **changes: Any,
) -> Path:  # fmt: skip
    files = (simulation or folder / "simulation.parquet", data or folder / "data.parquet")
    adapt_network(model, *files, target, settings=STEPS[step] | changes, accelerator="cpu", threads=1)
    return target


@pytest.fixture(scope="module", name="model")
def model_fixture(folder: Path) -> Path:
    torch.set_num_threads(1)
    return train(folder, folder / "fse")


@pytest.fixture(scope="module", name="adapted")
def adapted_fixture(folder: Path, model: Path) -> Path:
    return adapt(folder, model, folder / "adapted")


def with_column(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, values)


def dies_after(epochs: int, of: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that raises when it is called once more than so often."""
    calls = []

    def dies(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) > epochs:
            raise KeyboardInterrupt
        return of(*arguments, **options)

    return dies


def killed(folder: Path, model: Path, target: Path, after: int, **options: Any) -> dict[str, Any]:
    """Adapt, be killed in the epoch after so many, and return the modules of the checkpoint."""
    with pytest.MonkeyPatch.context() as patch:
        # the steps of the epoch are done then, but not saved
        patch.setattr(network, "macro_auc", dies_after(after, network.macro_auc))
        with pytest.raises(KeyboardInterrupt):
            adapt(folder, model, target, **options)
    checkpoint = target.with_name(f".{target.name}.checkpoint")
    modules: dict[str, Any] = torch.load(checkpoint, weights_only=True)["modules"]
    return modules


def seen(monkeypatch: pytest.MonkeyPatch, step: type = dann.Step) -> list[Batch]:
    """Return a list to which every batch of a kind of step is added."""
    batches: list[Batch] = []
    penalty = step.penalty  # type: ignore[attr-defined]

    def watched(self: Any, batch: Batch) -> torch.Tensor:
        batches.append(batch)
        return penalty(self, batch)

    monkeypatch.setattr(step, "penalty", watched)
    return batches


def watched_inputs(model: Path, monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """Return a list to which the encoder's input of every batch is added."""
    inputs: list[torch.Tensor] = []
    encoder = type(load(model).trained.network.encoder)  # type: ignore[attr-defined]
    forward = encoder.forward

    def watched(self: Any, raw: torch.Tensor) -> torch.Tensor:
        inputs.extend([raw] if self.training else [])
        return forward(self, raw)

    monkeypatch.setattr(encoder, "forward", watched)
    return inputs
