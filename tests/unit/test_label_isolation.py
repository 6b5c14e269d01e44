"""Label isolation: truth that lies with the data changes nothing, and no rule but those of closure has it as input."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from adapt_samples import dataset, unlabelled, values, with_values
from checkout import ROOT, copy_repository
from models_sample import fse, library_state  # noqa: F401
from test_choice import v0s_of
from tracks_sample import CHARGED, TOF, TPC

from pidflow.adapt import network
from pidflow.adapt.choice.select import Adapted, select_model
from pidflow.adapt.network import adapt_network
from pidflow.adapt.sample import adapt_sample
from pidflow.adapt.steps import kinds, step_of
from pidflow.adapt.steps.base import SampleStep, Surroundings, TrainingStep
from pidflow.config.adapt import AUTOMATIC, UNADAPTED, Choice
from pidflow.config.v0 import V0Cuts
from pidflow.files import write_json
from pidflow.models import settings_of as model_settings
from pidflow.tracks import BY_NAME
from pidflow.train.data import read_features
from pidflow.train.fit import fit_model

pytestmark = pytest.mark.usefixtures("library_state")

SPECIES = (211, 321, 2212)
FEATURES = ("p", "sign", "tpc_signal", "beta")
MASKS = {"tof": 0.5, "trd": 0.8}
TRUTH = ("pdg_code", "is_physical_primary", "mother_pdg_code")
EDGES = (0.2, 0.6, 1.5, 4.0)
TRACKS, PROBES = 3000, 1000

SAMPLES: dict[str, dict[str, Any]] = {
    "calibrated": {"kind": "calibrate_response", "p_bins": 4, "eta_bins": 2},
    "reweighted": {"kind": "reweight", "trees": 20, "folds": 2, "leaves": 5},
    "tuned": {"kind": "tune_on_data", "p_bins": 4},
    "morphed": {"kind": "quantile_morph", "p_bins": 4, "eta_bins": 1},
    "calibrated_reweighted": {"kind": "reweight", "trees": 20, "folds": 2, "leaves": 5},
}
BEFORE = {"calibrated_reweighted": "calibrated"}
"""Samples that are made of another one than the plain one."""

TRAINED: dict[str, dict[str, Any]] = {
    kind: {"kind": kind, "epochs": 1, **own}
    for kind, own in {
        "dann": {"hidden": 8}, "cdan": {"hidden": 8}, "mmd": {}, "deep_coral": {}, "mcc": {},
        "self_training": {"epochs": 2, "tolerance": 0.0}, "decorrelate": {"bins": 4, "species": SPECIES},
    }.items()
}  # fmt: skip


def test_every_step_is_looked_at() -> None:
    here = {settings["kind"] for settings in (*SAMPLES.values(), *TRAINED.values())}
    assert here == set(kinds())
    assert {name for name, column in BY_NAME.items() if column.detector == "truth"} == set(TRUTH)
    for group, base in ((SAMPLES, SampleStep), (TRAINED, TrainingStep)):
        assert all(issubclass(step_of(settings["kind"]), base) for settings in group.values())


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def with_truth(table: pa.Table) -> pa.Table:
    """Return data with all truth columns filled: what it is, and two that say the same in other words."""
    pdg = np.array(table["pdg_code"].to_pylist())
    found = with_values(table, is_physical_primary=np.abs(pdg) == 211, mother_pdg_code=pdg * 10)
    assert not any(found[name].null_count for name in TRUTH)
    return found


class Chain:
    """All that the rules of adaptation do for a run, on small samples."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        tables = {
            "simulation": dataset(TRACKS, seed=1),
            "simulation.probes": dataset(PROBES, seed=2),
            "data": dataset(TRACKS, seed=3, shifted=True),
            "data.probes": dataset(PROBES, seed=4, shifted=True),
        }
        self.v0s = {}
        for name, table in tables.items():
            if name.endswith("probes"):
                sample = name.partition(".")[0]
                pdg = np.array(table["pdg_code"].to_pylist())
                self.v0s[sample] = [v0s_of(table, pdg, folder / f"v0s_{sample}/a.v0s.parquet")]
            if name.startswith("simulation"):
                pq.write_table(table, folder / f"{name}.parquet")
        self.data = {name: with_truth(tables[name]) for name in ("data", "data.probes")}
        write_json(folder / "features.json", {"features": list(FEATURES)})
        names = ("mip", "bethe_bloch", "resolution", "resolution_exponent")
        response = {
            "tpc": {name: getattr(TPC, name) for name in names},
            "tof": {"resolution": TOF.resolution, "momentum_term": TOF.momentum_term},
        }
        write_json(folder / "response.json", response)
        self.train(folder / "simulation.parquet", folder / "none")

    def train(self, sample: Path, model: Path) -> Path:
        settings = model_settings("fse").model_validate(fse(epochs=10, patience=10)).model_dump(mode="json")
        fit_model(
            sample, self.folder / "features.json", self.folder / "response.json", model, run=7, species=SPECIES,
            masks=MASKS, seed=1, settings=settings, threads=1,
        )  # fmt: skip
        return model

    def write_data(self, folder: Path, change: Callable[[pa.Table], pa.Table]) -> None:
        folder.mkdir()
        for name, table in self.data.items():
            pq.write_table(change(table), folder / f"{name}.parquet")

    def adapt_sample(self, data: Path, output: Path, name: str) -> Adapted:
        before = BEFORE.get(name)
        source = output / before if before else self.folder
        target = output / name
        target.mkdir(parents=True)
        probes = source / ("probes.parquet" if before else "simulation.probes.parquet")
        adapt_sample(
            source / "simulation.parquet", data / "data.parquet", target / "simulation.parquet", target / "report.json",
            target / "variations.parquet", settings=SAMPLES[name],
            surroundings=Surroundings(7, CHARGED, MASKS, self.folder / "response.json", 3),
            probes={str(probes): str(target / "probes.parquet")},
        )  # fmt: skip
        return Adapted(target / "simulation.parquet", target / "variations.parquet", target / "probes.parquet")

    def adapt_network(self, data: Path, output: Path, model: Path, sample: Path, kind: str) -> Path:
        target = output / f"fse_{kind}"
        adapt_network(
            model, sample, data / "data.parquet", target, settings=TRAINED[kind], accelerator="cpu", threads=1
        )
        return target

    def select(
        self, data: Path, output: Path, models: Mapping[str, Path], samples: Mapping[str, Adapted], **settings: float
    ) -> None:
        select_model(
            models, self.folder / "simulation.parquet", data / "data.parquet", samples, output / "fse_adapted",
            output / "choice.json", output / "efficiency.csv", method=AUTOMATIC,
            trained_on={name: "simulation" if name == UNADAPTED else "calibrated" for name in models},
            settings=Choice(**settings), v0s=self.v0s,
            probes={"simulation": self.folder / "simulation.probes.parquet", "data": data / "data.probes.parquet"},
            cuts=V0Cuts(), pt_edges=EDGES, threshold=0.5, bootstrap=20, confidence=0.68, seed=1, threads=1,
        )  # fmt: skip

    def run(self, data: Path, output: Path, samples: tuple[str, ...], trained: tuple[str, ...]) -> dict[str, bytes]:
        """Adapt samples, train on the first one, train further, and choose; return all files."""
        adapted = {name: self.adapt_sample(data, output, name) for name in samples}
        models = {UNADAPTED: self.folder / "none"}
        models[samples[0]] = self.train(adapted[samples[0]].dataset, output / f"fse_{samples[0]}")
        for kind in trained:
            models[kind] = self.adapt_network(data, output, models[samples[0]], adapted[samples[0]].dataset, kind)
        # the best is taken, so that nothing is hidden by the unadapted model
        self.select(data, output, models, adapted, significance=0.0, floor=0.5)
        return content(output)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    torch.set_num_threads(1)
    return Chain(tmp_path_factory.mktemp("chain"))


