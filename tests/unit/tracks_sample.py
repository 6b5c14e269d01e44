"""Generated track tables and datasets for the tests of the dataset and training stages."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pidflow.origin import as_metadata
from pidflow.physics import charge_sign, species_of
from pidflow.response import TofResponse, TpcResponse
from pidflow.tracks import COLUMNS, DATASET_COLUMNS, Column, schema

CHARGED = (211, 321, 2212, -211, -321, -2212)
TPC = TpcResponse(mip=50.0, bethe_bloch=(0.036, 18.5, 3e-14, 2.55, 5.7), resolution=0.06, resolution_exponent=0.6)
TOF = TofResponse(resolution=90.0, momentum_term=0.012)


def arrange(columns: Mapping[str, Any], fields: Sequence[Column] = COLUMNS) -> pa.Table:
    """Return a table of the schema; NaN and absent columns are null."""
    length = len(next(iter(columns.values())))
    wanted = schema(tuple(fields))
    assert not set(columns) - set(wanted.names)
    arrays = [
        pa.array(columns[field.name], from_pandas=True).cast(field.type, safe=False)
        if field.name in columns
        else pa.nulls(length, field.type)
        for field in wanted
    ]
    return pa.Table.from_arrays(arrays, schema=wanted)


def make_tracks(
    n_tracks: int,
    *,
    seed: int = 0,
    species: Sequence[int] = CHARGED,
    labelled: bool = True,
    source: str = "AO2D.root",
    tpc: TpcResponse = TPC,
    tof: TofResponse = TOF,
) -> pa.Table:
    """Return a track table whose signals follow the responses exactly, some tracks without TRD, TOF or ITS."""
    rng = np.random.default_rng(seed)
    pdg = rng.choice(species, n_tracks)
    mass = np.array([species_of(code).mass for code in pdg])
    eta, phi = rng.uniform(-0.9, 0.9, n_tracks), rng.uniform(0.0, 2 * np.pi, n_tracks)
    pt = np.exp(rng.uniform(np.log(0.15), np.log(6.0), n_tracks))
    p = pt * np.cosh(eta)
    wall = 0.98 * p
    has_its, has_trd, has_tof = (rng.random(n_tracks) < share for share in (0.95, 0.5, 0.6))
    clusters = rng.integers(70, 160, n_tracks)
    mean = tpc.signal(wall, mass)
    length = 380.0 * np.cosh(eta)
    event_time = rng.normal(0.0, 200.0, n_tracks)
    exact = length / 0.0299792458 * np.sqrt(1 + (mass / p) ** 2)
    flight = exact + tof.sigma(length, p, mass) * rng.normal(size=n_tracks)

    def where(seen: np.ndarray, values: np.ndarray) -> np.ndarray:
        return np.where(seen, values, np.nan)

    return arrange(
        {
            "source": np.full(n_tracks, source),
            "data_frame": np.arange(n_tracks) // 1000,
            "row": np.arange(n_tracks) % 1000,
            "run": np.full(n_tracks, 900001),
            "collision_id": np.sort(rng.integers(0, 2**63, max(n_tracks // 6, 1), dtype=np.uint64))[
                np.sort(rng.integers(0, max(n_tracks // 6, 1), n_tracks))
            ],
            "p": p,
            "pt": pt,
            "px": pt * np.cos(phi),
            "py": pt * np.sin(phi),
            "pz": pt * np.sinh(eta),
            "eta": eta,
            "phi": phi,
            "sign": np.array([charge_sign(code) for code in pdg]),
            "dca_xy": rng.normal(0.0, 0.02, n_tracks),
            "dca_z": rng.normal(0.0, 1.0, n_tracks),
            "has_its": has_its,
            "has_tpc": np.ones(n_tracks, bool),
            "has_trd": has_trd,
            "has_tof": has_tof,
            "its_inner_hit": pa.array(rng.random(n_tracks) < 0.9, mask=~has_its),
            "its_chi2_ncl": where(has_its, rng.gamma(2.0, 8.0, n_tracks)),
            "tpc_signal": mean + tpc.sigma(mean, clusters) * rng.normal(size=n_tracks),
            "tpc_inner_param": wall,
            "tpc_n_cls_findable": np.full(n_tracks, 159),
            "tpc_n_cls_found": clusters,
            "tpc_n_crossed_rows": np.minimum(clusters + 40, 159),
            "tpc_chi2_ncl": rng.gamma(4.0, 0.5, n_tracks),
            "trd_signal": where(has_trd, rng.normal(100.0, 10.0, n_tracks)),
            "trd_pattern": where(has_trd, rng.integers(1, 64, n_tracks)),
            "tof_signal": where(has_tof, flight + event_time),
            "tof_event_time": where(has_tof, event_time),
            "beta": where(has_tof, length / flight / 0.0299792458),
            "tof_exp_mom": where(has_tof, p),
            "length": where(has_tof, length),
            **({"pdg_code": pdg} if labelled else {}),
        }
    )


def write_tracks(table: pa.Table, path: Path, **origin: Any) -> Path:
    """Write a track table with the origin that its reader would leave."""
    origin = {"filled": [name for name in table.column_names if table[name].null_count < len(table)]} | origin
    pq.write_table(table.replace_schema_metadata(as_metadata(origin)), path)
    return path


def make_dataset(
    n_tracks: int,
    *,
    seed: int = 0,
    species: Sequence[int] = (211, 321, 2212),
    labelled: bool = True,
    shift: float = 0.0,
) -> pa.Table:
    """Return a dataset in which TPC and TOF alone each tell the species apart, 40 % of it without TOF."""
    rng = np.random.default_rng(seed)
    number = rng.integers(0, len(species), n_tracks)
    has_tof = rng.random(n_tracks) < 0.6
    return arrange(
        {
            "source": np.full(n_tracks, "AO2D.root"),
            "data_frame": np.arange(n_tracks) // 100,
            "row": np.arange(n_tracks) % 100,
            "run": np.full(n_tracks, 900001),
            "collision_id": np.arange(n_tracks).astype(np.uint64) // 4,
            "p": rng.uniform(0.3, 3.0, n_tracks),
            "pt": rng.uniform(0.3, 3.0, n_tracks),
            "x": rng.normal(size=n_tracks),
            "y": rng.normal(size=n_tracks),
            "sign": np.array([charge_sign(code) for code in species])[number],
            "has_tof": has_tof,
            "tpc_signal": 50.0 + 20.0 * number + rng.normal(0.0, 5.0, n_tracks) + shift,
            "beta": np.where(has_tof, 1.0 - 0.1 * number + rng.normal(0.0, 0.02, n_tracks), np.nan),
            "split": rng.choice(["train", "validation", "test"], n_tracks, p=[0.5, 0.2, 0.3]),
            **({"pdg_code": np.array(species)[number]} if labelled else {}),
        },
        DATASET_COLUMNS,
    )
