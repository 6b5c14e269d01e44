"""Working points against a plain search over all thresholds, and their edge cases."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_evaluate_sample import SPECIES, write_dataset, write_scores

from pidflow.errors import PidflowError
from pidflow.evaluate.intervals import clopper_pearson, rate
from pidflow.evaluate.working_points import (
    COLUMNS,
    WorkingPoints,
    compute_working_points,
    read_working_points,
    selections,
)

PURITIES, EFFICIENCIES, CERTAINTIES = (0.3, 0.9), (0.8, 0.95), (0.5,)


def compute(folder: Path, dataset: Path, scores: Path, name: str = "points", **changes) -> WorkingPoints:
    settings = {
        "run": 1,
        "sample": "simulation",
        "species": SPECIES,
        "purities": PURITIES,
        "efficiencies": EFFICIENCIES,
        "certainties": CERTAINTIES,
        "confidence": 0.68,
    }
    outputs = ({"fse": folder / f"{name}.csv"}, {"fse": folder / f"{name}.json"})
    return compute_working_points(dataset, {"fse": scores}, *outputs, **{**settings, **changes})["fse"]


def with_weights(dataset: Path, seed: int = 6) -> Path:
    table = pq.read_table(dataset)
    weight = np.random.default_rng(seed).exponential(1.0, table.num_rows).astype(np.float32)
    path = dataset.with_name("weighted.parquet")
    pq.write_table(table.append_column("weight", pa.array(weight)), path)
    return path


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    dataset = write_dataset(tmp_path / "dataset.parquet", n_tracks=3000)
    return dataset, write_scores(tmp_path / "scores.parquet", dataset, hidden=0.05)


def split_of(dataset: Path, scores: Path, split: str, key: str, pdg: int) -> tuple[np.ndarray, ...]:
    """Certainty (NaN where not scored), truth and weight of the tracks of a split."""
    tracks, scored = pq.read_table(dataset), pq.read_table(scores)
    inside = np.asarray(tracks["split"]) == split
    weight = tracks["weight"].to_numpy().astype(float) if "weight" in tracks.column_names else np.ones(inside.size)
    return scored[f"certainty_{key}"].to_numpy()[inside], tracks["pdg_code"].to_numpy()[inside] == pdg, weight[inside]


def plain_rates(certainty, true, weight, threshold) -> tuple[float, float, float]:
    """Purity (0 if nothing is selected), efficiency and F1."""
    selected = certainty >= threshold
    both, n_selected, n_true = (weight[mask].sum() for mask in (selected & true, selected, true))
    return both / n_selected if n_selected else 0.0, both / n_true, 2 * both / (n_selected + n_true)


@pytest.mark.parametrize("weighted", [False, True])
def test_thresholds_are_chosen_on_validation_and_rates_measured_on_test_tracks(tmp_path, files, weighted):
    dataset, scores = files
    dataset = with_weights(dataset) if weighted else dataset
    found = compute(tmp_path, dataset, scores)
    assert found.weighted == weighted and [part.pdg for part in found.species] == list(SPECIES)
    for part in found.species[:3]:
        validation = split_of(dataset, scores, "validation", part.key, part.pdg)
        test = split_of(dataset, scores, "test", part.key, part.pdg)
        assert (part.n_true_validation, part.n_true_test) == (validation[1].sum(), test[1].sum())
        levels = np.unique(validation[0][~np.isnan(validation[0])])
        purity, efficiency, f1 = np.array([plain_rates(*validation, level) for level in levels]).T
        expected = {
            ("max_f1", None): levels[np.argmax(f1)],
            **{("purity", value): min(levels[purity >= value], default=None) for value in PURITIES},
            **{("efficiency", value): max(levels[efficiency >= value], default=None) for value in EFFICIENCIES},
            ("fixed", 0.5): 0.5,
        }
        assert {(point.criterion, point.requested): point.threshold for point in part.points} == expected
        for point in part.points:
            assert point.reached == (point.threshold is not None)
            if point.reached:
                rates = plain_rates(*test, point.threshold)
                assert (point.purity.value, point.efficiency.value, point.f1) == pytest.approx(rates, rel=1e-9)


def test_intervals_are_those_of_the_counts_of_test_tracks(tmp_path, files):
    found = compute(tmp_path, *files)
    for part in found.species:
        certainty, true, _ = split_of(*files, "test", part.key, part.pdg)
        for point in part.points:
            if point.reached:
                selected = certainty >= point.threshold
                both = int((selected & true).sum())
                assert point.purity == rate(both, int(selected.sum()), 0.68)
                assert point.efficiency == rate(both, int(true.sum()), 0.68)


def test_intervals_of_weighted_tracks_follow_from_effective_counts(tmp_path, files):
    dataset = with_weights(files[0])
    point = compute(tmp_path, dataset, files[1]).species[0].points[-1]
    certainty, true, weight = split_of(dataset, files[1], "test", "211", 211)
    selected = certainty >= 0.5
    for estimate, out_of in ((point.purity, selected), (point.efficiency, true)):
        effective = weight[out_of].sum() ** 2 / (weight[out_of] ** 2).sum()
        low, high = clopper_pearson(estimate.value * effective, effective, 0.68)
        assert (estimate.low, estimate.high) == pytest.approx((float(low), float(high)), rel=1e-9)
        plain = rate(int((selected & true).sum()), int(out_of.sum()), 0.68)
        assert estimate.high - estimate.low > 1.1 * (plain.high - plain.low)


def test_equal_weights_change_nothing(tmp_path, files):
    table = pq.read_table(files[0])
    dataset = tmp_path / "equal.parquet"
    pq.write_table(table.append_column("weight", pa.array(np.full(table.num_rows, 4.0, np.float32))), dataset)
    assert compute(tmp_path, dataset, files[1]).species == compute(tmp_path, *files).species


def test_tied_tracks_are_selected_together():
    certainty = np.array([0.9, 0.5, 0.5, 0.5, 0.1], np.float32)
    true = np.array([True, True, False, False, False])
    for order in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0]):
        found = selections(certainty[order], true[order])
        assert found.thresholds.tolist() == [np.float32(0.9), 0.5, np.float32(0.1)]
        assert found.selected.tolist() == [1, 4, 5] and found.correct.tolist() == [1, 2, 2]
        assert found.choose("purity", 0.6) == np.float32(0.9)
        assert found.choose("efficiency", 0.6) == found.choose("purity", 0.5) == 0.5
        purity, efficiency, _ = found.measure(0.5, 0.68)
        assert (purity.value, efficiency.value) == (0.5, 1.0)


def test_tracks_that_are_not_scored_are_never_selected():
    certainty = np.array([np.nan, np.nan, 0.0, 0.7], np.float32)
    found = selections(certainty, np.array([True, False, False, True]))
    assert found.thresholds.tolist() == [np.float32(0.7), 0.0]
    assert found.measure(0.0, 0.68)[1].value == 0.5
    assert found.choose("efficiency", 0.5) == np.float32(0.7)
    assert found.choose("efficiency", 0.6) is None
    nothing = selections(np.full(2, np.nan, np.float32), np.array([True, False]))
    assert nothing.choose("max_f1", None) is nothing.choose("purity", 0.1) is None
    purity, efficiency, f1 = nothing.measure(0.5, 0.68)
    assert (purity.value, efficiency.value, f1) == (None, 0.0, 0.0)


def test_what_cannot_be_reached_is_said_and_left_empty(tmp_path):
    dataset = write_dataset(tmp_path / "dataset.parquet", n_tracks=2000)
    # the certainty says nothing, and the likeliest track is a pion
    table = pq.read_table(write_scores(tmp_path / "scores.parquet", dataset))
    blind = np.where(pq.read_table(dataset)["pdg_code"].to_numpy() == 211, 0.7, 0.6).astype(np.float32)
    scores = table.set_column(table.column_names.index("certainty_321"), "certainty_321", pa.array(blind))
    pq.write_table(scores, tmp_path / "scores.parquet")
    kaon = compute(tmp_path, dataset, tmp_path / "scores.parquet").species[1]
    point = next(point for point in kaon.points if (point.criterion, point.requested) == ("purity", 0.9))
    assert not point.reached and point.threshold is None and point.f1 is None
    assert point.purity.value is point.efficiency.low is None
    rows = list(csv.DictReader((tmp_path / "points.csv").read_text().splitlines()))
    row = next(row for row in rows if (row["pdg"], row["requested"]) == ("321", "0.9"))
    assert row.pop("reached") == "false"
    assert list(row.values()) == ["321", "purity", "0.9", *[""] * 8]


def test_species_without_true_tracks_keep_the_fixed_threshold_alone(tmp_path):
    species = (211, 321)
    dataset = write_dataset(tmp_path / "dataset.parquet", n_tracks=1500, truth=(211, 2212))
    scores = write_scores(tmp_path / "scores.parquet", dataset, species=species)
    kaon = compute(tmp_path, dataset, scores, species=species).species[1]
    assert [point.reached for point in kaon.points] == [False] * 5 + [True]
    fixed = kaon.points[-1]
    assert fixed.purity.value == 0.0 and fixed.efficiency.value is None and fixed.f1 is None


def test_files_agree_with_each_other_and_are_deterministic(tmp_path, files):
    found = compute(tmp_path, *files)
    compute(tmp_path, *files, name="again")
    for end in ("csv", "json"):
        assert (tmp_path / f"points.{end}").read_bytes() == (tmp_path / f"again.{end}").read_bytes()
    assert read_working_points(tmp_path / "points.json") == found
    text = (tmp_path / "points.csv").read_text()
    assert text.splitlines()[0] == (
        "pdg,criterion,requested,threshold,purity,purity_low,purity_high,efficiency,efficiency_low,efficiency_high,"
        "f1,reached"
    )
    rows = list(csv.reader(text.splitlines()[1:]))
    points = [(part.pdg, point) for part in found.species for point in part.points]
    assert len(rows) == len(points) == len(SPECIES) * 6
    for row, (pdg, point) in zip(rows, points, strict=True):
        cells = dict(zip(COLUMNS, row, strict=True))
        assert (int(cells["pdg"]), cells["criterion"]) == (pdg, point.criterion)
        expected = [point.requested, point.threshold, point.f1]
        expected += [getattr(estimate, end) for estimate in (point.purity, point.efficiency) for end in ("low", "high")]
        names = ["requested", "threshold", "f1", "purity_low", "purity_high", "efficiency_low", "efficiency_high"]
        assert [float(cells[name]) if cells[name] else None for name in names] == expected


def test_models_in_one_call_have_the_points_of_calls_of_their_own(tmp_path, files):
    dataset, scores = files
    other = write_scores(tmp_path / "other.parquet", dataset, width=0.3)
    together = compute_working_points(
        dataset,
        {"fse": scores, "bayes": other},
        {"fse": tmp_path / "a.csv", "bayes": tmp_path / "b.csv"},
        {"fse": tmp_path / "a.json", "bayes": tmp_path / "b.json"},
        run=1,
        sample="simulation",
        species=SPECIES,
        purities=PURITIES,
        efficiencies=EFFICIENCIES,
        certainties=CERTAINTIES,
        confidence=0.68,
    )
    assert together["fse"] == compute(tmp_path, dataset, scores)
    assert together["bayes"].species == compute(tmp_path, dataset, other).species
    assert read_working_points(tmp_path / "b.json") == together["bayes"]


def test_file_that_does_not_fit_the_schema_is_named(tmp_path, files):
    compute(tmp_path, *files)
    content = json.loads((tmp_path / "points.json").read_text())
    (tmp_path / "bad.json").write_text(json.dumps({**content, "colour": 1}))
    with pytest.raises(PidflowError, match=r"bad\.json: key 'colour'"):
        read_working_points(tmp_path / "bad.json")


@pytest.mark.parametrize(
    ("split", "truth", "message"),
    [
        ("test", SPECIES, r"dataset\.parquet holds no track of split 'validation'"),
        (None, (), r"dataset\.parquet: column 'pdg_code' is null on every validation track"),
    ],
)
def test_unusable_inputs_are_named(tmp_path, split, truth, message):
    dataset = write_dataset(tmp_path / "dataset.parquet", n_tracks=200, truth=truth, split=split)
    scores = write_scores(tmp_path / "scores.parquet", dataset)
    with pytest.raises(PidflowError, match=message):
        compute(tmp_path, dataset, scores)
    assert not (tmp_path / "points.csv").exists()