@pytest.fixture(scope="module")
def without_truth(chain: Chain) -> dict[str, bytes]:
    def hidden(table: pa.Table) -> pa.Table:
        nothing = with_values(unlabelled(table), **{name: [None] * table.num_rows for name in TRUTH[1:]})
        assert all(nothing[name].null_count == table.num_rows for name in TRUTH)
        return nothing

    torch.set_num_threads(1)
    chain.write_data(chain.folder / "hidden", hidden)
    return chain.run(chain.folder / "hidden", chain.folder / "without", tuple(SAMPLES), tuple(TRAINED))


def test_truth_with_the_data_changes_no_file(chain: Chain, without_truth: dict[str, bytes]) -> None:
    """Samples, reports, weights, choice and efficiencies are the same bytes, if data says what its tracks are."""
    chain.write_data(chain.folder / "planted", lambda table: table)
    found = chain.run(chain.folder / "planted", chain.folder / "with", tuple(SAMPLES), tuple(TRAINED))
    expected = {f"{name}/{file}" for name in SAMPLES for file in ("simulation.parquet", "variations.parquet",
                "probes.parquet", "report.json")}  # fmt: skip
    files = ("model.json", "weights.safetensors", "history.parquet")
    expected |= {f"fse_{name}/{file}" for name in ("calibrated", "adapted", *TRAINED) for file in files}
    assert set(found) == expected | {"choice.json", "efficiency.csv"} == set(without_truth)
    assert [name for name in sorted(found) if found[name] != without_truth[name]] == []
    choice = json.loads(found["choice.json"])
    assert set(choice["candidates"]) == {UNADAPTED, "calibrated", *TRAINED}
    # every one of them was trained apart
    assert len({found[f"fse_{name}/weights.safetensors"] for name in ("calibrated", *TRAINED)}) == 1 + len(TRAINED)
    # and learned enough for there to be something to choose
    assert max(own["auc"]["value"] for own in choice["candidates"].values()) > 0.85
    assert len(without_truth["efficiency.csv"].splitlines()) == 1 + len(SPECIES) * len(EDGES)


