"""Maps of efficiency, purity and misidentification: counts in the plain way, and three files that agree."""

import csv
import importlib.util
import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uproot
from test_evaluate_sample import SPECIES, write_dataset, write_scores

from pidflow.errors import PidflowError
from pidflow.evaluate.intervals import rate
from pidflow.evaluate.maps import PATTERNS, SCHEMA, Map, write_maps
from pidflow.physics import object_key

PT_EDGES, ETA_EDGES = (0.1, 0.5, 0.8, 1.5, 20.0), (-0.8, -0.2, 0.3, 0.8)
THRESHOLDS = {pdg: 0.5 if abs(pdg) == 211 else 0.3 for pdg in SPECIES}
CLASSES = (*SPECIES, None)


def write(folder: Path, dataset: Path, scores: Path, name: str = "maps", **changes) -> list[Map]:
    settings = {"thresholds": THRESHOLDS, "pt_edges": PT_EDGES, "eta_edges": ETA_EDGES, "confidence": 0.68}
    outputs = [folder / f"{name}.{end}" for end in ("parquet", "csv", "root")]
    return write_maps(dataset, scores, *outputs, **{**settings, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A dataset with η, some of it absent, its scores and its maps."""
    folder = tmp_path_factory.mktemp("maps")
    dataset = write_dataset(folder / "dataset.parquet", n_tracks=6000)
    table = pq.read_table(dataset)
    rng = np.random.default_rng(8)
    eta = pa.array(rng.uniform(-1.0, 1.0, table.num_rows).astype(np.float32), mask=rng.random(table.num_rows) < 0.03)
    pq.write_table(table.set_column(table.column_names.index("eta"), "eta", eta), dataset)
    write(folder, dataset, write_scores(folder / "scores.parquet", dataset, hidden=0.1, width=0.2))
    return folder


@pytest.fixture(scope="module")
def rows(folder) -> list[dict]:
    return pq.read_table(folder / "maps.parquet").to_pylist()


def name_of(pdg: int | None) -> str:
    return "other" if pdg is None else object_key(pdg)


def by_map(rows: list[dict]) -> dict[tuple, list[dict]]:
    found: dict[tuple, list[dict]] = {}
    for row in rows:
        key = tuple(row[name] for name in ("quantity", "selected_as", "true_class", "pattern"))
        found.setdefault(key, []).append(row)
    return found


def histogram_name(quantity: str, selected_as: int, true_class: int | None, pattern: str) -> str:
    own = object_key(selected_as)
    subject = f"{name_of(true_class)}_as_{own}" if quantity == "misidentification" else own
    return f"{quantity}_{subject}_{pattern.replace('+', '_')}"


def test_table_is_complete_and_counts_as_a_plain_count_does(folder, rows):
    tracks, scores = (pq.read_table(folder / f"{name}.parquet").to_pandas() for name in ("dataset", "scores"))
    test = (tracks["split"] == "test").to_numpy()
    tracks, scores = tracks[test], scores[test]
    assert len(rows) == len(SPECIES) * (1 + len(CLASSES)) * len(PATTERNS) * 4 * 3
    assert len({tuple(list(row.values())[:8]) for row in rows}) == len(rows)
    pattern = np.array(PATTERNS)[(tracks["has_trd"].astype(int) + 2 * tracks["has_tof"].astype(int)).to_numpy()]
    true = {pdg: (tracks["pdg_code"] == pdg).to_numpy() for pdg in SPECIES}
    true[None] = ~np.any(list(true.values()), axis=0)
    selected = {pdg: (scores[f"certainty_{object_key(pdg)}"] >= THRESHOLDS[pdg]).to_numpy() for pdg in SPECIES}
    pt, eta = tracks["pt"].to_numpy(), tracks["eta"].to_numpy()
    for row in rows:
        inside = (pt >= row["pt_low"]) & (pt < row["pt_high"]) & (eta >= row["eta_low"]) & (eta < row["eta_high"])
        inside &= (pattern == row["pattern"]) | (row["pattern"] == "all")
        of_class = true[row["true_class"]]
        total = selected[row["selected_as"]] if row["quantity"] == "purity" else of_class
        assert row["n_total"] == (inside & total).sum()
        assert row["n_passed"] == (inside & of_class & selected[row["selected_as"]]).sum()
        own = row["true_class"] == row["selected_as"]
        assert own == (row["quantity"] != "misidentification")
    assert sum(row["n_passed"] for row in rows if row["quantity"] == "misidentification") > 100


def test_values_have_the_interval_of_their_counts_and_are_null_without_tracks(rows):
    empty = 0
    for row in rows:
        expected = rate(row["n_passed"], row["n_total"], 0.68)
        assert row["value"] == expected.value
        if expected.value is None:
            empty += 1
            assert row["low"] is row["high"] is row["error"] is None
        else:
            assert (row["low"], row["high"]) == pytest.approx((expected.low, expected.high), rel=1e-12)
            assert row["error"] == pytest.approx((expected.high - expected.low) / 2, rel=1e-12)
    assert 0 < empty < len(rows) / 2


def test_pattern_all_is_the_sum_of_the_patterns(rows):
    maps = by_map(rows)
    for (quantity, selected_as, true_class, pattern), bins in maps.items():
        if pattern == "all":
            parts = [maps[quantity, selected_as, true_class, name] for name in PATTERNS[:-1]]
            for name in ("n_passed", "n_total"):
                assert [row[name] for row in bins] == [
                    sum(row[name] for row in same) for same in zip(*parts, strict=True)
                ]


def test_csv_equals_parquet(folder, rows):
    assert pq.read_schema(folder / "maps.parquet").equals(SCHEMA)
    with (folder / "maps.csv").open() as stream:
        read = list(csv.DictReader(stream))
    assert list(read[0]) == SCHEMA.names

    def typed(name: str, cell: str) -> object:
        kind = SCHEMA.field(name).type
        convert = str if pa.types.is_string(kind) else int if pa.types.is_integer(kind) else float
        return convert(cell) if cell else None

    assert [{name: typed(name, cell) for name, cell in row.items()} for row in read] == rows


def test_root_file_equals_parquet(folder, rows):
    maps = by_map(rows)
    with uproot.open(folder / "maps.root") as file:
        names = set(file.keys(cycle=False))
        expected = {histogram_name(*key) for key in maps}
        for (quantity, selected_as, true_class, pattern), bins in maps.items():
            own, true = object_key(selected_as), name_of(true_class)
            safe = pattern.replace("+", "_")
            rates = file[histogram_name(quantity, selected_as, true_class, pattern)]
            passed = file[f"passed_{true}_as_{own}_{safe}"]
            total = file[f"selected_{own}_{safe}" if quantity == "purity" else f"total_{true}_{safe}"]
            expected |= {passed.name, total.name}
            for histogram in (rates, passed, total):
                assert histogram.classname == "TH2D" and len(histogram.member("fSumw2")) == 6 * 5
                assert [histogram.axis(i).member("fTitle") for i in range(2)] == ["p_{T} (GeV/c)", "#eta"]
                assert histogram.axis(0).edges().tolist() == list(PT_EDGES)
                assert histogram.axis(1).edges().tolist() == list(ETA_EDGES)
                assert not histogram.values(flow=True)[0].any() and not histogram.values(flow=True)[:, -1].any()
            assert rates.title.startswith(f"{quantity} of ") and rates.title.endswith(f", {pattern}")
            assert rates.values().ravel().tolist() == [row["value"] or 0.0 for row in bins]
            np.testing.assert_allclose(rates.errors().ravel(), [row["error"] or 0.0 for row in bins], rtol=1e-12)
            assert passed.values().ravel().tolist() == [row["n_passed"] for row in bins]
            assert total.values().ravel().tolist() == total.variances().ravel().tolist()
            assert total.values().ravel().tolist() == [row["n_total"] for row in bins]
    assert names == expected and "efficiency_211_TPC_TOF" in names
    assert all(name.replace("_", "").isalnum() for name in names)


WITH_ROOT = """
import json, sys, ROOT
file = ROOT.TFile.Open(sys.argv[1])
histogram = file.Get("efficiency_211_TPC_TOF")
efficiency = ROOT.TEfficiency(file.Get("passed_211_as_211_TPC_TOF"), file.Get("total_211_TPC_TOF"))
efficiency.SetStatisticOption(ROOT.TEfficiency.kFCP)
efficiency.SetConfidenceLevel(0.68)
cells = [histogram.GetBin(i + 1, j + 1) for i in range(4) for j in range(3)]
value = [efficiency.GetEfficiency(cell) for cell in cells]
json.dump({
    "titles": [histogram.GetXaxis().GetTitle(), histogram.GetYaxis().GetTitle()],
    "content": [histogram.GetBinContent(cell) for cell in cells],
    "error": [histogram.GetBinError(cell) for cell in cells],
    "value": value,
    "low": [own - efficiency.GetEfficiencyErrorLow(cell) for own, cell in zip(value, cells)],
    "high": [own + efficiency.GetEfficiencyErrorUp(cell) for own, cell in zip(value, cells)],
}, open(sys.argv[2], "w"))
"""


@pytest.mark.skipif(importlib.util.find_spec("ROOT") is None, reason="ROOT's Python package is not installed")
def test_root_builds_efficiencies_from_the_counts(folder, rows, tmp_path):
    # in a process of its own: ROOT brings a compiler that others may clash with
    command = [sys.executable, "-c", WITH_ROOT, str(folder / "maps.root"), str(tmp_path / "found.json")]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    found = json.loads((tmp_path / "found.json").read_text())
    bins = by_map(rows)["efficiency", 211, 211, "TPC+TOF"]
    assert found["titles"] == ["p_{T} (GeV/c)", "#eta"]
    assert found["content"] == [row["value"] or 0.0 for row in bins]
    assert found["error"] == pytest.approx([row["error"] or 0.0 for row in bins])
    defined = [i for i, row in enumerate(bins) if row["value"] is not None]
    assert len(defined) > 3
    for name in ("value", "low", "high"):
        assert [found[name][i] for i in defined] == pytest.approx([bins[i][name] for i in defined], abs=1e-9)


def test_files_are_deterministic(folder, tmp_path, monkeypatch):
    # another day, another place
    class Later(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(2040, 5, 6, tzinfo=tz)

    monkeypatch.setattr("datetime.datetime", Later)
    write(tmp_path, folder / "dataset.parquet", folder / "scores.parquet")
    for end in ("parquet", "csv", "root"):
        assert (tmp_path / f"maps.{end}").read_bytes() == (folder / f"maps.{end}").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["maps.csv", "maps.parquet", "maps.root"]


def test_failure_leaves_the_former_file_and_nothing_else(folder, tmp_path, monkeypatch):
    (tmp_path / "maps.root").write_bytes(b"former")
    monkeypatch.setattr(uproot.WritableDirectory, "__setitem__", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write(tmp_path, folder / "dataset.parquet", folder / "scores.parquet")
    assert (tmp_path / "maps.root").read_bytes() == b"former"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("absent", ["pdg_code", "eta"])
def test_sample_without_truth_or_eta_is_named(folder, tmp_path, absent):
    table = pq.read_table(folder / "dataset.parquet")
    index = table.column_names.index(absent)
    dataset = tmp_path / "bare.parquet"
    pq.write_table(table.set_column(index, absent, pa.nulls(table.num_rows, table.schema.field(index).type)), dataset)
    with pytest.raises(PidflowError, match=rf"bare\.parquet: column '{absent}' is null"):
        write(tmp_path, dataset, folder / "scores.parquet")
    assert not (tmp_path / "maps.root").exists()
