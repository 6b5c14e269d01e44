"""Where a publication comes from: inputs, configuration, code, versions; and the checksums of its files.

Nothing here reads a clock: the same inputs give the same record.
"""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from pidflow.files import sha256, write_text
from pidflow.publish.names import SUMS_FILE

PACKAGES = ("numpy", "onnx", "onnxruntime", "pyarrow", "pydantic", "safetensors", "scikit-learn", "snakemake", "torch")
"""Distributions whose versions are recorded by default."""

_SURROUNDINGS = ("git", "python", "platform", "created")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(repository: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "-C", str(repository), *arguments], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def git_state(repository: str | Path) -> dict[str, Any]:
    """Return ``commit`` and ``dirty`` (uncommitted changes to tracked files); None each where git cannot say."""
    folder = Path(repository)
    commit = _git(folder, "rev-parse", "HEAD")
    status = _git(folder, "status", "--porcelain", "--untracked-files=no") if commit else None
    return {"commit": commit, "dirty": None if status is None else bool(status)}


def provenance(
    *,
    run: Mapping[str, Any],
    config: Mapping[str, Any],
    code: str,
    seed: int,
    files: Iterable[str | Path] = (),
    checksums: Mapping[str, str] | None = None,
    packages: Iterable[str] = PACKAGES,
    repository: str | Path | None = None,
    created: int | None = None,
) -> dict[str, Any]:
    """Return the record of a publication, fit for JSON.

    Parameters
    ----------
    run
        Row of the run table.
    config
        Configuration as merged.
    code
        Digest of the code.
    seed
        Seed of all random choices.
    files
        Inputs whose SHA-256 is computed here.
    checksums
        SHA-256 by name of inputs that were read earlier and need not be read again.
    packages
        Distributions whose versions are recorded; null for one that is not installed.
    repository
        Folder whose git commit is recorded, or None.
    created
        Creation time in ms, if it is to be part of the record.
    """
    inputs = {**{str(path): sha256(path) for path in files}, **(checksums or {})}
    record: dict[str, Any] = {
        "run": dict(run),
        "inputs": [{"name": name, "sha256": digest} for name, digest in sorted(inputs.items())],
        "config": dict(config),
        "code": code,
        "seed": seed,
        "packages": {name: _version(name) for name in sorted(packages)},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git": git_state(repository) if repository is not None else None,
    }
    if created is not None:
        record["created"] = created
    return record


def digest(record: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a record's part that can change a model.

    The commit, the interpreter, the platform and the creation time are left out: a commit that changes a document
    only must not change the bytes of a graph that carries this digest.
    """
    kept = {key: value for key, value in record.items() if key not in _SURROUNDINGS}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def write_sums(folder: str | Path) -> Path:
    """Write ``SHA256SUMS`` over all other files of a flat folder, as ``sha256sum --check`` reads it."""
    path = Path(folder) / SUMS_FILE
    visible = Path(folder).glob("[!.]*")
    names = sorted(file.name for file in visible if file.is_file() and file.name != SUMS_FILE)
    write_text(path, "".join(f"{sha256(path.with_name(name))}  {name}\n" for name in names))
    return path
