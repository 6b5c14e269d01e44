"""The record of a job."""

from __future__ import annotations

import getpass
import json
import os
import platform
import resource
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pidflow import record
from pidflow.files import read_json, sha256, size
from pidflow.record import Clock, checksum, git_state, host, packages, plain, write_record


def cpu() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def write(folder: Path, outputs: list[Path], **changes: Any) -> dict[str, Any]:
    content: dict[str, Any] = {
        "rule": "make", "script": "make.py", "wildcards": {"run": "5"}, "inputs": ["in.txt"], "outputs": outputs,
        "params": {"code": "c0de", "path": Path("a/b"), "species": (211, -211)}, "threads": 1,
        "requested": {"mem_mb": 100}, "clock": Clock(),
    }  # fmt: skip
    write_record(folder / "record.json", **{**content, **changes})
    result: dict[str, Any] = read_json(folder / "record.json")
    return result


def test_record_of_a_file_and_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("abc")
    (tmp_path / "tree/deep").mkdir(parents=True)
    (tmp_path / "tree/deep/x").write_text("12")
    content = write(tmp_path, [tmp_path / "file", tmp_path / "tree"])
    file, tree = content["outputs"]
    assert file == {"path": str(tmp_path / "file"), "sha256": sha256(tmp_path / "file"), "bytes": 3}
    assert tree["bytes"] == 2
    assert content["params"] == {"code": "c0de", "path": "a/b", "species": [211, -211]}
    assert content["seed"] is None and content["code"] == "c0de"
    assert set(content["resources"]["used"]) == {"wall_s", "cpu_s", "peak_rss_mib"}
    assert 5 < content["resources"]["used"]["peak_rss_mib"] < 100_000
    assert content["started"] <= content["ended"] and content["ended"].endswith("+00:00")
    names = {socket.gethostname(), getpass.getuser()}
    assert not names & {str(value) for value in content["host"].values()}


def test_missing_output_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nothing"):
        write(tmp_path, [tmp_path / "nothing"])
    assert not (tmp_path / "record.json").exists()


def test_checksum_of_a_folder_sees_names_and_contents_but_nothing_hidden(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a").write_text("1")
    first = checksum(tmp_path)
    (tmp_path / ".snakemake_timestamp").write_text("x")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden/b").write_text("x")
    assert checksum(tmp_path) == first and size(tmp_path) == 1
    (tmp_path / "sub/a").rename(tmp_path / "sub/b")
    assert checksum(tmp_path) != first
    (tmp_path / "sub/b").rename(tmp_path / "sub/a")
    (tmp_path / "sub/a").write_text("2")
    assert checksum(tmp_path) != first


def test_plain_values() -> None:
    value = {1: (Path("a"), None, True, 0.5), "x": {"y": [1]}}
    assert plain(value) == {"1": ["a", None, True, 0.5], "x": {"y": [1]}}


def make_repository(folder: Path) -> str:
    (folder / "rules").mkdir()
    for name in ("Snakefile", "rules/a.smk", "README.md"):
        (folder / name).write_text("x")
    (folder / ".gitignore").write_text("*.pyc\n")
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "first"]):
        identity = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", str(folder), *identity, *command], check=True)
    head = subprocess.run(["git", "-C", str(folder), "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return head.stdout.strip()


def test_git_state_is_that_of_the_code(tmp_path: Path) -> None:
    commit = make_repository(tmp_path)
    clean = {"commit": commit, "dirty": False}
    assert git_state(tmp_path) == clean
    (tmp_path / "README.md").write_text("other")
    (tmp_path / "config").mkdir()
    (tmp_path / "config/mine.yaml").write_text("x")
    (tmp_path / "rules/a.pyc").write_text("ignored")
    assert git_state(tmp_path) == clean
    (tmp_path / "rules/new.smk").write_text("x")
    assert git_state(tmp_path) == {"commit": commit, "dirty": True}
    (tmp_path / "rules/new.smk").unlink()
    (tmp_path / "Snakefile").write_text("y")
    assert git_state(tmp_path)["dirty"] is True


def test_git_state_is_unknown_outside_or_in_a_foreign_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = {"commit": None, "dirty": None}
    (tmp_path / "outer").mkdir()
    make_repository(tmp_path / "outer")
    inner = tmp_path / "outer/unpacked"
    inner.mkdir()
    (inner / "Snakefile").write_text("x")
    assert git_state(inner) == unknown
    assert git_state(tmp_path) == unknown
    monkeypatch.setenv("PATH", "")
    assert git_state(tmp_path / "outer") == unknown


def test_packages_are_those_in_use() -> None:
    code = "import json, numpy, yaml, sklearn; from pidflow.record import packages; print(json.dumps(packages()))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert {"numpy", "pyyaml", "scikit-learn", "scipy"} <= set(found)
    assert not {"torch", "snakemake", "pidflow"} & set(found)
    import numpy as np

    assert found["numpy"] == np.__version__


@pytest.mark.parametrize(
    ("variable", "scheduler"), [("SLURM_JOB_ID", "slurm"), ("_CONDOR_SCRATCH_DIR", "htcondor"), ("OTHER", "local")]
)
def test_host_is_a_kind_of_machine(monkeypatch: pytest.MonkeyPatch, variable: str, scheduler: str) -> None:
    for name in ("SLURM_JOB_ID", "_CONDOR_SCRATCH_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "1")
    kind = host()
    assert kind["scheduler"] == scheduler
    assert set(kind) == {"cpu", "cores", "memory_gib", "system", "scheduler"}
    assert platform.node() not in json.dumps(kind)


def test_a_record_is_cheap(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("abc")
    packages()
    before = cpu()
    write(tmp_path, [tmp_path / "file"])
    assert cpu() - before < 0.15


def test_record_needs_the_standard_library_alone() -> None:
    code = "import sys; import pidflow.record, pidflow.jobs; from pidflow.record import packages; print(packages())"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True, text=True, check=True, env={"PYTHONPATH": str(record.ROOT / "workflow/scripts")},
    )  # fmt: skip
    assert done.stdout == "{}\n"
