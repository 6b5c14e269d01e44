"""Matching: simulated tracks have their detectors at the rates of data."""

import numpy as np
import pytest

from pidflow.adapt.response.cells import Grid
from pidflow.adapt.response.matching import Rate, fit_matching, pattern_of


def seen_tracks(n, seed, trd, tof):
    """Return tracks whose detectors are there at rates that are functions of the columns."""
    rng = np.random.default_rng(seed)
    columns = {
        "p": np.exp(rng.uniform(np.log(0.2), np.log(5.0), n)),
        "eta": rng.uniform(-0.8, 0.8, n),
        "phi": rng.uniform(0.0, 2.0 * np.pi, n),
    }
    for name, rate in (("has_trd", trd), ("has_tof", tof)):
        columns[name] = (rng.random(n) < rate(columns)).astype(float)
    return columns


def matched(data_trd, data_tof, simulated=0.85, n=40_000):
    """Return data, simulation, the matching, and the simulation's detectors after it."""
    always = lambda columns: np.full(len(columns["p"]), simulated)  # noqa: E731
    simulation, data = seen_tracks(n, 1, always, always), seen_tracks(n, 2, data_trd, data_tof)
    matching = fit_matching(simulation, np.ones(n), data, Grid.of(data, 4, 3), {}, np.random.default_rng(3))
    return data, simulation, matching, *matching.masked(simulation, np.random.default_rng(4))


def rates(seen, bins):
    count = bins.max() + 1
    return np.bincount(bins, seen, count) / np.bincount(bins, minlength=count)


def slanted(columns):
    return 0.7 - 0.15 * columns["eta"] - 0.1 * np.cos(columns["phi"]) - 0.05 * np.log(columns["p"])


def test_simulated_rates_become_those_of_data():
    data, simulation, matching, trd, tof = matched(
        slanted, lambda c: slanted(c) - 0.2 * (c["has_trd"] > 0), simulated=0.97
    )
    for mine, theirs in zip(matching.bins.of(simulation), matching.bins.of(data), strict=True):
        for seen, name in ((trd, "has_trd"), (tof, "has_tof")):
            np.testing.assert_allclose(rates(seen, mine), rates(data[name], theirs), atol=0.035)
    # together, too: here tracks with TRD lack the TOF more often
    measured = pattern_of(data["has_trd"] > 0, data["has_tof"] > 0)
    shares = (np.bincount(pattern, minlength=4) / len(pattern) for pattern in (pattern_of(trd, tof), measured))
    np.testing.assert_allclose(*shares, atol=0.012)


def test_rates_are_those_of_weighted_tracks():
    always, never = (lambda c, rate=rate: np.full(len(c["p"]), rate) for rate in (0.9, 0.0))
    counting, other = seen_tracks(20_000, 1, always, always), seen_tracks(20_000, 5, never, never)
    simulation = {name: np.concatenate([counting[name], other[name]]) for name in counting}
    data = seen_tracks(20_000, 2, slanted, slanted)
    weight = np.repeat([1.0, 0.0], 20_000)
    matching = fit_matching(simulation, weight, data, Grid.of(data, 4, 3), {}, np.random.default_rng(3))
    seen = np.array(matching.masked(simulation, np.random.default_rng(4)))[:, :20_000]
    expected = [data[name].mean() for name in ("has_trd", "has_tof")]
    np.testing.assert_allclose(seen.mean(axis=1), expected, atol=0.012)


def test_matching_changes_nothing_where_nothing_is():
    rate = lambda c: np.full(len(c["p"]), 0.85)  # noqa: E731
    _, simulation, matching, trd, tof = matched(rate, rate)
    number = matching.bins.of(simulation)
    for seen, name in ((trd, "has_trd"), (tof, "has_tof")):
        own = simulation[name] > 0
        for axis in number:
            # what 40 000 tracks fluctuate by
            assert rates(seen[own], axis[own]).min() > 0.95


def test_dead_sector_of_data_is_dead_in_simulation():
    alive = lambda c: np.where((c["phi"] > np.pi / 3) & (c["phi"] < 2 * np.pi / 3), 0.0, 0.8)  # noqa: E731
    _, simulation, matching, trd, tof = matched(lambda c: np.full(len(c["p"]), 0.8), alive)
    sector = matching.bins.of(simulation)[2]
    dead = (sector >= 3) & (sector < 6)
    assert tof[dead].sum() < 0.01 * dead.sum()
    assert tof[~dead].mean() == pytest.approx(0.8, abs=0.015)
    assert trd.mean() == pytest.approx(0.8, abs=0.01)


def test_what_simulation_lacks_is_left_to_the_weight():
    data, simulation, matching, trd, tof = matched(
        lambda c: np.full(len(c["p"]), 0.85), lambda c: np.full(len(c["p"]), 0.85), simulated=0.6
    )
    # no rate of the simulation is above the data's
    assert trd.sum() > 0.99 * (simulation["has_trd"] > 0).sum()
    assert not np.any(trd & ~(simulation["has_trd"] > 0)) and not np.any(tof & ~(simulation["has_tof"] > 0))
    weight = matching.weight[matching.bins.grid.p_bin(simulation), pattern_of(trd, tof)]
    assert np.average(trd, weights=weight) == pytest.approx(data["has_trd"].mean(), abs=0.015)
    assert np.average(tof, weights=weight) == pytest.approx(data["has_tof"].mean(), abs=0.015)
    assert weight.mean() == pytest.approx(1.0, abs=0.02)


def test_keeping_a_detector_is_a_probability():
    factors = (np.array([3.0, 0.5]), np.array([1.5]), np.array([0.0, 1.0]))
    number = (np.array([0, 1, 0]), np.array([0, 0, 0]), np.array([1, 1, 0]))
    np.testing.assert_allclose(Rate("tof", None, factors, 0.5, 0.6).kept(number), [1.0, 0.75, 0.0])
