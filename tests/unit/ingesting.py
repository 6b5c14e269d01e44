"""Ingestion of one file, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pidflow.config.models import Ingest
from pidflow.ingest.read import Ingested, ingest_file
from pidflow.ingest.reader import Request

DEFAULTS: dict[str, Any] = {
    "run": 900001, "period": "EX22a", "recopass": "apass1", "bz": -5.0, "simulation": True, "settings": Ingest(),
}  # fmt: skip


def ingested(path: Path, tracks: Path, *, part: int = 1, parts: int = 1, **changes: Any) -> Ingested:
    """Ingest a file under its own name; V0 candidates go beside `tracks`."""
    request = Request(path=path, **{"source": path.name} | DEFAULTS | changes)
    return ingest_file(request, tracks, tracks.with_suffix(".v0.parquet"), part=part, parts=parts)


def ingest(path: Path, tracks: Path, **changes: Any) -> dict[str, int]:
    """Ingest a file and return the counts."""
    return dict(ingested(path, tracks, **changes).counts)
