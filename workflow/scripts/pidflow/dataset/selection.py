"""Track selection and detector masks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pidflow.config.models import Masks, Selection
from pidflow.errors import PidflowError
from pidflow.origin import read_origin
from pidflow.tracks import O2_MASKED

Passed = NDArray[np.bool_]

_CUTS: dict[str, tuple[tuple[str, ...], Callable[..., Passed]]] = {
    "pt_min": (("pt",), lambda cut, pt: pt >= cut),
    "pt_max": (("pt",), lambda cut, pt: pt < cut),
    "eta_max": (("eta",), lambda cut, eta: np.abs(eta) < cut),
    "tpc_n_crossed_rows_min": (("tpc_n_crossed_rows",), lambda cut, rows: rows >= cut),
    "tpc_crossed_over_findable_min": (
        ("tpc_n_crossed_rows", "tpc_n_cls_findable"),
        lambda cut, rows, findable: rows / findable >= cut,
    ),
    "tpc_chi2_ncl_max": (("tpc_chi2_ncl",), lambda cut, chi2: chi2 < cut),
    "its_chi2_ncl_max": (("its_chi2_ncl",), lambda cut, chi2: chi2 < cut),
    "its_inner_hit": (("its_inner_hit",), lambda cut, hit: hit > 0),
    "dca_xy_pt_dependent": (("dca_xy", "pt"), lambda cut, dca, pt: np.abs(dca) < 0.0105 + 0.035 / pt**1.1),
    "dca_z_max": (("dca_z",), lambda cut, dca: np.abs(dca) < cut),
}
"""By key of the configuration: columns that the cut reads, and the cut.

Defaults follow O2Physics ``Common/Core/TrackSelectionDefaults.cxx`` (global tracks, Run 3).
"""

PROMPT_CUTS = ("its_inner_hit", "dca_xy_pt_dependent", "dca_z_max")
"""Cuts on what comes from the collision itself, which legs of decays fail by nature."""


def _applied(cuts: Selection) -> dict[str, Any]:
    return {name: value for name in _CUTS if (value := getattr(cuts, name)) is not None and value is not False}


def require_columns(tables: Iterable[str | Path], cuts: Selection) -> None:
    """Check that no cut reads a column which is empty in all track tables.

    Raises
    ------
    PidflowError
        Naming a table, the column and the cut.
    """
    filled: set[str] = set()
    first, rows = "", 0
    for path in tables:
        first = first or str(path)
        rows += pq.read_metadata(path).num_rows
        filled.update(read_origin(path)["filled"])
    for name in _applied(cuts) if rows else ():
        for column in _CUTS[name][0]:
            if column not in filled:
                raise PidflowError(
                    f"{first}: column {column} is empty, which the cut '{name}' needs; "
                    f"set 'dataset.selection.{name}' to null (or false), or give the column"
                )


def cut_results(table: pa.Table, cuts: Selection) -> dict[str, Passed]:
    """Apply each cut of the selection on its own.

    Parameters
    ----------
    table
        Track table of n rows.
    cuts
        The cuts; those that are null or false are left out. A track that lacks the value fails.

    Returns
    -------
    dict
        bool [n] by the cut's name in the configuration, in a fixed order.
    """
    results = {}
    with np.errstate(invalid="ignore", divide="ignore"):
        for name, value in _applied(cuts).items():
            columns, passes = _CUTS[name]
            results[name] = passes(value, *(table[column].cast(pa.float64()).to_numpy() for column in columns))
    return results


def apply_masks(table: pa.Table, masks: Masks) -> pa.Table:
    """Hide TOF and TRD below their momentum, as O2Physics does before it calls a model.

    The features of `pidflow.tracks.O2_MASKED` become null, and ``has_trd``/``has_tof`` false, where
    the detector is absent or p lies below the limit (the limit itself is visible). As there, the
    float32 momentum is compared with the limit in double precision.
    Source: O2Physics ``Tools/PIDML/pidOnnxModel.h``.
    """
    momentum = table["p"].cast(pa.float64())
    for detector, features in O2_MASKED.items():
        flag = f"has_{detector}"
        visible = pc.and_(table[flag], pc.greater_equal(momentum, getattr(masks, detector)))
        table = _replace(table, flag, visible)
        for feature in features:
            values = table[feature]
            table = _replace(table, feature, pc.if_else(visible, values, pa.scalar(None, values.type)))
    return table


def _replace(table: pa.Table, name: str, values: pa.ChunkedArray) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, values)
