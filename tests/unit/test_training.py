"""Training: reading of tracks, the loop, weights of the loss, warm start and score tables."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightgbm as lgb
import models_sample
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from models_sample import content, fse, library_state, mlp  # noqa: F401
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score
from torch import nn
from tracks_sample import make_dataset

from pidflow import parquet
from pidflow.errors import PidflowError
from pidflow.files import write_json
from pidflow.model import read_info
from pidflow.models import load, model_of, settings_of
from pidflow.models.base import Tracks
from pidflow.models.network import Optimisation
from pidflow.parquet import matrix
from pidflow.scores import certainty_column
from pidflow.tracks import ROW_ID
from pidflow.train import engine, network
from pidflow.train.data import read_features, read_tracks
from pidflow.train.fit import fit_model
from pidflow.train.score import score_dataset

pytestmark = [
    pytest.mark.usefixtures("library_state"),
    # a remark of LightGBM on its memory, not on its result
    pytest.mark.filterwarnings("ignore:Usage of np.ndarray subset:UserWarning"),
]

SPECIES = (211, 321, 2212)
FEATURES = ("tpc_signal", "beta", "p", "sign")
SETTINGS: dict[str, dict[str, Any]] = {
    "fse": fse(average=0.95, hide_detector=0.05, patience=3),
    "mlp": mlp(),
    "gbdt": {"trees": 40, "leaves": 7},
    "nsigma": {},
}


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


def train(folder: Path, model: Path, kind: str = "fse", dataset: str = "simulation", **changes: Any) -> Path:
    settings = settings_of(kind).model_validate(SETTINGS[kind]).model_dump(mode="json")
    options: dict[str, Any] = {
        "run": 5, "species": SPECIES, "masks": {"tof": 0.5, "trd": 0.8}, "seed": 11, "settings": settings, "threads": 1,
    }  # fmt: skip
    files = (folder / f"{dataset}.parquet", folder / "features.json", folder / "response.json")
    fit_model(*files, model, **(options | changes))
    return model


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    torch.set_num_threads(1)
    return train(folder, folder / "fse")


def read(folder: Path, split: str = "train") -> Tracks:
    return read_tracks(folder / "simulation.parquet", split, FEATURES, SPECIES)


def with_column(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, values)


# schedules, measures


def test_learning_rate_rises_and_falls() -> None:
    factors = [engine.cosine(step, 1000) for step in range(1000)]
    assert factors[0] == pytest.approx(1 / 50)
    assert factors[24] == pytest.approx(0.5)
    assert max(factors) == 1.0
    assert int(np.argmax(factors)) == 49
    assert engine.cosine(525, 1000) == pytest.approx(0.5)
    assert factors[-1] < 1e-5
    assert engine.cosine(5000, 1000) == pytest.approx(0.0, abs=1e-12)


def test_batches_of_an_epoch() -> None:
    torch.manual_seed(0)
    parts = list(engine.shuffled(10, 3))
    assert [len(part) for part in parts] == [3, 3, 3]
    assert len(set(torch.cat(parts).tolist())) == 9
    assert torch.cat(list(engine.shuffled(12, 4))).sort().values.tolist() == list(range(12))
    assert torch.cat(list(engine.shuffled(12, 4))).tolist() != torch.cat(list(engine.shuffled(12, 4))).tolist()


def test_fingerprint_tells_trainings_apart() -> None:
    array = np.arange(6, dtype=np.float32)
    first = engine.fingerprint({"a": 1, "b": 2}, array)
    assert engine.fingerprint({"b": 2, "a": 1}, array.copy()) == first
    assert engine.fingerprint({"a": 1, "b": 2}, np.repeat(array, 2)[::2]) == first
    assert engine.fingerprint({"a": 1, "b": 3}, array) != first
    assert engine.fingerprint({"a": 1, "b": 2}, array + 1) != first


def test_macro_auc_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((500, 3)) < (0.1, 0.5, 0.9)).astype(np.float32)
    # few distinct scores: many ties
    score = np.round(labels + rng.normal(0.0, 1.0, labels.shape), 0).astype(np.float32)
    assert engine.macro_auc(score, labels) == pytest.approx(roc_auc_score(labels, score), abs=1e-12)
    assert engine.macro_auc(np.zeros_like(score), labels) == pytest.approx(0.5)
    # a species without tracks, or of which all are, has no area
    labels[:, 0], labels[:, 1] = 0.0, 1.0
    assert engine.macro_auc(score, labels) == pytest.approx(roc_auc_score(labels[:, 2], score[:, 2]), abs=1e-12)
    assert math.isnan(engine.macro_auc(score[:, :2], labels[:, :2]))


def test_cuda_is_refused_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert engine.prepare(1, 1, "auto") == engine.prepare(1, 1) == torch.device("cpu")
    with pytest.raises(PidflowError, match="no CUDA device is visible"):
        engine.prepare(1, 1, "cuda")


# average of weights


def test_average_is_its_closed_form() -> None:
    toy = nn.Linear(1, 1)
    nn.init.constant_(toy.weight, 5.0)
    average = engine.Average(toy, 0.7)
    values = [5.0, 1.0, -2.0, 4.0, 3.0, 8.0, 0.5, 7.0, 2.0, 6.0, -1.0] * 4
    for step, value in enumerate(values[1:]):
        nn.init.constant_(toy.weight, value)
        average.update(step)
    decays = [min(0.7, (1 + step) / (10 + step)) for step in range(len(values) - 1)]
    # each value counts with what its own step gives it and the later ones leave
    shares = [math.prod(decays), *((1 - d) * math.prod(decays[n + 1 :]) for n, d in enumerate(decays))]
    assert sum(shares) == pytest.approx(1)
    expected = sum(share * value for share, value in zip(shares, values, strict=True))
    assert float(average.network.weight.detach()) == pytest.approx(expected, abs=1e-5)
    assert decays[0] == 0.1 and decays[-1] == 0.7
    assert not any(parameter.requires_grad for parameter in average.network.parameters())
    assert all(parameter.requires_grad for parameter in toy.parameters())


def test_no_average_is_the_network_itself() -> None:
    toy = nn.Linear(1, 1)
    average = engine.Average(toy, 0.0)
    average.update(3)
    assert average.network is toy and toy.weight.requires_grad


def test_average_becomes_the_model(folder: Path, model: Path, tmp_path: Path) -> None:
    without = settings_of("fse").model_validate(fse(average=0.0, hide_detector=0.05, patience=3))
    last = train(folder, tmp_path / "last", settings=without.model_dump(mode="json"))
    one, other = (load_file(place / "weights.safetensors") for place in (model, last))
    assert (one["network.heads.0.weight"] - other["network.heads.0.weight"]).abs().max() > 1e-3


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
def test_early_stopping_restores_the_best_epoch(tmp_path: Path, patience: int | None, epochs: int, best: int) -> None:
    training = losses_replayed(LOSSES, patience, tmp_path / "checkpoint")
    assert [entry["validation_loss"] for entry in training.history] == LOSSES[:epochs]
    assert [entry["epoch"] for entry in training.history] == list(range(1, epochs + 1))
    assert weight(training) == best
    assert not (tmp_path / "checkpoint").exists()


def test_without_patience_the_last_epoch_is_kept(tmp_path: Path) -> None:
    assert weight(losses_replayed([1.0, 2.0, 3.0], None, tmp_path / "checkpoint")) == 3


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_best_epoch_survives_a_kill(tmp_path: Path, stop: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        losses_replayed(LOSSES, 2, tmp_path / "checkpoint", stop=stop)
    assert (tmp_path / "checkpoint").is_file()
    training = losses_replayed(LOSSES, 2, tmp_path / "checkpoint")
    assert len(training.history) == 4
    assert weight(training) == 2
    assert not list(tmp_path.iterdir())


def dies_after(epochs: int, of: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that raises when it is called once more than so often."""
    calls = []

    def dies(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) > epochs:
            raise KeyboardInterrupt
        return of(*arguments, **options)

    return dies


