"""Training of a network on labelled simulation and unlabelled data together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pidflow.adapt.steps import settings_of, step_of
from pidflow.adapt.steps.base import Batch, Domains, Sizes, TrainingStep
from pidflow.errors import PidflowError
from pidflow.model import HISTORY_FILE, checkpoint_beside
from pidflow.models import load
from pidflow.models.base import Floats, Tracks
from pidflow.models.network import NetworkModel
from pidflow.networks.calibration import Calibrated
from pidflow.train.data import read_columns, read_features, read_tracks
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
from pidflow.train.network import BETAS, Weighting, class_loss, detectors_of, finish, hide, weights_of

_ADVERSARIAL_BETAS = (0.5, 0.9)
"""Less momentum where two networks chase each other; A. Radford, L. Metz, S. Chintala, ICLR 2016, arXiv:1511.06434."""

_ROWS = 100_000


class _EnoughError(Exception):
    """A step wants no further epoch."""


class Partners:
    """Draws a track of data for each simulated track, of the same pattern if data has one, else any.

    Parameters
    ----------
    own, other
        Patterns of simulated tracks, int64 [N], and of data, int64 [M].
    """

    def __init__(self, own: Tensor, other: Tensor) -> None:
        self.own = own
        self._order = torch.argsort(other, stable=True)
        count = torch.bincount(other, minlength=int(own.max()) + 1)
        self._start = torch.where(count > 0, count.cumsum(0) - count, 0)
        self._count = torch.where(count > 0, count, len(other))

    def draw(self, rows: Tensor) -> Tensor:
        """Return rows of data, int64 [B], for rows of simulation, int64 [B]."""
        pattern = self.own[rows]
        place = (torch.rand(len(rows), dtype=torch.float64) * self._count[pattern]).long()
        return self._order[self._start[pattern] + place]


def patterns(network: Calibrated, features: Floats) -> Tensor:
    """Return the detector patterns of tracks [N, F], int64 [N], without a copy of all features."""
    starts = range(0, len(features), _ROWS)
    return torch.cat([network.pattern(torch.from_numpy(features[n : n + _ROWS])) for n in starts])


def adapt_network(
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
        Model directory of the network trained on simulation, or adapted by an earlier step.
    simulation, data
        Labelled and unlabelled dataset of the run.
    folder
        Model directory to write.
    settings
        An entry of ``adapt.steps`` in the configuration, whose kind is that of a training step.
    accelerator
        ``auto``, ``cpu`` or ``cuda``.
    threads
        Threads that training may use.

    Raises
    ------
    PidflowError
        If the model has no encoder and heads, or the data no track.
    """
    model = load(source)
    kind = model.info.kind
    if not isinstance(model, NetworkModel):
        raise PidflowError(f"{source}: a model of kind '{kind}' cannot be adapted; set 'adapt.model' to a network")
    if not all(hasattr(model.trained.network, part) for part in ("encoder", "heads")):
        raise PidflowError(
            f"{source}: a model of kind '{kind}' has no encoder to adapt; set 'adapt.model' to one that has"
        )
    chosen = settings_of(settings["kind"]).model_validate(settings)
    step = step_of(chosen.kind)(chosen)
    assert isinstance(step, TrainingStep)
    adaptation = (*model.info.adaptation, chosen.model_dump(mode="json"))
    info = model.info.model_copy(update={"adaptation": adaptation})
    train, validation = (
        read_tracks(simulation, split, info.features, info.species) for split in ("train", "validation")
    )
    columns = read_columns(simulation, "train", step.columns())
    domains = Domains(train, read_features(data, "train", info.features), info.features, columns, info.species)
    if not len(domains.data):
        raise PidflowError(f"{data}: the run's data has no training track to adapt to; add data or empty 'adapt.steps'")
    _train(model, type(model)(info, folder), step, domains, validation, accelerator, threads)
    info.write(folder)


