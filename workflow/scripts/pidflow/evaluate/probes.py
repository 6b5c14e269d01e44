"""Tag and probe: efficiency and misidentification of tracks that are legs of weak decays and photon conversions.

The decay's topology tells what a leg is, without a label and without the leg's own particle identification, so the
rates are measured in data as in simulation. What the decays did not make is subtracted by the mass sidebands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.special import ndtri

from pidflow.config.v0 import V0Cuts
from pidflow.errors import PidflowError
from pidflow.evaluate.probe_schema import HeadRate, ProbeBin, ProbeSpecies
from pidflow.evaluate.schema import Estimate
from pidflow.parquet import batches, require
from pidflow.physics import charge_sign
from pidflow.tracks import BY_NAME, ROW_ID
from pidflow.v0s import KINDS

PROBES: tuple[tuple[int, ...], ...] = (
    (211,),
    (-211,),
    (2212,),
    (-2212,),
    (11,),
    (-11,),
    (211, -211),
    (2212, -2212),
    (11, -11),
)
"""PDG codes of the probes that are counted together."""

_LEG = ("kind", "region", "leg_pdg_code")
_POSITION = "position"
_KIND_KEYS = pa.array([kind.key for kind in KINDS])


@dataclass(frozen=True)
class Probes:
    """Legs of V0 candidates that are tracks of a dataset; a track that is a leg of several candidates counts for each.

    Attributes
    ----------
    row
        Row in the dataset, int64 [n], rising.
    pdg
        PDG code that the decay gives to the leg, int32 [n].
    kind
        Index into `pidflow.v0s.KINDS`, int64 [n].
    signal
        Whether the candidate is in the signal window, bool [n]; the others are in the sidebands.
    columns
        Columns of the dataset, [n] each; the row id is among them.
    """

    row: NDArray[np.int64]
    pdg: NDArray[np.int32]
    kind: NDArray[np.int64]
    signal: NDArray[np.bool_]
    columns: pa.Table

    def __len__(self) -> int:
        return len(self.row)


def read_probes(
    dataset: str | Path, v0_tables: Iterable[str | Path], columns: Sequence[str], *, split: str | None = None
) -> Probes:
    """Find the legs of V0 candidates among the selected tracks of a dataset.

    The dataset is read in pieces: of its tracks, only the probes are kept in memory. Legs start away from the
    collision, so a selection by impact parameter or by a hit near the beam leaves hardly any of them: the dataset
    should be one without those cuts.

    Parameters
    ----------
    dataset
        Parquet file.
    v0_tables
        Parquet files of the V0 schema, of the same sample.
    columns
        Columns of the dataset to keep; ``pt`` and the row id always are.
    split
        Set to keep; None keeps the tracks of all sets.

    Raises
    ------
    PidflowError
        If a file lacks a column, or there is no V0 table.
    """
    legs = _read_legs(v0_tables)
    names = list(dict.fromkeys([*ROW_ID, "pt", *columns]))
    read = list(dict.fromkeys([*names, *(["split"] if split else [])]))
    require(dataset, read)
    first, parts = 0, []
    for table in batches(dataset, read):
        position = pa.array(np.arange(first, first + table.num_rows))
        first += table.num_rows
        table = _with_id(table).append_column(_POSITION, position)
        if split:
            table = table.filter(pc.equal(table["split"], split))
        parts.append(legs.join(table, list(ROW_ID), join_type="inner"))
    found = pa.concat_tables(parts).sort_by([(name, "ascending") for name in (_POSITION, *_LEG)])
    return Probes(
        row=found[_POSITION].to_numpy(),
        pdg=found["leg_pdg_code"].to_numpy(),
        kind=pc.index_in(found["kind"], _KIND_KEYS).cast(pa.int64()).to_numpy(),
        signal=pc.equal(found["region"], "signal").to_numpy(),
        columns=found.select(names),
    )


def _read_legs(v0_tables: Iterable[str | Path]) -> pa.Table:
    parts = []
    for path in v0_tables:
        require(path, [*ROW_ID, *_LEG])
        table = pq.read_table(path, columns=[*ROW_ID, *_LEG])
        parts.append(_with_id(table).filter(pc.is_in(table["region"], pa.array(["signal", "sideband"]))))
    if not parts:
        raise PidflowError("no V0 table is given; ingest the run with 'ingest.v0' switched on")
    return pa.concat_tables(parts)


def _with_id(table: pa.Table) -> pa.Table:
    for name in ROW_ID:
        table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(BY_NAME[name].dtype))
    return table


def rates(
    probes: Probes,
    certainty: NDArray[np.float32],
    *,
    species: Sequence[int],
    threshold: float,
    pt_edges: Sequence[float],
    confidence: float,
    cuts: V0Cuts,
) -> tuple[ProbeSpecies, ...]:
    """Measure how often probes are selected as each species.

    Parameters
    ----------
    probes
        Legs in the signal windows and the sidebands.
    certainty
        Of the probes, shape (n_probes, n_species); a NaN is not selected.
    species
        PDG code of each certainty.
    threshold
        Certainty from which a track is selected.
    pt_edges
        Increasing edges in GeV/c.
    confidence
        Coverage of the intervals.
    cuts
        The cuts that the V0 tables were made with.

    Returns
    -------
    tuple
        An entry for each of `PROBES`.

    Notes
    -----
    With S legs in the signal window, B in the sidebands and k the width of the window over that of the sidebands
    together, the rate is (S_selected - k·B_selected) / (S - k·B), each difference summed over the decays that give the
    species. That is exact for a background that is linear in mass; photons have one sideband, whose level is taken to
    reach down to the peak (`pidflow.ingest.tag_and_probe`). The interval holds statistical errors alone, those of the
    sidebands among them: it is the set of rates ε for which the rate found lies within z standard deviations that ε
    itself implies, which without background is Wilson's interval (E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209),
    so that a rate of 0 or 1 has an error too. Legs are taken as independent.
    """
    scale = np.array([_scale(cuts, kind.key) for kind in KINDS])[probes.kind]
    counted = _Counted(
        weight=np.where(probes.signal, 1.0, -scale),
        variance=np.where(probes.signal, 0.0, scale + scale**2),
        signal=probes.signal,
    )
    return _measure(probes, counted, certainty, species, threshold, pt_edges, confidence)


def true_rates(
    probes: Probes,
    certainty: NDArray[np.float32],
    *,
    species: Sequence[int],
    threshold: float,
    pt_edges: Sequence[float],
    confidence: float,
) -> tuple[ProbeSpecies, ...]:
    """Return what `rates` should find: the rates of those probes in the signal windows that are what they seem.

    Parameters
    ----------
    probes
        Of a labelled dataset, with the column ``pdg_code``; of data, only closure may have it.
    certainty, species, threshold, pt_edges, confidence
        As of `rates`.

    Raises
    ------
    PidflowError
        If no probe has a PDG code.
    """
    if "pdg_code" not in probes.columns.column_names or probes.columns["pdg_code"].null_count == len(probes):
        raise PidflowError("column 'pdg_code' is absent or null for all probes; read them from a sample with truth")
    is_true = pc.fill_null(pc.equal(probes.columns["pdg_code"], pa.array(probes.pdg)), False).to_numpy()
    used = probes.signal & is_true
    counted = _Counted(weight=used.astype(np.float64), variance=np.zeros(len(probes)), signal=used)
    return _measure(probes, counted, certainty, species, threshold, pt_edges, confidence)


def rate_arrays(probes: Sequence[ProbeSpecies]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the rates of probes of one charge and their errors, shape (n_rates,) each; NaN where undefined.

    Probes of both charges are left out, for they are the sum of the others.
    """
    heads = [head for part in probes if len(part.pdg) == 1 for own in part.pt for head in own.heads]
    values = [(head.rate.value, head.error) for head in heads]
    array = np.array([[np.nan if number is None else number for number in pair] for pair in values], dtype=np.float64)
    return array[:, 0], array[:, 1]


