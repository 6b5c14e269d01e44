"""Adaptations that are killed and start again: they end as if nothing had happened."""

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from adapt_runs import (
    STEPS,
    adapt,
    adapted_fixture,  # noqa: F401
    dies_after,
    folder_fixture,  # noqa: F401
    killed,
    model_fixture,  # noqa: F401
    train,
    with_column,
)
from models_sample import content, library_state  # noqa: F401
from safetensors.torch import load_file, save_file

from pidflow.adapt import network

pytestmark = pytest.mark.usefixtures("library_state")


@pytest.mark.parametrize("step", STEPS)
def test_killed_adaptation_goes_on_to_the_same_bytes(
    folder: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], step: str
) -> None:
    expected = content(adapt(folder, model, tmp_path / "whole" / "m", step=step))
    assert set(expected) == {"model.json", "weights.safetensors", "history.parquet"}
    assert expected["weights.safetensors"] != content(model)["weights.safetensors"]
    killed(folder, model, tmp_path / "m", 1, step=step)
    assert not content(tmp_path / "m")
    torch.rand(7)  # another process starts from another random state
    assert content(adapt(folder, model, tmp_path / "m", step=step)) == expected
    assert "resumed after epoch 1" in capsys.readouterr().out
    assert not (tmp_path / ".m.checkpoint").exists()


def test_killed_self_training_ends_where_it_would_have(folder: Path, model: Path, tmp_path: Path) -> None:
    """The labels change by 0.009 from the first to the second epoch."""
    options: dict[str, Any] = {"step": "self_training", "epochs": 4, "tolerance": 0.02}
    expected = content(adapt(folder, model, tmp_path / "whole" / "m", **options))
    # only the first epoch is done: killed before the second begins
    with pytest.MonkeyPatch.context() as patch:
        step = network.step_of("self_training")
        patch.setattr(step, "begin", dies_after(1, step.begin))  # type: ignore[attr-defined]
        with pytest.raises(KeyboardInterrupt):
            adapt(folder, model, tmp_path / "m", **options)
    found = content(adapt(folder, model, tmp_path / "m", **options))
    assert found["weights.safetensors"] == expected["weights.safetensors"]


def test_killed_adaptation_without_an_average(folder: Path, tmp_path: Path) -> None:
    source = train(folder, tmp_path / "source", average=0.0, epochs=2)
    expected = content(adapt(folder, source, tmp_path / "whole"))
    killed(folder, source, tmp_path / "m", 2)
    assert content(adapt(folder, source, tmp_path / "m")) == expected


def test_checkpoint_of_another_source_is_ignored(
    folder: Path, model: Path, adapted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two networks can have the same description and differ in their weights."""
    twin = tmp_path / "twin"
    shutil.copytree(model, twin)
    weights = load_file(twin / "weights.safetensors")
    save_file({name: tensor + 0.1 for name, tensor in weights.items()}, twin / "weights.safetensors")
    killed(folder, twin, tmp_path / "m", 1)
    assert content(adapt(folder, model, tmp_path / "m")) == content(adapted)
    assert "resumed" not in capsys.readouterr().out


def test_checkpoint_of_another_column_is_ignored(
    folder: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pq.read_table(folder / "simulation.parquet")
    other = with_column(table, "pt", pa.array(table["pt"].to_numpy()[::-1].copy()))
    pq.write_table(other, tmp_path / "simulation.parquet")
    killed(folder, model, tmp_path / "m", 1, step="flatness", simulation=tmp_path / "simulation.parquet")
    adapt(folder, model, tmp_path / "m", step="flatness")
    assert "resumed" not in capsys.readouterr().out


def test_checkpoint_of_other_code_is_ignored(
    folder: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An earlier version of a step may have kept other tensors."""
    with pytest.MonkeyPatch.context() as patch:
        memory = network.step_of("self_training").memory  # type: ignore[attr-defined]

        def larger(step: Any, domains: Any) -> Any:
            kept = memory(step, domains)
            kept.register_buffer("more", torch.zeros(3))
            return kept

        patch.setattr(network.step_of("self_training"), "memory", larger)
        killed(folder, model, tmp_path / "m", 1, step="self_training")
    assert (tmp_path / ".m.checkpoint").is_file()
    adapt(folder, model, tmp_path / "m", step="self_training")
    assert "resumed" not in capsys.readouterr().out
