"""What the conda environments pin, which rules use them, and what the scripts of those rules import."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from pidflow.digest import sources

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENTS = sorted((ROOT / "envs").glob("*.yaml"))
SCRIPTS = ROOT / "workflow/scripts"

# distributions whose conda package has another name
CONDA_NAME = {"torch": "pytorch", "snakemake": "snakemake-minimal", "xgboost-cpu": "py-xgboost-cpu"}


@dataclass(frozen=True)
class Rule:
    """A rule that does something.

    Attributes
    ----------
    name, script, environment
        Its name, its script if that is what it runs, its environment if it names one.
    models, steps
        Whether its script loads models or steps of adaptation, of kinds that are known by name only.
    """

    name: str
    script: str | None
    environment: str | None
    models: bool = False
    steps: bool = False


def conda_name(distribution: str) -> str:
    """Return the name of the conda package of a Python distribution."""
    name = re.sub(r"[-_.]+", "-", distribution).lower()
    return CONDA_NAME.get(name, name)


def pins(environment: Path) -> dict[str, str]:
    """Return the version of every conda package that an environment names."""
    content = yaml.safe_load(environment.read_text())
    return dict(entry.split("=") for entry in content["dependencies"])


def locked(lock: Path) -> dict[str, str]:
    """Return the version of every distribution in a lock file, by the name of its conda package."""
    lines = (line.partition("#")[0].strip() for line in lock.read_text().splitlines())
    return {conda_name(name): version for name, version in (line.split("==") for line in lines if line)}


def differing(pinned: dict[str, str], others: dict[str, str]) -> dict[str, tuple[str, str | None]]:
    """Return the packages whose pinned version is not that of others, with both versions."""
    return {name: (pin, others.get(name)) for name, pin in pinned.items() if others.get(name) != pin}


def rules(files: Iterable[Path] = (ROOT / "Snakefile", *sorted((ROOT / "rules").glob("*.smk")))) -> list[Rule]:
    """Return every rule that does something; one that only inherits what it does is left out."""
    found = []
    for file in files:
        for text in re.split(r"^(?:use )?rule ", file.read_text(), flags=re.MULTILINE)[1:]:
            name = re.match(r"\w+", text)
            action = re.search(r"^    (?:script|shell|run|notebook|wrapper|cwl):", text, flags=re.MULTILINE)
            if name and action:
                script = re.search(r"^    script:\s+\"\.\./workflow/scripts/(\w+\.py)\"", text, flags=re.MULTILINE)
                environment = re.search(r"^    conda:\s+\"\.\./envs/(\w+\.yaml)\"", text, flags=re.MULTILINE)
                models = re.search(r"^        kinds=", text, flags=re.MULTILINE) is not None
                steps = "step_kinds(" in text
                found.append(Rule(name[0], script and script[1], environment and environment[1], models, steps))
    return found


def executed(node: ast.AST) -> Iterator[ast.AST]:
    """Yield a node and all below it that can run: what is under ``if TYPE_CHECKING`` is for type checkers alone."""
    yield node
    alone = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    for below in node.orelse if alone else ast.iter_child_nodes(node):  # type: ignore[attr-defined]
        yield from executed(below)


def third_party(text: str) -> set[str]:
    """Return the dotted names of the modules from other projects that a program imports, at any depth of its code."""
    names: set[str] = set()
    for node in executed(ast.parse(text)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name for name in names if name.split(".")[0] not in {*sys.stdlib_module_names, "pidflow"}}


def imported(rule: Rule) -> set[str]:
    """Return the modules from other projects that a rule's script and the package files behind it import."""
    roots = [SCRIPTS / (rule.script or "")]
    for folder, loaded in {"models": rule.models, "adapt/steps": rule.steps}.items():
        roots.extend((SCRIPTS / "pidflow" / folder).glob("*.py") if loaded else ())
    return {name for root in roots for path in sources(root) for name in third_party(path.read_text())}
