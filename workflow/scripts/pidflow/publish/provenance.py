"""Where a publication comes from, by the records of the jobs behind it; and the checksums of its files.

The record of a publication has a part that the same inputs, configuration, code and versions give again, and the
`surroundings` of this production: commits, machines, times, the checksums of what each step made.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pidflow.errors import PidflowError
from pidflow.files import sha256, size, write_text
from pidflow.publish.names import SUMS_FILE

PACKAGES = (
    "awkward",
    "chromo",
    "lightgbm",
    "numpy",
    "onnx",
    "onnxruntime",
    "pandas",
    "pyarrow",
    "pydantic",
    "safetensors",
    "scikit-learn",
    "scipy",
    "shap",
    "torch",
    "uproot",
)
"""Distributions that compute results; the records name all that were loaded."""

CodeState = Literal["committed", "uncommitted", "unknown"]
Step = Mapping[str, Any]

_OF_STEP = (
    *("rule", "script", "wildcards", "outputs", "code", "threads", "git", "python", "packages", "host"),
    *("resources", "started", "ended"),
)
_SURROUNDINGS = "surroundings"


@dataclass(frozen=True)
class History:
    """What led to some files.

    Attributes
    ----------
    steps
        Records of the jobs behind them, in the order in which they started.
    unrecorded
        Files that some job made of which no record is left.
    """

    steps: tuple[Step, ...]
    unrecorded: tuple[str, ...]


def walk(records: Iterable[Step], files: Iterable[str], raw: Iterable[str]) -> History:
    """Return the jobs behind files, back to the raw files.

    Parameters
    ----------
    records
        Records of jobs, such as all of a run.
    files
        Paths as the records have them.
    raw
        Paths at which the way may end.

    Raises
    ------
    PidflowError
        If a file on the way has another size than its record says.
    """
    maker: dict[str, Step] = {}
    for record in sorted(records, key=lambda record: record["ended"]):
        maker.update({output["path"]: record for output in record["outputs"]})
    ends, waiting = set(raw), [str(file) for file in files]
    steps: dict[int, Step] = {}
    unrecorded: set[str] = set()
    while waiting:
        path = waiting.pop()
        if path in maker:
            step = maker[path]
            _check_size(path, step)
            if id(step) not in steps:
                steps[id(step)] = step
                waiting.extend(step["inputs"])
        elif path not in ends:
            unrecorded.add(path)
    in_order = sorted(steps.values(), key=lambda step: (step["started"], step["rule"], str(step["wildcards"])))
    return History(tuple(in_order), tuple(sorted(unrecorded)))


def _check_size(path: str, step: Step) -> None:
    expected = next(output["bytes"] for output in step["outputs"] if output["path"] == path)
    # a fetched file is removed once it is read
    if Path(path).exists() and (found := size(path)) != expected:
        raise PidflowError(
            f"{path}: it has {found} bytes, but {step['rule']} made it with {expected}; "
            f"make it again (snakemake --forcerun {step['rule']})"
        )


def code_state(step: Step, here: Mapping[str, Any], digest_of: Callable[[str], str]) -> CodeState:
    """Return whether the code of a step is in the repository's history.

    Parameters
    ----------
    step
        Record of the step.
    here
        Git state of the code that runs now.
    digest_of
        Digest of a script of the code that runs now: a step whose code was committed later ran the same code.
    """
    if step["git"]["dirty"] is False:
        return "committed"
    if here["dirty"] is False:
        try:
            same = digest_of(step["script"]) == step["code"]
        except OSError:
            same = False
        if same:
            return "committed"
    return "uncommitted" if step["git"]["dirty"] else "unknown"


def _versions(steps: Sequence[Step]) -> dict[str, list[str]]:
    # builds of one version differ in the part after +, by where they were installed from
    loaded = {(name, version.partition("+")[0]) for step in steps for name, version in step["packages"].items()}
    return {name: sorted(version for other, version in loaded if other == name) for name, _ in sorted(loaded)}


def provenance(
    *,
    run: Mapping[str, Any],
    inputs: Iterable[Mapping[str, Any]],
    config: Mapping[str, Any],
    seed: int,
    model: str,
    own: Step,
    history: History,
    state: CodeState,
    results: str,
    batch_mb: int,
) -> dict[str, Any]:
    """Return the record of a publication, fit for JSON.

    Parameters
    ----------
    run
        Row of the run table.
    inputs
        Raw files: ``name``, ``sample``, ``sha256``.
    config
        What of the configuration, as merged, can affect the publication.
    seed
        Seed of all random choices.
    model
        Digest of the model directory.
    own
        Record of the job that publishes, as far as it is known.
    history
        The steps before it.
    state
        Whether all code is in the repository's history.
    results
        Folder of the results, where the outputs of the steps lie.
    batch_mb
        How the raw files were batched, MB: it changes no track, but which step made which file.
    """
    steps = [*history.steps, own]
    codes: dict[str, set[str]] = {}
    for step in steps:
        codes.setdefault(step["rule"], set()).add(str(step["code"]))
    return {
        "run": dict(run),
        "inputs": sorted((dict(item) for item in inputs), key=lambda item: (item["sample"], item["name"])),
        "config": dict(config),
        "seed": seed,
        "code": {rule: ", ".join(sorted(digests)) for rule, digests in sorted(codes.items())},
        "packages": {name: versions for name, versions in _versions(steps).items() if name in PACKAGES},
        "model": model,
        _SURROUNDINGS: {
            "code": state,
            "git": own["git"],
            "python": own["python"],
            "packages": own["packages"],
            "host": own["host"],
            "results": results,
            "batch_mb": batch_mb,
            "steps": [
                *({key: step[key] for key in _OF_STEP if key in step} for step in steps),
                *({"outputs": [{"path": path}], "record": None} for path in history.unrecorded),
            ],
        },
    }


def digest(record: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a record's part that can change a model: all but commits, machines, times and sums."""
    kept = {key: value for key, value in record.items() if key != _SURROUNDINGS}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def write_sums(folder: str | Path) -> Path:
    """Write ``SHA256SUMS`` over all other files of a flat folder, as ``sha256sum --check`` reads it."""
    path = Path(folder) / SUMS_FILE
    visible = Path(folder).glob("[!.]*")
    names = sorted(file.name for file in visible if file.is_file() and file.name != SUMS_FILE)
    write_text(path, "".join(f"{sha256(path.with_name(name))}  {name}\n" for name in names))
    return path
