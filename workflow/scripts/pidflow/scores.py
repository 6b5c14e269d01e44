"""The score table: one certainty per species for each track of a dataset, row by row in its order.

Columns: the row id (`pidflow.tracks.ROW_ID`), ``split``, ``pdg_code`` (null where truth is not known)
and ``certainty_<key>`` (float32 in [0, 1]; null where the method cannot score the track).
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from pidflow.physics import object_key
from pidflow.tracks import BY_NAME, ROW_ID

CARRIED: tuple[str, ...] = (*ROW_ID, "split", "pdg_code")
"""Columns taken over from the dataset."""


def certainty_column(pdg: int) -> str:
    """Return the column of a species' certainty: 211 → ``certainty_211``, -211 → ``certainty_0211``."""
    return f"certainty_{object_key(pdg)}"


def schema(species: Sequence[int]) -> pa.Schema:
    """Return the Arrow schema of a score table."""
    carried = [pa.field(name, BY_NAME[name].dtype) for name in CARRIED]
    return pa.schema([*carried, *(pa.field(certainty_column(pdg), pa.float32()) for pdg in species)])
