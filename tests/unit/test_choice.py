"""Choice among adapted models: what is looked at, and what is written."""

import csv
import json
import runpy
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from adapt_samples import dataset, unlabelled, values, with_values
from checkout import ROOT
from choice_sample import EDGES, ROW, SPECIES
from models_sample import content
from snakemake.iocontainers import InputFiles

from pidflow import jobs
from pidflow.adapt.choice.assess import Samples, assess, read_samples
from pidflow.adapt.choice.efficiency import Selected, efficiencies
from pidflow.adapt.choice.sample import look
from pidflow.adapt.choice.scores import macro_auc
from pidflow.adapt.choice.select import Adapted, select_model
from pidflow.adapt.sample import VARIATION, VARIATIONS
from pidflow.config.adapt import AUTOMATIC, UNADAPTED, Choice
from pidflow.config.v0 import V0Cuts
from pidflow.errors import PidflowError
from pidflow.models import load, settings_of
from pidflow.tracks import DETECTOR_PATTERNS, ROW_ID, WEIGHT
from pidflow.train.fit import fit_model

pytestmark = pytest.mark.filterwarnings("ignore:Usage of np.ndarray subset:UserWarning")

FEATURES = ("p", "sign", "tpc_signal", "beta")


# what is looked at


@dataclass
class Production:
    """Datasets of a run as files: simulation, data, two adapted samples, V0 candidates; trees trained on each."""

    folder: Path
    models: dict[str, Path]
    samples: dict[str, Adapted]
    v0s: dict[str, list[Path]]
    probes: dict[str, str | Path]

    @property
    def trained_on(self) -> dict[str, str]:
        return {UNADAPTED: "simulation", "half": "half", "right": "right", "ruined": "simulation"}

    @property
    def simulation(self) -> Path:
        return self.folder / "simulation.parquet"

    @property
    def data(self) -> Path:
        return self.folder / "data.parquet"

    def known(self, *, v0s: bool = True, samples: Mapping[str, Path] | None = None) -> Samples:
        adapted = {name: sample.dataset for name, sample in self.samples.items()} if samples is None else samples
        of_samples = {name: sample.probes for name, sample in self.samples.items() if sample.probes}
        return read_samples(
            self.simulation, self.data, adapted, features=FEATURES, species=SPECIES, v0s=self.v0s if v0s else None,
            probes={**self.probes, **of_samples}, cuts=V0Cuts(), threshold=0.5, pt_edges=EDGES, seed=1,
        )  # fmt: skip

    def select(self, target: Path, *, v0s: bool = True, method: str = AUTOMATIC, **changes: Any) -> Path:
        target.mkdir()
        settings = {
            "models": self.models, "simulation": self.simulation, "data": self.data, "samples": self.samples,
            "folder": target / "model", "choice": target / "choice.json", "efficiency": target / "efficiency.csv",
            "method": method, "trained_on": self.trained_on, "settings": Choice(), "v0s": self.v0s if v0s else None,
            "probes": self.probes if v0s else {}, "cuts": V0Cuts(), "pt_edges": EDGES, "threshold": 0.5,
            "bootstrap": 20, "confidence": 0.68, "seed": 1, "threads": 1,
        }  # fmt: skip
        select_model(**{**settings, **changes})
        return target


def v0s_of(table: pa.Table, pdg: Any, path: Path) -> Path:
    """Write V0 candidates to which each fifth pion and proton belongs."""
    rows = np.flatnonzero(np.isin(pdg, (211, -211, 2212)) & (np.arange(len(pdg)) % 5 == 0))
    own = table.take(rows).select(list(ROW_ID))
    kinds = np.where(np.abs(pdg[rows]) == 211, "k0s", "lambda")
    region = np.where(np.arange(len(rows)) % 7 == 0, "sideband", "signal")
    for name, column in {"kind": kinds, "region": region, "leg_pdg_code": pdg[rows].astype(np.int32)}.items():
        own = own.append_column(name, pa.array(column))
    path.parent.mkdir()
    pq.write_table(own, path)
    return path


