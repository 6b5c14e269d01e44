"""Shapes of species in a signal, and the map that moves and widens them."""

from dataclasses import replace

import numpy as np
import pytest
from response_toys import MASS, SIGNALS, SIMULATED, TERMS, TIME, WIDTH, flight, toy

from pidflow.adapt.response.calibration import SignalMap
from pidflow.adapt.response.cells import GROUPS
from pidflow.adapt.response.fit import SignalFit
from pidflow.adapt.response.shape import Sample, Shape


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
