"""Tag-and-probe samples of weak decays and photon conversions, against the generator's truth."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy.optimize import minimize
from test_simulate import mothers, read, simulate, simulation

from pidflow.config.v0 import V0Cuts
from pidflow.ingest import v0_finder
from pidflow.ingest.helix import TrackParameters, propagate_to_vertex
from pidflow.ingest.tag_and_probe import Spectrum, read_spectra, summarise, write_summary
from pidflow.ingest.v0_figure import V0Sample, plot_v0s
from pidflow.ingest.v0_finder import V0s, as_table, closest_approach, find_v0s, parallel_approach
from pidflow.physics import BY_PDG
from pidflow.simulate.ao2d import FAKE_LABEL
from pidflow.simulate.helix import Helix
from pidflow.simulate.tracking import PT_RESOLUTION
from pidflow.v0s import KINDS, REGIONS, schema

Array = NDArray[np.float64]

MOTHER = {"k0s": 310, "lambda": 3122, "antilambda": -3122, "gamma": 22}
LOOSE = V0Cuts(dca_xy_min=0.01, dca_daughters_max=1.0, cos_pointing_min=0.95, beyond_innermost_max=1000.0)
"""Cuts that let enough background pass to compare its estimate with."""

EVENTS = 3500


class Frame(NamedTuple):
    """Tracks of one data frame with a collision, and the generated particle of each."""

    bz: float
    parameters: TrackParameters
    collision: NDArray[np.int64]
    vertex: Array
    dca_xy: Array
    candidate: NDArray[np.bool_]
    fake: NDArray[np.bool_]
    pdg: NDArray[np.int64]
    mother: NDArray[np.int64]
    mother_pdg: NDArray[np.int64]
    transported: NDArray[np.bool_]
    origin: Array
    momentum: Array

    def find(self, settings: V0Cuts | None = None, **changes: Any) -> V0s:
        arguments: dict[str, Any] = {
            "collision": self.collision,
            "vertex": self.vertex,
            "dca_xy": self.dca_xy,
            "candidate": self.candidate,
            "bz": self.bz,
            "settings": settings or V0Cuts(),
            "innermost": np.hypot(self.parameters.x, self.parameters.y),
        }
        return find_v0s(self.parameters, **arguments | changes)

    def truth(self, v0s: V0s) -> NDArray[np.int64]:
        """Return the PDG code of the common mother of the legs; 0 if there is none."""
        a, b = v0s.positive, v0s.negative
        same = (self.mother[a] == self.mother[b]) & (self.mother[a] >= 0) & self.transported[a]
        return np.where(same, self.mother_pdg[a], 0)

    def labelled(self, v0s: V0s) -> NDArray[np.bool_]:
        return ~(self.fake[v0s.positive] | self.fake[v0s.negative])


def frames_of(path: Path, bz: float) -> list[Frame]:
    frames = []
    for trees in read(path).values():
        track, extra, particle = trees["O2track_iu"], trees["O2trackextra_002"], trees["O2mcparticle_001"]
        kept = track["fIndexCollisions"] >= 0
        names = ("fX", "fY", "fZ", "fAlpha", "fSnp", "fTgl", "fSigned1Pt")
        parameters = TrackParameters(*(track[name][kept].astype(np.float64) for name in names))
        collision = track["fIndexCollisions"][kept].astype(np.int64)
        position = [trees["O2collision_001"][name].astype(np.float64) for name in ("fPosX", "fPosY", "fPosZ")]
        vertex = np.stack(position, axis=1)
        label, mask = (trees["O2mctracklabel"][name][kept] for name in ("fIndexMcParticles", "fMcMask"))
        fake = (label < 0) | (mask & FAKE_LABEL > 0)
        own = np.maximum(label, 0)
        mother = np.where(fake, -1, mothers(particle)[own])
        frames.append(
            Frame(
                bz=bz,
                parameters=parameters,
                collision=collision,
                vertex=vertex,
                dca_xy=propagate_to_vertex(parameters, vertex[collision], bz).dca_xy,
                candidate=extra["fTPCNClsFindable"][kept] > 0,
                fake=fake,
                pdg=particle["fPdgCode"][own].astype(np.int64),
                mother=mother,
                mother_pdg=np.where(mother >= 0, particle["fPdgCode"][np.maximum(mother, 0)], 0),
                transported=particle["fStatusCode"][own] > 1,
                origin=np.stack([particle[name][own].astype(np.float64) for name in ("fVx", "fVy", "fVz")]),
                momentum=np.stack([particle[name][own].astype(np.float64) for name in ("fPx", "fPy", "fPz")]),
            )
        )
    return frames


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[float, list[Frame]]:
    """Return the data frames of a file for each sign of the field."""

    def make(bz: float) -> list[Frame]:
        folder = tmp_path_factory.mktemp("field")
        simulate(folder, simulation("file.root", bz=bz, seed=int(300 + bz), events=EVENTS))
        return frames_of(folder / "file.root", bz)

    fields = (-5.0, 5.0)
    with ThreadPoolExecutor() as pool:
        return dict(zip(fields, pool.map(make, fields), strict=True))


@pytest.fixture(scope="module")
def frames(samples: dict[float, list[Frame]]) -> list[Frame]:
    return [frame for own in samples.values() for frame in own]


def tables(frames: list[Frame], folder: Path, settings: V0Cuts) -> list[Path]:
    paths = []
    for number, frame in enumerate(frames):
        n = len(frame.collision)
        table = as_table(
            frame.find(settings),
            {
                "source": "file.root",
                "data_frame": np.full(n, number),
                "run": np.full(n, 900001),
                "row": np.arange(n, dtype=np.int32) + 7,
                "collision_id": frame.collision.astype(np.uint64) + np.uint64(2**63),
            },
        )
        paths.append(folder / f"{number}.parquet")
        pq.write_table(table, paths[-1])
    return paths


# purity and background


def test_probe_legs_are_pure(frames: list[Frame]) -> None:
    right: dict[int, list[bool]] = {}
    for frame in frames:
        v0s = frame.find()
        for number, kind in enumerate(KINDS):
            chosen = (v0s.kind == number) & (v0s.region == 0)
            for leg, pdg in ((v0s.positive[chosen], kind.positive), (v0s.negative[chosen], kind.negative)):
                known = leg[~frame.fake[leg]]
                right.setdefault(pdg, []).extend((frame.pdg[known] == pdg).tolist())
    tracks = {pdg: len(values) for pdg, values in right.items()}
    assert min(tracks[pdg] for pdg in (211, -211)) > 600
    assert min(tracks[pdg] for pdg in (2212, -2212)) > 70
    assert min(tracks[pdg] for pdg in (11, -11)) > 600
    for pdg, least in {211: 0.95, -211: 0.95, 2212: 0.95, -2212: 0.95, 11: 0.9, -11: 0.9}.items():
        assert np.mean(right[pdg]) >= least, pdg


@pytest.mark.parametrize("bz", [-5.0, 5.0])
def test_most_decays_with_two_tracks_are_found_in_either_field(samples: dict[float, list[Frame]], bz: float) -> None:
    found, there = dict.fromkeys(MOTHER, 0), dict.fromkeys(MOTHER, 0)
    in_window = reversed_field = 0
    for frame in samples[bz]:
        v0s = frame.find()
        truth = frame.truth(v0s)
        reversed_field += (frame.find(bz=-bz).region == 0).sum()
        in_window += (v0s.region == 0).sum()
        for number, kind in enumerate(KINDS):
            found[kind.key] += ((truth == MOTHER[kind.key]) & (v0s.kind == number) & (v0s.region == 0)).sum()
            daughters = (frame.mother_pdg == MOTHER[kind.key]) & frame.transported & frame.candidate & ~frame.fake
            there[kind.key] += (np.bincount(frame.mother[daughters], minlength=1) == 2).sum()
    least = {"k0s": 0.6, "lambda": 0.55, "antilambda": 0.55, "gamma": 0.6}
    for kind in MOTHER:
        assert found[kind] > least[kind] * there[kind], (kind, found, there)
    assert reversed_field < 0.5 * in_window


def test_background_estimate_agrees_with_the_true_background(frames: list[Frame], tmp_path: Path) -> None:
    summary = summarise(read_spectra(tables(frames, tmp_path, LOOSE)), LOOSE)
    true = dict.fromkeys(MOTHER, 0)
    for frame in frames:
        v0s = frame.find(LOOSE)
        # pairs in the window that are not the two legs of that decay; those without labels are not counted
        wrong = frame.labelled(v0s) & (v0s.region == 0)
        for number, kind in enumerate(KINDS):
            true[kind.key] += (wrong & (v0s.kind == number) & (frame.truth(v0s) != MOTHER[kind.key])).sum()
    assert sum(true.values()) > 30
    for kind, numbers in summary["kinds"].items():
        background = numbers["background"]
        error = max(background["high"] - background["value"], 1.0)
        assert abs(true[kind] - background["value"]) < 3 * error, (kind, true, background)
        assert numbers["purity"]["low"] <= numbers["purity"]["value"] <= numbers["purity"]["high"]
    total = sum(numbers["background"]["value"] for numbers in summary["kinds"].values())
    assert total == pytest.approx(sum(true.values()), rel=0.5)


def test_tight_cuts_leave_no_background_that_the_estimate_does_not_allow(frames: list[Frame], tmp_path: Path) -> None:
    summary = summarise(read_spectra(tables(frames, tmp_path, V0Cuts())), V0Cuts())
    for pdg in ("211", "-211", "2212", "-2212", "11", "-11"):
        assert summary["species"][pdg]["purity"]["value"] > 0.93
    for number, kind in enumerate(KINDS):
        known = total = 0
        for frame in frames:
            v0s = frame.find()
            chosen = frame.labelled(v0s) & (v0s.kind == number) & (v0s.region == 0)
            known += chosen.sum()
            total += (chosen & (frame.truth(v0s) == MOTHER[kind.key])).sum()
        assert total / known > summary["kinds"][kind.key]["purity"]["low"] - 0.03


def test_mass_peaks_lie_at_the_nominal_masses(frames: list[Frame], tmp_path: Path) -> None:
    summary = summarise(read_spectra(tables(frames, tmp_path, V0Cuts())), V0Cuts())["kinds"]
    widths = {"k0s": (0.0018, 0.0028), "lambda": (0.0005, 0.0012), "antilambda": (0.0005, 0.0012)}
    for kind in KINDS[:-1]:
        peak = summary[kind.key]["peak"]
        assert abs(peak["position"] - kind.mass) < 3.5 * peak["position_error"], kind.key
        assert widths[kind.key][0] < peak["width"] < widths[kind.key][1]
    # two electron masses are the least that a pair can have
    assert 2 * BY_PDG[11].mass <= summary["gamma"]["peak"]["position"] < 0.0015


# resolution


def test_decay_vertex_and_momenta_close_with_truth(frames: list[Frame]) -> None:
    rows: dict[str, list[Array]] = {kind: [] for kind in MOTHER}
    for frame in frames:
        v0s = frame.find()
        truth = frame.truth(v0s)
        for number, kind in enumerate(KINDS):
            own = v0s[(v0s.kind == number) & (v0s.region == 0) & (truth == MOTHER[kind.key])]
            offset = own.position - frame.origin[:, own.positive]
            for leg, momentum in ((own.positive, own.positive_momentum), (own.negative, own.negative_momentum)):
                expected = frame.momentum[:, leg]
                pt, true_pt = np.hypot(*momentum[:2]), np.hypot(*expected[:2])
                turn = (momentum[0] * expected[1] - momentum[1] * expected[0]) / (pt * true_pt)
                tilt = momentum[2] / pt - expected[2] / true_pt
                pull = (pt / true_pt - 1) / np.hypot(PT_RESOLUTION[0], PT_RESOLUTION[1] * true_pt)
                rows[kind.key].append(np.stack([np.hypot(offset[0], offset[1]), offset[2], turn, tilt, pull]))
    limits = {"k0s": (0.05, 0.02, 0.002), "lambda": (0.12, 0.05, 0.003), "antilambda": (0.12, 0.05, 0.003)}
    for kind, parts in rows.items():
        across, along, turn, tilt, pull = np.concatenate(parts, axis=1)
        if kind in limits:
            assert np.median(across) < limits[kind][0]
            assert np.median(np.abs(along)) < limits[kind][1]
        else:
            assert np.median(across) < 0.35 and np.median(np.abs(along)) < 0.18
        # legs of one decay are parallel at their vertex to within the bend over its error
        assert np.median(np.abs(turn)) < (limits[kind][2] if kind in limits else 0.02)
        assert np.median(np.abs(tilt)) < 0.002
        assert abs(np.median(pull)) < 0.25
        # tracks without the ITS are three times less precise
        assert 0.9 < 0.5 * np.subtract(*np.quantile(pull, [0.8413, 0.1587])) < (1.3 if kind == "k0s" else 3.2)


# geometry


def random_tracks(rng: np.random.Generator, n: int, spread: float, bz: float) -> tuple[TrackParameters, Helix]:
    """Return tracks that pass within `spread` cm of a point, given up to 20 cm away from it, and their helices."""
    pt = rng.uniform(0.15, 3.0, n)
    phi = rng.uniform(0, 2 * np.pi, n)
    momentum = np.stack([pt * np.cos(phi), pt * np.sin(phi), pt * rng.uniform(-0.9, 0.9, n)])
    charge = rng.choice([-1.0, 1.0], n)
    point = np.array([[3.0], [-2.0], [5.0]]) + spread * rng.normal(size=(3, n))
    helix = Helix.from_momentum(point, momentum, charge, bz)
    x, y, z, direction = helix.at(rng.uniform(-20.0, 20.0, n))
    # a local frame in which the direction has a sine below 1
    alpha = direction + rng.uniform(-0.8, 0.8, n)
    parameters = TrackParameters(
        x=x * np.cos(alpha) + y * np.sin(alpha),
        y=y * np.cos(alpha) - x * np.sin(alpha),
        z=z,
        alpha=alpha,
        snp=np.sin(direction - alpha),
        tgl=helix.tgl,
        q_over_pt=charge / pt,
    )
    return parameters, helix


def least_distance(first: Helix, second: Helix) -> float:
    """Return the least distance of two helices near where they are given, by a general minimiser from a grid."""

    def squared(paths: Array) -> float:
        one, other = (
            np.concatenate(helix.at(np.array([s]))[:3]) for helix, s in ((first, paths[0]), (second, paths[1]))
        )
        return float(np.sum((one - other) ** 2))

    grid = np.linspace(-12.0, 12.0, 7)
    starts = sorted((squared(np.array([a, b])), a, b) for a in grid for b in grid)[:3]
    return math.sqrt(min(minimize(squared, [a, b], method="Nelder-Mead", tol=1e-10).fun for _, a, b in starts))


@pytest.mark.parametrize("bz", [5.0, -5.0, 2.0])
def test_closest_approach_is_that_of_a_general_minimiser(bz: float) -> None:
    rng = np.random.default_rng(21)
    n = 25
    (first, helix), (second, other) = random_tracks(rng, n, 0.3, bz), random_tracks(rng, n, 0.3, bz)
    approach = closest_approach(first, second, bz)
    expected = [least_distance(helix.take(np.array([i])), other.take(np.array([i]))) for i in range(n)]
    np.testing.assert_allclose(approach.distance, expected, atol=2e-5)
    np.testing.assert_allclose(approach.middle, 0.5 * (approach.first + approach.second))
    # the line between the points stands on both tracks
    gap = approach.first - approach.second
    for direction in (approach.first_direction, approach.second_direction):
        np.testing.assert_allclose(np.hypot(direction[0], direction[1]), 1.0, rtol=1e-12)
        assert np.abs(np.sum(gap * direction, axis=0)).max() < 1e-4


@pytest.mark.parametrize("bz", [0.0, 1e-7, 1e-3])
def test_closest_approach_of_straight_tracks(bz: float) -> None:
    rng = np.random.default_rng(22)
    (first, helix), (second, other) = random_tracks(rng, 200, 1.0, bz), random_tracks(rng, 200, 1.0, bz)
    lines = []
    for line in (helix, other):
        lines.append((np.stack([line.x, line.y, line.z]), np.stack([np.cos(line.phi), np.sin(line.phi), line.tgl])))
    (point, direction), (point2, direction2) = lines
    normal = np.cross(direction, direction2, axis=0)
    expected = np.abs(np.sum((point - point2) * normal, axis=0)) / np.linalg.norm(normal, axis=0)
    far_from_parallel = np.linalg.norm(normal, axis=0) > 0.2
    approach = closest_approach(first, second, bz)
    np.testing.assert_allclose(approach.distance[far_from_parallel], expected[far_from_parallel], atol=2e-3)


@pytest.mark.parametrize("bz", [5.0, -5.0])
def test_legs_of_a_conversion_are_parallel_where_they_touch(bz: float) -> None:
    rng = np.random.default_rng(23)
    n = 100
    phi, tgl = rng.uniform(-3.0, 3.0, n), rng.uniform(-0.8, 0.8, n)
    point = np.stack([30 * np.cos(phi), 30 * np.sin(phi), 30 * tgl])
    legs = []
    for charge in (1.0, -1.0):
        pt = rng.uniform(0.1, 2.0, n)
        helix = Helix.from_momentum(point, np.stack([pt * np.cos(phi), pt * np.sin(phi), pt * tgl]), charge, bz)
        x, y, z, direction = helix.at(np.full(n, 8.0))
        zero = np.zeros(n)
        local_x, local_y = x * np.cos(direction) + y * np.sin(direction), y * np.cos(direction) - x * np.sin(direction)
        legs.append(TrackParameters(local_x, local_y, z, direction, zero, tgl, charge / pt))
    approach = parallel_approach(legs[0], legs[1], bz)
    np.testing.assert_allclose(approach.first, point, atol=1e-6)
    np.testing.assert_allclose(approach.second, point, atol=1e-6)
    np.testing.assert_allclose(approach.first_direction, approach.second_direction, atol=1e-9)


# the search


def test_every_pair_of_a_collision_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(24)
    collision = rng.integers(0, 9, 80)
    sign = rng.choice([-1.0, 0.0, 1.0], 80)
    expected = {
        (a, b) for a in range(80) for b in range(80) if collision[a] == collision[b] and sign[a] > 0 and sign[b] < 0
    }
    for most in (8192, 7):
        monkeypatch.setattr(v0_finder, "_PAIRS_AT_A_TIME", most)
        parts = list(v0_finder._pairs(sign, collision))
        assert max(len(first) for first, _ in parts) <= most
        pairs = [pair for first, second in parts for pair in zip(first.tolist(), second.tolist(), strict=True)]
        assert len(pairs) == len(set(pairs)) and set(pairs) == expected
    assert list(v0_finder._pairs(np.ones(5), np.zeros(5, dtype=np.int64))) == []
    assert list(v0_finder._pairs(np.empty(0), np.empty(0, dtype=np.int64))) == []


def test_the_size_of_groups_and_the_order_of_tracks_do_not_matter(
    frames: list[Frame], monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = frames[0]
    expected = frame.find()
    monkeypatch.setattr(v0_finder, "_PAIRS_AT_A_TIME", 100)
    for name, values in vars(frame.find()).items():
        np.testing.assert_allclose(values, vars(expected)[name], rtol=1e-6, atol=1e-6, err_msg=name)
    order = np.random.default_rng(25).permutation(len(frame.collision))
    shuffled = find_v0s(
        frame.parameters[order],
        collision=frame.collision[order],
        vertex=frame.vertex,
        dca_xy=frame.dca_xy[order],
        candidate=frame.candidate[order],
        bz=frame.bz,
        settings=V0Cuts(),
        innermost=np.hypot(frame.parameters.x, frame.parameters.y)[order],
    )
    legs = {
        (k, order[a], order[b]) for k, a, b in zip(shuffled.kind, shuffled.positive, shuffled.negative, strict=True)
    }
    assert legs == set(zip(expected.kind, expected.positive, expected.negative, strict=True))


@pytest.mark.parametrize("settings", [V0Cuts(), LOOSE])
def test_candidates_pass_the_cuts_and_use_a_track_once(frames: list[Frame], settings: V0Cuts) -> None:
    for frame in frames[:2]:
        v0s = frame.find(settings)
        gamma = v0s.kind == 3
        assert np.array_equal(frame.collision[v0s.positive], frame.collision[v0s.negative])
        for legs, charge in ((v0s.positive, 1), (v0s.negative, -1)):
            assert (np.sign(frame.parameters.q_over_pt[legs]) == charge).all()
            assert frame.candidate[legs].all()
            assert (np.abs(frame.dca_xy[legs]) > settings.dca_xy_min).all()
            for number in range(len(KINDS)):
                own = legs[v0s.kind == number]
                assert len(np.unique(own)) == len(own) > 0
            innermost = np.hypot(frame.parameters.x, frame.parameters.y)[legs]
            beyond = np.hypot(v0s.position[0], v0s.position[1]) - innermost
            assert (beyond < settings.beyond_innermost_max * np.where(gamma, 2, 1)).all()
        assert (v0s.cos_pointing > settings.cos_pointing_min).all()
        assert (v0s.dca_daughters[~gamma] < settings.dca_daughters_max).all()
        assert (v0s.dca_daughters[gamma] < math.sqrt(2) * settings.conversion_gap_max).all()
        assert (v0s.radius > np.where(gamma, settings.conversion_radius_min, settings.radius_min)).all()
        for number, kind in enumerate(KINDS):
            own = v0s[v0s.kind == number]
            windows, distance = settings.windows(kind.key), np.abs(own.mass - kind.mass)
            np.testing.assert_array_equal(own.region == 0, distance < windows.signal)
            inside = (distance >= windows.sideband_from) & (distance < windows.sideband_to)
            np.testing.assert_array_equal(own.region == 1, inside)


def test_kinds_reject_each_other(frames: list[Frame]) -> None:
    def mass(own: V0s, positive: int, negative: int) -> Array:
        legs = ((own.positive_momentum, positive), (own.negative_momentum, negative))
        energy = sum(np.sqrt(np.sum(p**2, axis=0) + BY_PDG[abs(pdg)].mass ** 2) for p, pdg in legs)
        return np.sqrt(energy**2 - np.sum((own.positive_momentum + own.negative_momentum) ** 2, axis=0))

    for frame in frames:
        v0s = frame.find(LOOSE)
        legs = []
        for number in range(len(KINDS)):
            own = v0s[v0s.kind == number]
            np.testing.assert_allclose(mass(own, KINDS[number].positive, KINDS[number].negative), own.mass, atol=1e-6)
            for rival in {0: (1, 2), 1: (0,), 2: (0,), 3: ()}[number]:
                kind, window = KINDS[rival], LOOSE.windows(KINDS[rival].key).signal
                assert (np.abs(mass(own, kind.positive, kind.negative) - kind.mass) >= window).all()
            signal = own[own.region == 0]
            legs.append(set(zip(signal.positive, signal.negative, strict=True)))
        assert not (legs[0] & (legs[1] | legs[2] | legs[3])) and not (legs[3] & (legs[1] | legs[2]))


def test_excluded_tracks_and_empty_frames(frames: list[Frame]) -> None:
    frame = frames[0]
    assert len(frame.find(candidate=np.zeros(len(frame.collision), dtype=bool))) == 0
    orphan = np.where(np.arange(len(frame.collision)) % 2 == 0, frame.collision, -1)
    assert (frame.find(collision=orphan).positive % 2 == 0).all()
    radius = np.hypot(frame.parameters.x, frame.parameters.y)
    settings = LOOSE.model_copy(update={"beyond_innermost_max": 1.0})
    anywhere = frame.find(settings, innermost=None)
    first_cluster = np.minimum(radius[anywhere.positive], radius[anywhere.negative])
    assert (np.hypot(anywhere.position[0], anywhere.position[1]) > first_cluster + 5).sum() > 10
    none = np.empty(0)
    empty = find_v0s(
        TrackParameters(*(none,) * 7),
        collision=np.empty(0, dtype=np.int64),
        vertex=np.empty((0, 3)),
        dca_xy=none,
        candidate=np.empty(0, dtype=bool),
        bz=5.0,
        settings=V0Cuts(),
    )
    assert len(empty) == 0 and empty.position.shape == (3, 0)


def test_armenteros_variables_are_those_of_the_decay(frames: list[Frame]) -> None:
    parts = [(v0s := frame.find())[v0s.region == 0] for frame in frames]
    for number, kind in enumerate(KINDS):
        alpha, qt = (
            np.concatenate([getattr(part, name)[part.kind == number] for part in parts]) for name in ("alpha", "qt")
        )
        m1, m2 = BY_PDG[abs(kind.positive)].mass, BY_PDG[abs(kind.negative)].mass
        if kind.key == "gamma":
            assert np.quantile(qt, 0.98) < 0.005
            continue
        star = math.sqrt((kind.mass**2 - (m1 + m2) ** 2) * (kind.mass**2 - (m1 - m2) ** 2)) / (2 * kind.mass)
        assert np.quantile(qt, 0.99) < 1.05 * star and np.quantile(qt, 0.9) > 0.9 * star
        if kind.key != "k0s":
            sign = 1 if kind.key == "lambda" else -1
            assert np.median(alpha) == pytest.approx(sign * (0.93827**2 - 0.13957**2) / 1.115683**2, abs=0.12)


# the table


def test_table_links_the_legs_and_has_the_schema(frames: list[Frame], tmp_path: Path) -> None:
    frame = frames[0]
    v0s = frame.find()
    table = pq.read_table(tables([frame], tmp_path, V0Cuts())[0])
    assert table.schema.remove_metadata().equals(schema())
    assert all(column.null_count == 0 for column in table.columns)
    rows = table.to_pandas()
    assert (rows.groupby("v0").size() == 2).all() and rows["v0"].max() + 1 == len(v0s)
    positive, negative = rows.iloc[::2].reset_index(drop=True), rows.iloc[1::2].reset_index(drop=True)
    np.testing.assert_array_equal(positive["row"], v0s.positive + 7)
    np.testing.assert_array_equal(negative["row"], v0s.negative + 7)
    for name in ("kind", "region", "mass", "v0_pt", "radius", "collision_id", "v0", "alpha", "qt"):
        assert positive[name].equals(negative[name]), name
    np.testing.assert_array_equal(positive["collision_id"], frame.collision[v0s.positive].astype(np.uint64) + 2**63)
    legs = {kind.key: (kind.positive, kind.negative) for kind in KINDS}
    assert [legs[kind] for kind in positive["kind"]] == list(
        zip(positive["leg_pdg_code"], negative["leg_pdg_code"], strict=True)
    )
    assert set(rows["region"]) <= set(REGIONS) and (rows["source"] == "file.root").all()
    total = v0s.positive_momentum + v0s.negative_momentum
    np.testing.assert_allclose(positive["v0_pt"], np.hypot(total[0], total[1]), rtol=1e-6)


# the summary


def spectrum(number: int, mass: Array) -> Spectrum:
    kind, windows = KINDS[number], V0Cuts().windows(KINDS[number].key)
    distance = np.abs(mass - kind.mass)
    inside = (distance >= windows.sideband_from) & (distance < windows.sideband_to)
    return Spectrum(kind, mass, np.zeros(len(mass)), np.zeros(len(mass)), distance < windows.signal, inside)


def test_background_of_known_shape_is_found() -> None:
    rng = np.random.default_rng(26)
    width = 0.08
    # density that rises linearly through the range, with a peak of known size
    position = 0.497611 + width * (np.sqrt(rng.random(200_000)) - 0.5)
    slope = spectrum(0, np.append(position, rng.normal(0.497611, 0.002, 20_000)))
    flat = spectrum(3, np.append(rng.uniform(0.0, 0.1, 40_000), rng.uniform(0.001, 0.002, 10_000)))
    summary = summarise([slope, flat], V0Cuts())["kinds"]
    for key, true, peak in (
        ("k0s", (np.abs(position - 0.497611) < 0.012).sum(), 20_000),
        ("gamma", 4000, 10_000),
    ):
        background, purity = summary[key]["background"], summary[key]["purity"]
        error = background["high"] - background["value"]
        assert abs(background["value"] - true) < 3 * error
        assert purity["value"] == pytest.approx(peak / (peak + true), abs=0.02)
        assert purity["low"] < peak / (peak + true) < purity["high"]
    # sides that differ beyond their fluctuation widen the error
    sides = np.subtract(*summary["k0s"]["sidebands"])
    assert summary["k0s"]["background_systematic"] == pytest.approx(abs(sides), rel=0.01)
    assert summary["gamma"]["background_systematic"] == pytest.approx(4000, rel=0.05)
    assert summary["k0s"]["sidebands"][0] < summary["k0s"]["sidebands"][1]


def test_peak_and_intervals_are_those_of_the_counts() -> None:
    rng = np.random.default_rng(27)
    peak = summarise([spectrum(1, rng.normal(1.1158, 0.001, 4000))], V0Cuts())["kinds"]["lambda"]
    assert peak["peak"]["position"] == pytest.approx(1.1158, abs=4 * peak["peak"]["position_error"])
    assert peak["peak"]["width"] == pytest.approx(0.001, abs=4 * peak["peak"]["width_error"])
    assert peak["peak"]["position_error"] == pytest.approx(1.2533 * 0.001 / math.sqrt(4000), rel=0.05)
    toys = [summarise([spectrum(1, rng.normal(1.115683, 0.001, 400))], V0Cuts()) for _ in range(300)]
    for name in ("position", "width"):
        values, errors = np.array(
            [[toy["kinds"]["lambda"]["peak"][key] for key in (name, f"{name}_error")] for toy in toys]
        ).T
        assert np.std(values) == pytest.approx(errors.mean(), rel=0.15)
    few = summarise([spectrum(0, np.full(5, 0.4976)), spectrum(2, np.empty(0))], V0Cuts())
    # no count in the sidebands: the mean is below 1.841 at one standard deviation
    assert few["kinds"]["k0s"]["background"] == {"value": 0.0, "low": 0.0, "high": pytest.approx(1.841, abs=1e-3)}
    assert few["kinds"]["k0s"]["purity"]["low"] == pytest.approx(1 - 1.841 / 5, abs=1e-3)
    assert few["kinds"]["k0s"]["peak"] is None
    assert few["kinds"]["antilambda"]["purity"] is None
    assert few["species"]["211"]["tracks"] == 5 and few["species"]["-2212"]["purity"] is None
    json.dumps(few, allow_nan=False)


def test_summary_and_figure_are_written(frames: list[Frame], tmp_path: Path) -> None:
    paths = tables(frames, tmp_path, V0Cuts())
    summary = write_summary(paths, tmp_path / "summary.json", cuts=V0Cuts())
    assert json.loads((tmp_path / "summary.json").read_text(encoding="utf-8")) == summary
    assert summary["species"]["211"]["tracks"] == sum(summary["kinds"][k]["signal"] for k in ("k0s", "antilambda"))
    pq.write_table(pa.Table.from_pylist([], schema=schema()), tmp_path / "none.parquet")
    nothing = write_summary([tmp_path / "none.parquet"], tmp_path / "nothing.json", cuts=V0Cuts())
    images = {}
    full, empty = V0Sample("data", paths, summary), V0Sample("simulation", [tmp_path / "none.parquet"], nothing)
    for name, samples in (("full", [empty, full]), ("again", [empty, full]), ("empty", [empty])):
        image = tmp_path / f"{name}.png"
        plot_v0s(samples, image, cuts=V0Cuts(), title="Run 900001")
        images[name] = image.read_bytes()
        assert images[name][:4] == b"\x89PNG"
    assert images["full"] == images["again"] != images["empty"]


@pytest.mark.parametrize("bad", [{"signal": 0.03}, {"sideband_to": 0.01}, {"signal": 0.0}, {"width": 1.0}])
def test_windows_must_not_overlap(bad: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        V0Cuts.model_validate({"k0s": bad})
    assert V0Cuts.model_validate({"k0s": {"signal": 0.01}}).k0s.sideband_to == 0.032
