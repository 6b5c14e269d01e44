"""Configurations of O2Physics tasks: what the tasks read of them selects the tracks that the working points select."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pidflow.model import ModelInfo
from pidflow.publish.configuration import (
    INTERFACE_FILE,
    ML_RESPONSE_FILE,
    interface,
    ml_response,
    write_configurations,
)
from pidflow.publish.names import p_limits

CERTAINTIES = {211: 0.5, -321: 0.83, 2212: 0.25}
PLACE: dict[str, Any] = {"path": "Users/p/pidflow/PIDML", "timestamp": 1655510400000}


@pytest.fixture
def info() -> ModelInfo:
    return ModelInfo(
        kind="fse",
        run=5,
        species=(211, -321, 2212),
        features=("tpc_signal", "beta", "trd_signal"),
        masks={"tof": 0.4, "trd": 0.9},
        seed=1,
        settings={},
    )


def accepts(block: dict[str, Any], pt: float, score: float) -> bool:
    """Return what `MlResponse::isSelectedMl` does with one class; no bin is no model."""
    edges = [float(edge) for edge in block["binsPtMl"]["values"]]
    number = sum(pt >= edge for edge in edges) - 1
    assert 0 <= number < len(edges) - 1 and int(block["nClassesMl"]) == 1
    cut, direction = float(block["cutsMl"]["values"][number][0]), int(block["cutDirMl"]["values"][0])
    return not ((direction == 0 and score > cut) or (direction == 1 and score < cut))


def test_interface_has_a_row_per_species(info: ModelInfo) -> None:
    task = interface(CERTAINTIES, p_limits(info.masks), **PLACE)["simple-apply-pid-onnx-interface"]
    assert task["pdgPids"]["values"] == ["211", "-321", "2212"]
    assert task["mlIdentCertaintyThresholds"]["values"] == ["0.5", "0.83", "0.25"]
    assert task["ptCuts"]["labels_rows"] == ["211", "0321", "2212"]
    assert task["ptCuts"]["values"] == [["0.0", "0.4", "0.9"]] * 3
    assert (task["autoMode"], task["ccdbPath"]) == ("false", "Users/p/pidflow/PIDML")
    assert (task["useFixedTimestamp"], task["fixedTimestamp"]) == ("true", "1655510400000")


def test_ml_response_accepts_what_the_working_points_accept(info: ModelInfo) -> None:
    blocks = ml_response(info, **PLACE, certainties=CERTAINTIES, pt=(0.1, 20.0))
    for key, pdg in (("211", 211), ("0321", -321), ("2212", 2212)):
        block, cut = blocks[key], CERTAINTIES[pdg]
        assert [accepts(block, 1.0, score) for score in (cut - 0.01, cut, cut + 0.01)] == [False, True, True]
        assert accepts(block, 0.1, 1.0) and accepts(block, 19.9, 1.0)
        assert block["namesInputFeatures"]["values"] == ["fTPCSignal", "fBeta", "fTRDSignal"]
        assert block["onnxFileNames"]["values"] == [f"attention_model_{key}.onnx"]
        assert block["modelPathsCCDB"]["values"] == [f"Users/p/pidflow/PIDML/attention_model_{key}"]
        assert block["pLimits"] == {"tof": 0.4, "trd": 0.9}
    assert set(blocks) == {"211", "0321", "2212"}


def test_files_hold_both(info: ModelInfo, tmp_path: Path) -> None:
    write_configurations(tmp_path, info, **PLACE, certainties=CERTAINTIES, pt=(0.1, 20.0))
    found = {path.name: json.loads(path.read_text()) for path in tmp_path.iterdir()}
    assert found == {
        INTERFACE_FILE: interface(CERTAINTIES, p_limits(info.masks), **PLACE),
        ML_RESPONSE_FILE: ml_response(info, **PLACE, certainties=CERTAINTIES, pt=(0.1, 20.0)),
    }
