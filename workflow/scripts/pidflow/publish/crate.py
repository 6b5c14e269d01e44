"""A production as an RO-Crate: workflow, publications, report, and one action per job.

Profile: Provenance Run Crate 0.5, https://w3id.org/ro/wfrun/provenance/0.5. Raw files and what lies between them and
the publications are named with checksum and size, not copied.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rocrate.model import ComputationalWorkflow, ContextEntity
from rocrate.model.entity import Entity
from rocrate.rocrate import ROCrate

from pidflow.errors import PidflowError
from pidflow.files import read_json, replacing
from pidflow.publish.provenance import Step
from pidflow.record import read_records

_PERMALINK = "https://w3id.org/ro/wfrun/{}/0.5"
_PROFILES = {
    _PERMALINK.format("process"): "Process Run Crate",
    _PERMALINK.format("workflow"): "Workflow Run Crate",
    _PERMALINK.format("provenance"): "Provenance Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}
_CONTEXT = "https://w3id.org/ro/terms/workflow-run/context"
_USE = {
    "wall_s": ("wall time", "SEC", "s"),
    "cpu_s": ("CPU time", "SEC", "s"),
    "peak_rss_mib": ("peak memory", "E63", "MiB"),
}
_TYPES = {
    ".json": "application/json",
    ".md": "text/markdown",
    ".html": "text/html",
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".yaml": "application/yaml",
    ".py": "text/x-python",
    ".onnx": "application/octet-stream",
}
_NO_LICENCE = "No licence is stated: ask the authors before reuse."
_SCRIPTS = "workflow/scripts"
_PUBLICATION = "publications/{}/"


def write_crate(
    output: str | Path,
    *,
    root: str | Path,
    code: Iterable[str | Path],
    records: Iterable[str | Path],
    publications: Mapping[int, str | Path],
    files: Mapping[str, str | Path],
) -> None:
    """Write the crate of a production.

    Parameters
    ----------
    output
        ZIP file to write.
    root
        Folder of the workflow.
    code
        Files of the workflow, the ``Snakefile`` among them; they keep their paths in `root`.
    records
        Folders with the records of the jobs.
    publications
        Folder of the publication by run.
    files
        Further files, by what they are: ``config``, ``runs``, ``report`` and more.

    Raises
    ------
    PidflowError
        If no job left a record.
    """
    # two folders may hold the record of the same job, if one lies in the other
    steps = {
        str(record["outputs"]): record for folder in records for record in read_records(folder) if record["outputs"]
    }
    ordered = sorted(steps.values(), key=lambda step: (step["started"], step["rule"], str(step["outputs"])))
    if not ordered:
        raise PidflowError(f"{output}: no job left a record to describe; make the production again")
    crate = _Crate(Path(root))
    crate.describe(sorted(publications), ordered[-1]["ended"])
    crate.add_workflow([Path(path) for path in code], ordered[-1]["packages"].get("snakemake"))
    for name, path in files.items():
        crate.add_file(Path(path), name)
    raw: dict[str, str] = {}
    for run, folder in sorted(publications.items()):
        crate.add_publication(run, Path(folder))
        raw |= {item["name"]: item["sha256"] for item in read_json(Path(folder) / "provenance.json")["inputs"]}
    crate.add_run(ordered, raw)
    with replacing(output) as temporary:
        crate.crate.write_zip(temporary)
        with zipfile.ZipFile(temporary, "a") as archive:
            # the library writes no entry for a folder, by which readers find it
            for run in publications:
                archive.mkdir(_PUBLICATION.format(run))


def _identifier(kind: str, *parts: object) -> str:
    return "#" + "/".join([kind, *(quote(str(part), safe="/") for part in parts)])


def _script(step: Step) -> str:
    """Return the path of a step's script, without the kinds of model that it loaded."""
    return f"{_SCRIPTS}/{step['script'].split()[0]}"


