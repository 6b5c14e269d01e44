"""Ingestion of a batch of files into one folder."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from pidflow.config import file_key
from pidflow.config.models import BadFiles
from pidflow.errors import PidflowError
from pidflow.ingest.read import ingest_file, skip_file
from pidflow.ingest.reader import Request
from pidflow.tables import table_name


def ingest_batch(
    requests: Sequence[Request], folder: str | Path, *, part: int = 1, parts: int = 1, policy: BadFiles
) -> None:
    """Read files one after another, each into a track table and a table of V0 candidates.

    Parameters
    ----------
    requests
        The files and what they must agree with.
    folder
        Folder to make; its files are named by `pidflow.tables.table_name`.
    part, parts
        Which part of how many of each file, counted from 1.
    policy
        Whether an unusable file ends the job, or leaves an empty table that gives the reason.

    Raises
    ------
    PidflowError
        If a file is unusable and the policy is to fail; the folder is not left behind.
    """
    final = Path(folder)
    work = final.with_name(f".{final.name}.part")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        for request in requests:
            key = file_key(request.source)
            tracks, v0s = work / table_name(key, "tracks"), work / table_name(key, "v0s")
            try:
                ingested = ingest_file(request, tracks, v0s, part=part, parts=parts)
                print(f"{request.source}: {ingested.format}, {dict(ingested.counts)}", flush=True)
            except PidflowError as error:
                if policy.policy == "fail":
                    raise
                skip_file(request, tracks, v0s, error)
                print(f"skipped: {error}", flush=True)
        shutil.rmtree(final, ignore_errors=True)
        work.rename(final)
    finally:
        shutil.rmtree(work, ignore_errors=True)
