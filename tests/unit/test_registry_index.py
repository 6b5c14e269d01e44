"""The list of all publications."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_registry import META, PATH, make_bundle, put

from pidflow.files import read_json
from pidflow.publish import registry
from pidflow.publish.registry import INDEX_FILE, history, publish, rollback, write_index


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "registry"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "bundle")


def listed(store: Path) -> list[dict[str, Any]]:
    content = read_json(store / INDEX_FILE)
    assert content["damaged"] == []
    return content["publications"]


def test_every_publication_is_listed(store: Path, bundle: Path) -> None:
    put(store, bundle, created=2)
    entry = publish(store, "A/b", bundle, valid_from=1, valid_until=9, metadata={"kind": "test"}, created=1)
    put(store, make_bundle(bundle.with_name("other"), "b"), created=3)
    rollback(store, PATH, created=2)
    lines = listed(store)
    assert [(line["path"], line["created"], line["run"]) for line in lines[:3]] == [
        ("A/b", 1, None),
        (PATH, 2, 5),
        (PATH, 3, 5),
    ]
    assert lines[3]["metadata"] == {**META, "rollback_of": "2"} and lines[3]["objects"] == lines[1]["objects"]
    told = {key: value for key, value in entry.model_dump(mode="json").items() if key != "documents"}
    assert lines[0] == {**told, "run": None, "entry": lines[0]["entry"]}
    assert read_json(store / lines[0]["entry"]) == entry.model_dump(mode="json")


@pytest.mark.parametrize("damage", ["", "{", '{"publications": [], "damaged": []}', None])
def test_a_lost_index_is_made_again(store: Path, bundle: Path, damage: str | None) -> None:
    put(store, bundle, created=1)
    put(store, bundle, 200, 300, created=2)
    whole = (store / INDEX_FILE).read_bytes()

    def spoil() -> None:
        if damage is None:
            (store / INDEX_FILE).unlink()
        else:
            (store / INDEX_FILE).write_text(damage)

    spoil()
    assert [entry.created for entry in history(store, PATH)] == [1, 2]
    write_index(store)
    assert (store / INDEX_FILE).read_bytes() == whole
    spoil()
    assert not put(store, bundle, 200, 300).new
    assert (store / INDEX_FILE).read_bytes() == whole


def test_a_damaged_entry_is_named_and_hides_no_other(store: Path, bundle: Path) -> None:
    put(store, bundle, created=1)
    broken = next((store / "entries").rglob("*.json"))
    broken.write_text("{")
    publish(store, "A/b", bundle, valid_from=1, valid_until=9, metadata={}, created=2)
    content = read_json(store / INDEX_FILE)
    assert content["damaged"] == [broken.relative_to(store).as_posix()]
    assert [line["path"] for line in content["publications"]] == ["A/b"]


def test_an_index_is_whole_or_as_before(store: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, bundle, created=1)
    before, replace = (store / INDEX_FILE).read_bytes(), os.replace

    def fail(source: Path, target: Path) -> None:
        if target.name == INDEX_FILE:
            raise OSError("disk full")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        put(store, bundle, 200, 300, created=2)
    assert (store / INDEX_FILE).read_bytes() == before and not list(store.rglob(".*"))
    monkeypatch.undo()
    assert not put(store, bundle, 200, 300).new
    assert [line["created"] for line in listed(store)] == [1, 2]


def test_a_publication_between_reading_and_writing_is_listed(
    store: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = registry._place

    def late(content: bytes, final: Path) -> None:
        if final.name == INDEX_FILE:
            monkeypatch.undo()
            put(store, bundle, 200, 300, created=2)
        place(content, final)

    monkeypatch.setattr(registry, "_place", late)
    put(store, bundle, created=1)
    assert [line["created"] for line in listed(store)] == [1, 2]


PUBLISHER = """
import sys
from pidflow.publish.registry import publish
store, bundle, first = sys.argv[1], sys.argv[2], int(sys.argv[3])
sys.stdin.readline()
for number in range(first, first + 15):
    publish(store, "A/b", bundle, valid_from=number, valid_until=number + 1, metadata={"run": str(number)})
"""


def test_two_processes_publish_at_once(store: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PUBLISHER, str(store), str(make_bundle(tmp_path / str(first), "x")), str(first)],
            stdin=subprocess.PIPE,
            env=environment,
        )
        for first in (100, 200)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode == 0
    runs = {*range(100, 115), *range(200, 215)}
    assert {int(entry.metadata["run"]) for entry in history(store, "A/b")} == runs
    assert {line["run"] for line in listed(store)} == runs and len(listed(store)) == 30
    text = (store / INDEX_FILE).read_text()
    write_index(store)
    assert (store / INDEX_FILE).read_text() == text and json.loads(text)
    assert not list(store.rglob(".*"))
