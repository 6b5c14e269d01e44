"""Reproduction: raw files, code, configuration and paths of a publication; the comparison."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pidflow.config import Config, load_runs, validate
from pidflow.config.published import published_config
from pidflow.config.runs import Run
from pidflow.errors import PidflowError
from pidflow.files import sha256, write_text
from pidflow.publish import reproduce as module
from pidflow.publish.registry import Blob, Entry
from pidflow.record import ROOT

RUN = {
    "run": 5, "period": "a", "pass": "b", "system": "pp", "year": 2022, "bz": -5.0, "data": [],
    "simulation": ["../raw/s.root", "here/t.root", "root://host//u.root", "resources/example/5/v.root"],
    "valid_from": 1, "valid_until": 2,
}  # fmt: skip


def make_record(**changes: Any) -> dict[str, Any]:
    config = published_config(Config(), Run.model_validate(RUN))
    surroundings = {
        "git": {"commit": None, "dirty": None}, "results": "results", "batch_mb": 7, "packages": {"torch": "2"},
        "steps": [{"rule": "make", "script": "make.py", "code": "c0de", "outputs": [
            {"path": "results/5/x", "sha256": "ab"}]}],
    }  # fmt: skip
    content = {"run": RUN, "inputs": [], "config": config, "packages": {}, "surroundings": surroundings}
    return {**content, **changes}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with raw files in it and beside it."""
    (tmp_path / "raw").mkdir()
    (tmp_path / "work/here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    for name in ("../raw/s.root", "here/t.root", "here/Kinematics.root"):
        Path(name).write_text(name)
    return tmp_path / "work"


def test_local_files_are_those_that_nobody_generates() -> None:
    assert module.local_files(make_record()) == ["../raw/s.root", "here/t.root"]


def test_changed_and_absent_raw_files_are_named(place: Path) -> None:
    def inputs(**sums: str) -> dict[str, Any]:
        return make_record(inputs=[{"name": "here/t.root", "sample": "simulation", "sha256": s} for s in sums.values()])

    module.check_raw_files(inputs(good=sha256("here/t.root")))
    with pytest.raises(PidflowError, match=r"^here/t\.root: the raw file has changed since publication"):
        module.check_raw_files(inputs(bad="0" * 64))
    Path("here/t.root").unlink()
    with pytest.raises(PidflowError, match=r"^here/t\.root: the raw file is gone"):
        module.check_raw_files(inputs(bad="0" * 64))


def test_paths_lead_to_the_same_files_from_the_clean_folder(place: Path, tmp_path: Path) -> None:
    record = make_record()
    assert module.depth(module.local_files(record)) == 1
    assert module.depth(["a/../../b", "../../c"]) == 2
    assert module.depth([]) == 0
    clean = tmp_path / "clean/nested/checkout"
    clean.mkdir(parents=True)
    module.link_raw_files(record, clean)
    for name in ("../raw/s.root", "here/t.root", "here/Kinematics.root"):
        assert (clean / name).read_text() == name
    assert not (clean / "../raw").resolve().is_relative_to(tmp_path / "raw")


def test_table_names_every_file_as_it_was(place: Path) -> None:
    local = {**RUN, "simulation": ["../raw/s.root", "here/t.root"]}
    write_text("runs.tsv", module.table(local))
    assert load_runs("runs.tsv", "resources/example")[5].model_dump(mode="json", by_alias=True) == local


def test_configuration_is_valid_and_gives_itself_again() -> None:
    record = make_record()
    config = validate(yaml.safe_load(yaml.safe_dump(module.configuration(record))), "test")
    assert config.closure.truth is None and config.ingest.batch_mb == 7
    assert published_config(config, Run.model_validate(RUN)) == record["config"]


def test_a_run_must_be_published(tmp_path: Path) -> None:
    with pytest.raises(PidflowError, match=r"^run 7 is not published in .*registry; publish it, or correct"):
        module.reproduce(7, tmp_path / "registry", tmp_path / "7.json", tmp_path / "7", cores=1)


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A workflow of one script, committed."""
    root = tmp_path / "root"
    scripts = root / "workflow/scripts"
    (scripts / "pidflow").mkdir(parents=True)
    for name in ("__init__.py", "digest.py"):
        shutil.copy(ROOT / "workflow/scripts/pidflow" / name, scripts / "pidflow")
    (scripts / "make.py").write_text("import pidflow.digest\n")
    (root / "Snakefile").write_text("")
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "first")
    return root


def test_code_is_that_of_the_commit_or_the_same_one_of_today(checkout: Path, tmp_path: Path) -> None:
    script = checkout / "workflow/scripts/make.py"
    record = make_record()
    code = module._digests(checkout, ["make.py", "absent.py"])
    assert set(code) == {"make.py"}
    record["surroundings"]["steps"][0]["code"] = code["make.py"]
    commit = git(checkout, "rev-parse", "HEAD")
    assert module.place_code(record, tmp_path / "a", checkout) == "the current checkout"
    assert (tmp_path / "a/workflow/scripts/make.py").read_text() == script.read_text()
    script.write_text("import pidflow\n")
    with pytest.raises(PidflowError, match=r"^run 5: the code of make that made the publication is neither in commit"):
        module.place_code(record, tmp_path / "b", checkout)
    record["surroundings"]["git"] = {"commit": commit, "dirty": False}
    assert module.place_code(record, tmp_path / "c", checkout) == f"commit {commit}"
    assert "digest" in (tmp_path / "c/workflow/scripts/make.py").read_text()
    # a commit that does not hold the code that ran, or is gone
    for git_state in ({"commit": commit, "dirty": True}, {"commit": "0" * 40, "dirty": False}):
        record["surroundings"]["git"] = git_state
        with pytest.raises(PidflowError, match="the code of make"):
            module.place_code(record, tmp_path / "d", checkout)
    record["surroundings"]["git"] = {"commit": commit, "dirty": False}
    record["surroundings"]["steps"][0]["code"] = module._digests(checkout, ["make.py"])["make.py"]
    assert module.place_code(record, tmp_path / "e", checkout) == "the current checkout"


def test_comparison_names_the_first_difference(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_text("model")
    blob = Blob(file="m.onnx", sha256=sha256(tmp_path / "m.onnx"), size=5)
    entry = Entry(
        path="p", valid_from=1, valid_until=2, created=3, metadata={}, objects={"m": blob},
        documents={"card.md": Blob(file="card.md", sha256="0" * 64, size=1)}, new=False,
    )  # fmt: skip
    record = make_record()
    moved = make_record()
    moved["surroundings"] = {**moved["surroundings"], "results": "/else", "packages": {"torch": "3"}}
    moved["surroundings"]["steps"] = [
        {"rule": "make", "script": "make.py", "code": "c0de", "outputs": [{"path": "/else/5/x", "sha256": "ab"}]}
    ]
    verdict = module.compare(record, moved, entry, tmp_path)
    assert verdict["verdict"] == "identical" and verdict["first"] is None
    assert verdict["versions"] == {"torch": {"published": "2", "reproduced": "3"}}
    assert verdict["documents"] == ["card.md"] and len(verdict["files"]) == 2
    moved["surroundings"]["steps"][0]["outputs"][0]["sha256"] = "cd"
    verdict = module.compare(record, moved, entry, tmp_path)
    assert (verdict["verdict"], verdict["first"]) == ("different", "5/x (make)")
    (tmp_path / "m.onnx").write_text("other")
    assert module.compare(record, record, entry, tmp_path)["first"] == "m.onnx (publish_model)"
    raw = make_record(inputs=[{"name": "s.root", "sample": "simulation", "sha256": "12"}])
    assert module.compare(raw, record, entry, tmp_path)["first"] == "s.root (raw file)"
    record["surroundings"]["steps"].append({"outputs": [{"path": "results/5/y"}], "record": None})
    assert module.compare(record, record, entry, tmp_path)["not_compared"] == ["results/5/y"]
