"""Training of networks: one loop, exact resume, progress."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor, nn

from pidflow.errors import PidflowError
from pidflow.files import replacing

Epoch = dict[str, float]


def prepare(seed: int, threads: int, accelerator: str = "cpu") -> torch.device:
    """Make what follows repeatable and return the device for it.

    Same seed, threads and accelerator on the same machine give the same bytes.

    Parameters
    ----------
    seed, threads
        Seed of the tensor library and threads that it may use.
    accelerator
        ``cpu``, ``cuda``, or ``auto``: CUDA where there is one.

    Raises
    ------
    PidflowError
        If ``cuda`` is asked for and there is none.
    """
    # read when CUDA starts; without it its matrix products are not repeatable
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    there = accelerator != "cpu" and torch.cuda.is_available()
    if accelerator == "cuda" and not there:
        raise PidflowError("no CUDA device is visible to this job; set 'accelerator' to auto or cpu, or ask for a GPU")
    return torch.device("cuda" if there else "cpu")


def fingerprint(*parts: Any) -> str:
    """Return a digest of JSON-able values and arrays, by which a checkpoint knows its training."""
    digest = hashlib.sha256()
    for part in parts:
        array = isinstance(part, np.ndarray)
        digest.update(np.ascontiguousarray(part).data if array else json.dumps(part, sort_keys=True).encode())
    return digest.hexdigest()


def shuffled(length: int, batch: int) -> Iterator[Tensor]:
    """Yield the indices 0 … length−1 in random order, `batch` at a time; the rest of a batch is left out."""
    order = torch.randperm(length)
    for start in range(0, max(length - batch + 1, 1), batch):
        yield order[start : start + batch]


def cosine(step: int, total: int, warm_up: float = 0.05) -> float:
    """Return the learning rate's factor: a linear rise over `warm_up` of the steps, then half a cosine."""
    rise = max(1, int(total * warm_up))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - rise) / max(1, total - rise))))


@torch.no_grad()
def predict(module: nn.Module, features: NDArray[np.float32], batch: int = 4096) -> NDArray[np.float32]:
    """Return a module's output for float32 [N, F], in batches, in evaluation mode, on the device where it is."""
    module.eval()
    device = next(module.parameters()).device
    parts = [
        module(torch.from_numpy(features[n : n + batch]).to(device)).cpu().numpy()
        for n in range(0, len(features), batch)
    ]
    return np.concatenate(parts) if parts else np.empty((0, 0), dtype=np.float32)


def macro_auc(score: NDArray[np.float32], labels: NDArray[np.uint8]) -> float:
    """Return the mean over species of the area under the ROC curve, for scores and labels [N, S]."""
    areas = []
    for number in range(labels.shape[1]):
        true = labels[:, number] > 0
        own, others = int(true.sum()), int((~true).sum())
        if own and others:
            rank_sum = float(rankdata(score[:, number])[true].sum())
            areas.append((rank_sum - own * (own + 1) / 2) / (own * others))
    return float(np.mean(areas)) if areas else float("nan")


class Average:
    """Moving average of a network's weights, which is better than the last of them.

    Source: Y. Tarvainen, H. Valpola, NeurIPS 2017, arXiv:1703.01780; the decay rises over the first steps.

    Attributes
    ----------
    network
        The average, a network of its own; the network itself for a decay of 0.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.network = copy.deepcopy(network).requires_grad_(False) if decay else network
        self._own: list[Tensor] = list(self.network.parameters())
        self._latest: list[Tensor] = list(network.parameters())

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after a step, counted from 0."""
        if self.decay:
            decay = min(self.decay, (1.0 + step) / (10.0 + step))
            torch._foreach_lerp_(self._own, self._latest, 1.0 - decay)


@dataclass
class Training:
    """A training that can be killed at any time and goes on from its last finished epoch.

    Attributes
    ----------
    modules
        What is trained, by name.
    optimiser, schedule
        Optimiser and learning-rate schedule.
    checkpoint
        File for the state after each epoch; removed at the end.
    identity
        Fingerprint of data and settings; a checkpoint of another training is ignored.
    history
        One entry per finished epoch.
    """

    modules: dict[str, nn.Module]
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    checkpoint: Path
    identity: str
    history: list[Epoch] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)

    def run(
        self, epochs: int, epoch: Callable[[int], Epoch], *, watch: nn.Module, patience: int | None, label: str
    ) -> None:
        """Run `epoch` up to `epochs` times.

        Parameters
        ----------
        epochs
            Most epochs.
        epoch
            Does one epoch and returns its figures; ``tracks`` and, with `patience`,
            ``validation_loss`` are needed.
        watch
            Module whose weights of the best epoch are restored at the end.
        patience
            Epochs without a better ``validation_loss`` before stopping; None: the last epoch is kept.
        label
            Name for the progress lines.
        """
        self._resume()
        for number in range(len(self.history), epochs):
            if patience is not None and self._stale() >= patience:
                break
            begin = time.monotonic()
            figures = epoch(number)
            seconds = time.monotonic() - begin
            speed = figures.pop("tracks") / seconds
            self.history.append({"epoch": float(number + 1), **figures})
            if patience is None or self._stale() == 0:
                self.best = {name: tensor.clone() for name, tensor in watch.state_dict().items()}
            self._save()
            shown = "  ".join(f"{name} {value:.4f}" for name, value in figures.items())
            left = (epochs - number - 1) * seconds
            print(f"{label} {number + 1}/{epochs}  {shown}  {speed:,.0f} tracks/s  ≤ {left:.0f} s left", flush=True)
        watch.load_state_dict(self.best)
        self.checkpoint.unlink(missing_ok=True)

    def write_history(self, path: str | Path) -> None:
        """Write the figures of every epoch as Parquet."""
        with replacing(path) as temporary:
            pq.write_table(pa.Table.from_pylist(self.history), temporary)

    @property
    def _identity(self) -> str:
        """The fingerprint, with what the modules hold: other code may have made them otherwise."""
        held = {
            name: {key: list(tensor.shape) for key, tensor in module.state_dict().items()}
            for name, module in self.modules.items()
        }
        return fingerprint(self.identity, held)

    def _stale(self) -> int:
        losses = [entry["validation_loss"] for entry in self.history]
        return len(losses) - 1 - int(np.argmin(losses)) if losses else 0

    def _save(self) -> None:
        state = {
            "identity": self._identity,
            "modules": {name: module.state_dict() for name, module in self.modules.items()},
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "history": self.history,
            "best": self.best,
        }
        with replacing(self.checkpoint) as temporary:
            torch.save(state, temporary)

    def _resume(self) -> None:
        if not self.checkpoint.is_file():
            return
        try:
            state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged archive shows as many exception types
            print(f"{self.checkpoint} is damaged ({type(error).__name__}); training starts anew", flush=True)
            return
        if state["identity"] != self._identity:
            return
        for name, module in self.modules.items():
            module.load_state_dict(state["modules"][name])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        torch.set_rng_state(state["random"])
        if state["random_cuda"]:
            torch.cuda.set_rng_state_all(state["random_cuda"])
        self.history, self.best = state["history"], state["best"]
        print(f"resumed after epoch {len(self.history)}", flush=True)
