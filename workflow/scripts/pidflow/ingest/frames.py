"""AO2D files: folders ``DF_<n>`` of trees, one reader's unit each.

Facts of the layout: AliceO2 ``Framework/Core/include/Framework/{AnalysisDataModel,DataTypes}.h``.
"""

from __future__ import annotations

import hashlib
import re
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import awkward as ak
import numpy as np

from pidflow.errors import PidflowError
from pidflow.ingest.metadata import check_metadata
from pidflow.ingest.reader import Columns, Piece, Reader, Request
from pidflow.ingest.rootfile import RootFile, damage_told, top_keys

_FOLDER = re.compile(r"DF_(\d+)")
_RUN_SHIFT = 32


def frame_names(keys: Iterable[str]) -> list[str]:
    """Return the data frames among a file's keys, by number."""
    return sorted((key for key in keys if _FOLDER.fullmatch(key)), key=lambda name: int(name[3:]))


class Frame:
    """One data frame of an open file.

    Parameters
    ----------
    path
        Name of the file in messages.
    folder
        Its folder, from uproot.
    name
        ``DF_<n>``.
    versions
        By name of a table without version: the versions that the reader knows, as suffixes.

    Attributes
    ----------
    number
        n of ``DF_<n>``.
    where
        File and data frame, for messages.
    """

    def __init__(self, path: Any, folder: Any, name: str, versions: Mapping[str, tuple[str, ...]]) -> None:
        self.number = int(name[3:])
        self.where = f"{path}: data frame {name}"
        self._path, self._folder, self._versions = path, folder, versions
        self._names = top_keys(folder)

    def version(self, table: str) -> str | None:
        """Return the name of the table with its version, None if the frame has none.

        Raises
        ------
        PidflowError
            If the frame has the table in versions that the reader does not know.
        """
        found = sorted(name for name in self._names if re.fullmatch(rf"{table}(_\d{{3}})?", name))
        for name in found:
            if name.removeprefix(table) in self._versions[table]:
                return name
        if found:
            known = " or ".join(table + suffix for suffix in self._versions[table])
            raise PidflowError(
                f"{self.where} holds {found[0]}, which this reader does not know; give files with {known}"
            )
        return None

    def rows(self, table: str) -> int:
        """Return the number of rows of a table, 0 if the frame has none of that name."""
        name = self.version(table)
        with damage_told(self._path):
            return int(self._folder[name].num_entries) if name else 0

    def read(self, table: str, columns: Iterable[str], optional: Iterable[str] = ()) -> Columns:
        """Return columns of a table, [n]; a list column counts by its first entry, -1 if it has none.

        Parameters
        ----------
        table
            Name without version.
        columns
            Leaves that must be there.
        optional
            Leaves that are left out if absent.

        Raises
        ------
        PidflowError
            If the table or a column is missing.
        """
        name = self.version(table)
        if name is None:
            shown = ", ".join(sorted(self._names)[:6]) or "nothing"
            raise PidflowError(f"{self.where} lacks the table {table} (it holds {shown}); give a file that has it")
        with damage_told(self._path):
            tree = self._folder[name]
            present = set(tree.keys(recursive=False))
        if absent := [column for column in columns if column not in present]:
            raise PidflowError(f"{self.where}, table {name} lacks the column {absent[0]}; give a file written with it")
        wanted = [*columns, *(column for column in optional if column in present)]
        lists = [column for column in wanted if column.startswith("fIndexArray_")]
        flat = [column for column in wanted if column not in lists]
        with damage_told(self._path):
            arrays: Columns = tree.arrays(flat, library="np") if flat else {}
            for column in lists:
                arrays[column] = ak.to_numpy(ak.fill_none(ak.firsts(tree[column].array(library="ak")), -1))
        self._require_whole(name, tree.num_entries, arrays)
        return arrays

    def _require_whole(self, name: str, entries: int, arrays: Columns) -> None:
        for column, values in arrays.items():
            if values.ndim != 1 or len(values) != entries or values.dtype == object:
                raise PidflowError(
                    f"{self.where}, table {name}: the column {column} does not hold one number per row; "
                    "produce the file again"
                )


