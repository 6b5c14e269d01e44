"""The reference cuts and the Bayesian PID."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError
from tracks_sample import TOF, TPC, make_tracks

from pidflow import parquet
from pidflow.errors import PidflowError
from pidflow.files import write_json
from pidflow.model import ModelInfo
from pidflow.models import bayes, nsigma
from pidflow.models.base import Fitting
from pidflow.parquet import matrix
from pidflow.physics import SPECIES
from pidflow.train.data import Tracks

NAN = math.nan
CHARGED = (211, 321, 2212, -211, -321, -2212)
NONE = Tracks(np.empty((0, 0), np.float32), np.empty((0, 0), np.float32))


def info_of(kind: Any, species: tuple[int, ...], **settings: Any) -> ModelInfo:
    return ModelInfo(
        kind=kind.Settings().kind, run=1, species=species, features=kind.Model.columns(("p",), species),
        masks={"tof": 0.5, "trd": 0.8}, seed=0, settings=kind.Settings(**settings).model_dump(mode="json"),
    )  # fmt: skip


# reference cuts


def certainty_of(tracks: list[tuple[float, ...]], species: tuple[int, ...] = (211,), **settings: Any) -> list[float]:
    model = nsigma.Model(info_of(nsigma, species, **settings), "unused")
    found: list[float] = model.score(np.array(tracks, np.float32))[:, 0].tolist()
    return found


@pytest.mark.parametrize(
    ("track", "expected"),
    [
        ((0.3, 1, 3.0, NAN), 0.5),
        ((0.3, 1, -3.0, NAN), 0.5),
        ((0.3, 1, 0.0, NAN), 1.0),
        ((0.3, 1, 6.0, NAN), 0.2),
        ((0.3, 1, 1.0, 50.0), 0.9),  # TOF is not used below its momentum
        ((0.5, 1, 3.0, 0.0), 0.5),
        ((2.0, 1, 0.0, -3.0), 0.5),
        ((2.0, 1, 1.8, -2.4), 0.5),
        ((2.0, 1, 3.0, 4.0), 1 / (1 + 25 / 9)),
        ((0.5, 1, 0.0, NAN), 0.0),  # TOF is required from here
        ((2.0, 1, 0.0, NAN), 0.0),
        ((0.3, 1, NAN, 0.0), 0.0),
        ((2.0, 1, NAN, 0.0), 0.0),
        ((0.3, -1, 0.0, NAN), 0.0),
        ((0.3, NAN, 3.0, NAN), 0.5),  # a sample without charges
    ],
)
def test_certainty_of_the_cut(track, expected):
    assert certainty_of([track, (0.1, 1, 0.0, NAN)]) == pytest.approx([expected, 1.0], abs=1e-6)


def test_settings_of_the_cut():
    track = (2.0, 1, 2.0, NAN)
    assert certainty_of([track], require_tof=False, n_sigma=2.0) == [0.5]
    assert certainty_of([track], tof_from=2.5, n_sigma=2.0) == [0.5]
    assert certainty_of([(2.0, 1, 2.0, 0.0)], n_sigma=2.0, tof_from=0.0) == [0.5]


def test_charge_of_the_antiparticle():
    assert certainty_of([(0.3, -1, 0.0, NAN), (0.3, 1, 0.0, NAN)], species=(-211,)) == [1.0, 0.0]
    # the electron is the negative one
    model = nsigma.Model(info_of(nsigma, (11, -11)), "unused")
    assert model.score(np.array([[0.3, -1, 0, NAN]], np.float32)).tolist() == [[1.0, 0.0]]


def test_columns_of_the_cut():
    assert nsigma.Model.columns(("tpc_signal",), (211, -211, 2212)) == (
        "p", "sign", "tpc_nsigma_pi", "tpc_nsigma_pr", "tof_nsigma_pi", "tof_nsigma_pr",
    )  # fmt: skip


@pytest.mark.parametrize("kind", [nsigma, bayes])
def test_neither_is_published(kind, tmp_path):
    assert not kind.Model.exported
    with pytest.raises(PidflowError, match="has no ONNX graph; publish another model"):
        kind.Model(info_of(kind, (211,)), tmp_path).graph(0)


# Bayesian PID


def fitted(folder: Path, species: tuple[int, ...] = CHARGED, *, tof: bool = True, **settings: Any) -> bayes.Model:
    write_json(folder / "fit.json", {"tpc": asdict(TPC), "tof": asdict(TOF) if tof else None})
    model = folder / "model"
    model.mkdir(exist_ok=True)
    fitting = Fitting(threads=1, checkpoint=folder / "checkpoint", response=folder / "fit.json")
    bayes.Model(info_of(bayes, species, **settings), model).fit(NONE, NONE, fitting)
    (folder / "fit.json").unlink()
    return bayes.Model(info_of(bayes, species, **settings), model)


def track(**changes: float) -> NDArray[np.float32]:
    """Return a positive track of 0.8 GeV/c without TOF and with the TPC signal of a pion."""
    values = {
        "p": 0.8, "pt": 0.8, "sign": 1.0, "tpc_signal": float(TPC.signal(0.8, SPECIES[1].mass)),
        "tpc_inner_param": 0.8, "tpc_n_cls_found": 120.0,
    }  # fmt: skip
    names = bayes.Model.columns((), (211,))
    assert not set(changes) - set(names)
    return np.array([[(values | changes).get(name, NAN) for name in names]], np.float32)


def timed(mass: float, momentum: float = 0.8, late: float = 0.0) -> dict[str, float]:
    """Return the TOF columns of a particle that is `late` by so many of its σ."""
    time = 400.0 / 0.0299792458 * math.hypot(1.0, mass / momentum) + late * float(TOF.sigma(400.0, momentum, mass))
    return {"tof_signal": time + 123.0, "tof_event_time": 123.0, "tof_exp_mom": momentum, "length": 400.0}


def weight(deviation: float, sigma: float) -> float:
    return math.exp(-0.5 * min(abs(deviation), 5.0) ** 2) / sigma


def test_posterior_is_the_likelihood_over_all_species(tmp_path):
    species = tuple(s.pdg if s.key != "el" else -s.pdg for s in SPECIES)
    model = fitted(tmp_path, species)
    pion, kaon = SPECIES[1].mass, SPECIES[2].mass
    # at 2 GeV/c, an energy loss and a time of flight between those of pion and kaon
    signal = 0.5 * float(TPC.signal(2.0, pion)) + 0.5 * float(TPC.signal(2.0, kaon))
    measured = timed(pion, 2.0, late=2.5)
    weights = []
    for s in SPECIES:
        mean = float(TPC.signal(2.0, s.mass))
        width = mean * 0.06 * (159 / 120) ** 0.6
        sigma = float(TOF.sigma(400.0, 2.0, s.mass))
        late = measured["tof_signal"] - timed(s.mass, 2.0)["tof_signal"]
        weights.append(weight((signal - mean) / width, width) * weight(late / sigma, sigma))
    expected = np.array(weights) / sum(weights)
    assert sorted(expected)[-2] > 0.02
    slow = track(p=2.0, pt=2.0, tpc_inner_param=2.0, tpc_signal=signal, **measured)
    np.testing.assert_allclose(model.score(slow)[0], expected, rtol=2e-3)


def test_detector_that_no_species_explains_says_nothing(tmp_path):
    model = fitted(tmp_path)
    alone = model.score(track())
    too_early = timed(SPECIES[0].mass, late=-8.0)
    np.testing.assert_array_equal(model.score(track(**too_early)), alone)
    # both detectors: equal chances for the five species, charge known
    lost = model.score(track(tpc_signal=4000.0, **too_early))
    np.testing.assert_allclose(lost, [[0.2, 0.2, 0.2, 0, 0, 0]])


def test_range_bounds_what_one_detector_can_exclude(tmp_path):
    far = timed(SPECIES[3].mass)  # a pion by its energy loss, a proton by its time
    certainty = [fitted(tmp_path, range=bound).score(track(**far))[0, 2] for bound in (1.0, 2.0)]
    assert certainty[0] != pytest.approx(certainty[1], rel=0.05)


def test_charges(tmp_path):
    model = fitted(tmp_path)
    plus, minus, unknown = (model.score(track(sign=sign))[0] for sign in (1.0, -1.0, NAN))
    assert plus[:3].min() > 0
    assert plus[3:].tolist() == [0, 0, 0]
    assert minus.tolist() == [*plus[3:], *plus[:3]]
    assert unknown.tolist() == [*plus[:3], *plus[:3]]
    electron = fitted(tmp_path, (11, -11)).score(track(sign=-1.0))[0]
    assert electron[0] > 0
    assert electron[1] == 0


def test_missing_detectors(tmp_path):
    model = fitted(tmp_path)
    assert np.isnan(model.score(track(tpc_signal=NAN))).all()
    by_time = model.score(track(tpc_signal=NAN, **timed(SPECIES[3].mass)))[0]
    assert by_time[2] > 0.99
    wall = model.score(track(tpc_inner_param=NAN))
    np.testing.assert_array_equal(wall, model.score(track()))  # the momentum at the vertex stands in
    without_tof = fitted(tmp_path, tof=False)
    np.testing.assert_array_equal(without_tof.score(track(**timed(SPECIES[3].mass))), without_tof.score(track()))


SHARES = {211: 0.6, -211: 0.85, 321: 0.3, -321: 0.1, 2212: 0.1, -2212: 0.05}


def sample(folder: Path, tracks: int = 12_000) -> tuple[Path, pa.Table]:
    """Return a dataset whose positive and negative tracks differ in composition."""
    species = [code for code, share in SHARES.items() for _ in range(round(20 * share))]
    table = make_tracks(tracks, seed=4, species=species)
    path = folder / "dataset.parquet"
    pq.write_table(table, path)
    return path, table


def test_priors_converge_to_the_composition_of_the_sample(tmp_path, capsys, monkeypatch):
    path, table = sample(tmp_path)
    model = fitted(tmp_path, pt_edges=(0.1, 0.6, 20.0))
    monkeypatch.setattr(parquet, "_BATCH_ROWS", 5000)
    monkeypatch.setattr(bayes, "_ROWS_AT_A_TIME", 700)
    features = matrix(table, model.info.features)
    flat = model.score(features)
    model.prepare(path)
    assert "priors of 12,000 tracks after" in capsys.readouterr().out
    pdg, slow = table["pdg_code"].to_numpy(), table["pt"].to_numpy() < 0.6
    for pt_bin, inside in enumerate((slow, ~slow)):
        for charge, sign in ((2, 1), (0, -1)):
            own = pdg[inside & (np.sign(pdg) == sign)]
            true = [np.mean(np.abs(own) == s.pdg) for s in SPECIES]
            np.testing.assert_allclose(model.priors[pt_bin, charge], true, atol=0.02)
    truth = pdg[:, None] == np.array(CHARGED)
    certainty = model.score(features)
    assert np.square(certainty - truth).mean() < 0.9 * np.square(flat - truth).mean()
    # the tracks that are given 60 to 90 % are of the species as often
    some = (certainty > 0.6) & (certainty < 0.9)
    assert truth[some].mean() == pytest.approx(certainty[some].mean(), abs=4 * 0.5 / math.sqrt(some.sum()))


def test_priors_depend_neither_on_labels_nor_on_the_way_of_reading(tmp_path, monkeypatch):
    path, table = sample(tmp_path, 1500)
    models = [fitted(tmp_path) for _ in range(2)]
    models[0].prepare(path)
    unlabelled = tmp_path / "unlabelled.parquet"
    pq.write_table(table.drop_columns(["pdg_code", "is_physical_primary", "mother_pdg_code"]), unlabelled)
    monkeypatch.setattr(parquet, "_BATCH_ROWS", 333)
    monkeypatch.setattr(bayes, "_ROWS_AT_A_TIME", 100)
    models[1].prepare(unlabelled)
    np.testing.assert_allclose(models[1].priors, models[0].priors, rtol=1e-9)
    assert np.abs(models[0].priors - 0.2).max() > 0.3


def test_iterations_are_bounded_and_bins_without_tracks_keep_equal_priors(tmp_path, capsys):
    path, _ = sample(tmp_path, 1500)
    model = fitted(tmp_path, iterations=1, tolerance=1e-9, pt_edges=(0.1, 20.0, 30.0))
    model.prepare(path)
    assert "after 1 iterations" in capsys.readouterr().out
    np.testing.assert_array_equal(model.priors[1], 0.2)  # beyond 20 GeV/c
    np.testing.assert_array_equal(model.priors[:, 1], 0.2)  # unknown charge
    np.testing.assert_allclose(model.priors.sum(axis=-1), 1.0)


def test_dataset_without_signals_leaves_the_priors_equal(tmp_path):
    path = tmp_path / "dataset.parquet"
    table = make_tracks(20)
    empty = pa.nulls(20, pa.float32())
    for name in ("tpc_signal", "tof_signal"):
        table = table.set_column(table.column_names.index(name), name, empty)
    pq.write_table(table, path)
    model = fitted(tmp_path)
    model.prepare(path)
    np.testing.assert_array_equal(model.priors, 0.2)
    assert np.isnan(model.score(matrix(table, model.info.features))).all()


def test_it_needs_a_response(tmp_path):
    model = bayes.Model(info_of(bayes, (211,)), tmp_path)
    with pytest.raises(PidflowError, match="needs the run's response; fit it first"):
        model.fit(NONE, NONE, Fitting(threads=1, checkpoint=tmp_path / "checkpoint"))


def test_edges_increase():
    with pytest.raises(ValidationError, match="'pt_edges' must increase"):
        bayes.Settings(pt_edges=(0.5, 0.5, 1.0))