@pytest.mark.parametrize("kind", ["fse", "mlp"])
@pytest.mark.parametrize("epochs", [1, 3])
def test_killed_training_goes_on_to_the_same_bytes(
    folder: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    epochs: int, kind: str,
) -> None:  # fmt: skip
    expected = content(model if kind == "fse" else train(folder, tmp_path / "whole" / "mlp", "mlp"))
    capsys.readouterr()
    with monkeypatch.context() as patch:
        # the steps of the epoch are done then, but not saved
        patch.setattr(network, "macro_auc", dies_after(epochs, network.macro_auc))
        with pytest.raises(KeyboardInterrupt):
            train(folder, tmp_path / kind, kind)
    assert not content(tmp_path / kind)
    assert (tmp_path / f".{kind}.checkpoint").is_file()
    torch.rand(7)  # another process starts from another random state
    assert content(train(folder, tmp_path / kind, kind)) == expected
    assert f"resumed after epoch {epochs}" in capsys.readouterr().out
    assert not (tmp_path / f".{kind}.checkpoint").exists()


@pytest.mark.parametrize("changes", [{"dataset": "other"}, {"seed": 12}, {"masks": {"tof": 0.4, "trd": 0.8}}])
def test_checkpoint_of_another_training_is_ignored(
    folder: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
) -> None:  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(network, "macro_auc", dies_after(2, network.macro_auc))
        with pytest.raises(KeyboardInterrupt):
            train(folder, tmp_path / "fse", **changes)
    assert (tmp_path / ".fse.checkpoint").is_file()
    assert content(train(folder, tmp_path / "fse")) == content(model)
    assert "resumed" not in capsys.readouterr().out
    assert not (tmp_path / ".fse.checkpoint").exists()


