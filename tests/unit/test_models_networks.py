"""Every kind of network, as a model: fitted, scored, read back, exported."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import product
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
    OWN,
    SIZES,
    SPECIES,
    content,
    described,
    evaluate,
    fit,
    library_state,  # noqa: F401
    mlp,
    sample,
)
from numpy.typing import NDArray
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score

from pidflow.errors import PidflowError
from pidflow.models import kinds, load, model_of
from pidflow.models.base import Model, Tracks
from pidflow.train import engine
from pidflow.train.graph import network_graph
from pidflow.train.network import calibrated

pytestmark = pytest.mark.usefixtures("library_state")

TRAIN, VALIDATION, TEST = sample(2000, 0), sample(600, 1), sample(1500, 2)


@pytest.fixture(scope="module", params=NETWORKS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def fitted(name: str, tmp_path_factory: pytest.TempPathFactory) -> Model[Any]:
    torch.set_num_threads(1)
    return fit(tmp_path_factory.mktemp(name) / "model", NETWORKS[name], TRAIN, VALIDATION)


def merge(settings: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Return settings with some of another value."""
    return settings | {key: settings[key] | value for key, value in change.items()}


def incomplete(features: NDArray[np.float32]) -> NDArray[np.bool_]:
    return np.isnan(features).any(axis=1)


def odd_tracks() -> NDArray[np.float32]:
    """Return tracks with an odd value in one feature and in all."""
    usual = sample(1, 9).features[0]
    rows = []
    for value in (0.0, -0.0, 1e-45, 1e30, -1e30, 3.4e38, -3.4e38, np.inf, -np.inf, -999.0, np.nan):
        rows.append(np.full(len(FEATURES), value))
        for number in range(len(FEATURES)):
            rows.append(np.nan_to_num(usual, nan=1.0))
            rows[-1][number] = value
    return np.array(rows, np.float32)


def every_pattern() -> NDArray[np.float32]:
    """Return tracks that lack every set of features, of whole detectors or not, even all."""
    values = np.nan_to_num(sample(2 ** len(FEATURES), 3).features, nan=1.0)
    values[np.array(list(product([False, True], repeat=len(FEATURES))))] = np.nan
    return values


def test_every_kind_of_network_is_tested() -> None:
    assert {settings["kind"] for settings in NETWORKS.values()} == {
        kind for kind in kinds() if model_of(kind).is_network
    }


def test_certainties_tell_species_apart(name: str, fitted: Model[Any]) -> None:
    certainty = fitted.score(TEST.features)
    assert certainty.dtype == np.float32 and certainty.shape == TEST.labels.shape
    unscored = incomplete(TEST.features) if name == "mlp_delete" else np.zeros(len(TEST), bool)
    assert (np.isnan(certainty) == unscored[:, None]).all()
    scored = certainty[~unscored]
    assert scored.min() >= 0 and scored.max() <= 1
    for rows in (~unscored, ~unscored & np.isnan(TEST.features[:, 3]), ~unscored & ~np.isnan(TEST.features[:, 3])):
        if rows.any():
            areas = [roc_auc_score(TEST.labels[rows, n], certainty[rows, n]) for n in range(2)]
            assert min(areas) > 0.75, areas
    shares = TEST.labels[~unscored].mean(axis=0)
    np.testing.assert_allclose(scored.mean(axis=0), shares, atol=0.05)


def halves(seed: int, count: int) -> tuple[Tracks, Tracks]:
    """Return tracks, and the same with each second one's label turned to the other species."""
    tracks = sample(count, seed)
    labels = tracks.labels.copy()
    labels[1::2] = labels[1::2, ::-1]
    return tracks, Tracks(tracks.features, labels)


