"""Train, validation and test sets by collision, the same whatever other files exist."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pidflow.config.models import Split
from pidflow.identity import mix, text_hash

NAMES = np.array(["train", "validation", "test"])


def uniform(collision_id: NDArray[np.uint64], key: str) -> NDArray[np.float64]:
    """Return a number in [0, 1) for each collision [n], fixed by the collision and `key`."""
    return (mix(collision_id ^ text_hash(key)) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def split_of(collision_id: NDArray[np.uint64], split: Split) -> NDArray[np.str_]:
    """Return the set of each track, given the identifier of its collision, [n]."""
    test = uniform(collision_id, split.key + "/test") < split.test
    validation = uniform(collision_id, split.key + "/validation") < split.validation
    return NAMES[np.where(test, 2, np.where(validation, 1, 0))]
