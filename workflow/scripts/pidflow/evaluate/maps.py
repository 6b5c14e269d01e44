"""Efficiency, purity and misidentification in bins of pT, η and detector pattern, as tables and ROOT histograms.

A track is selected as a species if its certainty of it reaches the species' threshold; each
species is decided by itself, so a track may be selected as several or as none. Of the tracks of
one true class, the share selected as a species is the efficiency if the class is that species,
else the probability of misidentification. Purity is the true share of what is selected.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hist import Hist, axis, storage
from numpy.typing import NDArray

from pidflow.errors import PidflowError
from pidflow.evaluate.intervals import clopper_pearson
from pidflow.evaluate.ranking import ranking_score
from pidflow.evaluate.scored import ScoredTracks, read_scored
from pidflow.files import replacing, write_text
from pidflow.physics import object_key
from pidflow.rootfile import recreate
from pidflow.tracks import DETECTOR_PATTERNS

Quantity = Literal["efficiency", "misidentification", "purity"]

ALL = "all"
"""Name of all detector patterns together."""

PATTERNS = (*DETECTOR_PATTERNS, ALL)

OTHER = "other"
"""Name, in ROOT objects, of the true class of all tracks that are of no species."""

PT_TITLE, ETA_TITLE = "p_{T} (GeV/c)", "#eta"

SCHEMA = pa.schema(
    [
        ("quantity", pa.string()),
        ("selected_as", pa.int32()),
        ("true_class", pa.int32()),
        ("pattern", pa.string()),
        ("pt_low", pa.float64()),
        ("pt_high", pa.float64()),
        ("eta_low", pa.float64()),
        ("eta_high", pa.float64()),
        ("n_passed", pa.int64()),
        ("n_total", pa.int64()),
        ("value", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("error", pa.float64()),
    ]
)
"""Columns of the table: a row is one quantity in one bin, low ≤ pT, η < high; pT is in GeV/c.

``quantity``
    ``efficiency``, ``misidentification`` or ``purity``.
``selected_as``, ``true_class``
    PDG codes; the true class is null for tracks of no species, which fakes are too.
``pattern``
    `PATTERNS`.
``n_passed``, ``n_total``
    Tracks of the true class that are selected, out of all tracks of the true class; for purity,
    out of all selected tracks.
``value``, ``low``, ``high``
    ``n_passed / n_total`` with its Clopper–Pearson interval; null where ``n_total`` is 0.
``error``
    Half the width of the interval, the error of the ROOT histograms.
