"""What the choice among candidates looks at: tracks of simulation, plain and adapted, and of data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pidflow.errors import PidflowError
from pidflow.models.base import Floats
from pidflow.parquet import batches, matrix
from pidflow.tracks import WEIGHT

_KEPT = ("pt", "p", "sign", "has_trd", "has_tof", "collision_id")


@dataclass(frozen=True)
class Looked:
    """Tracks of one sample.

    Attributes
    ----------
    features
        float32 [N, F], NaN where missing.
    columns
        ``pt``, ``p``, ``sign``, ``has_trd``, ``has_tof``, ``collision_id``, [N] each.
    labels
        uint8 [N, S], of simulation; None for data, whose truth is not even read.
    weights
        How much each track counts, float64 [N], mean 1.
    """

    features: Floats
    columns: pa.Table
    labels: NDArray[np.uint8] | None
    weights: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.features)

    def number(self, name: str) -> NDArray[np.float64]:
        """Return a column, float64 [N]."""
        return np.asarray(self.columns[name].cast(pa.float64()).to_numpy())

    @property
    def pattern(self) -> NDArray[np.intp]:
        """Index in `pidflow.tracks.DETECTOR_PATTERNS`, [N]."""
        seen = [self.columns[name].cast(pa.int8()).to_numpy().astype(np.intp) for name in ("has_trd", "has_tof")]
        return np.asarray(seen[0] + 2 * seen[1])

    @property
    def collision(self) -> NDArray[np.uint64]:
        """Identifier of the collision, [N]."""
        return np.asarray(self.columns["collision_id"].to_numpy())


def look(path: str | Path, split: str, features: Sequence[str], species: Sequence[int] | None, most: int) -> Looked:
    """Read at most so many tracks of a set.

    Parameters
    ----------
    path
        Dataset.
    split
        ``validation`` or ``test``.
    features
        Features of the models.
    species
        PDG codes of the labels; None for data.
    most
        Most tracks.

    Raises
    ------
    PidflowError
        If the set has no track.
    """
    names = pq.read_schema(path).names
    more = [name for name in (WEIGHT.name, *(["pdg_code"] if species else [])) if name in names]
    parts, rows = [], 0
    for table in batches(path, [*dict.fromkeys((*features, *_KEPT, *more, "split"))]):
        parts.append(table.filter(pc.field("split") == split))
        rows += parts[-1].num_rows
        if rows >= most:
            break
    if not rows:
        raise PidflowError(f"{path}: no {split} track to choose an adaptation with; give the run more or larger files")
    table = pa.concat_tables(parts).slice(0, most)
    weights = table[WEIGHT.name].to_numpy().astype(np.float64) if WEIGHT.name in more else np.ones(table.num_rows)
    labels = None
    if species:
        pdg = pc.fill_null(table["pdg_code"], 0).to_numpy()
        labels = (pdg[:, None] == np.array(species)).astype(np.uint8)
    return Looked(matrix(table, features), table.select(list(_KEPT)), labels, weights / weights.mean())