class FrameReader(Reader):
    """A reader of one kind of AO2D, data frame by data frame."""

    versions: ClassVar[Mapping[str, tuple[str, ...]]]

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self._file = RootFile(request.path)

    def units(self) -> list[str]:
        """Return the names of the data frames, after a check of the file's own description."""
        with damage_told(self.request.path):
            handle = self._file.handle()
            check_metadata(handle, self.request)
            return frame_names(top_keys(handle))

    def read(self, unit: str) -> Piece:
        """Read the data frame of that name."""
        with damage_told(self.request.path):
            frame = Frame(self.request.path, self._file.handle()[unit], unit, self.versions)
        return self.piece(frame)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @abstractmethod
    def piece(self, frame: Frame) -> Piece:
        """Return the track table of one data frame."""

    def check_run(self, frame: Frame, recorded: Iterable[int]) -> None:
        """Raise `PidflowError` unless the frame belongs to the run.

        Parameters
        ----------
        frame
            Data frame; recent writers put the run into the upper half of its number.
        recorded
            Run numbers that its trees hold.
        """
        named = [frame.number >> _RUN_SHIFT] if frame.number >> _RUN_SHIFT else []
        runs = sorted({*named, *recorded})
        if runs and runs != [self.request.run]:
            found = ", ".join(str(run) for run in runs[:3])
            raise PidflowError(
                f"{frame.where} belongs to run {found}, not {self.request.run}; list it under its own run"
            )

    def check_kind(self, frame: Frame, labelled: bool) -> None:
        """Raise `PidflowError` if Monte Carlo labels are there for data, or missing for simulation."""
        if labelled and not self.request.simulation:
            raise PidflowError(f"{frame.where} holds Monte Carlo labels; list the file under 'simulation', not 'data'")
        if self.request.simulation and not labelled:
            raise PidflowError(
                f"{frame.where} holds no Monte Carlo labels; list the file under 'data', not 'simulation'"
            )

    def identity(self, number: int, rows: np.ndarray[Any, Any], collision_id: np.ndarray[Any, Any]) -> Columns:
        """Return the columns that identify tracks [n], given the data frame's number and their rows in it."""
        return {
            "source": self.request.source,
            "data_frame": np.full(len(rows), number, dtype=np.int64),
            "row": rows.astype(np.int32),
            "run": np.full(len(rows), self.request.run, dtype=np.int32),
            "collision_id": collision_id,
        }


def require_range(where: str, name: str, index: np.ndarray[Any, Any], table: str, length: int) -> None:
    """Raise `PidflowError` if an index points outside the table of `length` rows (-1 means none)."""
    if len(index) and (index.max() >= length or index.min() < -1):
        raise PidflowError(f"{where}: {name} points outside {table}; produce the file again")


def require_joined(where: str, first: tuple[str, int], second: tuple[str, int]) -> None:
    """Raise `PidflowError` unless two joined tables, given by name and length, are as long."""
    if first[1] != second[1]:
        raise PidflowError(
            f"{where}: {second[0]} and {first[0]} differ in length ({second[1]} and {first[1]}); produce the file again"
        )


def fingerprint(*columns: np.ndarray[Any, Any]) -> str:
    """Return a hash of the columns' bytes, 16 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=8)
    for column in columns:
        digest.update(np.ascontiguousarray(column).data)
    return digest.hexdigest()


_BLOCK_TRACKS = 131_072
"""Tracks that are derived at a time, which bounds the memory of large data frames."""


def collision_blocks(collision: np.ndarray[Any, Any], size: int = _BLOCK_TRACKS) -> list[slice]:
    """Return slices of tracks [n] that no collision straddles, of `size` tracks or more, the last of fewer.

    Parameters
    ----------
    collision
        Row of each track's collision; tracks that are not in the order of their collisions stay together.
    size
        Least number of tracks of a slice.
    """
    highest = np.maximum.accumulate(collision)
    lowest_behind = np.minimum.accumulate(collision[::-1])[::-1]
    ends = np.flatnonzero(highest[:-1] < lowest_behind[1:]) + 1
    blocks, start = [], 0
    while start + size < len(collision):
        place = int(np.searchsorted(ends, start + size))
        if place == len(ends):
            break
        blocks.append(slice(start, int(ends[place])))
        start = int(ends[place])
    return [*blocks, slice(start, len(collision))]
