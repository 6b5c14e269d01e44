"""Whether adaptation closes the gap between simulation and data, which score tells so without labels, and its cost.

Run as ``make bench-adaptation``, or with a folder in which production and models are kept and reused. Prints tables and
writes ``benchmarks/results/adaptation.json``.

The pseudo-data is of another generator than the simulation, taken with a detector that is the simulated one
(``none``), or differs from it mildly, moderately or strongly (`pidflow.simulate.shifts`). A seed is another choice of
the collisions that train, validate and test, and other random numbers in each training. The oracle is trained with the
truth of as many tracks of the pseudo-data as the simulation has; nothing else uses truth but the evaluation at the end.

Gap closure is (adapted − source)/(oracle − source), in macro AUC, and in macro F1 at the thresholds at which each
model's F1 is highest on the labelled tracks that validated it. Errors are those of twenty groups of collisions.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
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

from pidflow.adapt.choice.assess import TRUSTED, assess, read_samples  # noqa: E402
from pidflow.adapt.choice.scores import regret, spearman  # noqa: E402
from pidflow.adapt.choice.select import Adapted, select_model  # noqa: E402
from pidflow.adapt.network import adapt_network  # noqa: E402
from pidflow.adapt.sample import adapt_sample  # noqa: E402
from pidflow.adapt.steps.base import Surroundings  # noqa: E402
from pidflow.config.adapt import UNADAPTED, Adapt, Choice  # noqa: E402
from pidflow.config.models import Dataset  # noqa: E402
from pidflow.config.v0 import V0Cuts  # noqa: E402
from pidflow.dataset.build import build_dataset  # noqa: E402
from pidflow.dataset.response import robust_width  # noqa: E402
from pidflow.evaluate.closure import attach_truth  # noqa: E402
from pidflow.evaluate.probes import rates, read_probes, true_rates  # noqa: E402
from pidflow.files import read_json, write_json  # noqa: E402
from pidflow.models import load, settings_of  # noqa: E402
from pidflow.parquet import matrix  # noqa: E402
from pidflow.response import expected_time  # noqa: E402
from pidflow.simulate.shifts import conditions  # noqa: E402
from pidflow.tables import find_tables  # noqa: E402
from pidflow.tracks import WEIGHT  # noqa: E402
from pidflow.train.engine import macro_auc  # noqa: E402
from pidflow.train.fit import fit_model  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "adaptation.json"
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
FEWEST_PROBES = 200
STEPS = {
    "dann_first": {"kind": "dann", "discriminator": "first"},
    "dann_strong": {"kind": "dann", "strength": 1.0},
    "flat": {"kind": "decorrelate", "species": [321, -321]},
}
CHOSEN_FROM = {
    "dann": ("dann",),
    "calibrated": ("calibrate_response",),
    "self_trained": ("calibrate_response", "self_training"),
}
"""Candidates of the automatic choice, as shipped."""

OTHERS = {
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


def one(folder: str, run: int, seed: int) -> dict[str, Any]:
    """Train, adapt, choose and evaluate one run with one seed."""
    base = Path(folder)
    trial = Trial(base / f"bench/{run}/{seed}", base / f"results/{run}", run, seed)
    done = trial.folder / "result.json"
    if done.is_file():
        return dict(read_json(done))
    trial.folder.mkdir(parents=True, exist_ok=True)
    wanted = {**CHOSEN_FROM, **(OTHERS if seed == SEEDS[0] else {})}
    adapt = Adapt.model_validate({"candidates": wanted, "steps": STEPS})
    trial.build()
    trial.train(UNADAPTED, "simulation")
    trial.oracle()
    for candidate in adapt.chains:
        trial.adapt(adapt, candidate)
    names = (UNADAPTED, *adapt.chains)
    chosen = trial.choose(adapt, tuple(CHOSEN_FROM))
    validated = {name: (adapt.sample_of(name) if name != UNADAPTED else None) or "simulation" for name in names}
    found = {
        "run": run,
        "seed": seed,
        "shift": RUNS[run],
        "chosen": chosen,
        "truth": {name: trial.evaluate(name, validated[name]) for name in names}
        | {"oracle": trial.evaluate("oracle", "truth")},
        "scores": trial.scores(names),
    }
    write_json(done, found)
    return found


def closure(result: dict[str, Any], name: str, metric: str) -> tuple[float, float, float]:
    """Return gap closure of a model, its error, and the gap in standard errors; by leaving out one group at a time."""
    model, source, oracle = (np.array(result["truth"][each][metric]) for each in (name, UNADAPTED, "oracle"))

    def ratio(left_out: int | None) -> float:
        kept = np.ones(GROUPS, bool) if left_out is None else np.arange(GROUPS) != left_out
        return float((model - source)[kept].mean() / (oracle - source)[kept].mean())

    each = np.array([ratio(number) for number in range(GROUPS)])
    error = float(np.sqrt((GROUPS - 1) / GROUPS * ((each - each.mean()) ** 2).sum()))
    gap = oracle - source
    return ratio(None), error, float(gap.mean() / (gap.std(ddof=1) / np.sqrt(GROUPS)))


def mean_of(result: dict[str, Any], name: str, metric: str) -> float:
    """Return a metric of a model."""
    return float(np.mean(result["truth"][name][metric]))


def recovered(folder: Path) -> dict[str, float]:
    """Compare fitted gains, offsets and widths with the injected ones; for the TOF, with those of true pions."""
    print(f"\n{'run':>7}{'seed':>5}  {'quantity':18}{'found':>18}{'true':>10}{'pull':>7}")
    pulls = []
    for run, seed in ((run, seed) for run in RUNS for seed in SEEDS):
        trial = Trial(folder / f"bench/{run}/{seed}", folder / f"results/{run}", run, seed)
        fits = {fit["signal"]: fit for fit in read_json(trial.folder / "calibrated.json")["signals"]}
        shift = conditions(RUNS[run], run).shift
        square = shift.resolution_scale**2
        offset, width = true_pions(trial)
        tpc, trd, tof = (fits[name] for name in ("TPC", "TRD", "TOF"))
        found = [
            ("TPC gain, ln", *averaged(tpc, "offset"), float(np.log(shift.tpc_gain))),
            ("TPC tilt", *averaged(tpc, "offset", only="eta"), shift.tpc_tilt),
            ("TPC scale²", *averaged(tpc, "scale"), square),
            ("TRD gain, ln", *averaged(trd, "offset"), 0.0),
            ("TRD scale²", *averaged(trd, "scale"), square),
            ("TOF offset, ps", *averaged(tof, "offset"), offset),
            ("TOF scale²", *averaged(tof, "scale"), width),
        ]
        for name, value, error, true in found:
            pulls.append((value - true) / error)
            print(f"{run:>7}{seed:>5}  {name:18}{f'{value:.4g} ± {error:.2g}':>18}{true:>10.4g}{pulls[-1]:>+7.1f}")
    print(f"pulls: mean {np.mean(pulls):+.2f}, width {np.std(pulls):.2f}")
    return {"calibration_pull_mean": float(np.mean(pulls)), "calibration_pull_width": float(np.std(pulls))}


def averaged(fit: dict[str, Any], part: str, only: str | None = None) -> tuple[float, float]:
    """Return the mean over momentum of a fit's offset or squared scale at η = 0, or one coefficient, and its error."""
    names = fit["terms"] if part == "offset" else fit["scale_terms"]
    momentum = [np.log(point["mean"]) for point in fit["points"] if point["variable"] == "p"]
    value = {"1": 1.0, "ln p": np.mean(momentum), "(ln p)^2": np.mean(np.square(momentum)), "eta^2": 0.21}
    vector = np.array([float(name == only) if only else value.get(name, 0.0) for name in names])
    first = 0 if part == "offset" else len(fit["terms"])
    covariance = np.array(fit["covariance"])[first : first + len(names), first : first + len(names)]
    coefficients = np.array(fit["offset"] if part == "offset" else fit["scale2_minus_1"])
    base = float(part == "scale")
    return float(base + vector @ coefficients), float(np.sqrt(vector @ covariance @ vector))


