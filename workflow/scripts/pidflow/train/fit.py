"""Training of a model of any kind on one run's simulation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pidflow.config.models import Fse, Gbdt
from pidflow.files import read_json
from pidflow.model import ModelInfo, checkpoint_beside
from pidflow.train.data import read_tracks


def fit_model(
    dataset: str | Path,
    features: str | Path,
    folder: str | Path,
    *,
    kind: str,
    run: int,
    species: tuple[int, ...],
    masks: dict[str, float],
    seed: int,
    settings: dict[str, Any],
    threads: int,
) -> None:
    """Train a model and write its model directory.

    Parameters
    ----------
    dataset, features
        Labelled dataset and feature list of the run.
    folder
        Model directory to write.
    kind
        ``fse``, ``gbdt`` or ``nsigma``.
    run
        Run number, noted in the model.
    species
        PDG code per certainty.
    masks
        Momentum limits that the dataset was made with, GeV/c.
    seed
        Seed of every random choice.
    settings
        The model's block of the configuration.
    threads
        Threads that training may use.
    """
    names: tuple[str, ...] = tuple(read_json(features)["features"])
    if kind == "nsigma":
        from pidflow.train.nsigma import features_for

        names = features_for(species)
    info = ModelInfo(kind=kind, run=run, species=species, features=names, masks=masks, seed=seed, settings=settings)
    if kind == "nsigma":
        info.write(folder)
        return
    train, validation = (read_tracks(dataset, split, names, species) for split in ("train", "validation"))
    print(f"run {run} {kind}: {len(train):,} training and {len(validation):,} validation tracks", flush=True)
    if kind == "gbdt":
        from pidflow.train import gbdt

        gbdt.fit(train, validation, info, Gbdt.model_validate(settings), folder, threads=threads)
        return
    from pidflow.train import fse

    fse.fit(train, validation, info, Fse.model_validate(settings), folder, checkpoint_beside(folder), threads=threads)
