"""Tree ensembles: the libraries' own answers, the common form and the ONNX graph agree on every kind of value."""

from dataclasses import replace
from functools import cache
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import onnx
import onnxruntime
import pytest
import xgboost
from sklearn.ensemble import RandomForestClassifier

from pidflow.errors import PidflowError
from pidflow.model import ModelInfo
from pidflow.models import kinds, model_of
from pidflow.models.base import Fitting, Model
from pidflow.train import trees
from pidflow.train.data import Tracks

SPECIES = (211, 321, -2212)
FEATURES = ("beta", "tpc_signal", "p", "sign", "trd_pattern", "dca_xy")
NEVER_MISSING = 2
LARGEST = np.finfo(np.float32).max
ODD = np.float32([0, -0.0, 1e-45, -1e-45, 1e-36, -1e-36, 1e-35, -1e-35, 1e30, -1e30, LARGEST, -LARGEST, -999])
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "lightgbm": ("gbdt", {"trees": 40, "leaves": 15}),
    "xgboost": ("gbdt", {"library": "xgboost", "trees": 40, "leaves": 15}),
    "random_forest": ("random_forest", {"trees": 25, "min_leaf": 3}),
}
EXACT = {"lightgbm": 0.0, "xgboost": 2e-6, "random_forest": 1e-7}


def sample(n_tracks: int, seed: int) -> Tracks:
    """Return tracks of the species and of others, 40 % of the values missing but for one feature."""
    rng = np.random.default_rng(seed)
    number = rng.integers(0, len(SPECIES) + 1, n_tracks)
    beta = 1.0 - 0.1 * number + rng.normal(0.0, 0.05, n_tracks)
    columns = (
        beta, 50.0 + 20.0 * number + rng.normal(0.0, 20.0, n_tracks), rng.normal(0.0, 1.0, n_tracks) + number / 4,
        np.where(number == 2, -1.0, rng.choice([-1.0, 1.0], n_tracks)), rng.integers(0, 8, n_tracks) + number,
        1e-3 * (beta + rng.normal(0.0, 0.1, n_tracks)) - 1e-3,
    )  # fmt: skip
    features = np.stack(columns, axis=1).astype(np.float32)
    missing = rng.random(features.shape) < 0.4
    missing[:, NEVER_MISSING] = False
    # what is missing tells species apart, and zeros are about as frequent as in real tables
    missing[:, 0] |= (number == 1) & (rng.random(n_tracks) < 0.5)
    features[rng.random(features.shape) < 0.02] = 0.0
    features[missing] = np.nan
    return Tracks(features, (number[:, None] == np.arange(len(SPECIES))).astype(np.float32))


def model(folder: Path, name: str, species: tuple[int, ...] = SPECIES, **changes: Any) -> Model[Any]:
    kind, settings = MODELS[name]
    info = ModelInfo(
        kind=kind, run=1, species=species, features=FEATURES, masks={}, seed=5, settings=settings | changes
    )  # fmt: skip
    return model_of(kind)(info, folder)


def fit(folder: Path, name: str, train: Tracks, validation: Tracks, threads: int = 1, **changes: Any) -> Model[Any]:
    made = model(folder, name, SPECIES[: train.labels.shape[1]], **changes)
    made.fit(train, validation, Fitting(threads=threads, checkpoint=folder / "none"))
    return made


