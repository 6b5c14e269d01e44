"""Records of jobs, provenance of publications, reproduction and the RO-Crate of a finished production."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from checkout import Checkout

from pidflow.files import read_json, sha256, size
from pidflow.publish.registry import history
from pidflow.record import checksum

RUNS = (900001, 900002)
REGISTRY_PATH = "Users/p/pidflow/PIDML"
KEYS = {
    *("rule", "script", "wildcards", "inputs", "outputs", "params", "code", "seed", "threads", "git", "python"),
    *("packages", "host", "resources", "started", "ended"),
}


def records(checkout: Checkout) -> dict[Path, dict[str, Any]]:
    folder = checkout.folder / "results"
    # the engine leaves an empty file where a job failed
    found = (path for path in sorted(folder.rglob("provenance/**/*.json")) if path.stat().st_size)
    return {path: read_json(path) for path in found}


def provenance(checkout: Checkout, run: int) -> dict[str, Any]:
    content: dict[str, Any] = read_json(checkout.folder / f"results/{run}/publication/provenance.json")
    return content


def files_of(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()}


def test_every_job_left_a_whole_record(production: Checkout) -> None:
    found = records(production)
    logs = [path for path in (production.folder / "logs").rglob("*.log") if path.parent.name != "reproduce"]
    assert {record["rule"] for record in found.values()} > {
        "ingest_files",
        "train_model",
        "publish_model",
        "write_report",
    }
    assert len(found) >= len(logs) > 30
    for path, record in found.items():
        assert set(record) == KEYS, path
        assert record["code"] == record["params"]["code"], path
        assert record["packages"].get("snakemake"), path
        assert record["resources"]["used"]["cpu_s"] > 0, path
        for output in record["outputs"]:
            file = production.folder / output["path"]
            assert (checksum(file), size(file)) == (output["sha256"], output["bytes"]), path
    text = json.dumps([{**record, "inputs": [], "outputs": []} for record in found.values()])
    assert str(Path.home()) not in text or str(Path.home()) == "/"
    trained = next(record for record in found.values() if record["wildcards"].get("model") == "fse")
    assert "torch" in trained["packages"] and trained["seed"] == 20240917


@pytest.mark.parametrize("run", RUNS)
def test_provenance_leads_from_the_publication_to_the_raw_files(production: Checkout, run: int) -> None:
    record = provenance(production, run)
    steps = record["surroundings"]["steps"]
    assert all("rule" in step for step in steps)
    made_by = {"simulate_data", "ingest_files", "select_features", "train_model", "select_model", "export_model"}
    # all candidates are looked at to choose one
    assert made_by | {"adapt_sample", "train_adapted", "adapt_model"} <= set(record["code"])
    assert not {"plot_closure", "plot_adaptation", "train_oracle", "attach_truth", "compare_methods"} & set(
        record["code"]
    )
    made = {output["path"]: output["sha256"] for step in steps for output in step["outputs"]}
    for item in record["inputs"]:
        assert made[item["name"]] == item["sha256"] == sha256(production.folder / item["name"])
    assert set(record["config"]["models"]) == {"nsigma", "bayes", "gbdt", "mlp_mean", "fse", "blend"}
    assert "pathvars" not in record["config"] and "snakemake" not in record["packages"]


def test_card_and_registry_say_whether_the_code_is_committed(production: Checkout) -> None:
    for run in RUNS:
        card = (production.folder / f"results/{run}/publication/card.md").read_text()
        entry = read_json(production.folder / f"registry/runs/{run}.json")
        state = provenance(production, run)["surroundings"]["code"]
        assert entry["metadata"]["code"] == state
        assert ("**Warning: code" in card) == (state != "committed")


def test_code_that_is_not_committed_can_be_refused(production: Checkout) -> None:
    if provenance(production, RUNS[0])["surroundings"]["code"] == "committed":
        pytest.skip("the production's code is committed")
    before = files_of(production.folder / "registry")
    plan = production.planned("--config", "publish={uncommitted: refuse}")
    assert "publish_model" in plan.rules and not {"train_model", "export_model"} & plan.rules
    assert files_of(production.folder / "registry") == before


def test_the_same_model_is_not_published_twice(production: Checkout) -> None:
    store = production.folder / "registry"
    before = files_of(store / "entries"), files_of(store / "objects")
    done = production.snakemake("--forcerun", "publish_model", "--until", "publish_model")
    assert done.returncode == 0, done.stdout[-3000:]
    assert done.stdout.count("already published") == 2
    assert (files_of(store / "entries"), files_of(store / "objects")) == before
    assert len(history(store, REGISTRY_PATH)) == 2
    # what follows the publication
    assert production.snakemake().returncode == 0


@pytest.mark.parametrize("run", RUNS)
def test_a_published_model_is_made_again_with_the_same_bytes(production: Checkout, run: int) -> None:
    before = files_of(production.folder / "registry")
    done = production.snakemake("--config", f"run={run}", "--", "reproduce")
    assert done.returncode == 0, done.stdout[-5000:]
    verdict = read_json(production.folder / f"results/reproduce/{run}.json")
    assert verdict["verdict"] == "identical" and not verdict["versions"] and not verdict["not_compared"]
    rules = {row["rule"] for row in verdict["files"]}
    assert {"raw file", "simulate_data", "ingest_files", "train_model", "select_model", "publish_model"} <= rules
    assert {"adapt_sample", "train_adapted", "adapt_model"} <= rules
    assert all(row["published"] == row["reproduced"] for row in verdict["files"])
    assert f"run {run}: identical" in done.stdout
    assert not (production.folder / f"results/reproduce/{run}").exists()
    assert files_of(production.folder / "registry") == before


@pytest.fixture
def published_elsewhere(production: Checkout, tmp_path: Path) -> Iterator[Path]:
    """A registry whose publication of the first run names a raw file of its own that has changed since."""
    entries = (production.folder / "registry/entries").rglob("*.json")
    path = next(path for path in entries if read_json(path)["metadata"]["run"] == str(RUNS[0]))
    entry, record = read_json(path), provenance(production, RUNS[0])
    own = tmp_path / "AO2D.root"
    own.write_text("changed")
    record["run"]["simulation"] = [str(own)]
    record["inputs"] = [{"name": str(own), "sample": "simulation", "sha256": "0" * 64}]
    text = json.dumps(record).encode()
    document = tmp_path / "provenance.json"
    document.write_bytes(text)
    digest = sha256(document)
    blob = production.folder / f"registry/objects/{digest[:2]}/{digest}"
    blob.parent.mkdir(exist_ok=True)
    blob.write_bytes(text)
    saved = path.read_text()
    entry["documents"]["provenance.json"] |= {"sha256": digest, "size": len(text)}
    path.write_text(json.dumps(entry))
    yield own
    path.write_text(saved)
    blob.unlink()


def test_a_changed_raw_file_is_refused(production: Checkout, published_elsewhere: Path) -> None:
    done = production.snakemake("--config", f"run={RUNS[0]}", "--", "reproduce")
    assert done.returncode != 0
    assert f"error: {published_elsewhere}: the raw file has changed since publication" in done.stdout
    assert "Traceback" not in done.stdout


def test_reproduction_needs_a_published_run(production: Checkout) -> None:
    done = production.snakemake("--", "reproduce")
    assert done.returncode != 0 and "no run is given: snakemake reproduce --config run=<run number>" in done.stdout
    done = production.snakemake("--config", "run=7", "--", "reproduce")
    assert done.returncode != 0 and "error: run 7 is not published in registry" in done.stdout


def test_crate_holds_publications_and_names_every_job(production: Checkout) -> None:
    done = production.snakemake("--", "crate")
    assert done.returncode == 0, done.stdout[-3000:]
    with zipfile.ZipFile(production.folder / "results/crate.zip") as archive:
        names = set(archive.namelist())
        graph = json.loads(archive.read("ro-crate-metadata.json"))["@graph"]
    inside = {"Snakefile", "report.html", "compare.csv", "config.yaml", "runs.tsv", "workflow/scripts/train_model.py"}
    assert inside | {f"publications/{run}/attention_model_211.onnx" for run in RUNS} <= names
    assert not any(name.endswith((".root", ".parquet")) for name in names)
    ids = {entity["@id"] for entity in graph}
    jobs = [entity for entity in graph if entity["@type"] == "CreateAction" and entity["@id"].startswith("#job/")]
    # the record of the crate's own job comes after it
    assert len(jobs) == sum(bool(record["outputs"]) for record in records(production).values()) - 1
    for job in jobs:
        for key in ("object", "result", "resourceUsage"):
            references = job[key] if isinstance(job[key], list) else [job[key]]
            assert {item["@id"] for item in references} <= ids
    raw = next(entity for entity in graph if entity.get("name") == "resources/example/900001/data_001.root")
    assert raw["sha256"] == sha256(production.folder / raw["name"])
