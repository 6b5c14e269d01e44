"""Domain-adversarial adaptation of a trained network to unlabelled data.

Sources: Y. Ganin et al., JMLR 17 (2016) 59 (gradient reversal and its schedule); M. Kabus et al.,
JINST 17 (2022) C07016 (application to ALICE particle identification).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from pidflow.config.models import Adapt
from pidflow.errors import PidflowError
from pidflow.model import HISTORY_FILE
from pidflow.models.base import Tracks
from pidflow.models.network import NetworkModel
from pidflow.train.engine import Epoch, Training, cosine, fingerprint, macro_auc, predict, prepare, shuffled
from pidflow.train.network import class_loss, finish


class ReverseGradient(torch.autograd.Function):
    """The identity forwards; the gradient times −strength backwards."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:
        return -ctx.strength * gradients[0], None


def discriminator(width: int, hidden: int) -> nn.Sequential:
    """Return the network that tells data from simulation by the encoder's vector [N, width]."""
    return nn.Sequential(
        nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1)
    )


def strength_at(progress: float, final: float) -> float:
    """Return the strength of the reversed gradient at `progress` in [0, 1] (Ganin et al., sect. 5.2.2)."""
    return final * (2.0 / (1.0 + math.exp(-10.0 * progress)) - 1.0)


def adapt(
    source: NetworkModel[Any],
    target: NetworkModel[Any],
    train: Tracks,
    validation: Tracks,
    data: NDArray[np.float32],
    settings: Adapt,
    checkpoint: str | Path,
    *,
    threads: int,
    accelerator: str,
) -> None:
    """Adapt a trained network and write the adapted model directory.

    The discriminator is first trained alone on the given encoder; then mixed batches, half
    simulation and half data, pass through both, and only simulation through the species' heads.
    Neither stopping nor selection looks at data: the last epoch is kept. Calibration is that of simulation.

    Parameters
    ----------
    source
        Model trained on simulation; its network has an ``encoder`` and ``heads``.
    target
        The adapted model; its weights are written.
    train, validation
        Labelled simulated tracks.
    data
        Unlabelled tracks, float32 [N, F].
    settings
        The ``adapt`` block of the configuration.
    checkpoint
        File from which a killed training goes on.
    threads, accelerator
        Threads of the tensor library, and ``auto``, ``cpu`` or ``cuda``.
    """
    info = target.info
    device = prepare(info.seed, threads, accelerator)
    if not len(data):
        raise PidflowError(
            f"{source.folder}: the run's data has no training track to adapt to; add data or set 'adapt.method'"
        )
    network = source.trained.network
    if not hasattr(network, "encoder"):
        raise PidflowError(
            f"{source.folder}: a model of kind '{info.kind}' has no encoder to adapt; set 'adapt.model' to one that has"
        )
    initial = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    domain = discriminator(network.encoder.width, settings.discriminator_hidden)
    batch = min(source.settings.optimisation.batch, len(train), len(data))
    per_epoch = max(1, len(train) // batch)
    alone, total = settings.discriminator_epochs, settings.discriminator_epochs + settings.epochs
    network.to(device)
    domain.to(device)
    parameters = [*network.parameters(), *domain.parameters()]
    optimiser = torch.optim.AdamW(parameters, settings.learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: cosine(step, total * per_epoch))
    simulated, labels, measured = (torch.from_numpy(a) for a in (train.features, train.labels, data))
    domains = torch.cat([torch.zeros(batch, 1), torch.ones(batch, 1)]).to(device)

    def data_rows() -> Tensor:
        return torch.randint(len(measured), (batch,))

    def epoch(number: int) -> Epoch:
        network.train()
        class_sum = domain_sum = 0.0
        right = steps = 0
        for rows in shuffled(len(train), batch):
            progress = (number - alone + steps / per_epoch) / settings.epochs
            vectors = network.encoder(torch.cat([simulated[rows], measured[data_rows()]]).to(device))
            if number < alone:
                vectors, strength = vectors.detach(), 0.0
            else:
                strength = strength_at(progress, settings.strength)
            guess = domain(ReverseGradient.apply(vectors, strength))
            domain_loss = functional.binary_cross_entropy_with_logits(guess, domains)
            class_part = class_loss(network.heads(vectors[:batch]), labels[rows].to(device))
            loss = domain_loss if number < alone else domain_loss + class_part
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            class_sum += float(class_part.detach())
            domain_sum += float(domain_loss.detach())
            right += int(((guess > 0) == (domains > 0)).sum())
            steps += 1
        logits = predict(network, validation.features)
        return {
            "tracks": 2 * batch * steps,
            "train_loss": class_sum / steps,
            "domain_loss": domain_sum / steps,
            "domain_accuracy": right / (2 * batch * steps),
            "validation_loss": float(class_loss(torch.from_numpy(logits), torch.from_numpy(validation.labels))),
            "validation_auc": macro_auc(logits, validation.labels),
        }

    identity = fingerprint(
        info.model_dump(mode="json"),
        *(tensor.numpy() for tensor in initial.values()),
        *(train.features, train.labels, validation.features, validation.labels, data),
    )
    training = Training({"network": network, "domain": domain}, optimiser, schedule, Path(checkpoint), identity)
    training.run(total, epoch, watch=network, patience=None, label=f"run {info.run} dann")
    training.write_history(target.folder / HISTORY_FILE)
    finish(target, network, validation, np.zeros(len(info.species), dtype=np.float32))
