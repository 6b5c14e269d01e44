"""Adaptation of a trained network to a run's unlabelled data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pidflow.config.models import Adapt, Fse
from pidflow.model import checkpoint_beside, read_info
from pidflow.train import dann
from pidflow.train.data import read_features, read_tracks


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
        checkpoint_beside(folder),
        batch=batch,
        threads=threads,
    )
