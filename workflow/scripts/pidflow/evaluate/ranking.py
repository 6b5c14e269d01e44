"""Ranking of tracks by certainty, one species against the rest: ROC curve and the area under it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array


def ranking_score(certainty: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the certainty with NaN (not scored) below every score, so such a track is accepted last."""
    return np.where(np.isnan(certainty), np.float32(-np.inf), certainty)


def tally(
    cell: NDArray[np.intp],
    collision: NDArray[np.intp],
    shape: tuple[int, int],
    value: NDArray[Any] | None = None,
) -> Any:
    """Return the sparse matrix that sums tracks by cell: times weights of collisions, it is the weighted sum.

    One product serves all bootstrap replicas, whose weights are the columns of the other factor.

    Parameters
    ----------
    cell, collision
        Row and column of each entry, shape (n_entries,), in the order of collisions.
    shape
        Number of cells and of collisions.
    value
        What each entry adds; 1, as a whole number, if not given.
    """
    starts = np.concatenate(([0], np.cumsum(np.bincount(collision, minlength=shape[1]))))
    entries = np.ones(cell.size, dtype=np.int32) if value is None else value
    return csc_array((entries, cell, starts), shape=shape)


class Ranking:
    """Area under the ROC curve for many weightings of the same collisions.

    The area is the weighted share of (true, other) pairs in which the true track scores higher,
    ties counted half (H. B. Mann, D. R. Whitney, Ann. Math. Stat. 18 (1947) 50). Scores are
    ranked once; a weighting then costs one sum over tracks and one over distinct true scores.

    Parameters
    ----------
    score
        Shape (n_tracks,); no NaN.
    is_true
        Shape (n_tracks,).
    collision
        Shape (n_tracks,), from 0 to n_collisions - 1, never falling.
    n_collisions
        Number of collisions.
    """

    def __init__(
        self,
        score: NDArray[np.float32],
        is_true: NDArray[np.bool_],
        collision: NDArray[np.intp],
        n_collisions: int,
    ) -> None:
        levels, level = np.unique(score[is_true], return_inverse=True)
        # another track adds twice its weight from the first level above it; if it ties, half of that one level earlier
        other = score[~is_true]
        above = np.searchsorted(levels, other, side="right")
        tied = np.append(levels, np.inf)[above - 1] == other
        row = np.repeat(above, 1 + tied)
        row[(np.cumsum(1 + tied) - 1)[tied]] -= 1
        value = np.repeat(2 - tied, 1 + tied).astype(np.int32)
        self._true = tally(level, collision[is_true], (levels.size, n_collisions))
        self._other = tally(row, np.repeat(collision[~is_true], 1 + tied), (levels.size + 1, n_collisions), value)

    def auc(self, weights: NDArray[np.int32]) -> NDArray[np.float64]:
        """Return the area of each weighting, shape (n_replicas,); NaN without a true or another track.

        Parameters
        ----------
        weights
            Shape (n_collisions, n_replicas), ≥ 0; their sum over tracks stays below 2³⁰.
        """
        true = self._true @ weights
        twice_below = np.cumsum(self._other @ weights, axis=0, dtype=np.int32)
        twice_pairs = true.sum(axis=0) * twice_below[-1].astype(np.float64)
        twice_won = np.einsum("lr,lr->r", true, twice_below[:-1], dtype=np.float64)
        areas = np.full(twice_pairs.size, np.nan)
        np.divide(twice_won, twice_pairs, out=areas, where=twice_pairs > 0)
        return areas


def area(score: NDArray[np.float32], is_true: NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve of tracks, each of weight 1; scores as in `Ranking`."""
    return float(Ranking(score, is_true, np.zeros(score.size, np.intp), 1).auc(np.ones((1, 1), np.int32))[0])


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
