"""Track selection and detector masks."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pidflow.config.models import Masks, Selection
from pidflow.errors import PidflowError
from pidflow.tracks import O2_MASKED


def _values(table: pa.Table, name: str, cut: str) -> NDArray[np.float64]:
    column = table[name]
    if len(column) and column.null_count == len(column):
        raise PidflowError(
            f"{table['source'][0]}: column {name} is empty, which the cut '{cut}' needs; "
            f"set 'dataset.selection.{cut}' to null (or false), or give the column"
        )
    values: NDArray[np.float64] = column.cast(pa.float64()).to_numpy()
    return values


def cut_results(table: pa.Table, cuts: Selection) -> dict[str, NDArray[np.bool_]]:
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

    Raises
    ------
    PidflowError
        If a cut needs a column that is empty in the whole table.

    Notes
    -----
    Defaults follow O2Physics ``Common/Core/TrackSelectionDefaults.cxx`` (global tracks, Run 3) and
    the ALICE transverse-impact-parameter cut 0.0105 + 0.035/pT^1.1 cm.
    """

    def column(name: str, cut: str) -> NDArray[np.float64]:
        return _values(table, name, cut)

    results: dict[str, NDArray[np.bool_]] = {}
    with np.errstate(invalid="ignore", divide="ignore"):
        if cuts.pt_min is not None:
            results["pt_min"] = column("pt", "pt_min") >= cuts.pt_min
        if cuts.pt_max is not None:
            results["pt_max"] = column("pt", "pt_max") < cuts.pt_max
        if cuts.eta_max is not None:
            results["eta_max"] = np.abs(column("eta", "eta_max")) < cuts.eta_max
        if cuts.tpc_n_crossed_rows_min is not None:
            rows = column("tpc_n_crossed_rows", "tpc_n_crossed_rows_min")
            results["tpc_n_crossed_rows_min"] = rows >= cuts.tpc_n_crossed_rows_min
        if cuts.tpc_crossed_over_findable_min is not None:
            name = "tpc_crossed_over_findable_min"
            ratio = column("tpc_n_crossed_rows", name) / column("tpc_n_cls_findable", name)
            results[name] = ratio >= cuts.tpc_crossed_over_findable_min
        if cuts.tpc_chi2_ncl_max is not None:
            results["tpc_chi2_ncl_max"] = column("tpc_chi2_ncl", "tpc_chi2_ncl_max") < cuts.tpc_chi2_ncl_max
        if cuts.its_chi2_ncl_max is not None:
            results["its_chi2_ncl_max"] = column("its_chi2_ncl", "its_chi2_ncl_max") < cuts.its_chi2_ncl_max
        if cuts.its_inner_hit:
            results["its_inner_hit"] = column("its_inner_hit", "its_inner_hit") > 0
        if cuts.dca_xy_pt_dependent:
            limit = 0.0105 + 0.035 / column("pt", "dca_xy_pt_dependent") ** 1.1
            results["dca_xy_pt_dependent"] = np.abs(column("dca_xy", "dca_xy_pt_dependent")) < limit
        if cuts.dca_z_max is not None:
            results["dca_z_max"] = np.abs(column("dca_z", "dca_z_max")) < cuts.dca_z_max
    return results


def apply_masks(table: pa.Table, masks: Masks) -> pa.Table:
    """Hide TOF and TRD below their momentum, as O2Physics does before it calls a model.

    The features of `pidflow.tracks.O2_MASKED` become null, and ``has_trd``/``has_tof`` false, where
    the detector is absent or p lies below the limit (the limit itself is visible).
    Source: O2Physics ``Tools/PIDML/pidOnnxModel.h``.
    """
    for detector, features in O2_MASKED.items():
        flag = f"has_{detector}"
        visible = pc.and_(table[flag], pc.greater_equal(table["p"], pa.scalar(getattr(masks, detector), pa.float32())))
        table = _replace(table, flag, visible)
        for feature in features:
            values = table[feature]
            table = _replace(table, feature, pc.if_else(visible, values, pa.scalar(None, values.type)))
    return table


def _replace(table: pa.Table, name: str, values: pa.ChunkedArray) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, values)
