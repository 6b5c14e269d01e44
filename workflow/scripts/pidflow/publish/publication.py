"""A publication: the checked bundle with card, provenance and checksums, in the registry."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pidflow.digest import digest as code_digest
from pidflow.errors import PidflowError
from pidflow.files import read_json, write_json
from pidflow.model import MODEL_FILE, WEIGHTS_FILE, model_digest, read_info
from pidflow.models import model_of
from pidflow.publish.card import write_card
from pidflow.publish.configuration import write_configurations
from pidflow.publish.names import GATE_FILE
from pidflow.publish.provenance import (
    CodeState,
    History,
    Step,
    code_state,
    digest,
    provenance,
    walk,
    write_sums,
)
from pidflow.publish.registry import Entry, publish
from pidflow.record import read_records, surroundings

_METADATA = ("run", "period", "pass", "system")


def publish_bundle(
    bundle: str | Path,
    model: str | Path,
    publication: str | Path,
    entry_file: str | Path,
    *,
    metrics: Mapping[str, str | Path],
    quality: Mapping[str, str | Path],
    records: str | Path,
    run: Mapping[str, Any],
    registry: str | Path,
    path: str,
    config: Mapping[str, Any],
    code: str,
    rule: str,
    script: str,
    uncommitted: Literal["mark", "refuse"],
    batch_mb: int,
    choice: str | Path | None = None,
    efficiency: str | Path | None = None,
) -> Entry:
    """Complete a bundle and publish it.

    Parameters
    ----------
    bundle, model
        Checked bundle and the model directory that it was made of.
    publication
        Folder to make: the bundle with ``card.md``, ``provenance.json``, configurations of O2Physics tasks and
        ``SHA256SUMS``.
    entry_file
        JSON copy of the registry's entry.
    metrics
        Metrics file by title, for the card.
    quality
        Account of a dataset by sample, for the inputs' checksums.
    records
        Folder with the records of the run's jobs.
    run
        Row of the run table.
    registry, path
        Folder of the registry and path of the objects in it.
    config
        What of the configuration, as merged, can affect the publication.
    code, rule, script
        Digest of the code that publishes, its rule and its script.
    uncommitted
        What happens if code behind the model is not in the repository's history.
    batch_mb
        How the raw files were batched, MB.
    choice, efficiency
        Of an adapted model: why it was chosen, and what to expect on data (`pidflow.adapt.choice.select`).

    Returns
    -------
    Entry
        The registry's entry; ``new`` is false if the same was published before.

    Raises
    ------
    PidflowError
        If a file on the way from the raw files has another size than its record says, or if uncommitted code is
        refused.
    """
    folder, info = Path(publication), read_info(model)
    own = {"rule": rule, "script": script, "code": code, "outputs": [], **surroundings()}
    files = [str(file) for file in (bundle, model, *metrics.values(), *quality.values())]
    given = {"choice.json": choice, "efficiency.csv": efficiency}
    extra = {name: path for name, path in given.items() if path is not None}
    files += [str(path) for path in extra.values()]
    history = walk(read_records(records), files, (*run["data"], *run["simulation"]))
    state = _state(history, own, uncommitted, str(run["run"]))
    shutil.copytree(bundle, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))
    if model_of(info.kind).is_network:
        # from which another run's training can start
        for name in (MODEL_FILE, WEIGHTS_FILE):
            shutil.copy2(Path(model) / name, folder / name)
    for name, source in extra.items():
        shutil.copy2(source, folder / name)
    record = provenance(
        run=run,
        inputs=_raw_files(quality),
        config=config,
        seed=config["seed"],
        model=model_digest(model),
        own=own,
        history=history,
        state=state,
        results=str(folder.parents[1]),
        batch_mb=batch_mb,
    )
    write_json(folder / "provenance.json", record)
    write_card(
        folder / "card.md",
        run={key: value for key, value in run.items() if key not in ("data", "simulation")},
        info=info,
        metrics=metrics,
        gate=read_json(folder / GATE_FILE),
        provenance=record,
        registry_path=path,
        selection=config["dataset"]["selection"],
        certainty=config["evaluate"]["threshold"],
        choice=choice,
        efficiency=efficiency,
    )
    write_configurations(
        folder,
        info,
        path=path,
        timestamp=run["valid_from"],
        certainties=dict.fromkeys(info.species, config["evaluate"]["threshold"]),
        pt=(config["evaluate"]["pt_edges"][0], config["evaluate"]["pt_edges"][-1]),
    )
    write_sums(folder)
    entry = publish(
        registry,
        path,
        folder,
        valid_from=run["valid_from"],
        valid_until=run["valid_until"],
        metadata={**{key: str(run[key]) for key in _METADATA}, "provenance": digest(record), "code": state},
    )
    write_json(entry_file, entry.model_dump(mode="json"))
    return entry


def _raw_files(quality: Mapping[str, str | Path]) -> list[dict[str, str]]:
    return [
        {"name": origin["source"], "sample": sample, "sha256": origin["sha256"]}
        for sample, path in quality.items()
        for origin in read_json(path)["inputs"]
    ]


def _state(history: History, own: Step, uncommitted: str, run: str) -> CodeState:
    """Return whether all code is in the repository's history; say or refuse it if not."""
    steps: dict[CodeState, str] = {}
    for path in history.unrecorded:
        print(f"{path}: no record is left of the job that made it", flush=True)
        steps.setdefault("unknown", f"the job that made {path}")
    for step in (*history.steps, own):
        steps.setdefault(code_state(step, own["git"], code_digest), step["rule"])
    state: CodeState = "uncommitted" if "uncommitted" in steps else "unknown" if "unknown" in steps else "committed"
    if state == "committed":
        return state
    where = "is not committed" if state == "uncommitted" else "is not known to be in a git repository"
    if uncommitted == "refuse":
        raise PidflowError(
            f"run {run}: the code of {steps[state]} {where}, and 'publish.uncommitted' is refuse; "
            "commit it and publish again"
        )
    print(f"WARNING: run {run}: the code of {steps[state]} {where}; the publication is marked as {state}", flush=True)
    return state
