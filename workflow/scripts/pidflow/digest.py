"""Digest of the code behind a script: the script and every pidflow module that it imports, however deep."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path

_ROOT = Path(__file__).parent.parent

# every job reads all rules, so this runs thousands of times a night: ten times faster than the syntax tree,
# and at worst a docstring that looks like an import adds a module
_IMPORT = re.compile(r"^[ \t]*import[ \t]+(pidflow[\w.]*)", re.MULTILINE)
_FROM = re.compile(r"^[ \t]*from[ \t]+(pidflow[\w.]*)[ \t]+import[ \t]+(\([^)]*\)|.*)", re.MULTILINE)
_NAME = re.compile(r"(\w+)(?:\s+as\s+\w+)?")


def _file_of(module: str) -> Path | None:
    path = _ROOT.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@cache
def _imports(path: Path) -> frozenset[Path]:
    """Return the files of the package that one file imports, at any depth of its code."""
    text = path.read_text(encoding="utf-8")
    names = {match[1] for match in _IMPORT.finditer(text)}
    for match in _FROM.finditer(text):
        names.add(match[1])
        names.update(f"{match[1]}.{name}" for name in _NAME.findall(match[2]))
    # importing a.b.c runs the __init__ of a and of a.b too
    with_parents = {
        ".".join(parts[: n + 1]) for name in names for parts in [name.split(".")] for n in range(len(parts))
    }
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


@cache
def digest(program: str) -> str:
    """Return 16 hexadecimal digits that change with the script or any module behind it.

    Parameters
    ----------
    program
        File name of a script in the folder that holds the package, such as ``ingest_files.py``; after it, separated
        by spaces, what it loads by name: kinds of model (`pidflow.models`) and of step (`pidflow.adapt.steps`), such as
        ``adapt_model.py fse adapt.steps.dann``.
    """
    script, *kinds = program.split()
    modules = (kind if "." in kind else f"models.{kind}" for kind in kinds)
    roots = (_ROOT / script, *(_ROOT.joinpath("pidflow", *module.split(".")).with_suffix(".py") for module in modules))
    result = hashlib.sha256()
    for path in sorted({path for root in roots for path in sources(root)}):
        result.update(path.relative_to(_ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return result.hexdigest()[:16]
