"""Response calibration: what is planted in unlabelled toy data is found, and nothing else is changed."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from scipy.special import erf
from tracks_sample import TOF, TPC, arrange, make_tracks

from pidflow.adapt.response.calibration import SignalMap, fit_calibration
from pidflow.adapt.response.cells import GROUPS, MASSES, PIONS, REST, Grid, charge_of, group_of
from pidflow.adapt.response.figure import label_of, plot_calibration, plot_composition
from pidflow.adapt.response.fit import Sample, Shape, SignalFit, fit_signal
from pidflow.adapt.response.matching import Rate, fit_matching, pattern_of
from pidflow.adapt.response.signals import Signal
from pidflow.adapt.response.templates import SMOOTHING, Axis, Templates
from pidflow.adapt.response.yields import fit_yields, likelihoods
from pidflow.adapt.sample import adapt_sample
from pidflow.adapt.steps.base import Surroundings
from pidflow.adapt.steps.calibrate_response import Settings
from pidflow.dataset.build import n_sigma
from pidflow.dataset.response import Response
from pidflow.files import write_json
from pidflow.physics import C_CM_PER_PS
from pidflow.tracks import DATASET_COLUMNS, WEIGHT

MASS = np.array(MASSES)
SIMULATED = (0.08, 0.62, 0.15, 0.12, 0.03)
MEASURED = (0.05, 0.54, 0.26, 0.12, 0.03)
TERMS = ("1", "eta", "ln p")

GAIN = Signal(
    "gain", "tpc_signal", ("tpc_signal",), lambda c, mass: 50.0 * loss(c, mass), lambda c: np.ones(len(c["p"])),
    logarithmic=True, relative_noise=False, identifies=True, unit="", terms=TERMS,
)  # fmt: skip
TIME = Signal(
    "time", "tof_signal", ("tof_signal", "length"), lambda c, mass: flight(c, mass), lambda c: np.ones(len(c["p"])),
    logarithmic=False, relative_noise=False, identifies=True, unit="ps", terms=TERMS,
)  # fmt: skip
SIGNALS = {signal.name: signal for signal in (GAIN, TIME)}
WIDTH = {"gain": 0.07, "time": 80.0}
PLANTED = {"gain": (0.05, 0.03, 1.4), "time": (40.0, -20.0, 1.5)}
"""Offset, its slope in η, and squared scale of the resolution."""


def flight(columns, mass):
    """Return the time that particles of masses take, ps."""
    return columns["length"] * np.sqrt(1.0 + (mass / columns["p"]) ** 2) / C_CM_PER_PS


def loss(columns, mass):
    """Return the energy loss of particles of masses in units of the smallest."""
    return np.where(np.less(mass, 0.1), 1.57, (1.0 + 0.6 * (mass / columns["p"]) ** 1.7) ** 0.9)


def toy(kind, n, shares, seed, offset=0.0, slope=0.0, scale2=1.0):
    """Return tracks of one signal, and their groups."""
    rng = np.random.default_rng(seed)
    group = rng.choice(len(GROUPS), n, p=shares)
    columns = {
        "p": np.exp(rng.uniform(np.log(0.3), np.log(2.0), n)),
        "eta": rng.uniform(-0.8, 0.8, n),
        "sign": rng.choice([-1.0, 1.0], n),
        "tpc_n_cls_found": np.full(n, 140.0),
        "has_trd": np.zeros(n),
        "has_tof": (rng.random(n) < 0.7).astype(float),
    }
    distance = WIDTH[kind] * np.sqrt(scale2) * rng.normal(size=n) + offset + slope * columns["eta"]
    if kind == "gain":
        columns["tpc_signal"] = 50.0 * loss(columns, MASS[group]) * np.exp(distance)
    else:
        columns["length"] = 380.0 * np.cosh(columns["eta"])
        columns["tof_signal"] = flight(columns, MASS[group]) + distance
    return columns, group


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


# templates

AXIS = Axis(-5.0, 5.0, 200)


def gaussian(mean, width):
    """Return the share of a Gaussian in each bin."""
    edges = AXIS.low + AXIS.step * np.arange(AXIS.bins + 1)
    return np.diff(0.5 * erf((edges - mean) / (np.sqrt(2.0) * width)))


def filled(n=200_000, mean=0.4, width=0.5, kept=1.0 - SMOOTHING**2):
    """Return the template of evenly spread quantiles of a Gaussian, shortened as its kernel wants."""
    from scipy.stats import norm

    quantiles = norm.ppf((np.arange(n) + 0.5) / n)
    coordinate = mean + np.sqrt(kept) * width * quantiles
    return Templates.fill(AXIS, (1, 1), np.zeros(n, np.intp), coordinate, np.ones(n), np.full(n, width), kept)


def moments(density):
    x, density = AXIS.centres, density[0, 0] - density[0, 0].min()
    mean = (x * density).sum() / density.sum()
    return mean, np.sqrt(((x - mean) ** 2 * density).sum() / density.sum())


def density(templates, offset=0.0, scale2=1.0, relative=False, **more):
    return templates.densities(np.array([offset]), np.array([scale2]), relative=relative, **more)


@pytest.mark.parametrize(("offset", "scale2"), [(0.0, 1.0), (0.37, 1.0), (-0.8, 2.5), (0.613, 4.0)])
def test_template_is_moved_and_widened_as_the_gaussian_it_is(offset, scale2):
    (found,) = density(filled(), offset, scale2)
    expected = 0.997 * gaussian(0.4 + offset, 0.5 * np.sqrt(scale2)) + 0.003 / AXIS.bins
    np.testing.assert_allclose(found[0, 0], expected, atol=0.004 * expected.max())


def test_template_keeps_variance_when_smoothed_and_narrows():
    mean, width = moments(density(filled())[0])
    assert mean == pytest.approx(0.4, abs=1e-3) and width == pytest.approx(0.5, rel=0.01)
    narrow = density(filled(kept=(1.0 - SMOOTHING**2) * 0.5), scale2=0.5)[0]
    assert moments(narrow)[1] == pytest.approx(0.5 * np.sqrt(0.5), rel=0.01)


def test_template_does_not_come_in_again_on_the_other_side():
    (found,) = density(filled(), offset=6.0)
    assert found[0, 0, : AXIS.bins // 2].max() < 0.004 / AXIS.bins


def test_template_is_widened_as_a_signal_with_gaussian_noise():
    """Noise that is Gaussian in the signal lowers the mean of its logarithm and gives it a tail on the lower side."""
    rng = np.random.default_rng(1)
    coordinate = rng.normal(0.4, 0.2, 400_000) + np.log(np.maximum(1.0 + rng.normal(0.0, 0.2, 400_000), 0.01))
    edges = AXIS.low + AXIS.step * np.arange(AXIS.bins + 1)
    expected = np.histogram(coordinate, edges)[0] / len(coordinate)
    found = density(filled(width=0.2), scale2=2.0, relative=True)[0][0, 0]
    np.testing.assert_allclose(found, 0.997 * expected + 0.003 / AXIS.bins, atol=0.03 * expected.max())
    assert moments(found[None, None])[0] == pytest.approx(coordinate.mean(), abs=0.002)


def test_template_without_tracks_is_flat():
    none = np.empty(0)
    templates = Templates.fill(AXIS, (1, 1), np.empty(0, np.intp), none, none, none, 1.0 - SMOOTHING**2)
    for relative in (False, True):
        for found in density(templates, 0.3, 1.5, relative=relative, derivatives=True):
            assert np.isfinite(found).all() and np.ptp(found) < 1e-12


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("scale2", [1.0, 1.8])
def test_derivatives_are_those_of_finite_differences(scale2, relative):
    templates, h = filled(width=0.25 if relative else 0.5), 1e-4
    if relative and scale2 == 1.0:
        # only above 1 is the mean lowered: aside of that edge
        scale2 = 1.01
    _, by_offset, by_scale = density(templates, 0.2, scale2, relative, derivatives=True)
    for found, high, low in (
        (by_offset, (0.2 + h, scale2), (0.2 - h, scale2)),
        (by_scale, (0.2, scale2 + h), (0.2, scale2 - h)),
    ):
        expected = (density(templates, *high, relative)[0] - density(templates, *low, relative)[0]) / (2.0 * h)
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max() + 1e-9)


def test_derivative_shows_the_way_out_where_data_is_narrower_than_the_template_can_be():
    """A fit starts there when the resolution of data is better; without a slope it could not go on."""
    by_scale = density(filled(), 0.2, 0.5, derivatives=True)[2]
    assert np.abs(by_scale).max() > 0.01 * density(filled(), 0.2, 0.5)[0].max()


# fit of a signal


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


# yields


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


# matching


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


# the whole calibration


RESPONSE = Response(TPC, TOF)
SETTINGS = {"kind": "calibrate_response", "p_bins": 4, "eta_bins": 3}
TRUTH = ("pdg_code", "is_physical_primary", "mother_pdg_code")


def dataset(n, seed, **tracks):
    """Return a dataset of generated tracks; part of it is no training set."""
    table = make_tracks(n, seed=seed, **tracks)
    columns = {name: table[name] for name in table.column_names}
    columns |= n_sigma(table, RESPONSE)
    columns["split"] = np.resize(["train", "train", "test", "train", "validation"], n)
    return arrange(columns, DATASET_COLUMNS)


def without_tof(table, lost):
    for position, field in enumerate(table.schema):
        if field.name == "has_tof" or field.name.startswith(("tof_", "beta", "length")):
            absent = pa.scalar(False) if field.name == "has_tof" else pa.scalar(None, field.type)
            table = table.set_column(position, field.name, pc.if_else(pa.array(lost), absent, table[field.name]))
    return table


class Run:
    """A run whose data has another TPC gain and fewer tracks with TOF."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.simulation, self.data, self.response = (folder / name for name in ("s.parquet", "d.parquet", "r.json"))
        write_json(
            self.response,
            {
                "tpc": {**vars(TPC), "bethe_bloch": list(TPC.bethe_bloch)},
                "tof": vars(TOF),
            },
        )
        self.source = dataset(6000, 1)
        pq.write_table(self.source, self.simulation)
        data = dataset(6000, 2, labelled=False, tpc=replace(TPC, mip=47.0))
        phi = data["phi"].to_numpy()
        pq.write_table(without_tof(data, (phi < 2.0) & (phi > 1.0)), self.data)
        self.adapted, self.report = self.run(self.data, "own")
        self.content = json.loads(self.report.read_bytes())

    @property
    def surroundings(self) -> Surroundings:
        return Surroundings(900001, (211, 321, 2212), {}, self.response, 1)

    def run(self, data: Path, name: str) -> tuple[Path, Path]:
        outputs = [self.folder / f"{name}{end}" for end in (".parquet", ".json", "-varied.parquet")]
        adapt_sample(self.simulation, data, *outputs, settings=SETTINGS, surroundings=self.surroundings)
        return outputs[0], outputs[1]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return Run(tmp_path_factory.mktemp("run"))


