"""A published model made again: same raw files, configuration and code, in a clean folder; then compared."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pidflow.errors import PidflowError
from pidflow.files import read_json, sha256, write_json, write_text
from pidflow.publish.registry import Entry, latest, read_document
from pidflow.record import CODE, ROOT

CONFIGURATION = "config/config.yaml"
_TABLE = "config/reproduced.tsv"
_COPIED = (*CODE, "profiles", "slurm", "config")
_COMPANIONS = ("Kinematics.root",)  # what readers look for beside a file
_SHOWN = ("Run ", "Job ", "error:", "Error", "WorkflowError", "PidflowError")


def reproduce(
    run: int,
    registry: str | Path,
    output: str | Path,
    work: str | Path,
    *,
    cores: int,
    root: Path = ROOT,
    options: Sequence[str] = (),
) -> dict[str, Any]:
    """Make the published model of a run again and compare every file of every step.

    Parameters
    ----------
    run
        Run number.
    registry
        Registry that holds the publication; only read.
    output
        JSON to write: the verdict, what differs, a table of files.
    work
        Folder to work in; removed if the files are identical, and kept if not.
    cores
        Cores that the workflow engine may use.
    root
        Folder of the code that runs now.
    options
        Further options of the workflow engine.

    Returns
    -------
    dict
        Content of `output`: ``verdict`` is ``identical`` or ``different``.

    Raises
    ------
    PidflowError
        If the run is not published, a raw file or the code has changed, or the production fails.
    """
    entry, record = _published(run, registry)
    check_raw_files(record)
    base = Path(work).absolute()
    shutil.rmtree(base, ignore_errors=True)
    folder = base.joinpath(*(["nested"] * depth(local_files(record))), "checkout")
    try:
        source = place_code(record, folder, root)
    except PidflowError:
        shutil.rmtree(base, ignore_errors=True)
        raise
    print(f"run {run}: code from {source}", flush=True)
    link_raw_files(record, folder)
    write_text(folder / CONFIGURATION, yaml.safe_dump(configuration(record), sort_keys=False, allow_unicode=True))
    write_text(folder / _TABLE, table(record["run"]))
    publication = f"results/{run}/publication"
    _produce(folder, publication, cores, options)
    verdict = {
        "run": run,
        "code": source,
        **compare(record, read_json(folder / publication / "provenance.json"), entry, folder / publication),
    }
    write_json(output, verdict)
    _show(verdict)
    if verdict["verdict"] == "identical":
        shutil.rmtree(base)
    else:
        raise PidflowError(
            f"run {run}: {verdict['first']} differs from the published one; compare with what {folder} holds "
            f"and see {output}"
        )
    return verdict


def _published(run: int, registry: str | Path) -> tuple[Entry, dict[str, Any]]:
    entry = latest(registry, run)
    if entry is None:
        raise PidflowError(f"run {run} is not published in {registry}; publish it, or correct the run number")
    record: dict[str, Any] = json.loads(read_document(registry, entry, "provenance.json"))
    if "surroundings" not in record:
        raise PidflowError(f"run {run}: its publication in {registry} names no steps; publish it again")
    return entry, record


def _remote(uri: str) -> bool:
    return "://" in uri


def local_files(record: Mapping[str, Any]) -> list[str]:
    """Return the local raw files of a publication that the workflow does not generate itself."""
    generated = str(record["config"].get("example", {}).get("folder", "")).rstrip("/") + "/"
    files = (*record["run"]["data"], *record["run"]["simulation"])
    return [file for file in files if not _remote(file) and (generated == "/" or not file.startswith(generated))]


def check_raw_files(record: Mapping[str, Any]) -> None:
    """Check that the local raw files are those of the publication.

    Raises
    ------
    PidflowError
        Naming the first file that is gone or has other content.
    """
    local = set(local_files(record))
    for item in record["inputs"]:
        if item["name"] not in local:
            continue
        if not Path(item["name"]).is_file():
            raise PidflowError(f"{item['name']}: the raw file is gone; bring back that with SHA-256 {item['sha256']}")
        if sha256(item["name"]) != item["sha256"]:
            raise PidflowError(
                f"{item['name']}: the raw file has changed since publication; bring back the one with SHA-256 "
                f"{item['sha256']}"
            )


def depth(files: Iterable[str]) -> int:
    """Return how many folders above the working folder relative paths lead."""
    return max((Path(os.path.normpath(file)).parts.count("..") for file in files), default=0)


def link_raw_files(record: Mapping[str, Any], folder: Path) -> None:
    """Let relative paths lead to the same files from another working folder: they enter identifiers as written."""
    for file in local_files(record):
        path = Path(file)
        if path.is_absolute():
            continue
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        for original in (path, *(path.with_name(name) for name in _COMPANIONS)):
            if original.exists():
                link = folder / original
                link.unlink(missing_ok=True)
                link.symlink_to(original.absolute())


def _digests(folder: Path, scripts: Iterable[str]) -> dict[str, str]:
    """Return the digests of scripts in a copy of the workflow, as its own code computes them."""
    code = (
        "import json, sys; from pidflow.digest import digest; print(json.dumps({s: digest(s) for s in sys.argv[1:]}))"
    )
    place = folder / "workflow/scripts"
    present = sorted(script for script in set(scripts) if (place / script.split()[0]).is_file())
    done = subprocess.run(
        [sys.executable, "-c", code, *present],
        env={**os.environ, "PYTHONPATH": str(place)},
        capture_output=True,
        text=True,
        check=False,
    )
    digests: dict[str, str] = {} if done.returncode else json.loads(done.stdout)
    return digests


def changed_step(record: Mapping[str, Any], folder: Path) -> str | None:
    """Return the first step whose code in a copy of the workflow is not the one that ran, or None."""
    steps = [step for step in record["surroundings"]["steps"] if "script" in step]
    digests = _digests(folder, (step["script"] for step in steps))
    return next((step["rule"] for step in steps if digests.get(step["script"]) != step["code"]), None)


def place_code(record: Mapping[str, Any], folder: Path, root: Path) -> str:
    """Put the code that made a publication into a folder: that of its commit, or else that of today if it is the same.

    Returns
    -------
    str
        Where the code is from.

    Raises
    ------
    PidflowError
        Naming the first step whose code is not to be had.
    """
    git = record["surroundings"]["git"]
    if git["commit"] and git["dirty"] is False and _archive(root, git["commit"], folder):
        if changed_step(record, folder) is None:
            return f"commit {git['commit']}"
        shutil.rmtree(folder)
    if step := changed_step(record, root):
        raise PidflowError(
            f"run {record['run']['run']}: the code of {step} that made the publication is neither in commit "
            f"{git['commit'] or '(unknown)'} nor in {root}; bring back that code"
        )
    folder.mkdir(parents=True)
    for name in _COPIED:
        source = root / name
        if source.is_symlink():
            (folder / name).symlink_to(source.readlink())
        elif source.is_dir():
            shutil.copytree(source, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.is_file():
            shutil.copy2(source, folder / name)
    return "the current checkout"


def _archive(root: Path, commit: str, folder: Path) -> bool:
    command = ["git", "-C", str(root), "archive", "--format=tar", commit]
    try:
        done = subprocess.run(command, capture_output=True, check=True)
    except (OSError, subprocess.SubprocessError):
        return False
    folder.mkdir(parents=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return True


def configuration(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration that makes a publication again, and nothing beside it."""
    content: dict[str, Any] = json.loads(json.dumps(record["config"]))
    content |= {"runs": _TABLE, "closure": {"truth": None}}
    content["ingest"]["batch_mb"] = record["surroundings"]["batch_mb"]
    return content


