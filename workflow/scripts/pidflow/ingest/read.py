"""One entry for every input format: a file, or its share of a large one, unit by unit."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pidflow.errors import PidflowError
from pidflow.files import sha256
from pidflow.ingest.formats import Format, format_of
from pidflow.ingest.reader import Piece, Reader, Request
from pidflow.ingest.table import READER_VERSION, TrackWriter

_PROGRESS_S = 10.0


@dataclass
class Ingested:
    """What came of one input file.

    Attributes
    ----------
    format
        Format that was read.
    counts
        What was read and dropped.
    fingerprints
        Hash of the content of each data frame.
    """

    format: Format
    counts: Counter[str] = field(default_factory=lambda: Counter(tracks=0))
    fingerprints: dict[str, str] = field(default_factory=dict)

    def add(self, piece: Piece) -> None:
        """Count one unit in."""
        self.counts.update(piece.counts)
        self.fingerprints |= piece.fingerprints


def reader_of(kind: Format, request: Request) -> Reader:
    """Return the reader of a format; its imports are paid only by who uses it."""
    if kind == "ao2d":
        from pidflow.ingest.ao2d import Ao2dFile

        return Ao2dFile(request)
    if kind == "pidml":
        from pidflow.ingest.derived import PidMlFile

        return PidMlFile(request)
    if kind == "ud":
        from pidflow.ingest.derived import UdFile

        return UdFile(request)
    if kind == "esd":
        from pidflow.ingest.esd import EsdFile

        return EsdFile(request)
    from pidflow.ingest.flat import FlatFile

    return FlatFile(request)


def ingest_file(request: Request, tracks: str | Path, v0s: str | Path, *, part: int = 1, parts: int = 1) -> Ingested:
    """Read one input file, or a part of it, into a track table and a table of V0 candidates.

    Parameters
    ----------
    request
        The file and what it must agree with.
    tracks, v0s
        Parquet files to write.
    part, parts
        Which part of how many, counted from 1; parts are consecutive data frames.

    Returns
    -------
    Ingested
        What was read and dropped.

    Raises
    ------
    PidflowError
        If the file is unusable; nothing is left under `tracks` and `v0s`.
    """
    settings = request.settings
    kind = format_of(request.path, settings.tree) if settings.format == "auto" else settings.format
    ingested = Ingested(kind)
    reader = reader_of(kind, request)
    try:
        units = reader.units()
        chosen = [units[number] for number in np.array_split(np.arange(len(units)), parts)[part - 1]]
        with TrackWriter(tracks, v0s) as writer:
            for piece in _progress(map(reader.read, chosen), len(chosen), request.source):
                ingested.add(piece)
                writer.write(piece)
            writer.finish(
                {
                    "source": request.source,
                    "format": kind,
                    # one of a file's jobs is enough
                    **({"sha256": sha256(request.path)} if part == 1 else {}),
                    "reader_version": READER_VERSION,
                    "part": [part, parts],
                    "counts": dict(ingested.counts),
                    "fingerprints": ingested.fingerprints,
                }
            )
    finally:
        reader.close()
    return ingested


def _progress(pieces: Iterator[Piece], total: int, source: str) -> Iterator[Piece]:
    start = shown = time.monotonic()
    tracks = 0
    for number, piece in enumerate(pieces, start=1):
        tracks += piece.tracks.num_rows
        yield piece
        now = time.monotonic()
        if now - shown > _PROGRESS_S:
            shown = now
            left = (now - start) / number * (total - number)
            rate = tracks / (now - start)
            print(f"{source}: {number}/{total}, {tracks:,} tracks, {rate:,.0f} tracks/s, {left:.0f} s left", flush=True)


def skip_file(request: Request, tracks: str | Path, v0s: str | Path, error: PidflowError) -> None:
    """Write empty tables in place of a file that could not be read, with the reason in their metadata."""
    with TrackWriter(tracks, v0s) as writer:
        writer.finish({"source": request.source, "skipped": str(error), "reader_version": READER_VERSION})
