"""Where ingestion leaves its tables: a folder per batch of files, in it a pair of tables per file."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

Kind = Literal["tracks", "v0s"]

_PART = re.compile(r"\.(\d+)of\d+$")


def table_name(key: str, kind: Kind) -> str:
    """Return the name of the table of one input file, given the file's key (`pidflow.config.file_key`)."""
    return f"{key}.{kind}.parquet"


def find_tables(folders: Iterable[str | Path], kind: Kind) -> list[Path]:
    """Return the tables in folders of batches, by file and part: the order does not depend on the batches."""
    return sorted((path for folder in folders for path in Path(folder).glob(f"*.{kind}.parquet")), key=_position)


def _position(path: Path) -> tuple[str, int]:
    part = _PART.search(path.parent.name)
    return path.name, int(part[1]) if part else 1
