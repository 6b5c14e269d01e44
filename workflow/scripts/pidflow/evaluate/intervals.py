"""Intervals: exact binomial ones for rates, the bootstrap by collision for everything else."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv

from pidflow.evaluate.schema import Estimate


def clopper_pearson(passed: ArrayLike, total: ArrayLike, confidence: float) -> tuple[NDArray[np.float64], ...]:
    """Return the exact central interval of a binomial rate.

    Parameters
    ----------
    passed, total
        Counts, any common shape, 0 ≤ passed ≤ total.
    confidence
        Coverage in (0, 1), reached or exceeded for every true rate.

    Returns
    -------
    low, high
        Bounds in [0, 1], shaped as the counts; NaN where `total` is 0.

    Notes
    -----
    C. J. Clopper, E. S. Pearson, Biometrika 26 (1934) 404.
    """
    k, n = np.broadcast_arrays(np.asarray(passed, dtype=np.float64), np.asarray(total, dtype=np.float64))
    tail = (1.0 - confidence) / 2.0
    failed = n - k
    low = np.where(k > 0, betaincinv(np.maximum(k, 1.0), failed + 1.0, tail), 0.0)
    high = np.where(failed > 0, betaincinv(k + 1.0, np.maximum(failed, 1.0), 1.0 - tail), 1.0)
    return np.where(n > 0, low, np.nan), np.where(n > 0, high, np.nan)


def rate(passed: int, total: int, confidence: float) -> Estimate:
    """Return passed/total with its Clopper–Pearson interval; all null where `total` is 0."""
    if total == 0:
        return Estimate(value=None, low=None, high=None)
    low, high = clopper_pearson(passed, total, confidence)
    return Estimate(value=passed / total, low=float(low), high=float(high))


def collision_weights(seed: int, replica: int, n_collisions: int) -> NDArray[np.float64]:
    """Return the weight of each collision in one bootstrap replica.

    Tracks of one collision share event time and multiplicity, so collisions, not tracks, are
    drawn. Poisson(1) weights are the large-sample limit of drawing with replacement and need no
    second pass over the data. A replica depends on `seed` and its number alone.

    Parameters
    ----------
    seed, replica
        Non-negative integers.
    n_collisions
        Number of collisions.

    Returns
    -------
    ndarray, shape (n_collisions,)
        Whole numbers ≥ 0.

    Notes
    -----
    B. Efron, Ann. Statist. 7 (1979) 1; Poisson weights: N. C. Oza, S. Russell, AISTATS (2001).
    """
    return np.random.default_rng([seed, replica]).poisson(1.0, n_collisions).astype(np.float64)


def replica_weights(seed: int, n_replicas: int, n_collisions: int) -> NDArray[np.uint8]:
    """Return the weights of the sample itself, all 1, and of its bootstrap replicas 1 … `n_replicas`.

    Models that are evaluated with the same seed on the same collisions share their replicas, so
    their differences can be taken replica by replica.

    Returns
    -------
    ndarray, shape (n_collisions, 1 + n_replicas)
    """
    weights = np.ones((n_collisions, 1 + n_replicas), dtype=np.uint8)
    for replica in range(1, 1 + n_replicas):
        weights[:, replica] = collision_weights(seed, replica, n_collisions)
    return weights


def percentile(value: float, replicas: NDArray[np.float64], confidence: float) -> Estimate:
    """Return `value` with the percentile interval of its bootstrap replicas.

    Parameters
    ----------
    value
        Value on the sample itself; NaN where it is undefined.
    replicas
        Shape (n_replicas,); NaN where a replica leaves the value undefined; those are left out.
    confidence
        Coverage in (0, 1).
    """
    defined = replicas[~np.isnan(replicas)]
    if math.isnan(value):
        return Estimate(value=None, low=None, high=None)
    if defined.size == 0:
        return Estimate(value=value, low=None, high=None)
    low, high = np.quantile(defined, [(1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0])
    return Estimate(value=value, low=float(low), high=float(high))
