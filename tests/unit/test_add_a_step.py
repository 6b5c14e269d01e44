"""The step that the documentation adds."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from adapt_runs import FEATURES, folder_fixture, model_fixture  # noqa: F401
from checkout import ROOT, copy_repository
from models_sample import library_state  # noqa: F401

from pidflow.adapt import steps
from pidflow.adapt.network import adapt_network
from pidflow.model import read_info
from pidflow.models import load
from pidflow.train.data import read_features

pytestmark = pytest.mark.usefixtures("library_state")

SECTION = (
    (ROOT / "docs/adaptation.md").read_text(encoding="utf-8").partition("\n## Add a step\n")[2].partition("\n## ")[0]
)
PYTHON = re.search(r"```python\n(.*?)```", SECTION, re.DOTALL)[1]
YAML = re.search(r"`(adapt: .*?)` makes it a candidate", SECTION)[1]

# in a process of its own, since the configuration looks for kinds once
USE = """
import sys

import yaml

from pidflow.config import validate

adapt = validate(yaml.safe_load(sys.argv[1]), "test").adapt
assert adapt.chains["confident"] == ("calibrate_response", "confidence"), adapt.chains
assert not adapt.changes_sample("confidence") and adapt.sample_of("confident") == "calibrate_response"
"""


@pytest.fixture
def confidence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Name a kind of step that is the page's code in one more file."""
    (tmp_path / "steps").mkdir()
    (tmp_path / "steps/confidence.py").write_text(PYTHON, encoding="utf-8")
    monkeypatch.setattr(steps, "__path__", [*steps.__path__, str(tmp_path / "steps")])
    steps.kinds.cache_clear()
    yield "confidence"
    steps.kinds.cache_clear()
    sys.modules.pop("pidflow.adapt.steps.confidence", None)
    vars(steps).pop("confidence", None)


def test_is_short() -> None:
    assert len(PYTHON.splitlines()) < 60


def test_is_found_with_its_settings(confidence: str) -> None:
    assert confidence in steps.kinds()
    settings = steps.settings_of(confidence)()
    assert settings.kind == confidence
    assert settings.model_dump().keys() > {"strength", "epochs", "learning_rate"}


def test_adapts_a_network(confidence: str, folder: Path, model: Path, tmp_path: Path) -> None:
    """The stronger it is, the surer the network is of tracks of data."""
    data = read_features(folder / "data.parquet", "train", FEATURES)
    doubt = {}
    for strength in (1e-6, 1.0):
        target = tmp_path / str(strength)
        settings = {"kind": confidence, "epochs": 4, "learning_rate": 0.01, "strength": strength}
        samples = folder / "simulation.parquet", folder / "data.parquet"
        adapt_network(model, *samples, target, settings=settings, accelerator="cpu", threads=1)
        whole = steps.settings_of(confidence).model_validate(settings).model_dump(mode="json")
        assert read_info(target).adaptation == (whole,)
        certainty = np.clip(load(target).score(data).astype(float), 1e-12, 1 - 1e-12)
        doubt[strength] = float(np.mean(-certainty * np.log(certainty) - (1 - certainty) * np.log(1 - certainty)))
    assert doubt[1.0] < 0.6 * doubt[1e-6]


def test_is_a_candidate(tmp_path: Path) -> None:
    scripts = copy_repository(tmp_path).folder / "workflow/scripts"
    (scripts / "pidflow/adapt/steps/confidence.py").write_text(PYTHON, encoding="utf-8")
    program = f"import sys; sys.path[:0] = {[str(scripts)]!r}\n{USE}"
    done = subprocess.run([sys.executable, "-c", program, YAML], text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
