"""Batches, samples and a small training for the tests of training steps."""

from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn import functional

from pidflow.adapt.steps import settings_of, step_of
from pidflow.adapt.steps.base import Batch, Domains, Sizes
from pidflow.models.base import Tracks
from pidflow.train.engine import Average

TRAINING = ("cdan", "dann", "deep_coral", "decorrelate", "mcc", "mmd", "self_training")
WIDTH, SPECIES, HALF = 3, 2, 6
PDG = (211, 321)


def domains(tracks: int = 40, seed: int = 0, pt: Any = None) -> Domains:
    """Return samples of whose simulated tracks each third is of either species, the others of none."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(tracks)[:, None] % 3 == np.arange(SPECIES)).astype(np.uint8)
    simulation = Tracks(rng.normal(size=(tracks, 2)).astype(np.float32), labels)
    columns = {"pt": rng.exponential(size=tracks).astype(np.float32) if pt is None else np.asarray(pt, np.float32)}
    return Domains(simulation, rng.normal(size=(tracks, 2)).astype(np.float32), ("p", "beta"), columns, PDG)


def batch(seed: int = 0, progress: float = 0.5, others: int = HALF, **changes: Any) -> Batch:
    """Return a batch of HALF simulated and so many other tracks; every vector, logit and column is random."""
    torch.manual_seed(seed)
    content: dict[str, Any] = {
        "vectors": torch.randn(HALF + others, WIDTH, requires_grad=True),
        "logits": torch.randn(HALF + others, SPECIES, requires_grad=True),
        "labels": functional.one_hot(torch.arange(HALF) % 3, 3)[:, :SPECIES].float(),
        "weights": torch.ones(HALF),
        "columns": {"pt": torch.rand(HALF) * 3},
        "rows": torch.arange(others),
        "progress": progress,
    }
    return Batch(**content | changes)


def made(kind: str, both: Domains | None = None, **settings: Any) -> Any:
    """Return a step of a kind that has seen both samples, with its networks built."""
    torch.manual_seed(3)
    step: Any = step_of(kind)(settings_of(kind).model_validate({"kind": kind} | settings))
    both = both or domains()
    step.others(both)
    step.networks(Sizes(WIDTH, SPECIES), both)
    step.memory(both)
    return step


def trained(step: Any, sample: Any, steps: int, seed: int = 0) -> nn.Module:
    """Return the average of an encoder and a head, trained on batches of a sample, by a step or without.

    A step's figures are then those of the last 100 batches.
    """
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 8)), nn.Linear(8, 1))
    others = None if step is None else torch.from_numpy(step.others(sample.domains))
    own = nn.ModuleDict() if step is None else nn.ModuleDict(step.networks(Sizes(8, 1), sample.domains))
    # a long memory of gradients makes adversaries circle round each other
    optimiser = torch.optim.AdamW([*network.parameters(), *own.parameters()], 5e-3, betas=(0.5, 0.9))
    average = Average(network, 0.98)
    for number in range(steps):
        raw, labels = sample(256)
        rows = torch.zeros(0, dtype=torch.int64)
        if others is not None:
            rows = torch.randint(len(others), (256 * step.others_per_track,))
            raw = torch.cat([raw, others[rows]])
        vectors = network[0](raw)
        logits = network[1](vectors)
        loss = functional.binary_cross_entropy_with_logits(logits[:256], labels)
        if step is not None:
            if number == steps - 100:
                step.figures()
            loss = loss + step.penalty(Batch(vectors, logits, labels, torch.ones(256), {}, rows, number / steps))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        average.update(number)
    return average.network


class Shifted:
    """Simulation and data whose second feature is shifted; the first one tells the species."""

    def __init__(self) -> None:
        torch.manual_seed(7)
        raw, labels = self(4000)
        tracks = Tracks(raw.numpy(), labels.numpy().astype(np.uint8))
        self.domains = Domains(tracks, self.data(4000).numpy(), ("p", "beta"), {}, (211,))

    def __call__(self, tracks: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.randint(2, (tracks, 1)).float()
        raw = torch.randn(tracks, 2)
        raw[:, :1] += 3.0 * labels
        return raw, labels

    def data(self, tracks: int) -> torch.Tensor:
        raw, _ = self(tracks)
        return raw + torch.tensor([0.0, 2.0])


def area(network: nn.Module, sample: Any) -> float:
    torch.manual_seed(98)
    simulation, labels = sample(4000)
    with torch.no_grad():
        return float(roc_auc_score(labels.numpy(), network(simulation).numpy()))
