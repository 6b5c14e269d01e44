"""The digest of the code behind a script."""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pidflow import digest as module

SCRIPTS = Path(module.__file__).parents[1]


def forget() -> None:
    module._imports.cache_clear()
    module.sources.cache_clear()
    module.digest.cache_clear()


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the scripts and their package."""
    copy = shutil.copytree(SCRIPTS, tmp_path / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(module, "_ROOT", Path(copy))
    forget()
    yield Path(copy)
    forget()


def digests(tree: Path) -> dict[str, str]:
    forget()
    return {path.name: module.digest(path.name) for path in sorted(tree.glob("*.py"))}


def changed_by(tree: Path, *files: str) -> set[str]:
    before = digests(tree)
    for name in files:
        path = tree / name
        path.write_text(path.read_text(encoding="utf-8") + "\n# a change\n", encoding="utf-8")
    after = digests(tree)
    return {name for name in before if before[name] != after[name]}


def test_form_and_stability(tree):
    first = digests(tree)
    assert all(re.fullmatch(r"[0-9a-f]{16}", value) for value in first.values())
    assert len(set(first.values())) == len(first)
    assert digests(tree) == first


def test_a_script_changes_its_own_digest_only(tree):
    assert changed_by(tree, "train_model.py") == {"train_model.py"}


def test_module_behind_everything(tree):
    assert changed_by(tree, "pidflow/errors.py") == set(digests(tree))


def test_transitive_import_inside_functions(tree):
    # adapt_model.py → (in its block) adapt.network → train.network → networks.calibration
    changed = changed_by(tree, "pidflow/networks/calibration.py")
    assert "adapt_model.py" in changed
    assert not changed & {"ingest_files.py", "build_dataset.py", "fit_response.py", "plot_run.py"}


def test_a_stage_leaves_earlier_stages_alone(tree):
    changed = changed_by(tree, "pidflow/train/engine.py", "pidflow/train/network.py", "pidflow/publish/card.py")
    assert {"adapt_model.py", "publish_model.py"} <= changed
    earlier = {"ingest_files.py", "simulate_ao2d.py", "check_inputs.py", "build_dataset.py", "select_features.py"}
    assert not changed & earlier
    changed = changed_by(tree, "pidflow/adapt/sample.py", "pidflow/adapt/network.py", "pidflow/adapt/choice/select.py")
    assert changed == {"adapt_sample.py", "adapt_model.py", "select_model.py"}


KINDS = tuple(sorted(path.stem for path in (SCRIPTS / "pidflow/models").glob("[!_]*.py")))


@pytest.mark.parametrize("script", ["train_model.py", "score_tracks.py", "export_model.py"])
@pytest.mark.parametrize(
    ("file", "kinds"),
    [
        ("pidflow/models/gbdt.py", {"gbdt"}),
        ("pidflow/train/trees.py", {"gbdt", "random_forest"}),
        ("pidflow/models/fse.py", {"fse", "deep_ensemble"}),
        ("pidflow/networks/fse.py", {"fse", "deep_ensemble"}),
        ("pidflow/networks/tabm.py", {"tabm"}),
        ("pidflow/models/members.py", {"deep_ensemble", "blend"}),
    ],
)
def test_model_changes_the_digest_of_its_own_kind(tree, script, file, kinds):
    def of_kinds() -> dict[str, str]:
        forget()
        return {kind: module.digest(f"{script} {kind}") for kind in KINDS if kind not in ("base", "members", "network")}

    before = of_kinds()
    assert len(set(before.values())) == len(before) >= 8
    (tree / file).write_text((tree / file).read_text(encoding="utf-8") + "\n# a change\n", encoding="utf-8")
    after = of_kinds()
    assert {kind for kind in before if before[kind] != after[kind]} == kinds


STEPS = tuple(sorted(path.stem for path in (SCRIPTS / "pidflow/adapt/steps").glob("[!_]*.py") if path.stem != "base"))


@pytest.mark.parametrize("program", ["adapt_sample.py", "adapt_model.py fse"])
@pytest.mark.parametrize(
    ("file", "kinds"),
    [
        ("pidflow/adapt/steps/dann.py", {"dann"}),
        ("pidflow/adapt/steps/calibrate_response.py", {"calibrate_response"}),
        ("pidflow/adapt/response/calibration.py", {"calibrate_response"}),
        ("pidflow/adapt/response/matching.py", {"calibrate_response"}),
        ("pidflow/adapt/reversal.py", {"dann", "cdan", "decorrelate"}),
        ("pidflow/adapt/steps/base.py", set(STEPS)),
        ("pidflow/adapt/steps/__init__.py", set(STEPS)),
    ],
)
def test_step_changes_the_digest_of_its_own_kind(tree, program, file, kinds):
    def of_kinds() -> dict[str, str]:
        forget()
        return {kind: module.digest(f"{program} adapt.steps.{kind}") for kind in STEPS}

    before = of_kinds()
    assert len(set(before.values())) == len(before) >= 8
    (tree / file).write_text((tree / file).read_text(encoding="utf-8") + "\n# a change\n", encoding="utf-8")
    after = of_kinds()
    assert {kind for kind in before if before[kind] != after[kind]} == kinds


def test_a_step_leaves_training_alone(tree):
    def of_training() -> dict[str, str]:
        forget()
        return {name: module.digest(f"{name} fse") for name in ("train_model.py", "score_tracks.py", "export_model.py")}

    before = of_training()
    for file in (
        *(f"steps/{kind}.py" for kind in STEPS),
        "sample.py",
        "network.py",
        "response/fit.py",
        "choice/select.py",
    ):
        path = tree / "pidflow/adapt" / file
        path.write_text(path.read_text(encoding="utf-8") + "\n# a change\n", encoding="utf-8")
    assert of_training() == before


def test_digest_of_model_and_step(tree):
    both = module.digest("adapt_model.py fse adapt.steps.dann")
    others = ("adapt_model.py fse", "adapt_model.py adapt.steps.dann", "adapt_model.py fse adapt.steps.mmd")
    assert both not in {module.digest(program) for program in (*others, "adapt_model.py tabm adapt.steps.dann")}
    assert both == module.digest("adapt_model.py adapt.steps.dann fse")


def test_digest_of_several_kinds(tree):
    both = module.digest("score_tracks.py fse gbdt")
    assert both not in (module.digest("score_tracks.py fse"), module.digest("score_tracks.py gbdt"))
    assert both == module.digest("score_tracks.py gbdt fse")


NEW_KIND = """
from typing import Literal
import numpy as np
from pidflow.models import base

