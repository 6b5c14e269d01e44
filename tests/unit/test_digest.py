"""The digest of the code behind a script."""

import ast
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pidflow import digest as module

SCRIPTS = Path(module.__file__).parents[1]


def forget() -> None:
    module._imports.cache_clear()
    module.sources.cache_clear()


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
    # train_model.py → (in its block) train.fit → (in a function) train.gbdt
    changed = changed_by(tree, "pidflow/train/gbdt.py")
    assert {"train_model.py", "score_tracks.py"} <= changed
    assert not changed & {"ingest_files.py", "build_dataset.py", "fit_response.py", "plot_run.py"}


def test_a_stage_leaves_earlier_stages_alone(tree):
    changed = changed_by(tree, "pidflow/train/engine.py", "pidflow/publish/card.py")
    assert {"train_model.py", "adapt_model.py", "publish_model.py"} <= changed
    assert not changed & {"ingest_files.py", "simulate_ao2d.py", "build_dataset.py", "select_features.py"}


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
