"""Tuning on data: peaks, and what is the same for all species."""

from pathlib import Path

import numpy as np
import pytest
from adapt_samples import DELAY, GAIN, WIDER, adapted, dataset, exact_flight, robust, unlabelled, values, with_values

from pidflow.adapt.steps import tune_on_data


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