class Settings(base.ModelSettings):
    \"\"\"The same certainty for all.\"\"\"

    kind: Literal["constant"] = "constant"
    value: float = 0.5

class Model(base.Model[Settings]):
    Settings = Settings

    def fit(self, train, validation, fitting):
        pass

    def score(self, features):
        return np.full((len(features), len(self.info.species)), self.settings.value, np.float32)
"""

USE = """
import numpy as np
from pidflow.config import validate
from pidflow.digest import digest
from pidflow.model import ModelInfo
from pidflow.models import kinds, load
assert "constant" in kinds()
models = {"models": {"nsigma": {}, "gbdt": {}, "fse": {}, "flat": {"kind": "constant", "value": 0.25}}}
entry = validate(models, "here").models["flat"]
info = ModelInfo(kind="constant", run=1, species=(211, 321), features=("p",), masks={}, seed=0,
                 settings=entry.model_dump(mode="json"))
info.write("model")
assert load("model").score(np.zeros((3, 1), np.float32)).tolist() == [[0.25, 0.25]] * 3
assert digest("train_model.py constant") != digest("train_model.py gbdt")
"""


def test_a_new_file_is_a_new_kind(tree, tmp_path):
    (tree / "pidflow/models/constant.py").write_text(NEW_KIND)
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    subprocess.run([sys.executable, "-c", USE], check=True, cwd=tmp_path, env=environment)


def test_comment_is_a_change_and_a_foreign_file_is_not(tree):
    before = digests(tree)
    (tree / "pidflow" / "unused.py").write_text("x = 1\n")
    assert digests(tree) == before


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package in which every way to import occurs once."""
    contents = {
        "script.py": "import pidflow.a\nif True:\n    from pidflow.jobs import job\n",
        "pidflow/__init__.py": "",
        "pidflow/jobs.py": "import os\n",
        "pidflow/a.py": "def f():\n    from pidflow.deep import b\n",
        "pidflow/deep/__init__.py": "from pidflow.other import thing\n",
        "pidflow/deep/b.py": "class C:\n    def g(self):\n        import pidflow.deep.c as c\n",
        "pidflow/deep/c.py": "import pidflow.a\n",
        "pidflow/other.py": "thing = 1\n",
        "pidflow/unused.py": "import pidflow.a\n",
    }
    for name, text in contents.items():
        path = tmp_path / "small" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(module, "_ROOT", tmp_path / "small")
    forget()
    yield tmp_path / "small"
    forget()


def test_sources_are_exactly_what_is_imported(small):
    found = {path.relative_to(small).as_posix() for path in module.sources(small / "script.py")}
    everything = {path.relative_to(small).as_posix() for path in small.rglob("*.py")}
    assert found == everything - {"pidflow/unused.py"}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("pidflow/__init__.py", True),
        ("pidflow/deep/__init__.py", True),
        ("pidflow/deep/c.py", True),
        ("pidflow/other.py", True),
        ("pidflow/unused.py", False),
    ],
)
def test_digest_follows_the_sources(small, name, changes):
    assert (changed_by(small, name) == {"script.py"}) is changes


def test_renamed_module_is_a_change(small):
    before = module.digest("script.py")
    (small / "pidflow/other.py").rename(small / "pidflow/another.py")
    (small / "pidflow/deep/__init__.py").write_text("from pidflow.another import thing\n")
    forget()
    assert module.digest("script.py") != before


def imported(path: Path) -> set[Path]:
    """Return the package's files that one file imports, by its syntax tree."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update({node.module, *(f"{node.module}.{alias.name}" for alias in node.names)})
    own = [name.split(".") for name in names if name.split(".")[0] == "pidflow"]
    stems = {SCRIPTS.joinpath(*parts[:n]) for parts in own for n in range(1, len(parts) + 1)}
    candidates = {path for stem in stems for path in (stem.with_suffix(".py"), stem / "__init__.py")}
    return {path for path in candidates if path.is_file()}


def test_imports_are_those_of_the_syntax_tree():
    forget()
    files = sorted(SCRIPTS.rglob("*.py"))
    assert len(files) > 100
    assert {path: set(module._imports(path)) for path in files} == {path: imported(path) for path in files}
