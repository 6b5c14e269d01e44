"""What all readers of input files have in common: what they are asked, and what they give."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pidflow.config.models import Ingest

Columns = dict[str, Any]
"""Columns of the track table, or leaves of a tree, by name; each an array [n], masked where a detector saw
nothing, or one text for all rows."""


@dataclass(frozen=True)
class Request:
    """What is to be read, and what it must agree with.

    Attributes
    ----------
    path
        Local file.
    source
        Name of the file in the run table; part of every row's identity.
    run, period, recopass
        Run number, data-taking period and reconstruction pass that the file must belong to.
    bz
        Magnetic field along the beam in kG, with its sign.
    simulation
        Whether the file must carry Monte Carlo truth (and must not, if False).
    settings
        The ``ingest`` block of the configuration.
    """

    path: Path
    source: str
    run: int
    period: str
    recopass: str
    bz: float
    simulation: bool
    settings: Ingest


@dataclass(frozen=True)
class Piece:
    """What one unit of a file gave.

    Attributes
    ----------
    tracks
        Track table (`pidflow.tracks.schema`).
    counts
        What was read and dropped; summed over the units of a file.
    fingerprints
        Hash of the content by the name of the data frame, to find the same frame in two files.
    v0s
        Decay candidates (`pidflow.v0s.schema`); None where the format lacks what it takes to find them.
    """

    tracks: pa.Table
    counts: Mapping[str, int]
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    v0s: pa.Table | None = None


class Reader(ABC):
    """A reader of one format.

    `units` and `read` raise `PidflowError` if the file is damaged, lacks a table or a column, or does
    not belong to the run.
    """

    def __init__(self, request: Request) -> None:
        self.request = request

    @abstractmethod
    def units(self) -> Sequence[Any]:
        """Return the parts of the file that are read one at a time, in order."""

    @abstractmethod
    def read(self, unit: Any) -> Piece:
        """Read one unit; units are asked for in order, some may be left out."""

    def close(self) -> None:  # noqa: B027 (a reader may have nothing to close)
        """Close the file."""


def masked_unless(present: NDArray[np.bool_], values: Any) -> NDArray[Any]:
    """Return `values` [n], masked where the detector was not `present`."""
    return np.ma.array(values, mask=~present)


def measured(present: NDArray[np.bool_], values: NDArray[Any]) -> NDArray[Any]:
    """Return a quantity that cannot be negative, masked where it is or the detector saw nothing.

    Sentinels (-999, and what truncation of its mantissa leaves) are negative.
    """
    return masked_unless(present & (values >= 0), values)


def recorded(present: NDArray[np.bool_], values: NDArray[Any]) -> NDArray[Any]:
    """Return an energy loss [n], masked where it is not positive or the detector saw nothing."""
    return masked_unless(present & (values > 0), values)
