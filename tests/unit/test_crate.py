"""The RO-Crate of a production, held against what the profile demands."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from pidflow.errors import PidflowError
from pidflow.files import sha256, write_json, write_text
from pidflow.publish.crate import write_crate

Graph = dict[str, dict[str, Any]]
USED = {"wall_s": 1.5, "cpu_s": 1.0, "peak_rss_mib": 100.0}


def record(rule: str, inputs: list[str], outputs: list[str], second: int) -> dict[str, Any]:
    return {
        "rule": rule, "script": f"{rule}.py", "wildcards": {"run": "5"}, "inputs": inputs,
        "outputs": [{"path": path, "sha256": "ab" * 32, "bytes": 3} for path in outputs],
        "packages": {"snakemake": "9.27.1"}, "resources": {"used": USED},
        "started": f"2026-01-01T00:00:0{second}+00:00", "ended": f"2026-01-01T00:00:0{second + 1}+00:00",
    }  # fmt: skip


@pytest.fixture
def graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Graph:
    """Entities of the crate of a production of two jobs, by identifier."""
    monkeypatch.chdir(tmp_path)
    code = [
        Path(name) for name in ("Snakefile", "rules/a.smk", "workflow/scripts/ingest.py", "workflow/scripts/pub.py")
    ]
    for path in (*code, Path("raw.root"), Path("results/config.yaml"), Path("results/report.html")):
        write_text(path, path.name)
    raw = {"name": "raw.root", "sample": "simulation", "sha256": sha256("raw.root")}
    write_json("results/5/publication/provenance.json", {"inputs": [raw]})
    write_text("results/5/publication/model.onnx", "model")
    write_json("results/5/provenance/ingest.json", record("ingest", ["raw.root", "root://h//x.root"], ["results/t"], 1))
    write_json("results/5/provenance/pub.json", record("pub", ["results/t"], ["results/5/publication"], 3))
    write_crate(
        "results/crate.zip", root=".", code=code, records=["results/5/provenance"],
        publications={5: "results/5/publication"},
        files={"configuration": "results/config.yaml", "report": "results/report.html"},
    )  # fmt: skip
    with zipfile.ZipFile("results/crate.zip") as archive:
        content = json.loads(archive.read("ro-crate-metadata.json"))
        names = set(archive.namelist())
    assert "https://w3id.org/ro/terms/workflow-run/context" in content["@context"]
    assert {
        "Snakefile",
        "rules/a.smk",
        "publications/5/",
        "publications/5/model.onnx",
        "report.html",
        "config.yaml",
    } <= names
    assert "raw.root" not in names
    return {entity["@id"]: entity for entity in content["@graph"]}


def of_type(graph: Graph, kind: str) -> list[dict[str, Any]]:
    return [entity for entity in graph.values() if kind in as_list(entity["@type"])]


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def followed(graph: Graph, entity: dict[str, Any], key: str) -> list[dict[str, Any]]:
    return [graph[item["@id"]] for item in as_list(entity[key])]


def test_every_reference_leads_somewhere(graph: Graph) -> None:
    for entity in graph.values():
        for key, value in entity.items():
            for item in as_list(value):
                if isinstance(item, dict) and not item["@id"].startswith("https://") and key != "conformsTo":
                    assert item["@id"] in graph


def test_root_names_profile_and_workflow(graph: Graph) -> None:
    root = graph["./"]
    profiles = {item["@id"] for item in followed(graph, root, "conformsTo") if item["@type"] == "CreativeWork"}
    assert {f"https://w3id.org/ro/wfrun/{name}/0.5" for name in ("process", "workflow", "provenance")} <= profiles
    (workflow,) = followed(graph, root, "mainEntity")
    assert workflow["@id"] == "Snakefile"
    assert {"File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"} == set(workflow["@type"])
    assert all(root[key] for key in ("name", "description", "license", "datePublished"))
    assert "author" not in root


def test_jobs_steps_and_tools_hang_together(graph: Graph) -> None:
    workflow = graph["Snakefile"]
    tools = followed(graph, workflow, "hasPart")
    steps = followed(graph, workflow, "step")
    assert {tool["@id"] for tool in tools} == {"workflow/scripts/ingest.py", "workflow/scripts/pub.py"}
    assert all("SoftwareSourceCode" in tool["@type"] for tool in tools)
    assert [followed(graph, step, "workExample")[0] for step in steps] == tools
    assert {step["position"] for step in steps} == {"1", "2"}
    controls = of_type(graph, "ControlAction")
    assert len(controls) == 2
    for control in controls:
        (step,), (action,) = followed(graph, control, "instrument"), followed(graph, control, "object")
        assert step["@type"] == "HowToStep" and action["@type"] == "CreateAction"
        assert action["instrument"] == step["workExample"]
    (engine,) = of_type(graph, "OrganizeAction")
    assert followed(graph, engine, "instrument")[0]["version"] == "9.27.1"
    assert followed(graph, engine, "object") == controls
    (production,) = followed(graph, engine, "result")
    assert followed(graph, production, "instrument") == [workflow]
    assert production in followed(graph, graph["./"], "mentions")
    assert (production["startTime"][-8:], production["endTime"][-8:]) == ("01+00:00", "04+00:00")


def test_job_names_inputs_outputs_and_resources(graph: Graph) -> None:
    ingest = next(item for item in of_type(graph, "CreateAction") if item["name"].startswith("ingest"))
    raw, remote = followed(graph, ingest, "object")
    assert raw["sha256"] == sha256("raw.root") and raw["contentSize"] == str(len("raw.root"))
    assert remote["@id"] == "root://h//x.root" and remote["@type"] == "File"
    (made,) = followed(graph, ingest, "result")
    assert made["sha256"] == "ab" * 32 and made["contentSize"] == "3" and made["@type"] == "CreativeWork"
    usage = followed(graph, ingest, "resourceUsage")
    assert {item["value"] for item in usage} == {"1.5", "1.0", "100.0"}
    assert all(item["@type"] == "PropertyValue" and item["propertyID"] for item in usage)
    publish = next(item for item in of_type(graph, "CreateAction") if item["name"].startswith("pub"))
    assert publish["result"] == {"@id": "publications/5/"}


def test_production_without_records(tmp_path: Path) -> None:
    with pytest.raises(PidflowError, match="no job left a record"):
        write_crate(tmp_path / "c.zip", root=tmp_path, code=[], records=[tmp_path], publications={}, files={})
    assert not (tmp_path / "c.zip").exists()
