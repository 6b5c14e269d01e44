"""Propagation to the vertex against a step-by-step integration of the Lorentz force."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pidflow.ingest.helix import TrackAtVertex, TrackParameters, propagate_to_vertex

Array = NDArray[np.float64]

GEV_PER_KG_CM = 0.299792458e-3
"""Momentum in GeV/c that a charge e gains per cm of path across a field of 1 kG."""


def tracks(n: int, pt: tuple[float, float], seed: int = 1) -> dict[str, Array]:
    """Return tracks near the beam line, as the innermost update of the ITS or the TPC has them."""
    rng = np.random.default_rng(seed)
    return {
        "x": rng.uniform(2.0, 40.0, n),
        "y": rng.uniform(-5.0, 5.0, n),
        "z": rng.uniform(-20.0, 20.0, n),
        "alpha": rng.uniform(-np.pi, np.pi, n),
        "snp": rng.uniform(-0.7, 0.7, n),
        "tgl": rng.uniform(-1.2, 1.2, n),
        "q_over_pt": rng.choice([-1.0, 1.0], n) / np.exp(rng.uniform(*np.log(pt), n)),
        "vertex": rng.normal(size=(n, 3)) * np.array([0.5, 0.5, 6.0]),
    }


def laboratory(given: dict[str, Array]) -> tuple[Array, Array, Array]:
    """Return position [n, 3] in cm, unit direction [n, 3], and charge over momentum [n]."""
    cos, sin = np.cos(given["alpha"]), np.sin(given["alpha"])
    position = np.stack([given["x"] * cos - given["y"] * sin, given["x"] * sin + given["y"] * cos, given["z"]], axis=1)
    forward = np.sqrt(1 - given["snp"] ** 2)
    direction = np.stack([forward * cos - given["snp"] * sin, forward * sin + given["snp"] * cos, given["tgl"]], axis=1)
    norm = np.hypot(1.0, given["tgl"])
    return position, direction / norm[:, None], given["q_over_pt"] / norm


def integrate(
    position: Array, direction: Array, q_over_p: Array, field: Array, path: Array, steps: int
) -> tuple[Array, Array]:
    """Move particles [n, 3] by `path` [n] cm: fourth-order Runge-Kutta of du/ds = q/p · u × B."""

    def force(u: Array) -> Array:
        return GEV_PER_KG_CM * q_over_p[:, None] * np.cross(u, field)

    h = path[:, None] / steps
    for _ in range(steps):
        u1 = direction
        u2 = direction + h / 2 * force(u1)
        u3 = direction + h / 2 * force(u2)
        u4 = direction + h * force(u3)
        position = position + h / 6 * (u1 + 2 * u2 + 2 * u3 + u4)
        direction = direction + h / 6 * (force(u1) + 2 * force(u2) + 2 * force(u3) + force(u4))
    return position, direction


def closest_approach(given: dict[str, Array], bz: float, steps: int = 64) -> tuple[Array, Array]:
    """Return position and direction where the transverse distance to the vertex is least, by Newton's method."""
    position, direction, q_over_p = laboratory(given)
    field = np.array([0.0, 0.0, bz])
    for _ in range(12):
        offset = (position - given["vertex"])[:, :2]
        transverse = direction[:, :2]
        along = np.sum(offset * transverse, axis=1)
        turning = GEV_PER_KG_CM * q_over_p[:, None] * np.cross(direction, field)[:, :2]
        slope = np.sum(transverse**2, axis=1) + np.sum(offset * turning, axis=1)
        # far away the slope is no guide: walk along the tangent
        step = -along / np.where(slope > 0.3 * np.sum(transverse**2, axis=1), slope, np.sum(transverse**2, axis=1))
        if np.abs(step).max() < 1e-11:
            break
        position, direction = integrate(position, direction, q_over_p, field, step, steps)
    return position, direction


def propagate(given: dict[str, Array], bz: float) -> TrackAtVertex:
    parameters = {name: values for name, values in given.items() if name != "vertex"}
    return propagate_to_vertex(TrackParameters(**parameters), given["vertex"], bz)


def global_position(at: TrackAtVertex) -> Array:
    cos, sin = np.cos(at.alpha), np.sin(at.alpha)
    return np.stack([at.x * cos - at.y * sin, at.x * sin + at.y * cos, at.z], axis=1)


@pytest.mark.parametrize("bz", [-5.0, 5.0, -2.0, 0.0, 1e-7])
@pytest.mark.parametrize("pt", [(0.2, 1.0), (1.0, 20.0), (1e3, 1e6)], ids=["soft", "hard", "stiff"])
def test_agrees_with_the_integrated_lorentz_force(bz: float, pt: tuple[float, float]) -> None:
    given = tracks(300, pt)
    position, direction = closest_approach(given, bz)
    at = propagate(given, bz)
    np.testing.assert_allclose(global_position(at), position, rtol=0, atol=1e-6)
    azimuth = np.arctan2(direction[:, 1], direction[:, 0])
    np.testing.assert_allclose(np.sin(at.alpha - azimuth), 0.0, atol=1e-7)
    assert (np.cos(at.alpha - azimuth) > 0).all()
    offset = position - given["vertex"]
    np.testing.assert_allclose(at.dca_xy, offset[:, 1] * np.cos(azimuth) - offset[:, 0] * np.sin(azimuth), atol=1e-6)
    np.testing.assert_allclose(np.abs(at.dca_xy), np.hypot(offset[:, 0], offset[:, 1]), atol=1e-6)
    np.testing.assert_allclose(at.dca_z, offset[:, 2], atol=1e-6)


