"""Quantile mapping: quantiles, maps and cells."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from adapt_samples import GAIN, adapted, dataset, unlabelled, values, with_values

from pidflow.adapt.steps.quantile_morph import Map, quantiles_of, shrunk
from pidflow.errors import PidflowError


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
