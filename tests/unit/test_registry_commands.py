"""The commands of ``python -m pidflow.publish``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_choose import TABLE
from test_publish_documents import make_info
from test_registry import PATH, make_bundle, put
from test_registry_compare import publish_documents

from pidflow.publish.__main__ import main
from pidflow.publish.registry import Entry, history

END = 10**17  # beyond the calendar


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "registry"


@pytest.fixture
def entries(store: Path) -> list[Entry]:
    model = make_info().model_dump(mode="json")
    return [
        publish_documents(store, text, columns, model_json=model, working_points_csv=TABLE)
        for text, columns in (("a", ["fP"]), ("b", ["fP", "fBeta"]))
    ]


def ask(capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    assert main([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def read(capsys: pytest.CaptureFixture[str], *words: object) -> list[list[str]]:
    assert main([*map(str, words)]) == 0
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def test_history(store: Path, entries: list[Entry], capsys: pytest.CaptureFixture[str]) -> None:
    found = ask(capsys, "history", store, PATH)
    assert found == [entry.model_dump(mode="json") for entry in entries]
    lines = read(capsys, "history", store, PATH, "--run", 5)
    assert lines[0][0] == "created" and [int(line[0]) for line in lines[1:]] == [entry.created for entry in entries]


def test_lookup(store: Path, entries: list[Entry], capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(capsys, "lookup", store, PATH, 150) == entries[1].model_dump(mode="json")
    lines = read(capsys, "lookup", store, PATH, 150)
    assert ["run", "5"] in lines
    blob = entries[1].objects["attention_model_211"]
    assert ["attention_model_211", str(blob.size), blob.sha256[:12]] in lines


def test_diff(store: Path, entries: list[Entry], capsys: pytest.CaptureFixture[str]) -> None:
    created = [entry.created for entry in entries]
    found = ask(capsys, "diff", store, PATH, *created)
    assert found["features"] == {"fBeta": {"one": None, "other": 1}}
    lines = read(capsys, "diff", store, PATH, *created)
    assert lines[0] == ["part", "name", *map(str, created)]
    assert ["features", "fBeta", "-", "1"] in lines and ["metadata", "code", "a", "b"] in lines
    assert read(capsys, "diff", store, PATH, created[0], created[0]) == [["no", "difference"]]


def test_rollback(store: Path, entries: list[Entry], capsys: pytest.CaptureFixture[str]) -> None:
    found = ask(capsys, "rollback", store, PATH, "--run", 5)
    assert found["metadata"]["rollback_of"] == str(entries[0].created)
    lines = read(capsys, "rollback", store, PATH, "--created", entries[1].created)
    assert ["rollback_of", str(entries[1].created)] in lines
    assert len(history(store, PATH)) == 4
    assert read(capsys, "history", store, PATH)[-1][-1] == str(entries[1].created)


def test_choose(store: Path, entries: list[Entry], capsys: pytest.CaptureFixture[str]) -> None:
    words = ("choose", store, PATH, 150, "--efficiency", "211=0.8", "--purity", "02212=0.9")
    found = ask(capsys, *words)
    assert [(point["pdg"], point["criterion"], point["threshold"]) for point in found["points"]] == [
        (211, "efficiency", 0.3),
        (-2212, "purity", 0.65),
    ]
    assert (found["path"], found["created"], found["p_limits"]) == (PATH, entries[1].created, [0.0, 0.5, 0.8])
    values = found["configuration"]["simple-apply-pid-onnx-interface"]["mlIdentCertaintyThresholds"]["values"]
    assert values == ["0.3", "0.65"]
    lines = read(capsys, *words)
    assert ["TPC", "+", "TOF", "0.5"] in lines and ["-2212", "purity", "0.9", "0.65", "0.9", "0.8", "0.85"] in lines
    assert ask(capsys, "choose", store, PATH, 150, "--fixed", "211=0.5")["points"][0]["threshold"] == 0.5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("history", "A/b"), "A/b: nothing is published in"),
        (("history", PATH, "--run", "6"), "nothing is published for run 6"),
        (("lookup", PATH, "99"), "nothing is published for time 99 ms"),
        (("diff", PATH, "1", "2"), "no publication was created at 1 ms"),
        (("rollback", PATH, "--created", "1"), "no publication was created at 1 ms"),
        (("choose", PATH, "150", "--purity", "211=0.98"), "no published working point of 211"),
        (("choose", PATH, "150", "--purity", "211=0.9", "--efficiency", "211=0.9"), "exactly one of"),
    ],
)
def test_errors_are_one_sentence(
    store: Path, entries: list[Entry], words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([words[0], str(store), *words[1:]]) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    assert printed.err.startswith("error: ") and message in printed.err


@pytest.mark.parametrize("wish", ["211", "pion=0.9", "211=much"])
def test_wishes_that_cannot_be_read(store: Path, wish: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["choose", str(store), PATH, "150", "--purity", wish])
    assert stop.value.code == 2 and "--purity" in capsys.readouterr().err


def test_an_end_beyond_the_calendar(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(store, make_bundle(tmp_path / "a"), 100, END)
    assert ["valid_until", str(END), "-"] in read(capsys, "lookup", store, PATH, 150)


def test_a_damaged_entry_without_traceback(store: Path, entries: list[Entry]) -> None:
    next((store / "entries").rglob("*.json")).write_text("{")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-m", "pidflow.publish", "history", store, PATH],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and done.stdout == ""
    assert "the entry is damaged" in done.stderr and "Traceback" not in done.stderr and done.stderr.count("\n") == 1
