"""Members of the ``esdTree`` as numpy arrays, with what uproot cannot read decoded from the bytes.

An ESD keeps each array of objects (``Tracks``, ``AliESDTOFHit`` …) split into one branch per data member,
where an entry holds the member of all the event's objects, one after the other and big-endian. The decoding
goes over the objects of an event in a loop, for all events at once.

Formats: ROOT ``TStreamerInfoWriteBuffer.cxx`` (a counted array is one byte, 1 or 0 if it is absent, and its
values), ``TBufferFile::WriteObjectAny`` (an object is the number of its bytes, a class and its content, or
four zero bytes), ``TBits`` (bit i is bit i % 8 of byte i / 8).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot
from numpy.typing import DTypeLike, NDArray
from uproot.interpretation.numerical import TruncatedNumerical

from pidflow.errors import PidflowError

Counts = NDArray[np.int64]
Bytes = NDArray[np.uint8]

_BYTE_COUNT_BITS = 30
_NEW_CLASS = 0xFFFFFFFF
_CLASS_REFERENCE = np.int64(0x80000000)
_NULL_BYTES = 4
_LONGEST_READ = 4

_TRACK_CLASS = b"AliExternalTrackParam\0"
_TRACK_MEMBERS = {"fX": 1, "fAlpha": 1, "fP": 5, "fC": 15}
_TRACK_VALUES = sum(_TRACK_MEMBERS.values())
_ARRAY_TYPE = 20
_ELEMENT_DTYPE = {5: ">f4", 8: ">f8", 9: ">f4"}
"""Stored type by ROOT's type of a streamer element: Float_t, Double_t, Double32_t without range."""


@dataclass(frozen=True)
class Ragged:
    """Lists of values, one per object.

    Attributes
    ----------
    values
        Values of all lists, one after the other, [m].
    counts
        Length of each list, int64 [n].
    """

    values: NDArray[Any]
    counts: Counts

    def blocks(self) -> Iterator[tuple[NDArray[np.intp], NDArray[Any]]]:
        """Yield the lists of each length that occurs, but for empty ones, as (rows [k], values [k, length])."""
        starts = np.cumsum(self.counts) - self.counts
        for length in np.unique(self.counts[self.counts > 0]):
            rows = np.flatnonzero(self.counts == length)
            if len(rows) * length == len(self.values):
                yield rows, self.values.reshape(-1, length)
            else:
                yield rows, self.values[starts[rows][:, None] + np.arange(length)]

    def first(self, default: int) -> NDArray[Any]:
        """Return the first value of each list, `default` where it is empty, [n]."""
        first = np.full(len(self.counts), default, dtype=self.values.dtype)
        filled = self.counts > 0
        first[filled] = self.values[(np.cumsum(self.counts) - self.counts)[filled]]
        return first


@dataclass(frozen=True)
class Bits:
    """Bit maps (``TBits``), one per object.

    Attributes
    ----------
    content
        Bytes of each map, uint8.
    length
        Number of bits of each map, int64 [n].
    """

    content: Ragged
    length: Counts

    def count(self) -> Counts:
        """Return the number of bits that are set, [n] (``TBits::CountBits``)."""
        total = np.zeros(len(self.length), dtype=np.int64)
        for rows, content in self.content.blocks():
            total[rows] = np.bitwise_count(content).sum(axis=1)
        return total

    def crossed_rows(self, rows_of_detector: int = 159, neighbours: int = 2) -> Counts:
        """Return the pad rows that hold a cluster or have one among their neighbours, [n].

        Parameters
        ----------
        rows_of_detector
            Rows that are looked at.
        neighbours
            How far a cluster counts before and after a row.

        Notes
        -----
        ``AliESDtrack::GetTPCClusterInfo(2, 1)`` of AliRoot, which ``GetTPCCrossedRows`` calls. There, the
        search before a row starts at row ``-neighbours`` as if it held a cluster, so row 0 always counts.
        """
        crossed = np.zeros(len(self.length), dtype=np.int64)
        for rows, content in self.content.blocks():
            hit = np.unpackbits(content, axis=1, bitorder="little").astype(bool)
            hit &= np.arange(hit.shape[1]) < self.length[rows][:, None]
            near = hit.copy()
            for step in range(1, neighbours + 1):
                near[:, step:] |= hit[:, :-step]
                near[:, :-step] |= hit[:, step:]
            near[:, 0] = True
            near &= np.arange(hit.shape[1]) < np.minimum(self.length[rows], rows_of_detector)[:, None]
            crossed[rows] = near.sum(axis=1)
        return crossed


