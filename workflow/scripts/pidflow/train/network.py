"""Training of any network on simulation, and its model directory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional

from pidflow.errors import PidflowError
from pidflow.files import replacing
from pidflow.model import HISTORY_FILE, WEIGHTS_FILE, model_digest, read_info
from pidflow.models import load
from pidflow.models.base import Fitting, Tracks
from pidflow.models.network import NetworkModel, Optimisation
from pidflow.networks.calibration import Calibrated, calibrate
from pidflow.networks.inputs import thinned
from pidflow.tracks import BY_NAME
from pidflow.train.engine import (
    Average,
    Epoch,
    Training,
    cosine,
    fingerprint,
    macro_auc,
    predict,
    prepare,
    shuffled,
)

_PT_BINS = 40
_LEAST_PT = 0.01
_MOST_WEIGHT = 10.0
_SMALLER_STEPS = 0.5

BETAS = (0.9, 0.99)
"""Of AdamW, in every training."""


def calibrated(model: NetworkModel[Any], network: nn.Module) -> Calibrated:
    """Return a network with the identity as its calibration."""
    info = model.info
    return Calibrated(network, info.features, len(info.species), complete=model.complete_only)


def save_network(model: NetworkModel[Any], trained: Calibrated) -> None:
    """Write the weights of a network into its model directory."""
    with replacing(model.folder / WEIGHTS_FILE) as temporary:
        # the library's own writer makes files that nobody else may read
        temporary.write_bytes(save(trained.cpu().state_dict()))


def load_network(model: NetworkModel[Any]) -> Calibrated:
    """Read a network, in evaluation mode, from its model directory."""
    torch.set_num_threads(model.threads)
    trained = calibrated(model, model.build())
    trained.load_state_dict(load_file(model.folder / WEIGHTS_FILE))
    return trained.eval()


def start_from(model: NetworkModel[Any], network: nn.Module, source: Path) -> None:
    """Give a network the weights of an earlier run's.

    Raises
    ------
    PidflowError
        If that is no network of the same kind, features, species and sizes.
    """
    earlier, info = read_info(source), model.info
    for what in ("kind", "features", "species"):
        own, other = getattr(info, what), getattr(earlier, what)
        if own != other:
            raise PidflowError(
                f"{source}: its {what} {other} are not this model's {own}, so its weights do not fit; "
                "set 'init_from' to a model that agrees, or to null"
            )
    source_model = load(source)
    assert isinstance(source_model, NetworkModel)
    try:
        network.load_state_dict(source_model.trained.network.state_dict())
    except RuntimeError:
        raise PidflowError(
            f"{source}: its network has other sizes than this model's settings; give it the same, or set 'init_from' "
            "to null"
        ) from None


def trainable(model: NetworkModel[Any], network: Any, rate: float, start: Path | None) -> list[dict[str, Any]]:
    """Return the optimiser's groups of parameters, each with its learning rate.

    Raises
    ------
    PidflowError
        If only a part shall be trained and the network does not tell its stages.
    """
    how = model.settings.transfer
    if start is None or how == "whole":
        return [{"params": list(network.parameters()), "lr": rate}]
    if not hasattr(network, "stages"):
        raise PidflowError(
            f"{model.folder}: a model of kind '{model.info.kind}' has no stages to treat apart; set 'transfer' to whole"
        )
    stages: list[list[nn.Parameter]] = network.stages()
    if how == "frozen":
        for parameter in (parameter for stage in stages[:-1] for parameter in stage):
            parameter.requires_grad_(False)
        stages = stages[-1:]
    return [{"params": stage, "lr": rate * _SMALLER_STEPS**depth} for depth, stage in enumerate(reversed(stages))]


@dataclass(frozen=True)
class Weighting:
    """Weights of the loss.

    Attributes
    ----------
    species
        Weight of a species' own tracks, float32 [S].
    tracks
        Weight of each training track, float32 [N], mean 1; None: all the same.
    """

    species: Tensor
    tracks: Tensor | None

    @classmethod
    def of(cls, train: Tracks, features: tuple[str, ...], options: Optimisation) -> Weighting:
        """Return the weights that the options ask for.

        Raises
        ------
        PidflowError
            If weights by pT are asked for and neither pT nor p is a feature: weights by anything that the network
            does not see would move its certainties.
        """
        share = np.average(train.labels, axis=0, weights=train.weights)
        species = torch.from_numpy(((1.0 - share) / share) ** options.balance_species).float()
        given = weights_of(train)
        if not options.flatten_pt:
            return cls(species, given)
        name = next((name for name in ("pt", "p") if name in features), None)
        if name is None:
            raise PidflowError("'flatten_pt' needs pt or p among the features; add it to 'features.required'")
        log_pt = np.log(np.nan_to_num(train.features[:, features.index(name)]).clip(_LEAST_PT))
        height, edges = np.histogram(log_pt, _PT_BINS)
        density = np.maximum(height, 1.0)[np.digitize(log_pt, edges[1:-1])]
        weight = density**-options.flatten_pt
        weight = np.minimum(weight / weight.mean(), _MOST_WEIGHT)
        flat = torch.from_numpy((weight / weight.mean()).astype(np.float32))
        return cls(species, flat if given is None else flat * given)


def weights_of(tracks: Tracks) -> Tensor | None:
    """Return how much each track counts, float32 [N]; None: all the same."""
    return None if tracks.weights is None else torch.from_numpy(tracks.weights)


def hide(raw_NF: Tensor, detectors: list[list[int]], probability: float) -> Tensor:
    """Return a batch in which each detector's features are missing from tracks with some probability."""
    hidden = raw_NF.clone()
    for columns in detectors:
        chosen = torch.rand(len(raw_NF), 1, device=raw_NF.device) < probability
        hidden[:, columns] = torch.where(chosen, torch.nan, hidden[:, columns])
    return hidden