"""


@dataclass(frozen=True)
class Map:
    """One quantity in bins of pT and η, for one detector pattern.

    Attributes
    ----------
    quantity
        What it is.
    selected_as, true_class
        PDG codes; None for tracks of no species.
    pattern
        One of `PATTERNS`.
    passed, total
        Shape (n_pt, n_eta): tracks.
    value, low, high
        Shape (n_pt, n_eta): rate and its interval, NaN where `total` is 0.
    """

    quantity: Quantity
    selected_as: int
    true_class: int | None
    pattern: str
    passed: NDArray[np.int64]
    total: NDArray[np.int64]
    value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @property
    def error(self) -> NDArray[np.float64]:
        """Half the width of the interval, shape (n_pt, n_eta)."""
        return (self.high - self.low) / 2


def write_maps(
    dataset: str | Path,
    scores: str | Path,
    parquet_output: str | Path,
    csv_output: str | Path,
    root_output: str | Path,
    *,
    thresholds: Mapping[int, float],
    pt_edges: Sequence[float],
    eta_edges: Sequence[float],
    confidence: float,
) -> list[Map]:
    """Write the maps of the test tracks and return them.

    The ROOT file holds, per detector pattern, TH2D of pT against η: ``efficiency_<s>_<pattern>``,
    ``purity_<s>_<pattern>`` and ``misidentification_<t>_as_<s>_<pattern>`` with the error of the
    table (0 ± 0 where it is undefined), and counts from which a ``TEfficiency`` can be built:
    ``passed_<t>_as_<s>_<pattern>`` with ``total_<t>_<pattern>`` of the true class, or with
    ``selected_<s>_<pattern>`` for the purity. Species stand by `pidflow.physics.object_key`.

    Parameters
    ----------
    dataset
        Parquet file; only rows of split ``test`` are used.
    scores
        Score table, aligned row by row with the dataset.
    parquet_output, csv_output
        Table after `SCHEMA`; in the CSV file a null is empty.
    root_output
        ROOT file; its bytes depend on its content and name alone.
    thresholds
        Certainty from which a track is selected, by PDG code of the species.
    pt_edges
        Increasing edges in GeV/c; tracks outside are in no bin.
    eta_edges
        Increasing edges; likewise.
    confidence
        Coverage of the intervals.

    Raises
    ------
    PidflowError
        If no test track has a PDG code, or none has η.
    """
    tracks = read_scored(dataset, scores, tuple(thresholds), ["pdg_code", "pt", "eta", "has_trd", "has_tof"])
    for name in ("pdg_code", "eta"):
        if tracks.columns[name].null_count == tracks.columns.num_rows:
            raise PidflowError(f"{dataset}: column '{name}' is null on every test track; give a sample that has it")
    maps = list(_maps(tracks, thresholds, pt_edges, eta_edges, confidence))
    table = _table(maps, pt_edges, eta_edges)
    with replacing(parquet_output) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    write_text(csv_output, _csv(table))
    _write_root(maps, root_output, pt_edges, eta_edges)
    return maps


def _maps(
    tracks: ScoredTracks,
    thresholds: Mapping[int, float],
    pt_edges: Sequence[float],
    eta_edges: Sequence[float],
    confidence: float,
) -> Iterator[Map]:
    total, passed = _counts(tracks, thresholds, pt_edges, eta_edges)
    selected = passed.sum(axis=1)
    classes = (*tracks.species, None)

    def made(quantity: Quantity, i: int, j: int, k: int, out_of: NDArray[np.int64]) -> Map:
        low, high = clopper_pearson(passed[i, j, k], out_of, confidence)
        value = np.divide(passed[i, j, k], out_of, out=np.full(out_of.shape, np.nan), where=out_of > 0)
        return Map(quantity, tracks.species[i], classes[j], PATTERNS[k], passed[i, j, k], out_of, value, low, high)

    for i, k in itertools.product(range(len(tracks.species)), range(len(PATTERNS))):
        yield made("efficiency", i, i, k, total[i, k])
        yield made("purity", i, i, k, selected[i, k])
        yield from (made("misidentification", i, j, k, total[j, k]) for j in range(len(classes)) if j != i)


def _counts(
    tracks: ScoredTracks, thresholds: Mapping[int, float], pt_edges: Sequence[float], eta_edges: Sequence[float]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the tracks in all bins, and those selected as each species.

    Returns
    -------
    total
        Shape (n_classes, n_patterns, n_pt, n_eta); the last class is of no species, the last
        pattern all together.
    passed
        Shape (n_species, n_classes, n_patterns, n_pt, n_eta).
    """
    n = len(tracks.species)
    true = np.full(tracks.columns.num_rows, n)
    for i, pdg in enumerate(tracks.species):
        true[tracks.is_true(pdg)] = i
    pattern = (tracks.floats("has_trd") + 2 * tracks.floats("has_tof")).astype(np.intp)
    pt, eta = (np.digitize(tracks.floats(*own), edges) for *own, edges in (("pt", pt_edges), ("eta", eta_edges)))
    # the first and the last bin lie outside the edges; an absent η is in the last
    shape = (n + 1, len(DETECTOR_PATTERNS), len(pt_edges) + 1, len(eta_edges) + 1)
    cell = np.ravel_multi_index((true, pattern, pt, eta), shape)
    size = int(np.prod(shape))

    def binned(cells: NDArray[np.intp]) -> NDArray[np.int64]:
        counts = np.bincount(cells, minlength=size).reshape(shape)[:, :, 1:-1, 1:-1]
        return np.concatenate([counts, counts.sum(axis=1, keepdims=True)], axis=1)

    score = ranking_score(tracks.certainty)
    passed = [binned(cell[score[:, i] >= thresholds[pdg]]) for i, pdg in enumerate(tracks.species)]
    return binned(cell), np.stack(passed)


