"""Smooth functions of momentum, pseudorapidity and TPC clusters, linear in their coefficients."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pidflow.adapt.response.signals import Columns, Floats

TERMS: dict[str, Callable[[Columns], Floats]] = {
    "1": lambda c: np.ones(len(c["p"])),
    "eta": lambda c: np.nan_to_num(c["eta"]),
    "eta^2": lambda c: np.nan_to_num(c["eta"]) ** 2,
    "ln p": lambda c: _log_momentum(c),
    "(ln p)^2": lambda c: _log_momentum(c) ** 2,
    "clusters": lambda c: (np.nan_to_num(c["tpc_n_cls_found"], nan=_CLUSTERS) - _CLUSTERS) / _CLUSTERS,
}
"""From columns [n] to each function's values [n]. Momentum is that at the vertex, in GeV/c."""

_CLUSTERS = 140.0
_MOMENTA = (0.15, 8.0)


def _log_momentum(columns: Columns) -> Floats:
    # constant beyond, where there is little to fit it to
    return np.log(np.clip(columns["p"], *_MOMENTA))


def design(columns: Columns, terms: Sequence[str]) -> Floats:
    """Return the functions' values of tracks, [n, T]."""
    return np.stack([TERMS[name](columns) for name in terms], axis=1)