def test_damaged_checkpoint_is_ignored(
    folder: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".fse.checkpoint").write_bytes(b"no checkpoint")
    assert content(train(folder, tmp_path / "fse")) == content(model)
    assert "is damaged" in capsys.readouterr().out


# weights of the loss


def posterior_sample(n_tracks: int, seed: int) -> tuple[Tracks, np.ndarray]:
    """Return tracks of two species and of others, and the probabilities [N, 2] that their features give.

    The rare first species is more frequent at high pT, where there are few tracks.
    """
    rng = np.random.default_rng(seed)
    pt = rng.exponential(0.6, n_tracks) + 0.15
    prior = 0.04 + 0.2 / (1 + np.exp(-2 * (pt - 1.5)))
    number = np.where(rng.random(n_tracks) < prior, 0, np.where(rng.random(n_tracks) < 0.5, 1, 2))
    centres = np.array([0.0, 1.5, 3.0])
    x = centres[number] + rng.normal(size=n_tracks)
    density = np.exp(-0.5 * (x[:, None] - centres) ** 2)
    density *= np.stack([prior, (1 - prior) / 2, (1 - prior) / 2], axis=1)
    true = density / density.sum(axis=1, keepdims=True)
    features = np.stack([x, pt, np.ones(n_tracks)], axis=1).astype(np.float32)
    return Tracks(features, (number[:, None] == np.arange(2)).astype(np.float32)), true[:, :2]


def disagreement(certainty: np.ndarray, expected: np.ndarray, pt: np.ndarray) -> float:
    """Return the largest difference between the mean certainty and the mean probability in bins of either, or of pT."""
    worst = 0.0
    for number in range(2):
        for variable in (certainty[:, number], expected[:, number], pt):
            edges = np.quantile(variable, (0.25, 0.5, 0.75, 0.92))
            place = np.digitize(variable, edges)
            for bin_number in range(5):
                rows = place == bin_number
                worst = max(worst, abs(certainty[rows, number].mean() - expected[rows, number].mean()))
    return float(worst)


@pytest.mark.parametrize("calibration", ["none", "pattern"])
@pytest.mark.parametrize(
    "options", [{"balance_species": 1.0}, {"flatten_pt": 0.7}, {"balance_species": 0.5, "flatten_pt": 0.5}, {}]
)
def test_weights_of_the_loss_do_not_distort_certainties(
    tmp_path: Path, options: dict[str, float], calibration: str
) -> None:
    """The certainty stays the share of the species among tracks of its kind, which is known here."""
    (tracks, _), (validation, _) = posterior_sample(12_000, 0), posterior_sample(4_000, 1)
    test, true = posterior_sample(12_000, 2)
    settings = {"kind": "mlp", "hidden": [16], "dropout": 0.0, "calibration": calibration}
    settings["optimisation"] = {"batch": 256, "epochs": 6, "learning_rate": 0.02, "average": 0.95} | options
    info = {"features": ("tpc_signal", "pt", "sign")}
    made: Any = models_sample.fit(tmp_path / "model", settings, tracks, validation, info=info)
    pt = test.features[:, 1]
    assert disagreement(made.score(test.features), true, pt) < 0.055
    if "balance_species" in options:
        # what a network says before the weights are undone is far off: the comparison would show it
        raw = engine.predict(made.trained.network, test.features)
        assert disagreement(1 / (1 + np.exp(-raw)), true, pt) > 0.1


