"""From a network's logits to calibrated certainties."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pidflow.tracks import BY_NAME

DETECTORS = ("trd", "tof")
"""Detectors whose presence makes a track's pattern, as in `pidflow.tracks.DETECTOR_PATTERNS`."""

PRIOR_TRACKS = 50.0
"""Weight of the identity in the fit, in units of tracks of information, so that rare patterns keep it."""


class Calibrated(nn.Module):
    """Certainties sigmoid(slope · logit + offset), with slope and offset of each detector pattern and species.

    Attributes
    ----------
    slope, offset : Tensor
        float32 [P, S] buffers, P = 4: index TRD + 2·TOF of what the features show of the track.
    complete_only
        Whether a track with a missing value gets certainty 0.
    """

    slope: Tensor
    offset: Tensor
    seen_by: Tensor

    def __init__(self, network: nn.Module, features: Sequence[str], species: int, *, complete: bool = False) -> None:
        super().__init__()
        self.network, self.complete_only = network, complete
        patterns = 2 ** len(DETECTORS)
        self.register_buffer("slope", torch.ones(patterns, species))
        self.register_buffer("offset", torch.zeros(patterns, species))
        own = [[float(BY_NAME[name].detector == detector) for detector in DETECTORS] for name in features]
        self.register_buffer("seen_by", torch.tensor(own), persistent=False)

    def pattern(self, raw_NF: Tensor) -> Tensor:
        """Return the detector pattern of tracks, int64 [N]."""
        seen = (1.0 - torch.isnan(raw_NF).to(raw_NF.dtype)) @ self.seen_by > 0
        return seen[:, 0].long() + 2 * seen[:, 1].long()

    def forward(self, raw_NF: Tensor) -> Tensor:
        pattern = self.pattern(raw_NF)
        certainty = torch.sigmoid(self.slope[pattern] * self.network(raw_NF) + self.offset[pattern])
        if self.complete_only:
            incomplete = torch.isnan(raw_NF).any(dim=1, keepdim=True)
            certainty = torch.where(incomplete, torch.zeros_like(certainty), certainty)
        return certainty


def fit_scale(
    logits: NDArray[np.float32], labels: NDArray[np.uint8], weights: NDArray[np.float32] | None = None
) -> tuple[float, float]:
    """Return slope and offset by which logits [N] describe labels [N] of tracks with weights [N] best.

    Maximum likelihood by Newton's method, with a Gaussian prior of `PRIOR_TRACKS` tracks around the identity.
    Source: J. Platt, Advances in Large Margin Classifiers (1999) 61.
    """
    x = np.stack([logits.astype(np.float64), np.ones(len(logits))], axis=1)
    counts = np.ones(len(x)) if weights is None else weights.astype(np.float64)
    identity = np.array([1.0, 0.0])
    prior = (
        PRIOR_TRACKS
        * 0.25
        * np.diag([max(float(np.average(x[:, 0] ** 2, weights=counts)), 1.0) if len(x) else 1.0, 1.0])
    )
    parameters = identity.copy()
    for _ in range(25):
        certainty = 1.0 / (1.0 + np.exp(-np.clip(x @ parameters, -50, 50)))
        gradient = x.T @ (counts * (certainty - labels)) + prior @ (parameters - identity)
        curvature = (x * (counts * certainty * (1.0 - certainty))[:, None]).T @ x + prior
        step = np.linalg.solve(curvature, gradient)
        # a step that would turn the order of tracks round is shortened
        parameters -= step * min(1.0, 0.5 / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < 1e-8:
            break
    return max(float(parameters[0]), 0.05), float(parameters[1])


def calibrate(
    calibrated: Calibrated,
    features: NDArray[np.float32],
    logits: NDArray[np.float32],
    labels: NDArray[np.uint8],
    weights: NDArray[np.float32] | None = None,
) -> None:
    """Set slope and offset by tracks that the network was not fitted to.

    Parameters
    ----------
    calibrated
        The network; its buffers are set.
    features, logits, labels
        Raw features [N, F], the network's logits and the labels [N, S].
    weights
        How much each track counts, [N]; None: all the same.
    """
    pattern = calibrated.pattern(torch.from_numpy(features)).numpy()
    for index in np.unique(pattern):
        rows = pattern == index
        for number in range(labels.shape[1]):
            own = None if weights is None else weights[rows]
            slope, offset = fit_scale(logits[rows, number], labels[rows, number], own)
            calibrated.slope[index, number], calibrated.offset[index, number] = slope, offset
