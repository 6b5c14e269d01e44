"""The score table: one certainty per species for each track of a dataset, row by row in its order.

Columns: the row id (`pidflow.tracks.ROW_ID`), ``split``, ``pdg_code`` (null where truth is not known)
and ``certainty_<key>`` (float32 in [0, 1]; null where the method cannot score the track); for a model that has
one, ``spread_<key>``, the certainty's uncertainty.
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


def schema(species: Sequence[int], *, spread: bool = False) -> pa.Schema:
    """Return the Arrow schema of a score table, with or without the uncertainties."""
    carried = [pa.field(name, BY_NAME[name].dtype) for name in CARRIED]
    numbers = [certainty_column(pdg) for pdg in species]
    if spread:
        numbers += [f"spread_{object_key(pdg)}" for pdg in species]
    return pa.schema([*carried, *(pa.field(name, pa.float32()) for name in numbers)])