def _table(maps: Sequence[Map], pt_edges: Sequence[float], eta_edges: Sequence[float]) -> pa.Table:
    """Return the maps after `SCHEMA`; η runs fastest, then pT."""
    n_pt, n_eta = len(pt_edges) - 1, len(eta_edges) - 1
    per_map = n_pt * n_eta
    columns: dict[str, object] = {
        name: [getattr(one, name) for one in maps for _ in range(per_map)]
        for name in ("quantity", "selected_as", "true_class", "pattern")
    }
    for name, edges, repeats, tiles in (("pt", pt_edges, n_eta, 1), ("eta", eta_edges, 1, n_pt)):
        for end, bounds in (("low", edges[:-1]), ("high", edges[1:])):
            columns[f"{name}_{end}"] = np.tile(np.repeat(bounds, repeats), tiles * len(maps))
    for name, attribute in (("n_passed", "passed"), ("n_total", "total")):
        columns[name] = np.concatenate([getattr(one, attribute).ravel() for one in maps])
    for name in ("value", "low", "high", "error"):
        values = np.concatenate([getattr(one, name).ravel() for one in maps])
        columns[name] = pa.array(values, mask=np.isnan(values))
    return pa.table(columns, schema=SCHEMA)


def _csv(table: pa.Table) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(table.column_names)
    writer.writerows(zip(*(column.to_pylist() for column in table.columns), strict=True))
    return stream.getvalue()


def _write_root(maps: Sequence[Map], path: str | Path, pt_edges: Sequence[float], eta_edges: Sequence[float]) -> None:
    """Write the histograms of maps; each is written once, in the order of the maps."""
    axes = (
        axis.Variable(pt_edges, name="pt", label=PT_TITLE),
        axis.Variable(eta_edges, name="eta", label=ETA_TITLE),
    )

    def histogram(title: str, values: NDArray[np.float64], variances: NDArray[np.float64]) -> Hist:
        made = Hist(*axes, storage=storage.Weight(), name=title)
        made.view().value, made.view().variance = values, variances
        return made

    written: dict[str, Hist] = {}
    for one in maps:
        own, true = object_key(one.selected_as), _class_name(one.true_class)
        pattern = one.pattern.replace("+", "_")
        subject = own if one.true_class == one.selected_as else f"{true}_as_{own}"
        defined = one.total > 0
        written[f"{one.quantity}_{subject}_{pattern}"] = histogram(
            f"{one.quantity} of {subject.replace('_', ' ')}, {one.pattern}",
            np.where(defined, one.value, 0.0),
            np.where(defined, one.error**2, 0.0),
        )
        counts = {f"passed_{true}_as_{own}_{pattern}": (f"{true} selected as {own}", one.passed)}
        if one.quantity == "purity":
            counts[f"selected_{own}_{pattern}"] = (f"selected as {own}", one.total)
        else:
            counts[f"total_{true}_{pattern}"] = (f"true {true}", one.total)
        for name, (title, tracks) in counts.items():
            numbers = tracks.astype(np.float64)
            if name not in written:
                written[name] = histogram(f"{title}, {one.pattern}", numbers, numbers)
    with replacing(path) as temporary, recreate(temporary, Path(path).name) as file:
        for name, made in written.items():
            file[name] = made


def _class_name(pdg: int | None) -> str:
    return OTHER if pdg is None else object_key(pdg)
