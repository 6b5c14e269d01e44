"""Model card, provenance, checksums, and the whole way from a model to a retrieved certainty."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pidflow.config.models import Selection
from pidflow.errors import PidflowError
from pidflow.files import sha256, write_json
from pidflow.model import MODEL_FILE, WEIGHTS_FILE, ModelInfo, model_digest
from pidflow.models import load, model_of
from pidflow.publish.card import write_card
from pidflow.publish.export import export_bundle
from pidflow.publish.gate import check_bundle
from pidflow.publish.o2 import O2PidModel, O2Tracks
from pidflow.publish.provenance import write_sums
from pidflow.publish.registry import Entry, publish
from pidflow.publish.retrieve import retrieve_model
from pidflow.train import network

RUN = {"run": 5, "period": "LHC23x", "pass": "apass1", "system": "pp 13.6 TeV", "valid_from": 100, "valid_until": 200}
RATE = {"value": 0.91, "low": 0.9, "high": 0.92}
METRICS = {
    "species": [
        {"pdg": 211, "key": "211", "overall": {"purity": RATE, "efficiency": RATE, "f1": RATE, "auc": RATE}},
        {"pdg": -2212, "key": "02212", "overall": {"purity": {"value": None, "low": None, "high": None}, "f1": 0.5}},
    ],
    "macro": {"f1": RATE, "auc": 0.97},
}


def make_info(**changes: Any) -> ModelInfo:
    settings = {"kind": "fse", "network": {"embedding_hidden": 8, "width": 8, "feed_forward": 8}}
    content = {
        "kind": "fse", "run": 5, "species": (211, -2212), "features": ("tpc_signal", "beta", "p"),
        "masks": {"tof": 0.5, "trd": 0.8}, "seed": 3, "settings": settings, **changes,
    }  # fmt: skip
    return ModelInfo(**content)


def make_model(folder: Path, info: ModelInfo, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    model: Any = model_of(info.kind)(info, folder)
    folder.mkdir(parents=True)
    network.save_network(model, network.calibrated(model, model.build()))
    info.write(folder)
    return folder


def make_record(code: str = "committed") -> dict[str, Any]:
    surroundings = {"code": code, "git": {"commit": "c0ffee", "dirty": False}}
    return {"inputs": [], "packages": {"numpy": ["2.4", "2.5"]}, "surroundings": surroundings}


def make_card(folder: Path, info: ModelInfo, **changes: Any) -> str:
    write_json(folder / "metrics.json", METRICS)
    content: dict[str, Any] = {
        "run": RUN,
        "info": info,
        "metrics": {"simulation": folder / "metrics.json"},
        "gate": {"n_checks": 10, "patterns": ["complete"], "worst_difference": 1e-7, "tolerance": 1e-5},
        "provenance": make_record(),
        "registry_path": "Users/p/pidflow/PIDML",
        "selection": Selection().model_dump(),
    }
    write_card(folder / "card.md", **{**content, **changes})
    return (folder / "card.md").read_text(encoding="utf-8")


def fragment(card: str) -> dict[str, Any]:
    text = card.partition("```json\n")[2].partition("```")[0]
    return json.loads(text)["simple-apply-pid-onnx-interface"]


def test_card_tells_what_a_user_needs(tmp_path: Path) -> None:
    card = make_card(tmp_path, make_info())
    for text in (
        "| pi+ | 211 | 0.9100 [0.9000, 0.9200] |",
        "| pr- | -2212 | – | – | 0.5000 | – |",
        "`fTPCSignal`",
        "F1 0.9100 [0.9000, 0.9200], AUC 0.9700",
        "TOF below p = 0.5 GeV/c",
        "| pt_min | 0.1 |",
        "None: the model knows simulation only",
        "made of the collision time and the other tracks' TOF",
        "10 comparisons",
    ):
        assert text in card
    loading = fragment(card)
    assert loading["pdgPids"]["values"] == ["211", "-2212"] and loading["autoMode"] == "false"
    assert loading["useCcdb"] == "false"
    assert loading["ptCuts"]["labels_rows"] == ["211", "02212"]


def test_card_follows_masks_adaptation_and_tables(tmp_path: Path) -> None:
    steps = ({"kind": "dann", "strength": 0.1, "epochs": 8}, {"kind": "mcc"})
    info = make_info(features=("p", "tpc_nsigma_pi"), masks={"tof": 0.4}, adaptation=steps)
    card = make_card(tmp_path, info)
    assert "\n1. `dann` (strength = 0.1, epochs = 8)\n2. `mcc` (default settings)\n" in card
    assert "fTPCNSigmaPi" in card and "`autoMode` must stay off" in card
    assert fragment(card)["ptCuts"]["values"][0] == ["0.0", "0.4", "0.0"]
    assert fragment(card)["autoMode"] == "false"


def test_card_warns_of_code_that_is_not_committed(tmp_path: Path) -> None:
    def second_block(code: str) -> str:
        return make_card(tmp_path, make_info(), provenance=make_record(code)).split("\n\n")[1]

    assert second_block("committed") == "## Intended use"
    assert "> **Warning: code that made this model was not committed.**" in second_block("uncommitted")
    assert "> **Warning: code that made this model is not known" in second_block("unknown")
    assert "numpy 2.4 and 2.5" in make_card(tmp_path, make_info())


def test_card_names_incomplete_metrics(tmp_path: Path) -> None:
    write_json(tmp_path / "empty.json", {"species": []})
    with pytest.raises(PidflowError, match=r"empty\.json: the metrics have no 'macro'"):
        make_card(tmp_path, make_info(), metrics={"x": tmp_path / "empty.json"})


def test_sums_are_those_of_sha256sum(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / name).write_text(name)
    first = write_sums(tmp_path).read_text()
    assert [line.split()[1] for line in first.splitlines()] == ["a", "b"]
    assert write_sums(tmp_path).read_text() == first
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=tmp_path, check=True)


def test_from_model_to_certainty_by_way_of_the_registry(tmp_path: Path) -> None:
    info, bundle, store = make_info(), tmp_path / "bundle", tmp_path / "registry"
    make_model(tmp_path / "model", info)
    export_bundle(tmp_path / "model", bundle)
    table = {name: pa.array([1.0, 2.0, None], pa.float32()) for name in info.features}
    pq.write_table(pa.table(table), tmp_path / "dataset.parquet")
    check_bundle(bundle, tmp_path / "model", 1e-5, rows=100, dataset=tmp_path / "dataset.parquet")
    write_sums(bundle)
    publish(store, "A/b", bundle, valid_from=100, valid_until=200, metadata={"run": "5"})
    ones = np.ones(3, np.float32)
    tracks = O2Tracks({"fTPCSignal": 80 * ones, "fBeta": ones, "fP": ones}, ones, ones > 0, ones > 0)
    model = O2PidModel.from_registry(store, "A/b", 150, tmp_path / "local", -2212)
    assert model.apply(tracks).tolist() == O2PidModel(bundle, -2212).apply(tracks).tolist()
    assert sorted(path.name for path in (tmp_path / "local").iterdir()) == [
        "attention_model_02212.onnx",
        "columns_for_training.json",
        "scaling_params.json",
    ]
    with pytest.raises(PidflowError, match="nothing is published"):
        O2PidModel.from_registry(store, "A/b", 250, tmp_path / "late", -2212)


def test_moving_bundles_needs_no_torch() -> None:
    code = (
        "import sys; from pidflow.publish import card, names, provenance, registry;"
        " sys.exit(bool({'torch', 'onnxruntime', 'onnx'} & set(sys.modules)))"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )


def publish_model(store: Path, folder: Path, model: Path, run: int, path: str = "A/b") -> Entry:
    """Publish files that pass for a bundle, with the model's weights as the publication of a network has them."""
    folder.mkdir(parents=True)
    names = ("attention_model_211.onnx", "columns_for_training.json", "scaling_params.json")
    for name in names:
        (folder / name).write_text(f"{name} {run}")
    write_json(folder / "gate.json", {"files": {name: sha256(folder / name) for name in names}})
    for name in (MODEL_FILE, WEIGHTS_FILE):
        (folder / name).write_bytes((model / name).read_bytes())
    entry = publish(store, path, folder, valid_from=run, valid_until=run + 1, metadata={"run": str(run)}, created=run)
    write_json(store / "runs" / f"{run}.json", entry.model_dump(mode="json"))
    return entry


