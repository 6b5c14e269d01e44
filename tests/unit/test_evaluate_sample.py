"""Generated datasets and scores for the tests of `pidflow.evaluate`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pidflow.physics import charge_sign, species_of
from pidflow.response import TpcResponse
from pidflow.scores import schema as score_schema
from pidflow.tracks import DATASET_COLUMNS, schema

SPECIES = (211, 321, 2212, -211, -321, -2212)
EDGES = (0.1, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 20.0)
TPC = TpcResponse(
    mip=50.0, bethe_bloch=(0.0320981, 19.9768, 2.52666e-16, 2.72123, 6.08092), resolution=0.06, resolution_exponent=0.5
)


def write_dataset(
    path: Path,
    *,
    n_tracks: int,
    truth: Sequence[int] = SPECIES,
    split: str | None = None,
    complete: bool = True,
    seed: int = 0,
) -> Path:
    """Write a dataset of tracks of the species in `truth` (all null if empty), some of them fakes."""
    rng = np.random.default_rng(seed)
    shares = np.array([{211: 0.7, 321: 0.15}.get(abs(pdg), 0.1) for pdg in truth or SPECIES])
    pdg = rng.choice(truth or SPECIES, n_tracks, p=shares / shares.sum())
    pt = np.clip(rng.gamma(1.5, 0.45, n_tracks) + 0.1, 0.1, 25.0)
    p = pt * np.cosh(rng.uniform(-0.8, 0.8, n_tracks))
    mass = np.array([species_of(code).mass for code in pdg])
    signal = TPC.signal(p, mass) * rng.normal(1.0, 0.07, n_tracks)
    fake = rng.random(n_tracks) < (0.02 if truth else 2.0)
    columns = {
        "source": np.full(n_tracks, "AO2D.root"),
        "data_frame": np.zeros(n_tracks, np.int64),
        "row": np.arange(n_tracks, dtype=np.int32),
        "run": np.full(n_tracks, 900001, np.int32),
        "collision_id": np.sort(rng.integers(0, max(n_tracks // 8, 1), n_tracks)).astype(np.uint64),
        "p": p,
        "pt": pt,
        "sign": np.array([charge_sign(code) for code in pdg]),
        "has_trd": (rng.random(n_tracks) < 0.5) & (p > 0.8) & complete,
        "has_tof": (rng.random(n_tracks) < 0.7) & (p > 0.5),
        "tpc_signal": signal,
        "tpc_inner_param": pa.array(p * 0.99, mask=rng.random(n_tracks) < 0.05),
        "pdg_code": pa.array(pdg, mask=fake),
        "split": np.full(n_tracks, split) if split else rng.choice(["train", "validation", "test"], n_tracks),
    }
    fields = schema(DATASET_COLUMNS)
    arrays = [
        pa.array(columns[field.name]).cast(field.type, safe=False)
        if field.name in columns
        else pa.nulls(n_tracks, field.type)
        for field in fields
    ]
    pq.write_table(pa.Table.from_arrays(arrays, schema=fields), path)
    return path


def write_scores(
    path: Path,
    dataset: Path,
    *,
    species: Sequence[int] = SPECIES,
    width: float = 0.1,
    cut: float | None = None,
    null_without_tof: bool = False,
    hidden: float = 0.0,
) -> Path:
    """Write scores that follow the TPC signal, with a resolution of `width`; or the flags of a cut of `cut` σ.

    A share `hidden` of the tracks is not scored.
    """
    tracks = pq.read_table(dataset)
    p, signal, sign = (tracks[name].to_numpy().astype(float) for name in ("p", "tpc_signal", "sign"))
    likelihoods = []
    for pdg in species:
        pull = (signal / TPC.signal(p, species_of(pdg).mass) - 1) / width
        right = 1.0 if min(species) > 0 else sign == charge_sign(pdg)
        likelihoods.append(right * ((np.abs(pull) < cut) if cut else np.exp(-0.5 * pull**2) + 1e-6))
    values = np.array(likelihoods)
    if not cut:
        values = values / values.sum(axis=0)
    masked = np.random.default_rng(5).random(p.size) < hidden
    if null_without_tof:
        masked |= ~tracks["has_tof"].to_numpy()
    fields = score_schema(species)
    carried = [tracks[field.name] for field in fields if field.name in tracks.column_names]
    certainties = [pa.array(value.astype(np.float32), mask=masked) for value in values]
    pq.write_table(pa.Table.from_arrays([*carried, *certainties], schema=fields), path)
    return path


def test_sample_follows_the_contracts(tmp_path):
    dataset = write_dataset(tmp_path / "dataset.parquet", n_tracks=50)
    assert pq.read_schema(dataset).equals(schema(DATASET_COLUMNS))
    assert pq.read_schema(write_scores(tmp_path / "scores.parquet", dataset)).equals(score_schema(SPECIES))