def test_tracks_of_no_weight_teach_nothing(name: str, tmp_path: Path) -> None:
    """With them the species cannot be told apart; by the weights they are not there."""
    sets = [halves(0, 4000)[1], halves(1, 1200)[1]]
    weighted = [Tracks(part.features, part.labels, np.tile(np.float32([2.0, 0.0]), len(part) // 2)) for part in sets]
    settings = merge(NETWORKS[name], {"optimisation": {"epochs": 6, "patience": 6}})
    areas, shares = [], []
    for number, (train, validation) in enumerate((sets, weighted)):
        certainty = fit(tmp_path / str(number), settings, train, validation).score(TEST.features)
        scored = ~np.isnan(certainty).any(axis=1)
        areas.append([roc_auc_score(TEST.labels[scored, n], certainty[scored, n]) for n in range(2)])
        shares.append(certainty[scored].mean(axis=0))
    assert min(areas[1]) > 0.75 and min(np.subtract(areas[1], areas[0])) > 0.05, areas
    complete = ~incomplete(TEST.features) if name == "mlp_delete" else slice(None)
    np.testing.assert_allclose(shares[1], TEST.labels[complete].mean(axis=0), atol=0.06)


def test_weights_move_certainties_as_repetitions_do(name: str, tmp_path: Path) -> None:
    """Tracks of one species count three times: by weights, by repetition."""

    def counts_of(tracks: Tracks) -> NDArray[np.int64]:
        return np.where(tracks.labels[:, 0] == 1, 3, 1)

    def weighed(tracks: Tracks) -> tuple[Tracks, Tracks]:
        counts = counts_of(tracks)
        weights = (counts / counts.mean()).astype(np.float32)
        rows = np.repeat(np.arange(len(tracks)), counts)
        return Tracks(tracks.features, tracks.labels, weights), Tracks(tracks.features[rows], tracks.labels[rows])

    plain = fit(tmp_path / "plain", NETWORKS[name], TRAIN, VALIDATION).score(TEST.features)
    answers = []
    for number, (train, validation) in enumerate(zip(weighed(TRAIN), weighed(VALIDATION), strict=True)):
        # as many steps, each of as many different tracks
        batch = round(NETWORKS[name]["optimisation"]["batch"] * len(train) / len(TRAIN))
        settings = merge(NETWORKS[name], {"optimisation": {"batch": batch}})
        answers.append(fit(tmp_path / str(number), settings, train, validation).score(TEST.features))
    scored = ~np.isnan(plain).any(axis=1)
    counts = counts_of(TEST)[scored]
    shares = [np.average(answer[scored], axis=0, weights=counts) for answer in (plain, *answers)]
    truth = np.average(TEST.labels[scored], axis=0, weights=counts)
    assert np.abs(shares[0] - truth).max() > 0.035
    np.testing.assert_allclose(shares[1], truth, atol=0.035)
    np.testing.assert_allclose(shares[1], shares[2], atol=0.03)


def test_score_of_a_track_does_not_depend_on_others(fitted: Model[Any]) -> None:
    together = fitted.score(TEST.features[:200])
    order = np.random.default_rng(0).permutation(200)
    np.testing.assert_allclose(fitted.score(TEST.features[order]), together[order], atol=1e-6)
    alone = np.concatenate([fitted.score(row[None]) for row in TEST.features[:30]])
    np.testing.assert_allclose(alone, together[:30], atol=1e-6)


def test_model_directory_is_all_that_scoring_needs(name: str, fitted: Model[Any], tmp_path: Path) -> None:
    assert set(content(fitted.folder)) == {"model.json", "weights.safetensors", "history.parquet"}
    assert [path.name for path in fitted.folder.parent.iterdir()] == ["model"]
    for file in ("model.json", "weights.safetensors"):
        (tmp_path / file).write_bytes((fitted.folder / file).read_bytes())
    torch.manual_seed(99)
    again = load(tmp_path)
    assert again.info == described(NETWORKS[name]) and again.info == fitted.info
    np.testing.assert_array_equal(again.score(TEST.features), fitted.score(TEST.features))


def test_history_has_an_entry_per_epoch(fitted: Model[Any]) -> None:
    history = pq.read_table(fitted.folder / "history.parquet").to_pylist()
    assert [entry["epoch"] for entry in history] == [1, 2, 3, 4]
    assert set(history[0]) == {"epoch", "train_loss", "validation_loss", "validation_auc"}
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    assert 0.75 < max(entry["validation_auc"] for entry in history) <= 1


def test_graph_equals_the_score_for_every_pattern(name: str, fitted: Model[Any]) -> None:
    rows = np.concatenate([every_pattern(), odd_tracks(), TEST.features[:300]])
    rows = rows[np.random.default_rng(0).permutation(len(rows))]
    certainty = fitted.score(rows)
    assert (np.isnan(certainty).any(axis=1) == (incomplete(rows) if name == "mlp_delete" else False)).all()
    expected = np.nan_to_num(certainty, nan=0.0)
    for number in range(len(SPECIES)):
        graph = fitted.graph(number)
        onnx.checker.check_model(graph, full_check=True)
        assert graph.ir_version == 8 and [(o.domain, o.version) for o in graph.opset_import] == [("", 17)]
        for batch in (len(rows), 7) if number else (1,):
            found = evaluate(graph, rows, batch)
            assert np.isfinite(found).all() and found.min() >= 0 and found.max() <= 1
            assert np.abs(found - expected[:, number]).max() <= 1e-5
        if name == "mlp_delete":
            assert (evaluate(graph, rows)[incomplete(rows)] == 0).all()
    assert np.ptp(expected[:, 0]) > 0.5


def test_same_seed_same_bytes(name: str, fitted: Model[Any], tmp_path: Path) -> None:
    torch.rand(5)
    np.random.rand(5)
    again = fit(tmp_path / "model", NETWORKS[name], TRAIN, VALIDATION)
    assert content(again.folder) == content(fitted.folder)
    first, second = (model.graph(1).SerializeToString(deterministic=True) for model in (fitted, again))
    assert first == second


def test_other_seed_other_bytes(tmp_path: Path) -> None:
    short = mlp(epochs=1)
    one, other = (
        fit(tmp_path / str(seed), short, TRAIN, VALIDATION, info={"seed": seed}).folder / "weights.safetensors"
        for seed in (1, 2)
    )
    assert one.read_bytes() != other.read_bytes()


def test_labels_decide(tmp_path: Path) -> None:
    swapped = Tracks(TRAIN.features, np.ascontiguousarray(TRAIN.labels[:, ::-1]))
    held_out = Tracks(VALIDATION.features, np.ascontiguousarray(VALIDATION.labels[:, ::-1]))
    certainty = fit(tmp_path / "model", mlp(), swapped, held_out).score(TEST.features)
    assert roc_auc_score(TEST.labels[:, 1], certainty[:, 0]) > 0.75


def test_delete_uses_complete_tracks_alone(tmp_path: Path) -> None:
    settings = mlp("delete", epochs=1)
    spoiled = TRAIN.features.copy()
    spoiled[incomplete(spoiled)] *= 7
    held_out = VALIDATION.features.copy()
    held_out[incomplete(held_out)] *= 7
    first = fit(tmp_path / "first", settings, TRAIN, VALIDATION)
    second = fit(
        tmp_path / "second", settings, Tracks(spoiled, TRAIN.labels), Tracks(held_out, VALIDATION.labels)
    )  # fmt: skip
    weights = "weights.safetensors"
    assert (first.folder / weights).read_bytes() == (second.folder / weights).read_bytes()


def test_delete_without_a_complete_track_is_refused(tmp_path: Path) -> None:
    features = TRAIN.features.copy()
    features[:, 2] = np.nan
    with pytest.raises(PidflowError, match="complete"):
        fit(tmp_path / "model", mlp("delete"), Tracks(features, TRAIN.labels), VALIDATION)


@pytest.mark.parametrize("name", ["fse", "mlp_mean", "tabm"], indirect=True)
def test_bfloat16_trains_too(name: str, fitted: Model[Any], tmp_path: Path) -> None:
    settings = NETWORKS[name] | {"optimisation": OPTIMISATION | {"precision": "bfloat16"}}
    half = fit(tmp_path / "model", settings, TRAIN, VALIDATION)
    assert all(tensor.dtype != torch.bfloat16 for tensor in load_file(half.folder / "weights.safetensors").values())
    certainty = half.score(TEST.features)
    assert (certainty != fitted.score(TEST.features)).any()
    assert roc_auc_score(TEST.labels[:, 0], certainty[:, 0]) > 0.75


def test_hidden_detectors_make_a_network_that_can_do_without(tmp_path: Path) -> None:
    """A network whose TPC told all has learnt nothing of TOF, unless the TPC was hidden from it at times."""

    def with_clear_tpc(tracks: Tracks) -> Tracks:
        features = tracks.features.copy()
        features[:, [0, 2]] = np.nan
        features[:, 1] = 100.0 - 50.0 * tracks.labels[:, 0]
        return Tracks(features, tracks.labels)

    rows, labels = (part[~np.isnan(TEST.features[:, 3])] for part in (TEST.features, TEST.labels))
    blind = np.where(np.arange(len(FEATURES)) < 3, np.float32("nan"), rows)
    areas = []
    for hidden in (0.0, 0.3):
        settings = mlp(hide_detector=hidden, epochs=6) | {"calibration": "none"}
        made = fit(tmp_path / str(hidden), settings, with_clear_tpc(TRAIN), with_clear_tpc(VALIDATION))
        certainty = made.score(blind)[:, 0].astype(float).clip(1e-6, 1 - 1e-6)
        areas.append(-np.log(np.where(labels[:, 0] > 0, certainty, 1 - certainty)).mean())
    assert areas[1] < 0.8 * areas[0], areas


def test_patterns_are_calibrated_apart(fitted: Model[Any]) -> None:
    weights = load_file(fitted.folder / "weights.safetensors")
    assert weights["slope"].shape == weights["offset"].shape == (4, 2)
    seen = 4 if fitted.info.settings.get("missing") != "delete" else 1
    assert len({tuple(row) for row in weights["slope"].tolist()} - {(1.0, 1.0)}) == seen
    assert (weights["slope"] > 0).all()


FORKER = """
import json, os, sys, tempfile
from pathlib import Path
import torch
from models_sample import NETWORKS, fit, sample
torch.set_num_threads(1)
train, validation = sample(2000, 0), sample(600, 1)
with tempfile.TemporaryDirectory() as folder:
    # what a first training imports and a fork then has
    short = NETWORKS["mlp_mean"]["optimisation"] | {"epochs": 1}
    fit(Path(folder), NETWORKS["mlp_mean"] | {"optimisation": short}, validation, validation)
print("ready", flush=True)
for line in sys.stdin:
    folder, settings = json.loads(line)
    child = os.fork()
    if not child:
        fit(Path(folder), settings, train, validation)
        os._exit(0)
    print(child, flush=True)
    print("ended", os.waitpid(child, 0)[1], flush=True)
"""


def test_files_have_the_permissions_of_any_new_file(fitted: Model[Any], tmp_path: Path) -> None:
    (tmp_path / "new").touch()
    modes = {path.name: path.stat().st_mode for path in fitted.folder.iterdir()}
    assert "weights.safetensors" in modes
    assert set(modes.values()) == {(tmp_path / "new").stat().st_mode}


@pytest.fixture(scope="module")
def forker() -> Iterator[subprocess.Popen[str]]:
    """A process that trains in a child of its own, since to import all takes longer than to train."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", FORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdin and process.stdout
        while process.stdout.readline() not in ("ready\n", ""):
            pass
        yield process
        process.stdin.close()
        assert process.wait() == 0


def train_apart(
    forker: subprocess.Popen[str], folder: Path, settings: dict[str, Any], kill_after: float | None
) -> tuple[int, list[str]]:
    """Train in another process, killed so many seconds after its next checkpoint; return how it ended and its lines."""
    assert forker.stdin and forker.stdout
    checkpoint = folder.with_name(f".{folder.name}.checkpoint")
    before = checkpoint.stat().st_mtime_ns if checkpoint.is_file() else 0
    print(json.dumps([str(folder), settings]), file=forker.stdin, flush=True)
    child = int(forker.stdout.readline())
    if kill_after is not None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and not (folder / "model.json").is_file():
            with contextlib.suppress(FileNotFoundError):
                if checkpoint.stat().st_mtime_ns > before:
                    break
            time.sleep(0.001)
        time.sleep(kill_after)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    lines = [forker.stdout.readline()]
    while lines[-1] and not lines[-1].startswith("ended"):
        lines.append(forker.stdout.readline())
    return int(lines[-1].split()[1]), lines


@pytest.mark.parametrize("name", ["fse_piecewise", "tabm"])
def test_killed_at_any_time_goes_on_to_the_same_bytes(name: str, forker: subprocess.Popen[str], tmp_path: Path) -> None:
    """Kills hit steps, validation and the writing of checkpoints alike."""
    more = OPTIMISATION | {"epochs": 12, "patience": 12, "hide_detector": 0.2, "average": 0.95}
    settings = NETWORKS[name] | {"optimisation": more}
    whole = fit(tmp_path / "whole" / "model", settings, TRAIN, VALIDATION)
    folder = tmp_path / "killed" / "model"
    delays = [random.uniform(0.0, 0.1) for _ in range(4)]
    print(f"killed after {delays}")
    ends = [train_apart(forker, folder, settings, delay) for delay in (*delays, None)]
    assert ends[-1][0] == 0
    assert sum(code == signal.SIGKILL for code, _ in ends) >= 2
    assert sum(line.startswith("resumed after epoch") for _, lines in ends for line in lines) >= 2
    assert content(folder) == content(whole.folder)
    assert not folder.with_name(".model.checkpoint").exists()
    for number in range(2):
        first, second = (model.graph(number).SerializeToString(deterministic=True) for model in (load(folder), whole))
        assert first == second


def test_graph_of_a_network_with_steep_attention(tmp_path: Path) -> None:
    """Scores of the pooling and of the attention far from 0 are no reason for another answer."""
    torch.manual_seed(0)
    model: Any = model_of("fse")(described(NETWORKS["fse"]), tmp_path)
    built = model.build()
    built.adjust(TRAIN.features)
    with torch.no_grad():
        built.encoder.pool[2].weight *= 200
        built.encoder.pool[2].bias += 100
        built.encoder.layers[0].qkv.weight *= 10
    trained = calibrated(model, built).eval()
    rows = TEST.features[:300]
    expected = engine.predict(trained, rows)
    assert np.ptp(expected[:, 0]) > 0.01
    for number in range(2):
        found = evaluate(network_graph(trained, number, len(FEATURES)), rows)
        assert np.abs(found - expected[:, number]).max() <= 1e-5


def test_exported_graph_of_a_network_is_of_one_species(name: str, fitted: Model[Any]) -> None:
    """The outputs of two species differ, so that an exchange of them would be seen."""
    rows = TEST.features[~incomplete(TEST.features)][:50]
    first, second = (evaluate(network_graph(fitted.trained, n, len(FEATURES)), rows) for n in range(2))
    assert np.abs(first - second).max() > 0.1


def test_sizes_reach_the_network() -> None:
    info = described({"kind": "fse", "network": SIZES | {"encoding": "periodic", "encoding_size": 5}})
    model: Any = model_of("fse")(info, "nowhere")
    network = model.build()
    assert network.encoder.embed.encode.frequency.shape == (len(FEATURES), 5)
    assert network.encoder.embed.value.shape == (len(FEATURES), 11, SIZES["embedding_hidden"])
    assert network.encoder.width == SIZES["width"] and len(network.encoder.layers) == SIZES["layers"]
    assert network.heads[0].weight.shape == (SIZES["classifier_hidden"], SIZES["width"])
    assert network.heads[2].p == SIZES["dropout"] and network.heads[3].weight.shape[0] == len(SPECIES)
    assert set(OWN) == {"its", "tpc", "trd", "tof"}
