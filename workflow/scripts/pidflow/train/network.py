"""The feature-set network: embedding of the features present, encoder, attention pooling, one head per species.

Shape suffixes: N tracks, F features, W token width, H heads, S species.

Sources: M. Kasak, K. Deja, M. Karwowska, M. Jakubowska, Ł. Graczykowski, M. Janik, EPJC 84 (2024) 691
(architecture and sizes); D. Grangier, I. Melvin, NIPS 2010 (feature-set embedding).
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from pidflow.config.models import FseNetwork
from pidflow.files import replacing
from pidflow.model import ModelInfo, read_info

WEIGHTS_FILE = "weights.safetensors"

CLAMP = 8.0
"""Inputs are clamped to ± this after standardisation and logarithm, so that a wild one stays an ordinary number."""

_MASKED = -1e4


class FeatureSetEmbedding(nn.Module):
    """Turn each (feature, value) pair into a token.

    The published embedding feeds a one-hot feature code and the value to a linear layer. Here the
    code's rows are looked up, without the multiplication by zeros, and the weight of the value is
    the feature's own; with equal value weights for all features the two are the same function.
    """

    def __init__(self, features: int, hidden: int, width: int, dropout: float) -> None:
        super().__init__()
        bound = (features + 1) ** -0.5
        self.feature = nn.Parameter(torch.empty(features, hidden).uniform_(-bound, bound))
        self.value = nn.Parameter(torch.empty(features, hidden).uniform_(-1.0, 1.0))
        self.out = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, value_NF: Tensor) -> Tensor:
        hidden = torch.relu(value_NF.unsqueeze(-1) * self.value + self.feature)
        token_NFW: Tensor = self.dropout(self.out(hidden))
        return token_NFW


class EncoderLayer(nn.Module):
    """Post-norm transformer encoder layer over the tokens that are present."""

    def __init__(self, width: int, heads: int, feed_forward: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm_attention = nn.LayerNorm(width)
        self.feed = nn.Sequential(
            nn.Linear(width, feed_forward), nn.ReLU(), nn.Dropout(dropout), nn.Linear(feed_forward, width)
        )
        self.norm_feed = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, token_NFW: Tensor, bias_N11F: Tensor) -> Tensor:
        features, width = token_NFW.shape[1:]
        split = self.qkv(token_NFW).reshape(-1, features, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias_N11F)
        attended = self.project(attended.transpose(1, 2).reshape(-1, features, width))
        token_NFW = self.norm_attention(token_NFW + self.dropout(attended))
        token_NFW = self.norm_feed(token_NFW + self.dropout(self.feed(token_NFW)))
        return token_NFW


class Encoder(nn.Module):
    """From raw features with NaN where a detector is missing to one vector per track.

    Attributes
    ----------
    mean, std : Tensor
        float32 [F] buffers that standardise the inputs inside the graph.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, features: int, settings: FseNetwork) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))
        width = settings.width
        self.embed = FeatureSetEmbedding(features, settings.embedding_hidden, width, settings.dropout)
        self.layers = nn.ModuleList(
            EncoderLayer(width, settings.heads, settings.feed_forward, settings.dropout) for _ in range(settings.layers)
        )
        self.width = width
        self.pool = nn.Sequential(
            nn.Linear(width, settings.pooling_hidden), nn.ReLU(), nn.Linear(settings.pooling_hidden, width)
        )

    def forward(self, raw_NF: Tensor) -> Tensor:
        missing_NF = torch.isnan(raw_NF)
        standard = (raw_NF - self.mean) / self.std
        # linear in the core; the long tail of dE/dx, where slow kaons and protons are, stays apart
        standard = (torch.sign(standard) * torch.log(1.0 + standard.abs())).clamp(-CLAMP, CLAMP)
        value_NF = torch.where(missing_NF, torch.zeros_like(standard), standard)
        bias_NF = missing_NF.to(value_NF.dtype) * _MASKED
        token_NFW: Tensor = self.embed(value_NF)
        for layer in self.layers:
            token_NFW = layer(token_NFW, bias_NF[:, None, None, :])
        weight_NFW = torch.softmax(self.pool(token_NFW) + bias_NF[:, :, None], dim=1)
        return (weight_NFW * token_NFW).sum(dim=1)


class FeatureSetNetwork(nn.Module):
    """Encoder and one-vs-all heads; returns logits float32 [N, S] of raw features float32 [N, F]."""

    def __init__(self, features: int, species: int, settings: FseNetwork) -> None:
        super().__init__()
        self.encoder = Encoder(features, settings)
        self.heads = nn.Sequential(
            nn.Linear(settings.width, settings.classifier_hidden),
            nn.ReLU(),
            nn.Dropout(settings.dropout),
            nn.Linear(settings.classifier_hidden, species),
        )

    def forward(self, raw_NF: Tensor) -> Tensor:
        logits: Tensor = self.heads(self.encoder(raw_NF))
        return logits


def build(info: ModelInfo) -> FeatureSetNetwork:
    """Return an untrained network with the sizes that `info` describes."""
    settings = FseNetwork.model_validate(info.settings["network"])
    return FeatureSetNetwork(len(info.features), len(info.species), settings)


def save(network: FeatureSetNetwork, info: ModelInfo, folder: str | Path) -> None:
    """Write the network's model directory."""
    with replacing(Path(folder) / WEIGHTS_FILE) as temporary:
        save_file(network.state_dict(), temporary)
    info.write(folder)


def load(folder: str | Path) -> FeatureSetNetwork:
    """Read a network, in evaluation mode, from its model directory."""
    network = build(read_info(folder))
    network.load_state_dict(load_file(Path(folder) / WEIGHTS_FILE))
    return network.eval()
