"""Counts, areas under the ROC curve and calibration errors of one model on all bootstrap replicas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pidflow.evaluate.calibration import BINS, certainty_bin
from pidflow.evaluate.ranking import Ranking, ranking_score, tally
from pidflow.tracks import DETECTOR_PATTERNS

SELECTED, TRUE, BOTH = 0, 1, 2
"""Last axis of the counts: tracks that are only selected, only true, or both."""

_PATTERNS = len(DETECTOR_PATTERNS)
_BLOCK = 2**21
"""Tracks times replicas that are worked on at a time, which bounds the memory."""


@dataclass(frozen=True)
class Sample:
    """Test tracks, in the order of collisions, and replica weights, which all models share.

    Attributes
    ----------
    is_true
        Shape (n_species, n_tracks).
    pt_bin
        Shape (n_tracks,), from 0 to n_pt - 1; the first and last bin lie outside the edges.
    pattern
        Shape (n_tracks,): index in `pidflow.tracks.DETECTOR_PATTERNS`.
    collision
        Shape (n_tracks,): index of the collision, never falling.
    weights
        Shape (n_collisions, 1 + n_replicas), first the sample itself.
    n_pt
        Number of pT bins, with both outside.
    """

    is_true: NDArray[np.bool_]
    pt_bin: NDArray[np.intp]
    pattern: NDArray[np.intp]
    collision: NDArray[np.intp]
    weights: NDArray[np.uint8]
    n_pt: int


@dataclass(frozen=True)
class Resampled:
    """What all metrics of a model follow from, on the sample itself (replica 0) and on the replicas.

    Attributes
    ----------
    counts
        Shape (1 + n_replicas, n_species, n_pt, n_patterns, 3): weighted tracks.
    auc, ece
        Shape (1 + n_replicas, n_species, 1 + n_patterns): all tracks, then each pattern.
    """

    counts: NDArray[np.float64]
    auc: NDArray[np.float64]
    ece: NDArray[np.float64]


def resample(sample: Sample, certainty: NDArray[np.float32], threshold: float) -> Resampled:
    """Evaluate a model on all replicas.

    Parameters
    ----------
    sample
        Tracks and weights.
    certainty
        Shape (n_tracks, n_species); NaN where the model cannot score the track.
    threshold
        Certainty from which a track is selected.
    """
    n_species, n_tracks = sample.is_true.shape
    n_replicas = sample.weights.shape[1]
    shape = (n_species, sample.n_pt, _PATTERNS, 3)
    score = ranking_score(certainty).T
    counting = _counting(sample, score >= threshold, shape)
    rankings = _rankings(sample, score)
    gaps, scored = _calibration(sample, certainty.T)

    counts = np.empty((n_replicas, *shape))
    auc, ece = np.empty((2, n_replicas, n_species, 1 + _PATTERNS))
    step = max(8, _BLOCK // n_tracks)
    for start in range(0, n_replicas, step):
        part = slice(start, start + step)
        weights = sample.weights[:, part].astype(np.int32)
        counts[part] = (counting @ weights).T.reshape(-1, *shape)
        auc[part] = np.stack([ranking.auc(weights) for ranking in rankings], axis=1).reshape(auc[part].shape)
        ece[part] = _ece(
            (gaps @ weights.astype(np.float64)).reshape(n_species, _PATTERNS, BINS, -1),
            (scored @ weights).reshape(n_species, _PATTERNS, -1),
        )
    has_true = counts[..., TRUE:].sum(axis=(2, 4)) > 0
    ece[~np.concatenate([has_true.any(axis=2, keepdims=True), has_true], axis=2)] = np.nan
    return Resampled(counts, auc, ece)


def _counting(sample: Sample, selected: NDArray[np.bool_], shape: tuple[int, ...]) -> Any:
    """Return the matrix that counts tracks by species, pT bin, pattern and outcome."""
    outcome = np.where(sample.is_true, np.where(selected, BOTH, TRUE), SELECTED)
    track, species = np.nonzero((sample.is_true | selected).T)
    cell = (species, sample.pt_bin[track], sample.pattern[track], outcome[species, track])
    size = (int(np.prod(shape)), len(sample.weights))
    return tally(np.ravel_multi_index(cell, shape), sample.collision[track], size)


def _rankings(sample: Sample, score: NDArray[np.float32]) -> list[Ranking]:
    """Return the ranking of each species, on all tracks and on those of each pattern."""
    members = [np.arange(sample.pattern.size), *(np.flatnonzero(sample.pattern == i) for i in range(_PATTERNS))]
    return [
        Ranking(values[rows], is_true[rows], sample.collision[rows], len(sample.weights))
        for values, is_true in zip(score, sample.is_true, strict=True)
        for rows in members
    ]


def _calibration(sample: Sample, certainty: NDArray[np.float32]) -> tuple[Any, Any]:
    """Return the matrices of certainty minus truth by species, pattern and bin, and of scored tracks by both."""
    n_species, n_collisions = len(certainty), len(sample.weights)
    track, species = np.nonzero(~np.isnan(certainty.T))
    values = certainty[species, track].astype(np.float64)
    group, collision = species * _PATTERNS + sample.pattern[track], sample.collision[track]
    gaps = tally(
        group * BINS + certainty_bin(certainty[species, track]),
        collision,
        (n_species * _PATTERNS * BINS, n_collisions),
        values - sample.is_true[species, track],
    )
    return gaps, tally(group, collision, (n_species * _PATTERNS, n_collisions))


def _ece(gaps: NDArray[np.float64], scored: NDArray[np.int32]) -> NDArray[np.float64]:
    """Return the error, shape (n_replicas, n_species, 1 + n_patterns), of all tracks and of each pattern.

    Parameters
    ----------
    gaps
        Shape (n_species, n_patterns, n_bins, n_replicas): sum of certainty minus truth.
    scored
        Shape (n_species, n_patterns, n_replicas): tracks.
    """
    distance = np.concatenate([np.abs(gaps.sum(axis=1, keepdims=True)), np.abs(gaps)], axis=1).sum(axis=2)
    tracks = np.concatenate([scored.sum(axis=1, keepdims=True), scored], axis=1)
    error = np.divide(distance, tracks, out=np.full(distance.shape, np.nan), where=tracks > 0)
    return np.moveaxis(error, -1, 0)
