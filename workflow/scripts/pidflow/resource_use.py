"""What the jobs of a production asked for, and what they used: by rule, from the records that they left."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median
from typing import Any

from pidflow.errors import PidflowError
from pidflow.files import write_text
from pidflow.record import read_records


@dataclass(frozen=True)
class Use:
    """The jobs of one rule.

    Attributes
    ----------
    rule
        Name of the rule.
    jobs
        How many left a record.
    wall_s, longest_s
        Median and maximum of the time that a job ran, s.
    cpu_s
        Processor time of all jobs, s.
    cpu_share
        Processor time per time and thread.
    memory_requested_mb, memory_peak_mb
        Largest request and largest use, MB of 10⁶ bytes; the request is None where a rule has none.
    runtime_requested_s
        Largest time asked for, s, or None.
    """

    rule: str
    jobs: int
    wall_s: float
    longest_s: float
    cpu_s: float
    cpu_share: float
    memory_requested_mb: int | None
    memory_peak_mb: float
    runtime_requested_s: int | None


def resource_use(folders: Iterable[str | Path]) -> list[Use]:
    """Return what the jobs used, the most expensive rule first.

    Parameters
    ----------
    folders
        Folders that hold records of jobs, at any depth.

    Raises
    ------
    PidflowError
        If there is no record.
    """
    found = [record for folder in folders for record in read_records(folder)]
    if not found:
        raise PidflowError("no job has left a record of its resources; run the production first")
    by_rule: dict[str, list[dict[str, Any]]] = {}
    for record in found:
        by_rule.setdefault(record["rule"], []).append(record)
    return sorted((_use(rule, records) for rule, records in by_rule.items()), key=lambda use: -use.cpu_s)


def _use(rule: str, records: Sequence[Mapping[str, Any]]) -> Use:
    used = [record["resources"]["used"] for record in records]
    wall = [each["wall_s"] for each in used]
    cpu = sum(each["cpu_s"] for each in used)
    requested = [record["resources"]["requested"] for record in records]
    memory = [each["mem_mb"] for each in requested if each.get("mem_mb")]
    runtime = [60 * each["runtime"] for each in requested if each.get("runtime")]
    occupied = sum(record["threads"] * seconds for record, seconds in zip(records, wall, strict=True))
    return Use(
        rule=rule,
        jobs=len(records),
        wall_s=round(median(wall), 2),
        longest_s=round(max(wall), 2),
        cpu_s=round(cpu, 2),
        cpu_share=round(cpu / occupied, 3) if occupied else 0.0,
        memory_requested_mb=max(memory, default=None),
        memory_peak_mb=round(max(each["peak_rss_mib"] for each in used) * 1.048576, 1),
        runtime_requested_s=max(runtime, default=None),
    )


def write_csv(uses: Sequence[Use], output: str | Path) -> None:
    """Write one line per rule, with the attributes of `Use` as columns; nothing where there was no request."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, [field.name for field in fields(Use)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(use) for use in uses)
    write_text(output, stream.getvalue())


def format_table(uses: Sequence[Use]) -> str:
    """Return the table as text for a terminal."""
    lines = [f"{'rule':<22}{'jobs':>6}{'median':>9}{'longest':>9}{'CPU':>10}{'memory peak / asked':>24}"]
    for use in uses:
        asked = "–" if use.memory_requested_mb is None else f"{use.memory_requested_mb:,}"
        lines.append(
            f"{use.rule:<22}{use.jobs:>6}{use.wall_s:>8.1f}s{use.longest_s:>8.1f}s{use.cpu_s:>9,.0f}s"
            f"{f'{use.memory_peak_mb:,.0f} / {asked} MB':>24}"
        )
    return "\n".join(lines)
