"""The local registry."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pidflow.errors import PidflowError
from pidflow.files import sha256, write_json
from pidflow.publish import registry
from pidflow.publish.registry import fetch, history, lookup, publish, read_document, retrieve

PATH = "Users/p/pidflow/PIDML"
META = {"run": "5", "period": "LHC23x"}
LOADED = ("attention_model_211.onnx", "attention_model_0211.onnx", "columns_for_training.json", "scaling_params.json")


def make_bundle(folder: Path, text: str = "a", names: tuple[str, ...] = LOADED) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text(f"{name} {text}")
    (folder / "card.md").write_text("# card")
    write_json(folder / "gate.json", {"files": {name: sha256(folder / name) for name in names}})
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "bundle")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "registry"


def put(store: Path, bundle: Path, start: int = 100, end: int = 200, **more: object) -> registry.Entry:
    settings = {"metadata": META, **more}
    return publish(store, PATH, bundle, valid_from=start, valid_until=end, **settings)  # type: ignore[arg-type]


def test_publication_and_retrieval(store: Path, bundle: Path, tmp_path: Path) -> None:
    entry = put(store, bundle, created=7)
    assert entry.new and entry.created == 7
    assert set(entry.objects) == {
        "attention_model_211",
        "attention_model_0211",
        "columns_for_training",
        "scaling_params",
    }
    assert set(entry.documents) == {"card.md", "gate.json"}
    assert lookup(store, PATH, 100) == entry.model_copy(update={"new": False})
    assert fetch(store, PATH, 150, tmp_path / "out").created == 7
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(LOADED)
    fetch(store, PATH, 150, tmp_path / "all", documents=True)
    assert (tmp_path / "all" / "card.md").read_text() == "# card"
    retrieve(store, f"{PATH}/attention_model_0211", 199, tmp_path / "one" / "local.onnx")
    assert (tmp_path / "one" / "local.onnx").read_text() == "attention_model_0211.onnx a"


def test_validity_excludes_its_end(store: Path, bundle: Path, tmp_path: Path) -> None:
    put(store, bundle)
    assert lookup(store, PATH, 99) is None and lookup(store, PATH, 200) is None
    assert lookup(store, "Users/p/other", 150) is None
    with pytest.raises(PidflowError, match="nothing is published for time 200"):
        fetch(store, PATH, 200, tmp_path / "out")
    with pytest.raises(PidflowError, match="nothing is published"):
        retrieve(store, f"{PATH}/attention_model_321", 150, tmp_path / "out")


def test_the_newest_creation_wins_and_an_older_bundle_can_come_back(store: Path, bundle: Path, tmp_path: Path) -> None:
    first = put(store, bundle)
    other = put(store, make_bundle(tmp_path / "other", "b"), 50, 300)
    assert other.created > first.created
    winner = lookup(store, PATH, 150)
    assert winner is not None and winner.objects == other.objects
    second = put(store, make_bundle(tmp_path / "second", "c"))
    back = put(store, bundle)
    assert back.new and back.created > second.created and back.objects == first.objects
    assert len(history(store, PATH)) == 4


def test_created_decides_and_not_the_order_of_publication(store: Path, bundle: Path, tmp_path: Path) -> None:
    late = put(store, bundle, created=2000)
    put(store, make_bundle(tmp_path / "other", "b"), created=1000)
    winner = lookup(store, PATH, 150)
    assert winner is not None and winner.created == late.created


def test_same_publication_creates_nothing(store: Path, bundle: Path) -> None:
    put(store, bundle, created=1)
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*")}
    again = put(store, bundle)
    assert not again.new and again.created == 1
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*")} == before
    assert put(store, bundle, metadata={**META, "run": "6"}).new
    assert put(store, bundle, 200, 300).new
    assert len([path for path in (store / "objects").rglob("*") if path.is_file()]) == 6


def test_other_documents_alone_are_no_new_publication(store: Path, bundle: Path) -> None:
    first = put(store, bundle)
    (bundle / "card.md").write_text("# made on another day")
    again = put(store, bundle)
    assert not again.new and again.created == first.created
    assert len(history(store, PATH)) == 1


def test_the_latest_publication_of_a_run(store: Path, bundle: Path) -> None:
    assert registry.latest(store, 5) is None
    put(store, bundle, created=1)
    newest = put(store, bundle, 200, 300, created=3)
    put(store, bundle, 300, 400, created=2)
    put(store, bundle, 400, 500, created=9, metadata={"run": "6"})
    found = registry.latest(store, 5)
    assert found is not None and found.created == newest.created == 3


def test_documents_are_read_and_checked(store: Path, bundle: Path) -> None:
    entry = put(store, bundle)
    assert read_document(store, entry, "card.md") == b"# card"
    with pytest.raises(PidflowError, match=r"no nothing\.md"):
        read_document(store, entry, "nothing.md")
    digest = entry.documents["card.md"].sha256
    (store / "objects" / digest[:2] / digest).write_text("rot")
    with pytest.raises(PidflowError, match="missing or damaged"):
        read_document(store, entry, "card.md")


def test_a_failed_publication_shows_nothing(store: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, calls = registry._place, []

    def fail_on_the_fourth(content: bytes, final: Path) -> None:
        calls.append(final)
        if len(calls) == 4:
            raise OSError("disk full")
        place(content, final)

    monkeypatch.setattr(registry, "_place", fail_on_the_fourth)
    with pytest.raises(OSError, match="disk full"):
        put(store, bundle)
    assert lookup(store, PATH, 150) is None
    monkeypatch.undo()
    assert put(store, bundle).new


def test_several_publishers(store: Path, tmp_path: Path) -> None:
    bundles = [make_bundle(tmp_path / str(index), str(index % 3)) for index in range(12)]
    with ThreadPoolExecutor(6) as pool:
        entries = list(pool.map(lambda item: put(store, item[1], 100 + item[0]), enumerate(bundles)))
    assert len(history(store, PATH)) == len(entries) == 12
    assert not list(store.rglob(".*"))
    fetch(store, PATH, 150, tmp_path / "out")


@pytest.mark.parametrize("path", ["", "a//b", "/a", "a/12/b", "../a", "a/..", "a/b\n", ".a", "a b", "/".join("a" * 10)])
def test_bad_paths(store: Path, bundle: Path, path: str) -> None:
    with pytest.raises(PidflowError, match="registry path"):
        publish(store, path, bundle, valid_from=1, valid_until=2, metadata={})


@pytest.mark.parametrize("metadata", [{"a.b": "1"}, {"a": "x/y"}, {"a": ""}, {"": "x"}])
def test_bad_metadata(store: Path, bundle: Path, metadata: dict[str, str]) -> None:
    with pytest.raises(PidflowError, match="metadata"):
        put(store, bundle, metadata=metadata)


def test_bad_bundles(store: Path, bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(PidflowError, match="is empty; correct the run table"):
        put(store, bundle, 5, 5)
    with pytest.raises(PidflowError, match="no whole bundle"):
        put(store, tmp_path / "nowhere")
    (bundle / "odd name").write_text("x")
    with pytest.raises(PidflowError, match="not fit for publication"):
        put(store, bundle)
    (bundle / "odd name").unlink()
    (bundle / LOADED[0]).write_text("changed")
    with pytest.raises(PidflowError, match="not the file that passed the gate"):
        put(store, bundle)
    (bundle / "gate.json").unlink()
    with pytest.raises(PidflowError, match="pass the gate"):
        put(store, bundle)
    assert not store.exists()


def test_species_of_an_older_bundle_do_not_shine_through(store: Path, bundle: Path, tmp_path: Path) -> None:
    put(store, bundle)
    fewer = make_bundle(tmp_path / "fewer", "b", tuple(name for name in LOADED if "_0211" not in name))
    with pytest.raises(PidflowError, match="attention_model_0211 of an older publication"):
        put(store, fewer)
    assert put(store, fewer, 200, 300).new


def test_damage_is_named_and_mended(store: Path, bundle: Path, tmp_path: Path) -> None:
    entry = put(store, bundle)
    digest = entry.objects["attention_model_211"].sha256
    damaged = store / "objects" / digest[:2] / digest
    damaged.write_text("rot")
    with pytest.raises(PidflowError, match=digest):
        fetch(store, PATH, 150, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    put(store, bundle, 200, 300)
    fetch(store, PATH, 150, tmp_path / "out")
    file = next((store / "entries").rglob("*.json"))
    for text in ("{", file.read_text().replace("attention_model_211.onnx", "../escape")):
        file.write_text(text)
        with pytest.raises(PidflowError, match="the entry is damaged"):
            lookup(store, PATH, 150)


def test_hidden_files_are_not_published(store: Path, bundle: Path) -> None:
    (bundle / ".snakemake_timestamp").write_text("")
    entry = put(store, bundle)
    assert not any(name.startswith(".") for name in (*entry.objects, *entry.documents))
