"""Samples with a known shift, and their adaptation, for the tests of sample steps."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tracks_sample import CHARGED, TOF, TPC, arrange, make_tracks

from pidflow.adapt.sample import adapt_sample
from pidflow.adapt.steps.base import Surroundings
from pidflow.dataset.build import n_sigma
from pidflow.dataset.response import Response
from pidflow.files import read_json, write_json
from pidflow.physics import SPECIES
from pidflow.response import expected_time
from pidflow.tracks import DATASET_COLUMNS

SMALL = {
    "reweight": {"trees": 40, "folds": 2, "leaves": 7, "learning_rate": 0.2},
    "quantile_morph": {"p_bins": 5, "eta_bins": 2},
    "tune_on_data": {},
}
GAIN, DELAY, LATE, WIDER = -0.06, 80.0, 300.0, 1.3
"""Of the shifted data: logarithm of the TPC gain, delay of the TOF and of event and TOF together in ps, TPC width."""

PIONS = (211,) * 6 + CHARGED


def with_values(table: pa.Table, **columns: Any) -> pa.Table:
    for name, values in columns.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, pa.array(values, from_pandas=True).cast(table.schema.field(name).type))
    return table


def values(table: pa.Table, name: str) -> np.ndarray:
    return table[name].cast(pa.float64()).to_numpy()


def dataset(
    n_tracks: int = 9000, *, seed: int = 1, shifted: bool = False, absent: str = "", **options: Any
) -> pa.Table:
    """Return a dataset of mostly pions, perhaps shifted as data, perhaps without a detector."""
    tracks = make_tracks(n_tracks, seed=seed, **({"species": PIONS} | options))
    columns = {name: tracks[name].combine_chunks() for name in tracks.column_names}
    columns["split"] = np.random.default_rng(seed).choice(["train", "validation", "test"], n_tracks, p=[0.7, 0.1, 0.2])
    table = arrange(columns, DATASET_COLUMNS)
    if shifted:
        mean = true_tpc(tracks)
        tpc = mean * np.exp(GAIN) * (1.0 + WIDER * (values(table, "tpc_signal") / mean - 1.0))
        moved = {"tof_signal": values(table, "tof_signal") + DELAY + LATE}
        table = with_values(table, tpc_signal=tpc, tof_event_time=values(table, "tof_event_time") + LATE, **moved)
    if absent:
        none = [
            name for name in table.column_names if name.startswith((f"{absent}_", "beta" if absent == "tof" else "-"))
        ]
        table = with_values(
            table, **{name: np.full(n_tracks, np.nan) for name in none}, **{f"has_{absent}": np.zeros(n_tracks, bool)}
        )
        if absent == "tof":
            table = with_values(table, length=np.full(n_tracks, np.nan))
    return with_values(table, **n_sigma(table, Response(TPC, TOF)))


def true_tpc(table: pa.Table) -> np.ndarray:
    mass = {species.pdg: species.mass for species in SPECIES}
    return TPC.signal(values(table, "tpc_inner_param"), np.array([mass[abs(c)] for c in table["pdg_code"].to_pylist()]))


def exact_flight(table: pa.Table) -> np.ndarray:
    mass = {species.pdg: species.mass for species in SPECIES}
    masses = np.array([mass[abs(code)] for code in table["pdg_code"].to_pylist()])
    return expected_time(values(table, "length"), values(table, "tof_exp_mom"), masses)


def unlabelled(table: pa.Table) -> pa.Table:
    return with_values(table, pdg_code=np.full(table.num_rows, np.nan))


def adapted(
    folder: Path, kind: str, simulation: pa.Table, data: pa.Table, **settings: Any
) -> tuple[pa.Table, dict[str, Any]]:
    """Return the adapted simulation and the report."""
    folder.mkdir(exist_ok=True)
    pq.write_table(simulation, folder / "simulation.parquet")
    pq.write_table(data, folder / "data.parquet")
    response = {
        "tpc": {"mip": TPC.mip, "bethe_bloch": TPC.bethe_bloch, "resolution": TPC.resolution,
                "resolution_exponent": TPC.resolution_exponent},
        "tof": {"resolution": TOF.resolution, "momentum_term": TOF.momentum_term},
    }  # fmt: skip
    write_json(folder / "response.json", response)
    surroundings = Surroundings(7, CHARGED, {"tof": 0.5, "trd": 0.8}, folder / "response.json", 3)
    files = [
        folder / name for name in ("simulation.parquet", "data.parquet", "out.parquet", "report.json", "v.parquet")
    ]
    adapt_sample(*files, settings={"kind": kind} | SMALL[kind] | settings, surroundings=surroundings)
    return pq.read_table(files[2]), read_json(files[3])


def robust(residual: np.ndarray) -> tuple[float, float]:
    low, middle, high = np.quantile(residual, (0.158655, 0.5, 0.841345))
    return float(middle), float(high - low) / 2.0
