"""How good the models are: share of the ceiling, network against trees, calibration.

Run as ``make bench-models``. Prints a table and writes ``benchmarks/results/models.json``. It runs the workflow up to
the table of methods on the first example run, with four times the usual number of collisions, of which the usual number
trains: the calibration error of a perfect model falls with the number of test tracks, and in the rarest detector
pattern the usual test set would not show 0.01. The error that a perfect model with the same certainties would show is
given beside the worst one measured.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from checkout import PARTS  # noqa: E402

from pidflow.evaluate.calibration import BINS  # noqa: E402
from pidflow.evaluate.paired import difference, share_of_ceiling  # noqa: E402
from pidflow.evaluate.schema import Estimate, Metrics, read_metrics  # noqa: E402
from pidflow.scores import certainty_column  # noqa: E402
from pidflow.tracks import DETECTOR_PATTERNS  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "models.json"
RUN = 900001
TIMES = 4
TRAIN, VALIDATION = 0.49, 0.21
DRAWS = 50


def configure(folder: Path) -> Path:
    """Copy the workflow into a folder with one run and a larger test set; return its configuration."""
    for name in PARTS:
        (folder / name).symlink_to(ROOT / name)
    (folder / "runs.tsv").write_text(
        "\n".join(
            line for line in (ROOT / "config/runs.tsv").read_text().splitlines() if not line.startswith(("#", "900002"))
        )
        + "\n"
    )
    events = yaml.safe_load((ROOT / "config/config.yaml").read_text())["example"]["events_per_file"]
    content = {
        "runs": "runs.tsv",
        "adapt": {"method": "none"},
        "publish": {"model": "fse"},
        "closure": {"truth": None},
        "example": {"events_per_file": TIMES * events},
        "dataset": {
            "split": {"test": 1 - (TRAIN + VALIDATION) / TIMES, "validation": VALIDATION / (TRAIN + VALIDATION)}
        },
    }
    path = folder / "models.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def calibration_error(certainty: np.ndarray, true: np.ndarray) -> float:
    """Return the mean distance between certainty and share over equal bins, weighted by tracks."""
    number = np.minimum((certainty * BINS).astype(int), BINS - 1)
    return float(np.abs(np.bincount(number, certainty - true, BINS)).sum() / len(certainty))


def expected_error(folder: Path, model: str, pdg: int, pattern: str) -> float:
    """Return the calibration error that a perfect model with a model's certainties would show on average."""
    scores = f"results/{RUN}/evaluate/scores/{model}_simulation.parquet"
    seen = pq.read_table(folder / f"results/{RUN}/dataset/simulation.parquet", columns=["split", "has_trd", "has_tof"])
    index = seen["has_trd"].to_numpy().astype(int) + 2 * seen["has_tof"].to_numpy()
    rows = (seen["split"].to_numpy() == "test") & (index == DETECTOR_PATTERNS.index(pattern))
    certainty = pq.read_table(folder / scores, columns=[certainty_column(pdg)])[0].to_numpy()[rows].astype(np.float64)
    generator = np.random.default_rng(0)
    draws = (calibration_error(certainty, generator.random(len(certainty)) < certainty) for _ in range(DRAWS))
    return float(np.mean(list(draws)))


def worst(metrics: Metrics) -> tuple[float, int, str]:
    """Return the largest calibration error over species and detector patterns, with both."""
    return max(
        (rates.ece.value, part.pdg, rates.pattern)
        for part in metrics.species
        for rates in part.patterns
        if rates.ece.value is not None
    )


def half_width(estimate: Estimate) -> float:
    """Return half the width of an interval."""
    assert estimate.low is not None and estimate.high is not None
    return (estimate.high - estimate.low) / 2


def main() -> None:
    """Measure and report."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, "-m", "snakemake", "compare", "--configfile", configure(folder).name]
        subprocess.run([*command, "--quiet", "reason", "host"], cwd=folder, check=True)
        found = {
            path.name.removesuffix("_simulation.json"): read_metrics(path)
            for path in sorted((folder / f"results/{RUN}/evaluate/metrics").glob("*_simulation.json"))
        }
        ceiling, floor = found.pop("ceiling"), found["nsigma"]
        shares = {
            model: share_of_ceiling(metrics, floor, ceiling) for model, metrics in found.items() if model != "nsigma"
        }
        trainable = {model: share for model, share in shares.items() if model != "bayes"}
        best = max(trainable, key=lambda model: trainable[model].value or 0.0)
        errors = {model: worst(metrics) for model, metrics in {**found, "ceiling": ceiling}.items()}
        error, pdg, pattern = errors["fse"]
        perfect = expected_error(folder, "fse", pdg, pattern)
    rivals = [model for model in ("gbdt", "gbdt_xgboost", "random_forest") if model in found]
    tree = max(rivals, key=lambda model: found[model].macro.auc.value or 0.0)
    gap = difference(found["fse"], found[tree])
    print(f"\n{'method':18}{'macro AUC':>20}{'share of ceiling':>22}{'worst ECE':>12}")
    for model, metrics in {**found, "ceiling": ceiling}.items():
        auc, share = metrics.macro.auc, shares.get(model)
        shown = "" if share is None else f"{share.value:.4f} ± {half_width(share):.4f}"
        print(f"{model:18}{f'{auc.value:.4f} ± {half_width(auc):.4f}':>20}{shown:>22}{errors[model][0]:12.4f}")
    result = {
        "share_of_ceiling": trainable[best].value,
        "best_model": best,
        "share_of_ceiling_fse": shares["fse"].value,
        "fse_minus_gbdt_macro_auc": gap.value,
        "fse_minus_gbdt_macro_auc_half_width": half_width(gap),
        "best_tree_model": tree,
        "worst_ece": error,
        "worst_ece_where": f"{pdg}, {pattern}",
        "worst_ece_of_a_perfect_model_there": perfect,
        "worst_ece_of_ceiling": errors["ceiling"][0],
        **{f"share_of_ceiling_{model}": share.value for model, share in shares.items()},
        "test_tracks": found["fse"].n_tracks,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(f"\n{RESULTS}")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