def grown(trees: int) -> dict[str, Any]:
    return settings_of("gbdt").model_validate({"trees": trees, "leaves": 8}).model_dump(mode="json")


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory) -> Production:
    """The data is what `dataset` calls shifted, and so is the sample of 'right'; that of 'half' is on the way there."""
    folder = tmp_path_factory.mktemp("production")
    plain, moved = dataset(9000, seed=1), dataset(9000, seed=1, shifted=True)
    data = dataset(9000, seed=2, shifted=True)
    tpc = [values(table, "tpc_signal") for table in (plain, moved)]
    half = with_values(plain, tpc_signal=0.5 * (tpc[0] + tpc[1]))
    weight = np.random.default_rng(3).uniform(0.8, 1.2, 9000)
    right = moved.append_column(WEIGHT.name, pa.array(weight, WEIGHT.dtype))
    truth = np.array(data["pdg_code"].to_pylist())
    tables = {"simulation": plain, "data": unlabelled(data), "half": half, "right": right}
    for name, table in tables.items():
        pq.write_table(table, folder / f"{name}.parquet")
    # errors of the step that made 'right'; the other one knows none
    varied = []
    for number in range(VARIATIONS):
        table = right.filter(pa.array(np.array(right["split"].to_pylist()) == "test"))
        signal = values(table, "tpc_signal") * (1.0 + 0.01 * (number - 4.5))
        varied.append(
            with_values(table, tpc_signal=signal).append_column(VARIATION, pa.array([number] * len(table), pa.int8()))
        )
    pq.write_table(pa.concat_tables(varied), folder / "right.variations.parquet")
    nothing = half.slice(0, 0).append_column(VARIATION, pa.array([], pa.int8()))
    pq.write_table(nothing, folder / "half.variations.parquet")
    v0s = {
        "simulation": [v0s_of(plain, np.array(plain["pdg_code"].to_pylist()), folder / "one/a.v0s.parquet")],
        "data": [v0s_of(data, truth, folder / "other/a.v0s.parquet")],
    }
    features = folder / "features.json"
    features.write_text(json.dumps({"features": list(FEATURES)}))
    models = {}
    ruined = with_values(right, tpc_signal=np.random.default_rng(0).permutation(values(right, "tpc_signal")))
    pq.write_table(ruined, folder / "ruined.parquet")
    for name, sample in {UNADAPTED: "simulation", "half": "half", "right": "right", "ruined": "ruined"}.items():
        models[name] = folder / f"gbdt_{name}"
        fit_model(
            folder / f"{sample}.parquet", features, folder / "response.json", models[name], run=7, species=SPECIES,
            masks={"tof": 0.5, "trd": 0.8}, seed=1, threads=1,
            settings=grown(10 if name == "half" else 25),
        )  # fmt: skip
    # leftovers of training are not published
    (models["right"] / ".snakemake_timestamp").write_text("")
    samples = {
        name: Adapted(folder / f"{name}.parquet", folder / f"{name}.variations.parquet", folder / f"{name}.parquet")
        for name in ("half", "right")
    }
    probes: dict[str, str | Path] = {name: folder / f"{name}.parquet" for name in ("simulation", "data")}
    return Production(folder, models, samples, v0s, probes)


def test_tracks_of_a_set(production: Production) -> None:
    for name in ("simulation", "right"):
        table = pq.read_table(production.folder / f"{name}.parquet")
        table = table.filter(pa.array(np.array(table["split"].to_pylist()) == "validation")).slice(0, 300)
        found = look(production.folder / f"{name}.parquet", "validation", FEATURES, SPECIES, 300)
        assert len(found) == 300 and found.labels is not None
        for place, column in enumerate(FEATURES):
            np.testing.assert_array_equal(found.features[:, place], values(table, column).astype(np.float32))
        pdg = np.array(table["pdg_code"].to_pylist())
        np.testing.assert_array_equal(found.labels, pdg[:, None] == np.array(SPECIES))
        weight = values(table, WEIGHT.name) if name == "right" else np.ones(300)
        np.testing.assert_allclose(found.weights, weight / weight.mean())
        np.testing.assert_array_equal(found.number("pt"), values(table, "pt"))
        np.testing.assert_array_equal(found.collision, table["collision_id"].to_numpy())
        seen = [table[flag].to_numpy(zero_copy_only=False) for flag in ("has_trd", "has_tof")]
        names = ["TPC" + "+TRD" * bool(trd) + "+TOF" * bool(tof) for trd, tof in zip(*seen, strict=True)]
        assert [DETECTOR_PATTERNS[number] for number in found.pattern] == names
    assert look(production.data, "validation", FEATURES, None, 300).labels is None


def test_set_without_tracks_is_refused(production: Production) -> None:
    with pytest.raises(PidflowError, match=r"data\.parquet: no elsewhere track to choose an adaptation with"):
        look(production.data, "elsewhere", FEATURES, None, 300)


def test_yardstick_is_the_sample_that_is_hardest_to_tell_from_data(production: Production) -> None:
    known = production.known()
    areas = {name: ratio.discriminator_auc for name, ratio in known.ratio.items()}
    assert set(areas) == {"simulation", "half", "right"}
    assert known.yardstick == "right" == min(areas, key=lambda name: areas[name])
    assert areas["right"] < areas["half"] < areas["simulation"]
    assert known.target is known.adapted["right"]
    assert known.tagged is not None
    for part, name in zip(known.tagged, ("data", "right"), strict=True):
        table = pq.read_table(production.folder / f"{name}.parquet", columns=list(FEATURES)).take(part.probes.row)
        np.testing.assert_array_equal(part.features[:, 2], values(table, "tpc_signal").astype(np.float32))
    # the plain simulation is one of the samples
    worse = production.known(v0s=False, samples={"bad": production.folder / "ruined.parquet"})
    assert worse.yardstick == "simulation" and worse.target is worse.plain and worse.tagged is None