def test_report_has_the_gain_that_the_data_has(run):
    tpc = run.content["signals"][0]
    assert tpc["signal"] == "TPC" and tpc["tracks"] == {"simulation": 3600, "data": 3600}
    points = [point for point in tpc["points"] if point["variable"] == "eta"]
    assert np.mean([point["offset"] for point in points]) == pytest.approx(np.log(47.0 / 50.0), abs=0.008)
    kinds = [(signal["signal"], signal["unit"], signal["logarithmic"]) for signal in run.content["signals"]]
    assert kinds == [("TPC", "", True), ("TRD", "", True), ("TOF", "ps", False)]


def test_rows_and_what_is_not_calibrated_stay(run):
    adapted = pq.read_table(run.adapted)
    assert adapted.column_names == [*run.source.column_names, WEIGHT.name]
    changed = {
        field.name
        for field in run.source.schema
        if not adapted[field.name].combine_chunks().equals(run.source[field.name].combine_chunks())
    }
    allowed = {
        field for field in run.source.column_names if field.startswith(("tpc_signal", "tpc_nsigma", "trd_", "tof_"))
    }
    assert changed <= allowed | {"has_trd", "has_tof", "beta", "length"}
    assert {"tpc_signal", "tpc_nsigma_pi", "trd_signal", "tof_signal", "beta", "has_tof"} <= changed
    for field in run.source.schema:
        assert adapted.schema.field(field.name).type == field.type


