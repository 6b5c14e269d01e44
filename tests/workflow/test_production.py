"""What a finished production holds, and that O2Physics could load it."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import onnx
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from checkout import Checkout

from pidflow.config import load_runs
from pidflow.evaluate.probe_schema import ProbeRates
from pidflow.files import sha256
from pidflow.model import model_digest
from pidflow.models import load
from pidflow.publish.o2 import O2PidModel, O2Tracks
from pidflow.publish.registry import lookup
from pidflow.tracks import DETECTOR_PATTERNS, o2_label

RUNS = (900001, 900002)
CANDIDATES = ("fse_calibrated", "fse_dann", "fse_self_trained")
REGISTRY_PATH = "Users/p/pidflow/PIDML"
OBJECTS = {f"attention_model_{key}" for key in ("211", "321", "2212", "0211", "0321", "02212")}


def test_each_run_has_its_eight_objects_in_its_validity(production: Checkout) -> None:
    runs = load_runs(production.folder / "config/runs.tsv", "resources/example")
    for run in RUNS:
        entry = lookup(production.folder / "registry", REGISTRY_PATH, runs[run].valid_from)
        assert entry is not None
        assert entry.metadata["run"] == str(run)
        assert set(entry.objects) == OBJECTS | {"columns_for_training", "scaling_params"}
        assert {"card.md", "provenance.json", "gate.json", "SHA256SUMS"} <= set(entry.documents)
        after = lookup(production.folder / "registry", REGISTRY_PATH, runs[run].valid_until)
        assert after is None or after.metadata["run"] != str(run)


@pytest.mark.parametrize("run", RUNS)
def test_the_loader_reproduces_the_network_for_every_pattern(production: Checkout, run: int, tmp_path: Path) -> None:
    """The emulator of O2Physics' loader against torch, on test tracks as the framework holds them."""
    model = production.folder / f"results/{run}/train/fse_adapted"
    network = load(model)
    info = network.info
    table = pq.read_table(production.folder / f"results/{run}/dataset/simulation.parquet")
    index = pc.add(table["has_trd"].cast("int8"), pc.multiply(table["has_tof"].cast("int8"), 2)).to_numpy()
    valid_from = load_runs(production.folder / "config/runs.tsv", "resources/example")[run].valid_from
    loaded = {
        pdg: O2PidModel.from_registry(production.folder / "registry", REGISTRY_PATH, valid_from, tmp_path, pdg)
        for pdg in info.species
    }
    worst = 0.0
    for number, pattern in enumerate(DETECTOR_PATTERNS):
        rows = np.flatnonzero(index == number)[:40]
        assert len(rows) >= 10, f"the example has hardly any {pattern} tracks"
        part = table.take(rows)
        raw = np.stack([part[name].cast("float32").to_numpy() for name in info.features], axis=1)
        expected = network.score(raw)
        # the framework holds sentinels, not nulls, and hides detectors itself
        held = {o2_label(name): np.nan_to_num(raw[:, n], nan=-999.0) for n, name in enumerate(info.features)}
        tracks = O2Tracks(held, part["p"].to_numpy(), part["has_trd"].to_numpy(), part["has_tof"].to_numpy())
        for column, pdg in enumerate(info.species):
            for answer in (loaded[pdg].apply(tracks), loaded[pdg].apply_batch(tracks)):
                worst = max(worst, float(np.abs(np.ravel(answer) - expected[:, column]).max()))
    assert all(model.failures == 0 for model in loaded.values())
    assert worst <= 1e-5
    print(f"run {run}: worst difference to torch {worst:.2g}")


def test_checksums_and_provenance_name_the_inputs(production: Checkout) -> None:
    for run in RUNS:
        folder = production.folder / f"results/{run}/publication"
        lines = (folder / "SHA256SUMS").read_text().splitlines()
        sums = {name: digest for digest, name in (line.split("  ") for line in lines)}
        assert {Path(name).stem for name in sums} > OBJECTS
        assert all(sha256(folder / name) == digest for name, digest in sums.items())
        provenance = json.loads((folder / "provenance.json").read_text())
        metadata = onnx.load(folder / "attention_model_211.onnx").metadata_props
        assert provenance["model"] == {item.key: item.value for item in metadata}["model"]
        assert [item["sample"] for item in provenance["inputs"]] == ["data"] * 2 + ["simulation"] * 2
        for entry in provenance["inputs"]:
            assert sha256(production.folder / entry["name"]) == entry["sha256"]


def test_table_of_methods_has_every_method_with_intervals(production: Checkout) -> None:
    with open(production.folder / "results/compare.csv", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["tracks"] == "all"]
    methods = {"nsigma", "bayes", "gbdt", "mlp_mean", "fse", "blend", "fse_adapted", *CANDIDATES}
    for run in RUNS:
        of_run = [row for row in rows if row["run"] == str(run)]
        assert {row["method"] for row in of_run if row["sample"] == "simulation"} == methods | {"ceiling"}
        assert {row["method"] for row in of_run if row["sample"] == "closure"} == methods | {"oracle"}
    for row in rows:
        value, low, high = (float(row[name]) for name in ("macro_f1", "macro_f1_low", "macro_f1_high"))
        # a percentile interval of few resamplings need not hold the value, but lies close to it
        assert 0 < low < high < 1
        assert abs(value - (low + high) / 2) < high - low