@dataclass(frozen=True)
class _Counted:
    """How legs count.

    Attributes
    ----------
    weight
        What a leg adds to a count, float64 [n].
    variance
        What it adds to the variance of the count beyond that of the probes themselves, float64 [n].
    signal
        Whether it is one of the probes, bool [n].
    """

    weight: NDArray[np.float64]
    variance: NDArray[np.float64]
    signal: NDArray[np.bool_]


def _scale(cuts: V0Cuts, kind: str) -> float:
    """Return the width of the signal window over that of the sidebands; a photon has half of each."""
    windows = cuts.windows(kind)
    return windows.signal / (windows.sideband_to - windows.sideband_from)


def _measure(
    probes: Probes,
    counted: _Counted,
    certainty: NDArray[np.float32],
    species: Sequence[int],
    threshold: float,
    pt_edges: Sequence[float],
    confidence: float,
) -> tuple[ProbeSpecies, ...]:
    selected = certainty >= threshold
    n_bins = len(pt_edges) - 1
    cell = np.digitize(probes.columns["pt"].cast(pa.float64()).to_numpy(), pt_edges) - 1
    found = []
    for codes in PROBES:
        rows = np.flatnonzero(np.isin(probes.pdg, codes))
        heads = _heads(codes, species, probes.pdg[rows], selected[rows])
        bins = [
            _bin(rows[here], {head: passed[here] for head, passed in heads.items()}, counted, low, high, confidence)
            for low, high, here in zip(pt_edges, pt_edges[1:], (cell[rows] == i for i in range(n_bins)), strict=False)
        ]
        found.append(ProbeSpecies(pdg=codes, pt=tuple(bins)))
    return tuple(found)


