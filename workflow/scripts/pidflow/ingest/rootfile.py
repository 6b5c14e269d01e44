"""Checks that hold for every ROOT file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pidflow.errors import PidflowError


def require_whole(path: Path, file: Any) -> None:
    """Raise `PidflowError` if a ROOT file that uproot opened is shorter than its header says.

    A file that lost its end can still be read where the lost bytes belong to columns that nobody asks for.
    """
    size, expected = path.stat().st_size, file.file.fEND
    if size < expected:
        raise PidflowError(f"{path}: damaged or truncated file ({size} of {expected} bytes); transfer it again")