def true_pions(trial: Trial) -> tuple[float, float]:
    """Return how much later true pions of pseudo-data are at the TOF than simulated ones, ps, and the squared ratio of
    their widths."""
    found = []
    for name in ("simulation", "truth"):
        columns = ["pdg_code", "tof_signal", "tof_event_time", "tof_exp_mom", "length"]
        table = pq.read_table(trial.dataset(name), columns=columns)
        own = np.abs(pc.fill_null(table["pdg_code"], 0).to_numpy()) == 211
        values = {column: table[column].cast("float64").to_numpy()[own] for column in columns[1:]}
        expected = expected_time(values["length"], values["tof_exp_mom"], 0.13957039)
        residual = values["tof_signal"] - values["tof_event_time"] - expected
        found.append(residual[np.isfinite(residual)])
    simulated, data = found
    return float(np.median(data) - np.median(simulated)), (robust_width(data) / robust_width(simulated)) ** 2


def probes(folder: Path) -> dict[str, float]:
    """Compare tag-and-probe efficiencies with the truth of the same probes, for π, p and e."""
    run, seed = 900013, SEEDS[0]
    trial = Trial(folder / f"bench/{run}/{seed}", folder / f"results/{run}", run, seed)
    trial.train("electrons", "calibrated", WITH_ELECTRONS)
    model = load(trial.model("electrons"))
    generated = folder / f"resources/example/{run}"
    truth = {
        f"resources/example/{run}/{path.name.removesuffix('.truth.parquet')}.root": str(path)
        for path in sorted(generated.glob("data_*.truth.parquet"))
    }
    labelled = trial.dataset("truth.probes")
    attach_truth(trial.dataset("data.probes"), truth, labelled)
    legs = read_probes(labelled, trial.v0s("data"), [*dict.fromkeys([*model.info.features, "pdg_code"])])
    certainty = model.score(matrix(legs.columns, model.info.features))
    how: dict[str, Any] = {"species": WITH_ELECTRONS, "threshold": 0.5, "pt_edges": PT_EDGES, "confidence": 0.6827}
    measured, true = rates(legs, certainty, cuts=V0Cuts(), **how), true_rates(legs, certainty, **how)
    distances = []
    print(f"\n{'probe':>8}{'pT':>10}{'probes':>8}{'measured':>22}{'true':>10}")
    for own, reference in zip(measured, true, strict=True):
        if len(own.pdg) == 1:
            continue
        for bin_, other in zip(own.pt, reference.pt, strict=True):
            rate = next(head.rate for head in bin_.heads if head.pdg in own.pdg)
            expected = next(head.rate for head in other.heads if head.pdg in own.pdg).value
            if bin_.n_probes < FEWEST_PROBES or rate.value is None or expected is None:
                continue
            error = (rate.high - rate.low) / 2
            distances.append(abs(rate.value - expected) / error)
            shown = f"{rate.value:.4f} ± {error:.4f}"
            print(f"{own.pdg[0]:>8}{f'{bin_.low:g}–{bin_.high:g}':>10}{bin_.n_probes:>8}{shown:>22}{expected:>10.4f}")
    return {"probe_bins": len(distances), "probe_worst_distance_in_errors": max(distances)}


