"""Upload of publications: whole, once, and never a mixture for a reader, wherever it is killed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ccdb_server import Ccdb, Fault, Version, serving

from pidflow.errors import PidflowError
from pidflow.files import read_json, sha256, write_json
from pidflow.publish.ccdb.client import Client
from pidflow.publish.ccdb.upload import Layout, Receipt, upload, write_receipts
from pidflow.publish.ccdb.versions import BUNDLE_KEY, CURRENT, VERSION_KEY, fetch, resolve, version_of
from pidflow.publish.names import bundle_files
from pidflow.publish.registry import Entry, publish

PATH = "Users/p/pidflow/PIDML"
START, END = 1000, 2000
SPECIES = (211, 321, 2212, -211, -321, -2212)
FILES = bundle_files(SPECIES)
META = {"run": "544122", "period": "LHC23x", "pass": "apass4", "system": "pp"}

# objects: browse and POST each, then redirect and download each; the same four for `current`
STEPS = 8 * 2 + 8 * 2 + 4


@dataclass(frozen=True)
class Published:
    """A publication in a local registry, and the content of its objects by name."""

    entry: Entry
    registry: Path
    content: dict[str, bytes]

    def upload(self, client: Client, layout: Layout = "versioned", **more: Any) -> list[Receipt]:
        return upload(self.entry, self.registry, client, layout=layout, **more)


def published(folder: Path, text: str, **metadata: str) -> Published:
    bundle = folder / text
    bundle.mkdir(parents=True)
    for name in FILES:
        (bundle / name).write_bytes(f"{name} {text}\r\n".encode() + bytes(range(256)))
    write_json(bundle / "gate.json", {"files": {name: sha256(bundle / name) for name in FILES}})
    content = {Path(name).stem: (bundle / name).read_bytes() for name in FILES}
    entry = publish(folder / "registry", PATH, bundle, valid_from=START, valid_until=END, metadata={**META, **metadata})
    return Published(entry, folder / "registry", content)


@pytest.fixture
def ccdb() -> Iterator[Ccdb]:
    with serving() as server:
        yield server


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return published(tmp_path_factory.mktemp("old"), "old")


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return published(tmp_path_factory.mktemp("new"), "new")


@pytest.fixture(scope="module")
def older(old: Published) -> list[Version]:
    """What is stored once the older publication is uploaded."""
    with serving() as server:
        old.upload(Client(server.url))
        return list(server.versions)


def read(ccdb: Ccdb, timestamp: int = START) -> dict[str, bytes]:
    """Return what a reader gets: it resolves the version, then asks for each object by itself, as O2Physics does."""
    client = Client(ccdb.url, attempts=1)
    version = resolve(client, PATH, timestamp)
    found = {name: client.get(f"{version.path}/{name}", timestamp) for name in version.objects}
    return {name: one[1] for name, one in found.items() if one is not None}


def read_direct(ccdb: Ccdb, names: dict[str, bytes]) -> dict[str, bytes]:
    found = {name: Client(ccdb.url).get(f"{PATH}/{name}", START) for name in names}
    return {name: one[1] for name, one in found.items() if one is not None}


def on_each_request(client: Client, before: Callable[[int], None], after: Callable[[int], None]) -> Client:
    send, count = client._session.request, 0

    def request(*given: Any, **more: Any) -> Any:
        nonlocal count
        count += 1
        number = count
        before(number)
        answer = send(*given, **more)
        after(number)
        return answer

    client._session.request = request  # type: ignore[method-assign]
    return client


def test_all_objects_arrive_in_their_own_folder(ccdb: Ccdb, old: Published, tmp_path: Path) -> None:
    receipts = old.upload(Client(ccdb.url))
    version = version_of(old.entry)
    assert version.path.startswith(f"{PATH}/run544122-")
    assert len(ccdb.seen) == STEPS
    stored = {v.path: v for v in ccdb.versions}
    assert len(stored) == len(ccdb.versions) == 9
    assert {
        path.removeprefix(f"{version.path}/"): v.content for path, v in stored.items() if path != f"{PATH}/{CURRENT}"
    } == (old.content)
    assert [v.path.rpartition("/")[2] for v in ccdb.versions[:2]] == ["columns_for_training", "scaling_params"]
    assert ccdb.versions[-1].path == f"{PATH}/{CURRENT}"
    assert {(v.valid_from, v.valid_until) for v in ccdb.versions} == {(START, END)}
    for v in ccdb.versions[:-1]:
        assert v.metadata == {**META, BUNDLE_KEY: version.bundle}
    assert ccdb.versions[-1].metadata == {**META, BUNDLE_KEY: version.bundle, VERSION_KEY: version.path.split("/")[-1]}
    assert {v.file for v in ccdb.versions} == {*FILES, "current.json"}
    assert read(ccdb) == read(ccdb, END - 1) == old.content
    with pytest.raises(PidflowError, match="no version is current at time 2000"):
        resolve(Client(ccdb.url), PATH, END)

    write_receipts(tmp_path / "receipts.json", old.entry, ccdb.url, "versioned", receipts)
    written = read_json(tmp_path / "receipts.json")
    assert (written["path"], written["bundle"]) == (version.path, version.bundle)
    for one in written["objects"]:
        v = stored[one["path"]]
        assert (one["uuid"], one["created"], one["md5"], one["state"]) == (v.id, v.created, v.md5, "uploaded")
        assert one["sha256"] == hashlib.sha256(v.content).hexdigest()
    assert len(written["objects"]) == 9


@pytest.mark.parametrize("layout", ["versioned", "direct"])
def test_the_same_again_stores_nothing(ccdb: Ccdb, old: Published, layout: Layout) -> None:
    first = old.upload(Client(ccdb.url), layout)
    before = list(ccdb.versions)
    ccdb.reset()
    again = old.upload(Client(ccdb.url), layout)
    assert ccdb.count("POST") == 0 and ccdb.versions == before
    assert {receipt.state for receipt in again} == {"present"}
    assert [(one.path, one.uuid, one.sha256) for one in again] == [(one.path, one.uuid, one.sha256) for one in first]


def test_an_older_publication_can_come_back(ccdb: Ccdb, old: Published, new: Published) -> None:
    for which in (old, new):
        which.upload(Client(ccdb.url))
        assert read(ccdb) == which.content
    ccdb.reset()
    old.upload(Client(ccdb.url))
    assert ccdb.count("POST") == 1 and read(ccdb) == old.content


def test_other_metadata_or_validity_is_another_version(old: Published, tmp_path: Path) -> None:
    same = published(tmp_path, "old", provenance="other")
    assert same.content == old.content
    paths = {
        version_of(old.entry).path,
        version_of(same.entry).path,
        version_of(old.entry.model_copy(update={"valid_until": END + 1})).path,
    }
    assert len(paths) == 3
    assert version_of(same.entry).bundle == version_of(old.entry).bundle


def test_other_metadata_of_the_same_bytes_is_stored(ccdb: Ccdb, old: Published, tmp_path: Path) -> None:
    old.upload(Client(ccdb.url), "direct")
    ccdb.reset()
    published(tmp_path, "old", provenance="other").upload(Client(ccdb.url), "direct")
    assert ccdb.count("POST") == 8


def test_runs_do_not_disturb_each_other(ccdb: Ccdb, old: Published, new: Published) -> None:
    later = Published(
        new.entry.model_copy(update={"valid_from": END, "valid_until": END + 10}), new.registry, new.content
    )
    old.upload(Client(ccdb.url))
    later.upload(Client(ccdb.url))
    assert read(ccdb, END - 1) == old.content and read(ccdb, END) == new.content


def seen_by_readers(ccdb: Ccdb, old: Published, new: Published) -> str:
    content = read(ccdb)
    assert content in (old.content, new.content)
    return "old" if content == old.content else "new"


def test_a_reader_at_any_moment_of_an_upload(ccdb: Ccdb, old: Published, new: Published) -> None:
    old.upload(Client(ccdb.url))
    resolved_before = resolve(Client(ccdb.url), PATH, START)
    states: list[str] = []

    def look(_: int) -> None:
        states.append(seen_by_readers(ccdb, old, new))
        # one that resolved before the upload goes on with the older version
        assert fetch(Client(ccdb.url), resolved_before, START) == old.content

    new.upload(on_each_request(Client(ccdb.url), look, look))
    # new from the answer to the POST of `current` on: the third last request
    assert states == ["old"] * (2 * STEPS - 5) + ["new"] * 5


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_kill_at_every_step(
    ccdb: Ccdb, older: list[Version], old: Published, new: Published, step: int, after: bool
) -> None:
    ccdb.versions = list(older)

    def kill(number: int) -> None:
        if number == step:
            raise KeyboardInterrupt

    def go_on(_: int) -> None:
        pass

    killed = on_each_request(Client(ccdb.url), go_on if after else kill, kill if after else go_on)
    with pytest.raises(KeyboardInterrupt):
        new.upload(killed)
    done = step if after else step - 1
    assert seen_by_readers(ccdb, old, new) == ("new" if done >= STEPS - 2 else "old")
    new.upload(Client(ccdb.url))
    assert read(ccdb) == new.content
    assert len(ccdb.versions) == len(older) + 9


@pytest.mark.parametrize("fault", ["drop before", "drop after"])
@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_failure_at_every_step(
    ccdb: Ccdb, older: list[Version], old: Published, new: Published, step: int, fault: Fault
) -> None:
    ccdb.versions = list(older)
    ccdb.faults = {step: fault}
    with pytest.raises(PidflowError):
        new.upload(Client(ccdb.url, attempts=1))
    ccdb.reset()
    landed = step > STEPS - 2 or (step == STEPS - 2 and fault == "drop after")
    assert seen_by_readers(ccdb, old, new) == ("new" if landed else "old")
    new.upload(Client(ccdb.url))
    assert read(ccdb) == new.content
    assert len(ccdb.versions) == len(older) + 9


@pytest.mark.parametrize("step", range(1, STEPS - 4 + 1))
def test_direct_layout_may_mix_and_a_rerun_finishes(ccdb: Ccdb, old: Published, new: Published, step: int) -> None:
    old.upload(Client(ccdb.url), "direct")
    ccdb.reset()
    ccdb.faults = {step: "drop before"}
    with pytest.raises(PidflowError):
        new.upload(Client(ccdb.url, attempts=1), "direct")
    ccdb.reset()
    replaced = min(step // 2 if step % 2 else step // 2 - 1, 8)
    found = read_direct(ccdb, new.content)
    assert sum(found[name] == new.content[name] for name in found) == replaced
    # a mixture is known by this key, for whoever looks
    bundles = {one.fields[BUNDLE_KEY] for name in found if (one := Client(ccdb.url).head(f"{PATH}/{name}", START))}
    assert len(bundles) == (1 if replaced in (0, 8) else 2)
    new.upload(Client(ccdb.url), "direct")
    assert read_direct(ccdb, new.content) == new.content
    assert len(ccdb.versions) == 16


def test_direct_layout(ccdb: Ccdb, old: Published, tmp_path: Path) -> None:
    receipts = old.upload(Client(ccdb.url), "direct")
    assert {one.path for one in receipts} == {f"{PATH}/{name}" for name in old.content}
    assert {v.path for v in ccdb.versions} == {one.path for one in receipts}
    write_receipts(tmp_path / "r.json", old.entry, ccdb.url, "direct", receipts)
    assert read_json(tmp_path / "r.json")["path"] == PATH


@pytest.mark.parametrize("layout", ["versioned", "direct"])
def test_dry_run_stores_nothing(ccdb: Ccdb, old: Published, layout: Layout) -> None:
    receipts = old.upload(Client(ccdb.url), layout, dry_run=True)
    assert {seen.method for seen in ccdb.seen} == {"GET"} and ccdb.versions == []
    assert {(one.state, one.uuid) for one in receipts} == {("missing", None)}
    assert len(receipts) == (9 if layout == "versioned" else 8)
    old.upload(Client(ccdb.url), layout)
    assert {one.state for one in old.upload(Client(ccdb.url), layout, dry_run=True)} == {"present"}


class Spoiled(Client):
    """A client behind which the content of one object is spoiled on its way in."""

    target = ""

    def post(self, path: str, valid_from: int, valid_until: int, content: bytes, metadata: Any, file: str) -> None:
        spoiled = content + b"!" if path.endswith(self.target) else content
        super().post(path, valid_from, valid_until, spoiled, metadata, file)


@pytest.mark.parametrize("target", ["attention_model_0321", "columns_for_training", CURRENT])
def test_what_is_read_back_must_be_what_was_sent(ccdb: Ccdb, old: Published, new: Published, target: str) -> None:
    old.upload(Client(ccdb.url))
    client = Spoiled(ccdb.url)
    client.target = target
    with pytest.raises(PidflowError, match=rf"{target}: another object .* is read back at 1000 ms; upload again"):
        new.upload(client)
    if target != CURRENT:
        assert read(ccdb) == old.content
    new.upload(Client(ccdb.url))
    assert read(ccdb) == new.content


def test_read_back_sees_a_foreign_bundle(ccdb: Ccdb, old: Published) -> None:
    old.upload(Client(ccdb.url), "direct")
    name = "scaling_params"
    foreign = {**META, BUNDLE_KEY: "0" * 64}
    ccdb.store(f"{PATH}/{name}", START, END + 1, old.content[name], foreign)
    with pytest.raises(PidflowError, match="scaling_params: another object"):
        old.upload(Client(ccdb.url), "direct")


def test_an_overlapping_newer_version_is_said(ccdb: Ccdb, old: Published, new: Published) -> None:
    wide = Published(new.entry.model_copy(update={"valid_from": 0}), new.registry, new.content)
    old.upload(Client(ccdb.url))
    wide.upload(Client(ccdb.url))
    with pytest.raises(PidflowError, match="no other run's validity overlaps"):
        old.upload(Client(ccdb.url))
    assert read(ccdb) == new.content


def test_a_reader_refuses_what_is_damaged(ccdb: Ccdb, old: Published) -> None:
    client = Client(ccdb.url)
    old.upload(client)
    version = resolve(client, PATH, START)
    bad = ccdb.store(f"{version.path}/attention_model_211", START, END, b"other")
    with pytest.raises(PidflowError, match="attention_model_211: it is missing or damaged"):
        fetch(client, version, START)
    ccdb.versions.remove(bad)
    assert fetch(client, version, START) == old.content
    elsewhere = version.model_copy(update={"path": "Users/x/other/run5-0"}).model_dump_json().encode()
    changed = version.model_copy(update={"objects": {}}).model_dump_json().encode()
    for content in (b"{", b"{}", elsewhere, changed):
        ccdb.store(f"{PATH}/{CURRENT}", START, END, content)
        with pytest.raises(PidflowError, match=f"{CURRENT}: it is damaged"):
            resolve(client, PATH, START)


def test_nothing_is_sent_if_anything_is_barred(ccdb: Ccdb, old: Published) -> None:
    for change in (
        {"metadata": {**META, "id": "1"}},
        {"path": "/".join("abcdefghi")},
        {"metadata": {**META, "run": "a b"}},
    ):
        with pytest.raises(PidflowError):
            upload(old.entry.model_copy(update=change), old.registry, Client(ccdb.url))
    assert ccdb.seen == []


def test_a_damaged_registry_is_not_uploaded(ccdb: Ccdb, tmp_path: Path) -> None:
    mine = published(tmp_path, "mine")
    digest = mine.entry.objects["scaling_params"].sha256
    (mine.registry / "objects" / digest[:2] / digest).write_bytes(b"other")
    with pytest.raises(PidflowError, match="missing or damaged"):
        mine.upload(Client(ccdb.url))
    assert ccdb.seen == []
