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
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from adaptation_checks import cost, flatness, probes, recovered
from adaptation_trial import CHOSEN_FROM, GROUPS, OTHERS, RUNS, SEEDS, STEPS, Trial, produce

from pidflow.adapt.choice.assess import TRUSTED
from pidflow.adapt.choice.scores import regret, spearman
from pidflow.config.adapt import UNADAPTED, Adapt
from pidflow.files import read_json, write_json

RESULTS = Path(__file__).parent / "results" / "adaptation.json"
FEWEST_ERRORS = 5.0
"""Size of the gap in standard errors, below which its closure tells nothing."""


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
            try:
                found.append(result.result())
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
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
                known = min(c[2] for c in each) >= FEWEST_ERRORS
                cells += [f"{value:12.5f}", f"{f'{ratio:.2f} ± {error:.2f}' if known else '–':>18}"]
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