def cost(folder: Path) -> dict[str, float]:
    """Time three epochs of training, and of adversarial adaptation with as many steps."""
    run, seed = 900013, SEEDS[0]
    trial = Trial(folder / f"bench/{run}/{seed}", folder / f"results/{run}", run, seed)
    with tempfile.TemporaryDirectory() as name:
        spare = Trial(Path(name), trial.production, run, seed)
        for file in ("simulation", "data"):
            spare.dataset(file).symlink_to(trial.dataset(file))
        plain = spare.train("plain", "simulation", optimisation={"epochs": 3})
        begin = time.monotonic()
        adapt_network(
            trial.model(UNADAPTED),
            trial.dataset("simulation"),
            trial.dataset("data"),
            spare.model("dann"),
            settings={"kind": "dann", "epochs": 2, "discriminator_epochs": 1},
            accelerator="cpu",
            threads=1,
        )
        adapted = time.monotonic() - begin
    print(f"\nthree epochs of training: {plain:.1f} s; of adversarial adaptation: {adapted:.1f} s", end="; ")
    print(f"ratio {adapted / plain:.2f}")
    return {"cost_ratio": adapted / plain, "training_s": plain, "adaptation_s": adapted}


def flatness(folder: Path) -> dict[str, float]:
    """Measure how far decorrelation flattens the kaons' efficiency over pT at a mean efficiency of 0.8."""
    run, seed = 900013, SEEDS[0]
    trial = Trial(folder / f"bench/{run}/{seed}", folder / f"results/{run}", run, seed)
    adapt = Adapt.model_validate({"candidates": {"flat": ("flat",)}, "steps": STEPS})
    trial.adapt(adapt, "flat")
    spread, area = {}, {}
    for name in (UNADAPTED, "flat"):
        model = load(trial.model(name))
        columns = [*dict.fromkeys([*model.info.features, "pt", "pdg_code", "split"])]
        table = pq.read_table(trial.dataset("simulation"), columns=columns, filters=pc.field("split") == "test")
        certainty = model.score(matrix(table, model.info.features))
        pdg, pt = pc.fill_null(table["pdg_code"], 0).to_numpy(), table["pt"].to_numpy()
        area[name] = macro_auc(certainty, (pdg[:, None] == np.array(SPECIES)).astype(np.uint8))
        widths = []
        for number, code in enumerate(SPECIES):
            if abs(code) == 321:
                own = pdg == code
                kept = certainty[own, number] >= np.quantile(certainty[own, number], 0.2)
                place = np.digitize(pt[own], PT_EDGES) - 1
                efficiency = [kept[place == b].mean() for b in range(len(PT_EDGES) - 1) if (place == b).sum() >= 100]
                widths.append(float(np.std(efficiency)))
        spread[name] = float(np.mean(widths))
    fall = 1.0 - spread["flat"] / spread[UNADAPTED]
    before, after = ((spread[name], area[name]) for name in (UNADAPTED, "flat"))
    print(
        f"\nspread of the kaons' efficiency over pT {before[0]:.4f} → {after[0]:.4f}, {100 * fall:.0f} % less", end="; "
    )
    print(f"macro AUC {before[1]:.4f} → {after[1]:.4f}")
    return {"flatness_spread_fall": fall, "flatness_auc_points_lost": 100 * (area[UNADAPTED] - area["flat"])}


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", nargs="?", help="keep production and models here")
    given = parser.parse_args().folder
    with tempfile.TemporaryDirectory() as name:
        folder = Path(given or name).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        if not all((folder / f"results/{run}/dataset/features.json").is_file() for run in RUNS):
            produce(folder)
        results = run_all(folder)
        report = (
            table(results) | score_table(results) | recovered(folder) | probes(folder) | cost(folder) | flatness(folder)
        )
    report |= {"cores": os.cpu_count(), "machine": platform.processor() or platform.machine()}
    write_json(RESULTS, report)
    print(f"\n{RESULTS}")


