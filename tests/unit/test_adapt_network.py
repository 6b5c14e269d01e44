"""Training of a network on simulation and data together: the loop, what it reads and what it leaves behind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from adapt_runs import (
    FEATURES,
    SPECIES,
    STEPS,
    adapt,
    adapted_fixture,  # noqa: F401
    folder_fixture,  # noqa: F401
    killed,
    model_fixture,  # noqa: F401
    train,
    with_column,
)
from models_sample import content, library_state  # noqa: F401
from sklearn.metrics import roc_auc_score

from pidflow.adapt import network
from pidflow.adapt.steps import dann, settings_of
from pidflow.adapt.steps.base import Domains
from pidflow.errors import PidflowError
from pidflow.model import read_info
from pidflow.models import load
from pidflow.train.data import read_columns, read_features, read_tracks
from pidflow.train.engine import predict
from pidflow.train.network import class_loss

pytestmark = pytest.mark.usefixtures("library_state")


# the loop


def test_history_of_an_adaptation(model: Path, adapted: Path) -> None:
    unadapted = min(pq.read_table(model / "history.parquet")["validation_loss"].to_pylist())
    history = pq.read_table(adapted / "history.parquet").to_pylist()
    assert set(history[0]) == {
        "epoch", "train_loss", "domain_loss", "domain_accuracy", "validation_loss", "validation_auc",
    }  # fmt: skip
    assert len(history) == 3
    # the first pass trains the discriminator alone: the network's loss is that of the source
    assert history[0]["validation_loss"] == pytest.approx(unadapted, rel=1e-6)
    assert history[1]["validation_loss"] != pytest.approx(unadapted, rel=1e-6)
    assert all(entry["train_loss"] > 0 for entry in history)
    assert all(0.3 < entry["domain_accuracy"] < 0.9 for entry in history)


def test_last_epoch_is_that_of_the_stored_network(folder: Path, adapted: Path) -> None:
    validation = read_tracks(folder / "simulation.parquet", "validation", FEATURES, SPECIES)
    logits = predict(load(adapted).trained.network, validation.features)  # type: ignore[attr-defined]
    last = pq.read_table(adapted / "history.parquet").to_pylist()[-1]
    loss = class_loss(torch.from_numpy(logits), torch.from_numpy(validation.labels))
    assert last["validation_loss"] == pytest.approx(float(loss), rel=1e-5)
    assert last["validation_auc"] == pytest.approx(roc_auc_score(validation.labels, logits), rel=1e-6)


def test_discriminator_alone_leaves_the_network(folder: Path, model: Path, tmp_path: Path) -> None:
    modules = killed(folder, model, tmp_path / "m", 2, epochs=1, discriminator_epochs=2)
    for name, tensor in load(model).trained.network.state_dict().items():  # type: ignore[attr-defined]
        assert torch.equal(modules["network"][name], tensor), name
        assert torch.equal(modules["average"][name], tensor), name


@pytest.mark.parametrize(("step", "kept"), [("dann", False), ("dann_first", True)])
def test_discriminator_trained_first_stays(folder: Path, model: Path, tmp_path: Path, step: str, kept: bool) -> None:
    one, two = (killed(folder, model, tmp_path / str(n), n, step=step) for n in (1, 2))
    assert set(one["own"]) == {f"domain.{n}.{part}" for n in (0, 2, 4) for part in ("weight", "bias")}
    assert all(torch.equal(one["own"][name], two["own"][name]) for name in one["own"]) == kept
    assert any(not torch.equal(one["network"][name], two["network"][name]) for name in one["network"])


def test_network_is_the_average_of_its_weights(folder: Path, model: Path, tmp_path: Path) -> None:
    modules = killed(folder, model, tmp_path / "m", 2, step="mmd", epochs=3)
    apart = [(modules["network"][name] - modules["average"][name]).abs().max() for name in modules["network"]]
    assert max(apart) > 1e-4
    assert content(adapt(folder, model, tmp_path / "m", step="mmd", epochs=3))


class Recorder(dann.Step):
    """Looks at what it is given before each epoch, and has enough after some."""

    enough: int | None = None
    calls: list[tuple[int, Domains, np.ndarray]]

    def begin(self, epoch: int, domains: Domains, predict: Callable[[Any], Any]) -> bool:
        logits = predict(domains.data[:50])
        self.calls.append((epoch, domains, logits))
        return epoch != self.enough


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> type[Recorder]:
    Recorder.calls, Recorder.enough = [], None
    monkeypatch.setattr(network, "step_of", lambda kind: Recorder)
    return Recorder


def test_step_looks_at_the_averaged_network_before_each_epoch(
    folder: Path, model: Path, adapted: Path, tmp_path: Path, recorder: type[Recorder]
) -> None:
    assert content(adapt(folder, model, tmp_path / "m")) == content(adapted)
    assert [epoch for epoch, _, _ in recorder.calls] == [0, 1, 2]
    simulation = read_tracks(folder / "simulation.parquet", "train", FEATURES, SPECIES)
    for _, domains, _ in recorder.calls:
        np.testing.assert_array_equal(domains.simulation.labels, simulation.labels)
        np.testing.assert_array_equal(domains.data, read_features(folder / "data.parquet", "train", FEATURES))
        assert domains.features == FEATURES and domains.species == SPECIES and not domains.columns
    source = predict(load(model).trained.network, recorder.calls[0][1].data[:50])  # type: ignore[attr-defined]
    np.testing.assert_array_equal(recorder.calls[0][2], source)
    np.testing.assert_array_equal(recorder.calls[1][2], source)
    assert np.abs(recorder.calls[2][2] - source).max() > 1e-4


@pytest.mark.parametrize("enough", [0, 2])
def test_step_that_has_enough_ends_the_training(
    folder: Path, model: Path, tmp_path: Path, recorder: type[Recorder], enough: int
) -> None:
    recorder.enough = enough
    target = adapt(folder, model, tmp_path / "m", epochs=3)
    assert [epoch for epoch, _, _ in recorder.calls] == list(range(enough + 1))
    assert pq.read_table(target / "history.parquet").num_rows == enough
    assert not (tmp_path / ".m.checkpoint").exists()
    stored = load(target).trained.network  # type: ignore[attr-defined]
    last = predict(stored, read_features(folder / "data.parquet", "train", FEATURES)[:50])
    np.testing.assert_array_equal(last, recorder.calls[-1][2])
    if enough:
        killed(folder, model, tmp_path / "again", enough - 1, epochs=3)
        assert content(adapt(folder, model, tmp_path / "again", epochs=3)) == content(target)


def test_figures_are_in_the_history(folder: Path, model: Path, tmp_path: Path) -> None:
    own = {"mmd": {"mmd"}, "cdan": {"domain_loss", "domain_accuracy"}, "adversary": {"adversary_loss"},
           "flatness": {"unevenness"}}  # fmt: skip
    for step, figures in own.items():
        history = pq.read_table(adapt(folder, model, tmp_path / step, step=step) / "history.parquet")
        assert set(history.column_names) >= figures
        assert all(np.isfinite(history[name].to_numpy()).all() for name in figures)


# what is read and written


def test_data_without_training_tracks_is_refused(folder: Path, model: Path, tmp_path: Path) -> None:
    data = pq.read_table(folder / "data.parquet")
    pq.write_table(data.filter(pc.field("split") == "test"), tmp_path / "data.parquet")
    with pytest.raises(PidflowError, match=r"data\.parquet: the run's data has no training track to adapt to"):
        adapt(folder, model, tmp_path / "dann", data=tmp_path / "data.parquet")


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [("mlp", "kind 'mlp' has no encoder to adapt"), ("gbdt", "kind 'gbdt' cannot be adapted; set 'adapt.model'")],
)
@pytest.mark.filterwarnings("ignore:Usage of np.ndarray subset:UserWarning")
def test_model_without_an_encoder_is_not_adapted(folder: Path, tmp_path: Path, kind: str, sentence: str) -> None:
    with pytest.raises(PidflowError, match=sentence):
        adapt(folder, train(folder, tmp_path / kind, kind), tmp_path / "dann")


def test_unknown_column_is_refused(folder: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(PidflowError, match=r"simulation\.parquet: no column pT;"):
        adapt(folder, model, tmp_path / "m", step="flatness", column="pT")


@pytest.mark.parametrize("split", ["train", "validation"])
def test_columns_are_those_of_the_tracks(folder: Path, split: str) -> None:
    path = folder / "simulation.parquet"
    assert read_columns(path, split, ()) == {}
    found = read_columns(path, split, ("pt", "beta"))
    assert list(found) == ["pt", "beta"]
    table = pq.read_table(path).filter(pc.field("split") == split)
    tracks = read_tracks(path, split, FEATURES, SPECIES)
    np.testing.assert_array_equal(found["pt"], table["pt"].to_numpy())
    np.testing.assert_array_equal(found["beta"], tracks.features[:, FEATURES.index("beta")])


@pytest.mark.parametrize("step", ["dann", "mmd", "mcc", "self_training"])
def test_labels_of_data_have_no_influence(folder: Path, model: Path, tmp_path: Path, step: str) -> None:
    data = pq.read_table(folder / "data.parquet")
    assert data["pdg_code"].null_count == data.num_rows
    planted = with_column(data, "pdg_code", pa.array(np.resize(SPECIES, data.num_rows), pa.int32()))
    for name in ("mother_pdg_code", "is_physical_primary"):
        filled = pa.array(np.ones(data.num_rows, int)).cast(data.schema.field(name).type)
        planted = with_column(planted, name, filled)
    other = with_column(data, "tpc_signal", pa.array(data["tpc_signal"].to_numpy() + np.float32(1)))
    found = {"plain": content(adapt(folder, model, tmp_path / "plain", step=step))}
    for name, table in {"planted": planted, "other": other}.items():
        pq.write_table(table, tmp_path / f"{name}.parquet")
        found[name] = content(adapt(folder, model, tmp_path / name, data=tmp_path / f"{name}.parquet", step=step))
    assert found["planted"] == found["plain"]
    assert found["other"]["weights.safetensors"] != found["plain"]["weights.safetensors"]


def test_adaptation_reads_the_training_set_of_data_only(
    folder: Path, model: Path, adapted: Path, tmp_path: Path
) -> None:
    data = pq.read_table(folder / "data.parquet")
    training = data["split"].to_numpy(zero_copy_only=False) == "train"
    spoiled = np.where(training, data["tpc_signal"].to_numpy(), 0).astype(np.float32)
    pq.write_table(with_column(data, "tpc_signal", pa.array(spoiled)), tmp_path / "data.parquet")
    assert content(adapt(folder, model, tmp_path / "dann", data=tmp_path / "data.parquet")) == content(adapted)


def test_adapted_models_say_so(folder: Path, model: Path, adapted: Path, tmp_path: Path) -> None:
    before, after = read_info(model), read_info(adapted)
    whole = {name: settings_of(STEPS[name]["kind"]).model_validate(STEPS[name]).model_dump(mode="json")
             for name in ("dann", "mcc")}  # fmt: skip
    assert before.adaptation == ()
    assert after.adaptation == (whole["dann"],)
    assert after.model_copy(update={"adaptation": ()}) == before
    twice = adapt(folder, adapted, tmp_path / "twice", step="mcc")
    assert read_info(twice).adaptation == (whole["dann"], whole["mcc"])


def test_adapted_model_still_knows_species_with_and_without_tof(folder: Path, adapted: Path) -> None:
    test = read_tracks(folder / "simulation.parquet", "test", FEATURES, SPECIES)
    certainty = load(adapted).score(test.features)
    without_tof = np.isnan(test.features[:, 1])
    for rows in (without_tof, ~without_tof):
        for number in range(len(SPECIES)):
            assert roc_auc_score(test.labels[rows, number], certainty[rows, number]) > 0.95
