"""Training of a model of any kind on one run's simulation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pidflow.files import read_json
from pidflow.model import ModelInfo, checkpoint_beside
from pidflow.models import model_of
from pidflow.models.base import Fitting
from pidflow.train.data import read_tracks


def fit_model(
    dataset: str | Path,
    features: str | Path,
    response: str | Path,
    folder: str | Path,
    *,
    run: int,
    species: tuple[int, ...],
    masks: dict[str, float],
    seed: int,
    settings: dict[str, Any],
    threads: int,
    accelerator: str = "cpu",
    needed: Mapping[str, str | Path] | None = None,
    start: str | Path | None = None,
    adaptation: Sequence[dict[str, Any]] = (),
    fraction: float = 1.0,
) -> None:
    """Train a model and write its model directory.

    Parameters
    ----------
    dataset, features, response
        Labelled dataset, feature list and fitted response of the run.
    folder
        Model directory to write.
    run
        Run number, noted in the model.
    species
        PDG code per certainty.
    masks
        Momentum limits that the dataset was made with, GeV/c.
    seed
        Seed of every random choice.
    settings
        The model's entry of the configuration, with its kind.
    threads
        Threads that training may use.
    accelerator
        ``auto``, ``cpu`` or ``cuda``.
    needed
        Model directories of the models that this one is made of, by name.
    start
        Model directory whose weights a network starts from.
    adaptation
        Settings of the steps that adapted the dataset.
    fraction
        Share of the training collisions to use.
    """
    kind = model_of(settings["kind"])
    names = kind.columns(read_json(features)["features"], species)
    info = ModelInfo(
        kind=settings["kind"], run=run, species=species, features=names, masks=masks, seed=seed, settings=settings,
        adaptation=tuple(adaptation),
    )  # fmt: skip
    train = read_tracks(dataset, "train", names, species, fraction=fraction)
    validation = read_tracks(dataset, "validation", names, species)
    label = f"run {run} {Path(folder).name}"
    print(f"{label}: {len(train):,} training and {len(validation):,} validation tracks", flush=True)
    fitting = Fitting(
        threads=threads,
        accelerator=accelerator,
        checkpoint=checkpoint_beside(folder),
        response=Path(response),
        needed={name: Path(path) for name, path in (needed or {}).items()},
        start=None if start is None else Path(start),
    )
    Path(folder).mkdir(parents=True, exist_ok=True)
    kind(info, folder).fit(train, validation, fitting)
    info.write(folder)