def run_all(folder: Path) -> list[dict[str, Any]]:
    """Return the results of all runs and seeds, made by as many processes as there are cores."""
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    found = []
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        waiting = [pool.submit(one, str(folder), run, seed) for seed in reversed(SEEDS) for run in RUNS]
        for number, result in enumerate(as_completed(waiting), 1):
            found.append(result.result())
            last = found[-1]
            print(f"{number}/{len(waiting)} run {last['run']} seed {last['seed']}: chosen {last['chosen']}", flush=True)
    return sorted(found, key=lambda result: (result["run"], result["seed"]))


def table(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Print the gap closure of every method and of the automatic choice, and return the figures of the latter."""
    report: dict[str, Any] = {}
    for shift in RUNS.values():
        own = [result for result in results if result["shift"] == shift]
        methods = max((tuple(result["scores"]) for result in own), key=len)
        print(f"\n{shift}\n{'method':18}{'seeds':>6}{'macro AUC':>12}{'closure':>18}{'macro F1':>12}{'closure':>18}")
        for name in (*methods, "chosen", "oracle"):
            these = [result for result in own if name in ("chosen", "oracle") or name in result["truth"]]
            of = [result["chosen"] if name == "chosen" else name for result in these]
            cells = []
            for metric in ("auc", "f1"):
                value = float(np.mean([mean_of(r, m, metric) for r, m in zip(these, of, strict=True)]))
                each = [closure(r, m, metric) for r, m in zip(these, of, strict=True)]
                ratio, error = (
                    float(np.mean([c[0] for c in each])),
                    float(np.hypot.reduce([c[1] for c in each]) / len(each)),
                )
                cells += [f"{value:12.5f}", f"{f'{ratio:.2f} ± {error:.2f}':>18}"]
                if name == "chosen" and shift != "none":
                    report[f"gap_closure_{metric}_{shift}"] = ratio
                    report[f"gap_closure_{metric}_{shift}_error"] = error
                    report[f"gap_{metric}_{shift}_in_errors"] = min(c[2] for c in each)
                report[f"{metric}_{shift}_{name}"] = value
            print(f"{name:18}{len(these):>6}{''.join(cells)}")
    lost = [
        100 * (mean_of(r, UNADAPTED, "auc") - mean_of(r, r["chosen"], "auc")) for r in results if r["shift"] == "none"
    ]
    report["auc_points_lost_no_shift"] = max(lost)
    print(f"\nmacro AUC lost without a shift, worst seed: {max(lost):+.3f} points")
    return report


def score_table(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Print how well each label-free score orders the methods, and return the recommended one's figures."""
    names = list(results[0]["scores"][UNADAPTED])
    report: dict[str, Any] = {}
    print(f"\n{'score':28}{'Spearman with true AUC':>24}{'regret, AUC points':>22}   by shift (Spearman)")
    for score in names:
        rank, lost, by_shift = [], [], {}
        for result in results:
            models = list(result["scores"])
            values = [result["scores"][model][score] for model in models]
            truth = [mean_of(result, model, "auc") for model in models]
            lost.append(100 * regret(values, truth))
            if result["shift"] != "none" and result["seed"] == SEEDS[0]:
                rank.append(spearman(values, truth))
                by_shift[result["shift"]] = round(rank[-1], 2)
        report[f"spearman_{score}"], report[f"regret_{score}"] = float(np.mean(rank)), max(lost)
        print(f"{score:28}{np.mean(rank):>24.2f}{max(lost):>22.3f}   {by_shift}")
    return report | {
        "scorer_spearman": report[f"spearman_{TRUSTED}"],
        "scorer_regret_auc_points": report[f"regret_{TRUSTED}"],
    }


if __name__ == "__main__":
    main()
