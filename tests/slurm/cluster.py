"""A Slurm cluster on this machine: a controller and nodes as processes of the caller, all files in one folder.

Debian's Slurm 22.05 runs without systemd and cgroups. Nothing of the machine is touched: munge has a key and a socket
of its own, clients find the cluster by ``SLURM_CONF``. Root is needed, since Slurm runs jobs as their owner.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

DAEMONS = {"munged": "munge", "slurmctld": "slurmctld", "slurmd": "slurmd", "sbatch": "slurm-client"}
PARTITION, ACCOUNT = "test", "test"
Found = TypeVar("Found")

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
ReturnToService=2
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmdSpoolDir={folder}/spool/%n
StateSaveLocation={folder}/state
SchedulerParameters=batch_sched_delay=0,bf_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
# nodes may promise more than the machine has
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/none
# memory is enforced by looking at the processes, for want of cgroups
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
MinJobAge=3600
KillWait=2
SlurmctldTimeout=30
SlurmdTimeout={node_timeout}
MessageTimeout=5
PartitionName={partition} Nodes=ALL Default=YES MaxTime=1-00:00:00 State=UP
"""


@dataclass(frozen=True)
class Job:
    """What the controller knows of a job; times are ISO, in one time zone."""

    number: int
    state: str
    node: str
    folder: str
    comment: str
    memory_mb: int
    start: str
    end: str

    @property
    def alive(self) -> bool:
        """Whether it waits or runs."""
        return self.state in ("PENDING", "RUNNING", "CONFIGURING", "COMPLETING")


