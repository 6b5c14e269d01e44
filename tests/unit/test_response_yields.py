"""Yields of species in data: those of known mixtures, and their errors."""

import numpy as np
import pytest
from response_toys import MASS, MEASURED, PLANTED, SIGNALS, SIMULATED, WIDTH, flight, toy

from pidflow.adapt.response.cells import GROUPS, REST, Grid
from pidflow.adapt.response.fit import fit_signal
from pidflow.adapt.response.shape import Sample
from pidflow.adapt.response.yields import fit_yields, likelihoods


def test_yields_are_those_of_a_known_mixture():
    rng = np.random.default_rng(6)
    simulation, group = toy("gain", 20_000, SIMULATED, 1)
    data, truth = toy("gain", 20_000, MEASURED, 2)
    grid = Grid.of(data, 2, 2)
    # one measurement with Gaussians that overlap
    places = np.array([0.0, 1.5, 3.0, 4.5, 1.5])
    measured = places[truth] + rng.normal(size=len(truth))
    likelihood = np.exp(-0.5 * (measured[:, None] - places) ** 2)
    found = fit_yields(likelihood, data, simulation, group, grid)
    # nothing tells the rest from pions here: its share is the simulation's
    expected = np.array(MEASURED[:REST]) / np.array(SIMULATED[:REST])
    pull = (found.ratio[:, :, :REST] - expected) / found.error[:, :, :REST]
    assert np.abs(pull).max() < 4.0 and 0.5 < np.sqrt(np.mean(pull**2)) < 1.5
    weight = found.weight(simulation, group)
    assert weight.mean() == pytest.approx(1.0, abs=0.02)
    share = np.bincount(group, weight, len(GROUPS)) / weight.sum()
    np.testing.assert_allclose(share, MEASURED, atol=0.015)


TOF_SHARE = np.array([0.5, 0.7, 0.2, 0.55, 0.7])
"""Of tracks of each group: kaons decay before they reach the TOF."""

EXPECTED = np.array(MEASURED[:REST]) / np.array(SIMULATED[:REST])


def both_signals(n, shares, seed, gain=(0.0, 0.0, 1.0), time=(0.0, 0.0, 1.0)):
    """Return tracks with a gain, and those that reach the TOF with a time, and their groups."""
    columns, group = toy("gain", n, shares, (*seed, 0), *gain)
    rng = np.random.default_rng((*seed, 1))
    columns["has_tof"] = (rng.random(n) < TOF_SHARE[group]).astype(float)
    columns["has_trd"] = (rng.random(n) < np.where(group == 0, 0.6, 0.4)).astype(float)
    columns["length"] = 380.0 * np.cosh(columns["eta"])
    offset, slope, scale2 = time
    distance = WIDTH["time"] * np.sqrt(scale2) * rng.normal(size=n) + offset + slope * columns["eta"]
    columns["tof_signal"] = np.where(columns["has_tof"] > 0, flight(columns, MASS[group]) + distance, np.nan)
    return columns, group


def exact_likelihood(columns, group, rng):
    """Return likelihoods of Gaussian measurements: one in which kaons are nearly pions, and with TOF another."""
    found = np.zeros((len(group), len(GROUPS)))
    for places, seen in (
        (np.array([3.0, 0.0, 0.8, 2.0, 0.0]), True),
        (np.array([-0.5, 0.0, 3.0, 8.0, 0.0]), columns["has_tof"] > 0),
    ):
        measured = places[group] + rng.normal(size=len(group))
        found -= np.where(seen, 1.0, 0.0).reshape(-1, 1) * 0.5 * (measured[:, None] - places) ** 2
    return np.exp(found)


def fitted_likelihood(simulation, group, data, grid):
    """Return likelihoods of templates that were fitted to the data."""
    found = []
    for signal in SIGNALS.values():
        samples = Sample.of(simulation, signal), Sample.of(data, signal)
        seen = np.isfinite(signal.coordinate(simulation))
        fit, comparison = fit_signal(signal, grid, *samples, group[seen])
        found.append((comparison, fit.coefficients))
    return likelihoods(found, data)


def check_pulls(pulls):
    """Check pulls [n, G] of independent toys and bins."""
    width = pulls.std(axis=0, ddof=1)
    assert np.all(np.abs(pulls.mean(axis=0)) < 3.0 * width / np.sqrt(len(pulls)))
    assert np.all((width > 0.7) & (width < 1.4))


def test_yields_and_their_errors_if_species_differ_in_detectors():
    found = []
    for seed in range(30):
        simulation, group = both_signals(12_000, SIMULATED, (1, seed))
        data, truth = both_signals(12_000, MEASURED, (2, seed))
        likelihood = exact_likelihood(data, truth, np.random.default_rng((3, seed)))
        yields = fit_yields(likelihood, data, simulation, group, Grid.of(data, 2, 2))
        found.append((yields.ratio, yields.error))
    ratio, error = (np.array([each[i] for each in found])[..., :REST].reshape(-1, REST) for i in (0, 1))
    check_pulls((ratio - EXPECTED) / error)
    np.testing.assert_allclose(ratio.mean(axis=0), EXPECTED, rtol=0.04)


def test_yields_and_their_errors_from_fitted_signals():
    found = []
    for seed in range(15):
        simulation, group = both_signals(12_000, SIMULATED, (1, seed))
        data, _ = both_signals(12_000, MEASURED, (2, seed), PLANTED["gain"], PLANTED["time"])
        grid = Grid.of(data, 4, 3)
        yields = fit_yields(fitted_likelihood(simulation, group, data, grid), data, simulation, group, grid)
        found.append((yields.ratio, yields.error))
    ratio, error = (np.array([each[i] for each in found])[..., :REST].reshape(-1, REST) for i in (0, 1))
    check_pulls((ratio - EXPECTED) / error)
    np.testing.assert_allclose(ratio.mean(axis=0), EXPECTED, rtol=0.04)


def test_weights_of_yields_restore_the_shape_in_pseudorapidity():
    simulation, group = toy("gain", 20_000, SIMULATED, 1)
    data, _ = toy("gain", 20_000, SIMULATED, 2)
    data["eta"] = np.abs(data["eta"]) ** 0.5 * np.sign(data["eta"])
    grid = Grid((), (-0.5, 0.0, 0.5))
    found = fit_yields(np.ones((20_000, len(GROUPS))), data, simulation, group, grid)
    weight = found.weight(simulation, group)
    shares = np.bincount(grid.eta_bin(simulation), weight) / weight.sum()
    np.testing.assert_allclose(shares, np.bincount(grid.eta_bin(data)) / 20_000, atol=0.002)