class EsdTree:
    """The ``esdTree`` of an open file, by what it holds, whatever the version of its classes.

    Parameters
    ----------
    path
        Name of the file in messages.
    handle
        Open file, from uproot.

    Notes
    -----
    Arrays are read for a range of events, ``start`` to ``stop`` (exclusive). Names are those of the data
    members, without array bounds; names of groups (branches of objects) come without the trailing dot that
    AliRoot adds since 2008.
    """

    def __init__(self, path: Path, handle: Any) -> None:
        self.path = path
        alias_missing_bases(handle.file.streamers)
        self._streamers = handle.file.streamers
        self._tree = handle["esdTree"]
        self._groups: dict[str, dict[str, Any]] = {}

    @property
    def events(self) -> int:
        """Number of events."""
        return int(self._tree.num_entries)

    def has(self, group: str, member: str | None = None) -> bool:
        """Return whether the tree has a branch of objects, or that member of it."""
        members = self._members(group)
        return bool(members) if member is None else member in members

    def require(self, group: str, members: tuple[str, ...]) -> None:
        """Raise `PidflowError` if a member is missing."""
        for member in members:
            if not self.has(group, member):
                raise PidflowError(
                    f"{self.path}: esdTree lacks the branch {group}.{member}; give an AliESDs file that has it"
                )

    def sizes(self, group: str, start: int, stop: int) -> Counts:
        """Return the number of objects of an array in each event, int64 [events]."""
        self._require_group(group)
        branch = self._members(group)[""]
        sizes: Counts = branch.array(uproot.AsDtype(">i4"), entry_start=start, entry_stop=stop, library="np").astype(
            np.int64
        )
        if len(sizes) != stop - start or (len(sizes) and sizes.min() < 0):
            raise self._damaged(group, "the number of objects per event is not readable")
        return sizes

    def per_event(self, group: str, member: str, start: int, stop: int) -> NDArray[Any]:
        """Return a member of an object that each event has once, [events, …]."""
        self.require(group, (member,))
        values = self._members(group)[member].array(entry_start=start, entry_stop=stop, library="np")
        if len(values) != stop - start:
            raise self._damaged(f"{group}.{member}", f"{len(values)} values for {stop - start} events")
        return np.asarray(values)

    def values(self, group: str, member: str, start: int, stop: int, sizes: Counts) -> NDArray[Any]:
        """Return a member of fixed size of the objects of an array, [objects, …].

        Parameters
        ----------
        sizes
            Number of objects of each event, as `sizes` returns it.

        Raises
        ------
        PidflowError
            If the file has no such member, or not as many values as objects.

        Notes
        -----
        uproot 5.7 takes an array of packed numbers (``Double32_t fR[5]; // [0,0,8]``) for as many objects; so
        it is asked for single numbers, which are put together here.
        """
        self.require(group, (member,))
        branch = self._members(group)[member]
        interpretation = branch.interpretation
        if not isinstance(interpretation, uproot.AsJagged):
            raise self._damaged(f"{group}.{member}", f"is {interpretation}, not one value per object")
        content, shape = interpretation.content, ()
        if isinstance(content, TruncatedNumerical) and content.to_dims:
            shape = content.to_dims
            interpretation = uproot.AsJagged(type(content)(content.low, content.high, content.num_bits))
        values, found = jagged(branch, interpretation, start, stop)
        width = int(np.prod(shape, dtype=np.int64))
        if len(found) != len(sizes) or (found != sizes * width).any():
            raise self._damaged(f"{group}.{member}", "does not hold one value per object")
        return values.reshape(-1, *shape) if shape else values

    def lists(
        self, group: str, member: str, start: int, stop: int, sizes: Counts, counts: NDArray[Any], dtype: DTypeLike
    ) -> Ragged:
        """Return a member of variable size (``Double32_t *fTRDslices; // [fTRDnSlices]``).

        Parameters
        ----------
        sizes
            Number of objects of each event.
        counts
            Number of values of each object, [objects].
        dtype
            Type of a value as stored, big-endian.
        """
        self.require(group, (member,))
        counts = counts.astype(np.int64)
        itemsize = np.dtype(dtype).itemsize

        def size(data: Bytes, at: Counts, row: Counts) -> Counts:
            flag = data[at]
            return np.where(flag > 1, 0, 1 + flag * counts[row] * itemsize)

        # where a list is stored whenever it has values, as always seen, the places follow without going over it
        guess = np.where(counts > 0, 1 + counts * itemsize, 1)
        data, starts = self._walk(group, member, start, stop, sizes, size, guess)
        present = data[starts] == 1
        values = np.delete(data[: len(data) - _LONGEST_READ], starts).view(dtype)
        return Ragged(values.astype(values.dtype.newbyteorder("=")), np.where(present, counts, 0))

    def bits(self, group: str, member: str, start: int, stop: int, sizes: Counts) -> Bits:
        """Return a member that is a ``TBits``."""
        length, n_bytes = (self.values(group, f"{member}.{leaf}", start, stop, sizes) for leaf in ("fNbits", "fNbytes"))
        content = self.lists(group, f"{member}.fAllBits", start, stop, sizes, n_bytes, np.uint8)
        return Bits(content, length.astype(np.int64))

    def track_parameters(self, group: str, member: str, start: int, stop: int, sizes: Counts) -> NDArray[np.float64]:
        """Return a member that points to an ``AliExternalTrackParam``.

        Returns
        -------
        ndarray
            ``fX``, ``fAlpha``, ``fP[5]``, ``fC[15]``: float64 [objects, 22], NaN where the pointer is null.
        """
        self.require(group, (member,))
        data, starts = self._walk(group, member, start, stop, sizes, _object_size)
        values = np.full((len(starts), _TRACK_VALUES), np.nan)
        present = np.flatnonzero(_word(data, starts) != 0)
        if not len(present):
            return values
        at = starts[present]
        end = at + _object_size(data, at, present)
        tag = _word(data, at + 4)
        named = tag == _NEW_CLASS
        name_bytes = len(_TRACK_CLASS)
        header = np.where(named, 8 + name_bytes, 8)
        unknown = ~named & (tag & _CLASS_REFERENCE == 0)
        if unknown.any() or (at + header + 6 > end).any():
            raise self._damaged(f"{group}.{member}", "an object without a class")
        names = data[at[named][:, None] + 8 + np.arange(name_bytes)]
        if (names != np.frombuffer(_TRACK_CLASS, dtype=np.uint8)).any():
            raise self._damaged(f"{group}.{member}", "an object of another class than AliExternalTrackParam")
        body = at + header
        version = _word(data, body + 4) >> 16
        for number in np.unique(version):
            dtype = self._track_dtype(int(number))
            chosen = version == number
            n_bytes = _TRACK_VALUES * dtype.itemsize
            first = end[chosen] - n_bytes
            if (first < body[chosen] + 6).any():
                raise self._damaged(f"{group}.{member}", "an object too short for its class")
            content = data[first[:, None] + np.arange(n_bytes)]
            values[present[chosen]] = content.view(dtype)
        return values

    def _track_dtype(self, version: int) -> np.dtype[Any]:
        """Return the stored type of the 22 values that end an ``AliExternalTrackParam`` of this version."""
        streamer = self._streamers.get("AliExternalTrackParam", {}).get(version)
        own = [e for e in streamer.elements if e.classname != "TStreamerBase"] if streamer is not None else []
        lengths = {e.name: max(int(e.member("fArrayLength")), 1) for e in own}
        types = {_ELEMENT_DTYPE.get(int(e.member("fType")) % _ARRAY_TYPE) for e in own}
        ranged = any("[" in e.title for e in own)
        dtype = types.pop() if len(types) == 1 else None
        if list(lengths.items()) != list(_TRACK_MEMBERS.items()) or dtype is None or ranged:
            raise PidflowError(
                f"{self.path}: AliExternalTrackParam version {version} has a layout that this reader does not know; "
                "give a file written by AliRoot of 2007 or later"
            )
        return np.dtype(dtype)

    def _walk(
        self,
        group: str,
        member: str,
        start: int,
        stop: int,
        sizes: Counts,
        size_at: Callable[[Bytes, Counts, Counts], Counts],
        guess: Counts | None = None,
    ) -> tuple[Bytes, Counts]:
        """Return the bytes of a branch and where each object's begin, given what tells how long they are.

        The bytes are padded, so that a number may be read at any position within them. If the first object has
        the length that is guessed for it, the second begins where it is guessed to, and so on; so guessed
        lengths that are all found to be so are right.
        """
        branch = self._members(group)[member]
        content, lengths = jagged(branch, uproot.AsJagged(uproot.AsDtype("u1")), start, stop)
        if len(lengths) != len(sizes):
            raise self._damaged(f"{group}.{member}", f"{len(lengths)} entries for {len(sizes)} events")
        if sizes.sum() > len(content):
            raise self._damaged(f"{group}.{member}", "fewer bytes than objects")
        data = np.concatenate([content, np.zeros(_LONGEST_READ, dtype=np.uint8)])
        if guess is not None and (guess > 0).all() and guess.sum() == len(content) and len(guess) == sizes.sum():
            starts = np.cumsum(guess) - guess
            ends = np.append(0, np.cumsum(guess))[np.cumsum(sizes)]
            if (ends == np.cumsum(lengths)).all() and (size_at(data, starts, np.arange(len(guess))) == guess).all():
                return data, starts
        order = np.argsort(-sizes, kind="stable")
        size_of, end = sizes[order], np.cumsum(lengths)[order]
        position = end - lengths[order]
        first = (np.cumsum(sizes) - sizes)[order]
        starts = np.empty(int(sizes.sum()), dtype=np.int64)
        for index in range(int(size_of[0]) if len(size_of) else 0):
            going = int(np.searchsorted(-size_of, -index, side="left"))
            at, row = position[:going], first[:going] + index
            if (at >= end[:going]).any():
                raise self._damaged(f"{group}.{member}", "ends before the last object of an event")
            n_bytes = size_at(data, at, row)
            if (n_bytes < 1).any() or (at + n_bytes > end[:going]).any():
                raise self._damaged(f"{group}.{member}", "an object is longer than the event's bytes")
            starts[row] = at
            position[:going] = at + n_bytes
        if (position != end).any():
            raise self._damaged(f"{group}.{member}", "bytes are left after the last object of an event")
        return data, starts

    def _members(self, group: str) -> dict[str, Any]:
        if group not in self._groups:
            self._groups[group] = {}
            for branch in self._tree.branches:
                if branch.name.rstrip(".") == group:
                    self._groups[group] = _leaves(branch, group)
                    break
        return self._groups[group]

    def _require_group(self, group: str) -> None:
        if not self.has(group):
            raise PidflowError(f"{self.path}: esdTree lacks the branch {group}; give an AliESDs file that has it")

    def _damaged(self, branch: str, reason: str) -> PidflowError:
        return PidflowError(f"{self.path}: branch {branch}: {reason}; transfer the file again, or produce it again")