def _train(
    source: NetworkModel[Any],
    target: NetworkModel[Any],
    step: TrainingStep,
    domains: Domains,
    validation: Tracks,
    accelerator: str,
    threads: int,
) -> None:
    """Train a source's network by a step, calibrate it on simulation and write weights and learning curve.

    Simulated batches are those of the source's training, its loss is the same, and neither stopping nor selection
    looks at validation: the last epoch's average of weights is kept.
    """
    info, options, train = target.info, source.settings.optimisation, domains.simulation
    device = prepare(info.seed, threads, accelerator)
    others = step.others(domains)
    own_pattern, other_pattern = (patterns(source.trained, part) for part in (train.features, others))
    if not step.balanced:
        own_pattern, other_pattern = torch.zeros_like(own_pattern), torch.zeros_like(other_pattern)
    partners = Partners(own_pattern, other_pattern)
    network = source.trained.network
    initial = [tensor.cpu().numpy().copy() for tensor in network.state_dict().values()]
    network.to(device)
    own = nn.ModuleDict(step.networks(Sizes(network.encoder.width, len(info.species)), domains)).to(device)
    average = Average(network, options.average)
    weighting = Weighting.of(train, info.features, options)
    species = weighting.species.to(device)
    detectors = detectors_of(info.features)
    batch = min(options.batch, len(train))
    per_epoch = max(1, len(train) // batch)
    joint_epochs = step.settings.epochs
    total = step.alone + joint_epochs
    parameters = [*network.parameters(), *own.parameters()]
    betas = _ADVERSARIAL_BETAS if len(own) else BETAS
    optimiser = torch.optim.AdamW(
        parameters, step.settings.learning_rate, betas=betas, weight_decay=options.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda number: cosine(number, total * per_epoch))
    simulated, labels, measured = (torch.from_numpy(a) for a in (train.features, train.labels, others))
    known = weights_of(train)
    weights = torch.ones(len(train)) if known is None else known
    columns = {name: torch.from_numpy(column) for name, column in domains.columns.items()}

    def now(raw: Floats) -> Floats:
        return predict(average.network, raw)

    def epoch(number: int) -> Epoch:
        if not step.begin(number, domains, now):
            raise _EnoughError
        network.train()
        own.train()
        joint = number >= step.alone
        own.requires_grad_(not (joint and step.frozen))
        total_loss, steps = torch.zeros((), device=device), 0
        for rows in shuffled(len(train), batch):
            beside = partners.draw(rows.repeat(step.others_per_track))
            raw = torch.cat([simulated[rows], measured[beside]]).to(device)
            if options.hide_detector:
                raw = hide(raw, detectors, options.hide_detector)
            with torch.set_grad_enabled(joint):
                vectors = network.encoder(raw)
                logits = network.heads(vectors)
            truth = labels[rows].to(device).float()
            track = None if weighting.tracks is None else weighting.tracks[rows]
            class_part = class_loss(logits[: len(rows)], truth, track, species)
            done = number - step.alone + steps / per_epoch
            further = {name: column[rows].to(device) for name, column in columns.items()}
            weight = weights[rows].to(device)
            loss = class_part + step.penalty(
                Batch(vectors, logits, truth, weight, further, beside, max(0.0, done / joint_epochs))
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            if joint:
                average.update((number - step.alone) * per_epoch + steps)
            schedule.step()
            total_loss, steps = total_loss + class_part.detach(), steps + 1
        held_out = now(validation.features)
        truth, known = torch.from_numpy(validation.labels), weights_of(validation)
        return {
            "tracks": 2 * batch * steps,
            "train_loss": float(total_loss) / steps,
            "validation_loss": float(class_loss(torch.from_numpy(held_out), truth, known, weighting.species)),
            "validation_auc": macro_auc(held_out, validation.labels),
            **step.figures(),
        }

    arrays = [a for part in (train, validation) for a in (part.features, part.labels, part.weights) if a is not None]
    identity = fingerprint(info.model_dump(mode="json"), *initial, *arrays, domains.data, *domains.columns.values())
    modules: dict[str, nn.Module] = {"network": network, "average": average.network, "own": own}
    if (memory := step.memory(domains)) is not None:
        modules["memory"] = memory
    training = Training(modules, optimiser, schedule, checkpoint_beside(target.folder), identity)
    label = f"run {info.run} {target.folder.name}"
    try:
        training.run(total, epoch, watch=average.network, patience=None, label=label)
    except _EnoughError:
        training.checkpoint.unlink(missing_ok=True)
    training.write_history(target.folder / HISTORY_FILE)
    finish(target, average.network, validation, np.log(weighting.species.numpy()))
