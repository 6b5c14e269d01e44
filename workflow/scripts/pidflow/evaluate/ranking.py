"""Ranking of tracks by certainty, one species against the rest: ROC curve and the area under it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def ranking_score(certainty: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the certainty with NaN (not scored) below every score, so such a track is accepted last."""
    return np.where(np.isnan(certainty), np.float32(-np.inf), certainty)


class Ranking:
    """Area under the ROC curve for many weightings of the same tracks.

    The area is the weighted share of (true, other) pairs in which the true track scores higher,
    ties counted half (H. B. Mann, D. R. Whitney, Ann. Math. Stat. 18 (1947) 50). Scores are
    sorted once; each weighting then costs one cumulative sum.

    Parameters
    ----------
    score
        Shape (n_tracks,); no NaN.
    is_true
        Shape (n_tracks,).
    """

    def __init__(self, score: NDArray[np.float32], is_true: NDArray[np.bool_]) -> None:
        other = np.flatnonzero(~is_true)
        self._other = other[np.argsort(score[other], kind="stable")]
        true = np.flatnonzero(is_true)
        self._true = true[np.argsort(score[true], kind="stable")]
        self._below = np.searchsorted(score[self._other], score[self._true], side="left")
        self._up_to = np.searchsorted(score[self._other], score[self._true], side="right")

    def auc(self, weight: NDArray[np.float64]) -> float:
        """Return the area for weights of shape (n_tracks,), ≥ 0; NaN without a true or another track."""
        other = np.concatenate(([0.0], np.cumsum(weight[self._other])))
        true = weight[self._true]
        pairs = float(true.sum() * other[-1])
        if pairs == 0.0:
            return float("nan")
        return float(true @ (other[self._below] + other[self._up_to])) / (2.0 * pairs)


def roc_curve(
    score: NDArray[np.float32], is_true: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return efficiency and misidentification probability at every distinct score, from the highest down.

    Parameters
    ----------
    score
        Shape (n_tracks,); no NaN.
    is_true
        Shape (n_tracks,); both classes are present.

    Returns
    -------
    efficiency, misidentification
        Shape (n_distinct,): accepted share of true tracks and of all others.
    """
    order = np.argsort(-score, kind="stable")
    falling = score[order]
    last_of_tie = np.append(np.flatnonzero(falling[1:] != falling[:-1]), score.size - 1)
    accepted_true = np.cumsum(is_true[order])[last_of_tie]
    accepted_other = last_of_tie + 1 - accepted_true
    return accepted_true / is_true.sum(), accepted_other / (~is_true).sum()