@pytest.mark.parametrize("calibration", ["none", "pattern"])
def test_weights_of_species_are_undone_for_rare_patterns_too(tmp_path: Path, calibration: str) -> None:
    """A few validation tracks with TRD must not bring back the weight of a rare species."""
    rng = np.random.default_rng(0)

    def tracks(n_tracks: int, with_trd: int) -> Tracks:
        labels = (rng.random((n_tracks, 2)) < (0.03, 0.5)).astype(np.float32)
        features = rng.normal(size=(n_tracks, 3)).astype(np.float32)
        features[with_trd:, 1] = np.nan
        return Tracks(features, labels)

    settings = mlp(balance_species=1.0, batch=256) | {"calibration": calibration}
    info = {"features": ("tpc_signal", "trd_signal", "p")}
    made = models_sample.fit(tmp_path / "m", settings, tracks(8000, 4000), tracks(2000, 4), info=info)
    rows = tracks(1000, 500).features
    certainty = made.score(rows)[:, 0]
    assert certainty[500:].mean() == pytest.approx(0.03, abs=0.015)
    assert certainty[:500].mean() == pytest.approx(0.03, abs=0.03)


def test_weight_of_species_is_others_per_own() -> None:
    labels = np.repeat(np.float32([[1, 0], [0, 1], [0, 0], [0, 1]]), 25, axis=0)
    features = np.ones((100, 2), np.float32)
    for power, expected in ((0.0, [1, 1]), (1.0, [3, 1]), (0.5, [3**0.5, 1])):
        options = Optimisation(balance_species=power)
        found = network.Weighting.of(Tracks(features, labels), ("p", "beta"), options)
        np.testing.assert_allclose(found.species, expected, rtol=1e-6)
        assert found.tracks is None


def test_weight_of_tracks_flattens_pt() -> None:
    rng = np.random.default_rng(0)
    pt = np.exp(rng.uniform(0.0, 1.0, 20_000) ** 2 * 3).astype(np.float32)
    features = np.stack([np.full_like(pt, np.nan), pt], axis=1)
    labels = np.eye(2, dtype=np.float32)[rng.integers(0, 2, 20_000)]
    found = network.Weighting.of(Tracks(features, labels), ("beta", "pt"), Optimisation(flatten_pt=1.0)).tracks
    assert found is not None and found.mean() == pytest.approx(1.0, abs=1e-5)
    height = np.histogram(np.log(pt), 40)[0]
    weighted = np.histogram(np.log(pt), 40, weights=found.numpy())[0]
    assert height.max() > 5 * height.min()
    assert weighted.max() < 1.05 * weighted.min()
    half = network.Weighting.of(Tracks(features, labels), ("beta", "pt"), Optimisation(flatten_pt=0.5)).tracks
    assert half is not None
    again = np.histogram(np.log(pt), 40, weights=half.numpy())[0]
    np.testing.assert_allclose(again / again.sum(), height**0.5 / (height**0.5).sum(), rtol=1e-3)


def test_pt_that_the_network_does_not_see_is_refused() -> None:
    tracks = Tracks(np.ones((10, 2), np.float32), np.eye(2, dtype=np.float32)[np.arange(10) % 2])
    with pytest.raises(PidflowError, match="'flatten_pt' needs pt or p among the features"):
        network.Weighting.of(tracks, ("beta", "sign"), Optimisation(flatten_pt=0.5))


@pytest.mark.parametrize("members", [None, 3])
def test_loss_is_the_weighted_cross_entropy(members: int | None) -> None:
    torch.manual_seed(0)
    logits = torch.randn(*((8, 2) if members is None else (8, members, 2)))
    labels = (torch.rand(8, 2) < 0.5).float()
    weighting = network.Weighting(torch.tensor([3.0, 0.5]), torch.rand(20))
    rows = torch.arange(5, 13)

    def expected(species: torch.Tensor, tracks: torch.Tensor) -> torch.Tensor:
        total = torch.zeros(())
        each = logits.unsqueeze(1) if members is None else logits
        for track in range(8):
            for member in range(each.shape[1]):
                for number in range(2):
                    own = labels[track, number]
                    certainty = torch.sigmoid(each[track, member, number])
                    part = own * species[number] * certainty.log() + (1 - own) * (1 - certainty).log()
                    total = total - tracks[track] * part
        return total / each.numel()

    one = torch.ones(20)
    assert weighting.tracks is not None
    for given, species, tracks in (
        ((), torch.ones(2), one),
        ((None, weighting.species), weighting.species, one),
        ((weighting.tracks[rows],), torch.ones(2), weighting.tracks[rows]),
        ((weighting.tracks[rows], weighting.species), weighting.species, weighting.tracks[rows]),
    ):
        torch.testing.assert_close(network.class_loss(logits, labels, *given), expected(species, tracks))


# hidden detectors


def test_detectors_of_features() -> None:
    names = ("p", "trd_signal", "tpc_signal", "beta", "sign", "trd_pattern", "tof_signal", "dca_xy", "its_signal")
    found = sorted(network.detectors_of(names))
    assert found == [[1, 5], [2], [3, 6], [8]]
    assert network.detectors_of(("p", "sign")) == []


