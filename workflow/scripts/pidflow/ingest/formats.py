"""Which format a file has, by what it holds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pidflow.errors import PidflowError
from pidflow.ingest.frames import frame_names
from pidflow.ingest.rootfile import RootFile, damage_told, top_keys

Format = Literal["flat", "ao2d", "pidml", "ud", "esd"]

_TABLES: dict[Format, str] = {
    "ao2d": r"O2track(_iu)?(_\d{3})?",
    "pidml": r"O2pidtracks(data|mc)(ml)?(_\d{3})?",
    "ud": r"O2udtrack(_\d{3})?",
}
"""Table of tracks that tells one kind of AO2D from another."""


def format_of(path: Path, tree: str | None) -> Format:
    """Return the format of a file.

    Parameters
    ----------
    path
        Local file.
    tree
        Name of the tree that a flat ROOT file would hold its tracks in, if the user gave one.

    Raises
    ------
    PidflowError
        If the file is neither ROOT nor Parquet, or holds no tracks that any reader knows.
    """
    try:
        with path.open("rb") as stream:
            magic = stream.read(4)
    except OSError as error:
        raise PidflowError(f"{path}: cannot be read ({error.strerror}); correct the path in the run table") from None
    if magic == b"PAR1":
        return "flat"
    if magic != b"root":
        kind = "an empty file" if not magic else "neither ROOT nor Parquet"
        raise PidflowError(f"{path}: {kind}; transfer it again, or correct the path in the run table")
    file = RootFile(path)
    try:
        with damage_told(path):
            return _format_of_root(path, file, tree)
    finally:
        file.close()


def _format_of_root(path: Path, file: RootFile, tree: str | None) -> Format:
    handle = file.handle()
    keys = top_keys(handle)
    if tree is not None and tree in keys:
        return "flat"
    if "esdTree" in keys:
        return "esd"
    frames = frame_names(keys)
    for frame in frames:
        tables = top_keys(handle[frame])
        for kind, pattern in _TABLES.items():
            if any(re.fullmatch(pattern, table) for table in tables):
                return kind
    if frames:
        raise PidflowError(f"{path}: none of its {len(frames)} data frames holds a table of tracks; remove it")
    found = ", ".join(sorted(keys)[:5]) or "nothing"
    raise PidflowError(
        f"{path}: holds no data frame DF_<n> and no esdTree, only {found}; give an AO2D or an AliESDs file, "
        "or name the tree of a flat table in 'ingest.tree'"
    )
