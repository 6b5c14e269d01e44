"""Where a track table came from, kept in the file's own metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

_KEY = b"pidflow"


def as_metadata(origin: dict[str, Any]) -> dict[bytes, str]:
    """Return the key-value metadata that carries `origin`."""
    return {_KEY: json.dumps(origin)}


def read_origin(path: str | Path) -> dict[str, Any]:
    """Return a track table's origin: ``source``, ``sha256``, ``counts``, the ``filled`` columns and more."""
    origin: dict[str, Any] = json.loads(pq.read_metadata(path).metadata[_KEY])
    return origin
