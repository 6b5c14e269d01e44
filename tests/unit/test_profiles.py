"""Profiles and the container: what a site sets reaches the jobs, and nothing in them is about a rule that is gone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
import yte
from environments import locked

ROOT = Path(__file__).resolve().parents[2]
TRAINING = ("train_model", "train_adapted", "adapt_model", "train_oracle", "train_transfer", "tune_trial")


def profile(name: str) -> dict[str, Any]:
    with open(ROOT / "profiles" / name / "config.yaml") as stream:
        content: dict[str, Any] = yte.process_yaml(stream, require_use_yte=True)
    return content


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment of a site that sets nothing yet."""
    for variable in re.findall(r"PIDFLOW_\w+", "".join(path.read_text() for path in ROOT.glob("profiles/*/*.yaml"))):
        monkeypatch.delenv(variable, raising=False)
    return monkeypatch


def test_defaults_of_slurm(site: pytest.MonkeyPatch) -> None:
    slurm = profile("slurm")
    assert slurm["executor"] == "slurm" and slurm["retries"] == 2 and slurm["slurm-no-requeue"]
    assert slurm["default-resources"] == {
        "slurm_partition": "main",
        "slurm_account": "alice",
        "mem_mb": "attempt * 1000",
        "runtime": "attempt * 60",
    }
    assert slurm["set-resources"] == {rule: {"slurm_partition": "main"} for rule in TRAINING}


def test_a_site_sets_slurm(site: pytest.MonkeyPatch) -> None:
    values = {"PARTITION": "batch", "ACCOUNT": "u1", "TRAINING_PARTITION": "gpu", "TRAINING_GPUS": "1", "JOBS": "7"}
    for name, value in (values | {"POLL": "3", "STATUS": "sacct"}).items():
        site.setenv(f"PIDFLOW_SLURM_{name}", value)
    slurm = profile("slurm")
    assert slurm["jobs"] == 7
    assert slurm["slurm-init-seconds-before-status-checks"] == 3
    assert slurm["slurm-status-command"] == "sacct"
    assert slurm["default-resources"]["slurm_partition"] == "batch"
    assert slurm["default-resources"]["slurm_account"] == "u1"
    assert slurm["set-resources"] == {rule: {"slurm_partition": "gpu", "gpu": 1} for rule in TRAINING}


def test_a_site_sets_htcondor(site: pytest.MonkeyPatch) -> None:
    assert "request_gpus" not in profile("htcondor")["set-resources"]["train_model"]
    site.setenv("PIDFLOW_HTCONDOR_GPUS", "2")
    site.setenv("PIDFLOW_HTCONDOR_GROUP", "group_u_TEST")
    site.setenv("PIDFLOW_HTCONDOR_JOBS", "9")
    condor = profile("htcondor")
    assert condor["jobs"] == 9
    assert condor["default-resources"]["classad_AccountingGroup"] == "group_u_TEST"
    assert all(condor["set-resources"][rule]["request_gpus"] == 2 for rule in TRAINING)


def test_the_workflow_profile_leaves_the_cluster_its_defaults() -> None:
    # whole keys are merged: default-resources here would delete those of the cluster's profile
    assert "default-resources" not in yaml.safe_load((ROOT / "profiles/default/config.yaml").read_text())


@pytest.mark.parametrize("name", ["slurm", "htcondor"])
def test_profiles_name_rules_that_exist(name: str, site: pytest.MonkeyPatch) -> None:
    text = "".join(path.read_text() for path in ROOT.glob("rules/*.smk"))
    rules = set(re.findall(r"^rule (\w+):", text, flags=re.MULTILINE)) | set(re.findall(r" as (\w+) with:", text))
    assert profile(name)["set-resources"].keys() <= rules


def test_the_container_is_made_of_the_lock() -> None:
    definition = (ROOT / "containers/pidflow.def").read_text()
    assert "pip install --no-cache-dir --requirement /opt/pidflow/requirements.lock" in definition
    assert "requirements.lock /opt/pidflow/requirements.lock" in definition
    assert not re.findall(r"\w==\d", definition), "a pin beside the lock"
    (imports,) = re.findall(r'python -c "import (.+)"', definition)
    distribution = {"sklearn": "scikit-learn", "torch": "pytorch"}
    assert {distribution.get(name, name) for name in imports.split(", ")} <= locked(ROOT / "requirements.lock").keys()
    python = yaml.safe_load((ROOT / "envs/tables.yaml").read_text())["dependencies"][0].partition("=")[2]
    assert f"From: python:{python}-" in definition
