"""Training of the feature-set network on simulation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from pidflow.config.models import Fse
from pidflow.model import HISTORY_FILE, ModelInfo
from pidflow.train import network as fse
from pidflow.train.data import Tracks
from pidflow.train.engine import Epoch, Training, cosine, fingerprint, predict, set_seed, shuffled


def standardise(network: fse.FeatureSetNetwork, tracks: Tracks) -> None:
    """Set the network's input scaling from the training set's present values.

    Mean and deviation are taken between the 0.5 % and 99.5 % quantiles, which tails do not move.
    """
    for number in range(tracks.features.shape[1]):
        values = tracks.features[:, number]
        values = values[~np.isnan(values)].astype(np.float64)
        if not len(values):
            continue
        low, high = np.quantile(values, (0.005, 0.995))
        core = np.clip(values, low, high)
        network.encoder.mean[number] = float(core.mean())
        network.encoder.std[number] = float(core.std()) or 1.0


def class_loss(network: fse.FeatureSetNetwork, tracks: Tracks) -> float:
    """Return the mean binary cross-entropy over tracks and species, without dropout."""
    logits = torch.from_numpy(predict(network, tracks.features))
    return float(functional.binary_cross_entropy_with_logits(logits, torch.from_numpy(tracks.labels)))


def fit(
    train: Tracks,
    validation: Tracks,
    info: ModelInfo,
    settings: Fse,
    folder: str | Path,
    checkpoint: str | Path,
    *,
    threads: int,
) -> None:
    """Train the network and write its model directory.

    Parameters
    ----------
    train, validation
        Labelled tracks; validation decides when to stop.
    info
        Description that goes into the model directory.
    settings
        The ``models.fse`` block of the configuration.
    folder
        Model directory to write.
    checkpoint
        File from which a killed training goes on.
    threads
        Threads of the tensor library.
    """
    set_seed(info.seed, threads)
    options = settings.optimisation
    network = fse.build(info)
    standardise(network, train)
    batch = min(options.batch, len(train))
    steps = options.epochs * max(1, len(train) // batch)
    optimiser = torch.optim.AdamW(network.parameters(), options.learning_rate, weight_decay=options.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: cosine(step, steps))
    features, labels = torch.from_numpy(train.features), torch.from_numpy(train.labels)

    def epoch(number: int) -> Epoch:
        network.train()
        total, seen = 0.0, 0
        for rows in shuffled(len(train), batch):
            loss = functional.binary_cross_entropy_with_logits(network(features[rows]), labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total, seen = total + float(loss.detach()) * len(rows), seen + len(rows)
        return {"tracks": seen, "train_loss": total / seen, "validation_loss": class_loss(network, validation)}

    arrays = (train.features, train.labels, validation.features, validation.labels)
    identity = fingerprint(info.model_dump(mode="json"), *arrays)
    training = Training({"network": network}, optimiser, schedule, Path(checkpoint), identity)
    training.run(options.epochs, epoch, watch=network, patience=options.patience, label=f"run {info.run} fse")
    training.write_history(Path(folder) / HISTORY_FILE)
    fse.save(network, info, folder)
