"""The conda environments: pins equal to the lock, and enough for what each rule's script imports."""

from __future__ import annotations

from pathlib import Path

import pytest
from environments import (
    ENVIRONMENTS,
    ROOT,
    SCRIPTS,
    Rule,
    conda_name,
    differing,
    imported,
    locked,
    pins,
    rules,
    third_party,
)

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


PROGRAM = """
import one.deep, sys
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import never
    if sys.platform:
        from never.deep import thing
else:
    import two
if not TYPE_CHECKING:
    import three
def function():
    if sys.platform:
        from four import thing
    class Inner:
        import five
        from pidflow import six
        if TYPE_CHECKING:
            from never import other
"""


def test_imports_for_type_checkers_are_not_needed() -> None:
    assert third_party(PROGRAM) == {"one.deep", "two", "three", "four", "five"}


def test_scripts_that_load_by_name_need_what_is_loaded() -> None:
    found = {rule.name: rule for rule in rules()}
    of_models = {"train_model", "adapt_model", "select_model", "plot_adaptation", "score_simulation", "export_model"}
    assert of_models <= {name for name, rule in found.items() if rule.models}
    assert {name for name, rule in found.items() if rule.steps} == {"adapt_sample", "adapt_model"}
    for name in (*of_models, "adapt_sample"):
        assert found[name].environment == "models.yaml" and "torch" in imported(found[name])
    # what only one step imports, and only inside its methods
    alone = Rule("alone", "adapt_sample.py", "models.yaml")
    assert imported(alone) < imported(found["adapt_sample"])


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.name)
def test_environment_has_what_the_script_imports(rule: Rule) -> None:
    needed = {name.split(".")[0] for name in imported(rule)}
    packages = {conda_name(DISTRIBUTION_OF.get(name, name)) for name in needed}
    assert packages <= pins(ROOT / "envs" / rule.environment).keys()