def detectors_of(features: Iterable[str]) -> list[list[int]]:
    """Return the positions of each detector's features; momentum and the like belong to none."""
    by_detector: dict[str, list[int]] = {}
    for position, name in enumerate(features):
        if (detector := BY_NAME[name].detector) in ("its", "tpc", "trd", "tof"):
            by_detector.setdefault(detector, []).append(position)
    return list(by_detector.values())


def class_loss(
    logits: Tensor, labels_NS: Tensor, track_N: Tensor | None = None, species_S: Tensor | None = None
) -> Tensor:
    """Return the binary cross-entropy, the mean over tracks and species, of logits [N, S] or [N, K, S].

    `track_N` weighs tracks, `species_S` a species' own tracks.
    """
    labels_NS = labels_NS.float()
    if logits.ndim == 3:
        labels_NS = labels_NS.unsqueeze(1).expand_as(logits)
    weight = None if track_N is None else track_N.to(logits.device).reshape(-1, *[1] * (logits.ndim - 1))
    return functional.binary_cross_entropy_with_logits(logits, labels_NS, weight, pos_weight=species_S)


def finish(model: NetworkModel[Any], network: nn.Module, validation: Tracks, shift: NDArray[np.float32]) -> None:
    """Calibrate a trained network on validation tracks and write it.

    Parameters
    ----------
    model
        What it belongs to.
    network
        Trained network.
    validation
        Labelled tracks that did not train it.
    shift
        What its logits have too much, float32 [S].
    """
    trained = calibrated(model, network)
    if model.settings.calibration == "pattern":
        features, labels = thinned(validation.features), thinned(validation.labels)
        weights = None if validation.weights is None else thinned(validation.weights)
        calibrate(trained, features, predict(network, features) - shift, labels, weights)
    trained.offset -= trained.slope * torch.from_numpy(shift).to(trained.slope.device)
    save_network(model, trained)


def fit_network(model: NetworkModel[Any], train: Tracks, validation: Tracks, fitting: Fitting) -> None:
    """Train a model's network and write weights and learning curve into its model directory.

    Parameters
    ----------
    model
        The model.
    train, validation
        Labelled tracks; validation decides when to stop, and calibrates.
    fitting
        What training may use.
    """
    info, options = model.info, model.settings.optimisation
    device = prepare(info.seed, fitting.threads, fitting.accelerator)
    if model.complete_only:
        train, validation = train.complete(), validation.complete()
        if not all(part.labels.any(axis=0).all() for part in (train, validation)):
            raise PidflowError(
                f"{model.folder}: no complete track of some species is left to train on or to validate with; "
                "set 'missing' to mean or regression"
            )
    network: Any = model.build()
    if fitting.start is None:
        network.adjust(train.features)
    else:
        start_from(model, network, fitting.start)
    network.to(device)
    average = Average(network, options.average)
    weighting = Weighting.of(train, info.features, options)
    species = weighting.species.to(device)
    detectors = detectors_of(info.features)
    batch = min(options.batch, len(train))
    steps = options.epochs * max(1, len(train) // batch)
    groups = trainable(model, network, options.learning_rate, fitting.start)
    optimiser = torch.optim.AdamW(groups, betas=BETAS, weight_decay=options.weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: cosine(step, steps))
    features, labels = torch.from_numpy(train.features), torch.from_numpy(train.labels)
    half = options.precision == "bfloat16"

    def epoch(number: int) -> Epoch:
        network.train()
        total, seen = torch.zeros((), device=device), 0
        for rows in shuffled(len(train), batch):
            raw = features[rows].to(device)
            if options.hide_detector:
                raw = hide(raw, detectors, options.hide_detector)
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                track = None if weighting.tracks is None else weighting.tracks[rows]
                loss = class_loss(network(raw), labels[rows].to(device), track, species)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            average.update(schedule.last_epoch)
            schedule.step()
            total, seen = total + loss.detach() * len(rows), seen + len(rows)
        logits = predict(average.network, validation.features)
        held_out = class_loss(
            torch.from_numpy(logits), torch.from_numpy(validation.labels), weights_of(validation), weighting.species
        )
        return {
            "tracks": seen,
            "train_loss": float(total) / seen,
            "validation_loss": float(held_out),
            "validation_auc": macro_auc(logits, validation.labels),
        }

    started = {} if fitting.start is None else {"start": model_digest(fitting.start)}
    arrays = [a for part in (train, validation) for a in (part.features, part.labels, part.weights) if a is not None]
    identity = fingerprint(info.model_dump(mode="json"), started, *arrays)
    modules = {"network": network, "average": average.network}
    training = Training(modules, optimiser, schedule, fitting.checkpoint, identity)
    label = f"run {info.run} {model.folder.name}"
    training.run(options.epochs, epoch, watch=average.network, patience=options.patience, label=label)
    training.write_history(model.folder / HISTORY_FILE)
    finish(model, average.network, validation, np.log(weighting.species.numpy()))
