"""Train, validation and test sets by collision, the same whatever other files exist."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pidflow.config.models import Split
from pidflow.identity import uniform

NAMES = np.array(["train", "validation", "test"])


def split_of(collision_id: NDArray[np.uint64], split: Split) -> NDArray[np.str_]:
    """Return the set of each track, given the identifier of its collision, [n]."""
    test = uniform(collision_id, split.key + "/test") < split.test
    validation = uniform(collision_id, split.key + "/validation") < split.validation
    return NAMES[np.where(test, 2, np.where(validation, 1, 0))]
