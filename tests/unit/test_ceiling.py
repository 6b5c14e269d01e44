"""The physics limit: the posterior of known densities, and a detector simulated with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.stats import binom, exponnorm, norm
from sklearn.metrics import roc_auc_score
from tracks_sample import arrange

from pidflow.errors import PidflowError
from pidflow.evaluate import ceiling
from pidflow.evaluate.ceiling import Known, Tracks, posterior, score_ceiling
from pidflow.physics import C_CM_PER_PS
from pidflow.scores import certainty_column
from pidflow.simulate import signals, tracking
from pidflow.simulate.decays import transport
from pidflow.simulate.particles import PROPERTIES, TRACKED, Particles, mass_of
from pidflow.simulate.shifts import conditions
from pidflow.tracks import DATASET_COLUMNS, ROW_ID

BZ = -5.0
MASKS = {"tof": 0.5, "trd": 0.8}
SPECIES = (211, 321, 2212, -211, -321, -2212)
LABELLED = 1.0 - 0.007 - 0.003  # neither fake nor lost
SHARES = {11: 0.06, 13: 0.04, 211: 0.45, 321: 0.25, 2212: 0.2}

Columns = dict[str, NDArray[Any]]


# one track, by hand


def known(**yields: float) -> Known:
    """Return flat knowledge but for the yields of a few species, by name."""
    level = np.array([yields.get(name, 0.0) for name in ("e", "mu", "pi", "ka", "pr")])
    return Known(
        np.tile(level[:, None, None], (1, 2, len(ceiling._PT_EDGES) + 1)),
        np.full((5, 4, 6, 6), 1 / 36),
        np.full(ceiling._TIME_BINS, 1 / (ceiling._TIME_BINS * ceiling._TIME_BIN_PS)),
    )


def one(**changes: float) -> Tracks:
    """Return a positive track; without a field it stays in the middle of a sector and crosses all 152 pad rows."""
    values: dict[str, float] = dict.fromkeys(Tracks._fields, np.nan)
    values |= {"p": 0.3, "pt": 0.3, "eta": 0.0, "phi": np.pi / 6, "z": 0.0, "sign": 1.0, "dca_xy": 0.0, "dca_z": 0.0}
    values |= {"tpc_signal": 60.0, "tpc_n_cls_found": 147.0, "has_trd": 0.0, "has_tof": 0.0}
    return Tracks(**{name: np.array([value]) for name, value in (values | changes).items()})


def momentum_density(p: float, measured: float) -> float:
    """Return the density of the true momentum: the inverse of the measured factor is normal."""
    sigma = float(np.hypot(0.009, 0.0015 * measured))
    return float(norm.pdf(measured / p - 1.0, 0.0, sigma)) * measured / p**2


def energy_loss(signal: float, clusters: float, p: float, mass: float, eta: float = 0.0) -> float:
    mean = float(signals.TPC.signal(p, mass))
    width = mean * 0.06 * (159 / clusters) ** 0.5 * (1 - 0.1 * np.sinh(eta) ** 2)
    tail = exponnorm(0.15 * mean / width, mean, width)
    return 0.98 * float(norm.pdf(signal, mean, width)) + 0.02 * float(tail.pdf(signal))


@pytest.mark.parametrize("eta", [0.0, 0.75])
@pytest.mark.parametrize("signal", [50.0, 60.0, 66.0, 95.0])
def test_energy_loss_of_two_species_that_nothing_else_tells_apart(signal, eta):
    def density(code: int) -> float:
        mass = PROPERTIES[code].mass
        return quad(lambda p: momentum_density(p, 0.12) * energy_loss(signal, 135.0, p, mass, eta), 0.112, 0.128)[0]

    # electrons and muons neither decay nor interact
    weights = 3.0 * density(11), 1.0 * density(13)
    seen = one(p=0.12, pt=0.12 / np.cosh(eta), eta=eta, tpc_signal=signal, tpc_n_cls_found=135.0)
    found = posterior(seen, known(e=3, mu=1), MASKS, 0.0)
    expected = [weights[0] / sum(weights), weights[1] / sum(weights), 0, 0, 0]
    np.testing.assert_allclose(found[0], expected, rtol=2e-3, atol=1e-12)


@pytest.mark.parametrize(
    ("code", "late"), [(13, -300.0), (13, 0.0), (13, 120.0), (13, 280.0), (13, 3000.0), (2212, 0.0), (2212, 400.0)]
)
def test_time_of_flight_with_momentum_spread_and_mismatch(code, late):
    """The spread of the proton's momentum widens its time of flight to more than twice the detector's."""
    momentum, length, error, signal = 0.6, 400.0, 20.0, 80.0 if code == 2212 else 60.0
    middle = length * np.hypot(1.0, PROPERTIES[code].mass / momentum) / C_CM_PER_PS + late
    flat = 1 / (ceiling._TIME_BINS * ceiling._TIME_BIN_PS)

    def density(code: int) -> float:
        mass = PROPERTIES[code].mass

        def at(p: float) -> float:
            own = norm.pdf(middle, length * np.hypot(1.0, mass / p) / C_CM_PER_PS, np.sqrt(60**2 + 45**2 + error**2))
            return momentum_density(p, momentum) * float(0.97 * own + 0.03 * flat) * energy_loss(signal, 147, p, mass)

        return quad(at, 0.56, 0.64, limit=200)[0]

    seen = one(p=momentum, pt=momentum, tpc_signal=signal, has_tof=1.0, tof_signal=middle + 77.0, tof_event_time=77.0,
               tof_event_time_error=error, length=length)  # fmt: skip
    # interactions that the electron does not have
    survival = (1 - 0.06) * (1 - 0.12) if code == 2212 else 1.0
    other = density(11) / density(code) / survival
    level = 1.0 / other  # both are as likely
    names = {13: "mu", 2212: "pr"}
    found = posterior(seen, known(**{names[code]: 1.0, "e": level}), MASKS, 0.0)[0]
    np.testing.assert_allclose(found[[TRACKED.index(code), 0]], [0.5, 0.5], rtol=5e-3)


def test_detectors_answer_as_the_simulated_ones():
    """All six layers and the TOF are active on the way of this track of high momentum."""
    fast = {"p": 2.0, "pt": 2.0}

    def chance(masks: dict[str, float], **seen: float) -> NDArray[np.float64]:
        tracks = one(**fast, **seen)
        # by the layer, or the TOF, before which the path ends
        return ceiling._outer_chance(tracks, ceiling._paths(tracks, ceiling._NODES, 0.0), masks)[0, 7]

    hidden = {"tof": 9.0, "trd": 9.0}
    all_six = 0.96 * 0.92**6
    some = 0.96 * (1 - 0.08**6 - 6 * 0.92 * 0.08**5)
    np.testing.assert_allclose(chance(hidden), 1.0)
    trd = {"has_trd": 1.0, "trd_pattern": 63.0}
    found = chance(MASKS, **trd, has_tof=1.0)
    np.testing.assert_allclose(found[-1], 0.81 * all_six, rtol=1e-3)
    assert found[:-1].max() < 1e-3 * found[-1]
    np.testing.assert_allclose(chance(MASKS, **trd)[-2:], [all_six, 0.19 * all_six], rtol=1e-3)
    np.testing.assert_allclose(chance(MASKS, has_tof=1.0)[-1], 0.13 * (1 - some), rtol=1e-3)
    np.testing.assert_allclose(chance(MASKS)[[0, 1, 7]], [1.0, 1.0, 0.87 * (1 - some)], rtol=1e-3)
    without_trd = {"tof": 0.5, "trd": 9.0}
    with_tof = chance(without_trd, has_tof=1.0)[-1]
    np.testing.assert_allclose(with_tof, 0.81 * some + 0.13 * (1 - some), rtol=1e-3)
    np.testing.assert_allclose(chance(without_trd)[-1], 1 - with_tof, rtol=1e-3)


def test_clusters_are_binomial():
    rows = np.array([[[72, 100, 148, 152]]], dtype=np.int16)
    found = ceiling._cluster_chance(one(pt=0.5, tpc_n_cls_found=98.0), rows)[0, 0]
    np.testing.assert_allclose(found, binom.pmf(98, [72, 100, 148, 152], 0.975 - 0.002 / 0.5), rtol=1e-3, atol=1e-5)
    assert found[1] > 0.1


def test_impact_parameters_weigh():
    yields, near, far = known(e=1, mu=1), one(tpc_signal=60.0), one(tpc_signal=60.0, dca_xy=-0.2, dca_z=0.2)
    yields.dca[0, :, 4:, 4:] *= 7
    odds = [found[0] / found[1] for found in (posterior(track, yields, MASKS, 0.0)[0] for track in (near, far))]
    assert odds[1] / odds[0] == pytest.approx(7.0)


def test_transition_radiation():
    def density(code: int) -> float:
        bg = 2.0 / PROPERTIES[code].mass
        mean = 30.0 * float(signals.TPC.signal(bg, 1.0)) / 50.0 * (1 + 0.6 / (1 + (1000 / bg) ** 2))
        width = 0.20 * np.sqrt(6 / 4)
        return float(norm.pdf(np.log(55.0 / mean), 0, width)) * energy_loss(70, 147, 2.0, PROPERTIES[code].mass)

    weights = density(11), 3 * density(13)
    seen = one(p=2.0, pt=2.0, tpc_signal=70.0, has_trd=1.0, trd_signal=55.0, trd_pattern=0b111001)
    found = posterior(seen, known(e=1, mu=3), MASKS, 0.0)[0]
    np.testing.assert_allclose(found[:2], np.array(weights) / sum(weights), rtol=0.02)


def test_path_that_ends_early_speaks_for_the_kaon():
    """Odds of kaon and pion of a track that lost its last rows, over those of a whole one."""

    def odds(momentum: float, clusters: float) -> float:
        hidden = {"tof": 20.0, "trd": 20.0}
        seen = one(p=momentum, pt=momentum, tpc_signal=60.0, tpc_n_cls_found=clusters)
        found = posterior(seen, known(pi=1, ka=1), hidden, 0.0)[0]
        by_signal = [energy_loss(60.0, clusters, momentum, PROPERTIES[code].mass) for code in (211, 321)]
        return float(found[3] / found[2]) * by_signal[0] / by_signal[1]

    radius, outside = np.interp(100 / 0.973, *np.transpose(tracking.TPC_ROW_RADII)), 245.65
    decay, interaction = 0.493677 / (371.1 * 1.0), 0.05 / outside
    early = decay * (1 - interaction * radius) + interaction
    kaon = np.exp(-decay * radius) * early / np.exp(-decay * outside)
    assert odds(1.0, 100.0) / odds(1.0, 147.0) == pytest.approx(kaon / interaction, rel=0.03)
    # from 4.7 GeV/c on, the decay of the kaon is no kink in its track
    assert odds(6.0, 100.0) / odds(6.0, 147.0) == pytest.approx(1.0, rel=0.02)


def test_composition_is_that_of_the_own_charge_and_momentum():
    yields = known(e=1, mu=1)
    yields.yields[0, 1] *= 9  # positive electrons
    fast = ceiling._PT_EDGES > 1.0
    yields.yields[1, :, :-1][:, fast] *= 100
    slow = [posterior(one(sign=sign, tpc_signal=50.0), yields, MASKS, 0.0)[0] for sign in (1.0, -1.0)]
    ratio = [found[0] / found[1] for found in slow]
    assert ratio[0] / ratio[1] == pytest.approx(9, rel=1e-6)
    quick = posterior(one(p=4.0, pt=4.0, tpc_signal=50.0), yields, MASKS, 0.0)[0]
    assert quick[1] > 0.9


# a simulated production


def simulated(particles: int, *, seed: int, bz: float = BZ) -> Columns:
    """Return dataset columns of the selected tracks of particles shot from the vertex."""
    rng = np.random.default_rng(seed)
    codes = rng.choice(list(SHARES), particles, p=list(SHARES.values()))
    charge = rng.choice([-1, 1], particles)
    pdg = np.where(np.isin(codes, (11, 13)), -charge, charge).astype(np.int32) * codes.astype(np.int32)
    pt = np.exp(rng.uniform(np.log(0.2), np.log(4.0), particles))
    eta, phi = rng.uniform(-0.8, 0.8, particles), rng.uniform(0, 2 * np.pi, particles)
    momentum = np.stack([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)])
    vertex = np.stack([np.zeros(particles), np.zeros(particles), rng.normal(0, 5, particles)])
    start = rng.normal(0, 200, particles)
    shot = Particles(
        event=np.arange(particles, dtype=np.int32), pdg=pdg, mother=np.full(particles, -1), momentum=momentum,
        energy=np.sqrt(np.sum(momentum**2, axis=0) + mass_of(pdg) ** 2), position=vertex, time=start,
        flags=np.full(particles, 4, dtype=np.uint8), status=np.ones(particles, dtype=np.int32),
        flight=np.full(particles, np.inf),
    )  # fmt: skip
    followed = transport(shot, bz, rng).take(np.arange(particles))
    paths = tracking.candidates(followed, bz, rng)
    clusters = tracking.find_clusters(paths, rng)
    parameters, representable = tracking.measure(paths, clusters, rng)
    selected = clusters.its[:3].any(axis=0) & (clusters.crossed >= 70) & representable
    state = conditions("none", 1)
    signal = signals.tpc_signal(paths, clusters, state, rng)
    outer = signals.outer_path(paths, rng)
    pattern, trd_signal = signals.trd(outer, clusters.findable > 0, state, rng)
    hits = signals.tof(outer, followed.time[paths.particle], (clusters.findable > 0, pattern > 0), state, rng)
    n = len(paths.p)
    p = parameters.p
    has_trd, has_tof = (pattern > 0) & (p >= MASKS["trd"]), hits.matched & (p >= MASKS["tof"])
    event_time = followed.time[paths.particle] + 25.0 * rng.normal(size=n)
    sigma = np.hypot(0.0015, 0.0040 / paths.pt)
    columns: Columns = {
        "source": np.full(n, "AO2D.root"),
        "data_frame": np.arange(n) // 1000,
        "row": np.arange(n) % 1000,
        "run": np.ones(n),
        "collision_id": np.arange(n).astype(np.uint64),
        "p": p,
        "pt": 1 / np.abs(parameters.signed_1pt),
        "eta": np.arcsinh(parameters.tgl),
        "phi": np.mod(paths.helix.phi, 2 * np.pi),
        "z": paths.helix.z,
        "sign": np.sign(parameters.signed_1pt),
        "dca_xy": sigma * rng.normal(size=n),
        "dca_z": sigma * rng.normal(size=n),
        "has_trd": has_trd,
        "has_tof": has_tof,
        "tpc_signal": signal,
        "tpc_n_cls_found": clusters.found,
        "trd_signal": np.where(has_trd, trd_signal, np.nan),
        "trd_pattern": np.where(has_trd, pattern.astype(float), np.nan),
        "tof_signal": np.where(has_tof, hits.time, np.nan),
        "tof_event_time": np.where(hits.matched, event_time, np.nan),
        "tof_event_time_error": np.where(hits.matched, 25.0, np.nan),
        "tof_exp_mom": np.where(hits.matched, p, np.nan),
        "length": np.where(hits.matched, hits.length, np.nan),
        "split": rng.choice(["train", "validation", "test"], n, p=[0.4, 0.1, 0.5]),
        "pdg_code": paths.pdg.astype(float),
    }
    return {name: values[selected] for name, values in columns.items()}


def write(columns: Columns, path: Path) -> Path:
    pq.write_table(arrange(columns, DATASET_COLUMNS), path)
    return path


def certainties(path: Path, species: tuple[int, ...] = SPECIES) -> NDArray[np.float64]:
    table = pq.read_table(path)
    return np.stack([table[certainty_column(pdg)].to_numpy() for pdg in species], axis=1).astype(np.float64)


@pytest.fixture(scope="module")
def columns() -> Columns:
    return simulated(24_000, seed=3)


@pytest.fixture(scope="module")
def scored(columns: Columns, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("ceiling")
    dataset = write(columns, folder / "dataset.parquet")
    score_ceiling(dataset, folder / "scores.parquet", species=SPECIES, masks=MASKS, bz=BZ)
    return dataset, folder / "scores.parquet"


def test_certainties_are_true_probabilities_whatever_the_track_shows(columns, scored):
    """In any group of tracks that is made without the truth, a species is as frequent as its mean certainty."""
    certainty = certainties(scored[1]) / LABELLED
    test = columns["split"] == "test"
    truth = columns["pdg_code"][:, None] == np.array(SPECIES)
    pattern = columns["has_trd"] + 2 * columns["has_tof"]
    momentum = np.digitize(columns["p"], [0.35, 0.5, 0.8, 1.5])
    clusters = np.digitize(columns["tpc_n_cls_found"], [100, 120, 135])
    deviations = []
    for kinds in (pattern, 5 + momentum, 10 + clusters):
        for kind in np.unique(kinds):
            for number in range(len(SPECIES)):
                values = certainty[:, number]
                for low, high in ((0.0, 0.05), (0.05, 0.3), (0.3, 0.7), (0.7, 0.95), (0.95, 1.01)):
                    group = test & (kinds == kind) & (values >= low) & (values < high)
                    variance = float(np.sum(values[group] * (1 - values[group])))
                    if variance > 4:
                        deviations.append((truth[group, number] - values[group]).sum() / np.sqrt(variance))
    assert len(deviations) > 150
    assert np.std(deviations) < 1.35
    assert np.abs(deviations).max() < 4.5


def test_it_beats_the_cut(columns, scored):
    certainty = certainties(scored[1])
    test = columns["split"] == "test"
    momentum, flight = columns["p"], columns["tof_signal"] - columns["tof_event_time"]
    for number, (pdg, mass) in enumerate(((211, 0.13957), (321, 0.49368), (2212, 0.93827))):
        tpc = signals.TPC.n_sigma(columns["tpc_signal"], momentum, columns["tpc_n_cls_found"], mass)
        expected = columns["length"] * np.hypot(1, mass / momentum) / C_CM_PER_PS
        tof = np.nan_to_num((flight - expected) / np.hypot(79.0, 0.01 * expected * mass**2 / (mass**2 + momentum**2)))
        cut = np.where(columns["sign"] > 0, -np.hypot(tpc, tof), -1e9)
        truth = columns["pdg_code"][test] == pdg
        assert roc_auc_score(truth, certainty[test, number]) > roc_auc_score(truth, cut[test]) + 0.005


def test_rows_and_columns(columns, scored):
    dataset, scores = (pq.read_table(path) for path in scored)
    for name in (*ROW_ID, "split", "pdg_code"):
        assert scores[name].equals(dataset[name])
    certainty = certainties(scored[1])
    positive = columns["sign"] > 0
    assert not certainty[positive, 3:].any()
    assert not certainty[~positive, :3].any()
    assert certainty.min() >= 0
    assert certainty.sum(axis=1).max() <= LABELLED + 1e-6


@pytest.fixture
def few(columns: Columns) -> Columns:
    return {name: values[:3000] for name, values in columns.items()}


def test_labels_of_the_test_set_are_not_used(few, tmp_path):
    rng = np.random.default_rng(1)
    shuffled = few["pdg_code"].copy()
    test = few["split"] == "test"
    shuffled[test] = rng.permutation(shuffled[test])
    shuffled[np.flatnonzero(test)[::3]] = np.nan
    results = []
    for name, labels in (("true", few["pdg_code"]), ("shuffled", shuffled)):
        dataset = write({**few, "pdg_code": labels}, tmp_path / f"{name}.parquet")
        score_ceiling(dataset, tmp_path / f"{name}_scores.parquet", species=SPECIES, masks=MASKS, bz=BZ)
        results.append(certainties(tmp_path / f"{name}_scores.parquet"))
    np.testing.assert_array_equal(*results)


def test_blocks_make_no_difference(few, tmp_path, monkeypatch):
    dataset = write(few, tmp_path / "dataset.parquet")
    score_ceiling(dataset, tmp_path / "one.parquet", species=SPECIES, masks=MASKS, bz=BZ)
    monkeypatch.setattr(ceiling, "_ROWS_AT_A_TIME", 301)
    monkeypatch.setattr("pidflow.parquet._BATCH_ROWS", 1000)
    score_ceiling(dataset, tmp_path / "other.parquet", species=SPECIES, masks=MASKS, bz=BZ)
    np.testing.assert_allclose(
        certainties(tmp_path / "one.parquet"), certainties(tmp_path / "other.parquet"), rtol=1e-5, atol=1e-7
    )


def test_other_species_of_the_detectors(few, tmp_path):
    dataset = write(few, tmp_path / "dataset.parquet")
    species = (11, 1000010020, -2212)
    score_ceiling(dataset, tmp_path / "scores.parquet", species=species, masks=MASKS, bz=BZ)
    certainty = certainties(tmp_path / "scores.parquet", species)
    assert not certainty[:, 1].any()  # the production has no nuclei
    assert not certainty[few["sign"] > 0, 0].any()  # the electron, 11, is negative
    assert certainty[few["pdg_code"] == 11, 0].mean() > 0.5


def test_what_it_cannot_score(few, tmp_path):
    output = tmp_path / "scores.parquet"
    unlabelled = write({**few, "pdg_code": np.full(3000, np.nan)}, tmp_path / "unlabelled.parquet")
    with pytest.raises(PidflowError, match=r"no labelled track in the training and validation sets"):
        score_ceiling(unlabelled, output, species=SPECIES, masks=MASKS, bz=BZ)
    partial = {**few, "eta": np.where(np.arange(3000) == 7, np.nan, few["eta"])}
    with pytest.raises(PidflowError, match=r"column 'eta' has nulls; the limit is known for the example runs only"):
        score_ceiling(write(partial, tmp_path / "partial.parquet"), output, species=SPECIES, masks=MASKS, bz=BZ)
    assert not output.exists()


def test_knowledge_is_normalised(few, tmp_path):
    learned = ceiling._learn(write(few, tmp_path / "dataset.parquet"), BZ)
    np.testing.assert_allclose(learned.dca.sum(axis=(2, 3)), 1.0)
    assert learned.time.sum() * ceiling._TIME_BIN_PS == pytest.approx(1.0)
    labelled = few["split"] != "test"
    # kaons are lost on the way: there were more of them than were selected
    kaons = labelled & (np.abs(few["pdg_code"]) == 321)
    made = learned.yields[TRACKED.index(321)].sum() - ceiling._YIELD_PRIOR * learned.yields[0].size
    assert made > 1.1 * kaons.sum()
