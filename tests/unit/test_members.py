"""Averages of models: deep ensembles and blends."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest
import torch
from models_sample import (
    FEATURES,
    NETWORKS,
    OPTIMISATION,
    SIZES,
    SPECIES,
    content,
    evaluate,
    fit,
    fse,
    library_state,  # noqa: F401
    mlp,
    sample,
)
from scipy.optimize import minimize
from sklearn.metrics import roc_auc_score
from tracks_sample import make_dataset

from pidflow.errors import PidflowError
from pidflow.files import read_json, write_json
from pidflow.model import model_digest
from pidflow.models import load
from pidflow.models.base import Model
from pidflow.models.blend import best_weights
from pidflow.models.deep_ensemble import Settings
from pidflow.parquet import matrix
from pidflow.scores import certainty_column, schema
from pidflow.train import engine, network
from pidflow.train.score import score_dataset

pytestmark = [
    pytest.mark.usefixtures("library_state"),
    # a remark of LightGBM on its memory, not on its result
    pytest.mark.filterwarnings("ignore:Usage of np.ndarray subset:UserWarning"),
]

TRAIN, VALIDATION, TEST = sample(2000, 0), sample(600, 1), sample(1500, 2)
ENSEMBLE = {
    "kind": "deep_ensemble", "members": 3,
    "network": {"kind": "fse", "network": SIZES, "optimisation": OPTIMISATION | {"epochs": 3}},
}  # fmt: skip
TREES = {"kind": "gbdt", "trees": 20, "leaves": 5}
PARTS: dict[str, dict[str, Any]] = {"fse": NETWORKS["fse"], "mlp": mlp("regression"), "trees": TREES}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("parts")
    return {name: fit(folder / name, settings, TRAIN, VALIDATION).folder for name, settings in PARTS.items()}


def blend(folder: Path, parts: dict[str, Path], *names: str) -> Model[Any]:
    needed = {name: parts[name] for name in names}
    return fit(folder, {"kind": "blend", "members": list(names)}, TRAIN, VALIDATION, needed=needed)


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Model[Any]:
    torch.set_num_threads(1)
    return fit(tmp_path_factory.mktemp("ensemble") / "model", ENSEMBLE, TRAIN, VALIDATION)


@pytest.fixture(scope="module")
def blended(parts: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Model[Any]:
    return blend(tmp_path_factory.mktemp("blend") / "model", parts, "fse", "mlp")


def rows() -> np.ndarray:
    """Return tracks of all patterns, with odd values among them."""
    features = np.concatenate([sample(300, 3).features, np.repeat(sample(6, 4).features, 6, axis=0)])
    for number, value in enumerate((1e30, -1e30, np.inf, -np.inf, 3.4e38, np.nan)):
        for column in range(6):
            features[300 + 6 * number + column, column] = value
    features[-1] = np.nan
    return features


@pytest.mark.parametrize("kind", ["ensemble", "blended"])
def test_average_is_better_than_chance_and_survives_its_files(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    model: Model[Any] = request.getfixturevalue(kind)
    certainty = model.score(TEST.features)
    assert certainty.dtype == np.float32 and certainty.shape == TEST.labels.shape
    assert certainty.min() >= 0 and certainty.max() <= 1
    assert min(roc_auc_score(TEST.labels[:, n], certainty[:, n]) for n in range(2)) > 0.8
    # all lies in its folder
    shutil.move(shutil.copytree(model.folder, tmp_path / "copy"), tmp_path / "moved")
    np.testing.assert_array_equal(load(tmp_path / "moved").score(TEST.features), certainty)


@pytest.mark.parametrize("kind", ["ensemble", "blended"])
@pytest.mark.parametrize("batch", [1, None])
def test_graph_equals_the_score(kind: str, request: pytest.FixtureRequest, batch: int | None) -> None:
    model: Model[Any] = request.getfixturevalue(kind)
    raw = rows()
    expected = model.score(raw)
    assert np.isfinite(expected).all()
    for number in range(len(SPECIES)):
        graph = model.graph(number)
        onnx.checker.check_model(graph, full_check=True)
        assert (len(graph.graph.input), len(graph.graph.output)) == (1, 1)
        found = evaluate(graph, raw, batch)
        assert np.abs(found - expected[:, number]).max() <= 1e-5
        assert found.min() >= 0 and found.max() <= 1


def test_graph_of_networks_and_trees_together(parts: dict[str, Path], tmp_path: Path) -> None:
    model = blend(tmp_path / "blend", parts, "trees", "fse", "mlp")
    # weights that do not depend on this sample
    shares = {"trees": [0.5, 0.0], "fse": [0.3, 0.6], "mlp": [0.2, 0.4]}
    write_json(model.folder / "members.json", shares)
    model, raw = load(model.folder), rows()
    single = {name: load(folder).score(raw) for name, folder in parts.items()}
    for number in range(2):
        expected = sum(shares[name][number] * single[name][:, number].astype(float) for name in shares)
        np.testing.assert_allclose(model.score(raw)[:, number], expected, atol=1e-6)
        graph = model.graph(number)
        onnx.checker.check_model(graph, full_check=True)
        assert {(o.domain, o.version) for o in graph.opset_import} <= {("", 17), ("ai.onnx.ml", 3)}
        np.testing.assert_allclose(evaluate(graph, raw), expected, atol=1e-5)
    # a member without weight is no part of the graph
    assert any(node.domain == "ai.onnx.ml" for node in model.graph(0).graph.node)
    assert not any(node.domain == "ai.onnx.ml" for node in model.graph(1).graph.node)


def test_blend_of_a_blend(parts: dict[str, Path], blended: Model[Any], tmp_path: Path) -> None:
    model = blend(tmp_path / "model", {**parts, "inner": blended.folder}, "inner", "trees")
    raw = rows()
    np.testing.assert_allclose(evaluate(model.graph(1), raw), model.score(raw)[:, 1], atol=1e-5)


@pytest.mark.parametrize("kind", ["ensemble", "blended"])
def test_same_seed_same_bytes(
    kind: str, request: pytest.FixtureRequest, parts: dict[str, Path], tmp_path: Path
) -> None:
    model: Model[Any] = request.getfixturevalue(kind)
    if kind == "ensemble":
        again = fit(tmp_path / "model", ENSEMBLE, TRAIN, VALIDATION)
    else:
        again = blend(tmp_path / "model", parts, "fse", "mlp")
    assert content(again.folder) == content(model.folder)
    first, second = (m.graph(0).SerializeToString(deterministic=True) for m in (model, again))
    assert first == second


# deep ensembles


def test_members_differ_by_their_seed(ensemble: Model[Any]) -> None:
    folders = [ensemble.folder / "members" / f"seed{number}" for number in range(3)]
    assert [load(folder).info.seed for folder in folders] == [11, 12, 13]
    assert {load(folder).info.kind for folder in folders} == {"fse"}
    assert len({(folder / "weights.safetensors").read_bytes() for folder in folders}) == 3
    assert read_json(ensemble.folder / "members.json") == {f"seed{n}": [1 / 3, 1 / 3] for n in range(3)}
    single = np.stack([load(folder).score(TEST.features) for folder in folders])
    np.testing.assert_allclose(ensemble.score(TEST.features), single.mean(axis=0), atol=1e-6)
    assert [path.name for path in ensemble.folder.parent.iterdir()] == ["model"]
    assert not list(ensemble.folder.rglob(".*"))


def test_first_member_is_the_network_alone(ensemble: Model[Any], tmp_path: Path) -> None:
    alone = fit(tmp_path / "alone", ENSEMBLE["network"], TRAIN, VALIDATION)  # type: ignore[arg-type]
    assert content(alone.folder) == content(ensemble.folder / "members" / "seed0")


def test_spread_is_the_deviation_of_the_members(ensemble: Model[Any], tmp_path: Path) -> None:
    assert ensemble.has_spread
    single = np.stack([load(ensemble.folder / "members" / f"seed{n}").score(TEST.features) for n in range(3)])
    spread = ensemble.spread(TEST.features)
    np.testing.assert_allclose(spread, single.std(axis=0, ddof=1), atol=1e-6)
    assert spread.dtype == np.float32 and (spread >= 0).all() and spread.mean() > 1e-3


def test_spread_is_in_the_score_table(ensemble: Model[Any], tmp_path: Path) -> None:
    pq.write_table(make_dataset(200), tmp_path / "dataset.parquet")
    score_dataset(ensemble.folder, tmp_path / "dataset.parquet", tmp_path / "scores.parquet", threads=1)
    table = pq.read_table(tmp_path / "scores.parquet")
    assert table.schema.names == schema(SPECIES, spread=True).names
    assert table.schema.names[-2:] == ["spread_211", "spread_321"]
    raw = matrix(pq.read_table(tmp_path / "dataset.parquet"), FEATURES)
    for number, pdg in enumerate(SPECIES):
        np.testing.assert_allclose(table[f"spread_{pdg}"], ensemble.spread(raw)[:, number], atol=1e-6)
        np.testing.assert_allclose(table[certainty_column(pdg)], ensemble.score(raw)[:, number], atol=1e-6)


def test_killed_ensemble_goes_on_to_the_same_bytes(
    ensemble: Model[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = []

    def dies(*arguments: Any) -> float:
        calls.append(1)
        if len(calls) == 6:  # in the second member's last epoch
            raise KeyboardInterrupt
        return engine.macro_auc(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(network, "macro_auc", dies)
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path / "model", ENSEMBLE, TRAIN, VALIDATION)
    assert [path.name for path in tmp_path.glob(".*")] == [".model.checkpoint.seed1"]
    again = fit(tmp_path / "model", ENSEMBLE, TRAIN, VALIDATION)
    assert "resumed after epoch 2" in capsys.readouterr().out
    assert content(again.folder) == content(ensemble.folder)
    assert not list(tmp_path.glob(".*"))


def test_an_ensemble_has_two_members_at_least() -> None:
    with pytest.raises(ValueError, match="greater than or equal to 2"):
        Settings(members=1)


# blends


def test_weights_are_those_of_the_least_log_loss() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random(4000) < 0.4).astype(float)
    logits = np.stack([(2 * labels - 1) * 0.8, (2 * labels - 1) * 0.5, np.zeros(4000)])
    certainty = 1 / (1 + np.exp(-(logits + rng.normal(0.0, (1.0,), (3, 4000)) * np.array([[1.0], [1.5], [2.0]]))))

    def loss(weights: np.ndarray) -> float:
        mean = weights @ certainty
        return float(-np.log(np.where(labels > 0, mean, 1 - mean)).mean())

    found = best_weights(certainty, labels)
    assert found.sum() == pytest.approx(1) and (found >= 0).all()
    best = minimize(
        lambda w: loss(w / w.sum()), np.full(3, 1 / 3), bounds=[(1e-9, 1)] * 3, method="L-BFGS-B"
    ).fun  # fmt: skip
    assert loss(found) == pytest.approx(best, abs=2e-4)
    assert loss(found) < min(loss(row) for row in np.eye(3)) + 1e-9


def test_useless_member_is_left_out_and_certain_errors_are_no_infinities() -> None:
    labels = np.array([1.0, 0.0] * 100)
    good, wrong = np.where(labels > 0, 0.9, 0.1), 1.0 - labels
    assert best_weights(np.stack([good, wrong]), labels).tolist() == [1.0, 0.0]
    np.testing.assert_allclose(best_weights(np.stack([good, good]), labels), [0.5, 0.5])
    assert np.isfinite(best_weights(np.stack([wrong, wrong]), labels)).all()


def test_blend_weighs_by_validation_tracks_species_by_species(
    parts: dict[str, Path], blended: Model[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    weights = read_json(blended.folder / "members.json")
    assert list(weights) == ["fse", "mlp"]
    scores = {name: load(parts[name]).score(VALIDATION.features).astype(float) for name in weights}
    for number in range(2):
        certainty = np.stack([scores[name][:, number] for name in weights])
        expected = best_weights(certainty, VALIDATION.labels[:, number])
        np.testing.assert_allclose([weights[name][number] for name in weights], expected)
    for name in weights:
        assert model_digest(blended.folder / "members" / name) == model_digest(parts[name])


def test_blend_is_no_worse_than_its_members_on_validation(parts: dict[str, Path], blended: Model[Any]) -> None:
    def loss(model: Model[Any]) -> float:
        certainty = model.score(VALIDATION.features).astype(float).clip(1e-6, 1 - 1e-6)
        return float(-np.log(np.where(VALIDATION.labels > 0, certainty, 1 - certainty)).mean())

    assert loss(blended) <= min(loss(load(parts[name])) for name in ("fse", "mlp")) + 1e-6


def test_members_that_cannot_be_averaged_are_refused(parts: dict[str, Path], tmp_path: Path) -> None:
    other = fit(tmp_path / "other", fse(epochs=1), TRAIN, VALIDATION, info={"features": (*FEATURES[:-1], "pt")})
    deleting = fit(tmp_path / "deleting", mlp("delete", epochs=1), TRAIN, VALIDATION)
    everything = {**parts, "other": other.folder, "deleting": deleting.folder}
    with pytest.raises(PidflowError, match=r"the model 'other' reads other columns .*; remove it from 'members'"):
        blend(tmp_path / "a", everything, "fse", "other")
    with pytest.raises(PidflowError, match="'deleting' does not score every track; remove it from 'members'"):
        blend(tmp_path / "b", everything, "fse", "deleting")
