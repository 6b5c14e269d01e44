"""Snakemake that deploys conda environments: alone in an environment of its own, with the client of this folder."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from pathlib import Path

from channel import closure
from checkout import Checkout
from environments import CONDA_NAME, ENVIRONMENTS, ROOT, pins

HERE = Path(__file__).parent
CACHE = ROOT / ".cache/conda-channel"
CONTROLLER = HERE / "controller.yaml"
# what would bring the caller's own Python into an environment
FOREIGN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX")


@dataclass(frozen=True)
class Deployment:
    """Snakemake in an environment of its own, and where it finds channels and puts environments.

    Attributes
    ----------
    channels
        Folder of the channels, and of the packages unpacked from them.
    folder
        Folder of the environments; on the file system of `channels`, they are hard links.
    """

    channels: Path
    folder: Path

    @property
    def controller(self) -> Path:
        """Prefix of the environment that Snakemake runs in."""
        return self.folder / "controller"

    @property
    def environment(self) -> dict[str, str]:
        """Variables of the processes."""
        kept = {name: value for name, value in os.environ.items() if name not in FOREIGN}
        path = os.pathsep.join([str(HERE / "bin"), str(self.controller / "bin"), os.defpath])
        return kept | {
            "PATH": path,
            "CONDA_PYTHON_EXE": sys.executable,
            "CONDA_CHANNEL_ALIAS": self.channels.as_uri(),
            "RATTLER_CACHE_DIR": str(self.channels / "packages"),
            "PYTHONNOUSERSITE": "1",
            "PYTHONWARNINGS": "ignore",
        }

    def _run(self, *command: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=folder,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=900,
        )

    def create(self, file: Path, prefix: Path) -> subprocess.CompletedProcess[str]:
        """Create an environment by the client alone."""
        return self._run("conda", "env", "create", "--file", file, "--prefix", prefix, folder=self.folder)

    def snakemake(self, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Call Snakemake with conda deployment in a folder; return the finished process, stderr in stdout."""
        command = ["snakemake", "--sdm", "conda", "--conda-prefix", str(self.folder), *arguments]
        return self._run(*command, folder=folder)

    def prefix(self, file: Path) -> Path:
        """Return the prefix of the environment that Snakemake made of a file."""
        (copy,) = (path for path in self.folder.glob("*.yaml") if path.read_text() == file.read_text())
        return copy.with_suffix("")


@dataclass(frozen=True)
class Production:
    """A production with conda: its checkout, and the prefixes that jobs were run in."""

    checkout: Checkout
    activated: set[Path]


def activated(output: str, folder: Path) -> set[Path]:
    """Return the prefixes that Snakemake, called in a folder, says it ran jobs in."""
    found = re.findall(r"^Activating conda environment: (.+)$", output, flags=re.MULTILINE)
    return {(folder / path).resolve() for path in found}


def make_channels() -> Path:
    """Return the folder of channels for all environments, made if it is not in the cache.

    Raises
    ------
    PackageNotFoundError
        An environment pins what is not installed here.
    """
    distribution_of = {package: name for name, package in CONDA_NAME.items()}
    pinned = {name for file in (*ENVIRONMENTS, CONTROLLER) for name in pins(file)} - {"python"}
    names = sorted(distribution_of.get(name, name) for name in pinned)
    try:
        versions = [f"{package.name}=={package.version}" for package in closure(names)]
    except PackageNotFoundError as error:
        raise PackageNotFoundError(f"{error.name}, which envs/ pin; install requirements.lock anew") from None
    key = "\n".join([sys.version, (HERE / "channel.py").read_text(), *versions])
    folder = CACHE / hashlib.sha256(key.encode()).hexdigest()[:16]
    if not folder.is_dir():
        shutil.rmtree(CACHE, ignore_errors=True)
        unfinished = CACHE / "unfinished"
        path = os.pathsep.join([str(ROOT / "tests"), str(ROOT / "workflow/scripts")])
        command = [sys.executable, str(HERE / "channel.py"), str(unfinished), *names]
        subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, check=True)
        unfinished.rename(folder)
    return folder
