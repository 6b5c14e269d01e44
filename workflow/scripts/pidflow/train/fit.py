"""Training of a model of any kind on one run's simulation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pidflow.config.models import Adapt, Fse, Gbdt
from pidflow.files import read_json
from pidflow.model import ModelInfo, read_info
from pidflow.train.data import read_features, read_tracks


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

    fse.fit(train, validation, info, Fse.model_validate(settings), folder, _checkpoint(folder), threads=threads)


def adapt_model(
    source: str | Path,
    simulation: str | Path,
    data: str | Path,
    folder: str | Path,
    *,
    settings: dict[str, Any],
    threads: int,
) -> None:
    """Adapt a trained network to unlabelled data and write the adapted model directory.

    Parameters
    ----------
    source
        Model directory of the network trained on simulation.
    simulation, data
        Labelled and unlabelled dataset of the run.
    folder
        Model directory to write.
    settings
        The ``adapt`` block of the configuration.
    threads
        Threads that training may use.
    """
    from pidflow.train import dann

    info = read_info(source)
    train, validation = (
        read_tracks(simulation, split, info.features, info.species) for split in ("train", "validation")
    )
    measured = read_features(data, "train", info.features)
    batch = Fse.model_validate(info.settings).optimisation.batch
    dann.adapt(
        source,
        train,
        validation,
        measured,
        info.model_copy(update={"adaptation": settings}),
        Adapt.model_validate(settings),
        folder,
        _checkpoint(folder),
        batch=batch,
        threads=threads,
    )


def _checkpoint(folder: str | Path) -> Path:
    # beside the model directory: the workflow engine removes that directory when a job fails
    path = Path(folder)
    return path.with_name(f".{path.name}.checkpoint")