def test_scores_of_a_model(production: Production) -> None:
    known = production.known()
    model = load(production.models["half"])
    found = assess(model.score, known)
    assert list(found) == [
        "adapted_auc", "adapted_likelihood", "simulation_auc", "importance_weighted", "deep_embedded_validation",
        "soft_neighbourhood", "mixup", "information_maximisation", "species_plausibility", "probe_agreement",
    ]  # fmt: skip
    assert all(np.isfinite(value) for value in found.values())
    right, plain = known.adapted["right"], known.plain
    assert right.labels is not None and plain.labels is not None
    assert found["adapted_auc"] == macro_auc(model.score(right.features), right.labels, right.weights)
    assert found["simulation_auc"] == macro_auc(model.score(plain.features), plain.labels)
    assert found["adapted_auc"] != macro_auc(model.score(right.features), right.labels)
    without = assess(model.score, production.known(v0s=False))
    assert without == {name: value for name, value in found.items() if name != "probe_agreement"}


# end to end


@pytest.fixture(scope="module")
def selected(production: Production) -> Path:
    return production.select(production.folder / "selected")


def choice_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "choice.json").read_text())
    return found


def test_chosen_model_is_copied_whole(production: Production, selected: Path) -> None:
    assert {path.name for path in selected.iterdir()} == {"model", "choice.json", "efficiency.csv"}
    whole = content(production.models["right"])
    assert content(selected / "model") == {name: own for name, own in whole.items() if name[0] != "."}
    assert len(whole) > len(content(selected / "model")) > 3
    features = look(production.data, "test", FEATURES, None, 100).features
    np.testing.assert_array_equal(
        load(selected / "model").score(features), load(production.models["right"]).score(features)
    )


