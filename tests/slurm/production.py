"""Productions on the test cluster, as an operator starts, watches and ends them."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from checkout import Checkout, copy_repository
from cluster import ACCOUNT, PARTITION, Cluster, Found, Job, wait_until

RUNS = (900001, 900002)
# the run that faults meet
RUN = RUNS[0]
FAULTS = Path(__file__).parent / "faults"
OPTIONS = ("--profile", "slurm", "--configfile", "small.yaml")
# seconds for whatever a production is to reach
PATIENCE = 600

SMALL = """
example: {events_per_file: 700}
models:
  fse: {optimisation: {epochs: 4, batch: 128}}
adapt: {method: dann, candidates: {dann: [dann]}, steps: {dann: {epochs: 2}}}
evaluate: {bootstrap: 20, methods: [fse]}
closure: {truth: null}
"""


def published(*runs: int) -> list[str]:
    """Return the targets: publications with all that they take, and no figures."""
    return [f"registry/runs/{run}.json" for run in runs]


def small_checkout(folder: Path) -> Checkout:
    """Return a checkout with two simulated and two data files per run, and as few jobs as a production can have."""
    checkout = copy_repository(folder)
    (folder / "small.yaml").write_text(SMALL)
    return checkout


def copied(checkout: Checkout, folder: Path) -> Checkout:
    """Return a copy of a checkout with its products; time stamps stay, by which Snakemake knows what is up to date."""
    shutil.copytree(checkout.folder, folder, symlinks=True, dirs_exist_ok=True)
    return Checkout(folder)


@dataclass
class Production:
    """A checkout that is processed on the cluster.

    Attributes
    ----------
    checkout, cluster
        What is processed, and where.
    orders
        Folder of the faults that are ordered; ``faults/sitecustomize.py`` names them.
    """

    checkout: Checkout
    cluster: Cluster
    orders: Path
    _heads: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """Root of the checkout."""
        return self.checkout.folder

    @property
    def output(self) -> Path:
        """What every call of Snakemake wrote, one after the other."""
        return self.orders / "snakemake.log"

    @property
    def environment(self) -> dict[str, str]:
        """Environment of an operator: the site's variables, and what lets jobs meet the faults that are ordered."""
        environment = self.cluster.environment
        return environment | {
            "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}",
            "PIDFLOW_SLURM_PARTITION": PARTITION,
            "PIDFLOW_SLURM_ACCOUNT": ACCOUNT,
            "PIDFLOW_SLURM_POLL": "1",
            "PIDFLOW_TEST_FAULTS": str(self.orders),
            "PYTHONPATH": str(FAULTS),
            "PYTHONWARNINGS": "ignore",
        }

    def remove(self, *patterns: str) -> None:
        """Remove the registry and what the patterns match, as if it had not been made yet."""
        for pattern in ("registry", *patterns):
            found = list(self.folder.glob(pattern))
            assert found, f"nothing matches {pattern}"
            for path in found:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def start(self, *runs: int) -> subprocess.Popen[bytes]:
        """Start Snakemake by the profile, up to the publication of the given runs, or of the one that faults meet."""
        with open(self.output, "ab") as output:
            head = subprocess.Popen(
                ["snakemake", *published(*(runs or (RUN,))), *OPTIONS],
                cwd=self.folder,
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._heads.append(head)
        return head

    def finish(self, head: subprocess.Popen[bytes]) -> None:
        """Wait until Snakemake ends, and well."""
        wait_until("Snakemake to end", lambda: head.poll() is not None, PATIENCE)
        assert head.returncode == 0, f"Snakemake ended with {head.returncode}"

    def run(self, *runs: int) -> None:
        """Process to the end."""
        self.finish(self.start(*runs))

    def recover(self) -> subprocess.CompletedProcess[str]:
        """Call the operator's script after Snakemake was killed."""
        return subprocess.run(
            ["profiles/slurm/recover.sh", *OPTIONS],
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=120,
        )

    def order(self, fault: str, script: str, content: str = "") -> None:
        """Order a fault in the processes of a script."""
        (self.orders / f"{fault}.{script}").write_text(content)

    def release(self, fault: str, script: str) -> None:
        """Take an order back."""
        (self.orders / f"{fault}.{script}").unlink()

    def met(self, fault: str, script: str) -> list[int]:
        """Return the number of the Slurm job of every process that met a fault, in order."""
        file = self.orders / f"met.{fault}.{script}"
        return [int(line) for line in file.read_text().split()] if file.exists() else []

    def wait_at_work(self, what: str, look: Callable[[], Found], pause: float = 0.1) -> Found:
        """Return what `look` finds, once it is true in a boolean sense; Snakemake must not end before."""

        def watch() -> Found:
            found = look()
            assert found or self._heads[-1].poll() is None, f"Snakemake ended before {what}"
            return found

        return wait_until(what, watch, PATIENCE, pause)

    def wait_for_fault(self, fault: str, script: str, times: int = 1) -> Job:
        """Wait until processes of a script have met a fault so many times; return the job of the last."""
        met = self.wait_at_work(
            f"{script} met {fault}, time {times}",
            lambda: met if len(met := self.met(fault, script)) >= times else [],
        )
        return self.job(met[-1])

    def jobs(self) -> list[Job]:
        """Return this production's jobs, oldest first."""
        return [job for job in self.cluster.jobs() if job.folder == str(self.folder)]

    def job(self, number: int) -> Job:
        """Return a job by its number."""
        return next(job for job in self.jobs() if job.number == number)

    def of_rule(self, rule: str) -> list[Job]:
        """Return every attempt at the jobs of a rule, oldest first."""
        return [job for job in self.jobs() if job.comment.startswith(f"rule_{rule}_wildcards_")]

    def log_of(self, job: Job) -> str:
        """Return what a job wrote to Slurm's log, which stays when it failed."""
        (file,) = self.folder.glob(f"logs/slurm/**/{job.number}.log")
        return file.read_text()

    def queue(self) -> list[Job]:
        """Return this production's jobs that wait or run."""
        return [job for job in self.jobs() if job.alive]

    def locks(self) -> list[Path]:
        """Return Snakemake's locks on the checkout."""
        return list(self.folder.glob(".snakemake/locks/*"))

    def log_of_training(self) -> str:
        """Return the training's log."""
        return (self.folder / f"logs/{RUN}/train_model/fse.log").read_text()

    def told(self) -> str:
        """Return the ends of what Snakemake, the failed jobs and the cluster's daemons wrote."""
        logs = [self.output, *sorted(self.folder.glob("logs/slurm/**/*.log"))]
        ends = [f"--- {log}\n{log.read_text(errors='replace')[-3000:]}" for log in logs if log.is_file()]
        return "\n".join([*ends, self.cluster.logs()])

    def end(self) -> None:
        """Leave no process and no job behind, whatever happened."""
        for head in self._heads:
            if head.poll() is None:
                head.send_signal(signal.SIGKILL)
                head.wait()
        for job in self.queue():
            self.cluster.command("scancel", str(job.number))
        wait_until("the production's jobs to end", lambda: not self.queue(), 60)
