"""Calibration: whether a certainty is the share of tracks that are of the species.

The expected calibration error is the mean distance between certainty and true share over bins of
certainty, weighted by the tracks in each: ECE = Σ_b (n_b/n) |mean certainty − true share|. Bins
are of equal width. A track that the method cannot score is left out.

M. P. Naeini, G. F. Cooper, M. Hauskrecht, AAAI (2015) 2901; 15 bins as in C. Guo, G. Pleiss,
Y. Sun, K. Q. Weinberger, ICML, PMLR 70 (2017) 1321.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pidflow.evaluate.intervals import rate
from pidflow.evaluate.schema import ReliabilityBin

BINS = 15
"""Number of bins between certainty 0 and 1."""


def certainty_bin(certainty: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return the bin of each certainty in [0, 1], from 0 to `BINS` - 1; the last bin holds 1 itself."""
    return np.minimum(certainty * np.float64(BINS), BINS - 1).astype(np.intp)


def reliability(
    certainty: NDArray[np.float32], is_true: NDArray[np.bool_], confidence: float
) -> tuple[ReliabilityBin, ...]:
    """Return mean certainty and true share of each bin that holds tracks.

    Parameters
    ----------
    certainty
        Shape (n_tracks,), in [0, 1]; NaN where the method cannot score the track.
    is_true
        Shape (n_tracks,).
    confidence
        Coverage of the Clopper–Pearson intervals of the true shares.
    """
    scored = ~np.isnan(certainty)
    values, true = certainty[scored].astype(np.float64), is_true[scored]
    inside = certainty_bin(certainty[scored])
    n, n_true, total = (np.bincount(inside, weights, BINS) for weights in (None, true.astype(np.float64), values))
    return tuple(
        ReliabilityBin(
            low=i / BINS,
            high=(i + 1) / BINS,
            n=int(n[i]),
            certainty=float(total[i] / n[i]),
            share=rate(int(n_true[i]), int(n[i]), confidence),
        )
        for i in np.flatnonzero(n)
    )
