"""The conda environments: pins equal to the lock, and enough for what each rule's script imports."""

from __future__ import annotations

from pathlib import Path

import pytest
from environments import ENVIRONMENTS, ROOT, SCRIPTS, Rule, conda_name, differing, imported, locked, pins, rules

DISTRIBUTION_OF = {"yaml": "pyyaml", "sklearn": "scikit-learn", "xgboost": "xgboost-cpu"}
LOCK = ROOT / "requirements.lock"
PINNED = [*ENVIRONMENTS, ROOT / "tests/conda/controller.yaml"]


def own_pins(path: Path) -> dict[str, str]:
    """Return what an environment pins beside the interpreter, which no lock names."""
    return {name: version for name, version in pins(path).items() if name != "python"}


@pytest.mark.parametrize("path", PINNED, ids=lambda path: path.stem)
def test_pins_equal_the_lock(path: Path) -> None:
    assert own_pins(path)
    assert differing(own_pins(path), locked(LOCK)) == {}


@pytest.mark.parametrize("path", PINNED, ids=lambda path: path.stem)
def test_one_changed_pin_is_noticed(path: Path, tmp_path: Path) -> None:
    for name, version in own_pins(path).items():
        copy = tmp_path / path.name
        copy.write_text(path.read_text().replace(f" {name}={version}\n", f" {name}={version}1\n"))
        assert differing(own_pins(copy), locked(LOCK)) == {name: (f"{version}1", version)}
        copy.write_text(path.read_text().replace(f" {name}={version}\n", f" {name}-x={version}\n"))
        assert differing(own_pins(copy), locked(LOCK)) == {f"{name}-x": (version, None)}


def test_every_rule_has_an_environment_and_every_environment_a_rule() -> None:
    assert [rule.name for rule in rules() if rule.environment is None] == []
    assert {rule.environment for rule in rules()} == {path.name for path in ENVIRONMENTS}


def test_rule_without_an_environment_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "own.smk"
    file.write_text('rule a:\n    shell:\n        "true"\n\n\nrule b:\n    input:\n        "x",\n')
    assert rules([file]) == [Rule("a", None, None)]


def test_every_script_has_a_rule() -> None:
    assert {rule.script for rule in rules()} == {path.name for path in SCRIPTS.glob("*.py")}


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.name)
def test_environment_has_what_the_script_imports(rule: Rule) -> None:
    needed = {name.split(".")[0] for name in imported(rule)}
    packages = {conda_name(DISTRIBUTION_OF.get(name, name)) for name in needed}
    assert packages <= pins(ROOT / "envs" / rule.environment).keys()
