"""Production, training, adaptation, choice and evaluation of one run with one seed, for the benchmark of adaptation."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from checkout import PARTS  # noqa: E402

from pidflow.adapt.choice.assess import assess, read_samples  # noqa: E402
from pidflow.adapt.choice.select import Adapted, select_model  # noqa: E402
from pidflow.adapt.network import adapt_network  # noqa: E402
from pidflow.adapt.sample import adapt_sample  # noqa: E402
from pidflow.adapt.steps.base import Surroundings  # noqa: E402
from pidflow.config.adapt import UNADAPTED, Adapt, Choice  # noqa: E402
from pidflow.config.models import Dataset  # noqa: E402
from pidflow.config.v0 import V0Cuts  # noqa: E402
from pidflow.dataset.build import build_dataset  # noqa: E402
from pidflow.evaluate.closure import attach_truth  # noqa: E402
from pidflow.files import read_json  # noqa: E402
from pidflow.models import load, settings_of  # noqa: E402
from pidflow.parquet import matrix  # noqa: E402
from pidflow.tables import find_tables  # noqa: E402
from pidflow.tracks import WEIGHT  # noqa: E402
from pidflow.train.engine import macro_auc  # noqa: E402
from pidflow.train.fit import fit_model  # noqa: E402

RUNS = {900011: "none", 900012: "mild", 900013: "moderate", 900014: "strong"}
SEEDS = (1, 2, 3)
EVENTS = 14000
FILES = 4
TEST, VALIDATION = 0.8775, 0.3
SPECIES = (211, 321, 2212, -211, -321, -2212)
WITH_ELECTRONS = (*SPECIES, 11, -11)
MASKS = {"tof": 0.5, "trd": 0.8}
PT_EDGES = (0.1, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 20.0)
GROUPS = 20
STEPS = {
    "dann_first": {"kind": "dann", "discriminator": "first"},
    "dann_strong": {"kind": "dann", "strength": 1.0},
    "flat": {"kind": "decorrelate", "species": [321, -321]},
}
CHOSEN_FROM = {
    "calibrated": ("calibrate_response",),
    "self_trained": ("calibrate_response", "self_training"),
}
"""Candidates of the automatic choice, as shipped."""

OTHERS = {
    "dann": ("dann",),
    "dann_first": ("dann_first",),
    "dann_strong": ("dann_strong",),
    "cdan": ("cdan",),
    "mmd": ("mmd",),
    "deep_coral": ("deep_coral",),
    "mcc": ("mcc",),
    "self_training": ("self_training",),
    "reweight": ("reweight",),
    "tune_on_data": ("tune_on_data",),
    "quantile_morph": ("quantile_morph",),
    "calibrated_dann": ("calibrate_response", "dann"),
}
"""Every other method, tried with the first seed."""

Floats = NDArray[np.float64]


def produce(folder: Path) -> None:
    """Make track tables, V0 candidates, response and feature lists of all runs with the workflow."""
    for name in PARTS:
        if not (folder / name).exists():
            (folder / name).symlink_to(ROOT / name)
    rows = ["run\tperiod\tpass\tsystem\tyear\tbz\tdata\tsimulation\tvalid_from\tvalid_until"]
    for number, run in enumerate(RUNS):
        files = (
            ";".join(f"resources/example/{run}/{kind}_{n:03d}.root" for n in range(1, 1 + FILES))
            for kind in ("data", "simulation")
        )
        start = 1655510400000 + 36_000_000 * number
        field = "-5.0" if number % 2 == 0 else "5.0"
        rows.append(
            "\t".join([str(run), "EX22a", "apass1", "pp_13TeV", "2022", field, *files, str(start), str(start + 1)])
        )
    (folder / "bench_runs.tsv").write_text("\n".join(rows) + "\n")
    content = {
        "runs": "bench_runs.tsv",
        "example": {"events_per_file": EVENTS, "shifts": RUNS},
        "dataset": {"split": {"test": TEST, "validation": VALIDATION}},
    }
    (folder / "bench.yaml").write_text(yaml.safe_dump(content))
    targets = [f"results/{run}/dataset/features.json" for run in RUNS]
    command = [sys.executable, "-m", "snakemake", *targets, "--configfile", "bench.yaml", "--quiet", "reason", "host"]
    subprocess.run(command, cwd=folder, check=True)


@dataclass(frozen=True)
class Trial:
    """One run with one seed.

    Attributes
    ----------
    folder
        Where its files go.
    production
        Results of the run.
    run, seed
        Which it is.
    """

    folder: Path
    production: Path
    run: int
    seed: int

    @property
    def features(self) -> Path:
        """Feature list."""
        return self.production / "dataset/features.json"

    @property
    def response(self) -> Path:
        """Fitted response."""
        return self.production / "dataset/response.json"

    def v0s(self, sample: str) -> list[Path]:
        """Return the V0 tables of a sample."""
        return find_tables([path for path in (self.production / "ingest" / sample).iterdir() if path.is_dir()], "v0s")

    def dataset(self, name: str) -> Path:
        """Return a dataset of the trial: simulation, data, truth, or an adapted sample."""
        return self.folder / f"{name}.parquet"

    def model(self, name: str) -> Path:
        """Return a model directory."""
        return self.folder / "models" / name

    def build(self) -> None:
        """Write the datasets, split by the seed's key."""
        split = {"test": TEST, "validation": VALIDATION, "key": f"seed {self.seed}"}
        for sample in ("simulation", "data"):
            folders = [path for path in (self.production / "ingest" / sample).iterdir() if path.is_dir()]
            build_dataset(
                find_tables(folders, "tracks"),
                self.response,
                self.production / f"ingest/{sample}.json",
                self.dataset(sample),
                self.folder / f"{sample}.json",
                settings=Dataset.model_validate({"split": split}),
                v0s=self.v0s(sample),
                probes=self.dataset(f"{sample}.probes"),
            )
        generated = self.production.parents[1] / "resources/example" / str(self.run)
        truth = {
            f"resources/example/{self.run}/{path.name.removesuffix('.truth.parquet')}.root": str(path)
            for path in sorted(generated.glob("data_*.truth.parquet"))
        }
        attach_truth(self.dataset("data"), truth, self.dataset("truth"))

    def train(
        self, name: str, dataset: str, species: tuple[int, ...] = SPECIES, fraction: float = 1.0, **how: Any
    ) -> float:
        """Train the network, unless it is there, and return the seconds."""
        if (self.model(name) / "model.json").is_file():
            return float("nan")
        settings = settings_of("fse").model_validate({"kind": "fse", **how}).model_dump(mode="json")
        begin = time.monotonic()
        self.model(name).parent.mkdir(parents=True, exist_ok=True)
        fit_model(
            self.dataset(dataset),
            self.features,
            self.response,
            self.model(name),
            run=self.run,
            species=species,
            masks=MASKS,
            seed=self.seed,
            settings=settings,
            threads=1,
            fraction=fraction,
        )
        return time.monotonic() - begin

    def oracle(self) -> None:
        """Train with the truth of as many tracks as the simulation has."""
        sizes = [read_json(self.folder / f"{sample}.json")["sets"]["train"] for sample in ("simulation", "data")]
        self.train("oracle", "truth", fraction=min(1.0, sizes[0] / sizes[1]))

    def adapt(self, adapt: Adapt, candidate: str) -> None:
        """Make one candidate, unless it is there; what it starts from must be."""
        sample, before = adapt.sample_of(candidate), adapt.before(candidate)
        if (self.model(candidate) / "model.json").is_file():
            return
        settings = adapt.last(candidate).model_dump(mode="json")
        if adapt.changes_sample(adapt.chains[candidate][-1]):
            adapt_sample(
                self.dataset("simulation"),
                self.dataset("data"),
                self.dataset(candidate),
                self.folder / f"{candidate}.json",
                self.dataset(f"{candidate}.variations"),
                settings=settings,
                surroundings=Surroundings(self.run, SPECIES, MASKS, self.response, self.seed),
                probes={str(self.dataset("simulation.probes")): str(self.dataset(f"{candidate}.probes"))},
            )
            self.train(candidate, candidate)
            return
        adapt_network(
            self.model(before or UNADAPTED),
            self.dataset(sample or "simulation"),
            self.dataset("data"),
            self.model(candidate),
            settings=settings,
            accelerator="cpu",
            threads=1,
        )

    def choose(self, adapt: Adapt, candidates: tuple[str, ...]) -> str:
        """Return the automatic choice."""
        names = (UNADAPTED, *candidates)
        sample = Adapted(*(self.dataset(f"calibrated{part}") for part in ("", ".variations", ".probes")))
        output = self.folder / "choice.json"
        select_model(
            {name: self.model(name) for name in names},
            self.dataset("simulation"),
            self.dataset("data"),
            {"calibrated": sample},
            self.model("adapted"),
            output,
            self.folder / "efficiency.csv",
            method="auto",
            trained_on=adapt.trained_on,
            settings=Choice(),
            v0s={name: self.v0s(name) for name in ("simulation", "data")},
            probes={name: self.dataset(f"{name}.probes") for name in ("simulation", "data")},
            cuts=V0Cuts(),
            pt_edges=PT_EDGES,
            threshold=0.5,
            bootstrap=100,
            confidence=0.68,
            seed=self.seed,
            threads=1,
        )
        return str(read_json(output)["adapted"])

    def scores(self, names: tuple[str, ...]) -> dict[str, dict[str, float]]:
        """Return all label-free scores of models."""
        models = {name: load(self.model(name)) for name in names}
        first = models[UNADAPTED].info
        known = read_samples(
            self.dataset("simulation"),
            self.dataset("data"),
            {"calibrated": self.dataset("calibrated")},
            features=first.features,
            species=first.species,
            v0s={name: self.v0s(name) for name in ("simulation", "data")},
            probes={name: self.dataset(f"{name}.probes") for name in ("simulation", "data", "calibrated")},
            cuts=V0Cuts(),
            threshold=0.5,
            pt_edges=PT_EDGES,
            seed=self.seed,
        )
        return {name: assess(model.score, known) for name, model in models.items()}

    def evaluate(self, name: str, validated: str) -> dict[str, list[float]]:
        """Return macro AUC and F1 of a model on the pseudo-data's test tracks in each group of collisions."""
        model = load(self.model(name))
        features, labels, weights, _ = tracks(self.dataset(validated), "validation", model.info.features)
        thresholds = best_thresholds(model.score(features), labels, weights)
        features, labels, _, collision = tracks(self.dataset("truth"), "test", model.info.features)
        certainty = model.score(features)
        group = (collision % np.uint64(1_000_003)).astype(np.int64) % GROUPS
        found: dict[str, list[float]] = {"auc": [], "f1": []}
        for number in range(GROUPS):
            own = group == number
            found["auc"].append(macro_auc(certainty[own], labels[own]))
            selected = certainty[own] >= thresholds
            both = (selected & (labels[own] > 0)).sum(axis=0)
            found["f1"].append(float(np.mean(2 * both / (selected.sum(axis=0) + labels[own].sum(axis=0)))))
        return found