def test_no_point_of_the_path_is_nearer() -> None:
    given = tracks(100, (0.2, 5.0), seed=3)
    position, direction, q_over_p = laboratory(given)
    at = propagate(given, -5.0)
    for path in np.linspace(-60.0, 20.0, 41):
        moved, _ = integrate(position, direction, q_over_p, np.array([0.0, 0.0, -5.0]), np.full(100, path), 64)
        distance = np.hypot(*(moved - given["vertex"])[:, :2].T)
        assert (distance >= np.abs(at.dca_xy) - 1e-6).all()


def one(**changes: float) -> TrackAtVertex:
    """Propagate one track that flies along the laboratory's x axis; its vertex is the origin."""
    bz = changes.pop("bz", 0.0)
    values = {"x": 3.0, "y": 0.0, "z": 1.0, "alpha": 0.0, "snp": 0.0, "tgl": 0.0, "q_over_pt": 1.0} | changes
    parameters = TrackParameters(**{name: np.array([value]) for name, value in values.items()})
    return propagate_to_vertex(parameters, np.zeros((1, 3)), bz)


@pytest.mark.parametrize("bz", [0.0, 5.0, -5.0])
@pytest.mark.parametrize("charge", [1.0, -1.0])
def test_dca_is_positive_where_the_vertex_lies_to_the_right(bz: float, charge: float) -> None:
    # x = 0: the track starts at its closest approach, 0.1 cm to the left (right) of the vertex
    for y in (0.1, -0.1):
        at = one(x=0.0, y=y, q_over_pt=charge, bz=bz)
        np.testing.assert_allclose([at.dca_xy[0], at.y[0], at.dca_z[0], at.z[0]], [y, y, 1.0, 1.0], rtol=1e-12)
        np.testing.assert_allclose([at.x[0], at.alpha[0]], 0.0, atol=1e-12)


def test_a_positive_charge_in_a_positive_field_turns_clockwise() -> None:
    # radius 1/(0.3e-3 · 5) = 667 cm; walked back 3 cm, the direction has turned by 3/667 anticlockwise
    turn = 3.0 * GEV_PER_KG_CM * 5.0
    assert one(q_over_pt=1.0, bz=5.0).alpha[0] == pytest.approx(turn, rel=1e-4)
    assert one(q_over_pt=-1.0, bz=5.0).alpha[0] == pytest.approx(-turn, rel=1e-4)
    assert one(q_over_pt=1.0, bz=-5.0).alpha[0] == pytest.approx(-turn, rel=1e-4)
    sagitta = -(3.0**2) * GEV_PER_KG_CM * 5.0 / 2
    assert one(q_over_pt=1.0, bz=5.0).dca_xy[0] == pytest.approx(sagitta, rel=1e-3)


def test_straight_tracks_have_the_distance_of_a_line() -> None:
    at = one(x=4.0, y=3.0, snp=0.6, tgl=0.5)
    # direction (0.8, 0.6): the line passes the origin at no distance, 5 cm back
    np.testing.assert_allclose([at.dca_xy[0], at.dca_z[0], at.alpha[0]], [0.0, 1.0 - 2.5, np.arcsin(0.6)], atol=1e-12)


@pytest.mark.parametrize("bz", [-5.0, 0.0, 5.0])
def test_the_local_frame_does_not_matter(bz: float) -> None:
    given = tracks(200, (0.15, 10.0), seed=5)
    turn = np.random.default_rng(6).uniform(-0.5, 0.5, 200)
    inside = np.abs(np.arcsin(given["snp"]) - turn) < 1.5
    turned = given | {
        "x": given["x"] * np.cos(turn) + given["y"] * np.sin(turn),
        "y": given["y"] * np.cos(turn) - given["x"] * np.sin(turn),
        "alpha": given["alpha"] + turn + 2 * np.pi,
        "snp": np.sin(np.arcsin(given["snp"]) - turn),
    }
    first, second = propagate(given, bz), propagate(turned, bz)
    assert inside.sum() > 150
    for name in ("x", "y", "z", "dca_xy", "dca_z"):
        np.testing.assert_allclose(getattr(first, name)[inside], getattr(second, name)[inside], atol=1e-9, err_msg=name)
    difference = first.alpha[inside] - second.alpha[inside]
    np.testing.assert_allclose(np.sin(difference), 0.0, atol=1e-12)
    assert (first.alpha >= -np.pi).all() and (first.alpha < np.pi).all()


def test_turning_the_detector_turns_only_the_direction() -> None:
    given = tracks(100, (0.15, 10.0), seed=7)
    angle = 0.7
    cos, sin = np.cos(angle), np.sin(angle)
    vertex = given["vertex"] @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1.0]])
    first, second = propagate(given, 5.0), propagate(given | {"alpha": given["alpha"] + angle, "vertex": vertex}, 5.0)
    for name in ("x", "y", "z", "dca_xy", "dca_z"):
        np.testing.assert_allclose(getattr(first, name), getattr(second, name), atol=1e-9, err_msg=name)
    np.testing.assert_allclose(np.sin(second.alpha - first.alpha - angle), 0.0, atol=1e-12)


def test_curved_and_straight_formulas_meet() -> None:
    given = tracks(100, (1.0, 10.0), seed=9)
    # below 1e-9/cm a track counts as straight; 0.2 and 5 times that
    pair = [propagate(given | {"q_over_pt": np.full(100, q)}, 5.0) for q in (1.3e-7, 3.3e-6)]
    for name in ("x", "y", "z", "dca_xy", "dca_z"):
        np.testing.assert_allclose(getattr(pair[0], name), getattr(pair[1], name), atol=1e-5, err_msg=name)


def test_no_tracks_give_no_rows() -> None:
    empty = {name: values[:0] for name, values in tracks(1, (1.0, 2.0)).items()}
    assert len(propagate(empty, 5.0).dca_xy) == 0
