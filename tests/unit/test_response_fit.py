"""Fit of a signal: what is planted in unlabelled toy data is found, within errors that are right."""

from functools import cache

import numpy as np
import pytest
from response_toys import GAIN, MEASURED, PLANTED, SIGNALS, SIMULATED, WIDTH, toy

from pidflow.adapt.response.cells import PIONS, Grid
from pidflow.adapt.response.fit import SignalFit, fit_signal
from pidflow.adapt.response.shape import Sample


def fitted(kind, n, seed, planted, shares=MEASURED):
    signal = SIGNALS[kind]
    simulation, group = toy(kind, n, SIMULATED, (1, seed))
    data, truth = toy(kind, n, shares, (2, seed), *planted)
    grid = Grid.of(data, 4, 3)
    found = fit_signal(signal, grid, Sample.of(simulation, signal), Sample.of(data, signal), group)
    return found, data, truth, simulation, group, grid


def values(fit: SignalFit):
    return np.concatenate([fit.offset, fit.scale]), np.sqrt(np.diag(fit.covariance))


def wanted(planted):
    offset, slope, scale2 = planted
    return np.array([offset, slope, 0.0, scale2 - 1.0, 0.0, 0.0])


@pytest.mark.parametrize("kind", SIGNALS)
def test_fit_finds_gain_tilt_and_resolution_although_yields_differ(kind):
    (fit, _), data, *_ = fitted(kind, 20_000, 5, PLANTED[kind])
    value, error = values(fit)
    assert np.all(np.abs(value - wanted(PLANTED[kind])) < 4.0 * error)
    assert error[0] < 0.06 * WIDTH[kind] and error[3] < 0.1
    offset, slope, scale2 = PLANTED[kind]
    np.testing.assert_allclose(fit.offset_of(data), offset + slope * data["eta"], atol=0.15 * WIDTH[kind])
    assert fit.scale2_of(data).mean() == pytest.approx(scale2, abs=0.12)


@pytest.mark.parametrize("kind", SIGNALS)
def test_fit_finds_nothing_where_nothing_is(kind):
    (fit, _), *_ = fitted(kind, 6000, 8, (0.0, 0.0, 1.0), SIMULATED)
    value, error = values(fit)
    assert np.all(np.abs(value) < 3.5 * error)


@pytest.mark.parametrize("kind", SIGNALS)
def test_fit_finds_a_better_resolution(kind):
    (fit, _), data, *_ = fitted(kind, 12_000, 3, (0.0, 0.0, 0.6))
    assert fit.scale2_of(data).mean() == pytest.approx(0.6, abs=0.08)


def test_fit_needs_enough_tracks_of_both_samples():
    simulation, group = toy("gain", 299, SIMULATED, 1)
    data, _ = toy("gain", 1000, MEASURED, 2)
    few, many = Sample.of(simulation, GAIN), Sample.of(data, GAIN)
    grid = Grid.of(data, 4, 3)
    assert fit_signal(GAIN, grid, few, many, group) is None
    assert fit_signal(GAIN, grid, many, few, np.full(1000, PIONS)) is None


def test_points_lie_about_the_smooth_function():
    (fit, _), *_ = fitted("gain", 12_000, 4, PLANTED["gain"])
    for variable, count in (("p", 4), ("eta", 3)):
        points = [point for point in fit.points if point["variable"] == variable]
        assert len(points) == count
        assert all(point["low"] < point["mean"] < point["high"] for point in points)
        pulls = [(point["offset"] - point["offset_smooth"]) / point["offset_error"] for point in points]
        assert np.abs(pulls).max() < 3.5


@cache
def pulls(kind, toys=100, n=12_000):
    found = []
    for seed in range(toys):
        value, error = values(fitted(kind, n, 1000 + seed, PLANTED[kind])[0][0])
        found.append((value - wanted(PLANTED[kind])) / error)
    return np.array(found)


@pytest.mark.parametrize("kind", SIGNALS)
def test_pulls_over_toys(kind):
    found = pulls(kind)
    width = found.std(axis=0, ddof=1)
    assert np.all(np.abs(found.mean(axis=0)) < 3.0 * width / np.sqrt(len(found)))
    assert np.all((width > 0.6) & (width < 1.4))