def test_adapted_signal_has_the_mean_of_data(run):
    adapted = pq.read_table(run.adapted)
    ratio = adapted["tpc_signal"].to_numpy() / run.source["tpc_signal"].to_numpy()
    assert np.median(ratio) == pytest.approx(47.0 / 50.0, abs=0.008)


def test_derived_columns_agree_with_the_new_signals(run):
    adapted = pq.read_table(run.adapted)
    for name, values in n_sigma(adapted, RESPONSE).items():
        # float32 of large times
        np.testing.assert_allclose(adapted[name].to_numpy(), values, atol=2e-3)
    seen = adapted.filter(pc.field("has_tof"))
    length, time, start = (
        seen[name].cast(pa.float64()).to_numpy() for name in ("length", "tof_signal", "tof_event_time")
    )
    np.testing.assert_allclose(seen["beta"].to_numpy(), length / (C_CM_PER_PS * (time - start)), rtol=2e-6)
    # all event times are later by the same
    before = run.source["tof_event_time"].to_numpy()[adapted["has_tof"].to_numpy()]
    np.testing.assert_allclose(start - before, run.content["event_time_offset_ps"], atol=1e-3)


@pytest.mark.parametrize(("flag", "prefix"), [("has_trd", "trd_"), ("has_tof", "tof_")])
def test_hidden_detector_is_null_everywhere(run, flag, prefix):
    adapted = pq.read_table(run.adapted)
    seen = adapted[flag].to_numpy()
    assert not np.any(seen & ~run.source[flag].to_numpy())
    extra = ("beta", "length") if flag == "has_tof" else ()
    for name in [name for name in adapted.column_names if name.startswith(prefix) or name in extra]:
        assert not np.any(adapted[name].is_valid().to_numpy() & ~seen)
    filled = adapted[f"{prefix}signal"].is_valid().to_numpy()
    np.testing.assert_array_equal(filled, seen)