def test_weights_come_back_from_a_registry_and_from_an_entry(tmp_path: Path) -> None:
    store = tmp_path / "registry"
    models = {run: make_model(tmp_path / f"model{run}", make_info(run=run), seed=run) for run in (5, 7, 6)}
    for run, model in models.items():
        publish_model(store, tmp_path / f"bundle{run}", model, run, f"A/{'bcd'[run - 5]}")
    retrieve_model(store, tmp_path / "newest")
    retrieve_model(store / "runs" / "5.json", tmp_path / "of_run")
    for folder, run in ((tmp_path / "newest", 7), (tmp_path / "of_run", 5)):
        assert {path.name for path in folder.iterdir()} == {MODEL_FILE, WEIGHTS_FILE}
        assert model_digest(folder) == model_digest(models[run])
        tracks = np.float32([[50.0, 0.9, np.nan]])
        np.testing.assert_array_equal(load(folder).score(tracks), load(models[run]).score(tracks))
    target: Any = model_of("fse")(make_info(run=8), tmp_path / "target")
    network.start_from(target, target.build(), tmp_path / "newest")


def test_nothing_to_start_from(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source in (tmp_path / "empty", tmp_path / "none", tmp_path / "registry/runs/5.json"):
        with pytest.raises(PidflowError, match="no publication to start from; set 'init_from' to a model, or to null"):
            retrieve_model(source, tmp_path / "model")


def test_damaged_weights_are_not_started_from(tmp_path: Path) -> None:
    store, model = tmp_path / "registry", make_model(tmp_path / "model", make_info())
    entry = publish_model(store, tmp_path / "bundle", model, 5)
    digest = entry.documents[WEIGHTS_FILE].sha256
    (store / "objects" / digest[:2] / digest).write_bytes(b"damaged")
    with pytest.raises(PidflowError, match="the object is missing or damaged"):
        retrieve_model(store, tmp_path / "again")


def test_publication_without_weights_is_named(tmp_path: Path) -> None:
    """Trees have a graph, but no weights that a network could start from."""
    store, model = tmp_path / "registry", make_model(tmp_path / "model", make_info())
    publish_model(store, tmp_path / "bundle", model, 5)
    for name in (MODEL_FILE, WEIGHTS_FILE):
        (tmp_path / "bundle" / name).unlink()
    publish(store, "A/c", tmp_path / "bundle", valid_from=1, valid_until=2, metadata={"run": "9"})
    with pytest.raises(PidflowError, match="init_from"):
        retrieve_model(store, tmp_path / "again")
