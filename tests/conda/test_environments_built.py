"""The environments of envs/, built by Snakemake through a conda client and used by the jobs of the workflow.

Snakemake lends a script what its own Python holds, after what the script's environment holds. Here it runs in an
environment that lacks what scripts import, and modules are looked up in each environment by an isolated interpreter.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from checkout import Checkout, artefacts
from deployment import HERE, Deployment, Production, activated
from environments import ENVIRONMENTS, ROOT, differing, imported, pins, rules
from test_remote import Web, Xrootd

from pidflow.config import load_runs

RUN = "900001"
SIMULATED = f"resources/example/{RUN}/simulation_001.root"
# what the Snakefile imports too; isolated interpreters show that every environment has its own
OF_SNAKEFILE = {"numpy", "pyarrow", "pydantic", "yaml"}

each_environment = pytest.mark.parametrize("file", ENVIRONMENTS, ids=lambda file: file.stem)


@each_environment
def test_solver_chose_the_pinned_versions(file: Path, deployment: Deployment, probed: dict[str, Any]) -> None:
    records = [json.loads(path.read_text()) for path in deployment.prefix(file).glob("conda-meta/*.json")]
    installed = {record["name"]: record["version"] for record in records}
    assert installed["python"].startswith(f"{pins(file)['python']}.")
    assert differing(pins(file) | {"python": installed["python"]}, installed) == {}


@each_environment
def test_modules_lie_in_the_environment(file: Path, deployment: Deployment, probed: dict[str, Any]) -> None:
    prefix = deployment.prefix(file)
    assert probed[file.name]["prefix"] == str(prefix)
    modules = probed[file.name]["modules"]
    assert {name: origin for name, origin in modules.items() if not origin.startswith(f"{prefix}/lib/")} == {}


def test_missing_module_is_told(deployment: Deployment, probed: dict[str, Any]) -> None:
    prefix = deployment.prefix(ROOT / "envs/fetch.yaml")
    command = [prefix / "bin/python", "-I", HERE / "probe.py", "aiohttp", "torch"]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)["modules"]
    assert told["aiohttp"].startswith(f"{prefix}/")
    assert told["torch"] == "ModuleNotFoundError: No module named 'torch'"


def test_snakemake_has_nothing_to_lend(deployment: Deployment) -> None:
    names = {name.split(".")[0] for rule in rules() for name in imported(rule)} - OF_SNAKEFILE
    command = [deployment.controller / "bin/python", "-I", HERE / "probe.py", *sorted(names)]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)["modules"]
    assert {name for name, origin in told.items() if not origin.startswith("ModuleNotFoundError")} == set()


def test_production_has_the_bytes_of_one_without_conda(production: Production, plain: Checkout) -> None:
    expected = artefacts(plain.folder)
    for kind in ("/ingest/", "/dataset/simulation.parquet", "/dataset/features.json", ".onnx"):
        for run in ("900001", "900002"):
            assert [name for name in expected if f"/{run}/" in name and kind in name], f"{run} has no {kind}"
    assert artefacts(production.checkout.folder) == expected


def test_jobs_ran_in_every_environment(production: Production, deployment: Deployment) -> None:
    """But in that of remote files, which the example does not have (a test of their own), and that of the search."""
    others = ("fetch", "tune")
    assert production.activated == {deployment.prefix(file) for file in ENVIRONMENTS if file.stem not in others}
    assert (production.checkout.folder / "results/report.html").stat().st_size > 0


def test_remote_files_are_fetched(checkout: Checkout, deployment: Deployment, web: Web, xrootd: Xrootd) -> None:
    content = {"/https.root": b"over HTTPS", "root.root": b"over XRootD"}
    web.files["/https.root"] = content["/https.root"]
    addresses = [web.uri("/https.root"), xrootd.add("root.root", content["root.root"])]
    table = checkout.folder / "config/runs.tsv"
    files = ";".join(f"resources/example/{RUN}/data_00{number}.root" for number in (1, 2))
    table.write_text(table.read_text().replace(files, ";".join(addresses)))
    keys = load_runs(table, "resources/example")[int(RUN)].files("data")
    wanted = [f"results/{RUN}/fetched/data/{key}" for key in keys]
    done = deployment.snakemake(checkout.folder, "--configfile", "small.yaml", "--notemp", "--", *wanted)
    assert done.returncode == 0, done.stdout[-5000:]
    copies = sorted(path.read_bytes() for folder in wanted for path in (checkout.folder / folder).glob("*.root"))
    assert copies == sorted(content.values())
    assert len(activated(done.stdout, checkout.folder)) == 1


def test_job_fails_in_an_environment_that_lacks_a_package(checkout: Checkout, deployment: Deployment) -> None:
    file = checkout.folder / "envs/simulate.yaml"
    file.write_text(re.sub(r"  - chromo=.*\n", "", file.read_text()))
    done = deployment.snakemake(checkout.folder, "--configfile", "small.yaml", "--", SIMULATED)
    assert done.returncode != 0
    assert "ModuleNotFoundError: No module named 'chromo'" in done.stdout


def test_pin_without_a_package_is_refused(checkout: Checkout, deployment: Deployment) -> None:
    file = checkout.folder / "envs/simulate.yaml"
    file.write_text(re.sub(r"chromo=.*\n", "chromo=0.0.1\n", file.read_text()))
    done = deployment.snakemake(checkout.folder, "--configfile", "small.yaml", "--", SIMULATED)
    assert done.returncode != 0
    assert re.search(r"Could not create conda environment.*chromo 0\.0\.1", done.stdout, flags=re.DOTALL)
