"""Adaptation of a trained network to a run's unlabelled data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pidflow.config.models import Adapt
from pidflow.errors import PidflowError
from pidflow.model import checkpoint_beside
from pidflow.models import load
from pidflow.models.network import NetworkModel
from pidflow.train import dann
from pidflow.train.data import read_features, read_tracks


def adapt_model(
    source: str | Path,
    simulation: str | Path,
    data: str | Path,
    folder: str | Path,
    *,
    settings: dict[str, Any],
    accelerator: str,
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
    accelerator
        ``auto``, ``cpu`` or ``cuda``.
    threads
        Threads that training may use.

    Raises
    ------
    PidflowError
        If the model is no network.
    """
    model = load(source)
    if not isinstance(model, NetworkModel):
        raise PidflowError(f"{source}: a model of kind '{model.info.kind}' cannot be adapted; set 'adapt.model'")
    info = model.info.model_copy(update={"adaptation": settings})
    target = type(model)(info, folder)
    train, validation = (
        read_tracks(simulation, split, info.features, info.species) for split in ("train", "validation")
    )
    dann.adapt(
        model,
        target,
        train,
        validation,
        read_features(data, "train", info.features),
        Adapt.model_validate(settings),
        checkpoint_beside(folder),
        threads=threads,
        accelerator=accelerator,
    )
    info.write(folder)