def test_reasons_are_written(production: Production, selected: Path) -> None:
    choice = choice_of(selected)
    assert set(choice) == {"adapted", "reason", "score", "yardstick", "trusted", "domain_auc", "candidates"}
    assert (choice["adapted"], choice["score"], choice["yardstick"]) == ("right", "adapted_auc", "right")
    assert choice["reason"].startswith("its macro AUC is the highest on the simulated sample 'right', which resembles")
    assert set(choice["domain_auc"]) == {"simulation", "half", "right"}
    for found in choice["domain_auc"].values():
        assert set(found) == {"value", "effective_share"}
        assert 0.4 < found["value"] < 1.0 and 0.0 < found["effective_share"] <= 1.0
    assert choice["trusted"] is (choice["domain_auc"]["right"]["value"] <= 0.65)
    assert set(choice["candidates"]) == {"none", "half", "right", "ruined"}
    for name, found in choice["candidates"].items():
        assert set(found) == {"accepted", "reason", "auc", "gain", "simulation_auc_by_pattern", "scores"}
        assert found["accepted"] is (found["reason"] == "") is (name != "ruined")
        assert set(found["simulation_auc_by_pattern"]) == set(DETECTOR_PATTERNS)
        for key in ("auc", "gain"):
            assert set(found[key]) == {"value", "low", "high"}
            assert found[key]["low"] <= found[key]["value"] + 0.01 and found[key]["value"] <= found[key]["high"] + 0.01
        assert found["auc"]["value"] == pytest.approx(found["scores"]["adapted_auc"], rel=1e-12)
        assert "probe_agreement" in found["scores"]
    assert choice["candidates"]["none"]["gain"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert choice["candidates"]["right"]["gain"]["value"] > choice["candidates"]["half"]["gain"]["value"]
    assert "macro AUC on TPC" in choice["candidates"]["ruined"]["reason"]


def test_efficiencies_are_those_of_test_tracks(production: Production, selected: Path) -> None:
    with open(selected / "efficiency.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ROW and len(rows) == len(SPECIES) * len(EDGES)
    target, plain = (
        look(production.folder / f"{n}.parquet", "test", FEATURES, SPECIES, 10**6) for n in ("right", "simulation")
    )
    variations = production.samples["right"].variations
    accepted = {name: load(production.models[name]).score for name in ("none", "half", "right")}
    expected = efficiencies(Selected(target, plain, variations, FEATURES, SPECIES, 0.5, EDGES), accepted, "right")
    assert rows == [{name: str(value) for name, value in row.items()} for row in expected]
    assert any(float(row["response"]) > 0.005 for row in rows)


def test_same_bytes_twice(production: Production, selected: Path, tmp_path: Path) -> None:
    assert content(production.select(tmp_path / "again")) == content(selected)


def test_without_v0_candidates(production: Production, selected: Path, tmp_path: Path) -> None:
    samples = {name: Adapted(own.dataset, own.variations, None) for name, own in production.samples.items()}
    found, before = choice_of(production.select(tmp_path / "m", v0s=False, samples=samples)), choice_of(selected)
    for candidate in before["candidates"].values():
        del candidate["scores"]["probe_agreement"]
    assert found == before
    assert content(tmp_path / "m")["efficiency.csv"] == content(selected)["efficiency.csv"]


def test_named_method_and_yardstick_without_errors(
    production: Production, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sample of 'half' has neither weights nor variations, and is the only one."""
    samples = {"half": production.samples["half"]}
    models = {name: production.models[name] for name in (UNADAPTED, "ruined")}
    target = production.select(
        tmp_path / "m", method="ruined", samples=samples, models=models, settings=Choice(best_domain_auc=0.5)
    )
    choice = choice_of(target)
    assert (choice["adapted"], choice["reason"]) == ("ruined", "the configuration names it")
    assert (choice["yardstick"], choice["trusted"]) == ("half", False)
    assert choice["candidates"]["ruined"]["accepted"] is False
    shown = capsys.readouterr().out
    best = choice["domain_auc"]["half"]["value"]
    assert f"warning: a classifier tells data from every simulated sample (AUC {best:.3f} at best, limit 0.5)" in shown
    assert "run 7: ruined is chosen; the configuration names it" in shown
    rows = list(csv.DictReader((target / "efficiency.csv").read_text().splitlines()))
    assert all(float(row["response"]) == 0.0 and row["systematic"] == row["methods"] for row in rows)
    # the named one counts, although it is rejected
    assert any(float(row["methods"]) > 0.01 for row in rows)


def test_no_warning_if_trusted(production: Production, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = {UNADAPTED: production.models[UNADAPTED]}
    choice = choice_of(production.select(tmp_path / "m", models=models, settings=Choice(best_domain_auc=0.7)))
    assert choice["trusted"] is True
    assert choice["adapted"] == UNADAPTED
    assert "warning" not in capsys.readouterr().out


def test_too_few_test_tracks_are_refused(production: Production, tmp_path: Path) -> None:
    table = pq.read_table(production.simulation)
    split = np.array(table["split"].to_pylist())
    few = np.flatnonzero((split != "test") | (np.cumsum(split == "test") <= 4))
    pq.write_table(table.take(few), tmp_path / "simulation.parquet")
    models = {UNADAPTED: production.models[UNADAPTED]}
    with pytest.raises(PidflowError, match=r"simulation\.parquet: too few test tracks of every species"):
        production.select(
            tmp_path / "m", models=models, samples={}, simulation=tmp_path / "simulation.parquet", v0s=False
        )


@pytest.mark.parametrize("v0s", [True, False])
def test_script_gives_each_sample_its_own_files(
    production: Production, selected: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, v0s: bool
) -> None:
    """Run the rule's script with what Snakemake gives it; the rule names unadapted model, then candidates."""
    monkeypatch.setattr(jobs, "job", lambda snakemake: nullcontext())
    given: dict[str, Any] = {
        "models": [str(path) for path in production.models.values()],
        "samples": [str(sample.dataset) for sample in production.samples.values()],
        "variations": [str(sample.variations) for sample in production.samples.values()],
        "simulation": str(production.simulation),
        "data": str(production.data),
    }
    if v0s:
        given |= {f"v0s_{name}": [str(paths[0].parent)] for name, paths in production.v0s.items()}
        given |= {f"probes_{name}": str(path) for name, path in production.probes.items()}
        given |= {"adapted_probes": [str(sample.probes) for sample in production.samples.values()]}
    params = {
        "candidates": list(production.models)[1:], "samples": list(production.samples), "method": AUTOMATIC,
        "trained_on": production.trained_on,
        "choice": Choice().model_dump(mode="json"), "v0": V0Cuts().model_dump(mode="json") if v0s else None,
        "pt_edges": EDGES, "threshold": 0.5, "bootstrap": 20, "confidence": 0.68, "seed": 1,
    }  # fmt: skip
    output = {name: str(tmp_path / name) for name in ("model", "choice.json", "efficiency.csv")}
    job = SimpleNamespace(
        input=InputFiles(fromdict=given),
        output=SimpleNamespace(**{name.split(".")[0]: place for name, place in output.items()}),
        params=SimpleNamespace(**params),
        threads=1,
    )
    runpy.run_path(str(ROOT / "workflow/scripts/select_model.py"), {"snakemake": job})
    if not v0s:
        production.select(tmp_path / "direct", v0s=False)
    assert content(tmp_path if v0s else tmp_path / "direct") == (
        content(selected) if v0s else {name: own for name, own in content(tmp_path).items() if "direct" not in name}
    )