def wait_until(what: str, look: Callable[[], Found], seconds: float, pause: float = 0.1) -> Found:
    """Return what `look` finds, once it is true in a boolean sense; `TimeoutError` names what was waited for."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(pause)
    return found


def what_is_missing() -> str | None:
    """Return one sentence that says why no cluster can be started here, or None."""
    packages = [package for command, package in DAEMONS.items() if shutil.which(command) is None]
    if packages:
        return f"The test cluster needs Slurm: apt-get install --no-install-recommends {' '.join(packages)}"
    if os.geteuid() != 0:
        return "The test cluster needs root: run it in a container, where Slurm may start jobs as their owner"
    return None


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _processes_with(*variables: str) -> list[int]:
    """Return the processes that were started with all these variables, each a name=value."""
    wanted = {variable.encode() for variable in variables}
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        # a process may end meanwhile
        with contextlib.suppress(OSError):
            if wanted <= set((folder / "environ").read_bytes().split(b"\0")):
                found.append(int(folder.name))
    return found


@dataclass
class Cluster:
    """A running cluster; `cluster` makes one.

    Attributes
    ----------
    folder
        Configuration, state, spool and logs.
    nodes
        Port of each node's daemon, by its name.
    cpus, memory_mb
        What each node promises.
    node_timeout
        Seconds after which a silent node counts as down.
    """

    folder: Path
    nodes: dict[str, int]
    cpus: int = 2
    memory_mb: int = 8000
    node_timeout: int = 6
    _daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """Environment in which Slurm's commands find this cluster, and by which it knows its processes."""
        return {
            **os.environ,
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "SLURM_CONF": str(self.folder / "slurm.conf"),
            "PIDFLOW_TEST_CLUSTER": str(self.folder),
        }

    def start(self) -> None:
        """Start all daemons and wait until a job has run on every node."""
        for name in ("bin", "log", "spool", "state"):
            (self.folder / name).mkdir()
        # Snakemake's job step drops SLURM_CONF like every variable of that prefix
        srun = self.folder / "bin" / "srun"
        srun.write_text(f'#!/bin/sh\nSLURM_CONF={self.folder}/slurm.conf exec {shutil.which("srun")} "$@"\n')
        srun.chmod(0o755)
        (self.folder / "munge.key").write_bytes(os.urandom(1024))
        (self.folder / "munge.key").chmod(0o400)
        host = platform.node().partition(".")[0]
        (controller,) = _free_ports(1)
        text = CONFIGURATION.format(
            folder=self.folder,
            host=host,
            controller=controller,
            node_timeout=self.node_timeout,
            partition=PARTITION,
        )
        for name, port in self.nodes.items():
            text += (
                f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port}"
                f" CPUs={self.cpus} RealMemory={self.memory_mb} State=UNKNOWN\n"
            )
        (self.folder / "slurm.conf").write_text(text)
        munge = [
            f"--{name}={self.folder}/munge.{name.partition('-')[0]}" for name in ("key-file", "pid-file", "socket")
        ]
        munge += [f"--log-file={self.folder}/munge.log", f"--seed-file={self.folder}/munge.seed"]
        self._start_daemon("munged", "munged", "--foreground", "--force", *munge)
        wait_until("munge to open its socket", (self.folder / "munge.socket").exists, 20)
        self.start_controller()
        for name in self.nodes:
            self.start_node(name)
        self.command("srun", f"--nodes={len(self.nodes)}", "--time=1", "--mem=50", "true", timeout=60)

    def _start_daemon(self, name: str, *command: str, **environment: str) -> None:
        with open(self.folder / "log" / f"{name}.log", "ab") as output:
            self._daemons[name] = subprocess.Popen(
                command,
                env=self.environment | environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def command(self, *command: str, timeout: float = 30) -> str:
        """Run a command of Slurm and return what it prints."""
        done = subprocess.run(
            command, env=self.environment, text=True, capture_output=True, check=False, timeout=timeout
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}\n{self.logs()}"
        return done.stdout

    def start_controller(self) -> None:
        """Start the controller and wait until it answers."""
        self._start_daemon("slurmctld", "slurmctld", "-D")
        wait_until("the controller to answer", self._controller_answers, 30)

    def _controller_answers(self) -> bool:
        done = subprocess.run(["scontrol", "ping"], env=self.environment, text=True, capture_output=True, check=False)
        return "is UP" in done.stdout

    def stop_controller(self, how: signal.Signals) -> None:
        """End the controller by a signal and wait until it is gone."""
        daemon = self._daemons.pop("slurmctld")
        daemon.send_signal(how)
        daemon.wait(timeout=30)

    def start_node(self, name: str) -> None:
        """Start a node's daemon and wait until the node takes jobs."""
        # the daemon's children inherit the variable, which tells whose they are
        self._start_daemon(name, "slurmd", "-D", "-N", name, PIDFLOW_TEST_NODE=name)
        ready = ("idle", "mixed", "allocated")
        wait_until(
            f"{name} to take jobs",
            lambda: self.command("sinfo", "--noheader", f"--nodes={name}", "--format=%T").strip() in ready,
            60,
        )

    def kill_node(self, name: str) -> None:
        """Kill a node's daemon and everything that runs on it, as if the host had died."""
        daemon = self._daemons.pop(name)
        daemon.kill()
        daemon.wait()
        # the first variable is that of Slurm's own processes on the node, the second that of the jobs
        self._kill_processes(f"PIDFLOW_TEST_NODE={name}")
        self._kill_processes(f"SLURMD_NODENAME={name}")

    def _kill_processes(self, *variables: str) -> None:
        variables += (f"PIDFLOW_TEST_CLUSTER={self.folder}",)

        def none_left() -> bool:
            left = _processes_with(*variables)
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not left

        wait_until(f"processes with {' and '.join(variables)} to end", none_left, 20)

    def jobs(self) -> list[Job]:
        """Return every job that the controller knows, ended ones included, oldest first."""
        lines = self.command("scontrol", "--oneliner", "show", "jobs").splitlines()
        return sorted((_job(line) for line in lines if line.startswith("JobId=")), key=lambda job: job.number)

    def queue(self) -> list[Job]:
        """Return the jobs that wait or run."""
        return [job for job in self.jobs() if job.alive]

    def logs(self, lines: int = 15) -> str:
        """Return the ends of the daemons' logs."""
        files = sorted(file for file in (self.folder / "log").iterdir() if file.stat().st_size)
        ends = ["\n".join(file.read_text(errors="replace").splitlines()[-lines:]) for file in files]
        return "\n".join(f"--- {file.name}\n{end}" for file, end in zip(files, ends, strict=True))

    def stop(self) -> None:
        """End every process of the cluster and of its jobs."""
        for daemon in self._daemons.values():
            daemon.terminate()
        for daemon in self._daemons.values():
            daemon.wait(timeout=30)
        self._daemons.clear()
        self._kill_processes()


def _job(line: str) -> Job:
    # a value may hold blanks and further equals signs; the first of each name is the one meant
    fields: dict[str, str] = {}
    for word in line.split(" "):
        name, _, value = word.partition("=")
        fields.setdefault(name, value)
    memory = next((part for part in fields.get("TRES", "").split(",") if part.startswith("mem=")), "mem=0M")
    number, unit = memory[4:-1], memory[-1]
    return Job(
        number=int(fields["JobId"]),
        state=fields["JobState"],
        node=fields.get("NodeList", ""),
        folder=fields.get("WorkDir", ""),
        comment=fields.get("Comment", ""),
        memory_mb=int(float(number) * {"M": 1, "G": 1024}[unit]),
        start=fields["StartTime"],
        end=fields["EndTime"],
    )


@contextlib.contextmanager
def cluster(folder: Path, nodes: int = 2, **promised: int) -> Iterator[Cluster]:
    """Run a cluster for the length of the block; `promised` are the `cpus` and `memory_mb` of each node."""
    ports = _free_ports(nodes)
    running = Cluster(folder, {f"node{number}": port for number, port in enumerate(ports, start=1)}, **promised)
    try:
        running.start()
        yield running
    finally:
        running.stop()
