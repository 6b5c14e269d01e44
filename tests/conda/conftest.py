"""Environments that Snakemake built by a conda client, and productions with and without them."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from checkout import Checkout, copy_repository
from deployment import CONTROLLER, Deployment, Production, activated, make_channels
from environments import ENVIRONMENTS, imported, pins, rules
from test_remote import Xrootd, authority, plain_environment, stranger, web, xrootd_folder

__all__ = ["authority", "plain_environment", "stranger", "web", "xrootd_folder"]

HERE = Path(__file__).parent
TARGETS = ["all", "crate"]

PROBE = """
rule {name}:
    output:
        "{name}.json"
    conda:
        "{file}"
    shell:
        "python -I {probe} {modules} > {{output}}"
"""


@pytest.fixture(scope="session")
def deployment() -> Iterator[Deployment]:
    """Snakemake alone in an environment, and no other environment yet."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    for file in ENVIRONMENTS:
        if pins(file)["python"] != python:
            pytest.fail(f"{file.name} pins Python {pins(file)['python']}, which must run these tests; this is {python}")
    channels = make_channels()
    with tempfile.TemporaryDirectory(prefix="environments-", dir=channels.parent) as folder:
        made = Deployment(channels, Path(folder))
        done = made.create(CONTROLLER, made.controller)
        assert done.returncode == 0, done.stdout
        yield made


@pytest.fixture(scope="session")
def probed(deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a job in each environment of the workflow says of itself, by the name of the environment's file."""
    folder = tmp_path_factory.mktemp("probes")
    text = ""
    for file in ENVIRONMENTS:
        modules = set().union(*(imported(rule) for rule in rules() if rule.environment == file.name))
        probe = HERE / "probe.py"
        text += PROBE.format(name=file.stem, file=file, probe=probe, modules=" ".join(sorted(modules)))
    (folder / "Snakefile").write_text(text)
    done = deployment.snakemake(folder, "--cores", "2", *(f"{file.stem}.json" for file in ENVIRONMENTS))
    assert done.returncode == 0, done.stdout[-5000:]
    return {file.name: json.loads((folder / f"{file.stem}.json").read_text()) for file in ENVIRONMENTS}


def without_closure(folder: Path) -> Checkout:
    """Copy the repository, for a production without closure, of which nothing is compared."""
    checkout = copy_repository(folder)
    with open(folder / "small.yaml", "a") as stream:
        stream.write("closure: {truth: null}\n")
    return checkout


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """Both example runs, published without conda, as on a laptop."""
    checkout = without_closure(tmp_path_factory.mktemp("plain"))
    done = checkout.snakemake("--", "registry/runs/900001.json", "registry/runs/900002.json")
    assert done.returncode == 0, done.stdout[-5000:]
    return checkout


@pytest.fixture(scope="session")
def production(deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Production:
    """Both example runs with everything that the workflow makes of them, every job in its conda environment."""
    checkout = without_closure(tmp_path_factory.mktemp("conda"))
    done = deployment.snakemake(checkout.folder, "--configfile", "small.yaml", "--", *TARGETS)
    assert done.returncode == 0, done.stdout[-5000:]
    return Production(checkout, activated(done.stdout, checkout.folder))


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A copy of the repository in which nothing has run."""
    return without_closure(tmp_path)


@pytest.fixture
def xrootd(xrootd_folder: Path) -> Iterator[Xrootd]:
    """An XRootD server, without which remote files cannot be tested."""
    if shutil.which("xrootd") is None:
        pytest.fail("needs the program xrootd (Debian package xrootd-server)")
    server = Xrootd(xrootd_folder)
    server.start()
    yield server
    server.kill()
