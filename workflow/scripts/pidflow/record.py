"""The record that a job leaves of itself: what it made, of what, with which code, versions, machine and resources.

Standard library only, and cheap: every job writes one, in environments that hold little else.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from pidflow.files import read_json, sha256, size, visible_files, write_json

ROOT = Path(__file__).resolve().parents[3]
"""Folder of the workflow that this code belongs to."""

CODE = ("Snakefile", "rules", "workflow", "envs")
"""What of the repository decides results beside the configuration, which is recorded as merged."""

_RSS_PER_MIB = 2**20 if sys.platform == "darwin" else 2**10  # the unit of ru_maxrss is the system's


def checksum(path: str | Path) -> str:
    """Return the SHA-256 of a file, or that of the names and contents of the visible files below a folder."""
    if not Path(path).is_dir():
        return sha256(path)
    tree = hashlib.sha256()
    for file in visible_files(path):
        tree.update(f"{sha256(file)}  {file.relative_to(path).as_posix()}\n".encode())
    return tree.hexdigest()


def plain(value: Any) -> Any:
    """Return a value as JSON holds it: lists, dictionaries with text keys, numbers; anything else as text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def _git(root: Path, *arguments: str) -> str | None:
    # without the optional locks, so that jobs that ask at the same time do not disturb a commit
    command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def git_state(root: Path = ROOT) -> dict[str, Any]:
    """Return the ``commit`` of a workflow's code and whether the code differs from it (``dirty``).

    Files that git does not know count as a difference, ignored files do not. Both values are None where git or the
    repository is absent, or where the repository is another's that merely surrounds the code.
    """
    unknown = {"commit": None, "dirty": None}
    if _git(root, "ls-files", "--error-unmatch", "Snakefile") is None:
        return unknown
    status = _git(root, "status", "--porcelain=v2", "--branch", "--", *CODE)
    commit = re.search(r"^# branch\.oid ([0-9a-f]+)$", status or "", flags=re.MULTILINE)
    if status is None or commit is None:
        return unknown
    return {"commit": commit[1], "dirty": any(line[0] != "#" for line in status.splitlines())}


def _loaded() -> dict[Path, set[str]]:
    """Return the top-level modules in use that are not Python's own, by the folder that they lie in."""
    found: dict[Path, set[str]] = {}
    for name, module in list(sys.modules.items()):
        if "." in name or name.startswith("_") or name in sys.stdlib_module_names:
            continue
        places = list(getattr(module, "__path__", [])) or [getattr(module, "__file__", None)]
        if places[0]:
            found.setdefault(Path(places[0]).parent, set()).add(name)
    return found


def _holds(info: Path, modules: set[str]) -> set[str]:
    """Return which of these modules an installed distribution brought."""
    # importlib.metadata.packages_distributions reads and parses the list of files of every distribution: 0.2 s
    for listing, pattern in (("top_level.txt", "\n{}\n"), ("RECORD", "\n{}/")):
        try:
            text = "\n" + (info / listing).read_text(encoding="utf-8") + "\n"
        except OSError:
            continue
        return {name for name in modules if pattern.format(name) in text}
    return set()


def packages() -> dict[str, str]:
    """Return the versions of the distributions of which a module is loaded in this process, by normal name."""
    found: dict[str, str] = {}
    for folder, modules in _loaded().items():
        infos = {}
        for info in folder.glob("*.dist-info"):
            name, _, version = info.name.removesuffix(".dist-info").partition("-")
            infos[info] = (re.sub(r"[-_.]+", "-", name).lower(), version)
        unclaimed = set(modules)
        for info, (name, version) in list(infos.items()):
            if (module := name.replace("-", "_")) in modules:
                found[name] = version
                unclaimed.discard(module)
                del infos[info]
        for info, (name, version) in infos.items():
            if unclaimed and (held := _holds(info, unclaimed)):
                found[name] = version
                unclaimed -= held
    return dict(sorted(found.items()))


@cache
def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    model = re.search(r"^model name\s*: (.+)$", text, flags=re.MULTILINE)
    return model[1] if model else platform.machine()


def host() -> dict[str, Any]:
    """Return what kind of machine this is, without its name: cpu, cores, memory_gib, system, scheduler."""
    schedulers = {"SLURM_JOB_ID": "slurm", "_CONDOR_SCRATCH_DIR": "htcondor"}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "scheduler": next((name for key, name in schedulers.items() if key in os.environ), "local"),
    }


def surroundings() -> dict[str, Any]:
    """Return what surrounds this process: git, python, packages, host."""
    return {"git": git_state(), "python": platform.python_version(), "packages": packages(), "host": host()}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _peak_mib() -> float:
    """Return the peak memory in MiB of this process, or of the largest of its children if that is more."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / _RSS_PER_MIB
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        status = ""
    # ru_maxrss starts at the memory of the process that started this one
    own = re.search(r"^VmHWM:\s+(\d+) kB$", status, flags=re.MULTILINE)
    mine = int(own[1]) / 2**10 if own else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _RSS_PER_MIB
    return round(max(mine, children), 1)


class Clock:
    """Started with a job; tells when that was and what the job used since."""

    def __init__(self) -> None:
        self.started = _now()
        self._monotonic = time.monotonic()

    def used(self) -> dict[str, float]:
        """Return wall time in s since the start; CPU time in s and peak memory in MiB of process and children."""
        own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
        return {
            "wall_s": round(time.monotonic() - self._monotonic, 3),
            "cpu_s": round(own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime, 3),
            "peak_rss_mib": _peak_mib(),
        }


def write_record(
    path: str | Path,
    *,
    rule: str,
    script: str,
    wildcards: Mapping[str, Any],
    inputs: Iterable[str | Path],
    outputs: Iterable[str | Path],
    params: Mapping[str, Any],
    threads: int,
    requested: Mapping[str, Any],
    clock: Clock,
) -> None:
    """Write the record of a job that has done its work.

    Parameters
    ----------
    path
        JSON file to write.
    rule, script, wildcards
        What ran.
    inputs, outputs
        Files and folders that it read and made; checksums are taken of the latter, which are the inputs of others.
    params
        All values that it was given; ``code`` is the digest of its code, ``seed`` its seed.
    threads, requested
        Threads, and resources that were asked for.
    clock
        Clock that was started with the job.

    Raises
    ------
    OSError
        If an output is missing.
    """
    used = clock.used()
    values = plain(params)
    write_json(
        path,
        {
            "rule": rule,
            "script": script,
            "wildcards": plain(wildcards),
            "inputs": [str(item) for item in inputs],
            "outputs": [{"path": str(item), "sha256": checksum(item), "bytes": size(item)} for item in outputs],
            "params": values,
            "code": values.get("code"),
            "seed": values.get("seed"),
            "threads": threads,
            **surroundings(),
            "resources": {"requested": plain(requested), "used": used},
            "started": clock.started,
            "ended": _now(),
        },
    )


def read_records(folder: str | Path) -> list[dict[str, Any]]:
    """Return the records of jobs below a folder; one that cannot be read counts as absent."""
    records = []
    for path in sorted(Path(folder).rglob("[!.]*.json")):
        try:
            record = read_json(path)
            record["outputs"], record["inputs"], record["ended"]
        except (ValueError, KeyError, TypeError):
            print(f"{path}: the record cannot be read and is left out", flush=True)
            continue
        records.append(record)
    return records