def test_hiding_takes_whole_detectors_at_the_right_rate() -> None:
    torch.manual_seed(0)
    raw = torch.randn(20_000, 6)
    raw[:5000, 3] = torch.nan
    before = raw.clone()
    found = network.hide(raw, [[0, 2], [3]], 0.3)
    assert torch.equal(torch.nan_to_num(raw), torch.nan_to_num(before))
    assert torch.equal(found[:, [1, 4, 5]], raw[:, [1, 4, 5]])
    hidden = torch.isnan(found)
    assert torch.equal(hidden[:, 0], hidden[:, 2])
    assert float(hidden[:, 0].float().mean()) == pytest.approx(0.3, abs=0.015)
    assert float(hidden[5000:, 3].float().mean()) == pytest.approx(0.3, abs=0.02)
    assert hidden[:5000, 3].all()
    # detectors are hidden apart
    both = (hidden[5000:, 0] & hidden[5000:, 3]).float().mean()
    assert float(both) == pytest.approx(0.09, abs=0.015)
    kept = ~hidden
    assert torch.equal(found[kept], raw[kept])
    assert torch.equal(network.hide(raw[:, :3], [[0, 2]], 0.0), raw[:, :3])


# warm start


def network_model(info: Any, folder: Path) -> Any:
    return model_of(info.kind)(info, folder)


