"""The steps of adaptation: one file each, found by its name, which is the step's kind.

A file holds the class ``Settings`` (`pidflow.adapt.steps.base.StepSettings`: its keys of the configuration) and the
class ``Step``: a `pidflow.adapt.steps.base.SampleStep`, which changes the simulated sample before a model is trained,
or a `pidflow.adapt.steps.base.TrainingStep`, which trains a network further. Heavy libraries are imported inside the
methods that need them, since the workflow reads all settings whenever it starts.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from pidflow.adapt.steps.base import SampleStep, StepSettings, TrainingStep


@cache
def kinds() -> tuple[str, ...]:
    """Return the kinds of step that there are, sorted."""
    return tuple(sorted(found.name for found in pkgutil.iter_modules(__path__) if found.name != "base"))


def settings_of(kind: str) -> type[StepSettings]:
    """Return the class that describes a kind's keys of the configuration."""
    settings: type[StepSettings] = importlib.import_module(f"{__name__}.{kind}").Settings
    return settings


def step_of(kind: str) -> type[SampleStep] | type[TrainingStep]:
    """Return the class of a kind's steps."""
    step: type[SampleStep] | type[TrainingStep] = importlib.import_module(f"{__name__}.{kind}").Step
    return step
