"""Training, adaptation and scoring."""

import copy
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.metrics import roc_auc_score
from torch import nn
from tracks_sample import make_dataset

from pidflow import parquet
from pidflow.config.models import Adapt, Fse, FseNetwork, Gbdt, NSigma
from pidflow.errors import PidflowError
from pidflow.files import write_json
from pidflow.model import ModelInfo, read_info
from pidflow.parquet import matrix
from pidflow.scores import certainty_column
from pidflow.tracks import ROW_ID
from pidflow.train import dann, engine, fse, gbdt, nsigma
from pidflow.train.adapt import adapt_model
from pidflow.train.data import Tracks, read_features, read_tracks
from pidflow.train.fit import fit_model
from pidflow.train.network import Encoder, FeatureSetEmbedding, FeatureSetNetwork, load
from pidflow.train.score import load_scorer, score_dataset

# a remark of LightGBM on its memory, not on its result
pytestmark = pytest.mark.filterwarnings("ignore:Usage of np.ndarray subset:UserWarning")

SPECIES = (211, 321, 2212)
FEATURES = ("tpc_signal", "beta", "p", "sign")
NETWORK = {
    "embedding_hidden": 16, "width": 8, "layers": 1, "heads": 2, "feed_forward": 16, "pooling_hidden": 8,
    "classifier_hidden": 8, "dropout": 0.1,
}  # fmt: skip
SETTINGS = {
    "network": NETWORK,
    "optimisation": {"batch": 64, "epochs": 4, "patience": 3, "learning_rate": 0.01, "weight_decay": 1e-4},
}
ADAPT = {"method": "dann", "strength": 0.1, "epochs": 2, "discriminator_epochs": 1, "discriminator_hidden": 8,
         "learning_rate": 0.001}  # fmt: skip