def test_start_is_the_source(folder: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first step, weights and scale are those of the source, on whatever tracks."""
    seen: dict[str, torch.Tensor] = {}

    def caught(training: engine.Training, *_: Any, **__: Any) -> None:
        for module in training.modules.values():
            seen.update({name: tensor.clone() for name, tensor in module.state_dict().items()})
            assert len(seen) == len(module.state_dict())
        raise KeyboardInterrupt

    monkeypatch.setattr(engine.Training, "run", caught)
    with pytest.raises(KeyboardInterrupt):
        train(folder, tmp_path / "fse", dataset="other", seed=99, start=model)
    expected = load(model).trained.network.state_dict()  # type: ignore[attr-defined]
    assert set(seen) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(seen[name], tensor), name


def test_start_lowers_the_first_loss_and_is_repeatable(folder: Path, model: Path, tmp_path: Path) -> None:
    warm = [train(folder, tmp_path / name / "fse", dataset="other", start=model) for name in "ab"]
    assert content(warm[0]) == content(warm[1])
    cold = train(folder, tmp_path / "cold", dataset="other")
    first = [pq.read_table(place / "history.parquet")["validation_loss"][0].as_py() for place in (warm[0], cold)]
    assert first[0] < first[1] - 0.05


def test_checkpoint_of_another_start_is_ignored(
    folder: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(network, "macro_auc", dies_after(2, network.macro_auc))
        with pytest.raises(KeyboardInterrupt):
            train(folder, tmp_path / "fse", start=model)
    assert content(train(folder, tmp_path / "fse")) == content(model)
    assert "resumed" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"features": ("beta", "tpc_signal", "p", "sign")}, "its features .* are not this model's"),
        ({"species": (211, 321, -2212)}, "its species .* are not this model's"),
        ({"kind": "mlp", "settings": settings_of("mlp")().model_dump(mode="json")}, "its kind fse are not"),
        ({"settings": {"kind": "fse"}}, "its network has other sizes than this model's settings"),
        ({"settings": fse("periodic")}, "its network has other sizes than this model's settings"),
    ],
)
def test_start_from_another_model_is_refused(
    model: Path, tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    target = network_model(read_info(model).model_copy(update=changes), tmp_path)
    with pytest.raises(PidflowError, match=sentence) as caught:
        network.start_from(target, target.build(), model)
    assert str(caught.value).startswith(f"{model}: ") and "\n" not in str(caught.value)
    assert "'init_from'" in str(caught.value)


def warm(folder: Path, model: Path, target: Path, transfer: str) -> dict[str, torch.Tensor]:
    settings = read_info(model).settings | {"transfer": transfer, "init_from": "somewhere"}
    return load_file(train(folder, target, dataset="other", settings=settings, start=model) / "weights.safetensors")


def test_frozen_encoder_keeps_its_bytes(folder: Path, model: Path, tmp_path: Path) -> None:
    before, after = load_file(model / "weights.safetensors"), warm(folder, model, tmp_path / "frozen", "frozen")
    for name, tensor in before.items():
        same = torch.equal(tensor, after[name])
        assert same == name.startswith("network.encoder."), name


def test_layerwise_steps_are_smaller_below(folder: Path, model: Path, tmp_path: Path) -> None:
    info = read_info(model)
    target = network_model(info.model_copy(update={"settings": info.settings | {"transfer": "layerwise"}}), tmp_path)
    built = target.build()
    groups = network.trainable(target, built, 0.01, model)
    stages = list(reversed(built.stages()))
    rates = [group["lr"] for group in groups]
    assert rates[0] == 0.01 and all(low < high for high, low in pairwise(rates))
    for group, stage in zip(groups, stages, strict=True):
        assert [id(p) for p in group["params"]] == [id(p) for p in stage]
    # without a start all is trained alike
    (alone,) = network.trainable(target, built, 0.01, None)
    assert alone["lr"] == 0.01 and len(alone["params"]) == len(list(built.parameters()))

    def moved(transfer: str) -> float:
        after, before = warm(folder, model, tmp_path / transfer, transfer), load_file(model / "weights.safetensors")
        name = "network.encoder.embed.value"
        return float((after[name] - before[name]).abs().mean())

    assert 0 < moved("layerwise") < 0.6 * moved("whole")


@pytest.mark.parametrize("transfer", ["frozen", "layerwise"])
def test_part_of_a_network_without_parts_is_refused(folder: Path, tmp_path: Path, transfer: str) -> None:
    source = train(folder, tmp_path / "source", "mlp")
    settings = read_info(source).settings | {"transfer": transfer}
    with pytest.raises(PidflowError, match="kind 'mlp' has no stages to treat apart; set 'transfer' to whole"):
        train(folder, tmp_path / "mlp", settings=settings, start=source)
    train(folder, tmp_path / "cold", settings=settings)


# models of a run


def areas(certainty: np.ndarray, tracks: Tracks, rows: np.ndarray) -> list[float]:
    return [roc_auc_score(tracks.labels[rows, n], certainty[rows, n]) for n in range(len(SPECIES))]


@pytest.mark.parametrize("kind", ["fse", "gbdt"])
def test_models_learn_species_with_and_without_tof(folder: Path, model: Path, tmp_path: Path, kind: str) -> None:
    place = model if kind == "fse" else train(folder, tmp_path / "gbdt", "gbdt")
    test = read(folder, "test")
    certainty = load(place).score(test.features)
    assert certainty.dtype == np.float32 and certainty.min() >= 0 and certainty.max() <= 1
    without_tof = np.isnan(test.features[:, 1])
    assert 0.3 < without_tof.mean() < 0.5
    for rows in (without_tof, ~without_tof):
        assert min(areas(certainty, test, rows)) > 0.95


def test_validation_loss_is_the_cross_entropy_of_the_stored_network(folder: Path, model: Path) -> None:
    validation = read(folder, "validation")
    logits = engine.predict(load(model).trained.network, validation.features)  # type: ignore[attr-defined]
    certainty = 1 / (1 + np.exp(-logits.astype(np.float64)))
    y = validation.labels
    expected = -(y * np.log(certainty) + (1 - y) * np.log(1 - certainty)).mean()
    history = pq.read_table(model / "history.parquet")
    best = int(np.argmin(history["validation_loss"].to_numpy()))
    assert history["validation_loss"][best].as_py() == pytest.approx(expected, rel=1e-4)
    assert history["validation_auc"][best].as_py() == pytest.approx(roc_auc_score(y, logits), abs=1e-6)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_species_without_tracks(folder: Path, tmp_path: Path, split: str) -> None:
    table = pq.read_table(folder / "simulation.parquet")
    pdg = table["pdg_code"].to_numpy()
    missing = (pdg == 2212) & (table["split"].to_numpy(zero_copy_only=False) == split)
    table = with_column(table, "pdg_code", pa.array(pdg, pa.int32(), mask=missing))
    pq.write_table(table, tmp_path / "simulation.parquet")
    write_json(tmp_path / "features.json", {"features": list(FEATURES)})
    with pytest.raises(PidflowError, match=rf"simulation.parquet: no {split} track of species 2212; add simulation"):
        train(tmp_path, tmp_path / "model", "gbdt")
    assert not (tmp_path / "model").exists()


def test_model_folders_hold_no_pickle(folder: Path, model: Path, tmp_path: Path) -> None:
    trees, cuts = (train(folder, tmp_path / kind, kind) for kind in ("gbdt", "nsigma"))
    assert set(content(model)) == {"model.json", "weights.safetensors", "history.parquet"}
    assert set(content(trees)) == {"model.json", "trees_211.txt", "trees_321.txt", "trees_2212.txt"}
    assert set(content(cuts)) == {"model.json"}
    for place in (model, trees, cuts):
        for name, text in content(place).items():
            # pickles begin with 0x80, torch's files are ZIP archives
            assert text[:1] != b"\x80" and text[:2] != b"PK", name
        json.loads(content(place)["model.json"])


def test_model_info_of_a_training(model: Path) -> None:
    info = read_info(model)
    assert (info.kind, info.run, info.species, info.features) == ("fse", 5, SPECIES, FEATURES)
    assert (info.masks, info.seed) == ({"tof": 0.5, "trd": 0.8}, 11)
    assert info.settings == settings_of("fse").model_validate(SETTINGS["fse"]).model_dump(mode="json")


def test_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(PidflowError, match=r"no model.json; train the model first"):
        load(tmp_path)
    (tmp_path / "model.json").write_text('{"kind": "fse", "run": 1}')
    with pytest.raises(PidflowError, match=r"model.json: key 'species'"):
        load(tmp_path)


# scores


@pytest.mark.parametrize("kind", ["fse", "gbdt", "nsigma"])
def test_score_table_follows_the_dataset_row_by_row(
    folder: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(parquet, "_BATCH_ROWS", 70)
    place = model if kind == "fse" else train(folder, tmp_path / kind, kind)
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
    values = matrix(table, read_info(place).features)
    if kind == "fse":
        whole: Any = load(place)
        pattern = 2 * (~np.isnan(values[:, 1])).astype(int)
        weights = load_file(place / "weights.safetensors")
        logits = engine.predict(whole.trained.network, values).astype(np.float64)
        expected = 1 / (1 + np.exp(-(weights["slope"].numpy()[pattern] * logits + weights["offset"].numpy()[pattern])))
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


def test_track_without_a_score_is_null_in_the_table(folder: Path, tmp_path: Path) -> None:
    settings = settings_of("mlp").model_validate(mlp("delete")).model_dump(mode="json")
    place = train(folder, tmp_path / "mlp", settings=settings)
    score_dataset(place, folder / "simulation.parquet", tmp_path / "scores.parquet", threads=1)
    missing = pq.read_table(folder / "simulation.parquet")["beta"].is_null().to_pylist()
    for pdg in SPECIES:
        column = pq.read_table(tmp_path / "scores.parquet")[certainty_column(pdg)]
        assert column.is_null().to_pylist() == missing
        assert not pc.any(pc.is_nan(column)).as_py()


# reading


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("rows", [70, 100_000])
def test_reading_of_one_set(folder: Path, monkeypatch: pytest.MonkeyPatch, split: str, rows: int) -> None:
    monkeypatch.setattr(parquet, "_BATCH_ROWS", rows)
    table = pq.read_table(folder / "simulation.parquet").to_pylist()
    own = [row for row in table if row["split"] == split]
    tracks = read_tracks(folder / "simulation.parquet", split, ("beta", "sign"), (2212, 211))
    assert len(tracks) == len(own)
    assert (tracks.features.dtype, tracks.labels.dtype) == (np.float32, np.uint8)
    expected = [[np.nan if row["beta"] is None else row["beta"], row["sign"]] for row in own]
    np.testing.assert_array_equal(tracks.features, np.array(expected, np.float32))
    assert tracks.labels.tolist() == [[row["pdg_code"] == 2212, row["pdg_code"] == 211] for row in own]
    np.testing.assert_array_equal(
        read_features(folder / "simulation.parquet", split, ("beta", "sign")), tracks.features
    )


def test_tracks_are_mapped_and_writing_to_them_changes_no_file(folder: Path) -> None:
    features = read(folder).features
    base: Any = features
    while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)
    before = features.copy()
    features[:] = 7.0
    np.testing.assert_array_equal(read(folder).features, before)
    # a tensor of it shares its memory and may be written to
    assert torch.from_numpy(features)[0, 0] == 7.0


def test_set_without_a_track_is_empty(folder: Path, tmp_path: Path) -> None:
    table = pq.read_table(folder / "data.parquet").filter(pc.field("split") == "test")
    pq.write_table(table, tmp_path / "data.parquet")
    assert read_features(tmp_path / "data.parquet", "train", FEATURES).shape == (0, 4)
    with pytest.raises(PidflowError, match="no train track of species 211"):
        read_tracks(tmp_path / "data.parquet", "train", FEATURES, SPECIES)


def test_complete_tracks(folder: Path) -> None:
    tracks = read(folder)
    found = tracks.complete()
    rows = ~np.isnan(tracks.features).any(axis=1)
    assert 0 < len(found) == rows.sum() < len(tracks)
    np.testing.assert_array_equal(found.features, tracks.features[rows])
    np.testing.assert_array_equal(found.labels, tracks.labels[rows])


def test_share_of_the_collisions_is_whole_and_nested(tmp_path: Path) -> None:
    table = make_dataset(24_000)
    collision = pa.array(np.arange(24_000, dtype=np.uint64) // 4)
    table = with_column(with_column(table, "collision_id", collision), "x", collision.cast(pa.float32()))
    # by collision, as the split is
    split = np.array(["train", "train", "validation", "test"])[(np.arange(24_000) // 4) % 4]
    pq.write_table(with_column(table, "split", pa.array(split)), tmp_path / "t.parquet")
    found: dict[float, set[float]] = {}
    for share in (0.01, 0.1, 0.5, 1.0):
        x = read_tracks(tmp_path / "t.parquet", "train", ("x",), SPECIES, fraction=share).features[:, 0]
        values, counts = np.unique(x, return_counts=True)
        assert (counts == 4).all()
        found[share] = set(values.tolist())
        assert len(values) / 3000 == pytest.approx(share, abs=4 * (share * (1 - share) / 3000) ** 0.5)
    assert found[0.01] < found[0.1] < found[0.5] < found[1.0]


def test_fraction_reaches_the_training(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(folder, tmp_path / "gbdt", "gbdt", fraction=0.2)
    some = len(read_tracks(folder / "simulation.parquet", "train", FEATURES, SPECIES, fraction=0.2))
    validation = len(read(folder, "validation"))
    assert some < 0.3 * len(read(folder))
    assert f"run 5 gbdt: {some} training and {validation} validation tracks" in capsys.readouterr().out


def test_unlabelled_tracks_are_of_no_species(tmp_path: Path) -> None:
    table = make_dataset(400)
    pdg = table["pdg_code"].to_pylist()
    fake = [n for n, row in enumerate(table["split"].to_pylist()) if row == "train"][:5]
    for number in fake:
        pdg[number] = None
    pq.write_table(with_column(table, "pdg_code", pa.array(pdg, pa.int32())), tmp_path / "t.parquet")
    tracks = read_tracks(tmp_path / "t.parquet", "train", ("p",), SPECIES)
    assert tracks.labels[:5].sum() == 0
    assert (tracks.labels[5:].sum(axis=1) == 1).all()


MEMORY = """
import re, sys
from pathlib import Path
import numpy as np, pyarrow.parquet as pq
from pidflow.train.data import read_tracks
path, way, names = sys.argv[1], sys.argv[2], sys.argv[3].split(",")
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
read_tracks(sys.argv[4], "train", names, (211, 321, 2212))
before = peak()
if way == "mapped":
    features = read_tracks(path, "train", names, (211, 321, 2212)).features
else:
    table = pq.read_table(path, columns=names)
    features = np.stack([table[name].to_numpy() for name in names], axis=1)
print(len(features), float(features[-1, 0]), peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="peak memory is read from /proc")
def test_memory_of_reading_does_not_grow_with_the_table(folder: Path, tmp_path: Path) -> None:
    names = ["p", "pt", "px", "py", "pz", "eta", "phi", "x", "y", "z", "alpha", "dca_xy", "dca_z", "tpc_signal"]
    few = make_dataset(1000)
    some = pa.Table.from_batches([few.to_batches()[0]]).select([*names, "split", "pdg_code", "collision_id"])
    some = with_column(some, "split", pa.array(["train"] * 1000))
    for name in names:
        some = with_column(some, name, pa.array(np.arange(1000, dtype=np.float32)))
    block = pa.concat_tables([some] * 100)
    options: dict[str, Any] = {"compression": "lz4"}
    pq.write_table(pa.concat_tables([block, block]), tmp_path / "small.parquet", row_group_size=100_000, **options)
    with pq.ParquetWriter(tmp_path / "t.parquet", some.schema, **options) as writer:
        for _ in range(15):
            writer.write_table(block)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    found = {}
    for way in ("mapped", "plain"):
        arguments = [str(tmp_path / "t.parquet"), way, ",".join(names), str(tmp_path / "small.parquet")]
        output = subprocess.run(
            [sys.executable, "-c", MEMORY, *arguments], env=environment, check=True, capture_output=True, text=True
        ).stdout.split()
        assert output[:2] == ["1500000", "999.0"]
        found[way] = float(output[2])
    # the array alone is 84 MB
    assert found["mapped"] < 70 < 140 < found["plain"], found
