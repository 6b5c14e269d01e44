"""A checkout in which the workflow processes a small production of both example runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from pidflow.files import sha256

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("Snakefile", "config", "envs", "profiles", "rules", "slurm", "workflow")

SMALL = """
example: {events_per_file: 700}
models:
  fse: {optimisation: {epochs: 4, batch: 128}}
  gbdt: {trees: 40}
  mlp_mean: {optimisation: {epochs: 6, batch: 32}}
  blend: {members: [fse, gbdt]}
adapt: {candidates: {dann: [dann]}, steps: {dann: {epochs: 2}, self_training: {epochs: 2}}}
evaluate: {bootstrap: 20, methods: [nsigma, bayes, gbdt, mlp_mean, fse, blend]}
"""


@dataclass(frozen=True)
class Plan:
    """Rules that would run, and the runs that their jobs belong to."""

    rules: set[str]
    runs: set[str]


@dataclass(frozen=True)
class Checkout:
    """A copy of the repository in which the workflow runs."""

    folder: Path

    def snakemake(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Call snakemake with the small configuration; return the finished process, stderr in stdout."""
        command = [sys.executable, "-m", "snakemake", "--configfile", "small.yaml", *arguments]
        environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
        return subprocess.run(
            command,
            cwd=self.folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=900,
        )

    def planned(self, *arguments: str) -> Plan:
        """Return what a dry run would do."""
        done = self.snakemake("--dry-run", *arguments)
        assert done.returncode == 0, done.stdout
        table = done.stdout.partition("Job stats:")[2].partition("total")[0]
        rules = set(re.findall(r"^(\w+) +\d+$", table, flags=re.MULTILINE))
        return Plan(rules, set(re.findall(r"^Job \d+: Run (\d+):", done.stdout, flags=re.MULTILINE)))


def copy_repository(folder: Path) -> Checkout:
    """Copy what the workflow needs, with two simulated and two data files per run."""
    for name in PARTS:
        source = ROOT / name
        if source.is_symlink():
            (folder / name).symlink_to(source.readlink())
        elif source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, folder / name)
    (folder / "small.yaml").write_text(SMALL)
    header, *rows = [line for line in (ROOT / "config/runs.tsv").read_text().splitlines() if line[0] != "#"]
    columns = header.split("\t")
    shortened = []
    for row in rows:
        cells = dict(zip(columns, row.split("\t"), strict=True))
        for sample in ("data", "simulation"):
            cells[sample] = ";".join(cells[sample].split(";")[:2])
        shortened.append("\t".join(cells.values()))
    (folder / "config/runs.tsv").write_text("\n".join([header, *shortened]) + "\n")
    return Checkout(folder)


def artefacts(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of everything that must be the same wherever a production runs, by path in the folder.

    Track tables, datasets (which hold the splits), adapted ones too, feature lists, the choice of the adaptation, what
    O2Physics loads.
    """
    patterns = ("ingest/*/*/*.parquet", "dataset/*.parquet", "dataset/features.json", "publication/*.onnx")
    patterns += ("adapt/*/*.parquet", "adapt/choice.json")
    patterns += ("publication/columns_for_training.json", "publication/scaling_params.json")
    files = [path for pattern in patterns for path in sorted(folder.glob(f"results/*/{pattern}"))]
    return {path.relative_to(folder).as_posix(): sha256(path) for path in files}