@pytest.fixture(autouse=True)
def library_state() -> Iterator[None]:
    """Leave the tensor library's global switches as they were."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(strict)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("train")
    for name, options in {
        "simulation": {"seed": 1},
        "other": {"seed": 2},
        "data": {"seed": 3, "labelled": False, "shift": 3.0},
    }.items():
        pq.write_table(make_dataset(2400, **options), path / f"{name}.parquet")
    write_json(path / "features.json", {"features": list(FEATURES)})
    return path


def train(folder: Path, model: Path, *, kind: str = "fse", dataset: str = "simulation", **changes: Any) -> Path:
    settings = {"fse": SETTINGS, "gbdt": {"trees": 40, "leaves": 7}, "nsigma": {}}[kind]
    options: dict[str, Any] = {
        "run": 5,
        "species": SPECIES,
        "masks": {"tof": 0.5, "trd": 0.8},
        "seed": 11,
        "settings": type_of(kind).model_validate(settings).model_dump(mode="json"),
        "threads": 1,
    }
    fit_model(folder / f"{dataset}.parquet", folder / "features.json", model, kind=kind, **(options | changes))
    return model


def type_of(kind: str) -> Any:
    return {"fse": Fse, "gbdt": Gbdt, "nsigma": NSigma}[kind]


def content(model: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(model.iterdir())}


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    return train(folder, folder / "fse")


@pytest.fixture(scope="module")
def adapted(folder: Path, model: Path) -> Path:
    adapt_model(
        model, folder / "simulation.parquet", folder / "data.parquet", folder / "adapted", settings=ADAPT, threads=1
    )
    return folder / "adapted"


def random_network(features: int = 5, species: int = 3, seed: int = 0) -> FeatureSetNetwork:
    torch.manual_seed(seed)
    network = FeatureSetNetwork(features, species, FseNetwork.model_validate(NETWORK | {"layers": 2}))
    network.encoder.mean.copy_(torch.linspace(-1, 3, features))
    network.encoder.std.copy_(torch.linspace(0.5, 2, features))
    return network.eval()


def random_tracks(n_tracks: int, features: int = 5, missing: float = 0.4, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    values = rng.normal(0.0, 3.0, (n_tracks, features)).astype(np.float32)
    values[rng.random(values.shape) < missing] = np.nan
    return torch.from_numpy(values)


# the network


def test_embedding_is_the_one_hot_formulation():
    torch.manual_seed(2)
    features, hidden, width = 6, 9, 4
    embedding = FeatureSetEmbedding(features, hidden, width, dropout=0.0).eval()
    values = torch.randn(7, features)
    # one linear layer on (one-hot code, one-hot code × value)
    layer = nn.Linear(2 * features, hidden, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.cat([embedding.feature, embedding.value]).T)
        code = torch.eye(features).expand(7, -1, -1)
        expected = embedding.out(torch.relu(layer(torch.cat([code, code * values[:, :, None]], dim=2))))
        torch.testing.assert_close(embedding(values), expected)


def test_embedding_with_a_shared_value_row_is_the_published_one():
    torch.manual_seed(3)
    features, hidden, width = 6, 9, 4
    embedding = FeatureSetEmbedding(features, hidden, width, dropout=0.0).eval()
    values = torch.randn(7, features)
    layer = nn.Linear(features + 1, hidden, bias=False)
    with torch.no_grad():
        embedding.value.copy_(embedding.value[:1].expand(features, -1))
        layer.weight.copy_(torch.cat([embedding.feature, embedding.value[:1]]).T)
        code = torch.eye(features).expand(7, -1, -1)
        expected = embedding.out(torch.relu(layer(torch.cat([code, values[:, :, None]], dim=2))))
        torch.testing.assert_close(embedding(values), expected)


def test_output_without_a_feature_is_that_of_a_network_that_never_had_it():
    whole, hidden = random_network(5), 2
    rest = [0, 1, 3, 4]
    smaller = random_network(4, seed=1)
    weights = {}
    for name, tensor in whole.state_dict().items():
        own = name in ("encoder.mean", "encoder.std", "encoder.embed.feature", "encoder.embed.value")
        weights[name] = tensor[rest] if own else tensor
    smaller.load_state_dict(weights)
    raw = random_tracks(60)
    raw[:, hidden] = float("nan")
    raw = raw[~torch.isnan(raw).all(dim=1)]
    with torch.no_grad():
        torch.testing.assert_close(whole(raw), smaller(raw[:, rest]), rtol=1e-5, atol=1e-6)
        raw[:, hidden] = 1.0
        assert (whole(raw) - smaller(raw[:, rest])).abs().max() > 1e-3


def test_parameters_of_a_missing_feature_do_not_matter():
    network = random_network()
    raw = random_tracks(200)
    with torch.no_grad():
        before = network(raw)
        network.encoder.embed.feature[3] += 5.0
        network.encoder.embed.value[3] -= 5.0
        network.encoder.mean[3] = 100.0
        after = network(raw)
    missing = torch.isnan(raw[:, 3]) & ~torch.isnan(raw).all(dim=1)
    present = ~torch.isnan(raw[:, 3])
    assert missing.sum() > 40
    torch.testing.assert_close(after[missing], before[missing], rtol=0, atol=1e-6)
    assert ((after - before).abs().amax(dim=1)[present] > 1e-4).all()


def test_tracks_do_not_see_their_batch():
    network = random_network()
    raw = random_tracks(64)
    order = torch.from_numpy(np.random.default_rng(1).permutation(64))
    with torch.no_grad():
        together = network(raw)
        torch.testing.assert_close(network(raw[order]), together[order], rtol=1e-5, atol=1e-6)
        alone = torch.cat([network(row[None]) for row in raw])
        torch.testing.assert_close(alone, together, rtol=1e-5, atol=1e-6)
        patterns = torch.isnan(raw).long() @ (2 ** torch.arange(5))
        for pattern in patterns.unique():
            rows = patterns == pattern
            torch.testing.assert_close(network(raw[rows]), together[rows], rtol=1e-5, atol=1e-6)
    assert len(patterns.unique()) > 10


@pytest.mark.parametrize("value", [1e30, -1e30, 3.4e38, -3.4e38, math.inf, -math.inf, math.nan, 0.0, 1e-40])
def test_output_is_finite_for_wild_inputs(value):
    network = random_network()
    raw = random_tracks(40, missing=0.3)
    with torch.no_grad():
        usual = network(raw).abs().max()
        for number in range(5):
            one = raw.clone()
            one[:, number] = value
            assert torch.isfinite(network(one)).all()
            assert network(one).abs().max() < 100 * usual
        assert torch.isfinite(network(torch.full((3, 5), value))).all()


def test_scaling_is_monotonic_and_clamped():
    settings = FseNetwork.model_validate(NETWORK)
    encoder = Encoder(1, settings).eval()
    encoder.mean.fill_(10.0)
    encoder.std.fill_(2.0)
    seen = []
    encoder.embed.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        encoder(torch.tensor([[10.0], [12.0], [4.0], [1e30], [-1e30], [math.nan]]))
    expected = [0.0, math.log(2), -math.log(4), 8.0, -8.0, 0.0]
    torch.testing.assert_close(seen[0][:, 0], torch.tensor(expected))


def test_standardise_uses_the_core_of_the_present_values():
    rng = np.random.default_rng(0)
    features = np.full((20_000, 4), np.nan, np.float32)
    features[:, 0] = rng.normal(7.0, 3.0, 20_000)
    features[::2, 1] = rng.normal(-2.0, 0.5, 10_000)
    features[:50, 0] = 1e20
    features[:, 2] = 4.0
    network = random_network(4)
    network.encoder.mean.zero_()
    network.encoder.std.fill_(1.0)
    fse.standardise(network, Tracks(features, np.zeros((20_000, 3), np.float32)))
    np.testing.assert_allclose(network.encoder.mean.numpy(), [7.0, -2.0, 4.0, 0.0], atol=0.1)
    np.testing.assert_allclose(network.encoder.std.numpy(), [3.0, 0.5, 1.0, 1.0], rtol=0.04)


# gradient reversal and schedules


@pytest.mark.parametrize("strength", [0.0, 0.3, 2.0])
def test_reversed_gradient(strength):
    values = torch.randn(4, 3, requires_grad=True)
    weight = torch.randn(4, 3)
    passed = dann.ReverseGradient.apply(values, strength)
    assert torch.equal(passed, values)
    (passed * weight).sum().backward()
    torch.testing.assert_close(values.grad, -strength * weight)


def test_strength_grows_from_nothing_to_its_final_value():
    assert dann.strength_at(0.0, 0.7) == 0.0
    for progress in (0.1, 0.5, 1.0):
        # 2/(1 + e⁻²ˣ) − 1 is tanh x
        assert dann.strength_at(progress, 0.7) == pytest.approx(0.7 * math.tanh(5 * progress))
    assert dann.strength_at(1.0, 0.7) == pytest.approx(0.7, rel=1e-4)


def test_learning_rate_rises_and_falls():
    factors = [engine.cosine(step, 1000) for step in range(1000)]
    assert factors[0] == pytest.approx(1 / 50)
    assert factors[24] == pytest.approx(0.5)
    assert max(factors) == 1.0
    assert int(np.argmax(factors)) == 49
    assert engine.cosine(525, 1000) == pytest.approx(0.5)
    assert factors[-1] < 1e-5
    assert engine.cosine(5000, 1000) == pytest.approx(0.0, abs=1e-12)


def test_batches_of_an_epoch():
    torch.manual_seed(0)
    parts = list(engine.shuffled(10, 3))
    assert [len(part) for part in parts] == [3, 3, 3]
    assert len(set(torch.cat(parts).tolist())) == 9
    assert torch.cat(list(engine.shuffled(12, 4))).sort().values.tolist() == list(range(12))
    assert torch.cat(list(engine.shuffled(12, 4))).tolist() != torch.cat(list(engine.shuffled(12, 4))).tolist()


def test_fingerprint_tells_trainings_apart():
    array = np.arange(6, dtype=np.float32)
    first = engine.fingerprint({"a": 1, "b": 2}, array)
    assert engine.fingerprint({"b": 2, "a": 1}, array.copy()) == first
    assert engine.fingerprint({"a": 1, "b": 3}, array) != first
    assert engine.fingerprint({"a": 1, "b": 2}, array + 1) != first


# the loop


def losses_replayed(
    losses: list[float], patience: int | None, checkpoint: Path, stop: int | None = None
) -> engine.Training:
    """Run the loop on a module whose weight is the number of the epoch."""
    module = nn.Linear(1, 1)
    optimiser = torch.optim.SGD(module.parameters(), 0.1)
    training = engine.Training(
        {"module": module}, optimiser, torch.optim.lr_scheduler.ConstantLR(optimiser), checkpoint, "toy"
    )

    def epoch(number: int) -> dict[str, float]:
        if number == stop:
            raise KeyboardInterrupt
        nn.init.constant_(module.weight, number + 1)
        return {"tracks": 1.0, "validation_loss": losses[number]}

    training.run(len(losses), epoch, watch=module, patience=patience, label="toy")
    return training


def weight(training: engine.Training) -> float:
    return float(training.modules["module"].state_dict()["weight"])


LOSSES = [3.0, 1.0, 2.0, 2.5, 0.5, 0.4]


@pytest.mark.parametrize(("patience", "epochs", "best"), [(1, 3, 2), (2, 4, 2), (3, 6, 6), (None, 6, 6)])
def test_early_stopping_restores_the_best_epoch(tmp_path, patience, epochs, best):
    training = losses_replayed(LOSSES, patience, tmp_path / "checkpoint")
    assert [entry["validation_loss"] for entry in training.history] == LOSSES[:epochs]
    assert [entry["epoch"] for entry in training.history] == list(range(1, epochs + 1))
    assert weight(training) == best
    assert not (tmp_path / "checkpoint").exists()


def test_without_patience_the_last_epoch_is_kept(tmp_path):
    assert weight(losses_replayed([1.0, 2.0, 3.0], None, tmp_path / "checkpoint")) == 3


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_best_epoch_survives_a_kill(tmp_path, stop):
    with pytest.raises(KeyboardInterrupt):
        losses_replayed(LOSSES, 2, tmp_path / "checkpoint", stop=stop)
    assert (tmp_path / "checkpoint").is_file()
    training = losses_replayed(LOSSES, 2, tmp_path / "checkpoint")
    assert len(training.history) == 4
    assert weight(training) == 2
    assert not list(tmp_path.iterdir())


# training on tracks


def test_same_seed_same_bytes_and_another_seed_others(folder, model, tmp_path):
    assert content(train(folder, tmp_path / "again")) == content(model)
    other = content(train(folder, tmp_path / "other", seed=12))
    assert other["weights.safetensors"] != content(model)["weights.safetensors"]


def killed_after(monkeypatch: pytest.MonkeyPatch, module: Any, epochs: int) -> None:
    """Make the training stop in the epoch after `epochs`, whose steps are done but not saved."""
    loss, calls = module.class_loss, []

    def dies(*arguments: Any) -> float:
        calls.append(1)
        if len(calls) > epochs:
            raise KeyboardInterrupt
        return float(loss(*arguments))

    monkeypatch.setattr(module, "class_loss", dies)


@pytest.mark.parametrize("epochs", [1, 3])
def test_killed_training_goes_on_to_the_same_bytes(folder, model, tmp_path, monkeypatch, capsys, epochs):
    with monkeypatch.context() as patch:
        killed_after(patch, fse, epochs)
        with pytest.raises(KeyboardInterrupt):
            train(folder, tmp_path / "fse")
    assert not (tmp_path / "fse").exists()
    assert [path.name for path in tmp_path.iterdir()] == [".fse.checkpoint"]
    torch.rand(7)  # another process starts from another random state
    assert content(train(folder, tmp_path / "fse")) == content(model)
    assert f"resumed after epoch {epochs}" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["fse"]


def test_checkpoint_of_other_data_is_ignored(folder, model, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        killed_after(patch, fse, 2)
        with pytest.raises(KeyboardInterrupt):
            train(folder, tmp_path / "fse", dataset="other")
    assert (tmp_path / ".fse.checkpoint").is_file()
    assert content(train(folder, tmp_path / "fse")) == content(model)
    assert "resumed" not in capsys.readouterr().out
    assert not (tmp_path / ".fse.checkpoint").exists()


def test_checkpoint_of_other_settings_is_ignored(folder, model, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        killed_after(patch, fse, 1)
        with pytest.raises(KeyboardInterrupt):
            train(folder, tmp_path / "fse", seed=12)
    assert content(train(folder, tmp_path / "fse")) == content(model)
    assert "resumed" not in capsys.readouterr().out


def test_killed_adaptation_goes_on_to_the_same_bytes(folder, model, adapted, tmp_path, monkeypatch, capsys):
    def adapt() -> Path:
        files = (folder / "simulation.parquet", folder / "data.parquet")
        adapt_model(model, *files, tmp_path / "dann", settings=ADAPT, threads=1)
        return tmp_path / "dann"

    with monkeypatch.context() as patch:
        killed_after(patch, dann, 2)
        with pytest.raises(KeyboardInterrupt):
            adapt()
    assert (tmp_path / ".dann.checkpoint").is_file()
    assert content(adapt()) == content(adapted)
    assert "resumed after epoch 2" in capsys.readouterr().out
    assert not (tmp_path / ".dann.checkpoint").exists()


def test_checkpoint_of_another_source_is_ignored(folder, model, adapted, tmp_path, monkeypatch, capsys):
    """Two networks can have the same description and differ in their weights."""
    twin = tmp_path / "twin"
    shutil.copytree(model, twin)
    weights = load_file(twin / "weights.safetensors")
    save_file({name: tensor + 0.1 for name, tensor in weights.items()}, twin / "weights.safetensors")
    files = (folder / "simulation.parquet", folder / "data.parquet")
    with monkeypatch.context() as patch:
        killed_after(patch, dann, 1)
        with pytest.raises(KeyboardInterrupt):
            adapt_model(twin, *files, tmp_path / "dann", settings=ADAPT, threads=1)
    adapt_model(model, *files, tmp_path / "dann", settings=ADAPT, threads=1)
    assert content(tmp_path / "dann") == content(adapted)
    assert "resumed" not in capsys.readouterr().out


def test_damaged_checkpoint_is_ignored(folder, model, tmp_path, capsys):
    (tmp_path / ".fse.checkpoint").write_bytes(b"no checkpoint")
    assert content(train(folder, tmp_path / "fse")) == content(model)
    assert "is damaged" in capsys.readouterr().out


def test_data_without_training_tracks_is_refused(folder, model, tmp_path):
    data = pq.read_table(folder / "data.parquet")
    pq.write_table(data.filter(pc.field("split") == "test"), tmp_path / "data.parquet")
    with pytest.raises(PidflowError, match="has no training track to adapt to"):
        adapt_model(
            model,
            folder / "simulation.parquet",
            tmp_path / "data.parquet",
            tmp_path / "dann",
            settings=ADAPT,
            threads=1,
        )


def areas(certainty: np.ndarray, tracks: Tracks, rows: np.ndarray) -> list[float]:
    return [roc_auc_score(tracks.labels[rows, n], certainty[rows, n]) for n in range(len(SPECIES))]


@pytest.mark.parametrize("kind", ["fse", "gbdt", "adapted"])
def test_models_learn_species_with_and_without_tof(folder, model, adapted, tmp_path, kind):
    place = {"fse": model, "adapted": adapted}.get(kind) or train(folder, tmp_path / "gbdt", kind="gbdt")
    test = read_tracks(folder / "simulation.parquet", "test", FEATURES, SPECIES)
    certainty = load_scorer(place, read_info(place), 1)(test.features)
    assert certainty.dtype == np.float32
    assert certainty.min() >= 0
    assert certainty.max() <= 1
    without_tof = np.isnan(test.features[:, 1])
    assert 0.3 < without_tof.mean() < 0.5
    for rows in (without_tof, ~without_tof):
        assert min(areas(certainty, test, rows)) > 0.95


def test_history_of_a_training(model, adapted):
    history = pq.read_table(model / "history.parquet").to_pylist()
    assert [entry["epoch"] for entry in history] == [1, 2, 3, 4]
    assert set(history[0]) == {"epoch", "train_loss", "validation_loss"}
    assert history[-1]["train_loss"] < 0.8 * history[0]["train_loss"]
    unadapted = min(entry["validation_loss"] for entry in history)
    history = pq.read_table(adapted / "history.parquet").to_pylist()
    assert set(history[0]) == {
        "epoch", "train_loss", "domain_loss", "domain_accuracy", "validation_loss",
    }  # fmt: skip
    assert len(history) == 3
    # the first pass trains the discriminator alone: the network's loss is that of the source
    assert history[0]["validation_loss"] == pytest.approx(unadapted, rel=1e-6)
    assert history[1]["validation_loss"] != pytest.approx(unadapted, rel=1e-6)
    assert all(entry["train_loss"] > 0 for entry in history)
    assert all(0.3 < entry["domain_accuracy"] < 0.9 for entry in history)


def test_validation_loss_is_the_cross_entropy_of_the_stored_network(folder, model):
    validation = read_tracks(folder / "simulation.parquet", "validation", FEATURES, SPECIES)
    with torch.no_grad():
        certainty = torch.sigmoid(load(model)(torch.from_numpy(validation.features))).numpy().astype(np.float64)
    y = validation.labels
    expected = -(y * np.log(certainty) + (1 - y) * np.log(1 - certainty)).mean()
    losses = pq.read_table(model / "history.parquet")["validation_loss"].to_pylist()
    assert min(losses) == pytest.approx(expected, rel=1e-4)


def test_discriminator_alone_leaves_the_network(folder, model, tmp_path):
    info = read_info(model)
    train_set = read_tracks(folder / "simulation.parquet", "train", FEATURES, SPECIES)
    data = read_features(folder / "data.parquet", "train", FEATURES)
    settings = Adapt.model_validate(ADAPT | {"epochs": 1, "discriminator_epochs": 2})
    # stop before the first joint pass, and look at the network in the checkpoint
    with pytest.MonkeyPatch.context() as patch:
        killed_after(patch, dann, 2)
        with pytest.raises(KeyboardInterrupt):
            dann.adapt(
                model, train_set, train_set, data, info, settings, tmp_path / "m", tmp_path / "c", batch=64, threads=1
            )
        weights = torch.load(tmp_path / "c", weights_only=True)["modules"]["network"]
    for name, tensor in load(model).state_dict().items():
        assert torch.equal(weights[name], tensor), name


def with_column(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, values)


def test_labels_of_data_have_no_influence(folder, model, adapted, tmp_path):
    data = pq.read_table(folder / "data.parquet")
    assert data["pdg_code"].null_count == data.num_rows
    planted = with_column(data, "pdg_code", pa.array(np.resize(SPECIES, data.num_rows), pa.int32()))
    for name in ("mother_pdg_code", "is_physical_primary"):
        filled = pa.array(np.ones(data.num_rows, int)).cast(data.schema.field(name).type)
        planted = with_column(planted, name, filled)
    other = with_column(data, "tpc_signal", pa.array(data["tpc_signal"].to_numpy() + np.float32(1)))
    found = {}
    for name, table in {"planted": planted, "other": other}.items():
        pq.write_table(table, tmp_path / f"{name}.parquet")
        adapt_model(
            model, folder / "simulation.parquet", tmp_path / f"{name}.parquet", tmp_path / name, settings=ADAPT,
            threads=1,
        )  # fmt: skip
        found[name] = content(tmp_path / name)
    assert found["planted"] == content(adapted)
    assert found["other"]["weights.safetensors"] != content(adapted)["weights.safetensors"]


def test_adaptation_reads_the_training_set_of_data_only(folder, model, adapted, tmp_path):
    data = pq.read_table(folder / "data.parquet")
    training = data["split"].to_numpy(zero_copy_only=False) == "train"
    spoiled = np.where(training, data["tpc_signal"].to_numpy(), 0).astype(np.float32)
    pq.write_table(with_column(data, "tpc_signal", pa.array(spoiled)), tmp_path / "data.parquet")
    adapt_model(
        model, folder / "simulation.parquet", tmp_path / "data.parquet", tmp_path / "dann", settings=ADAPT, threads=1
    )
    assert content(tmp_path / "dann") == content(adapted)


def test_adapted_model_says_so(model, adapted):
    before, after = read_info(model), read_info(adapted)
    assert before.adaptation is None
    assert after.adaptation == ADAPT
    assert after.model_copy(update={"adaptation": None}) == before


@pytest.mark.parametrize("split", ["train", "validation"])
def test_species_without_tracks(folder, tmp_path, split):
    table = pq.read_table(folder / "simulation.parquet")
    pdg = table["pdg_code"].to_numpy()
    missing = (pdg == 2212) & (table["split"].to_numpy(zero_copy_only=False) == split)
    table = with_column(table, "pdg_code", pa.array(pdg, pa.int32(), mask=missing))
    pq.write_table(table, tmp_path / "simulation.parquet")
    write_json(tmp_path / "features.json", {"features": list(FEATURES)})
    with pytest.raises(PidflowError, match=rf"simulation.parquet: no {split} track of species 2212; add simulation"):
        train(tmp_path, tmp_path / "model", kind="gbdt")
    assert not (tmp_path / "model").exists()


def test_model_folders_hold_no_pickle(folder, model, adapted, tmp_path):
    trees = train(folder, tmp_path / "gbdt", kind="gbdt")
    cuts = train(folder, tmp_path / "nsigma", kind="nsigma")
    assert set(content(model)) == set(content(adapted)) == {"model.json", "weights.safetensors", "history.parquet"}
    assert set(content(trees)) == {"model.json", "trees_211.txt", "trees_321.txt", "trees_2212.txt"}
    assert set(content(cuts)) == {"model.json"}
    for place in (model, adapted, trees, cuts):
        for name, text in content(place).items():
            # pickles begin with 0x80, torch's files are ZIP archives
            assert text[:1] != b"\x80" and text[:2] != b"PK", name
        json.loads(content(place)["model.json"])


def test_model_info_of_a_training(model):
    info = read_info(model)
    assert (info.kind, info.run, info.species, info.features) == ("fse", 5, SPECIES, FEATURES)
    assert (info.masks, info.seed) == ({"tof": 0.5, "trd": 0.8}, 11)
    assert info.settings == Fse.model_validate(SETTINGS).model_dump(mode="json")


def test_folder_without_a_model(tmp_path):
    with pytest.raises(PidflowError, match=r"no model.json; train the model first"):
        read_info(tmp_path)
    (tmp_path / "model.json").write_text('{"kind": "fse", "run": 1}')
    with pytest.raises(PidflowError, match=r"model.json: key 'species'"):
        read_info(tmp_path)


# trees


def test_trees_round_trip_through_files(folder, tmp_path, monkeypatch):
    boosters, original = [], lgb.train

    def remember(*arguments: Any, **options: Any) -> lgb.Booster:
        boosters.append(original(*arguments, **options))
        return boosters[-1]

    monkeypatch.setattr(gbdt.lgb, "train", remember)
    model = train(folder, tmp_path / "gbdt", kind="gbdt")
    features = read_features(folder / "simulation.parquet", "test", FEATURES)
    certainty = gbdt.Scorer(model, read_info(model))(features)
    assert certainty.shape == (len(features), 3)
    for number, booster in enumerate(boosters):
        expected = booster.predict(features, num_iteration=booster.best_iteration)
        np.testing.assert_allclose(certainty[:, number], expected, atol=1e-6)
    again = train(folder, tmp_path / "again", kind="gbdt")
    assert content(again) == content(model)


# reference cuts

NSIGMA_FEATURES = ("p", "sign", "tpc_nsigma_pi", "tof_nsigma_pi")


def certainty_of(tracks: list[tuple[float, ...]], species: tuple[int, ...] = (211,), **settings: Any) -> list[float]:
    info = ModelInfo(
        kind="nsigma", run=1, species=species, features=nsigma.features_for(species), masks={}, seed=0,
        settings=NSigma.model_validate(settings).model_dump(),
    )  # fmt: skip
    assert info.features == NSIGMA_FEATURES
    found: list[float] = nsigma.Scorer(info)(np.array(tracks, np.float32))[:, 0].tolist()
    return found


NAN = math.nan


@pytest.mark.parametrize(
    ("track", "expected"),
    [
        ((0.3, 1, 3.0, NAN), 0.5),
        ((0.3, 1, -3.0, NAN), 0.5),
        ((0.3, 1, 0.0, NAN), 1.0),
        ((0.3, 1, 6.0, NAN), 0.2),
        ((0.3, 1, 1.0, 50.0), 0.9),  # TOF is not used below its momentum
        ((0.5, 1, 3.0, 0.0), 0.5),
        ((2.0, 1, 0.0, -3.0), 0.5),
        ((2.0, 1, 1.8, -2.4), 0.5),
        ((2.0, 1, 3.0, 4.0), 1 / (1 + 25 / 9)),
        ((0.5, 1, 0.0, NAN), 0.0),  # TOF is required from here
        ((2.0, 1, 0.0, NAN), 0.0),
        ((0.3, 1, NAN, 0.0), 0.0),
        ((2.0, 1, NAN, 0.0), 0.0),
        ((0.3, -1, 0.0, NAN), 0.0),
        ((0.3, NAN, 3.0, NAN), 0.5),  # a sample without charges
    ],
)
def test_certainty_of_the_cut(track, expected):
    assert certainty_of([track, (0.1, 1, 0.0, NAN)]) == pytest.approx([expected, 1.0], abs=1e-6)


def test_settings_of_the_cut():
    track = (2.0, 1, 2.0, NAN)
    assert certainty_of([track], require_tof=False, n_sigma=2.0) == [0.5]
    assert certainty_of([track], tof_from=2.5, n_sigma=2.0) == [0.5]
    assert certainty_of([(2.0, 1, 2.0, 0.0)], n_sigma=2.0, tof_from=0.0) == [0.5]


def test_charge_of_the_antiparticle():
    assert certainty_of([(0.3, -1, 0.0, NAN), (0.3, 1, 0.0, NAN)], species=(-211,)) == [1.0, 0.0]


def test_columns_of_the_cut():
    assert nsigma.features_for((211, -211, 2212)) == (
        "p", "sign", "tpc_nsigma_pi", "tpc_nsigma_pr", "tof_nsigma_pi", "tof_nsigma_pr",
    )  # fmt: skip
    # the electron is the negative one
    info = ModelInfo(
        kind="nsigma", run=1, species=(11, -11), features=nsigma.features_for((11, -11)), masks={}, seed=0,
        settings=NSigma().model_dump(),
    )  # fmt: skip
    found = nsigma.Scorer(info)(np.array([[0.3, -1, 0, NAN]], np.float32))
    assert found.tolist() == [[1.0, 0.0]]


# scores and reading


@pytest.mark.parametrize("kind", ["fse", "gbdt", "nsigma"])
def test_score_table_follows_the_dataset_row_by_row(folder, model, tmp_path, monkeypatch, kind):
    monkeypatch.setattr(parquet, "_BATCH_ROWS", 70)
    place = model if kind == "fse" else train(folder, tmp_path / kind, kind=kind)
    table = pq.read_table(folder / "simulation.parquet")
    table = table.take(np.random.default_rng(0).permutation(table.num_rows)[:500])
    pdg = pa.array([*table["pdg_code"].to_pylist()[:-1], None], pa.int32())
    table = with_column(table, "pdg_code", pdg)
    signal = np.random.default_rng(1).normal(size=500).astype(np.float32)
    for name in ("tpc_nsigma_pi", "tof_nsigma_pi"):
        table = with_column(table, name, pa.array(signal))
    pq.write_table(table, tmp_path / "dataset.parquet", row_group_size=130)
    score_dataset(place, tmp_path / "dataset.parquet", tmp_path / "scores.parquet", threads=1)
    scores = pq.read_table(tmp_path / "scores.parquet")
    assert scores.schema.names == [*ROW_ID, "split", "pdg_code", *(certainty_column(pdg) for pdg in SPECIES)]
    carried = [*ROW_ID, "split", "pdg_code"]
    assert scores.select(carried).to_pylist() == table.select(carried).to_pylist()
    found = np.stack([scores[certainty_column(pdg)].to_numpy() for pdg in SPECIES], axis=1)
    info = read_info(place)
    values = matrix(table, info.features)
    if kind == "fse":
        with torch.no_grad():
            logits = load(place)(torch.from_numpy(values)).numpy().astype(np.float64)
        expected = 1 / (1 + np.exp(-logits))
    elif kind == "gbdt":
        expected = np.stack(
            [lgb.Booster(model_file=place / f"trees_{pdg}.txt").predict(values) for pdg in SPECIES], axis=1
        )
    else:
        p, sign = table["p"].to_numpy(), table["sign"].to_numpy()
        deviation = np.where(p < 0.5, signal, np.sqrt(2.0) * signal)
        expected = np.zeros((500, 3))
        expected[:, 0] = np.where(sign > 0, 1 / (1 + (deviation / 3) ** 2), 0)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert np.ptp(found[:, 0]) > 0.5


def test_reading_of_one_set(folder):
    table = pq.read_table(folder / "simulation.parquet").to_pylist()
    rows = [row for row in table if row["split"] == "validation"]
    tracks = read_tracks(folder / "simulation.parquet", "validation", ("beta", "sign"), (2212, 211))
    assert len(tracks) == len(rows)
    expected = [[np.nan if row["beta"] is None else row["beta"], row["sign"]] for row in rows]
    np.testing.assert_array_equal(tracks.features, np.array(expected, np.float32))
    assert tracks.labels.tolist() == [[row["pdg_code"] == 2212, row["pdg_code"] == 211] for row in rows]
    np.testing.assert_array_equal(
        read_features(folder / "simulation.parquet", "validation", ("beta", "sign")), tracks.features
    )


def test_unlabelled_tracks_are_of_no_species(tmp_path):
    table = make_dataset(400)
    pdg = table["pdg_code"].to_pylist()
    fake = [n for n, row in enumerate(table["split"].to_pylist()) if row == "train"][:5]
    for number in fake:
        pdg[number] = None
    pq.write_table(with_column(table, "pdg_code", pa.array(pdg, pa.int32())), tmp_path / "t.parquet")
    tracks = read_tracks(tmp_path / "t.parquet", "train", ("p",), SPECIES)
    assert tracks.labels[:5].sum() == 0
    assert (tracks.labels[5:].sum(axis=1) == 1).all()


def test_prediction_in_batches_is_in_evaluation_mode():
    network = copy.deepcopy(random_network()).train()
    raw = random_tracks(50)
    found = engine.predict(network, raw.numpy(), batch=7)
    with torch.no_grad():
        np.testing.assert_allclose(found, network.eval()(raw).numpy(), atol=1e-6)
