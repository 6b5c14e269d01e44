"""The feature-set network: embedding of the features present, encoder, attention pooling, one head per species.

Tokens are kept as the rows of one matrix (shape suffix T: N·F tokens): graphs run its products with their offsets and
ReLU as one operation each.

Sources: M. Kasak, K. Deja, M. Karwowska, M. Jakubowska, Ł. Graczykowski, M. Janik, EPJC 84 (2024) 691
(architecture and sizes); D. Grangier, I. Melvin, NIPS 2010 (feature-set embedding).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pidflow.networks.inputs import Encoding, Inputs, adjust, encoder_of

_MASKED = -1e4
_LEAST = 1e-30


def share(score: Tensor, present: Tensor, dim: int) -> Tensor:
    """Return the softmax along an axis over what is present (1, else 0), 0 elsewhere."""
    known = score + (1.0 - present) * _MASKED
    if torch.onnx.is_in_onnx_export():
        # ONNX Runtime's softmax takes three times as long as these steps for axes as short as a set of features
        weight = torch.exp((known - known.amax(dim=dim, keepdim=True)).clamp(max=0.0)) * present
        return weight / (weight.sum(dim=dim, keepdim=True) + _LEAST)
    return torch.softmax(known, dim=dim) * present


class FeatureSetEmbedding(nn.Module):
    """Turn each (feature, value) pair into a token.

    The published embedding feeds a one-hot feature code and the value to a linear layer. Here the
    code's rows are looked up, without the multiplication by zeros, and the weight of the value is
    the feature's own; with equal value weights for all features the two are the same function.
    The value may be encoded by several numbers (`pidflow.networks.inputs`), each with its weight.
    """

    def __init__(
        self, features: int, hidden: int, width: int, dropout: float, encoding: Encoding = "linear", size: int = 1
    ) -> None:
        super().__init__()
        self.encode = encoder_of(encoding, features, size)
        bound = (features + 1) ** -0.5
        self.feature = nn.Parameter(torch.empty(features, hidden).uniform_(-bound, bound))
        scale = self.encode.size**-0.5
        self.value = nn.Parameter(torch.empty(features, self.encode.size, hidden).uniform_(-scale, scale))
        self.out = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, value_NF: Tensor) -> Tensor:
        encoded_NFE = self.encode(value_NF)
        if self.encode.size == 1:
            hidden = encoded_NFE * self.value[:, 0] + self.feature
        else:
            hidden = torch.matmul(encoded_NFE.transpose(0, 1), self.value).transpose(0, 1) + self.feature
        token_TW: Tensor = self.dropout(self.out(torch.relu(hidden).reshape(-1, hidden.shape[2])))
        return token_TW


class EncoderLayer(nn.Module):
    """Post-norm transformer encoder layer over the tokens that are present."""

    def __init__(self, width: int, heads: int, feed_forward: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm_attention = nn.LayerNorm(width)
        self.feed = nn.Sequential(
            nn.Linear(width, feed_forward), nn.ReLU(), nn.Dropout(dropout), nn.Linear(feed_forward, width)
        )
        self.norm_feed = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, token_TW: Tensor, present_N11F: Tensor) -> Tensor:
        features, width = present_N11F.shape[3], token_TW.shape[1]
        split = self.qkv(token_TW).reshape(-1, features, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        score = torch.matmul(query * self.scale, key.transpose(2, 3))
        attended = torch.matmul(share(score, present_N11F, dim=3), value)
        attended = self.project(attended.transpose(1, 2).reshape(-1, width))
        token_TW = self.norm_attention(token_TW + self.dropout(attended))
        token_TW = self.norm_feed(token_TW + self.dropout(self.feed(token_TW)))
        return token_TW


class Encoder(nn.Module):
    """From raw features with NaN where a value is missing to one vector per track.

    Parameters
    ----------
    features
        Number of features.
    embedding_hidden, width, layers, heads, feed_forward, pooling_hidden
        Sizes.
    dropout
        Dropout at the output of the embedding and in each layer.
    encoding, encoding_size
        Encoding of a value, and its number of bins or frequencies.
    """

    def __init__(
        self,
        features: int,
        *,
        embedding_hidden: int,
        width: int,
        layers: int,
        heads: int,
        feed_forward: int,
        pooling_hidden: int,
        dropout: float,
        encoding: Encoding = "linear",
        encoding_size: int = 1,
    ) -> None:
        super().__init__()
        self.inputs = Inputs(features)
        self.embed = FeatureSetEmbedding(features, embedding_hidden, width, dropout, encoding, encoding_size)
        self.layers = nn.ModuleList(EncoderLayer(width, heads, feed_forward, dropout) for _ in range(layers))
        self.width = width
        self.pool = nn.Sequential(nn.Linear(width, pooling_hidden), nn.ReLU(), nn.Linear(pooling_hidden, width))

    def forward(self, raw_NF: Tensor) -> Tensor:
        value_NF, missing_NF = self.inputs(raw_NF)
        present_NF = 1.0 - missing_NF.to(value_NF.dtype)
        token_TW: Tensor = self.embed(value_NF)
        for layer in self.layers:
            token_TW = layer(token_TW, present_NF[:, None, None, :])
        shape = (-1, raw_NF.shape[1], self.width)
        weight_NFW = share(self.pool(token_TW).reshape(shape), present_NF[:, :, None], dim=1)
        return (weight_NFW * token_TW.reshape(shape)).sum(dim=1)


class FeatureSetNetwork(nn.Module):
    """Encoder and one-vs-all heads; returns logits float32 [N, S] of raw features float32 [N, F]."""

    def __init__(self, encoder: Encoder, species: int, classifier_hidden: int, dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = nn.Sequential(
            nn.Linear(encoder.width, classifier_hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(classifier_hidden, species),
        )

    def adjust(self, features: NDArray[np.float32]) -> None:
        """Fit scale and encoding to features [N, F]."""
        adjust(self.encoder.inputs, self.encoder.embed.encode, features)

    def stages(self) -> list[list[nn.Parameter]]:
        """Return the parameters from the inputs to the heads, part by part."""
        parts = (self.encoder.embed, *self.encoder.layers, self.encoder.pool, self.heads)
        return [list(part.parameters()) for part in parts]

    def forward(self, raw_NF: Tensor) -> Tensor:
        logits: Tensor = self.heads(self.encoder(raw_NF))
        return logits