def test_network_identifies(production: Checkout) -> None:
    """Even the small production's network ranks far better than the nσ cut."""
    for run in RUNS:
        folder = production.folder / f"results/{run}/evaluate/metrics"
        auc = {
            model: json.loads((folder / f"{model}_simulation.json").read_text())["macro"]["auc"]["value"]
            for model in ("fse", "fse_adapted", *CANDIDATES, "nsigma")
        }
        assert auc["fse"] > auc["nsigma"] + 0.1
        assert all(auc[model] > auc["nsigma"] + 0.1 for model in ("fse_adapted", *CANDIDATES))


@pytest.mark.parametrize("run", RUNS)
def test_the_adapted_model_is_the_candidate_of_the_choice(production: Checkout, run: int) -> None:
    folder = production.folder / f"results/{run}"
    chosen = json.loads((folder / "adapt/choice.json").read_text())["adapted"]
    name = "fse" if chosen == "none" else f"fse_{chosen}"
    assert name in ("fse", *CANDIDATES)
    assert model_digest(folder / "train/fse_adapted") == model_digest(folder / f"train/{name}")
    kinds = {"fse": [], "fse_dann": ["dann"], "fse_calibrated": ["calibrate_response"]}
    kinds["fse_self_trained"] = ["calibrate_response", "self_training"]
    for model, steps in kinds.items():
        assert [step["kind"] for step in load(folder / f"train/{model}").info.adaptation] == steps
    assert [step["kind"] for step in load(folder / "train/fse_adapted").info.adaptation] == kinds[name]


@pytest.mark.parametrize("run", RUNS)
def test_an_adapted_sample_has_the_rows_and_labels_of_the_plain_one(production: Checkout, run: int) -> None:
    folder = production.folder / f"results/{run}"
    assert sorted(path.name for path in (folder / "adapt").iterdir() if path.is_dir()) == ["calibrated"]
    for plain, adapted in (
        ("dataset/simulation.parquet", "simulation.parquet"),
        ("dataset/simulation.probes.parquet", "probes.parquet"),
    ):
        before, after = pq.read_table(folder / plain), pq.read_table(folder / "adapt/calibrated" / adapted)
        assert [name for name in after.column_names if name != "weight"] == before.column_names
        for name in ("source", "data_frame", "row", "collision_id", "pdg_code", "p", "pt", "eta", "sign", "split"):
            assert after[name].equals(before[name]), name
        assert not after["tpc_signal"].equals(before["tpc_signal"])
    for sample in ("simulation", "data"):
        probes = pq.read_table(folder / f"dataset/{sample}.probes.parquet")
        assert probes.num_rows > 0 and set(probes["run"].to_pylist()) == {run}
        assert (probes["pdg_code"].null_count == probes.num_rows) == (sample == "data")


@pytest.mark.parametrize("run", RUNS)
def test_rates_of_probes_are_a_table_too(production: Checkout, run: int) -> None:
    found = json.loads((production.folder / f"results/{run}/adapt/probes.json").read_text())
    assert len(found) == 4
    for label, part in found.items():
        rates = ProbeRates.model_validate(part)
        assert (rates.run, rates.sample) == (run, label.split(",")[0])
        assert sum(one.n_probes for own in rates.probes for one in own.pt) > 100


def test_report_is_one_self_contained_file_with_both_runs(production: Checkout) -> None:
    text = (production.folder / "results/report.html").read_text()
    assert all(f"Run {run}" in text for run in RUNS)
    for category in ("Detectors and features", "Training", "Adaptation to data", "Performance on closure", "All runs"):
        assert category in text
    assert not re.search(r"<(?:script|link|img)[^>]+(?:src|href)=[\"']https?://", text)


def test_pseudo_data_carries_no_truth_before_closure(production: Checkout) -> None:
    for run in RUNS:
        data = pq.read_table(production.folder / f"results/{run}/dataset/data.parquet", columns=["pdg_code"])
        closure = pq.read_table(production.folder / f"results/{run}/closure/tracks.parquet", columns=["pdg_code"])
        assert data["pdg_code"].null_count == data.num_rows == closure.num_rows
        assert closure["pdg_code"].null_count < 0.05 * closure.num_rows


def test_truth_reaches_closure_alone(production: Checkout) -> None:
    """Read the inputs of every output: the truth files feed one rule, its table only closure rules."""
    done = production.snakemake("--detailed-summary")
    header, *lines = [line.split("\t") for line in done.stdout.splitlines() if line.count("\t") >= 6]
    rows = [dict(zip(header, line, strict=False)) for line in lines]
    consumers: dict[str, set[str]] = {"truth": set(), "closure": set()}
    for row in rows:
        inputs = row["input-file(s)"].split(",")
        if any(name.endswith(".truth.parquet") for name in inputs):
            consumers["truth"].add(row["rule"])
        if any(name.endswith("closure/tracks.parquet") for name in inputs):
            consumers["closure"].add(row["rule"])
        if any("/closure/oracle" in name for name in inputs):
            assert row["rule"] == "score_oracle"
            assert "oracle" in row["output_file"]
    assert consumers["truth"] == {"attach_truth"}
    assert consumers["closure"] == {"train_oracle", "compute_closure", "plot_closure"}
    of_models = {"train_model", "adapt_sample", "train_adapted", "adapt_model", "select_model", "plot_adaptation"}
    published = [row for row in rows if row["rule"] in {*of_models, "export_model", "publish_model"}]
    assert {row["rule"] for row in published} == {*of_models, "export_model", "publish_model"}
    assert not any("closure" in row["input-file(s)"] or "truth" in row["input-file(s)"] for row in published)
