"""The input gate of a sample: what was skipped, whether that is few enough, and whether a data frame came twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pidflow.config.models import BadFiles
from pidflow.errors import PidflowError
from pidflow.files import write_json
from pidflow.origin import read_origin

_OF_TABLE = ("fingerprints", "filled", "part")
"""What an origin says of its table alone."""


def check_inputs(tables: Sequence[str | Path], output: str | Path, *, policy: BadFiles) -> None:
    """Check the input files of a sample together, and write what they held.

    Parameters
    ----------
    tables
        Track tables of one sample, as ingestion wrote them; a skipped file's is empty.
    output
        JSON: files with format, checksum and counts; skipped files with the reason; sums of the counts.
    policy
        How many files may be skipped.

    Raises
    ------
    PidflowError
        If more files were skipped than the policy allows, all were, or two files hold the same data frame.
    """
    origins = [read_origin(path) for path in tables]
    sources = {origin["source"] for origin in origins}
    skipped = {origin["source"]: origin["skipped"] for origin in origins if "skipped" in origin}
    share = len(skipped) / len(sources)
    if skipped and (share > policy.max_share or len(skipped) == len(sources)):
        raise PidflowError(
            f"{len(skipped)} of {len(sources)} input files cannot be used, more than 'ingest.bad_files.max_share' "
            f"({policy.max_share:g}) allows; the first: {next(iter(skipped.values()))}"
        )
    read = [origin for origin in origins if "skipped" not in origin]
    _require_distinct(read)
    files = _files(read)
    counts: Counter[str] = Counter()
    for file in files:
        counts.update(file["counts"])
    write_json(
        output,
        {
            "files": files,
            "skipped": [{"source": source, "reason": reason} for source, reason in skipped.items()],
            "counts": dict(counts),
        },
    )


def _files(origins: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what was read of each file, its parts together."""
    files: dict[str, dict[str, Any]] = {}
    for origin in origins:
        file = files.setdefault(origin["source"], {"counts": Counter()})
        file["counts"].update(origin["counts"])
        file |= {key: value for key, value in origin.items() if key not in (*_OF_TABLE, "counts")}
    return [{**file, "counts": dict(file["counts"])} for file in files.values()]


def _require_distinct(origins: Sequence[dict[str, Any]]) -> None:
    seen: dict[tuple[str, str], str] = {}
    for origin in origins:
        for frame, content in origin["fingerprints"].items():
            other = seen.setdefault((frame, content), origin["source"])
            if other != origin["source"]:
                raise PidflowError(
                    f"{origin['source']}: data frame {frame} is the same as that in {other}; list one of the files"
                )