class _Crate:
    """The crate while it grows; `_entities` are what lies in it or is named by it, by path."""

    def __init__(self, root: Path) -> None:
        self.crate = ROCrate(version="1.1")  # the version that the profile builds on
        self.crate.metadata.extra_contexts.append(_CONTEXT)
        self._root = root
        self._entities: dict[str, Entity] = {}
        self._tools: dict[str, Entity] = {}

    def _context(self, id_: str, kind: str | list[str], **properties: Any) -> Entity:
        # the specification wants a list of one as the one
        content = {
            key: value[0] if isinstance(value, list) and len(value) == 1 else value for key, value in properties.items()
        }
        entity: Entity = self.crate.add(ContextEntity(self.crate, id_, {"@type": kind}))
        for key, value in content.items():
            entity[key] = value
        return entity

    def describe(self, runs: list[int], ended: str) -> None:
        top = self.crate.root_dataset
        self.crate.name = f"Particle-identification models of runs {', '.join(map(str, runs))}"
        self.crate.description = (
            "Models for particle identification in ALICE, one per data-taking run, with the workflow that made them, "
            "its configuration and report, and a record of every job."
        )
        self.crate.license = _NO_LICENCE
        top["datePublished"] = ended
        top["conformsTo"] = [
            self._context(identifier, "CreativeWork", name=name, version=identifier.rpartition("/")[2])
            for identifier, name in _PROFILES.items()
        ]

    def add_file(self, path: Path, name: str, inside: str | None = None) -> Entity:
        """Copy a file into the crate, under its own name unless `inside` gives another path."""
        place = inside or path.name
        kind = _TYPES.get(path.suffix, "text/plain")
        types = ["File", "SoftwareSourceCode"] if path.suffix == ".py" else "File"
        size = str(path.stat().st_size)
        properties = {"@type": types, "name": name, "encodingFormat": kind, "contentSize": size}
        entity: Entity = self.crate.add_file(path, place, properties=properties)
        self._entities[str(path)] = entity
        return entity

    def add_publication(self, run: int, folder: Path) -> None:
        inside = _PUBLICATION.format(run)
        parts = [
            self.add_file(path, f"{path.name} of run {run}", inside + path.name)
            for path in sorted(folder.glob("[!.]*"))
            if path.is_file()
        ]
        properties = {"name": f"publication of run {run}", "description": "What O2Physics loads, with its documents."}
        entity: Entity = self.crate.add_dataset(dest_path=inside, properties=properties)
        entity["hasPart"] = parts
        self._entities[str(folder)] = entity

    def add_workflow(self, code: list[Path], engine: str | None) -> None:
        known = {} if engine is None else {"version": engine}
        url = "https://snakemake.github.io"
        self._engine = self._context("#snakemake", "SoftwareApplication", name="Snakemake", url=url, **known)
        language = self._context(
            "https://w3id.org/workflowhub/workflow-ro-crate#snakemake", "ComputerLanguage", name="Snakemake",
            identifier={"@id": "https://doi.org/10.1093/bioinformatics/bts480"}, url={"@id": "https://snakemake.github.io"},
        )  # fmt: skip
        for path in code:
            inside = path.resolve().relative_to(self._root.resolve()).as_posix()
            if inside == "Snakefile":
                types = ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"]
                properties = {"@type": types, "name": "pidflow", "encodingFormat": "text/plain"}
                workflow = ComputationalWorkflow(self.crate, path, inside, properties=properties)
                workflow["programmingLanguage"] = language
                self._workflow: Entity = self.crate.add(workflow)
                self.crate.mainEntity = self._workflow
            else:
                self._entities[inside] = self.add_file(path, inside, inside)

    def _file(self, path: str, **properties: Any) -> Entity:
        """Return what stands for a path: what lies in the crate, else a mention with checksum and size."""
        if path not in self._entities:
            if "://" in path:
                content = {"name": path, "encodingFormat": "application/octet-stream", **properties}
                self._entities[path] = self.crate.add_file(path, properties=content)
            else:
                self._entities[path] = self._context(_identifier("file", path), "CreativeWork", name=path, **properties)
        entity = self._entities[path]
        for key, value in properties.items():
            entity[key] = value
        return entity

    def _tool(self, step: Step) -> Entity:
        path = _script(step)
        return self._tools.setdefault(path, self._entities[path])

    def _resources(self, identifier: str, step: Step) -> list[Entity]:
        return [
            self._context(
                f"{identifier}/{key}", "PropertyValue", name=name, value=str(step["resources"]["used"][key]),
                propertyID=f"https://w3id.org/ro/terms/pidflow#{key}", unitCode=code, unitText=unit,
            )
            for key, (name, code, unit) in _USE.items()
        ]  # fmt: skip

    def _action(self, number: int, step: Step, raw: Mapping[str, str]) -> Entity:
        identifier = f"#job/{number}"
        for path in step["inputs"]:
            size = Path(path).stat().st_size if path in raw and Path(path).is_file() else None
            known = {"sha256": raw[path]} if path in raw else {}
            self._file(path, **known, **({} if size is None else {"contentSize": str(size)}))
        results = [
            self._file(output["path"], sha256=output["sha256"], contentSize=str(output["bytes"]))
            for output in step["outputs"]
        ]
        values = ", ".join(f"{name} {value}" for name, value in step["wildcards"].items())
        return self._context(
            identifier, "CreateAction", name=f"{step['rule']}{f' ({values})' if values else ''}",
            description=f"A job of the rule {step['rule']}, which ran {step['script']}.",
            instrument=self._tool(step), object=[self._entities[path] for path in step["inputs"]],
            result=results, startTime=step["started"], endTime=step["ended"],
            actionStatus="http://schema.org/CompletedActionStatus", resourceUsage=self._resources(identifier, step),
        )  # fmt: skip

    def add_run(self, steps: Sequence[Step], raw: Mapping[str, str]) -> None:
        """Add the production and its jobs; `raw` holds the SHA-256 of the raw files."""
        how: dict[str, Entity] = {}
        actions, controls = [], []
        for number, step in enumerate(steps, start=1):
            if _script(step) not in self._entities:
                print(f"{step['rule']}: its script {step['script']} is gone, its record is left out", flush=True)
                continue
            action = self._action(number, step, raw)
            actions.append(action)
            if step["rule"] not in how:
                how[step["rule"]] = self._context(
                    _identifier("rule", step["rule"]), "HowToStep", name=step["rule"], position=str(len(how) + 1),
                    workExample=self._tool(step),
                )  # fmt: skip
            controls.append(
                self._context(
                    f"#control/{number}", "ControlAction", name=f"run {step['rule']}", instrument=how[step["rule"]],
                    object=action,
                )
            )  # fmt: skip
        self._workflow["step"] = list(how.values())
        self._workflow["hasPart"] = list(self._tools.values())
        made = {output["path"] for step in steps for output in step["outputs"]}
        first = sorted({path for step in steps for path in step["inputs"]} - made)
        payload = [entity for path, entity in self._entities.items() if path in made and entity.type != "CreativeWork"]
        times = [step["started"] for step in steps], [step["ended"] for step in steps]
        production = self._context(
            "#production", "CreateAction", name="the production", instrument=self._workflow,
            description="All jobs of which there are records, from the raw files to the published models.",
            object=[self._entities[path] for path in first if path in self._entities], result=payload,
            startTime=min(times[0]), endTime=max(times[1]), actionStatus="http://schema.org/CompletedActionStatus",
        )  # fmt: skip
        self.crate.root_dataset["mentions"] = [production, *actions]
        self._context(
            "#engine", "OrganizeAction", name="the engine's run of the production", instrument=self._engine,
            object=controls, result=production, startTime=min(times[0]), endTime=max(times[1]),
        )  # fmt: skip
