"""CPU of one Slurm job, and who takes it: the engine in the batch script, the engine in the step, the script.

Run as root by ``make bench-slurm_cost``, with Debian's Slurm installed. Prints a table and writes
``benchmarks/results/slurm_cost.json``. A cluster of one node is started for it, which ingests two small files and
checks them. Every process of Python notes at its end what it and the processes that it waited for have used.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests/slurm")]

from cluster import Cluster, cluster, what_is_missing  # noqa: E402
from production import RUN, Production, small_checkout  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "slurm_cost.json"
TARGET = f"results/{RUN}/ingest/simulation.json"

# Python imports a module of this name before anything else
HOOK = """
import atexit, json, os, resource, sys
from pathlib import Path


def used(who):
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def note():
    arguments = sys.orig_argv
    if len(arguments) > 1 and Path(arguments[1]).parent.name == "scripts":
        part, script = "script", Path(arguments[1]).name.split(".")[1]
    elif "--mode" in arguments:
        part, script = "batch" if "slurm-jobstep" in arguments else "step", None
    else:
        return
    own, children = used(resource.RUSAGE_SELF), used(resource.RUSAGE_CHILDREN)
    content = {"job": os.environ["SLURM_JOB_ID"], "part": part, "script": script, "own": own, "children": children}
    Path(os.environ["PIDFLOW_COST_NOTES"], f"{os.getpid()}.json").write_text(json.dumps(content))


if "PIDFLOW_COST_NOTES" in os.environ and "SLURM_JOB_ID" in os.environ:
    atexit.register(note)
"""


def split(notes: list[dict[str, object]]) -> dict[str, float]:
    """Return the CPU seconds of a job by part, from what its processes noted."""
    own, children = (
        {
            part: sum(float(str(note[key])) for note in notes if note["part"] == part)
            for part in ("batch", "step", "script")
        }
        for key in ("own", "children")
    )
    script = own["script"] + children["script"]
    parts = {
        "engine_batch_s": own["batch"] + children["batch"],
        # the step waits for the script, whose part is its own
        "engine_step_s": own["step"] + max(0.0, children["step"] - script),
        "script_s": script,
    }
    return parts | {"total_s": sum(parts.values())}


def measure(slurm: Cluster, folder: Path) -> dict[str, dict[str, float]]:
    """Process a small checkout on the cluster; return the mean split of a job's CPU by script.

    Parameters
    ----------
    slurm
        Running cluster.
    folder
        Empty folder to work in.
    """
    for name in ("checkout", "hook", "notes"):
        (folder / name).mkdir()
    (folder / "hook" / "sitecustomize.py").write_text(HOOK)
    checkout = small_checkout(folder / "checkout")
    raw = [f"resources/example/{RUN}/simulation_{number:03d}.root" for number in (1, 2)]
    made = checkout.snakemake("--", *raw)
    assert made.returncode == 0, made.stdout
    environment = Production(checkout, slurm, folder).environment
    environment |= {"PYTHONPATH": str(folder / "hook"), "PIDFLOW_COST_NOTES": str(folder / "notes")}
    done = subprocess.run(
        ["snakemake", TARGET, "--profile", "slurm", "--configfile", "small.yaml"],
        cwd=checkout.folder,
        env=environment,
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    by_job = defaultdict(list)
    for file in (folder / "notes").iterdir():
        note = json.loads(file.read_text())
        by_job[note["job"]].append(note)
    by_script = defaultdict(list)
    for notes in by_job.values():
        scripts = sorted({note["script"] for note in notes if note["script"]})
        by_script["+".join(scripts)].append(split(notes))
    return {
        script: {part: statistics.mean(cost[part] for cost in costs) for part in costs[0]}
        for script, costs in sorted(by_script.items())
    }


def main() -> None:
    """Measure, print a table, write the results."""
    if missing := what_is_missing():
        sys.exit(missing)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("cluster", "work"):
            (folder / part).mkdir()
        with cluster(folder / "cluster", nodes=1) as slurm:
            costs = measure(slurm, folder / "work")
    for script, cost in costs.items():
        print(script, *(f"{part} {seconds:.2f}" for part, seconds in cost.items()), sep="  ")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(costs, indent=2) + "\n")


if __name__ == "__main__":
    main()
