"""Digest of the code behind a script: the script and every pidflow module that it imports, however deep."""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from pathlib import Path

_PACKAGE = "pidflow"
_ROOT = Path(__file__).parent.parent


def _file_of(module: str) -> Path | None:
    path = _ROOT.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@cache
def _imports(path: Path) -> frozenset[Path]:
    """Return the files of the package that one file imports, at any depth of its code."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    own = [name for name in names if name.split(".")[0] == _PACKAGE]
    # importing a.b.c runs the __init__ of a and of a.b too
    with_parents = {".".join(parts[: n + 1]) for name in own for parts in [name.split(".")] for n in range(len(parts))}
    return frozenset(file for name in with_parents if (file := _file_of(name)))


@cache
def sources(script: Path) -> tuple[Path, ...]:
    """Return a script and all package files that it needs, sorted."""
    found, waiting = set(), [script]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting.extend(_imports(path))
    return tuple(sorted(found))


def digest(script: str | Path) -> str:
    """Return 16 hexadecimal digits that change with the script or any module behind it.

    Parameters
    ----------
    script
        File name of a script in the folder that holds the package, such as ``ingest_file.py``.
    """
    result = hashlib.sha256()
    for path in sources(_ROOT / script):
        result.update(path.relative_to(_ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return result.hexdigest()[:16]