def table(run: Mapping[str, Any]) -> str:
    """Return a run table with one row, every file named as in the publication."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(run), delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerow({**run, "data": ";".join(run["data"]), "simulation": ";".join(run["simulation"])})
    return text.getvalue()


def _produce(folder: Path, target: str, cores: int, options: Sequence[str]) -> None:
    command = [sys.executable, "-m", "snakemake", "--cores", str(cores), *options, target]
    # a profile that the caller named there is not the reproduction's
    environment = {key: value for key, value in os.environ.items() if key != "SNAKEMAKE_PROFILE"}
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            shown = line.lstrip().startswith(_SHOWN)
            print(line, end="", flush=True, file=sys.stdout if shown else sys.stderr)
    if process.returncode:
        raise PidflowError(f"{target}: it could not be made again; its log and what there is lie in {folder}")


def _outputs(record: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return rule and SHA-256 of every recorded output, by its path with the results' folder taken off."""
    results = record["surroundings"]["results"].rstrip("/") + "/"
    return {
        output["path"].removeprefix(results): (step["rule"], output["sha256"])
        for step in record["surroundings"]["steps"]
        if "rule" in step
        for output in step["outputs"]
    }


def compare(published: Mapping[str, Any], again: Mapping[str, Any], entry: Entry, publication: Path) -> dict[str, Any]:
    """Compare what two productions of the same model made.

    Parameters
    ----------
    published, again
        Provenance of the publication and of the reproduction.
    entry
        The registry's entry of the publication.
    publication
        Folder of the reproduced publication.

    Returns
    -------
    dict
        ``verdict``; ``first``, the first difference; ``files``, a row per file of each step and per object;
        ``not_compared``, files without a record; ``versions``, packages that differ; ``documents`` that differ.
    """
    before, after = _outputs(published), _outputs(again)
    files = [
        {"rule": rule, "file": path, "published": digest, "reproduced": after.get(path, ("", None))[1]}
        for path, (rule, digest) in before.items()
    ]
    raw = {item["name"]: item["sha256"] for item in again["inputs"]}
    files = [
        {"rule": "raw file", "file": item["name"], "published": item["sha256"], "reproduced": raw.get(item["name"])}
        for item in published["inputs"]
    ] + files
    blobs = {**entry.objects, **entry.documents}
    made = {blob.file: _sum(publication / blob.file) for blob in blobs.values()}
    files += [
        {"rule": "publish_model", "file": blob.file, "published": blob.sha256, "reproduced": made[blob.file]}
        for blob in entry.objects.values()
    ]
    different = [row for row in files if row["published"] != row["reproduced"]]
    old, new = published["surroundings"]["packages"], again["surroundings"]["packages"]
    old = {name: " and ".join(found) for name, found in published["packages"].items()} | old
    new = {name: " and ".join(found) for name, found in again["packages"].items()} | new
    return {
        "verdict": "different" if different else "identical",
        "first": f"{different[0]['file']} ({different[0]['rule']})" if different else None,
        "versions": {
            name: {"published": old.get(name), "reproduced": new.get(name)}
            for name in sorted({*old, *new})
            if old.get(name) != new.get(name)
        },
        "documents": [blob.file for blob in entry.documents.values() if made[blob.file] != blob.sha256],
        "not_compared": [
            output["path"]
            for step in published["surroundings"]["steps"]
            if "rule" not in step
            for output in step["outputs"]
        ],
        "files": files,
    }


def _sum(path: Path) -> str | None:
    return sha256(path) if path.is_file() else None


def _show(verdict: Mapping[str, Any]) -> None:
    total = Counter(row["rule"] for row in verdict["files"])
    same = Counter(row["rule"] for row in verdict["files"] if row["published"] == row["reproduced"])
    width = max(map(len, total), default=0)
    print(f"{'step':<{width}}  files  identical", flush=True)
    for rule, count in total.items():
        print(f"{rule:<{width}}  {count:>5}  {same[rule]:>9}", flush=True)
    for name, found in verdict["versions"].items():
        print(f"version of {name}: {found['published']} then, {found['reproduced']} now", flush=True)
    print(f"run {verdict['run']}: {verdict['verdict']}", flush=True)
