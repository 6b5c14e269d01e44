"""A production whose jobs only wait, on a real Slurm: what head process, engine and queue can do.

Run as root by ``make bench-throughput``, with Debian's Slurm installed, after ``make demo``. The rules, the profile and
the grouping are the workflow's; each script is replaced by one that waits as long as the jobs of its rule took in the
demo (``results/resources.csv``) and makes empty outputs. Prints a table and writes
``benchmarks/results/throughput.json``.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [
    str(ROOT / "tests"),
    str(ROOT / "tests/slurm"),
    str(ROOT / "benchmarks"),
    str(ROOT / "workflow/scripts"),
]

from checkout import copy_repository  # noqa: E402
from cluster import ACCOUNT, PARTITION, Cluster, cluster, what_is_missing  # noqa: E402
from workflow import many_runs  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "throughput.json"
MEASURED = ROOT / "results" / "resources.csv"
RUNS = 6
# waiting jobs need no processor, so the nodes promise more than there are
CPUS, MEMORY_MB = 64, 200_000

WAITING = """
import json
import time
from pathlib import Path

lengths = json.loads(Path("lengths.json").read_text())
time.sleep(lengths.get(snakemake.rule, 1.0))
for path in map(Path, snakemake.output):
    if path.suffix in (".json", ".parquet", ".png", ".npz", ".csv", ".html", ".yaml"):
        path.write_text("{}")
    else:
        path.mkdir(parents=True, exist_ok=True)
"""


def lengths() -> dict[str, float]:
    """Return the median time of each rule's jobs in the demo, s."""
    if not MEASURED.is_file():
        raise SystemExit(f"{MEASURED} does not exist; run make demo first")
    with open(MEASURED, encoding="utf-8") as stream:
        return {line["rule"]: float(line["wall_s"]) for line in csv.DictReader(stream)}


def main() -> None:
    """Run the production, watch the queue, write the results."""
    if missing := what_is_missing():
        raise SystemExit(missing)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("cluster", "checkout"):
            (folder / part).mkdir()
        checkout = copy_repository(folder / "checkout")
        (checkout.folder / "lengths.json").write_text(json.dumps(lengths()))
        for script in (checkout.folder / "workflow/scripts").glob("*.py"):
            script.write_text(WAITING)
        config = many_runs(checkout.folder, RUNS)
        with cluster(folder / "cluster", cpus=CPUS, memory_mb=MEMORY_MB) as slurm:
            result = produce(slurm, checkout.folder, config)
    for key, value in result.items():
        print(f"{key:32}{value:>12,.2f}" if isinstance(value, float) else f"{key:32}{value:>12}")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")


def produce(slurm: Cluster, folder: Path, config: str) -> dict[str, float | int]:
    """Process all runs; return times, rates and what the head process used."""
    environment = slurm.environment | {
        "PATH": f"{Path(sys.executable).parent}:{slurm.environment['PATH']}",
        "PIDFLOW_SLURM_PARTITION": PARTITION,
        "PIDFLOW_SLURM_ACCOUNT": ACCOUNT,
        "PIDFLOW_SLURM_POLL": "5",
    }
    busiest = 0
    ended = threading.Event()

    def watch() -> None:
        nonlocal busiest
        while not ended.wait(2.0):
            busiest = max(busiest, len(slurm.queue()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    log = folder / "snakemake.log"
    with open(log, "w", encoding="utf-8") as output:
        command = ["snakemake", "--profile", "slurm", "--configfile", config]
        head = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(head.pid, 0)
    head.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - start
    ended.set()
    watcher.join()
    if head.returncode:
        raise SystemExit(log.read_text()[-3000:])
    submitted = slurm.jobs()
    done = [line for line in log.read_text().splitlines() if line.startswith("Finished jobid:")]
    return {
        "runs": RUNS,
        "jobs": len(done),
        "slurm_jobs": len(submitted),
        "slurm_jobs_per_run": len(submitted) / RUNS,
        "wall_s": wall,
        "slurm_jobs_per_hour": 3600 * len(submitted) / wall,
        "most_in_queue": busiest,
        "head_cpu_s_per_slurm_job": (usage.ru_utime + usage.ru_stime) / len(submitted),
        "head_peak_rss_mib": usage.ru_maxrss / 1024,
    }


if __name__ == "__main__":
    main()
