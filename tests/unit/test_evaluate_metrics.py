"""Metrics against scikit-learn, their intervals against pseudo-experiments, and bad inputs."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn import metrics as sk
from test_evaluate_sample import EDGES, SPECIES, write_dataset, write_scores

from pidflow.errors import PidflowError
from pidflow.evaluate import resampling
from pidflow.evaluate.intervals import clopper_pearson, collision_weights, percentile, rate, replica_weights
from pidflow.evaluate.metrics import compute_metrics
from pidflow.evaluate.ranking import Ranking, area, ranking_score, roc_curve
from pidflow.evaluate.schema import Metrics, read_metrics


def compute(folder: Path, dataset: Path, scores: Path, name: str = "metrics.json", **changes) -> Metrics:
    settings = {
        "run": 1,
        "sample": "simulation",
        "species": SPECIES,
        "pt_edges": EDGES,
        "threshold": 0.5,
        "bootstrap": 40,
        "confidence": 0.68,
        "seed": 3,
    }
    return compute_metrics(dataset, {"fse": scores}, {"fse": folder / name}, **{**settings, **changes})["fse"]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    dataset = write_dataset(tmp_path / "dataset.parquet", n_tracks=6000)
    return dataset, write_scores(tmp_path / "scores.parquet", dataset)


def test_values_agree_with_scikit_learn(tmp_path, files):
    metrics = compute(tmp_path, *files)
    tracks, scores = (pq.read_table(path) for path in files)
    test = np.asarray(tracks["split"]) == "test"
    pdg, pt = (tracks[name].to_numpy()[test] for name in ("pdg_code", "pt"))
    f1s = []
    for part in metrics.species:
        score = ranking_score(scores[f"certainty_{part.key}"].to_numpy()[test])
        true, selected = pdg == part.pdg, score >= 0.5
        assert part.overall.purity.value == pytest.approx(sk.precision_score(true, selected))
        assert part.overall.efficiency.value == pytest.approx(sk.recall_score(true, selected))
        assert part.overall.f1.value == pytest.approx(sk.f1_score(true, selected))
        assert part.overall.auc.value == pytest.approx(sk.roc_auc_score(true, np.maximum(score, -1)))
        f1s.append(part.overall.f1.value)
        for rates in part.pt:
            inside = (pt >= rates.low) & (pt < rates.high)
            assert rates.n_true == true[inside].sum()
            assert rates.n_correct == (true & selected)[inside].sum()
        complete = tracks["has_trd"].to_numpy()[test] & tracks["has_tof"].to_numpy()[test]
        rates = part.patterns[3]
        assert rates.pattern == "TPC+TRD+TOF"
        assert rates.f1.value == pytest.approx(sk.f1_score(true[complete], selected[complete]))
        assert rates.auc.value == pytest.approx(sk.roc_auc_score(true[complete], np.maximum(score, -1)[complete]))
    assert metrics.n_tracks == test.sum()
    assert metrics.macro.f1.value == pytest.approx(np.mean(f1s))
    assert metrics.complete.n_tracks == complete.sum()
    assert metrics.complete.f1.value == pytest.approx(np.mean([part.patterns[3].f1.value for part in metrics.species]))


def test_confusion_counts_each_track_once_and_agrees_with_scikit_learn(tmp_path, files):
    confusion = compute(tmp_path, *files).confusion
    tracks, scores = (pq.read_table(path) for path in files)
    test = np.asarray(tracks["split"]) == "test"
    pdg = tracks["pdg_code"].to_numpy()[test]
    true = np.select([pdg == code for code in SPECIES], range(6), 6)
    names = [name for name in scores.column_names if name.startswith("certainty")]
    score = ranking_score(np.stack([scores[name].to_numpy()[test] for name in names], axis=1))
    assigned = np.where(score.max(axis=1) >= 0.5, score.argmax(axis=1), 6)
    assert (np.array(confusion.counts) == sk.confusion_matrix(true, assigned, labels=range(7))).all()
    assert confusion.rows[-1] == "other" and confusion.columns[-1] == "none"


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_weighted_auc_with_ties_agrees_with_scikit_learn(levels):
    rng = np.random.default_rng(levels)
    score = (rng.integers(0, levels, 3000) / levels).astype(np.float32)
    true = rng.random(3000) < 0.2 + 0.5 * score
    weight = rng.poisson(1.0, 3000).astype(float)
    expected = sk.roc_auc_score(true, score, sample_weight=weight)
    weights = np.stack([np.ones(3000), weight], axis=1).astype(np.int32)
    areas = Ranking(score, true, np.arange(3000), 3000).auc(weights)
    np.testing.assert_allclose(areas, [sk.roc_auc_score(true, score), expected], rtol=0, atol=1e-12)
    assert area(score, true) == areas[0]
    efficiency, misidentification = roc_curve(score, true)
    x, y, _ = sk.roc_curve(true, score, drop_intermediate=False)
    np.testing.assert_allclose(misidentification, x[1:])
    np.testing.assert_allclose(efficiency, y[1:])


def test_auc_of_one_class_is_undefined():
    assert np.isnan(area(np.ones(3, np.float32), np.ones(3, bool)))
    assert np.isnan(area(np.ones(3, np.float32), np.zeros(3, bool)))


def test_clopper_pearson_covers_at_least_its_confidence():
    n = np.arange(0, 31)
    low, high = clopper_pearson(n, 30, 0.68)
    rng = np.random.default_rng(1)
    for truth in (0.02, 0.3, 0.5, 0.97):
        drawn = rng.binomial(30, truth, 4000)
        assert ((low[drawn] <= truth) & (truth <= high[drawn])).mean() > 0.67
    assert (low[0], high[30]) == (0.0, 1.0)
    assert rate(0, 0, 0.68).value is None


def test_bootstrap_by_collision_covers_although_tracks_of_a_collision_are_correlated():
    rng = np.random.default_rng(2)
    n_collisions, multiplicity, experiments = 150, 8, 150
    collision = np.repeat(np.arange(n_collisions), multiplicity)
    true = np.tile(np.arange(multiplicity) % 2 == 0, n_collisions)

    def experiment(size: int, labels: np.ndarray) -> np.ndarray:
        # a common fluctuation per collision and class, as a wrong event time makes it
        common = rng.normal(0, 1.0, (2, size))
        score = np.where(labels, 1.0, 0.0) + common[labels.astype(int), np.repeat(np.arange(size), multiplicity)]
        return (score + rng.normal(0, 1.0, labels.size)).astype(np.float32)

    many = np.tile(true[:multiplicity], 20_000)
    truth = area(experiment(20_000, many), many)
    covered = 0
    for seed in range(experiments):
        ranking = Ranking(experiment(n_collisions, true), true, collision, n_collisions)
        areas = ranking.auc(replica_weights(seed, 100, n_collisions).astype(np.int32))
        interval = percentile(areas[0], areas[1:], 0.68)
        covered += interval.low <= truth <= interval.high
    assert 0.56 < covered / experiments < 0.80


def test_nulls_are_not_selected_and_rank_last(tmp_path):
    dataset = write_dataset(tmp_path / "dataset.parquet", n_tracks=2000)
    scores = write_scores(tmp_path / "scores.parquet", dataset, null_without_tof=True)
    metrics = compute(tmp_path, dataset, scores)
    pion = metrics.species[0]
    assert pion.patterns[0].n_selected == pion.patterns[1].n_selected == 0
    assert pion.patterns[0].auc.value == 0.5
    assert pion.patterns[0].purity.value is None
    assert pion.patterns[0].f1.value == 0.0


def test_species_without_truth_are_undefined_and_left_out_of_the_macro_means(tmp_path):
    species = (11, 211, 321, 2212, 1000010020)
    dataset = write_dataset(tmp_path / "dataset.parquet", n_tracks=2000, truth=(211, 321, 2212), complete=False)
    scores = write_scores(tmp_path / "scores.parquet", dataset, species=species)
    metrics = compute(tmp_path, dataset, scores, species=species)
    deuteron = metrics.species[4].overall
    assert deuteron.efficiency.value is None and deuteron.f1.value is None and deuteron.auc.value is None
    assert metrics.macro.f1.value == pytest.approx(np.mean([part.overall.f1.value for part in metrics.species[1:4]]))
    assert metrics.macro.f1 == metrics.macro.f1_hadrons
    assert metrics.complete is None


def test_file_is_deterministic_and_fits_the_schema(tmp_path, files):
    metrics = compute(tmp_path, *files)
    compute(tmp_path, *files, name="again.json")
    assert (tmp_path / "metrics.json").read_bytes() == (tmp_path / "again.json").read_bytes()
    assert read_metrics(tmp_path / "metrics.json") == metrics
    for part in metrics.species:
        for estimate in (part.overall.purity, part.overall.f1, part.overall.auc):
            assert estimate.low <= estimate.value <= estimate.high


def plain_replicas(files: tuple[Path, Path], seed: int, n_replicas: int) -> list[dict[str, np.ndarray]]:
    """F1, AUC and ECE [species] of all tracks and of complete ones, replica by replica in the plain way."""
    tracks, scores = (pq.read_table(path) for path in files)
    test = np.asarray(tracks["split"]) == "test"
    tracks, scores = tracks.filter(pa.array(test)), scores.filter(pa.array(test))
    pdg = tracks["pdg_code"].to_numpy()
    complete = tracks["has_trd"].to_numpy() & tracks["has_tof"].to_numpy()
    collisions, collision = np.unique(tracks["collision_id"].to_numpy(), return_inverse=True)
    found = []
    for replica in range(1, 1 + n_replicas):
        weight = collision_weights(seed, replica, collisions.size)[collision]
        values = {}
        for subset, inside in (("all", np.ones(pdg.size, bool)), ("complete", complete)):
            f1, auc, ece = [], [], []
            for code in SPECIES:
                key = f"certainty_{code}" if code > 0 else f"certainty_0{-code}"
                certainty = scores[key].to_numpy()[inside].astype(float)
                true, w = (pdg == code)[inside], weight[inside]
                score = np.where(np.isnan(certainty), -1.0, certainty)
                f1.append(sk.f1_score(true, score >= 0.5, sample_weight=w))
                auc.append(sk.roc_auc_score(true, score, sample_weight=w))
                scored = score >= 0
                error = 0.0
                for i in range(15):
                    chosen = scored & (score >= i / 15) & ((score < (i + 1) / 15) | (i == 14))
                    if w[chosen].sum():
                        gap = np.average(score[chosen], weights=w[chosen]) - np.average(true[chosen], weights=w[chosen])
                        error += w[chosen].sum() / w[scored].sum() * abs(gap)
                ece.append(error)
            values[subset] = np.array([f1, auc, ece])
        found.append(values)
    return found


@pytest.mark.parametrize("block", [2**21, 1])
def test_replicas_agree_with_one_pass_over_the_tracks_per_replica(tmp_path, monkeypatch, block):
    monkeypatch.setattr(resampling, "_BLOCK", block)
    dataset = write_dataset(tmp_path / "dataset.parquet", n_tracks=5000)
    # neither collisions nor scored tracks come in order
    table = pq.read_table(dataset)
    pq.write_table(table.take(pa.array(np.random.default_rng(4).permutation(table.num_rows))), dataset)
    files = dataset, write_scores(tmp_path / "scores.parquet", dataset, hidden=0.2)
    metrics = compute(tmp_path, *files, bootstrap=12)
    plain = plain_replicas(files, seed=3, n_replicas=12)
    for subset, macro in (("all", metrics.macro), ("complete", metrics.complete)):
        f1, auc, ece = np.moveaxis(np.array([values[subset] for values in plain]), 1, 0)
        np.testing.assert_allclose(macro.auc_replicas, auc.mean(axis=1), rtol=0, atol=1e-12)
        for name, values in (("f1", f1), ("auc", auc), ("ece", ece)):
            estimate = getattr(macro, name)
            assert (estimate.low, estimate.high) == pytest.approx(np.quantile(values.mean(axis=1), [0.16, 0.84]))
            for i, part in enumerate(metrics.species):
                rates = getattr(part.overall if subset == "all" else part.patterns[3], name)
                assert (rates.low, rates.high) == pytest.approx(np.quantile(values[:, i], [0.16, 0.84]))


def test_models_in_one_call_have_the_metrics_of_calls_of_their_own(tmp_path, files):
    dataset, scores = files
    other = write_scores(tmp_path / "other.parquet", dataset, width=0.3)
    together = compute_metrics(
        dataset,
        {"fse": scores, "bayes": other},
        {"fse": tmp_path / "a.json", "bayes": tmp_path / "b.json"},
        run=1,
        sample="simulation",
        species=SPECIES,
        pt_edges=EDGES,
        threshold=0.5,
        bootstrap=40,
        confidence=0.68,
        seed=3,
    )
    assert together["fse"] == compute(tmp_path, dataset, scores)
    assert read_metrics(tmp_path / "b.json") == together["bayes"]
    assert together["bayes"].macro == compute(tmp_path, dataset, other).macro


def test_metrics_file_with_an_unknown_key_is_named(tmp_path, files):
    compute(tmp_path, *files)
    content = json.loads((tmp_path / "metrics.json").read_text())
    (tmp_path / "bad.json").write_text(json.dumps({**content, "colour": 1}))
    with pytest.raises(PidflowError, match=r"bad\.json: key 'colour'"):
        read_metrics(tmp_path / "bad.json")


def test_scores_of_other_tracks_are_refused(tmp_path, files):
    dataset, scores = files
    table = pq.read_table(scores)
    pq.write_table(table.take(pa.array(np.arange(table.num_rows)[::-1])), scores)
    with pytest.raises(PidflowError, match=r"scores\.parquet does not score the tracks of .*dataset\.parquet"):
        compute(tmp_path, dataset, scores)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"species": (11,)}, r"scores\.parquet lacks column 'certainty_11'"),
        ({"without_truth": True}, r"dataset\.parquet: column 'pdg_code' is null"),
        ({"only": "train"}, r"dataset\.parquet holds no track of split 'test'"),
    ],
)
def test_unusable_inputs_are_named(tmp_path, change, message):
    dataset = write_dataset(
        tmp_path / "dataset.parquet",
        n_tracks=200,
        truth=() if change.pop("without_truth", False) else SPECIES,
        split=change.pop("only", None),
    )
    scores = write_scores(tmp_path / "scores.parquet", dataset)
    with pytest.raises(PidflowError, match=message):
        compute(tmp_path, dataset, scores, **change)
    assert not (tmp_path / "metrics.json").exists()
