"""Sample steps that the response calibration is compared with: what all have in common, and signals that they move."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from adapt_samples import DELAY, GAIN, LATE, adapted, dataset, robust, true_tpc, unlabelled, values, with_values
from tracks_sample import TOF, TPC

from pidflow.dataset.build import n_sigma
from pidflow.dataset.response import Response
from pidflow.errors import PidflowError
from pidflow.physics import C_CM_PER_PS, SPECIES
from pidflow.response import expected_time

KINDS = ("quantile_morph", "reweight", "tune_on_data")
MOVING = ("quantile_morph", "tune_on_data")

TPC_COLUMNS = ("tpc_signal", *(f"tpc_nsigma_{species.key}" for species in SPECIES))
TOF_COLUMNS = ("tof_signal", "tof_event_time", "beta", *(f"tof_nsigma_{species.key}" for species in SPECIES))
CHANGED = {*TPC_COLUMNS, *TOF_COLUMNS, "trd_signal"}


def pions(table: pa.Table) -> np.ndarray:
    return np.asarray(pc.equal(pc.abs(table["pdg_code"]), 211).to_numpy())


def tpc_residual(table: pa.Table) -> np.ndarray:
    """Return ln(signal / expected) of pions, in units of the resolution."""
    mean = true_tpc(table)
    sigma = TPC.sigma(mean, values(table, "tpc_n_cls_found")) / mean
    return (np.log(values(table, "tpc_signal") / mean) / sigma)[pions(table)]


def tof_residual(table: pa.Table) -> np.ndarray:
    """Return the time beyond what pions take, ps."""
    flight = values(table, "tof_signal") - values(table, "tof_event_time")
    return (flight - expected_time(values(table, "length"), values(table, "tof_exp_mom"), 0.13957039))[
        pions(table) & np.isfinite(flight)
    ]


def same(first: pa.Table, second: pa.Table, names: Any) -> bool:
    return all(first[name].equals(second[name]) for name in names)


# every step


@pytest.mark.parametrize("kind", KINDS)
def test_rows_and_what_is_not_adapted_stay(tmp_path: Path, kind: str) -> None:
    simulation, data = dataset(4000), unlabelled(dataset(4000, seed=2, shifted=True))
    table, report = adapted(tmp_path, kind, simulation, data)
    changed = CHANGED if kind in MOVING else set()
    assert same(table, simulation, set(simulation.column_names) - changed)
    for name in changed:
        assert table[name].is_null().equals(simulation[name].is_null()), name
    assert table.column_names == simulation.column_names + (["weight"] if kind == "reweight" else [])
    assert table.schema.field(0) == simulation.schema.field(0)
    assert report["step"]["kind"] == kind


@pytest.mark.parametrize("kind", KINDS)
def test_same_input_gives_the_same_table(tmp_path: Path, kind: str) -> None:
    samples = dataset(4000), unlabelled(dataset(4000, seed=2, shifted=True))
    assert adapted(tmp_path, kind, *samples)[0].equals(adapted(tmp_path, kind, *samples)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_truth_of_data_has_no_influence(tmp_path: Path, kind: str) -> None:
    simulation, data = dataset(4000), dataset(4000, seed=2, shifted=True)
    planted = with_values(data, pdg_code=np.where(values(data, "p") > 1.0, 211, 2212))
    first, second = (adapted(tmp_path, kind, simulation, sample) for sample in (unlabelled(data), planted))
    assert first[0].equals(second[0])
    assert first[1] == second[1]


@pytest.mark.parametrize("kind", KINDS)
def test_only_training_tracks_are_looked_at(tmp_path: Path, kind: str) -> None:
    simulation, data = dataset(4000), unlabelled(dataset(4000, seed=2, shifted=True))
    other = np.asarray(data["split"].to_numpy() != "train")
    wild = with_values(data, tpc_signal=np.where(other, 500.0, values(data, "tpc_signal")))
    assert adapted(tmp_path, kind, simulation, data)[0].equals(adapted(tmp_path, kind, simulation, wild)[0])


@pytest.mark.parametrize("absent", ["tof", "trd"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lacking", ["data", "both"])
def test_detector_that_is_absent(tmp_path: Path, kind: str, absent: str, lacking: str) -> None:
    simulation = dataset(4000, absent=absent if lacking == "both" else "")
    table, report = adapted(tmp_path, kind, simulation, unlabelled(dataset(4000, seed=2, shifted=True, absent=absent)))
    own = TOF_COLUMNS if absent == "tof" else ("trd_signal",)
    assert same(table, simulation, own)
    if kind == "reweight":
        assert f"{absent}_signal" not in report["columns"]
        assert "tpc_signal" in report["columns"]
        assert np.isfinite(values(table, "weight")).all()
    else:
        assert absent.upper() not in [each["signal"] for each in report["signals"]]
        assert not table["tpc_signal"].equals(simulation["tpc_signal"])


@pytest.mark.parametrize("kind", KINDS)
def test_sample_without_training_tracks_is_refused(tmp_path: Path, kind: str) -> None:
    data = unlabelled(dataset(300, seed=2))
    data = with_values(data, split=np.full(300, "test"))
    with pytest.raises(PidflowError, match=r"data\.parquet: no training track"):
        adapted(tmp_path, kind, dataset(300), data)


@pytest.mark.parametrize("kind", MOVING)
def test_too_few_tracks_are_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(PidflowError, match=r"data\.parquet: no detector signal has enough tracks"):
        adapted(tmp_path, kind, dataset(4000), unlabelled(dataset(40, seed=2)))


# moved signals


@pytest.mark.parametrize("kind", MOVING)
def test_known_shift_is_removed(tmp_path: Path, kind: str) -> None:
    simulation, data = dataset(20000), dataset(20000, seed=2, shifted=True)
    before = robust(tpc_residual(simulation)), robust(tof_residual(simulation))
    table, report = adapted(tmp_path, kind, simulation, unlabelled(data))
    wanted = robust(tpc_residual(data)), robust(tof_residual(data))
    found = robust(tpc_residual(table)), robust(tof_residual(table))
    # errors of a mean and of a width of 10⁴ pions and more are below 0.02 σ; kaons under the pions add as much
    assert abs(before[0][0] - wanted[0][0]) > 0.6
    assert found[0][0] == pytest.approx(wanted[0][0], abs=0.08)
    assert found[0][1] == pytest.approx(wanted[0][1], rel=0.06)
    assert before[0][1] < 0.8 * wanted[0][1]
    assert before[1][0] == pytest.approx(wanted[1][0] - DELAY, abs=5.0)
    assert found[1][0] == pytest.approx(wanted[1][0], abs=8.0)
    assert found[1][1] == pytest.approx(wanted[1][1], rel=0.06)
    assert report["event_time_offset_ps"] == pytest.approx(LATE, abs=10.0)


@pytest.mark.parametrize("kind", MOVING)
def test_without_a_shift_signals_stay(tmp_path: Path, kind: str) -> None:
    simulation = dataset(20000)
    table, _ = adapted(tmp_path, kind, simulation, unlabelled(dataset(20000, seed=2)))
    for residual, error in ((tpc_residual, 0.06), (tof_residual, 6.0)):
        before, after = robust(residual(simulation)), robust(residual(table))
        assert after[0] == pytest.approx(before[0], abs=error)
        assert after[1] == pytest.approx(before[1], rel=0.05)


@pytest.mark.parametrize("kind", MOVING)
def test_same_sample_is_left_alone(tmp_path: Path, kind: str) -> None:
    simulation = dataset(6000)
    table, report = adapted(tmp_path, kind, simulation, unlabelled(simulation))
    for name in CHANGED:
        assert values(table, name) == pytest.approx(values(simulation, name), rel=1e-4, abs=1e-3, nan_ok=True), name
    assert report["event_time_offset_ps"] == 0.0


@pytest.mark.parametrize("kind", MOVING)
def test_velocity_and_deviations_agree_with_the_signals(tmp_path: Path, kind: str) -> None:
    table, _ = adapted(tmp_path, kind, dataset(6000), unlabelled(dataset(6000, seed=2, shifted=True)))
    flight = values(table, "tof_signal") - values(table, "tof_event_time")
    beta = values(table, "length") / (C_CM_PER_PS * flight)
    assert values(table, "beta") == pytest.approx(beta, rel=1e-4, nan_ok=True)
    for name, expected in n_sigma(table, Response(TPC, TOF)).items():
        assert values(table, name) == pytest.approx(expected, abs=1e-3, nan_ok=True), name


@pytest.mark.parametrize("kind", MOVING)
def test_deviation_of_a_hidden_signal_stays(tmp_path: Path, kind: str) -> None:
    samples = []
    for table in (dataset(6000), unlabelled(dataset(6000, seed=2, shifted=True))):
        hidden = values(table, "p") < 0.5
        gone = {name: np.where(hidden, np.nan, values(table, name)) for name in ("tof_signal", "beta")}
        samples.append(with_values(table, **gone))
    table, _ = adapted(tmp_path, kind, *samples)
    hidden = pa.array(values(samples[0], "p") < 0.5)
    names = [name for name in TOF_COLUMNS if "nsigma" in name]
    assert same(table.filter(hidden), samples[0].filter(hidden), names)
    assert table.filter(hidden)[names[0]].null_count < pc.sum(hidden).as_py()


@pytest.mark.parametrize("kind", MOVING)
def test_weights_of_an_earlier_step_count(tmp_path: Path, kind: str) -> None:
    simulation, data = dataset(8000), unlabelled(dataset(8000, seed=2, shifted=True))
    spoilt = np.arange(8000) % 2 == 1
    simulation = with_values(
        simulation, tpc_signal=values(simulation, "tpc_signal") * np.where(spoilt, 1.3, 1.0)
    ).append_column("weight", pa.array(np.where(spoilt, 1e-6, 1.0), pa.float32()))
    table, _ = adapted(tmp_path, kind, simulation, data)
    assert table["weight"].equals(simulation["weight"])
    gain = np.median(np.log(values(table, "tpc_signal") / values(simulation, "tpc_signal"))[~spoilt])
    assert gain == pytest.approx(GAIN, abs=0.012)