def test_sector_without_tof_in_data_lacks_it_afterwards(run):
    adapted = pq.read_table(run.adapted)
    phi, seen = adapted["phi"].to_numpy(), adapted["has_tof"].to_numpy()
    assert seen[(phi > 1.05) & (phi < 1.74)].mean() < 0.03
    assert seen[(phi < 1.0) | (phi > 2.1)].mean() > 0.55


def test_weight_has_mean_one_on_training_tracks(run):
    adapted = pq.read_table(run.adapted)
    weight = adapted[WEIGHT.name].to_numpy()
    assert adapted[WEIGHT.name].type == WEIGHT.dtype and weight.min() > 0.0
    assert weight[adapted["split"].to_numpy() == "train"].mean() == pytest.approx(1.0, abs=0.03)


def test_weight_that_is_there_is_multiplied(run):
    calibration = fit_calibration(run.simulation, run.data, run.surroundings, Settings(p_bins=4, eta_bins=3))
    weighted = run.source.append_column(WEIGHT.name, pa.array(np.full(len(run.source), 2.0), WEIGHT.dtype))
    once, twice = (
        calibration.apply(table, np.random.default_rng(1))[WEIGHT.name].to_numpy() for table in (run.source, weighted)
    )
    np.testing.assert_allclose(twice, 2.0 * once, rtol=1e-6)


def test_truth_of_data_is_never_read(run):
    data = pq.read_table(run.data)
    planted = np.random.default_rng(9).choice([211, 321, -2212, 11], len(data))
    assert data["pdg_code"].null_count == len(data)
    for name, values in zip(TRUTH, (planted, planted > 0, planted), strict=True):
        column = pa.array(values).cast(data.schema.field(name).type)
        data = data.set_column(data.column_names.index(name), name, column)
    path = run.folder / "labelled.parquet"
    pq.write_table(data, path)
    for mine, theirs in zip(run.run(path, "again"), (run.adapted, run.report), strict=True):
        assert mine.read_bytes() == theirs.read_bytes()


def test_only_training_tracks_of_data_are_looked_at(run):
    data = pq.read_table(run.data)
    other = data["split"].to_numpy() != "train"
    signal = np.where(other, 500.0, data["tpc_signal"].to_numpy())
    place = data.column_names.index("tpc_signal")
    path = run.folder / "spoilt.parquet"
    pq.write_table(data.set_column(place, data.schema.field(place), pa.array(signal, pa.float32())), path)
    assert run.run(path, "spoilt")[1].read_bytes() == run.report.read_bytes()


@pytest.mark.parametrize("kind", SIGNALS)
@pytest.mark.parametrize("group", ["pi", "K", "p"])
def test_width_of_a_species_is_its_resolution(kind, group):
    signal = SIGNALS[kind]
    simulation, numbers = toy(kind, 40_000, SIMULATED, 1)
    _, width = Shape.of(Sample.of(simulation, signal), numbers, signal).of_tracks(simulation, numbers, signal)
    np.testing.assert_allclose(np.median(width[numbers == GROUPS.index(group)]), WIDTH[kind], rtol=0.15)