# controls: the comparison can fail


def test_another_signal_of_data_changes_every_file_that_may_change(
    chain: Chain, without_truth: dict[str, bytes]
) -> None:
    def louder(table: pa.Table) -> pa.Table:
        return with_values(table, tpc_signal=values(table, "tpc_signal") * 1.02)

    samples = ("calibrated", "reweighted", "morphed")
    chain.write_data(chain.folder / "louder", louder)
    found = chain.run(chain.folder / "louder", chain.folder / "other", samples, ("mmd",))
    same = {name for name in found if found[name] == without_truth[name]}
    # neither the model's description nor what steps without errors leave: they hold no result
    allowed = {"fse_calibrated/model.json", "fse_mmd/model.json", "fse_adapted/model.json"}
    allowed |= {f"{name}/variations.parquet" for name in ("reweighted", "morphed")}
    assert same <= allowed
    assert {f"{name}/report.json" for name in samples} <= set(found) - same
    assert {"choice.json", "efficiency.csv", "fse_mmd/weights.safetensors"} <= set(found) - same


def test_a_leak_is_seen(
    chain: Chain, without_truth: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that adds the data's truth to a feature, if there is any."""

    def leaky(path: Path, split: str, features: tuple[str, ...]) -> Any:
        found = read_features(path, split, features).copy()
        found[:, 2] += np.nan_to_num(read_features(path, split, ("pdg_code",))[:, 0]) / 100
        return found

    monkeypatch.setattr(network, "read_features", leaky)
    source, sample = (chain.folder / f"without/{name}" for name in ("fse_calibrated", "calibrated/simulation.parquet"))
    for name, change in {"hidden": unlabelled, "planted": lambda table: table}.items():
        chain.write_data(tmp_path / name, change)
        target = chain.adapt_network(tmp_path / name, tmp_path / f"{name}_model", source, sample, "mmd")
        same = content(target)["weights.safetensors"] == without_truth["fse_mmd/weights.safetensors"]
        assert same == (name == "hidden")


# the rules


CLOSURE = {"attach_truth", "train_oracle", "score_oracle", "compute_closure", "plot_closure"}
COLLECTING = {"compare_methods", "tabulate_resources", "write_report", "all"}
"""They put what others found side by side; nothing comes after them."""


@dataclass(frozen=True)
class Job:
    """A job of a dry run, with the files that it reads and writes."""

    rule: str
    reads: frozenset[str]
    writes: frozenset[str]


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> list[Job]:
    """Return all jobs of a production with closure, and of the studies."""
    checkout = copy_repository(tmp_path_factory.mktemp("checkout"))
    for rules in (checkout.folder / "rules").glob("*.smk"):
        # a job with a message is listed by it, without its files
        rules.write_text(re.sub(r"^    message:\n        .*\n", "", rules.read_text(), flags=re.MULTILINE))
    done = checkout.snakemake("--dry-run", "--", "all", "transfer", "tune")
    assert done.returncode == 0, done.stdout[-3000:]
    found = []
    # jobs of a group are indented
    for block in re.split(r"^(?= *(?:local)?rule \w+:$)", done.stdout, flags=re.MULTILINE)[1:]:
        rule = re.match(r" *(?:local)?rule (\w+):$", block, flags=re.MULTILINE)
        files = [re.search(rf"^ +{key}: (.*)$", block, flags=re.MULTILINE) for key in ("input", "output")]
        assert rule
        reads, writes = (frozenset(own[1].split(", ") if own else ()) for own in files)
        found.append(Job(rule[1], reads, writes))
    total = re.search(r"^total +(\d+)$", done.stdout, flags=re.MULTILINE)
    assert total and len(found) == int(total[1])
    return found


def follows(jobs: list[Job], files: set[str]) -> set[str]:
    """Return the rules that any of some files reach, through whatever other files."""
    reached: set[str] = set()
    rules: set[str] = set()
    files = set(files)
    while files - reached:
        reached |= files
        touched = [job for job in jobs if job.reads & reached]
        rules |= {job.rule for job in touched}
        files = {file for job in touched for file in job.writes}
    return rules


def test_truth_reaches_only_the_rules_of_closure(jobs: list[Job]) -> None:
    truth = {file for job in jobs for file in job.writes if file.endswith(".truth.parquet")}
    assert len(truth) == 4 and {job.rule for job in jobs if job.writes & truth} == {"simulate_data"}
    assert {job.rule for job in jobs if job.reads & truth} == {"attach_truth"}
    assert follows(jobs, truth) == CLOSURE | COLLECTING
    # the same graph does reach the publication from data itself
    data = {file for job in jobs for file in job.writes if file.endswith("/dataset/data.parquet")}
    assert {"adapt_sample", "adapt_model", "select_model", "publish_model"} <= follows(jobs, data)


def test_results_of_closure_reach_nothing_else(jobs: list[Job]) -> None:
    own = {file for job in jobs for file in job.writes if job.rule in CLOSURE or "closure" in file}
    assert {job.rule for job in jobs if job.writes & own} == CLOSURE
    assert any("/closure/" in file for file in own) and any(file.endswith("_closure.json") for file in own)
    assert follows(jobs, own) <= CLOSURE | COLLECTING
    last = {file for job in jobs if job.rule in COLLECTING for file in job.writes}
    assert follows(jobs, last) <= COLLECTING


def test_rules_of_training_and_publication_read_datasets_without_truth(jobs: list[Job]) -> None:
    wanted = {
        "train_model", "train_adapted", "adapt_sample", "adapt_model", "select_model", "export_model", "publish_model",
        "select_features", "fit_response", "score_data", "plot_adaptation", "train_transfer", "tune_trial",
    }  # fmt: skip
    assert wanted <= {job.rule for job in jobs}
    for job in jobs:
        if job.rule in wanted:
            assert not [file for file in job.reads if "closure" in file or "truth" in file], job.rule


def test_names_of_truth_files_are_asked_for_in_one_rule() -> None:
    """Not only inputs: parameters could name them too."""
    asking = set()
    for path in [*sorted((ROOT / "rules").glob("*.smk")), ROOT / "Snakefile"]:
        blocks = re.split(r"^(?=(?:use )?(?:rule|checkpoint|def) )", path.read_text(), flags=re.MULTILINE)
        for block in blocks[1:]:
            name = re.match(r"(?:use rule \w+ as|rule|checkpoint|def) (\w+)", block)
            assert name
            if re.search(r"truth_files|closure\.truth|\.truth\.parquet", block.partition("\n")[2]):
                asking.add(name[1])
    assert asking == {"simulate_data", "attach_truth", "truth_files"}
