"""The model that the documentation adds."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from checkout import ROOT, copy_repository

PAGE = (ROOT / "docs/models.md").read_text(encoding="utf-8")
PYTHON, YAML = (re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)[1] for language in ("python", "yaml"))

# in a process of its own, since kinds are looked for once
USE = """
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from sklearn.metrics import roc_auc_score
from tracks_sample import make_dataset

from pidflow.config import validate
from pidflow.files import write_json
from pidflow.models import load
from pidflow.publish.export import export_bundle
from pidflow.publish.gate import check_bundle
from pidflow.train.data import read_tracks
from pidflow.train.fit import fit_model

folder, entry = Path(sys.argv[1]), {"width": 16, "optimisation": {"epochs": 4, "batch": 64, "learning_rate": 0.01}}
species, features = (211, 321, 2212), ("tpc_signal", "beta", "p", "sign")
content = {"models": {"fse": {}, "residual": entry}, "evaluate": {"methods": ["fse"]}}
settings = validate(content, "test").models["residual"]
pq.write_table(make_dataset(2400, seed=1), folder / "simulation.parquet")
write_json(folder / "features.json", {"features": features})
fit_model(
    folder / "simulation.parquet", folder / "features.json", folder / "response.json", folder / "residual", run=5,
    species=species, masks={"tof": 0.5, "trd": 0.8}, seed=1, settings=settings.model_dump(mode="json"), threads=1,
)
test = read_tracks(folder / "simulation.parquet", "test", features, species)
score = load(folder / "residual").score(test.features)
assert min(roc_auc_score(test.labels[:, n], score[:, n]) for n in range(3)) > 0.8
export_bundle(folder / "residual", folder / "bundle")
report = check_bundle(folder / "bundle", folder / "residual", 1e-5, dataset=folder / "simulation.parquet")
assert report["n_checks"] > 1000
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    copy = copy_repository(tmp_path).folder
    (copy / "workflow/scripts/pidflow/models/residual.py").write_text(PYTHON, encoding="utf-8")
    return copy


def test_is_short() -> None:
    assert len(PYTHON.splitlines()) + len(YAML.splitlines()) < 60


def test_is_fitted_scored_and_exported(folder: Path) -> None:
    path = [str(folder / "workflow/scripts"), str(ROOT / "tests/unit")]
    program = f"import sys; sys.path[:0] = {path!r}\n{USE}"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program, str(folder)], text=True, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_is_compared_with_the_others(folder: Path) -> None:
    (folder / "small.yaml").write_text(YAML, encoding="utf-8")
    assert set(yaml.safe_load(YAML)["models"]) == {"residual"}
    command = [sys.executable, "-m", "snakemake", "compare", "--configfile", "small.yaml", "--dry-run"]
    done = subprocess.run(command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout
    assert "Run 900001: train residual" in done.stdout
    assert "random_forest" not in re.findall(r"train (\w+)", done.stdout)
