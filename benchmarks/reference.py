"""The published method, written plainly: the reference of the training benchmark.

M. Kasak, K. Deja, M. Karwowska, M. Jakubowska, Ł. Graczykowski, M. Janik, EPJC 84 (2024) 691: one binary network per
species, charges apart; each measured (feature, value) pair is a one-hot code beside the value; embedding, transformer
encoder, attention pooling, classifier. Sizes and dropout are the paper's. Rows come from a `DataLoader`, tracks of all
patterns of missing detectors share a batch by padding and masks, and the tensor library's own encoder is used: float32,
eager, with as many threads as the caller has set. Adam's learning rate of 1e-3 is the library's default.

Shape suffixes: N tracks, F features, W token width.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

EMBEDDING_HIDDEN, WIDTH, HEADS, LAYERS, FEED_FORWARD = 128, 32, 2, 2, 128
POOLING_HIDDEN, CLASSIFIER_HIDDEN, DROPOUT = 64, 64, 0.1
BATCH, LEARNING_RATE = 512, 1e-3


class Rows(Dataset[tuple[Tensor, Tensor]]):
    """Tracks one by one: features float32 [F], NaN where missing, and the label."""

    def __init__(self, features: NDArray[np.float32], labels: NDArray[np.float32]) -> None:
        self.features, self.labels = torch.from_numpy(features), torch.from_numpy(labels)

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        return self.features[row], self.labels[row]


class Network(nn.Module):
    """One species against the rest; returns logits float32 [N] of standardised features float32 [N, F]."""

    one_hot: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("one_hot", torch.eye(features))
        self.embed = nn.Sequential(
            nn.Linear(features + 1, EMBEDDING_HIDDEN),
            nn.ReLU(),
            nn.Linear(EMBEDDING_HIDDEN, WIDTH),
            nn.Dropout(DROPOUT),
        )
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, FEED_FORWARD, DROPOUT, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.pool = nn.Sequential(nn.Linear(WIDTH, POOLING_HIDDEN), nn.ReLU(), nn.Linear(POOLING_HIDDEN, WIDTH))
        self.classify = nn.Sequential(
            nn.Linear(WIDTH, CLASSIFIER_HIDDEN), nn.ReLU(), nn.Dropout(DROPOUT), nn.Linear(CLASSIFIER_HIDDEN, 1)
        )

    def forward(self, value_NF: Tensor) -> Tensor:
        missing_NF = torch.isnan(value_NF)
        value_NF1 = torch.nan_to_num(value_NF).unsqueeze(-1)
        pair = torch.cat([self.one_hot.expand(len(value_NF), -1, -1), value_NF1], dim=-1)
        token_NFW = self.encoder(self.embed(pair), src_key_padding_mask=missing_NF)
        score_NFW = self.pool(token_NFW).masked_fill(missing_NF.unsqueeze(-1), -torch.inf)
        pooled_NW = (torch.softmax(score_NFW, dim=1) * token_NFW).sum(dim=1)
        logits: Tensor = self.classify(pooled_NW).squeeze(-1)
        return logits


@dataclass(frozen=True)
class Epoch:
    """One pass over the training set: validation AUC after it, and time of the pass without that validation, s."""

    auc: float
    seconds: float


def build(features: int) -> Network:
    """Return an untrained network for one species."""
    return Network(features)


def auc(label: NDArray[np.float32], score: NDArray[np.float32]) -> float:
    """Return the area under the ROC curve."""
    positive = label > 0.5
    n_positive, n_negative = positive.sum(), (~positive).sum()
    rank_sum = rankdata(score)[positive].sum()
    return float((rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def _pass(network: Network, optimiser: torch.optim.Optimizer, loader: DataLoader[tuple[Tensor, Tensor]]) -> float:
    network.train()
    begin = time.perf_counter()
    for features, labels in loader:
        loss = functional.binary_cross_entropy_with_logits(network(features), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return time.perf_counter() - begin


@torch.no_grad()
def _scores(network: Network, features: NDArray[np.float32]) -> NDArray[np.float32]:
    network.eval()
    return np.concatenate([network(part).numpy() for part in torch.from_numpy(features).split(8192)])


def train(
    features: NDArray[np.float32],
    labels: NDArray[np.float32],
    validation_features: NDArray[np.float32],
    validation_labels: NDArray[np.float32],
    *,
    epochs: int,
    seed: int,
) -> list[Epoch]:
    """Train the network of one species.

    Parameters
    ----------
    features, validation_features
        float32 [N, F], NaN where missing, not yet standardised.
    labels, validation_labels
        float32 [N], 1 for tracks of the species.
    epochs
        Passes over the training set.
    seed
        Seed of the weights, the order of tracks and the dropout.
    """
    torch.manual_seed(seed)
    mean, std = np.nanmean(features, axis=0), np.nanstd(features, axis=0)
    std[std == 0] = 1
    rows = Rows((features - mean) / std, labels)
    loader = DataLoader(rows, batch_size=BATCH, shuffle=True)
    network = build(features.shape[1])
    optimiser = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    history = []
    for _ in range(epochs):
        seconds = _pass(network, optimiser, loader)
        score = _scores(network, (validation_features - mean) / std)
        history.append(Epoch(auc(validation_labels, score), seconds))
    return history


def tracks_per_second(features: NDArray[np.float32], labels: NDArray[np.float32], *, passes: int = 1) -> float:
    """Return the training rate of one network over whole passes, after a warm-up of ten batches."""
    network = build(features.shape[1])
    optimiser = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    warm_up = Rows(features[: 10 * BATCH], labels[: 10 * BATCH])
    _pass(network, optimiser, DataLoader(warm_up, batch_size=BATCH, shuffle=True))
    loader = DataLoader(Rows(features, labels), batch_size=BATCH, shuffle=True)
    return passes * len(features) / sum(_pass(network, optimiser, loader) for _ in range(passes))
