"""From generated collisions to a raw AO2D file, one data frame at a time."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pidflow.files import replacing
from pidflow.rootfile import recreate
from pidflow.simulate import ao2d
from pidflow.simulate.decays import transport
from pidflow.simulate.detector import Reconstructed, reconstruct
from pidflow.simulate.generator import EventGenerator, Sample
from pidflow.simulate.helix import Floats
from pidflow.simulate.particles import PHYSICAL_PRIMARY, Particles, charge_of, daughter_slices, select
from pidflow.simulate.shifts import Conditions, ShiftName, conditions

BC_SPACING = 400
"""Mean distance of recorded collisions in bunch crossings (chosen for the example)."""

TRUTH_SCHEMA = pa.schema(
    [
        pa.field("data_frame", pa.int64()),
        pa.field("row", pa.int32()),
        pa.field("pdg_code", pa.int32()),
        pa.field("is_physical_primary", pa.bool_()),
        pa.field("mother_pdg_code", pa.int32()),
        pa.field("run", pa.int32()),
    ]
)
"""Truth of the pseudo-data, one row per track; null where the label is fake or absent."""


def simulate_file(
    path: str | Path,
    *,
    run: int,
    bz: float,
    sample: Sample,
    events: int,
    frames: int,
    seed: int,
    shift: ShiftName,
    truth: str | Path | None,
) -> None:
    """Write one raw AO2D file, and for data its truth.

    Parameters
    ----------
    path
        The ROOT file; it and `truth` appear under their names only when whole.
    run
        Run number.
    bz
        Field along z in kG.
    sample
        ``simulation`` (Pythia 6, with the Monte Carlo trees) or ``data`` (Sibyll, without).
    events, frames
        Collisions in the file, and data frames that they are spread over.
    seed
        Same seed, same content; give every file of a run its own.
    shift
        How far the detector of ``data`` is from the simulated one; ``simulation`` has none.
    truth
        Parquet file with `TRUTH_SCHEMA`; required for ``data``, None for ``simulation``.

    Notes
    -----
    The generators live in Fortran common blocks: a process can call this once per sample.
    """
    if (sample == "data") != (truth is not None):
        raise ValueError("truth is a file for sample 'data' and None for 'simulation'")
    if not 1 <= frames <= min(events, _FRAMES_MAX):
        raise ValueError(f"frames = {frames} must lie between 1 and the number of events, at most {_FRAMES_MAX}")
    sequence = np.random.SeedSequence([seed, run, int(sample == "data")])
    generator_seed, frame_seed = sequence.generate_state(2)
    generator = EventGenerator(sample, int(generator_seed) % 900_000_000)
    state = conditions(shift if sample == "data" else "none", run)
    first = first_frame(run, sample, seed, Path(path).name)
    name = f"{run}/{Path(path).name}"
    with replacing(path) as temporary, _truth_writer(truth) as writer, recreate(temporary, name) as file:
        for index, part in enumerate(np.array_split(np.arange(events), frames)):
            rng = np.random.default_rng([int(frame_seed), index])
            frame = _frame(generator, len(part), bz, state, rng)
            tables = _tables(frame, run, rng)
            if writer is None:
                tables |= _truth_tables(frame)
            else:
                writer.write_table(_truth_table(frame, first + index, run))
            ao2d.write_frame(file, first + index, tables)
            print(f"{path}: data frame {index + 1}/{frames}, {len(frame.tracks.label):,} tracks", flush=True)


_FRAMES_MAX = 256


def first_frame(run: int, sample: Sample, seed: int, name: str) -> int:
    """Return the number of a file's first data frame: the run above 32 bits, a file's own counter below."""
    digest = hashlib.sha256(f"{sample}/{seed}/{name}".encode()).digest()
    return (run << 32) + int.from_bytes(digest[:3]) * _FRAMES_MAX


@contextlib.contextmanager
def _truth_writer(path: str | Path | None) -> Iterator[pq.ParquetWriter | None]:
    if path is None:
        yield None
        return
    with replacing(path) as temporary, pq.ParquetWriter(temporary, TRUTH_SCHEMA) as writer:
        yield writer


class _Frame(NamedTuple):
    particles: Particles
    vertices: Floats
    tracks: Reconstructed


def _frame(generator: EventGenerator, events: int, bz: float, state: Conditions, rng: np.random.Generator) -> _Frame:
    generated, vertices = generator.take(events, rng)
    particles = transport(generated, bz, rng)
    keep = (charge_of(particles.pdg) != 0) & ((particles.status == 1) | (particles.flags & 1 > 0))
    particles = select(particles, keep)
    return _Frame(particles, vertices, reconstruct(particles, vertices, bz, state, rng))


def _tables(frame: _Frame, run: int, rng: np.random.Generator) -> dict[str, ao2d.Table]:
    events = frame.vertices.shape[1]
    zero = np.zeros(events)
    collisions: dict[str, Any] = dict.fromkeys(ao2d.TREES["O2collision_001"], zero)
    collisions |= {"fIndexBCs": np.arange(events)} | frame.tracks.collisions
    return {
        "O2bc_001": {
            "fRunNumber": np.full(events, run),
            "fGlobalBC": np.cumsum(1 + rng.geometric(1 / BC_SPACING, events)),
            "fTriggerMask": zero,
            "fInputMask": zero,
        },
        "O2collision_001": collisions,
        "O2track_iu": frame.tracks.track,
        "O2trackextra_002": frame.tracks.extra,
    }


def _truth_tables(frame: _Frame) -> dict[str, ao2d.Table]:
    particles, events = frame.particles, frame.vertices.shape[1]
    px, py, pz = particles.momentum
    x, y, z = particles.position
    numbers = np.arange(events)
    return {
        "O2mctracklabel": {"fIndexMcParticles": frame.tracks.label, "fMcMask": frame.tracks.mask},
        "O2mccollision": {
            "fIndexBCs": numbers,
            "fGeneratorsID": np.zeros(events),
            "fPosX": frame.vertices[0],
            "fPosY": frame.vertices[1],
            "fPosZ": frame.vertices[2],
            "fT": frame.vertices[3] / 1000,
            "fWeight": np.ones(events),
            "fImpactParameter": np.zeros(events),
        },
        "O2mccollisionlabel": {"fIndexMcCollisions": numbers, "fMcMask": np.zeros(events)},
        "O2mcparticle_001": {
            "fIndexMcCollisions": particles.event,
            "fPdgCode": particles.pdg,
            "fStatusCode": particles.status,
            "fFlags": particles.flags,
            "fIndexArray_Mothers": ao2d.jagged_mothers(particles.mother),
            "fIndexSlice_Daughters": daughter_slices(particles),
            "fWeight": np.ones(len(particles)),
            "fPx": px,
            "fPy": py,
            "fPz": pz,
            "fE": particles.energy,
            "fVx": x,
            "fVy": y,
            "fVz": z,
            "fVt": particles.time / 1000,
        },
    }


def _truth_table(frame: _Frame, number: int, run: int) -> pa.Table:
    particles, tracks = frame.particles, frame.tracks
    tracks_n = len(tracks.label)
    unknown = (tracks.label < 0) | (tracks.mask & ao2d.FAKE_LABEL > 0)
    own = np.maximum(tracks.label, 0)
    mother = particles.mother[own]
    columns: dict[str, tuple[NDArray[Any], NDArray[np.bool_] | None]] = {
        "data_frame": (np.full(tracks_n, number), None),
        "row": (np.arange(tracks_n), None),
        "pdg_code": (particles.pdg[own], unknown),
        "is_physical_primary": (particles.flags[own] & PHYSICAL_PRIMARY > 0, unknown),
        "mother_pdg_code": (particles.pdg[mother], unknown | (mother < 0)),
        "run": (np.full(tracks_n, run), None),
    }
    arrays = [pa.array(values, TRUTH_SCHEMA.field(name).type, mask=null) for name, (values, null) in columns.items()]
    return pa.Table.from_arrays(arrays, schema=TRUTH_SCHEMA)
