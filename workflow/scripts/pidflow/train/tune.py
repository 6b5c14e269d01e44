"""Trials of a search for better settings of a model, each a job; the study that they share is Optuna's.

The study lies in a journal on the file system that all jobs see. It is known by a digest of all that affects its
values, so that trials of other data, settings or code are never mixed. A job that is killed leaves its trial running;
when it is repeated it takes the same trial up again, and the training goes on from its checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pyarrow.parquet as pq
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState
from pydantic import ValidationError

from pidflow.config.studies import Range, Tune
from pidflow.dotted import Value, with_values
from pidflow.files import write_json
from pidflow.model import HISTORY_FILE
from pidflow.models import load, settings_of
from pidflow.record import checksum
from pidflow.train.data import read_tracks
from pidflow.train.engine import macro_auc
from pidflow.train.fit import fit_model

JOURNAL = "journal.log"

_JOB = "job"


def run_trial(
    dataset: str | Path,
    features: str | Path,
    response: str | Path,
    output: str | Path,
    *,
    number: int,
    tune: Mapping[str, Any],
    settings: dict[str, Any],
    run: int,
    species: tuple[int, ...],
    masks: dict[str, float],
    seed: int,
    code: str,
    threads: int,
    accelerator: str = "cpu",
    needed: Mapping[str, str | Path] | None = None,
    start: str | Path | None = None,
) -> None:
    """Choose settings by what earlier trials found, train a model with them, and write how good it is.

    A trial that has ended is not repeated: what it found is written again.

    Parameters
    ----------
    dataset, features, response
        Labelled dataset, feature list and fitted response of the run.
    output
        JSON file: number, parameters, value (null if the settings do not go together), seconds, and epochs of a model
        that is trained in steps. The study's journal lies beside it.
    number
        Number of the job.
    tune
        The ``tune`` block of the configuration; of it objective and space.
    settings
        The model's entry of the configuration, which the trial changes.
    run, species, masks, threads, accelerator, needed, start
        As of `pidflow.train.fit.fit_model`.
    seed
        Seed of every training; with the job's number, of the choice of settings.
    code
        Digest of the code.
    """
    output = Path(output)
    asked = Tune.model_validate(tune)
    given = [dataset, features, response, *(needed or {}).values(), *([start] if start else [])]
    files = [checksum(path) for path in given]
    content = [asked.objective, tune["space"], settings, species, masks, seed, code, accelerator, files]
    study = open_study(output.parent, _name(content), asked.objective, seed + number)
    result = study.user_attrs.get(str(number))
    trial = _running(study, number)
    if result is None:
        if trial is None:
            own = study.ask(distributions(asked))
            own.set_user_attr(_JOB, number)
            trial = study.trials[own.number]
        print(f"trial {number}: " + ", ".join(f"{key} {value}" for key, value in trial.params.items()), flush=True)
        folder = output.with_suffix("")
        begin = time.monotonic()
        value, epochs = None, None
        try:
            changed = settings_of(settings["kind"]).model_validate(with_values(settings, trial.params))
        except ValidationError as error:
            print(f"trial {number}: these do not go together: {error.errors()[0]['msg']}", flush=True)
        else:
            fit_model(
                dataset,
                features,
                response,
                folder,
                run=run,
                species=species,
                masks=masks,
                seed=seed,
                settings=changed.model_dump(mode="json"),
                threads=threads,
                accelerator=accelerator,
                needed=needed,
                start=start,
            )
            value = validation_value(folder, dataset, asked.objective, threads)
            history = folder / HISTORY_FILE
            epochs = pq.read_metadata(history).num_rows if history.is_file() else None
            shutil.rmtree(folder)
        seconds = round(time.monotonic() - begin, 2)
        result = {
            "number": number, "parameters": trial.params, "value": value, "seconds": seconds, "epochs": epochs
        }  # fmt: skip
        study.set_user_attr(str(number), result)
    if trial is not None:
        ended = {"state": TrialState.FAIL} if result["value"] is None else {"values": result["value"]}
        study.tell(trial.number, **ended)
    print(f"trial {number}: {asked.objective.replace('_', ' ')} {result['value']}", flush=True)
    write_json(output, result)


def open_study(folder: str | Path, name: str, objective: str, seed: int) -> optuna.Study:
    """Open a study in the journal of a folder, or begin it.

    The lock is a file that is created exclusively, which NFS from version 3 on knows; one that a killed job left is
    removed by the next after half a minute.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal = Path(folder, JOURNAL)
    journal.parent.mkdir(parents=True, exist_ok=True)
    return optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(journal), lock_obj=JournalFileOpenLock(str(journal)))),
        # jobs at the same time keep away from one another's choices
        sampler=optuna.samplers.TPESampler(seed=seed, constant_liar=True),
        study_name=name,
        direction="minimize" if objective == "validation_loss" else "maximize",
        load_if_exists=True,
    )


def distributions(tune: Tune) -> dict[str, BaseDistribution]:
    """Return what a trial chooses from, by dotted key."""

    def one(values: Range | tuple[Value, ...]) -> BaseDistribution:
        if not isinstance(values, Range):
            return CategoricalDistribution(values)
        if isinstance(values.low, int) and isinstance(values.high, int):
            return IntDistribution(values.low, values.high, log=values.log)
        return FloatDistribution(values.low, values.high, log=values.log)

    return {key: one(values) for key, values in tune.space.items()}


def validation_value(folder: str | Path, dataset: str | Path, objective: str, threads: int) -> float:
    """Return how good a model is on the validation set of a dataset.

    The loss is the cross entropy of the certainties as published, without the weights that training may use, so that
    it can be compared between any settings and kinds of model. A track that the model cannot score has certainty 0.
    """
    model = load(folder, threads)
    tracks = read_tracks(dataset, "validation", model.info.features, model.info.species)
    model.prepare(dataset)
    certainty = np.nan_to_num(model.score(tracks.features))
    return (macro_auc if objective == "validation_auc" else cross_entropy)(certainty, tracks.labels)


def cross_entropy(certainty: NDArray[np.float32], labels: NDArray[np.uint8]) -> float:
    """Return the mean binary cross entropy over tracks and species."""
    right = np.where(labels > 0, certainty, 1.0 - certainty).astype(np.float64)
    return float(-np.log(np.clip(right, 1e-7, 1.0)).mean())


def _name(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _running(study: optuna.Study, number: int) -> FrozenTrial | None:
    """Return the trial that an earlier attempt of the job left running."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return next((trial for trial in running if trial.user_attrs.get(_JOB) == number), None)
