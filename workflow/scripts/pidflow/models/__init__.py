"""The models: one file each, found by its name, which is the model's kind.

A file holds the class ``Settings`` (`pidflow.models.base.ModelSettings`: its keys of the configuration) and the
class ``Model`` (`pidflow.models.base.Model`: fit, score, graph). Its libraries are imported inside the methods
that need them, since the workflow reads all settings whenever it starts.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pidflow.errors import PidflowError
from pidflow.models.base import Model, ModelSettings

_PARTS = ("base", "members", "network")


@cache
def kinds() -> tuple[str, ...]:
    """Return the kinds of model that there are, sorted."""
    return tuple(sorted(found.name for found in pkgutil.iter_modules(__path__) if found.name not in _PARTS))


def settings_of(kind: str) -> type[ModelSettings]:
    """Return the class that describes a kind's keys of the configuration."""
    settings: type[ModelSettings] = importlib.import_module(f"{__name__}.{kind}").Settings
    return settings


def model_of(kind: str) -> type[Model[Any]]:
    """Return the class that fits and scores models of a kind."""
    model: type[Model[Any]] = importlib.import_module(f"{__name__}.{kind}").Model
    return model


def load(folder: str | Path, threads: int = 1) -> Model[Any]:
    """Return the model of a model directory; scoring may use so many threads.

    Raises
    ------
    PidflowError
        If the folder is no valid model directory, or of a kind or settings that are no more.
    """
    from pidflow.model import read_info

    info = read_info(folder)
    try:
        return model_of(info.kind)(info, folder, threads)
    except (ImportError, ValidationError):
        raise PidflowError(
            f"{folder}: this version knows no such model (kind '{info.kind}'); train the model again"
        ) from None
