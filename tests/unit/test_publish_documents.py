"""Model card, provenance, checksums, and the whole way from a model to a retrieved certainty."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pidflow.config.models import FseNetwork, Selection
from pidflow.errors import PidflowError
from pidflow.files import write_json
from pidflow.model import ModelInfo
from pidflow.publish.card import write_card
from pidflow.publish.export import export_bundle
from pidflow.publish.gate import check_bundle
from pidflow.publish.o2 import O2PidModel, O2Tracks
from pidflow.publish.provenance import write_sums
from pidflow.publish.registry import publish
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
    settings = {"network": FseNetwork(embedding_hidden=8, width=8, feed_forward=8).model_dump()}
    content = {
        "kind": "fse", "run": 5, "species": (211, -2212), "features": ("tpc_signal", "beta", "p"),
        "masks": {"tof": 0.5, "trd": 0.8}, "seed": 3, "settings": settings, **changes,
    }  # fmt: skip
    return ModelInfo(**content)


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
    assert loading["pdgPids"]["values"] == ["211", "-2212"] and loading["autoMode"] == "true"
    assert loading["useCcdb"] == "false"
    assert loading["ptCuts"]["labels_rows"] == ["211", "02212"]


def test_card_follows_masks_adaptation_and_tables(tmp_path: Path) -> None:
    info = make_info(
        features=("p", "tpc_nsigma_pi"), masks={"tof": 0.4}, adaptation={"method": "dann", "strength": 0.1}
    )
    card = make_card(tmp_path, info)
    assert "Method `dann` (strength = 0.1)" in card and "fTPCNSigmaPi" in card and "`autoMode` must stay off" in card
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
    network.save(network.build(info), info, tmp_path / "model")
    export_bundle(tmp_path / "model", bundle)
    check_bundle(bundle, tmp_path / "model", 1e-5, rows=100)
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