@pytest.mark.parametrize("group", ["pi", "K", "p"])
def test_shape_finds_where_species_are_if_the_expectation_is_off(group):
    off = replace(TIME, expected=lambda c, mass: flight(c, mass) * 1.002 + 100.0 * mass)
    simulation, numbers = toy("time", 40_000, SIMULATED, 1)
    shape = Shape.of(Sample.of(simulation, off), numbers, off)
    centre, width = shape.of_tracks(simulation, numbers, off)
    own = numbers == GROUPS.index(group)
    exact = off.coordinate({**simulation, "tof_signal": flight(simulation, MASS[numbers])})
    np.testing.assert_allclose(np.median((centre - exact)[own]), 0.0, atol=0.1 * WIDTH["time"])
    np.testing.assert_allclose(np.median(width[own]), WIDTH["time"], rtol=0.15)
    np.testing.assert_array_equal(
        shape.centre_of(GROUPS.index(group), {name: values[own] for name, values in simulation.items()}, off),
        centre[own],
    )


@pytest.mark.parametrize("scale2", [0.5, 1.0, 1.9])
@pytest.mark.parametrize("kind", SIGNALS)
@pytest.mark.parametrize("group", ["pi", "K", "p"])
def test_map_narrows_widens_and_moves_every_species(kind, group, scale2):
    signal, unit = SIGNALS[kind], WIDTH[kind]
    simulation, numbers = toy(kind, 40_000, SIMULATED, 1)
    shape = Shape.of(Sample.of(simulation, signal), numbers, signal)
    fit = SignalFit(
        name=kind, unit=signal.unit, logarithmic=signal.logarithmic, terms=TERMS, scale_terms=("1", "eta^2", "ln p"),
        offset=unit * np.array([0.5, 0.2, 0.0]), scale=np.array([scale2 - 1.0, 0.0, 0.0]), covariance=np.eye(6),
        points=[], tracks=(1, 1), chi2=0.0, bins=1,
    )  # fmt: skip
    normal = np.random.default_rng(2).normal(size=len(numbers))
    moved = {**simulation, signal.column: SignalMap(signal, fit, shape).apply(simulation, numbers, normal)}
    own = numbers == GROUPS.index(group)
    centre = signal.coordinate({**simulation, signal.column: signal.expected(simulation, MASS[numbers])})
    distance = signal.coordinate(moved) - centre - unit * (0.5 + 0.2 * simulation["eta"])
    assert distance[own].mean() == pytest.approx(0.0, abs=0.1 * unit)
    assert distance[own].std() == pytest.approx(unit * np.sqrt(scale2), rel=0.1)


def test_groups_and_charges():
    assert group_of(np.array([11, -13, 211, -321, 2212, 1000010020, 0])).tolist() == [0, 1, 1, 2, 3, REST, REST]
    assert charge_of({"sign": np.array([-1.0, 1.0, np.nan])}).tolist() == [0, 1, 0]


# figures


def gaps(run, folder):
    """Return a report with one signal, neither yields nor matching."""
    content = {**run.content, "yields": None, "matching": None, "signals": run.content["signals"][:1]}
    write_json(folder / "gaps.json", content)
    return folder / "gaps.json"


FIGURES = {"calibration": plot_calibration, "composition": plot_composition}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", FIGURES)
def test_figure_is_drawn_without_warning_and_has_the_same_bytes_twice(tmp_path, run, name):
    first, second, other = (tmp_path / file for file in ("first.svg", "second.svg", "gaps.png"))
    for file in (first, second):
        FIGURES[name](run.report, file, title="run 1")
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes().startswith(b"<?xml") and first.stat().st_size > 5000
    FIGURES[name](gaps(run, tmp_path), other, title="run 1")
    assert other.stat().st_size > 5000


def test_axis_of_an_offset_is_that_of_its_coordinate(run):
    tpc, *_, tof = run.content["signals"]
    assert label_of({**tpc, "signal": "TOF"}, "offset") == label_of(tpc, "offset") != label_of(tof, "offset")
    assert label_of({**tof, "signal": "other", "unit": "ns"}, "offset") == "Offset (ns)"
    assert label_of({**tof, "signal": "other", "unit": ""}, "offset") == "Offset"
