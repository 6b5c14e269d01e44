"""Training of a network on simulation and data together: the loop, its steps end to end, and what it leaves behind."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import models_sample
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from models_sample import content, fse, library_state  # noqa: F401
from safetensors.torch import load_file, save_file
from sklearn.metrics import roc_auc_score
from tracks_sample import make_dataset

from pidflow.adapt import network
from pidflow.adapt.network import Partners, adapt_network, patterns
from pidflow.adapt.steps import dann, settings_of
from pidflow.adapt.steps.base import Batch, Domains
from pidflow.errors import PidflowError
from pidflow.files import write_json
from pidflow.model import read_info
from pidflow.models import load
from pidflow.models import settings_of as model_settings
from pidflow.tracks import WEIGHT
from pidflow.train.data import read_columns, read_features, read_tracks
from pidflow.train.engine import predict
from pidflow.train.fit import fit_model
from pidflow.train.network import class_loss

pytestmark = pytest.mark.usefixtures("library_state")

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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
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


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    torch.set_num_threads(1)
    return train(folder, folder / "fse")


@pytest.fixture(scope="module")
def adapted(folder: Path, model: Path) -> Path:
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


# partners of data


def test_partners_have_the_pattern_of_their_tracks() -> None:
    torch.manual_seed(0)
    own = torch.tensor([0, 1, 3, 2] * 500)
    other = torch.tensor([3, 0, 0, 1, 0, 3, 0, 5] * 3)
    rows = torch.randperm(2000)
    found = Partners(own, other).draw(rows)
    asked = own[rows]
    there = asked != 2
    assert torch.equal(other[found][there], asked[there])
    # data has no track of pattern 2: any will do, and each track of the others comes as often
    for pattern in range(4):
        share = torch.bincount(found[asked == pattern], minlength=24) / 500
        allowed = other == pattern if pattern != 2 else torch.ones(24, dtype=torch.bool)
        assert torch.equal(share > 0, allowed)
        assert (share[allowed] - 1 / allowed.sum()).abs().max() < 4 / 500**0.5 / allowed.sum() ** 0.5


def test_patterns_are_those_of_the_calibration(model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = load(model).trained  # type: ignore[attr-defined]
    features = read_features(folder / "data.parquet", "train", FEATURES)
    monkeypatch.setattr(network, "_ROWS", 70)
    found = patterns(trained, features).numpy()
    np.testing.assert_array_equal(found, 2 * ~np.isnan(features[:, 1]))


@pytest.mark.parametrize(("step", "balanced"), [("dann", True), ("mcc", False)])
def test_batches_of_both_samples(
    folder: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, balanced: bool
) -> None:
    """The data has TOF on a third of the tracks that have it in simulation."""
    table = pq.read_table(folder / "data.parquet")
    beta = table["beta"].to_numpy().copy()
    beta[np.random.default_rng(0).random(len(beta)) < 2 / 3] = np.nan
    pq.write_table(with_column(table, "beta", pa.array(beta, from_pandas=True)), tmp_path / "data.parquet")
    features = read_features(tmp_path / "data.parquet", "train", FEATURES)
    own = read_tracks(folder / "simulation.parquet", "train", FEATURES, SPECIES)
    inputs = watched_inputs(model, monkeypatch)
    batches = seen(monkeypatch, network.step_of(STEPS[step]["kind"]))
    adapt(folder, model, tmp_path / "m", data=tmp_path / "data.parquet", step=step)
    assert len(inputs) == len(batches) > 20
    known = {row.tobytes(): label for row, label in zip(own.features, own.labels, strict=True)}
    tof = []
    for raw, batch in zip(inputs, batches, strict=True):
        assert len(raw) == len(batch.vectors) == len(batch.logits) == 2 * batch.size == 128
        np.testing.assert_array_equal(raw[64:].numpy(), features[batch.rows.numpy()])
        for row, label in zip(raw[:64].numpy(), batch.labels.numpy(), strict=True):
            np.testing.assert_array_equal(known[row.tobytes()], label)
        tof.append((~torch.isnan(raw[:, 1])).reshape(2, -1))
    simulated, measured = torch.cat(tof, dim=1)
    assert torch.equal(simulated, measured) == balanced
    if not balanced:
        assert abs(measured.float().mean() - np.mean(~np.isnan(features[:, 1]))) < 0.03
    # of the epochs after those alone
    progress = [batch.progress for batch in batches]
    alone = len(progress) // 3 if step == "dann" else 0
    assert progress[: alone + 1] == [0.0] * (alone + 1)
    np.testing.assert_allclose(np.diff(progress[alone:]), 1 / (len(progress) - alone), atol=1e-9)


@pytest.mark.parametrize("per_track", [1, 3])
def test_others_are_the_steps_own(
    folder: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, per_track: int
) -> None:
    """A step that wants the validation tracks of data, in another order, several for each labelled one."""
    wanted = read_features(folder / "data.parquet", "validation", FEATURES)[::-1].copy()

    class Own(network.step_of("mmd")):  # type: ignore[misc]
        others_per_track = per_track

        def others(self, domains: Domains) -> Any:
            assert domains.species == SPECIES
            return wanted

        def penalty(self, batch: Batch) -> torch.Tensor:
            return batch.vectors.sum() * 0.0

    inputs = watched_inputs(model, monkeypatch)
    batches = seen(monkeypatch, Own)
    monkeypatch.setattr(network, "step_of", lambda kind: Own)
    adapt(folder, model, tmp_path / "m", step="mmd", epochs=1)
    assert len(inputs) == len(batches) > 10
    drawn = np.zeros(len(wanted), int)
    for raw, batch in zip(inputs, batches, strict=True):
        assert batch.size == 64 and len(raw) == len(batch.vectors) == 64 * (1 + per_track) == 64 + len(batch.rows)
        np.testing.assert_array_equal(raw[64:].numpy(), wanted[batch.rows.numpy()])
        # balanced: of the pattern of the labelled track beside which they are
        tof = ~torch.isnan(raw[:, 1]).reshape(1 + per_track, 64)
        assert (tof == tof[0]).all()
        drawn += np.bincount(batch.rows.numpy(), minlength=len(wanted))
    assert (drawn > 0).mean() > 0.7


@pytest.mark.parametrize(("step", "betas"), [("dann", (0.5, 0.9)), ("adversary", (0.5, 0.9)), ("mmd", (0.9, 0.99)),
                                             ("flatness", (0.9, 0.99)), ("self_training", (0.9, 0.99))])  # fmt: skip
def test_adversaries_are_trained_with_less_momentum(
    folder: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, betas: tuple[float, float]
) -> None:
    found = []
    optimiser = torch.optim.AdamW

    def watched(*arguments: Any, **options: Any) -> torch.optim.AdamW:
        found.append(options["betas"])
        return optimiser(*arguments, **options)

    monkeypatch.setattr(torch.optim, "AdamW", watched)
    adapt(folder, model, tmp_path / "m", step=step, epochs=1)
    assert found == [betas]


def test_decorrelation_draws_true_tracks_of_the_protected_species(
    folder: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = read_tracks(folder / "simulation.parquet", "train", FEATURES, SPECIES)
    inputs = watched_inputs(model, monkeypatch)
    batches = seen(monkeypatch, network.step_of("decorrelate"))
    adapt(folder, model, tmp_path / "m", step="flatness", species=(2212,))
    known = {row.tobytes() for row in own.features[own.labels[:, 2] > 0]}
    assert len(batches) > 20
    for raw, batch in zip(inputs, batches, strict=True):
        assert len(batch.rows) == 2 * batch.size
        assert {row.tobytes() for row in raw[batch.size :].numpy()} <= known
    first = adapt(folder, model, tmp_path / "first", step="flatness", species=(211,))
    assert content(first)["weights.safetensors"] != content(tmp_path / "m")["weights.safetensors"]


def test_decorrelation_of_an_unknown_species_is_refused(folder: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(PidflowError, match="the model has no certainty of species -11; correct 'species'"):
        adapt(folder, model, tmp_path / "m", step="flatness", species=(-11,))


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


# weights of simulated tracks and hidden detectors


def test_weights_of_tracks_reach_the_loss(folder: Path, model: Path, tmp_path: Path) -> None:
    table = pq.read_table(folder / "simulation.parquet")
    for name, number in {"ones": None, "few": 321}.items():
        pdg = table["pdg_code"].to_numpy()
        weight = np.where(pdg == number, 0.05, 1.0).astype(np.float32)
        pq.write_table(table.append_column(WEIGHT.name, pa.array(weight)), tmp_path / f"{name}.parquet")
        adapt(folder, model, tmp_path / name, simulation=tmp_path / f"{name}.parquet", step="mmd", learning_rate=0.01)
    plain = adapt(folder, model, tmp_path / "plain", step="mmd", learning_rate=0.01)
    assert content(plain) == content(tmp_path / "ones")
    test = read_tracks(folder / "simulation.parquet", "test", FEATURES, SPECIES)
    certainty = {name: load(tmp_path / name).score(test.features)[:, 1].mean() for name in ("plain", "few")}
    assert certainty["few"] < 0.8 * certainty["plain"]
    # calibration counts them too: of the sum of all weights, the second species has 0.05/(2 + 0.05)
    assert certainty["few"] < 0.3


def test_weight_of_species_is_undone(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = train(folder, tmp_path / "source", balance_species=1.0)
    own = read_tracks(folder / "simulation.parquet", "train", FEATURES, SPECIES).labels.mean(axis=0)

    def watched(logits: Any, labels: Any, tracks: Any = None, species: Any = None) -> torch.Tensor:
        np.testing.assert_allclose(species.numpy(), (1 - own) / own, rtol=1e-5)
        return class_loss(logits, labels, tracks, species)

    monkeypatch.setattr(network, "class_loss", watched)
    places = (source, adapt(folder, source, tmp_path / "m", step="deep_coral"))
    test = read_tracks(folder / "simulation.parquet", "test", FEATURES, SPECIES)
    for place in places:
        certainty = load(place).score(test.features)
        np.testing.assert_allclose(certainty.mean(axis=0), test.labels.mean(axis=0), atol=0.03)
    losses = [pq.read_table(place / "history.parquet")["validation_loss"].to_pylist() for place in places]
    # of one and the same weighted loss
    assert losses[1][0] < 1.2 * min(losses[0])


@pytest.mark.parametrize("probability", [0.0, 0.5])
def test_detectors_are_hidden_as_from_the_source(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, probability: float
) -> None:
    source = train(folder, tmp_path / "source", hide_detector=probability, epochs=2)
    hidden: list[float] = []
    hide = network.hide

    def watched(raw: torch.Tensor, *options: Any) -> torch.Tensor:
        result = hide(raw, *options)
        hidden.append(float(result[:, 0].isnan().float().mean()))
        return result

    monkeypatch.setattr(network, "hide", watched)
    adapt(folder, source, tmp_path / "m", step="mmd")
    assert bool(hidden) == bool(probability)
    assert not hidden or np.mean(hidden) == pytest.approx(0.5, abs=0.05)


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


def test_columns_of_a_batch_are_those_of_its_tracks(
    folder: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The protected column is one of the features here, so that both can be compared."""
    batches = seen(monkeypatch, network.step_of("decorrelate"))
    inputs = watched_inputs(model, monkeypatch)
    adapt(folder, model, tmp_path / "m", step="flatness", column="p")
    for raw, batch in zip(inputs, batches, strict=True):
        assert torch.equal(raw[: batch.size, FEATURES.index("p")], batch.columns["p"])


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