def tracks(
    path: Path, split: str, features: tuple[str, ...]
) -> tuple[Any, NDArray[np.uint8], Floats, NDArray[np.uint64]]:
    """Return features, labels, weights and collisions of a set."""
    weighted = [WEIGHT.name] if WEIGHT.name in pq.read_schema(path).names else []
    columns = [*dict.fromkeys([*features, "pdg_code", "split", "collision_id", *weighted])]
    table = pq.read_table(path, columns=columns, filters=pc.field("split") == split)
    pdg = pc.fill_null(table["pdg_code"], 0).to_numpy()
    weights = table[WEIGHT.name].to_numpy().astype(float) if weighted else np.ones(table.num_rows)
    labels = (pdg[:, None] == np.array(SPECIES)).astype(np.uint8)
    return matrix(table, features), labels, weights, table["collision_id"].to_numpy()


def best_thresholds(certainty: Any, labels: NDArray[np.uint8], weights: Floats) -> Floats:
    """Return the certainty of each species at which F1 is highest."""
    found = []
    for score, label in zip(certainty.T, labels.T, strict=True):
        order = np.argsort(-score)
        both, selected = np.cumsum(weights[order] * label[order]), np.cumsum(weights[order])
        found.append(score[order][np.argmax(2 * both / (selected + (weights * label).sum()))])
    return np.array(found)
