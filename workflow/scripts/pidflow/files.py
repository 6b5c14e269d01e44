"""Files that are either whole or absent, and their checksums."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its name when the block ends well.

    Parameters
    ----------
    path
        Final name; its folder is made. On an exception the temporary file is removed and an
        existing file under the final name stays as it was.
    """
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    # the suffix stays last: writers choose their format by it
    temporary = final.with_name(f".{final.stem}.{os.getpid()}{final.suffix}")
    try:
        yield temporary
        os.replace(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text under its final name at once."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: Any) -> None:
    """Write JSON, indented, keys in the order given, refusing NaN and infinities."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def sha256(path: str | Path) -> str:
    """Return the hexadecimal SHA-256 of a file's content, read in blocks."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def visible_files(path: str | Path) -> list[Path]:
    """Return a file, or all files below a folder that are not hidden, sorted by path."""
    top = Path(path)
    if not top.is_dir():
        return [top]
    below = (file for file in top.rglob("*") if file.is_file())
    return sorted(file for file in below if not any(part.startswith(".") for part in file.relative_to(top).parts))


def size(path: str | Path) -> int:
    """Return the bytes of a file, or of all visible files below a folder."""
    return sum(file.stat().st_size for file in visible_files(path))


def size_mb(paths: str | Path | Iterable[str | Path]) -> float:
    """Return the `size` of a file, a folder, or several, in MB of 10⁶ bytes.

    Raises
    ------
    FileNotFoundError
        If one does not exist.
    """
    return sum(size(path) for path in ([paths] if isinstance(paths, str | Path) else paths)) / 1e6
