"""Sample steps that the response calibration is compared with: reweighting, tuning on data, quantile mapping."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from tracks_sample import CHARGED, TOF, TPC, arrange, make_tracks

from pidflow.adapt.sample import adapt_sample
from pidflow.adapt.steps import settings_of, tune_on_data
from pidflow.adapt.steps.base import Surroundings
from pidflow.adapt.steps.quantile_morph import Map, quantiles_of, shrunk
from pidflow.adapt.steps.reweight import effective_size, fold_of
from pidflow.dataset.build import n_sigma
from pidflow.dataset.response import Response
from pidflow.errors import PidflowError
from pidflow.files import read_json, write_json
from pidflow.physics import C_CM_PER_PS, SPECIES
from pidflow.response import expected_time
from pidflow.tracks import DATASET_COLUMNS

KINDS = ("quantile_morph", "reweight", "tune_on_data")
MOVING = ("quantile_morph", "tune_on_data")
SMALL = {
    "reweight": {"trees": 40, "folds": 2, "leaves": 7, "learning_rate": 0.2},
    "quantile_morph": {"p_bins": 5, "eta_bins": 2},
    "tune_on_data": {},
}
GAIN, DELAY, LATE, WIDER = -0.06, 80.0, 300.0, 1.3
"""Of the shifted data: logarithm of the TPC gain, delay of the TOF and of event and TOF together in ps, TPC width."""

PIONS = (211,) * 6 + CHARGED
TPC_COLUMNS = ("tpc_signal", *(f"tpc_nsigma_{species.key}" for species in SPECIES))
TOF_COLUMNS = ("tof_signal", "tof_event_time", "beta", *(f"tof_nsigma_{species.key}" for species in SPECIES))
CHANGED = {*TPC_COLUMNS, *TOF_COLUMNS, "trd_signal"}


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


def robust(residual: np.ndarray) -> tuple[float, float]:
    low, middle, high = np.quantile(residual, (0.158655, 0.5, 0.841345))
    return float(middle), float(high - low) / 2.0


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


# tuning


def test_peak_and_its_errors() -> None:
    rng = np.random.default_rng(0)
    found = [tune_on_data.peak_of(rng.normal(3.0, 2.0, 2000), np.ones(2000)) for _ in range(200)]
    peaks = [peak for peak in found if peak is not None]
    assert len(peaks) == 200
    means, widths = np.array([peak.mean for peak in peaks]), np.array([peak.width for peak in peaks])
    assert means.mean() == pytest.approx(3.0, abs=4 * means.std() / np.sqrt(200))
    assert np.median(widths) == pytest.approx(2.0, rel=0.01)
    assert peaks[0].mean_error == pytest.approx(means.std(), rel=0.2)
    assert peaks[0].width_error == pytest.approx((widths / 2.0).std(), rel=0.2)
    assert peaks[0].tracks == pytest.approx(0.9545 * 2000, rel=0.02)


def test_peak_ignores_a_smaller_one_and_needs_tracks() -> None:
    rng = np.random.default_rng(0)
    both = np.concatenate([rng.normal(0.0, 1.0, 4000), rng.normal(6.0, 1.0, 2000)])
    peak = tune_on_data.peak_of(both, np.ones(6000))
    assert peak is not None
    assert (peak.mean, peak.width) == (pytest.approx(0.0, abs=0.08), pytest.approx(1.0, rel=0.06))
    weighed = tune_on_data.peak_of(both, np.repeat((1.0, 1e-9), (4000, 2000)))
    assert weighed is not None
    assert weighed.width < peak.width + 0.01
    assert tune_on_data.peak_of(both[:90], np.ones(90)) is None
    assert tune_on_data.peak_of(np.empty(0), np.empty(0)) is None


def test_tuning_is_the_same_for_all_species(tmp_path: Path) -> None:
    simulation = dataset(12000)
    table, report = adapted(tmp_path, "tune_on_data", simulation, unlabelled(dataset(12000, seed=2, shifted=True)))
    tpc = next(each for each in report["signals"] if each["signal"] == "TPC")
    assert np.mean([point["scale"] for point in tpc["points"]]) == pytest.approx(WIDER, rel=0.06)
    moved = np.log(values(table, "tpc_signal") / values(simulation, "tpc_signal"))
    pdg = np.abs(values(simulation, "pdg_code"))
    for code in (211, 321, 2212):
        assert np.median(moved[pdg == code]) == pytest.approx(GAIN, abs=0.015)


@pytest.mark.parametrize("code", [211, 321, 2212])
def test_tuning_spreads_the_times_of_every_species(tmp_path: Path, code: int) -> None:
    """Within a momentum bin, kaons and protons of the same velocity come far apart; only their residuals are scaled."""
    simulation, data = dataset(12000), dataset(12000, seed=2)
    flight = exact_flight(data) + values(data, "tof_event_time")
    data = with_values(data, tof_signal=flight + WIDER * (values(data, "tof_signal") - flight) + DELAY)
    table, _ = adapted(tmp_path, "tune_on_data", simulation, unlabelled(data))
    own = (np.abs(values(simulation, "pdg_code")) == code) & (values(simulation, "p") > 0.3)
    residual = [
        (values(sample, "tof_signal") - values(sample, "tof_event_time") - exact_flight(sample))[own]
        for sample in (simulation, table)
    ]
    (_, before), (place, after) = (robust(each[np.isfinite(each)]) for each in residual)
    assert after / before == pytest.approx(WIDER, rel=0.06)
    assert place == pytest.approx(DELAY, abs=15.0)


# quantiles


def test_quantiles_of_equal_weights_are_those_of_numpy() -> None:
    drawn = np.random.default_rng(0).normal(size=501)
    levels = np.linspace(0.05, 0.95, 7)
    assert quantiles_of(drawn, np.ones(501), levels) == pytest.approx(np.quantile(drawn, levels, method="hazen"))
    doubled = quantiles_of(drawn, np.where(drawn > 0, 2.0, 1.0), levels)
    assert doubled == pytest.approx(
        quantiles_of(np.concatenate([drawn, drawn[drawn > 0]]), np.ones(501 + (drawn > 0).sum()), levels), abs=0.03
    )


def test_map_is_monotone_and_shifts_beyond_its_ends() -> None:
    rng = np.random.default_rng(0)
    found = Map.of(rng.normal(size=3000), np.ones(3000), np.exp(rng.normal(size=3000)), 50)
    place = np.linspace(-6.0, 6.0, 2001)
    after = place + found.shift_of(place)
    assert (np.diff(after) >= -1e-12).all()
    assert after[-1] - after[-2] == pytest.approx(place[1] - place[0])
    # e^x of the same normal
    inner = np.abs(place) < 1.0
    assert after[inner] == pytest.approx(np.exp(place[inner]), abs=0.25)


def test_map_of_a_discrete_signal() -> None:
    found = Map.of(np.repeat((1.0, 2.0), 500), np.ones(1000), np.repeat((3.0, 4.0), 500), 20)
    assert np.array([1.0, 2.0]) + found.shift_of(np.array([1.0, 2.0])) == pytest.approx((3.0, 4.0), abs=1e-6)


def test_shifts_that_errors_explain_are_drawn_together() -> None:
    levels = (np.arange(20) + 0.5) / 20
    noise = np.random.default_rng(0).normal(size=20)
    drawn = shrunk(1.0 + 0.1 * noise, np.full(20, 0.04), levels)
    assert drawn.std() < 0.05
    assert drawn.mean() == pytest.approx(1.0, abs=0.05)
    told = np.square(np.linspace(-3.0, 3.0, 20))
    assert shrunk(told, np.full(20, 1e-6), levels) == pytest.approx(told, abs=1e-4)
    assert shrunk(np.array([2.0]), np.array([0.1]), np.array([0.5])) == pytest.approx([2.0])


def test_cell_with_few_tracks_stays(tmp_path: Path) -> None:
    simulation, data = dataset(6000), unlabelled(dataset(6000, seed=2, shifted=True))
    eta = values(data, "eta")
    data = data.filter(pa.array((eta < 0.5) | (np.arange(6000) % 40 == 0)))
    table, report = adapted(tmp_path, "quantile_morph", simulation, data, p_bins=1, eta_bins=1)
    assert report["signals"][0]["cells_mapped"] == report["signals"][0]["cells"] == 1
    with pytest.raises(PidflowError, match="lower 'fewest'"):
        adapted(tmp_path, "quantile_morph", simulation, data, fewest=6000)
    positive = values(data, "sign") > 0
    data = data.filter(pa.array(~positive | (np.arange(len(positive)) % 40 == 0)))
    table, report = adapted(tmp_path, "quantile_morph", simulation, data, p_bins=2, eta_bins=1, charge=True)
    stays = values(simulation, "sign") > 0
    moved = np.log(values(table, "tpc_signal") / values(simulation, "tpc_signal"))
    assert np.abs(moved[stays]).max() < 1e-6
    assert np.median(moved[~stays]) == pytest.approx(GAIN, abs=0.02)
    assert [[cell is None for cell in row] for row in report["signals"][0]["median_shift"]] == [[False] * 2, [True] * 2]


def test_charges_are_mapped_apart(tmp_path: Path) -> None:
    simulation, data = dataset(12000), dataset(12000, seed=2)
    positive = values(data, "sign") > 0
    data = unlabelled(with_values(data, tpc_signal=values(data, "tpc_signal") * np.where(positive, 1.1, 1.0)))
    own = values(simulation, "sign") > 0
    for charge, wanted in ((True, np.log(1.1)), (False, None)):
        table, _ = adapted(tmp_path, "quantile_morph", simulation, data, charge=charge, p_bins=3)
        moved = np.log(values(table, "tpc_signal") / values(simulation, "tpc_signal"))
        difference = np.median(moved[own]) - np.median(moved[~own])
        assert difference == pytest.approx(wanted, abs=0.02) if wanted else abs(difference) < 0.05


# weights


def test_effective_size() -> None:
    assert effective_size(np.full(7, 3.0)) == pytest.approx(7.0)
    assert effective_size(np.array([1.0, 1.0, 0.0, 0.0])) == pytest.approx(2.0)
    assert effective_size(np.array([3.0, 1.0])) == pytest.approx(1.6)
    assert effective_size(np.zeros(3)) == 0.0


def test_folds_are_even_and_follow_the_collision() -> None:
    collision = np.repeat(np.arange(5000, dtype=np.uint64), 3)
    fold = fold_of(collision, 5)
    assert (fold.reshape(-1, 3) == fold[::3, None]).all()
    assert np.bincount(fold[::3]) == pytest.approx(np.full(5, 1000), abs=120)
    assert len({fold_of(collision + np.uint64(2**63), n).max() for n in (2, 5)}) == 2


def test_known_composition_is_recovered(tmp_path: Path) -> None:
    """Data has four times as many protons per pion; the TPC tells them apart below 1 GeV/c."""
    simulation = dataset(16000, species=(211, 211, 2212), seed=4)
    data = dataset(16000, species=(211, 2212, 2212), seed=5)
    table, report = adapted(tmp_path, "reweight", simulation, unlabelled(data))
    weight, pdg = values(table, "weight"), values(table, "pdg_code")
    told = values(table, "p") < 0.8
    ratio = weight[told & (pdg == 2212)].mean() / weight[told & (pdg == 211)].mean()
    assert ratio == pytest.approx(4.0, rel=0.15)
    assert weight.mean() == pytest.approx(1.0, abs=0.02)
    training = np.asarray(table["split"].to_numpy() == "train")
    assert weight[training].mean() == pytest.approx(1.0, abs=1e-5)
    assert report["effective_size"] == pytest.approx(effective_size(weight[training]), rel=1e-5)
    assert all(0.55 < each["auc"] < 0.75 for each in report["patterns"])


def test_patterns_get_the_shares_of_data(tmp_path: Path) -> None:
    simulation, data = dataset(6000), unlabelled(dataset(6000, seed=2))
    gone = (np.random.default_rng(0).random(6000) < 0.5) & data["has_trd"].to_numpy()
    data = with_values(
        data, has_trd=data["has_trd"].to_numpy() & ~gone, trd_signal=np.where(gone, np.nan, values(data, "trd_signal"))
    )
    table, report = adapted(tmp_path, "reweight", simulation, data)
    shares = [
        np.average(own["has_trd"].to_numpy(), weights=values(own, "weight") if "weight" in own.column_names else None)
        for own in (part.filter(pc.field("split") == "train") for part in (table, data))
    ]
    assert shares[0] == pytest.approx(shares[1], abs=1e-5)
    assert sum(each["share"]["data"] for each in report["patterns"]) == pytest.approx(1.0)


def test_without_a_shift_weights_are_even(tmp_path: Path) -> None:
    table, report = adapted(tmp_path, "reweight", dataset(8000), unlabelled(dataset(8000, seed=2)))
    assert report["effective_share"] > 0.9
    assert all(abs(each["auc"] - 0.5) < 0.05 for each in report["patterns"])
    assert values(table, "weight").std() < 0.35


def test_training_tracks_are_judged_by_others(tmp_path: Path) -> None:
    """A classifier that saw the tracks it judges tells even equal samples apart."""
    samples = dataset(4000), unlabelled(dataset(4000, seed=2))
    _, report = adapted(tmp_path, "reweight", *samples, leaves=60, trees=60, learning_rate=0.3)
    assert all(each["auc"] < 0.56 for each in report["patterns"])


def test_ratios_are_clipped(tmp_path: Path) -> None:
    samples = dataset(6000), unlabelled(dataset(6000, seed=2, shifted=True))
    (loose, free), (tight, report) = (adapted(tmp_path, "reweight", *samples, clip=clip) for clip in (1000.0, 1.5))
    assert free["clipped_share"] == 0.0
    assert report["clipped_share"] > 0.1
    pattern = loose["has_trd"].to_numpy() + 2 * loose["has_tof"].to_numpy()
    for number in range(4):
        weight = values(tight, "weight")[pattern == number]
        assert weight.max() / weight.min() == pytest.approx(1.5**2, rel=1e-4)
    assert report["effective_share"] > free["effective_share"]


def test_weights_are_multiplied_into_earlier_ones(tmp_path: Path) -> None:
    simulation, data = dataset(12000), unlabelled(dataset(12000, seed=2))
    positive = values(simulation, "sign") > 0
    earlier = np.where(positive, 3.0, 1.0)
    simulation = simulation.append_column("weight", pa.array(earlier, pa.float32()))
    table, _ = adapted(tmp_path, "reweight", simulation, data, columns=["p", "sign"])
    weight = values(table, "weight")
    assert weight[positive].mean() / weight[~positive].mean() == pytest.approx(1.0, rel=0.2)


@pytest.mark.parametrize("name", ["pdg_code", "collision_id", "nonsense"])
def test_columns_that_must_not_be_compared(name: str) -> None:
    with pytest.raises(ValidationError, match=f"'{name}' is no measured column"):
        settings_of("reweight").model_validate({"kind": "reweight", "columns": ["p", name]})
