"""A perceptron that is many: one body, whose members differ by learned scales, and whose answers are averaged.

Source: Y. Gorishniy, A. Kotelnikov, A. Babenko, TabM, ICLR 2025, arXiv:2410.24210 (the variant with
multiplicative adapters before the first layer and a head per member, "TabM-mini").
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pidflow.networks.inputs import Encoding, Inputs, adjust, encoder_of

_SMALL = 1e-6


class TabM(nn.Module):
    """Encoded values and the mask of missing ones through a shared body.

    In training it returns each member's logits [N, K, S], since each learns on its own; in evaluation the
    logit [N, S] of the members' mean certainty.
    """

    def __init__(
        self,
        features: int,
        species: int,
        *,
        members: int,
        hidden: Sequence[int],
        dropout: float,
        encoding: Encoding,
        encoding_size: int,
    ) -> None:
        super().__init__()
        self.inputs = Inputs(features)
        self.encode = encoder_of(encoding, features, encoding_size)
        width = features * (self.encode.size + 1)
        # signs, so that members start apart
        self.scale = nn.Parameter(torch.randint(0, 2, (members, width)).float() * 2 - 1)
        body: list[nn.Module] = []
        for size, following in pairwise((width, *hidden)):
            body += [nn.Linear(size, following), nn.ReLU(), nn.Dropout(dropout)]
        self.body = nn.Sequential(*body)
        bound = hidden[-1] ** -0.5
        self.weight = nn.Parameter(torch.empty(members, hidden[-1], species).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(members, 1, species))

    def adjust(self, features: NDArray[np.float32]) -> None:
        """Fit scale and encoding to features [N, F]."""
        adjust(self.inputs, self.encode, features)

    def forward(self, raw_NF: Tensor) -> Tensor:
        value_NF, missing_NF = self.inputs(raw_NF)
        present_NF1 = 1.0 - missing_NF.to(value_NF.dtype).unsqueeze(-1)
        seen = torch.cat([self.encode(value_NF) * present_NF1, present_NF1], dim=-1).flatten(1)
        hidden_KND = self.body(seen * self.scale[:, None])
        logits_KNS = torch.matmul(hidden_KND, self.weight) + self.bias
        if self.training:
            return logits_KNS.transpose(0, 1)
        certainty = torch.sigmoid(logits_KNS).mean(dim=0).clamp(_SMALL, 1.0 - _SMALL)
        return torch.log(certainty / (1.0 - certainty))