def alias_missing_bases(streamers: dict[str, dict[int, Any]]) -> None:
    """Let a base class of a version that the file does not describe stand for the nearest that it does.

    Some files of Run 2 say that ``AliVTrack`` derives from version 3 of ``AliVParticle`` and describe
    version 4 alone; the base has no members of its own, so that either serves.
    """
    for versions in list(streamers.values()):
        for streamer in list(versions.values()):
            for element in streamer.elements:
                if element.classname == "TStreamerBase" and (stored := streamers.get(element.name)):
                    wanted = int(element.member("fBaseVersion"))
                    if wanted not in stored:
                        stored[wanted] = stored[min(stored, key=lambda version: (abs(version - wanted), version))]


def _leaves(branch: Any, group: str) -> dict[str, Any]:
    """Return a group's branches by member, "" for its own; names of base classes, which begin by no f, are left out."""
    found = {"": branch}
    pending = list(branch.branches)
    while pending:
        leaf = pending.pop(0)
        parts = leaf.name.split("[")[0].removeprefix(f"{group}.").split(".")
        while len(parts) > 1 and not parts[0].startswith("f"):
            parts.pop(0)
        found.setdefault(".".join(parts), leaf)
        pending.extend(leaf.branches)
    return found


def jagged(branch: Any, interpretation: Any, start: int, stop: int) -> tuple[NDArray[Any], Counts]:
    """Return the values of a range of a branch's entries, one after the other, and how many each entry has.

    Parameters
    ----------
    branch, interpretation
        Of uproot.
    start, stop
        First entry, and the one after the last.
    """
    array = branch.array(interpretation, entry_start=start, entry_stop=stop, library="ak")
    layout = array.layout.to_ListOffsetArray64(True)
    counts = np.diff(np.asarray(layout.offsets)).astype(np.int64)
    return ak.to_numpy(layout.content)[: counts.sum()], counts


def _word(data: Bytes, at: Counts) -> Counts:
    """Return the unsigned 32-bit numbers that begin at these bytes."""
    word = np.zeros(len(at), dtype=np.int64)
    for offset in range(4):
        word = word << 8 | data[at + offset]
    return word


def _object_size(data: Bytes, at: Counts, row: Counts) -> Counts:
    """Return the number of bytes of objects behind pointers, 0 where none can begin."""
    word = _word(data, at)
    counted = word >> _BYTE_COUNT_BITS == 1
    return np.where(word == 0, _NULL_BYTES, np.where(counted, word - (1 << _BYTE_COUNT_BITS) + 4, 0))
