"""Thinned tracks: kinematics alone separates nothing there, signals still do."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_evaluate_metrics import compute
from test_evaluate_sample import write_dataset, write_scores

from pidflow.errors import PidflowError
from pidflow.evaluate.equalise import equalised
from pidflow.evaluate.paired import difference
from pidflow.evaluate.ranking import area

SPECIES = (11, 211, 321, 2212, 1000010020)
TAGGED = Path(__file__).parents[3] / "shared" / "data" / "labelled_tracks"
STEMS = {"electrons": 11, "pions": 211, "kaons": 321, "protons": 2212, "deuterons": 1000010020}


def tracks(seed: int, n_tracks: int = 30_000) -> pa.Table:
    """Return tracks whose momentum, and the link of angle and clusters, tell the species."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(5, n_tracks, p=[0.4, 0.3, 0.15, 0.1, 0.05])
    eta = rng.uniform(-0.9, 0.9, n_tracks)
    slope = np.array([20.0, -20.0, 0.0, 10.0, 0.0])[kind]
    return pa.table(
        {
            "pdg_code": pa.array(np.array(SPECIES)[kind].astype(np.int32), mask=rng.random(n_tracks) < 0.02),
            "p": np.exp(rng.normal(np.array([-0.8, -0.4, 0.0, 0.3, 0.7])[kind], 0.7)).astype(np.float32),
            "eta": pa.array(eta, mask=rng.random(n_tracks) < 0.01),
            "tpc_n_cls_found": np.rint(rng.normal(120 + slope * eta, 10)).clip(0, 159).astype(np.int16),
        }
    )


def areas(columns: pa.Table, score: np.ndarray) -> np.ndarray:
    """Return the area of each species against the rest."""
    code = columns["pdg_code"].fill_null(0).to_numpy()
    return np.array([area(score.astype(np.float32), code == pdg) for pdg in SPECIES])


@pytest.mark.parametrize("seed", [1, 2])
def test_kinematics_alone_separates_before_and_not_after(seed):
    everything = tracks(seed)
    variables = ["p", "eta", "tpc_n_cls_found"]
    thinned = equalised(everything, SPECIES, variables, seed)
    left = everything.filter(pa.array(thinned.mask))
    p, eta, clusters = (left[name].to_numpy() for name in variables)
    assert np.abs(areas(everything, everything["p"].to_numpy()) - 0.5).max() > 0.3
    np.testing.assert_allclose(areas(left, p), 0.5, atol=0.06)
    for low, high in ((0.0, 0.7), (0.7, 1.1), (1.1, 99.0)):
        inside = (p >= low) & (p < high)
        np.testing.assert_allclose(areas(left.filter(pa.array(inside)), p[inside]), 0.5, atol=0.11)
    # what separates is the link of two variables; neither does alone
    link = (everything["eta"].fill_null(0).to_numpy()) * (everything["tpc_n_cls_found"].to_numpy() - 120.0)
    before, after = (
        np.abs(found - 0.5).max() for found in (areas(everything, link), areas(left, eta * (clusters - 120.0)))
    )
    assert before > 0.15 and after < 0.4 * before


def test_the_same_share_of_every_species_is_kept():
    everything = tracks(3)
    thinned = equalised(everything, SPECIES, ["p"], 3)
    code = everything["pdg_code"].fill_null(0).to_numpy()
    shares = np.array([thinned.kept[pdg] for pdg in SPECIES])
    for pdg in SPECIES:
        assert thinned.kept[pdg] == thinned.mask[code == pdg].mean()
    np.testing.assert_allclose(shares, shares.mean(), rtol=0.15)
    assert 0.1 < shares.mean() < 0.6


def test_tracks_without_species_or_variable_drop_out_and_the_seed_alone_decides():
    everything = tracks(4)
    thinned = equalised(everything, SPECIES, ["eta"], 4)
    left = everything.filter(pa.array(thinned.mask))
    assert left["pdg_code"].null_count == left["eta"].null_count == 0
    assert (equalised(everything, SPECIES, ["eta"], 4).mask == thinned.mask).all()
    assert (equalised(everything, SPECIES, ["eta"], 5).mask != thinned.mask).any()


def test_tracks_that_are_alike_are_kept():
    rng = np.random.default_rng(6)
    alike = pa.table({"pdg_code": rng.choice(SPECIES, 5000), "p": rng.normal(size=5000)})
    assert min(equalised(alike, SPECIES, ["p"], 1).kept.values()) > 0.85


def test_species_that_share_no_range_are_an_error():
    apart = pa.table({"pdg_code": [11] * 50 + [211] * 50, "p": np.repeat([0.2, 2.0], 50)})
    with pytest.raises(PidflowError, match="no common range of p; equalise in fewer variables"):
        equalised(apart, SPECIES, ["p"], 1)
    with pytest.raises(PidflowError, match="no column 'colour'"):
        equalised(apart, SPECIES, ["colour"], 1)


def test_metrics_of_thinned_tracks(tmp_path):
    dataset = write_dataset(tmp_path / "dataset.parquet", n_tracks=9000)
    # tracks do not come in the order of collisions
    table = pq.read_table(dataset)
    pq.write_table(table.take(pa.array(np.random.default_rng(4).permutation(table.num_rows))), dataset)
    scores = write_scores(tmp_path / "scores.parquet", dataset)
    everything = compute(tmp_path, dataset, scores)
    metrics = compute(tmp_path, dataset, scores, equalise=("p", "pt"), sample="equalised")
    assert metrics.equalised.variables == ("p", "pt") and everything.equalised is None
    n_true = sum(part.overall.n_true for part in metrics.species)
    assert n_true == metrics.n_tracks < everything.n_tracks
    for thinned, part in zip(metrics.species, everything.species, strict=True):
        assert thinned.overall.n_true == round(metrics.equalised.kept[part.pdg] * part.overall.n_true)
    assert metrics.n_collisions < everything.n_collisions
    with pytest.raises(PidflowError, match="not of the same tracks"):
        difference(metrics, everything)


@pytest.mark.skipif(not TAGGED.is_dir(), reason="no tagged tracks here")
def test_tagged_tracks():
    rng = np.random.default_rng(8)
    parts = []
    for stem, pdg in STEMS.items():
        table = pq.read_table(TAGGED / f"{stem}.parquet", columns=["p", "eta", "NclusterPIDTPC"])
        table = table.filter(pa.array(rng.random(table.num_rows) < 0.3))
        parts.append(table.append_column("pdg_code", pa.array([pdg] * table.num_rows, pa.int32())))
    everything = pa.concat_tables(parts)
    thinned = equalised(everything, SPECIES, ["p", "eta"], 1)
    left = everything.filter(pa.array(thinned.mask))
    assert np.abs(areas(everything, everything["p"].to_numpy()) - 0.5).max() > 0.4
    for name in ("p", "eta"):
        np.testing.assert_allclose(areas(left, left[name].to_numpy()), 0.5, atol=0.03)
    assert min(thinned.kept.values()) > 0.03
