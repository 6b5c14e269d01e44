"""The model directory: what every model leaves behind and all that scoring needs.

A folder with ``model.json`` (this schema), weights in safetensors or the tree library's text format,
and ``history.parquet`` for models that are trained in steps.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from pidflow.errors import PidflowError
from pidflow.files import read_json, sha256, visible_files, write_json

MODEL_FILE = "model.json"
HISTORY_FILE = "history.parquet"
WEIGHTS_FILE = "weights.safetensors"


class ModelInfo(BaseModel):
    """Content of ``model.json``.

    Attributes
    ----------
    kind
        The kind of model (`pidflow.models`), which reads the folder.
    run
        Run whose simulation it was trained on.
    species
        PDG code per certainty, in the order of the outputs.
    features
        Track-table columns in the order of the inputs.
    masks
        Momentum in GeV/c below which a detector was hidden, by detector.
    seed
        Seed of its random choices.
    settings
        Its block of the configuration.
    adaptation
        Settings of each step of adaptation, its kind among them, in the order in which they were done.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    run: int
    species: tuple[int, ...]
    features: tuple[str, ...]
    masks: dict[str, float]
    seed: int
    settings: dict[str, Any]
    adaptation: tuple[dict[str, Any], ...] = ()

    def write(self, folder: str | Path) -> None:
        """Write ``model.json`` into `folder`."""
        write_json(Path(folder) / MODEL_FILE, self.model_dump(mode="json"))


def read_info(folder: str | Path) -> ModelInfo:
    """Read ``model.json``.

    Raises
    ------
    PidflowError
        If the folder holds none or an invalid one.
    """
    path = Path(folder) / MODEL_FILE
    if not path.is_file():
        raise PidflowError(f"{folder}: no {MODEL_FILE}; train the model first")
    try:
        return ModelInfo.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        raise PidflowError(f"{path}: key '{first['loc'][0]}': {first['msg']}; train the model again") from None


def model_digest(folder: str | Path) -> str:
    """Return the SHA-256 over all that scoring needs of a model directory: every file but the history."""
    result = hashlib.sha256()
    for path in visible_files(folder):
        if path.name != HISTORY_FILE:
            result.update(f"{sha256(path)}  {path.relative_to(folder).as_posix()}\n".encode())
    return result.hexdigest()


def checkpoint_beside(folder: str | Path) -> Path:
    """Return where the training of a model directory keeps its checkpoint.

    It lies beside the directory, which the workflow engine removes when a job fails.
    """
    path = Path(folder)
    return path.with_name(f".{path.name}.checkpoint")