def _heads(
    codes: tuple[int, ...], species: Sequence[int], pdg: NDArray[np.int32], selected: NDArray[np.bool_]
) -> dict[int, NDArray[np.bool_]]:
    """Return which probes are selected, by the certainty; for both charges, by that of the probe's own charge."""
    if len(codes) == 1:
        return {head: selected[:, i] for i, head in enumerate(species)}
    heads = {}
    for head in dict.fromkeys(abs(code) for code in species):
        passed = np.zeros(len(pdg), dtype=np.bool_)
        for code in codes:
            own = head if charge_sign(head) == charge_sign(code) else -head
            # data without charge has one certainty for both
            index = species.index(own if own in species else -own)
            passed |= (pdg == code) & selected[:, index]
        heads[head] = passed
    return heads


def _bin(
    rows: NDArray[np.intp],
    heads: Mapping[int, NDArray[np.bool_]],
    counted: _Counted,
    low: float,
    high: float,
    confidence: float,
) -> ProbeBin:
    weight, variance, signal = counted.weight[rows], counted.variance[rows], counted.signal[rows]
    return ProbeBin(
        low=low,
        high=high,
        n_probes=int(signal.sum()),
        n_background=float(np.abs(weight[~signal]).sum()),
        heads=tuple(_rate(head, passed, weight, variance, confidence) for head, passed in heads.items()),
    )


def _rate(
    head: int,
    passed: NDArray[np.bool_],
    weight: NDArray[np.float64],
    variance: NDArray[np.float64],
    confidence: float,
) -> HeadRate:
    counts = float(weight[passed].sum()), float(weight.sum())
    extra = float(variance[passed].sum()), float(variance[~passed].sum())
    interval = score_interval(*counts, *extra, float(ndtri(0.5 + 0.5 * confidence)))
    one_sigma = score_interval(*counts, *extra, 1.0)
    if interval is None or one_sigma is None:
        return HeadRate(pdg=head, rate=Estimate(value=None, low=None, high=None), error=None)
    rate = Estimate(value=counts[0] / counts[1], low=interval[0], high=interval[1])
    return HeadRate(pdg=head, rate=rate, error=0.5 * (one_sigma[1] - one_sigma[0]))


def score_interval(
    selected: float, total: float, variance_selected: float, variance_rejected: float, z: float
) -> tuple[float, float] | None:
    """Return the bounds of a rate of counts from which a background was subtracted.

    Parameters
    ----------
    selected, total
        Counts after subtraction.
    variance_selected, variance_rejected
        Variance that the background and its subtraction give to the counts of selected and of rejected tracks.
    z
        Standard deviations.

    Returns
    -------
    tuple or None
        Where (selected/total - ε)² total² = z² [ε(1 - ε) total + (1 - ε)² v_selected + ε² v_rejected]; None if the
        counts do not bound the rate.
    """
    if total <= 0:
        return None
    square = total**2 + z**2 * (total - variance_selected - variance_rejected)
    half = selected * total + z**2 * (0.5 * total - variance_selected)
    constant = selected**2 - z**2 * variance_selected
    root = half**2 - square * constant
    if square <= 0:
        return None
    middle, width = half / square, root**0.5 / square
    return middle - width, middle + width
