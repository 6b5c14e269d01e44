"""Which input files one job reads: small files together, a large one in parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pidflow.config.runs import ADDRESS


@dataclass(frozen=True)
class Batch:
    """Consecutive files of a sample.

    Attributes
    ----------
    key
        Key of the first file (`pidflow.config.file_key`), so that files which are added behind do not rename it.
    uris
        Paths and addresses as in the run table.
    parts
        How many jobs share it; more than one only for a single file.
    """

    key: str
    uris: tuple[str, ...]
    parts: int = 1

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Suffix of each part's name: empty for a batch that one job reads whole."""
        return tuple(f".{n}of{self.parts}" for n in range(1, self.parts + 1)) if self.parts > 1 else ("",)


def batches(files: Mapping[str, str], *, megabytes: int, generated: str, whole: bool) -> dict[str, Batch]:
    """Return the batches of a sample by key, in the table's order.

    Parameters
    ----------
    files
        Paths and addresses by key (`Run.files`).
    megabytes
        Local files are put together up to this size, MB of 10⁶ bytes, and a larger ROOT file is parted by it.
        The size of a remote file is not known before it is fetched: it is a batch of its own.
    generated
        Folder whose files the workflow makes; they count as empty, so that batches are the same before and after.
    whole
        Whether a large file must not be parted.
    """
    return {batch.key: batch for batch in _batches(files, megabytes * 1_000_000, generated.rstrip("/") + "/", whole)}


def _batches(files: Mapping[str, str], limit: int, generated: str, whole: bool) -> Iterator[Batch]:
    keys: list[str] = []
    filled = 0
    for key, uri in files.items():
        alone = bool(ADDRESS.match(uri))
        size = 0 if alone or uri.startswith(generated) else Path(uri).stat().st_size
        parts = 1 if whole or Path(uri).suffix != ".root" else max(1, -(-size // limit))
        if keys and (alone or filled + size > limit):
            yield Batch(keys[0], tuple(files[k] for k in keys))
            keys, filled = [], 0
        if alone or parts > 1:
            yield Batch(key, (uri,), parts)
        else:
            keys.append(key)
            filled += size
    if keys:
        yield Batch(keys[0], tuple(files[k] for k in keys))
