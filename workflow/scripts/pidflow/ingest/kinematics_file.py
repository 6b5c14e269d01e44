"""Truth of the simulation of Run 1 and 2: ``Kinematics.root``, one tree of particles per event.

Facts: AliRoot ``STEER/STEER/AliStack.cxx``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import uproot
from numpy.typing import NDArray

from pidflow.errors import PidflowError
from pidflow.ingest.esd_members import jagged
from pidflow.ingest.reader import Columns
from pidflow.ingest.rootfile import RootFile, damage_told, top_keys

NAME = "Kinematics.root"

_EVENT = re.compile(r"Event(\d+)")
_MEMBERS = ("fPdgCode", "fStatusCode", "fMother")
_SIZE_OF_TYPE = {3: 4, 5: 4, 8: 8}
"""Bytes by ROOT's type of a streamer element: Int_t, Float_t, Double_t."""

_ARRAY_TYPE = 20
_VERSION_END = 6
"""An object begins with the number of its bytes and the version of its class."""

_STABLE = (22, 11, 13, 211, 321, 310, 130, 2212, 2112, 3122, 3112, 3222, 3312, 3322, 3334, 12, 14, 16)
"""Codes without sign that ``AliStack::IsStable`` lists; above `_NUCLEI` all are stable."""

_NUCLEI = 1_000_000_000
_K0_LONG, _SIGMA0, _PI0 = 130, 3212, 111
_CHARM = 4
_FINAL = 1