@pytest.fixture(scope="module", params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def fitted(name: str, tmp_path_factory: pytest.TempPathFactory) -> Model[Any]:
    return fit(tmp_path_factory.mktemp(name), name, sample(3000, 0), sample(1000, 1))


def forest_of(fitted: Model[Any], number: int) -> trees.Forest:
    """Return the forest of one species, with one output."""
    if fitted.info.kind == "random_forest":
        joint = trees.load(fitted.folder / "forest.safetensors")
        return replace(joint, value=joint.value[:, [number]], base=joint.base[[number]])
    if fitted.settings.library == "lightgbm":
        return trees.from_lightgbm(lightgbm.Booster(model_file=fitted._path(SPECIES[number])))
    return trees.from_xgboost(xgboost.Booster(model_file=fitted._path(SPECIES[number])))


@cache
def classifier() -> RandomForestClassifier:
    """Return what the fixture's random forest is made of."""
    train = sample(3000, 0)
    label = np.where(train.labels.any(axis=1), train.labels.argmax(axis=1), len(SPECIES))
    return RandomForestClassifier(25, min_samples_leaf=3, max_samples=3000, random_state=5).fit(train.features, label)


def native(fitted: Model[Any], number: int, features: np.ndarray) -> np.ndarray:
    """Return the library's own answer before any sigmoid, [N]."""
    if fitted.info.kind == "random_forest":
        with np.errstate(over="ignore", invalid="ignore"):  # its check of the values sums them
            return np.asarray(classifier().predict_proba(features)[:, number])
    path = fitted._path(SPECIES[number])
    if fitted.settings.library == "lightgbm":
        return np.asarray(lightgbm.Booster(model_file=path).predict(features, raw_score=True))
    return np.asarray(xgboost.Booster(model_file=path).inplace_predict(features, predict_type="margin"))


def probes(forest: trees.Forest) -> np.ndarray:
    """Return rows of finite or missing values: thresholds and their neighbours, odd values, all patterns."""
    rng = np.random.default_rng(3)
    hits = []
    for feature in range(len(FEATURES)):
        threshold = np.unique(forest.threshold[forest.feature == feature])
        around = (threshold, np.nextafter(threshold, np.float32(np.inf)), np.nextafter(threshold, -LARGEST))
        values = np.repeat(np.concatenate([*around, ODD]), 12 if len(threshold) < 300 else 3)
        rows = sample(len(values), 4 + feature).features
        rows[:, feature] = np.clip(values, -LARGEST, LARGEST)
        hits.append(rows)
    patterns = list(chain.from_iterable(combinations(range(len(FEATURES)), n) for n in range(len(FEATURES) + 1)))
    complete = np.nan_to_num(sample(20 * len(patterns), 2).features, nan=0.5)
    for row, pattern in enumerate(patterns):
        complete[row :: len(patterns), list(pattern)] = np.nan
    odd = rng.choice(ODD, (500, len(FEATURES)))
    return np.concatenate([*hits, complete, odd, sample(2000, 99).features])


def infinite(n_tracks: int) -> np.ndarray:
    rows = sample(n_tracks, 7).features
    at = np.random.default_rng(8).random(rows.shape) < 0.3
    rows[at] = np.random.default_rng(9).choice(np.float32([np.inf, -np.inf]), at.sum())
    return rows


def session(graph: onnx.ModelProto, threads: int = 1) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(graph: onnx.ModelProto, features: np.ndarray, batch: int, threads: int = 1) -> np.ndarray:
    opened = session(graph, threads)
    parts = [features[start : start + batch] for start in range(0, len(features), batch)]
    return np.concatenate([opened.run(["certainty"], {"features": part})[0] for part in parts])[:, 0]


@pytest.mark.parametrize("number", range(len(SPECIES)))
def test_forest_gives_the_librarys_own_answer(name: str, fitted: Model[Any], number: int) -> None:
    forest = forest_of(fitted, number)
    rows = probes(forest)
    assert np.abs(forest.raw(rows)[:, 0] - native(fitted, number, rows)).max() <= EXACT[name]
    assert np.abs(forest.certainty(rows)[:, 0] - fitted.score(rows)[:, number]).max() <= 5e-7


def test_graph_gives_the_librarys_own_answer(fitted: Model[Any]) -> None:
    rows = np.concatenate([probes(forest_of(fitted, 1)), infinite(500)])
    expected, graph = fitted.score(rows)[:, 1], fitted.graph(1)
    assert np.abs(run(graph, rows, 4096) - expected).max() <= 2e-6
    assert np.abs(run(graph, rows, len(rows), threads=2) - expected).max() <= 2e-6
    every = slice(None, None, 7)
    assert np.abs(run(graph, rows[every], 1) - expected[every]).max() <= 2e-6


def test_infinite_values_fall_on_the_side_of_the_largest(fitted: Model[Any]) -> None:
    rows = infinite(1000)
    finite = rows.clip(-LARGEST, LARGEST)
    np.testing.assert_array_equal(fitted.score(rows), fitted.score(finite))
    for number in range(len(SPECIES)):
        np.testing.assert_array_equal(run(fitted.graph(number), rows, 4096), run(fitted.graph(number), finite, 4096))
        np.testing.assert_array_equal(forest_of(fitted, number).raw(rows), forest_of(fitted, number).raw(finite))


def test_certainty_does_not_depend_on_the_batch(fitted: Model[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    rows = sample(60, 11).features
    single = np.concatenate([fitted.score(row[None]) for row in rows])
    np.testing.assert_array_equal(fitted.score(rows), single)
    assert fitted.score(rows).dtype == np.float32
    assert fitted.score(rows[:0]).shape == (0, len(SPECIES))
    forest = forest_of(fitted, 0)
    whole = forest.raw(rows)
    monkeypatch.setattr(trees, "_PATHS", 7 * forest.trees)
    np.testing.assert_array_equal(forest.raw(rows), whole)


def test_models_tell_the_species_apart_and_use_missing_values(fitted: Model[Any]) -> None:
    test = sample(2000, 12)
    certainty = fitted.score(test.features)
    for number in range(len(SPECIES)):
        own = test.labels[:, number] == 1
        assert certainty[own, number].mean() > 0.25 + certainty[~own, number].mean()
    assert forest_of(fitted, 1).missing_left.any() and not forest_of(fitted, 1).missing_left.all()


def test_graph_is_what_o2physics_takes(fitted: Model[Any]) -> None:
    for number in range(len(SPECIES)):
        graph = fitted.graph(number)
        onnx.checker.check_model(graph, full_check=True)
        assert graph.ir_version == 8
        assert {(opset.domain, opset.version) for opset in graph.opset_import} == {("", 17), ("ai.onnx.ml", 3)}
        opened = session(graph)
        (takes,), (gives,) = opened.get_inputs(), opened.get_outputs()
        assert (takes.name, takes.shape, takes.type) == ("features", ["n", len(FEATURES)], "tensor(float)")
        assert (gives.name, gives.shape, gives.type) == ("certainty", ["n", 1], "tensor(float)")


def test_300_trees_stay_within_tolerance(name: str, tmp_path: Path) -> None:
    train = sample(2000, 0)
    large = fit(tmp_path, name, train, train, trees=300)
    rows = np.concatenate([sample(3596, 21).features, infinite(500)])
    for number in range(len(SPECIES)):
        expected, graph = large.score(rows)[:, number], large.graph(number)
        assert forest_of(large, number).trees == 300
        assert np.abs(run(graph, rows, 4096) - expected).max() <= 2e-6
        assert np.abs(run(graph, rows[-600:], 1) - expected[-600:]).max() <= 2e-6


def test_model_directory_is_the_same_each_time_and_holds_no_code(name: str, tmp_path: Path) -> None:
    train, validation = sample(800, 0), sample(300, 1)
    contents = []
    for threads, folder in ((1, "one"), (1, "two"), (2, "three")):
        fit(tmp_path / folder, name, train, validation, threads=threads, trees=5)
        contents.append({path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()})
    assert contents[0] == contents[1] == contents[2]
    expected = {
        "lightgbm": {"trees_211.txt", "trees_321.txt", "trees_02212.txt"},
        "xgboost": {"trees_211.json", "trees_321.json", "trees_02212.json"},
        "random_forest": {"forest.safetensors"},
    }
    assert set(contents[0]) == expected[name]


@pytest.mark.parametrize("name", ["lightgbm", "xgboost"])
def test_fit_stops_early_and_keeps_the_best_trees(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    validation = sample(600, 1)
    stopped = fit(tmp_path / "stopped", name, sample(600, 0), validation, trees=300, patience=5, learning_rate=0.3)
    lines = capsys.readouterr().out.splitlines()
    for number, (pdg, line) in enumerate(zip(SPECIES, lines, strict=True)):
        forest = forest_of(stopped, number)
        certainty = stopped.score(validation.features)[:, number].astype(float)
        loss = -np.log(np.where(validation.labels[:, number] == 1, certainty, 1 - certainty)).mean()
        assert forest.trees < 100
        assert line == f"run 1 gbdt {pdg}: {forest.trees} trees, validation_loss {loss:.4f}"
    kept = forest_of(stopped, 0).trees
    shorter = fit(tmp_path / "short", name, sample(600, 0), validation, trees=kept, patience=5, learning_rate=0.3)
    np.testing.assert_array_equal(shorter.score(validation.features)[:, 0], stopped.score(validation.features)[:, 0])


def test_training_set_may_be_a_read_only_map_of_a_file(name: str, tmp_path: Path) -> None:
    train, validation = sample(500, 0), sample(200, 1)
    train.features.tofile(tmp_path / "features")
    mapped = Tracks(np.memmap(tmp_path / "features", np.float32, "r", shape=train.features.shape), train.labels)
    from_file = fit(tmp_path / "mapped", name, mapped, validation, trees=5)
    from_memory = fit(tmp_path / "memory", name, train, validation, trees=5)
    np.testing.assert_array_equal(from_file.score(mapped.features), from_memory.score(train.features))


def test_species_with_very_few_tracks(name: str, tmp_path: Path) -> None:
    train, validation = sample(400, 0), sample(200, 1)
    for part in (train, validation):
        part.labels[:, 1] = 0.0
        part.labels[:2, 0], part.labels[:2, 1] = 0.0, 1.0
    rare = fit(tmp_path, name, train, validation)
    rows = np.concatenate([sample(300, 2).features, infinite(100)])
    certainty = rare.score(rows)
    assert np.isfinite(certainty).all() and certainty.min() >= 0 and certainty.max() <= 1
    assert certainty[:, 1].mean() < 0.1
    assert np.abs(run(rare.graph(1), rows, len(rows)) - certainty[:, 1]).max() <= 2e-6


def test_species_without_a_track_gets_no_certainty_from_a_forest(tmp_path: Path) -> None:
    train = sample(400, 0)
    train.labels[:, 0] = 0.0
    absent = fit(tmp_path, "random_forest", train, train)
    certainty = absent.score(train.features)
    assert (certainty[:, 0] == 0).all() and (certainty[:, 2].max() > 0.5)
    assert (run(absent.graph(0), train.features, 400) == 0).all()


def test_tree_that_is_one_leaf(name: str, tmp_path: Path) -> None:
    """Too few tracks for any split, among trees with splits or alone."""
    train = sample(12, 0)
    constant = fit(tmp_path, name, train, train, **({"min_leaf": 12} if name == "random_forest" else {"trees": 2}))
    if name == "lightgbm":
        assert forest_of(constant, 0).feature.size == 0
    rows = sample(50, 1).features
    for number in range(len(SPECIES)):
        assert np.abs(run(constant.graph(number), rows, 50) - constant.score(rows)[:, number]).max() <= 2e-6
        assert np.abs(forest_of(constant, number).certainty(rows)[:, 0] - constant.score(rows)[:, number]).max() <= 5e-7


def test_single_leaves_among_split_trees_are_exported() -> None:
    """Splits of three trees: none, two, none; the values tell every leaf apart."""
    forest = trees.Forest(
        feature=np.int32([1, 0]), threshold=np.float32([0.5, -1.0]), missing_left=np.array([True, False]),
        left=np.int32([1, ~1]), right=np.int32([~3, ~2]), first=np.int32([0, 0, 2, 2]),
        value=np.array([[0.01], [0.02], [0.04], [0.08], [0.16]]), base=np.array([0.32]), strict=False, sigmoid=False,
    )  # fmt: skip
    rows = np.float32([[-1, np.nan], [np.nan, 0.5], [-2, 0.6], [-0.9, -np.inf], [np.nan, np.inf]])
    expected = np.float32([0.51, 0.53, 0.57, 0.53, 0.57])
    np.testing.assert_allclose(forest.certainty(rows)[:, 0], expected, atol=1e-6)
    np.testing.assert_allclose(run(forest.graph(2), rows, 5), expected, atol=1e-6)
    strict = replace(forest, strict=True)
    np.testing.assert_allclose(strict.raw(rows)[:, 0], [0.53, 0.57, 0.57, 0.53, 0.57], atol=1e-6)
    np.testing.assert_allclose(run(strict.graph(2), rows, 5), strict.certainty(rows)[:, 0], atol=1e-6)


def test_thresholds_round_down_to_float32() -> None:
    exact = np.array([0.1, -0.1, 0.5, 1e300, -1e300, 1e-60, -1e-60, 0.0])
    rounded = trees._at_most(exact)
    assert rounded.dtype == np.float32
    with np.errstate(over="ignore", under="ignore"):
        assert (rounded <= exact).all() and (np.nextafter(rounded, np.float32(np.inf)) > exact).all()


def test_forest_survives_its_file(fitted: Model[Any], tmp_path: Path) -> None:
    forest = forest_of(fitted, 0)
    forest.save(tmp_path / "again.safetensors")
    again = trees.load(tmp_path / "again.safetensors")
    for name in ("feature", "threshold", "missing_left", "left", "right", "first", "value", "base"):
        np.testing.assert_array_equal(getattr(again, name), getattr(forest, name))
        assert getattr(again, name).dtype == getattr(forest, name).dtype
    assert (again.strict, again.sigmoid) == (forest.strict, forest.sigmoid)
    again.save(tmp_path / "third.safetensors")
    assert (tmp_path / "third.safetensors").read_bytes() == (tmp_path / "again.safetensors").read_bytes()


@pytest.mark.parametrize("content", [None, b"", b"nonsense", b"tree\nversion=v4\n"])
def test_broken_model_directory_is_named(name: str, tmp_path: Path, content: bytes | None) -> None:
    file = {"lightgbm": "trees_211.txt", "xgboost": "trees_211.json", "random_forest": "forest.safetensors"}[name]
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(PidflowError, match=rf"{file}: no trees can be read from it; train the model again$"):
        model(tmp_path, name).score(sample(3, 0).features)


def doubled(tracks: Tracks) -> tuple[Tracks, Tracks]:
    """Return tracks of which those of one species count twice: by weights, by repetition."""
    counts = np.where(tracks.labels[:, 0] == 1, 2, 1)
    rows = np.repeat(np.arange(len(tracks)), counts)
    weighted = Tracks(tracks.features, tracks.labels, counts.astype(np.float32))
    return weighted, Tracks(tracks.features[rows], tracks.labels[rows])


def test_weights_are_repetitions(name: str, tmp_path: Path) -> None:
    # what is left to the number of rows, not to their weights, must not matter: the smallest leaf, which rows are drawn
    changes = {"min_leaf": 1, "trees": 200} if name == "random_forest" else {"trees": 30, "leaves": 4}
    (train, more), (validation, more_validation) = doubled(sample(3000, 0)), doubled(sample(1000, 1))
    plain = fit(
        tmp_path / "plain", name, replace(train, weights=None), replace(validation, weights=None), **changes
    )  # fmt: skip
    weighted = fit(tmp_path / "weighted", name, train, validation, **changes)
    repeated = fit(tmp_path / "repeated", name, more, more_validation, **changes)
    rows = sample(2000, 12).features
    answers = [made.score(rows) for made in (plain, weighted, repeated)]
    off, moved = (float(np.abs(answer - answers[2]).mean()) for answer in (answers[1], answers[0]))
    # a forest draws other rows in each case
    assert moved > 0.02 and off < (0.8 if name == "random_forest" else 0.5) * moved, (off, moved)
    # on the whole they agree better than track by track
    means = [answer.mean(axis=0) for answer in answers]
    assert np.abs(means[1] - means[2]).max() < 0.3 * np.abs(means[0] - means[2]).max(), means


def test_equal_weights_are_none(name: str, tmp_path: Path) -> None:
    train, validation = sample(800, 0), sample(300, 1)
    fit(tmp_path / "plain", name, train, validation, trees=5)
    ones = (replace(part, weights=np.ones(len(part), np.float32)) for part in (train, validation))
    fit(tmp_path / "ones", name, *ones, trees=5)
    rows = sample(500, 2).features
    answers = [model(tmp_path / folder, name, trees=5).score(rows) for folder in ("plain", "ones")]
    if name == "random_forest":
        # rows are drawn by their weights, so others are drawn
        np.testing.assert_allclose(answers[0].mean(axis=0), answers[1].mean(axis=0), atol=0.03)
    else:
        np.testing.assert_allclose(answers[0], answers[1], atol=1e-6)


def test_tracks_of_no_weight_teach_nothing(name: str, tmp_path: Path) -> None:
    """Every label of theirs is wrong."""

    def spoiled(tracks: Tracks) -> Tracks:
        labels = np.concatenate([tracks.labels, np.roll(tracks.labels, 1, axis=1)])
        weights = np.repeat(np.float32([2.0, 0.0]), len(tracks))
        return Tracks(np.concatenate([tracks.features, tracks.features]), labels, weights)

    clean = fit(tmp_path / "clean", name, sample(1500, 0), sample(600, 1))
    weighted = fit(tmp_path / "weighted", name, spoiled(sample(1500, 0)), spoiled(sample(600, 1)))
    test = sample(1500, 12)
    losses = []
    for made in (clean, weighted):
        certainty = made.score(test.features).clip(1e-3, 1 - 1e-3)
        losses.append(float(-np.log(np.where(test.labels == 1, certainty, 1 - certainty)).mean()))
    assert losses[1] < losses[0] + 0.03, losses


def test_held_out_tracks_are_weighed_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The number of trees follows the validation tracks that count."""
    held, noise = sample(600, 1), sample(600, 2)
    labels = np.random.default_rng(0).permutation(noise.labels)
    both = Tracks(np.concatenate([held.features, noise.features]), np.concatenate([held.labels, labels]))
    for name in ("lightgbm", "xgboost"):
        settings = {"trees": 100, "patience": 5, "learning_rate": 0.2}
        shown = []
        for number, validation in enumerate(
            (held, replace(both, weights=np.repeat(np.float32([2.0, 0.0]), 600)), replace(both, weights=None))
        ):
            fit(tmp_path / f"{name}{number}", name, sample(1500, 0), validation, **settings)
            shown.append(capsys.readouterr().out)
        assert shown[0] == shown[1] != shown[2]


def test_both_kinds_are_found() -> None:
    assert {"gbdt", "random_forest"} <= set(kinds())
    assert model_of("gbdt").Settings().model_dump() == {
        "kind": "gbdt", "library": "lightgbm", "trees": 300, "leaves": 31, "learning_rate": 0.1, "patience": 15,
    }  # fmt: skip
