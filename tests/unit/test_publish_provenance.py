"""Provenance of a publication: the walk through the records, what the digest covers, uncommitted code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pidflow.config import Config, validate
from pidflow.config.published import published_config
from pidflow.config.runs import Run
from pidflow.errors import PidflowError
from pidflow.files import write_json
from pidflow.publish import publication
from pidflow.publish.provenance import History, code_state, digest, provenance, walk
from pidflow.record import read_records

CLEAN = {"commit": "abc", "dirty": False}
DIRTY = {"commit": "abc", "dirty": True}
NOWHERE = {"commit": None, "dirty": None}


def step(rule: str, inputs: list[str], outputs: list[Path] | list[str], **changes: Any) -> dict[str, Any]:
    return {
        "rule": rule, "script": f"{rule}.py", "wildcards": {}, "inputs": inputs, "params": {},
        "outputs": [
            {"path": str(path), "sha256": "ab", "bytes": Path(path).stat().st_size if Path(path).is_file() else 0}
            for path in outputs
        ],
        "code": f"code of {rule}", "seed": None, "threads": 1, "git": CLEAN, "python": "3.11",
        "packages": {"numpy": "2.4", "snakemake": "9"}, "host": {"scheduler": "local"}, "resources": {},
        "started": "2026-01-01T00:00:01", "ended": "2026-01-01T00:00:02", **changes,
    }  # fmt: skip


@pytest.fixture
def chain(tmp_path: Path) -> list[dict[str, Any]]:
    for name in ("table", "model", "plot"):
        (tmp_path / name).write_text(name)
    return [
        step("train", [str(tmp_path / "table")], [tmp_path / "model"], started="2026-01-01T00:00:05"),
        step("ingest", ["raw.root"], [tmp_path / "table"]),
        step("draw", [str(tmp_path / "model")], [tmp_path / "plot"]),
    ]


NOTHING = History((), ())


def make_record(history: History = NOTHING, **changes: Any) -> dict[str, Any]:
    content: dict[str, Any] = {
        "run": {"run": 5}, "inputs": [{"name": "raw.root", "sample": "simulation", "sha256": "cd"}],
        "config": {"seed": 3}, "seed": 3, "model": "ef", "own": step("publish_model", [], []), "history": history,
        "state": "committed", "results": "results", "batch_mb": 2000,
    }  # fmt: skip
    return provenance(**{**content, **changes})


def test_the_walk_leads_to_raw_files_and_leaves_out_the_rest(chain: list[dict[str, Any]], tmp_path: Path) -> None:
    history = walk(chain, [str(tmp_path / "model")], ["raw.root"])
    assert [item["rule"] for item in history.steps] == ["ingest", "train"]
    assert history.unrecorded == ()


def test_a_missing_record_is_named(chain: list[dict[str, Any]], tmp_path: Path) -> None:
    history = walk(chain[:1], [str(tmp_path / "model")], ["raw.root"])
    assert [item["rule"] for item in history.steps] == ["train"]
    assert history.unrecorded == (str(tmp_path / "table"),)
    steps = make_record(history)["surroundings"]["steps"]
    assert {"outputs": [{"path": str(tmp_path / "table")}], "record": None} in steps


def test_the_latest_record_of_a_file_counts(chain: list[dict[str, Any]], tmp_path: Path) -> None:
    old = step("old", ["other.root"], [tmp_path / "table"], ended="2025-01-01T00:00:02")
    rules = [item["rule"] for item in walk([*chain, old], [str(tmp_path / "model")], ["raw.root"]).steps]
    assert rules == ["ingest", "train"]


def test_a_file_of_another_size_is_an_error(chain: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "table").write_text("longer than before")
    with pytest.raises(PidflowError, match=r"table: it has 18 bytes, but ingest made it with 5; make it again"):
        walk(chain, [str(tmp_path / "model")], ["raw.root"])
    (tmp_path / "table").unlink()
    assert len(walk(chain, [str(tmp_path / "model")], ["raw.root"]).steps) == 2


def test_records_that_cannot_be_read_count_as_absent(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/broken.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")
    write_json(tmp_path / "deep/good.json", step("make", [], []))
    assert [item["rule"] for item in read_records(tmp_path)] == ["make"]


def test_digest_covers_what_can_change_a_model_and_nothing_else(chain: list[dict[str, Any]], tmp_path: Path) -> None:
    def history(**changes: Any) -> History:
        return walk([{**item, **changes} for item in chain], [str(tmp_path / "model")], ["raw.root"])

    record = make_record(history())
    assert json.loads(json.dumps(record)) == record
    assert record["packages"] == {"numpy": ["2.4"]}
    for same in (
        make_record(history(git=DIRTY, host={"scheduler": "slurm"}, threads=8, ended="2030-01-01T00:00:00")),
        make_record(history(packages={"numpy": "2.4+cpu"})),
        make_record(history(), state="unknown", results="/elsewhere", own=step("publish_model", [], [], git=NOWHERE)),
    ):
        assert digest(same) == digest(record)
    for other in (
        make_record(history(), seed=4),
        make_record(history(), config={"seed": 4}),
        make_record(history(), model="12"),
        make_record(history(code="other")),
        make_record(history(packages={"numpy": "2.5"})),
        make_record(history(), inputs=[]),
    ):
        assert digest(other) != digest(record)


def test_state_of_the_code() -> None:
    def same(script: str) -> str:
        return "code of make"

    def gone(script: str) -> str:
        raise FileNotFoundError(script)

    assert code_state(step("make", [], []), NOWHERE, gone) == "committed"
    assert code_state(step("make", [], [], git=DIRTY), DIRTY, same) == "uncommitted"
    assert code_state(step("make", [], [], git=NOWHERE), NOWHERE, same) == "unknown"
    # committed later, or made where there is no git: the same code is in the history now
    assert code_state(step("make", [], [], git=DIRTY), CLEAN, same) == "committed"
    assert code_state(step("make", [], [], git=NOWHERE), CLEAN, same) == "committed"
    assert code_state(step("other", [], [], git=DIRTY), CLEAN, same) == "uncommitted"
    assert code_state(step("make", [], [], git=NOWHERE), CLEAN, gone) == "unknown"


def test_uncommitted_code_is_marked_or_refused(capsys: pytest.CaptureFixture[str]) -> None:
    history = History((step("ingest", [], []), step("train", [], [], git=DIRTY)), ())
    own = step("publish_model", [], [], git=DIRTY)
    assert publication._state(history, own, "mark", "5") == "uncommitted"
    assert "WARNING: run 5: the code of train is not committed" in capsys.readouterr().out
    with pytest.raises(PidflowError, match=r"run 5: the code of train is not committed.*commit it and publish again"):
        publication._state(history, own, "refuse", "5")
    missing = History((), ("results/5/table",))
    assert publication._state(missing, step("publish_model", [], []), "mark", "5") == "unknown"
    assert "results/5/table: no record is left" in capsys.readouterr().out
    assert publication._state(NOTHING, step("publish_model", [], []), "refuse", "5") == "committed"


def a_run(**changes: Any) -> Run:
    content = {
        "run": 5, "period": "a", "pass": "b", "system": "pp", "year": 2022, "bz": 5.0, "data": "",
        "simulation": "s.root", "valid_from": 1, "valid_until": 2,
    }  # fmt: skip
    return Run.model_validate(content | changes)


def test_published_configuration_leaves_out_what_cannot_matter() -> None:
    base = published_config(Config(), a_run())
    for change in (
        {"pathvars": {"results": "elsewhere"}},
        {"run": 7},
        {"evaluate": {"image_format": "svg"}},
        {"closure": {"truth": "{folder}/{stem}"}},
        {"publish": {"uncommitted": "refuse"}},
        {"ingest": {"batch_mb": 7, "bad_files_of_run": {6: {"policy": "skip"}}}},
        {"example": {"events_per_file": 7}},
        # a step that no candidate has
        {"adapt": {"steps": {"mmd": {"epochs": 3}}}},
    ):
        assert published_config(validate(change, "test"), a_run()) == base
    for change in (
        {"seed": 7},
        {"features": {"count": 3}},
        {"models": {"nsigma": {}, "gbdt": {"trees": 7}, "fse": {}}},
        {"models": {"nsigma": {}, "gbdt": {}, "fse": {"optimisation": {"average": 0.5}}}},
        {"adapt": {"steps": {"self_training": {"epochs": 3}}}},
        {"adapt": {"candidates": {"dann": ["dann"]}}},
        {"adapt": {"method": "self_trained"}},
        {"adapt": {"choice": {"floor": 0.1}}},
        {"evaluate": {"threshold": 0.7}},
        {"ingest": {"bad_files_of_run": {5: {"policy": "skip"}}}},
    ):
        assert published_config(validate(change, "test"), a_run()) != base
    for adapt in ({"steps": {"self_training": {"epochs": 3}}}, {"method": "calibrated"}, {"method": "none"}):
        unadapted = {"publish": {"model": "fse"}, "adapt": adapt}
        assert published_config(validate(unadapted, "test"), a_run())["adapt"] == {"method": "none"}
    # what is adapted need not be compared
    net = {"models": {"nsigma": {}, "gbdt": {}, "fse": {}, "net": {"kind": "fse"}}, "evaluate": {"methods": ["gbdt"]}}
    found = published_config(validate(net | {"adapt": {"model": "net"}}, "test"), a_run())
    assert set(found["models"]) == {"gbdt", "net"} and found["adapt"]["model"] == "net"
    example = published_config(Config(), a_run(simulation="resources/example/5/s.root"))["example"]
    assert example["shifts"] == {"5": "none"}
