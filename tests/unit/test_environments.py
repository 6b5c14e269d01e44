"""The conda environments: pins equal to the lock, and enough for what each rule's script imports."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest
import yaml

from pidflow.digest import sources

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENTS = sorted((ROOT / "envs").glob("*.yaml"))
SCRIPTS = ROOT / "workflow/scripts"

LOCK_NAME = {"pytorch": "torch", "snakemake-minimal": "snakemake", "fsspec-xrootd": "fsspec_xrootd"}
PACKAGE_OF = {"yaml": "pyyaml", "sklearn": "scikit-learn", "torch": "pytorch"}


def pins(path: Path) -> dict[str, str]:
    content = yaml.safe_load(path.read_text())
    return dict(entry.split("=") for entry in content["dependencies"])


def lock() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return {name.lower(): version for name, version in (line.split("==") for line in lines if line[0] != "#")}


def rules() -> list[tuple[str, str]]:
    """Return script and environment of every rule that names both."""
    found = []
    for file in sorted((ROOT / "rules").glob("*.smk")):
        for rule in re.split(r"^(?:use )?rule ", file.read_text(), flags=re.MULTILINE)[1:]:
            script = re.search(r"workflow/scripts/(\w+\.py)\"\n", rule)
            environment = re.search(r"envs/(\w+\.yaml)", rule)
            if script and environment:
                found.append((script[1], environment[1]))
    return found


def third_party(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {"pidflow"}


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.stem)
def test_pins_equal_the_lock(path: Path) -> None:
    locked = lock()
    own = pins(path)
    own.pop("python")
    assert own
    for name, version in own.items():
        assert locked[LOCK_NAME.get(name, name)] == version, f"{path.name}: {name}={version} differs from the lock"


def test_every_script_has_a_rule_with_an_environment() -> None:
    used = {script for script, _ in rules()}
    assert used == {path.name for path in SCRIPTS.glob("*.py")}


@pytest.mark.parametrize(("script", "environment"), rules())
def test_environment_has_what_the_script_imports(script: str, environment: str) -> None:
    needed = set().union(*(third_party(path) for path in sources(SCRIPTS / script)))
    packages = {PACKAGE_OF.get(name, name) for name in needed}
    assert packages <= pins(ROOT / "envs" / environment).keys()