@dataclass(frozen=True)
class Stack:
    """Particles of an event by label, as ``AliStack`` numbers them: the generator's first.

    Attributes
    ----------
    pdg, status, mother
        PDG code, the generator's status code, label of the mother (negative: none), int64 [n].
    n_primaries
        Number of particles of the generator.
    """

    pdg: NDArray[np.int64]
    status: NDArray[np.int64]
    mother: NDArray[np.int64]
    n_primaries: int

    def is_physical_primary(self, label: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which particles [k] come from the collision, decays by the strong and electromagnetic force included.

        Notes
        -----
        ``AliStack::IsPhysicalPrimary`` of AliRoot's last version, whatever the version that simulated the file:
        earlier ones counted fewer species as stable and kept the decay products of K0L that the generator
        decayed. The embedding of one event in another is not followed.
        """
        pdg, status, mother = np.abs(self.pdg[label]), self.status[label], self.mother[label]
        generated = label < self.n_primaries
        final = (status <= _FINAL) | (generated & (pdg == _K0_LONG))
        stable = np.isin(pdg, _STABLE) | (pdg > _NUCLEI)
        mother_pdg = np.where(mother >= 0, np.abs(self.pdg[np.maximum(mother, 0)]), 0)
        of_generated = mother < self.n_primaries
        radiative = of_generated & np.isin(mother_pdg, (_SIGMA0, _PI0))
        heavy = (_flavour(mother_pdg) >= _CHARM) & (_flavour(self._generated_ancestor_pdg(mother)) >= _CHARM)
        produced = np.where(generated, mother_pdg != _K0_LONG, radiative | heavy)
        return np.asarray(final & stable & produced)

    def _generated_ancestor_pdg(self, label: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the code without sign of the nearest of a particle and its ancestors that the generator made."""
        label = label.copy()
        while (later := label >= self.n_primaries).any():
            label[later] = self.mother[label[later]]
        return np.where(label >= 0, np.abs(self.pdg[np.maximum(label, 0)]), 0)


def _flavour(pdg: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the first digit of codes without sign: 4 and 5 for hadrons of charm and beauty, 0 for none."""
    digits = np.floor(np.log10(np.maximum(pdg, 1))).astype(np.int64)
    return pdg // 10**digits


class KinematicsFile:
    """The ``Kinematics.root`` that lies beside an ESD file.

    Parameters
    ----------
    esd
        The ESD file.
    """

    def __init__(self, esd: Path) -> None:
        self._esd = esd
        self.path = esd.with_name(NAME)
        self._file = RootFile(self.path)

    def require_events(self, events: int) -> None:
        """Raise `PidflowError` unless the file is there and has as many events as the ESD."""
        if not self.path.is_file():
            raise PidflowError(
                f"{self._esd}: no {NAME} with the truth beside it; put it there, or list the file under 'data'"
            )
        with damage_told(self.path):
            found = {int(match[1]) for key in top_keys(self._file.handle()) if (match := _EVENT.fullmatch(key))}
        if found != set(range(events)):
            raise PidflowError(
                f"{self.path}: holds {len(found)} events, {self._esd.name} {events}; put the {NAME} of the same job "
                "beside it"
            )

    def truth(self, event: NDArray[np.integer[Any]], label: NDArray[np.integer[Any]]) -> tuple[Columns, int]:
        """Return the truth columns of tracks, and how many labels are fake.

        Parameters
        ----------
        event
            Entry of each track's event, in ascending order, [n].
        label
            Label of each track, [n]; a negative one names the particle to which some clusters belong, and the
            track counts as fake.

        Raises
        ------
        PidflowError
            If a label points outside its event.
        """
        fake = label < 0
        columns: Columns = {
            "pdg_code": np.ma.masked_all(len(label), dtype=np.int32),
            "is_physical_primary": np.ma.masked_all(len(label), dtype=bool),
            "mother_pdg_code": np.ma.masked_all(len(label), dtype=np.int32),
        }
        for number in np.unique(event[~fake]):
            first, last = np.searchsorted(event, [number, number + 1])
            rows = first + np.flatnonzero(~fake[first:last])
            stack = self.stack(int(number))
            own = label[rows].astype(np.int64)
            if own.max() >= len(stack.pdg):
                raise PidflowError(
                    f"{self.path}: event {number} has {len(stack.pdg)} particles, {self._esd.name} names number "
                    f"{own.max()}; put the {NAME} of the same job beside it"
                )
            mother = stack.mother[own]
            with_mother = mother >= 0
            columns["pdg_code"][rows] = stack.pdg[own]
            columns["is_physical_primary"][rows] = stack.is_physical_primary(own)
            columns["mother_pdg_code"][rows[with_mother]] = stack.pdg[mother[with_mother]]
        return columns, int(fake.sum())

    def stack(self, event: int) -> Stack:
        """Return the particles of one event.

        Notes
        -----
        ``AliStack::TreeKEntry``: the tree holds the particles that transport produced first, then those of the
        generator. Every produced particle has a mother and the generator's first particle, number 0, has none,
        so the first entry without a mother is number 0, and the number of the generator's particles follows
        without ``galice.root``.
        """
        with damage_told(self.path):
            handle = self._file.handle()
            branch = handle[f"Event{event}/TreeK"]["Particles"]
            pdg, status, mother = _members(branch, handle.file.streamers)
        particles = len(pdg)
        first = np.flatnonzero(mother < 0)
        n_primaries = particles - int(first[0]) if len(first) else 0
        pdg, status, mother = (np.roll(values, n_primaries) for values in (pdg, status, mother))
        produced = mother[n_primaries:]
        if (mother >= particles).any() or (produced >= np.arange(n_primaries, particles)).any():
            raise PidflowError(f"{self.path}: Event{event}/TreeK names mothers that are not there; produce it again")
        return Stack(pdg, status, mother, n_primaries)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _members(branch: Any, streamers: dict[str, dict[int, Any]]) -> list[NDArray[np.int64]]:
    """Return `_MEMBERS` of all particles of a tree, the first mother of two.

    A particle is an object as a whole, since ``TParticle`` has a streamer of its own, unless the file was
    written by a program that splits it.
    """
    leaves = {leaf.name.split("[")[0].split(".")[-1]: leaf for leaf in branch.branches}
    if leaves:
        arrays = [leaves[name].array(library="np").astype(np.int64) for name in _MEMBERS]
        return [array.reshape(len(array), -1)[:, 0] if len(array) else array.reshape(0) for array in arrays]
    data, sizes = jagged(branch, uproot.AsJagged(uproot.AsDtype("u1")), 0, branch.num_entries)
    end = np.cumsum(sizes)
    members = [np.empty(len(sizes), dtype=np.int64) for _ in _MEMBERS]
    if not len(sizes):
        return members
    if sizes.min() < _VERSION_END:
        raise ValueError("a particle without a version")
    version = data[(end - sizes)[:, None] + np.arange(_VERSION_END - 2, _VERSION_END)].view(">u2")[:, 0]
    for number in np.unique(version):
        chosen = np.flatnonzero(version == number)
        before_end = _distances(streamers["TParticle"][int(number)])
        if sizes[chosen].min() < _VERSION_END + max(before_end.values()):
            raise ValueError("a particle too short for its class")
        for member, name in zip(members, _MEMBERS, strict=True):
            first = end[chosen] - before_end[name]
            member[chosen] = data[first[:, None] + np.arange(4)].view(">i4")[:, 0]
    return members


def _distances(streamer: Any) -> dict[str, int]:
    """Return by member how many bytes before its end an object holds it."""
    distance, distances = 0, {}
    for element in reversed(streamer.elements):
        if element.classname == "TStreamerBase":
            break
        size = _SIZE_OF_TYPE[int(element.member("fType")) % _ARRAY_TYPE]
        distance += size * max(int(element.member("fArrayLength")), 1)
        distances[element.name] = distance
    return distances
