"""Cost of the engine: a dry run of a thousand runs, discovery, and the processor time of a job beside its work.

Run as ``make bench-workflow``; as root and with Debian's Slurm installed, the cost of a Slurm job too. Prints a table
and writes ``benchmarks/results/workflow.json``. The thousand runs have ten files of data and ten of simulation each,
10 MB of holes, and the configuration for real data. The cost of a local job is (processor time of many − of few jobs)
/ (difference of their number), of jobs that read a table of 100 tracks and check it.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests/slurm"), str(ROOT / "benchmarks")]

from checkout import copy_repository  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "workflow.json"
RUNS, FILES = 1000, 20
FILE_BYTES = 10_000_000
FIRST = 500_001
HEADER = "run\tperiod\tpass\tsystem\tyear\tbz\tdata\tsimulation\tvalid_from\tvalid_until"
FEW, MANY = 4, 24
ROUNDS = 3


@dataclass(frozen=True)
class Cost:
    """Wall time and processor time in s, peak resident memory in MiB, of one process and its children."""

    wall_s: float
    cpu_s: float
    peak_mib: float


def cost(folder: Path, *arguments: str) -> Cost:
    """Return what a call of Snakemake takes."""
    command = [sys.executable, "-m", "snakemake", *arguments]
    start = time.perf_counter()
    with open(folder / "snakemake.log", "w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"snakemake {' '.join(arguments)} failed:\n{(folder / 'snakemake.log').read_text()[-3000:]}")
    return Cost(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def row(run: int, data: str, simulation: str) -> str:
    """Return a line of the run table."""
    begin = 1_655_510_400_000 + 1000 * run
    return f"{run}\tLHC22m\tapass4\tpp_13600\t2022\t5.0\t{data}\t{simulation}\t{begin}\t{begin + 1000}"


def many_runs(folder: Path, count: int) -> str:
    """Write the files and the table of runs; return the configuration's name."""
    rows = [HEADER]
    for run in range(FIRST, FIRST + count):
        raw = folder / "raw" / str(run)
        raw.mkdir(parents=True, exist_ok=True)
        for sample in ("data", "simulation"):
            for number in range(FILES // 2):
                with open(raw / f"{sample}_{number:03d}.root", "wb") as stream:
                    stream.truncate(FILE_BYTES)
        rows.append(row(run, f"raw/{run}/data_*.root", f"raw/{run}/simulation_*.root"))
    (folder / f"runs_{count}.tsv").write_text("\n".join(rows) + "\n")
    (folder / f"runs_{count}.yaml").write_text(f"runs: runs_{count}.tsv\nclosure: {{truth: null}}\n")
    return f"runs_{count}.yaml"


def small_tables(folder: Path, count: int) -> str:
    """Write runs of one small flat table each; return the configuration's name."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(1)
    momentum = rng.uniform(0.2, 2.0, 100)
    table = pa.table(
        {"p": momentum, "pt": momentum * 0.9, "signal": 50 / momentum, "pdg": rng.choice([211, -211], 100)}
    )
    rows = [HEADER]
    (folder / "flat").mkdir(exist_ok=True)
    for run in range(FIRST, FIRST + count):
        pq.write_table(table, folder / f"flat/{run}.parquet")
        rows.append(row(run, "", f"flat/{run}.parquet"))
    name = f"flat_{count}.yaml"
    (folder / f"flat_{count}.tsv").write_text("\n".join(rows) + "\n")
    (folder / name).write_text(
        f"""
runs: flat_{count}.tsv
pathvars: {{results: results_{count}}}
closure: {{truth: null}}
adapt: {{method: none}}
publish: {{model: fse}}
ingest: {{columns: {{p: p, pt: pt, tpc_signal: signal}}, label: {{column: pdg}}}}
"""
    )
    return name


def local_job(folder: Path) -> float:
    """Return the processor time per job on the local executor, s."""
    taken = {}
    for count in (FEW, MANY):
        config = small_tables(folder, count)
        targets = [f"results_{count}/{run}/ingest/simulation.json" for run in range(FIRST, FIRST + count)]
        taken[count] = cost(folder, "--configfile", config, "--quiet", "all", "--", *targets).cpu_s
        subprocess.run(["rm", "-r", folder / f"results_{count}"], check=True)
    return (taken[MANY] - taken[FEW]) / (2 * (MANY - FEW))


def slurm_job() -> dict[str, float] | None:
    """Return the processor time of a Slurm job by part, s; None where there is no Slurm."""
    from cluster import cluster, what_is_missing
    from slurm_cost import measure

    if missing := what_is_missing():
        print(f"Slurm not measured: {missing}")
        return None
    with tempfile.TemporaryDirectory() as name:
        for part in ("cluster", "work"):
            (Path(name) / part).mkdir()
        with cluster(Path(name) / "cluster", nodes=1) as slurm:
            by_script = measure(slurm, Path(name) / "work")
    return {
        part: statistics.mean(parts[part] for parts in by_script.values()) for part in next(iter(by_script.values()))
    }


def main() -> None:
    """Measure, print a table, write the results."""
    with tempfile.TemporaryDirectory() as name:
        folder = copy_repository(Path(name)).folder
        dry = {}
        for count in (1, RUNS // 10, RUNS):
            config = many_runs(folder, count)
            rounds = ROUNDS if count < RUNS else 1
            calls = [cost(folder, "--configfile", config, "--dry-run", "--quiet", "all") for _ in range(rounds)]
            dry[count] = min(calls, key=lambda call: call.cpu_s)
            print(f"dry run, {count:5} runs: {dry[count].wall_s:6.1f} s, {dry[count].peak_mib:5.0f} MiB", flush=True)
        listed = cost(folder, "--configfile", config, "--list-rules")
        print(f"discovery of {RUNS * FILES:,} files: {listed.wall_s:.1f} s with the start of the engine", flush=True)
        local = [local_job(folder) for _ in range(ROUNDS)]
        print(f"local job: {statistics.median(local):.2f} s CPU", flush=True)
    slurm = slurm_job()
    if slurm:
        print("Slurm job:", *(f"{part} {seconds:.2f}" for part, seconds in slurm.items()), flush=True)
    result = {
        "dry_run_1000_runs_s": dry[RUNS].wall_s,
        "dry_run_1000_runs_cpu_s": dry[RUNS].cpu_s,
        "dry_run_1000_runs_peak_rss_mib": dry[RUNS].peak_mib,
        "dry_run_100_runs_s": dry[RUNS // 10].wall_s,
        "dry_run_1_run_s": dry[1].wall_s,
        "discovery_1000_runs_s": listed.wall_s,
        "per_job_cpu_s_local": statistics.median(local),
        "per_job_cpu_s_slurm": slurm and slurm["total_s"],
        **{
            f"per_job_cpu_s_slurm_{part.removesuffix('_s')}": s
            for part, s in (slurm or {}).items()
            if part != "total_s"
        },
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
