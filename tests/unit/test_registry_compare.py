"""What differs between two publications."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_publish_documents import METRICS, RATE, make_card, make_info
from test_registry import make_bundle, put

from pidflow.errors import PidflowError
from pidflow.files import sha256, write_json
from pidflow.publish.compare import diff
from pidflow.publish.registry import Entry

POINTS = (
    "pdg,criterion,requested,threshold,purity,purity_low,purity_high,efficiency,efficiency_low,efficiency_high,f1,reached\n"
    "211,purity,0.9,{threshold},0.91,0.9,0.92,0.8,0.79,0.81,0.85,true\n"
    "211,max_f1,,0.4,0.88,0.87,0.89,0.9,0.89,0.91,0.89,true\n"
)


def publish_documents(store: Path, text: str, columns: list[str], **documents: Any) -> Entry:
    """Publish models of 211 and -211 with these columns and documents; ``card_md`` stands for ``card.md``."""
    folder = make_bundle(store.parent / f"bundle_{text}", text)
    write_json(folder / "columns_for_training.json", {"columns_for_training": columns})
    files = [*folder.glob("*.onnx"), folder / "columns_for_training.json", folder / "scaling_params.json"]
    write_json(folder / "gate.json", {"files": {file.name: sha256(file) for file in files}})
    for name, content in documents.items():
        file = folder / ".".join(name.rsplit("_", 1))
        file.write_text(content) if isinstance(content, str) else write_json(file, content)
    return put(store, folder, metadata={"run": "5", "code": text})


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "registry"


def test_no_difference(store: Path) -> None:
    entry = publish_documents(store, "a", ["fP"])
    assert set(diff(store, entry, entry)) == {
        "validity",
        "metadata",
        "objects",
        "features",
        "working_point",
        "metrics",
    }
    assert not any(diff(store, entry, entry).values())


def test_differences_without_documents(store: Path, tmp_path: Path) -> None:
    one = put(store, make_bundle(tmp_path / "a", "a"))
    other = put(store, make_bundle(tmp_path / "b", "long"), 100, 300, metadata={"run": "5", "pass": "apass2"})
    found = diff(store, one, other)
    assert found["validity"] == {"valid_until": {"one": 200, "other": 300}}
    assert found["metadata"] == {
        "period": {"one": "LHC23x", "other": None},
        "pass": {"one": None, "other": "apass2"},
    }
    sides = found["objects"]["attention_model_0211"]
    assert sides["one"]["size"] + 3 == sides["other"]["size"]
    assert sides["one"]["sha256"] == one.objects["attention_model_0211"].sha256
    assert len(found["objects"]) == 4
    assert not (found["features"] or found["working_point"] or found["metrics"])


def test_documents_tell_features_working_point_and_metrics(store: Path, tmp_path: Path) -> None:
    entries = []
    for text, columns, threshold, tof, auc in (("a", ["fP", "fBeta"], 0.5, 0.5, RATE), ("b", ["fBeta"], 0.6, 0.4, 0.8)):
        (tmp_path / text).mkdir()
        write_json(tmp_path / text / "other.json", {**METRICS, "macro": {"f1": 0.9, "f1_hadrons": RATE, "auc": auc}})
        config = {"evaluate": {"threshold": threshold}, "dataset": {"masks": {"tof": tof, "trd": 0.8}}}
        entries.append(
            publish_documents(
                store,
                text,
                columns,
                card_md=make_card(tmp_path / text, make_info(), metrics={"test set": tmp_path / text / "other.json"}),
                provenance_json={"config": config},
                working_points_csv=POINTS.format(threshold=threshold),
            )
        )
    found = diff(store, *entries)
    assert found["features"] == {"fP": {"one": 0, "other": None}, "fBeta": {"one": 1, "other": 0}}
    assert found["working_point"] == {
        "certainty": {"one": 0.5, "other": 0.6},
        "tof hidden below": {"one": 0.5, "other": 0.4},
        "211 purity 0.9": {"one": 0.5, "other": 0.6},
    }
    assert found["metrics"] == {
        "test set: AUC": {"one": RATE, "other": {"value": 0.8, "low": None, "high": None}},
    }
    assert found["metadata"] == {"code": {"one": "a", "other": "b"}}


def test_means_of_all_kinds_are_read(store: Path, tmp_path: Path) -> None:
    write_json(tmp_path / "other.json", {**METRICS, "macro": {"f1": 0.9, "f1_hadrons": 0.7, "auc": 0.8}})
    card = make_card(tmp_path, make_info(), metrics={"test set": tmp_path / "other.json"})
    found = diff(store, publish_documents(store, "a", []), publish_documents(store, "b", [], card_md=card))
    assert {name: pair["other"]["value"] for name, pair in found["metrics"].items()} == {
        "test set: F1": 0.9,
        "test set: F1, π K p": 0.7,
        "test set: AUC": 0.8,
    }
    assert all(pair["one"] is None for pair in found["metrics"].values())


def test_damaged_documents_are_named(store: Path) -> None:
    entry = publish_documents(store, "a", ["fP"])
    digest = entry.documents["card.md"].sha256
    (store / "objects" / digest[:2] / digest).write_text("rot")
    with pytest.raises(PidflowError, match="missing or damaged"):
        diff(store, entry, entry)
