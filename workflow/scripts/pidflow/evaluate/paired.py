"""Comparisons of models, whose bootstrap replicas are paired: the same collisions with the same weights.

Values of two models on the same tracks fluctuate together, so their difference is known better
than either; its interval is that of the differences, replica by replica
(B. Efron, R. J. Tibshirani, An Introduction to the Bootstrap (1993) ch. 10).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pidflow.errors import PidflowError
from pidflow.evaluate.intervals import percentile
from pidflow.evaluate.schema import Estimate, Macro, Metrics

CEILING = "ceiling"
"""Reference, not a method: the Bayes-optimal classifier, known only where the truth was simulated."""

FLOOR = "nsigma"
"""Method from which the share of the ceiling is counted."""


def difference(metrics: Metrics, reference: Metrics, *, complete: bool = False) -> Estimate:
    """Return the macro AUC of a model minus that of another, with its paired bootstrap interval.

    Parameters
    ----------
    metrics, reference
        Metrics of both on the same tracks, made with the same seed.
    complete
        Compare on the tracks only that every detector saw.

    Raises
    ------
    PidflowError
        If the two were not made on the same tracks with the same replicas.
    """
    ours, theirs = _paired((metrics, reference), complete)
    values = ours - theirs
    return percentile(float(values[0]), values[1:], metrics.confidence)


def share_of_ceiling(metrics: Metrics, floor: Metrics, ceiling: Metrics, *, complete: bool = False) -> Estimate:
    """Return which share of what can be gained over `floor` a model gains, in macro AUC.

    Parameters
    ----------
    metrics, floor, ceiling
        Metrics of the model, of the cuts and of the best possible classifier on the same tracks.
    complete
        Compare on the tracks only that every detector saw.

    Returns
    -------
    Estimate
        (AUC − AUC of the floor) / (AUC of the ceiling − AUC of the floor); undefined where the
        ceiling does not lie above the floor.
    """
    own, low, high = _paired((metrics, floor, ceiling), complete)
    room = high - low
    share = np.divide(own - low, room, out=np.full(room.size, math.nan), where=room > 0)
    return percentile(float(share[0]), share[1:], metrics.confidence)


def _paired(models: tuple[Metrics, ...], complete: bool) -> list[NDArray[np.float64]]:
    """Return the macro AUC of each model, shape (1 + n_replicas,): on the sample itself and on its replicas."""
    first, *others = models
    for other in others:
        if _tracks(other) != _tracks(first):
            raise PidflowError(
                f"metrics of {first.model} and {other.model} on {first.sample} of run {first.run} are not of the same "
                "tracks and bootstrap replicas; compute the metrics again"
            )
    return [_areas(model.complete if complete else model.macro) for model in models]


def _tracks(metrics: Metrics) -> tuple[object, ...]:
    replicas = len(metrics.macro.auc_replicas)
    labels = (metrics.run, metrics.sample, metrics.equalised)
    return *labels, metrics.n_tracks, metrics.n_collisions, metrics.seed, replicas


def _areas(macro: Macro | None) -> NDArray[np.float64]:
    if macro is None:
        return np.array([math.nan])
    areas = (macro.auc.value, *macro.auc_replicas)
    return np.array([math.nan if area is None else area for area in areas])
