"""An earlier publication comes back."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_registry import LOADED, META, PATH, make_bundle, put

from pidflow.errors import PidflowError
from pidflow.publish.registry import Entry, fetch, history, lookup, rollback, version, versions


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "registry"


def put_text(store: Path, text: str, *period: int, names: tuple[str, ...] = LOADED, **more: object) -> Entry:
    return put(store, make_bundle(store.parent / f"bundle_{text}", text, names), *period, **more)


def entry_files(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (store / "entries").rglob("*.json")}


def test_an_earlier_version_wins_again_and_nothing_is_lost(store: Path, tmp_path: Path) -> None:
    first, second = put_text(store, "a", created=5), put_text(store, "b")
    before = entry_files(store)
    back = rollback(store, PATH, run=5, created=5)
    assert back.new and back.created > second.created
    assert back.metadata == {**META, "rollback_of": "5"}
    assert (back.objects, back.documents) == (first.objects, first.documents)
    assert (back.valid_from, back.valid_until) == (first.valid_from, first.valid_until)
    assert lookup(store, PATH, 150) == back.model_copy(update={"new": False})
    assert [entry.created for entry in history(store, PATH)] == [5, second.created, back.created]
    assert before.items() < entry_files(store).items()
    fetch(store, PATH, 150, tmp_path / "out")
    assert (tmp_path / "out" / LOADED[0]).read_text() == f"{LOADED[0]} a"


def test_it_is_created_after_all_others_under_the_path(store: Path) -> None:
    far = 10**14
    put_text(store, "a", created=1)
    put_text(store, "b", created=2)
    put_text(store, "c", 300, 400, metadata={"run": "6"}, created=far)
    assert rollback(store, PATH, run=5, created=1).created == far + 1


def test_each_further_call_goes_further_back(store: Path) -> None:
    for created, text in enumerate("abc", 1):
        put_text(store, text, created=created)
    assert rollback(store, PATH).metadata["rollback_of"] == "2"
    assert rollback(store, PATH).metadata["rollback_of"] == "1"
    with pytest.raises(PidflowError, match="there is nothing to roll back to"):
        rollback(store, PATH)
    assert len(history(store, PATH)) == 5


def test_a_version_that_holds_already_is_refused(store: Path) -> None:
    put_text(store, "a", created=1)
    put_text(store, "b", created=2)
    with pytest.raises(PidflowError, match="created at 2 ms is in force already"):
        rollback(store, PATH, created=2)
    rollback(store, PATH, created=1)
    with pytest.raises(PidflowError, match="created at 1 ms is in force already"):
        rollback(store, PATH, created=1)
    assert len(history(store, PATH)) == 3
    assert rollback(store, PATH, created=2).metadata["rollback_of"] == "2"


def test_a_single_version_has_none_before_it(store: Path) -> None:
    put_text(store, "a")
    with pytest.raises(PidflowError, match="there is nothing to roll back to"):
        rollback(store, PATH)


def test_versions_of_another_time_do_not_come_before(store: Path) -> None:
    put_text(store, "a", 100, 200)
    put_text(store, "b", 200, 300)
    with pytest.raises(PidflowError, match="there is nothing to roll back to"):
        rollback(store, PATH)


def test_unknown_versions(store: Path) -> None:
    put_text(store, "a", created=1)
    put_text(store, "b", created=2)
    with pytest.raises(PidflowError, match="no publication was created at 3 ms"):
        rollback(store, PATH, created=3)
    with pytest.raises(PidflowError, match=r"Users/p/other: nothing is published in .*; correct the path"):
        rollback(store, "Users/p/other", created=1)
    with pytest.raises(PidflowError, match="nothing is published for run 6"):
        rollback(store, PATH, run=6, created=1)
    with pytest.raises(PidflowError, match="registry path"):
        rollback(store, "a/1", created=1)


def test_the_run_is_named_where_it_is_needed(store: Path) -> None:
    for run, start in ((5, 100), (6, 200)):
        for created, text in ((1, "a"), (2, "b")):
            put_text(store, text, start, start + 100, metadata={"run": str(run)}, created=created)
    with pytest.raises(PidflowError, match="several runs; name the run"):
        rollback(store, PATH)
    with pytest.raises(PidflowError, match="2 publications were created at 1 ms; name the run"):
        rollback(store, PATH, created=1)
    back = rollback(store, PATH, run=6)
    assert (back.valid_from, back.metadata) == (200, {"run": "6", "rollback_of": "1"})
    assert [entry.created for entry in versions(store, PATH, 5)] == [1, 2]
    assert version(store, PATH, 1, 5).valid_from == 100


def test_damage_stops_it(store: Path) -> None:
    first = put_text(store, "a", created=1)
    put_text(store, "b", created=2)
    before = entry_files(store)
    for blob in (first.objects["attention_model_211"], put_text(store, "a", 500, 600).documents["gate.json"]):
        file = store / "objects" / blob.sha256[:2] / blob.sha256
        content = file.read_bytes()
        file.write_text("rot")
        with pytest.raises(PidflowError, match="missing or damaged"):
            rollback(store, PATH, created=1)
        file.write_bytes(content)
    assert before.keys() < entry_files(store).keys() and len(history(store, PATH)) == 3
    next((store / "entries").rglob("100_*_2_*.json")).write_text("{")
    with pytest.raises(PidflowError, match="the entry is damaged"):
        rollback(store, PATH, created=1)


def test_species_of_the_newer_version_do_not_shine_through(store: Path) -> None:
    put_text(store, "a", names=(LOADED[0], *LOADED[2:]), created=1)
    put_text(store, "b", created=2)
    with pytest.raises(PidflowError, match="attention_model_0211 of an older publication"):
        rollback(store, PATH, created=1)
    assert len(history(store, PATH)) == 2


def test_publishing_what_came_back_creates_nothing(store: Path) -> None:
    put_text(store, "a", created=1)
    put_text(store, "b", created=2)
    back = rollback(store, PATH)
    assert put_text(store, "a") == back.model_copy(update={"new": False})
    assert put_text(store, "b").new and len(history(store, PATH)) == 4
