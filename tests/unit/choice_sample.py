"""Tracks as the choice among adapted models looks at them, for its tests."""

from typing import Any

import numpy as np
import pyarrow as pa

from pidflow.adapt.choice.sample import Looked

SPECIES = (211, 321, 2212)
EDGES = (0.2, 0.5, 1.0, 3.0)
ROW = ["pdg", "pt_low", "pt_high", "tracks", "efficiency", "statistical", "response", "methods", "systematic",
       "unadapted"]  # fmt: skip


def looked(features: Any, labels: Any, *, pt: Any = None, collision: Any = None, weights: Any = None) -> Looked:
    """Return tracks whose features may as well be certainties."""
    n = len(labels)
    columns = {
        "pt": np.ones(n) if pt is None else pt,
        "collision_id": np.arange(n, dtype=np.uint64) if collision is None else np.asarray(collision, np.uint64),
    }
    own = np.ones(n) if weights is None else np.asarray(weights, float)
    return Looked(np.asarray(features, np.float32), pa.table(columns), np.asarray(labels, np.uint8), own)
