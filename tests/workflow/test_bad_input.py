"""Bad input: one clear sentence, a non-zero exit, other runs' results left alone."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import uproot
from checkout import Checkout

from pidflow.files import read_json

TABLE = "config/runs.tsv"


def refused(checkout: Checkout, sentence: str) -> None:
    """Check that a dry run fails with the sentence."""
    done = checkout.snakemake("--dry-run")
    assert done.returncode != 0
    assert re.search(sentence, done.stdout), done.stdout
    assert "Traceback" not in done.stdout


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_unknown_key(checkout: Checkout) -> None:
    (checkout.folder / "small.yaml").write_text("models: {fse: {optimisation: {epoch: 3}}}\n")
    refused(checkout, r"key 'models\.fse\.optimisation\.epoch' is not a known key")


def test_duplicate_run(checkout: Checkout) -> None:
    edit(checkout.folder / TABLE, "\n900002\t", "\n900001\t")
    refused(checkout, r"config/runs\.tsv: run 900001 is listed twice; keep one row")


def test_run_without_simulation(checkout: Checkout) -> None:
    table = checkout.folder / TABLE
    header, *rows = table.read_text().splitlines()
    cells = dict(zip(header.split("\t"), rows[0].split("\t"), strict=True)) | {"simulation": ""}
    table.write_text("\n".join([header, "\t".join(cells.values()), *rows[1:]]) + "\n")
    refused(checkout, r"run 900001: the run has no simulation; give its anchored files")


def test_missing_file(checkout: Checkout) -> None:
    edit(checkout.folder / TABLE, "resources/example/900001/data_001.root", "nowhere/AO2D.root")
    refused(checkout, r"run 900001: data file nowhere/AO2D\.root does not exist; correct the path")


def results_of(folder: Path, run: int) -> dict[str, int]:
    """Return every file of a run, its registry entry included, with its time stamp."""
    files = [*folder.glob(f"results/{run}/**/*"), folder / f"registry/runs/{run}.json"]
    return {str(path): path.stat().st_mtime_ns for path in files if path.is_file()}


@pytest.mark.parametrize("defect", ["truncated", "no track trees"])
def test_a_bad_file_stops_its_run_and_no_other(production: Checkout, tmp_path: Path, defect: str) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(production.folder, folder, symlinks=True)
    copy = Checkout(folder)
    bad = folder / "resources/example/900002/data_001.root"
    if defect == "truncated":
        bad.write_bytes(bad.read_bytes()[: bad.stat().st_size // 2])
        sentence = r"error: resources/example/900002/data_001\.root: damaged or truncated file .*again"
    else:
        with uproot.recreate(bad) as file:
            file.mktree("DF_1/O2bc_001", {"fRunNumber": "int32"}).extend({"fRunNumber": [900002]})
        sentence = r"error: resources/example/900002/data_001\.root: none of its 1 data frames holds a table of tracks"
    before = results_of(folder, 900001)
    published = sorted((folder / "registry/entries").rglob("*.json"))
    done = copy.snakemake("--rerun-triggers", "mtime")
    assert done.returncode != 0
    assert re.search(sentence, done.stdout), done.stdout
    assert "Traceback" not in done.stdout
    assert results_of(folder, 900001) == before
    assert sorted((folder / "registry/entries").rglob("*.json")) == published
    assert list(folder.glob("results/900002/ingest/data/*")) == []


def test_bad_files_are_skipped_where_the_policy_says_so(production: Checkout, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(production.folder, folder, symlinks=True)
    copy = Checkout(folder)
    bad = folder / "resources/example/900002/data_001.root"
    bad.write_bytes(bad.read_bytes()[:1000])
    with open(folder / "small.yaml", "a") as stream:
        stream.write("ingest: {bad_files_of_run: {900002: {policy: skip, max_share: 0.5}}}\n")
    quality = "results/900002/dataset/data.quality.json"
    done = copy.snakemake("--", quality)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "skipped: resources/example/900002/data_001.root: damaged or truncated file" in done.stdout
    account = read_json(folder / quality)
    assert [entry["source"] for entry in account["skipped"]] == ["resources/example/900002/data_001.root"]
    assert [entry["source"] for entry in account["inputs"]] == ["resources/example/900002/data_002.root"]


def test_one_data_frame_in_two_files_stops_the_run(production: Checkout, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(production.folder, folder, symlinks=True)
    shutil.copy(folder / "resources/example/900002/data_001.root", folder / "again.root")
    edit(folder / TABLE, "resources/example/900002/data_002.root", "again.root")
    done = Checkout(folder).snakemake("--", "results/900002/ingest/data.json")
    assert done.returncode != 0
    assert re.search(r"error: resources/\S+: data frame DF_\d+ is the same as that in again\.root", done.stdout)


def test_a_large_file_is_read_by_several_jobs(production: Checkout, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(production.folder, folder, symlinks=True)
    copy = Checkout(folder)
    frames = []
    with uproot.recreate(folder / "large.root", compression=None) as target:
        for number in (1, 2):
            with uproot.open(folder / f"resources/example/900002/data_00{number}.root") as source:
                for frame in source.keys(recursive=False, cycle=False):
                    frames.append(int(frame[3:]))
                    for name, tree in source[frame].items(cycle=False):
                        arrays = tree.arrays(library="np")
                        target.mktree(f"{frame}/{name}", {k: v.dtype for k, v in arrays.items()}).extend(arrays)
    assert 1e6 < (folder / "large.root").stat().st_size < 2e6
    edit(folder / TABLE, "resources/example/900002/data_002.root", "")
    edit(folder / TABLE, "resources/example/900002/data_001.root;", "large.root")
    with open(folder / "small.yaml", "a") as stream:
        stream.write("ingest: {batch_mb: 1}\n")
    done = copy.snakemake("--", "results/900002/ingest/data.json")
    assert done.returncode == 0, done.stdout[-3000:]
    tables = sorted(folder.glob("results/900002/ingest/data/large-*.?of2/large-*.tracks.parquet"))
    held = [set(pq.read_table(path, columns=["data_frame"])["data_frame"].to_pylist()) for path in tables]
    assert [len(own) for own in held] == [2, 2] and len(frames) == 4
    assert set.union(*held) == set(frames)
