"""Efficiency of a selection on data, with what is not known about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pidflow.adapt.choice.sample import Looked
from pidflow.adapt.sample import VARIATION, VARIATIONS
from pidflow.models.base import Floats
from pidflow.parquet import matrix
from pidflow.tracks import WEIGHT

Score = Callable[[Floats], Floats]

_FEWEST = 5.0
"""True tracks, as many as the weights are worth, that a bin needs; of fewer, the efficiency's error is a guess."""


@dataclass(frozen=True)
class Selected:
    """Tracks on which efficiencies are counted.

    Attributes
    ----------
    target
        Test tracks of the simulated sample that resembles data most.
    plain
        Test tracks of the simulation as it is.
    variations
        The target's tracks adapted anew within the errors of the adaptation (`pidflow.adapt.sample`), or None.
    features, species
        Of the models.
    threshold
        Certainty from which a track is selected.
    pt_edges
        GeV/c.
    """

    target: Looked
    plain: Looked
    variations: Path | None
    features: tuple[str, ...]
    species: tuple[int, ...]
    threshold: float
    pt_edges: tuple[float, ...]


Rates = NDArray[np.float64]


def efficiencies(selected: Selected, scores: Mapping[str, Score], chosen: str) -> list[dict[str, Any]]:
    """Return a row per species and pT bin that has a few tracks, the last bin of a species being all of them.

    Parameters
    ----------
    selected
        Tracks.
    scores
        Certainties of the chosen and of the accepted models, by candidate.
    chosen
        The candidate that is published.

    Returns
    -------
    list of dict
        ``pdg``, ``pt_low``, ``pt_high`` (GeV/c), ``tracks`` (true ones, as many as their weights are worth);
        ``efficiency`` and its ``statistical`` error, at least that of a track more or less;
        ``response``: spread when response and yields vary within their errors; ``methods``: half the range over the
        accepted candidates; ``systematic``: both in quadrature; ``unadapted``: what the simulation as it is would have
        one believe.
    """
    target, plain = selected.target, selected.plain
    of_model = {name: _rates(score(target.features), target, selected) for name, score in scores.items()}
    nominal, count = of_model[chosen]
    without, _ = _rates(scores[chosen](plain.features), plain, selected)
    response = _response(selected, scores[chosen])
    every = np.stack([rate for rate, _ in of_model.values()])
    methods = 0.5 * (every.max(axis=0) - every.min(axis=0))
    tracks = np.maximum(count, _FEWEST)
    statistical = np.sqrt(np.maximum(nominal * (1.0 - nominal), 1.0 / tracks) / tracks)
    systematic = np.hypot(response, methods)
    bins = [*pairwise(selected.pt_edges), (selected.pt_edges[0], selected.pt_edges[-1])]
    rows = []
    for number, pdg in enumerate(selected.species):
        for place, (low, high) in enumerate(bins):
            if count[number, place] >= _FEWEST:
                values = {
                    "efficiency": nominal,
                    "statistical": statistical,
                    "response": response,
                    "methods": methods,
                    "systematic": systematic,
                    "unadapted": without,
                }
                rows.append(
                    {"pdg": pdg, "pt_low": low, "pt_high": high, "tracks": round(float(count[number, place]), 1)}
                    | {name: round(float(value[number, place]), 6) for name, value in values.items()}
                )
    return rows


def _rates(certainty: Floats, tracks: Looked, selected: Selected) -> tuple[Rates, Rates]:
    """Return efficiencies and effective numbers of true tracks, [S, bins + 1] each."""
    assert tracks.labels is not None
    return _count(certainty, tracks.labels, tracks.weights, tracks.number("pt"), selected)


def _count(
    certainty: Floats, labels: NDArray[np.uint8], weights: Rates, pt: Rates, selected: Selected
) -> tuple[Rates, Rates]:
    edges = selected.pt_edges
    bins = len(edges) - 1
    number = np.digitize(pt, edges) - 1
    inside = (number >= 0) & (number < bins)
    rate, count = np.zeros((2, labels.shape[1], bins + 1))
    for s in range(labels.shape[1]):
        own = inside & (labels[:, s] > 0)
        weight, place = weights[own], number[own]
        passed = weight * (certainty[own, s] >= selected.threshold)
        total, square, kept = (np.bincount(place, each, bins) for each in (weight, weight**2, passed))
        total, square, kept = (np.append(each, each.sum()) for each in (total, square, kept))
        rate[s] = np.divide(kept, total, out=np.zeros(bins + 1), where=total > 0)
        count[s] = np.divide(total**2, square, out=np.zeros(bins + 1), where=square > 0)
    return rate, count


def _response(selected: Selected, score: Score) -> Rates:
    """Return the spread of the efficiencies over the variations of the adaptation, [S, bins + 1]."""
    shape = (len(selected.species), len(selected.pt_edges))
    if selected.variations is None:
        return np.zeros(shape)
    weighted = {WEIGHT.name} & set(pq.read_schema(selected.variations).names)
    columns = [*selected.features, "pt", "pdg_code", *weighted]
    found = []
    for number in range(VARIATIONS):
        table = pq.read_table(
            selected.variations, columns=[*dict.fromkeys(columns)], filters=pc.field(VARIATION) == number
        )
        if table.num_rows == 0:
            return np.zeros(shape)
        pdg = pc.fill_null(table["pdg_code"], 0).to_numpy()
        labels = (pdg[:, None] == np.array(selected.species)).astype(np.uint8)
        pt = table["pt"].to_numpy().astype(np.float64)
        weights = table[WEIGHT.name].to_numpy().astype(np.float64) if weighted else np.ones(table.num_rows)
        found.append(_count(score(matrix(table, selected.features)), labels, weights, pt, selected)[0])
    return np.asarray(np.std(found, axis=0, ddof=1))
