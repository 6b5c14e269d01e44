"""What a search for better settings found: table, best settings."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pidflow.dotted import with_values
from pidflow.errors import PidflowError
from pidflow.files import read_json, write_text


@dataclass(frozen=True)
class Trial:
    """One training of the search.

    Attributes
    ----------
    number
        Its number.
    parameters
        What it chose, by dotted key.
    value
        How good it was, or None if its settings did not go together.
    seconds, epochs
        Time that it took, and passes over the training set, None for a model that is not trained in steps.
    """

    number: int
    parameters: Mapping[str, Any]
    value: float | None
    seconds: float
    epochs: int | None


def read_trials(paths: Iterable[str | Path]) -> list[Trial]:
    """Read the files of trials, by number."""
    return sorted((Trial(**read_json(path)) for path in paths), key=lambda trial: trial.number)


def best_trial(trials: Sequence[Trial], objective: str) -> Trial:
    """Return the best trial, the first of equals.

    Raises
    ------
    PidflowError
        If none has a value.
    """
    sign = 1 if objective == "validation_loss" else -1
    ended = [(sign * trial.value, trial.number, trial) for trial in trials if trial.value is not None]
    if not ended:
        raise PidflowError(f"none of the {len(trials)} trials chose settings that go together; correct 'tune.space'")
    return min(ended)[2]


def write_trials(trials: Sequence[Trial], objective: str, output: str | Path) -> None:
    """Write one line per trial: number, objective, seconds, epochs, a column for each key."""
    stream = io.StringIO()
    keys = list(trials[0].parameters)
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["trial", objective, "seconds", "epochs", *keys])
    for trial in trials:
        chosen = [trial.parameters[key] for key in keys]
        writer.writerow([trial.number, trial.value, trial.seconds, trial.epochs, *chosen])
    write_text(output, stream.getvalue())


def write_best(best: Trial, model: str, output: str | Path, *, remark: str) -> None:
    """Write the best settings as a file for ``--configfile``, with a remark above them."""
    content = {"models": {model: with_values({}, best.parameters)}}
    write_text(output, f"# {remark}\n" + yaml.safe_dump(content, sort_keys=False))
