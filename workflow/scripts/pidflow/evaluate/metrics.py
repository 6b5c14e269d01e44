"""Metrics of one model on the test tracks of one sample, with intervals."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pidflow.errors import PidflowError
from pidflow.evaluate.intervals import collision_weights, percentile, rate
from pidflow.evaluate.ranking import Ranking, ranking_score
from pidflow.evaluate.schema import (
    CompleteMacro,
    Confusion,
    Macro,
    Metrics,
    PatternRates,
    PtRates,
    RankedRates,
    Rates,
    SpeciesMetrics,
)
from pidflow.evaluate.scored import ScoredTracks, read_scored
from pidflow.files import write_json
from pidflow.physics import object_key
from pidflow.tracks import DETECTOR_PATTERNS

HADRONS = (211, 321, 2212)
"""|PDG code| of the species in ``f1_hadrons``."""

COMPLETE = len(DETECTOR_PATTERNS) - 1
"""Index of the pattern in which every detector saw the track."""

COLUMNS = ("pdg_code", "pt", "has_trd", "has_tof", "collision_id")

# last axis of the counts: tracks that are only selected, only true, or both
_SELECTED, _TRUE, _BOTH = 0, 1, 2


def compute_metrics(
    dataset: str | Path,
    scores: str | Path,
    output: str | Path,
    *,
    run: int,
    model: str,
    sample: str,
    species: Sequence[int],
    pt_edges: Sequence[float],
    threshold: float,
    bootstrap: int,
    confidence: float,
    seed: int,
) -> Metrics:
    """Compute the metrics of one model and write them as JSON.

    A track that the method cannot score (null certainty) is not selected, and ranks below every
    scored track in the AUC. A track without a PDG code is true for no species. Purity and
    efficiency carry Clopper–Pearson intervals, all else bootstrap intervals by collision.

    Parameters
    ----------
    dataset, scores
        Parquet files aligned row by row; only rows of split ``test`` are used.
    output
        JSON file after `pidflow.evaluate.schema.Metrics`.
    run, model, sample
        Labels written to the file.
    species
        PDG codes.
    pt_edges
        Increasing edges in GeV/c; tracks outside count in everything but the bins.
    threshold
        Certainty from which a track is selected.
    bootstrap
        Number of replicas.
    confidence
        Coverage of the intervals.
    seed
        Seed of the bootstrap.
    """
    tracks = read_scored(dataset, scores, species, COLUMNS)
    if tracks.columns["pdg_code"].null_count == tracks.columns.num_rows:
        raise PidflowError(
            f"{dataset}: column 'pdg_code' is null on every test track; give a sample whose truth is known"
        )
    resampled = _resample(tracks, pt_edges, threshold, bootstrap, seed)
    metrics = Metrics(
        run=run,
        model=model,
        sample=sample,
        threshold=threshold,
        confidence=confidence,
        n_tracks=tracks.columns.num_rows,
        n_collisions=resampled.n_collisions,
        species=tuple(_species(resampled, i, pdg, pt_edges, confidence) for i, pdg in enumerate(tracks.species)),
        macro=_macro(resampled.counts.sum(axis=(2, 3)), resampled.auc[:, :, 0], tracks.species, confidence),
        complete=_complete(resampled, tracks.species, confidence),
        confusion=_confusion(tracks, threshold),
    )
    write_json(output, metrics.model_dump())
    return metrics


@dataclass(frozen=True)
class _Resampled:
    """What all metrics follow from, on the sample itself (replica 0) and on the bootstrap replicas.

    Attributes
    ----------
    counts
        Shape (1 + n_replicas, n_species, n_pt + 2, n_patterns, 3): weighted tracks, by pT bin
        (first and last: outside) and by only selected, only true, both.
    auc
        Shape (1 + n_replicas, n_species, 1 + n_patterns): all tracks, then each pattern.
    complete_tracks
        Number of complete tracks.
    n_collisions
        Number of collisions.
    """

    counts: NDArray[np.float64]
    auc: NDArray[np.float64]
    complete_tracks: int
    n_collisions: int


def _resample(
    tracks: ScoredTracks, pt_edges: Sequence[float], threshold: float, bootstrap: int, seed: int
) -> _Resampled:
    collisions, collision = np.unique(tracks.columns["collision_id"].to_numpy(), return_inverse=True)
    pattern = (tracks.floats("has_trd") + 2 * tracks.floats("has_tof")).astype(np.intp)
    pt_bin = np.digitize(tracks.floats("pt"), pt_edges)
    shape = (len(tracks.species), len(pt_edges) + 1, len(DETECTOR_PATTERNS), 3)

    members = [np.arange(pattern.size), *(np.flatnonzero(pattern == i) for i in range(len(DETECTOR_PATTERNS)))]
    rankings: list[list[Ranking]] = []
    cells, cell_tracks = [], []
    for i, pdg in enumerate(tracks.species):
        is_true, score = tracks.is_true(pdg), ranking_score(tracks.certainty[:, i])
        rankings.append([Ranking(score[rows], is_true[rows]) for rows in members])
        selected = score >= threshold
        rows = np.flatnonzero(is_true | selected)
        outcome = np.where(is_true, np.where(selected, _BOTH, _TRUE), _SELECTED)[rows]
        cells.append(np.ravel_multi_index((np.full(rows.size, i), pt_bin[rows], pattern[rows], outcome), shape))
        cell_tracks.append(rows)
    cell, cell_collision = np.concatenate(cells), collision[np.concatenate(cell_tracks)]

    counts = np.empty((1 + bootstrap, *shape))
    auc = np.empty((1 + bootstrap, len(rankings), len(members)))
    for replica in range(1 + bootstrap):
        weights = collision_weights(seed, replica, collisions.size) if replica else np.ones(collisions.size)
        counts[replica] = np.bincount(cell, weights[cell_collision], counts[0].size).reshape(shape)
        track_weights = weights[collision]
        for j, rows in enumerate(members):
            subset = track_weights[rows]
            auc[replica, :, j] = [ranking[j].auc(subset) for ranking in rankings]
    return _Resampled(counts, auc, members[1 + COMPLETE].size, collisions.size)


def _f1(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return F1 of counts of shape (..., 3); NaN without true tracks."""
    selected, true, both = counts[..., _SELECTED], counts[..., _TRUE], counts[..., _BOTH]
    with np.errstate(invalid="ignore"):
        return np.where(true + both > 0, 2 * both / (2 * both + true + selected), np.nan)


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over the last axis of what is defined; NaN where nothing is."""
    defined = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(defined, values, 0.0).sum(axis=-1) / defined.sum(axis=-1))


def _rates(counts: NDArray[np.float64], confidence: float) -> Rates:
    """Return the rates of counts of shape (1 + n_replicas, 3)."""
    only_selected, only_true, both = (int(n) for n in counts[0])
    f1 = _f1(counts)
    return Rates(
        purity=rate(both, both + only_selected, confidence),
        efficiency=rate(both, both + only_true, confidence),
        f1=percentile(f1[0], f1[1:], confidence),
        n_true=both + only_true,
        n_selected=both + only_selected,
        n_correct=both,
    )


def _species(
    resampled: _Resampled, index: int, pdg: int, pt_edges: Sequence[float], confidence: float
) -> SpeciesMetrics:
    counts, auc = resampled.counts[:, index], resampled.auc[:, index]

    def ranked(part: NDArray[np.float64], area: NDArray[np.float64]) -> RankedRates:
        return RankedRates(**dict(_rates(part, confidence)), auc=percentile(area[0], area[1:], confidence))

    by_pt = counts.sum(axis=2)
    by_pattern = counts.sum(axis=1)
    return SpeciesMetrics(
        pdg=pdg,
        key=object_key(pdg),
        overall=ranked(counts.sum(axis=(1, 2)), auc[:, 0]),
        pt=tuple(
            PtRates(**dict(_rates(by_pt[:, i + 1], confidence)), low=low, high=high)
            for i, (low, high) in enumerate(itertools.pairwise(pt_edges))
        ),
        patterns=tuple(
            PatternRates(**dict(ranked(by_pattern[:, i], auc[:, i + 1])), pattern=name)
            for i, name in enumerate(DETECTOR_PATTERNS)
        ),
    )


def _macro(counts: NDArray[np.float64], auc: NDArray[np.float64], species: Sequence[int], confidence: float) -> Macro:
    """Return means of counts (1 + n_replicas, n_species, 3) and areas (1 + n_replicas, n_species)."""
    f1 = _f1(counts)
    hadrons = [i for i, pdg in enumerate(species) if abs(pdg) in HADRONS]
    means = {"f1": _mean(f1), "auc": _mean(auc), "f1_hadrons": _mean(f1[:, hadrons])}
    return Macro(**{name: percentile(float(mean[0]), mean[1:], confidence) for name, mean in means.items()})


def _complete(resampled: _Resampled, species: Sequence[int], confidence: float) -> CompleteMacro | None:
    if resampled.complete_tracks == 0:
        return None
    counts = resampled.counts[:, :, :, COMPLETE].sum(axis=2)
    macro = _macro(counts, resampled.auc[:, :, 1 + COMPLETE], species, confidence)
    return CompleteMacro(**dict(macro), n_tracks=resampled.complete_tracks)


def _confusion(tracks: ScoredTracks, threshold: float) -> Confusion:
    n = len(tracks.species)
    score = ranking_score(tracks.certainty)
    assigned = np.where(score.max(axis=1) >= threshold, score.argmax(axis=1), n)
    true = np.full(assigned.size, n)
    for i, pdg in enumerate(tracks.species):
        true[tracks.is_true(pdg)] = i
    counts = np.bincount(true * (n + 1) + assigned, minlength=(n + 1) ** 2).reshape(n + 1, n + 1)
    return Confusion(
        rows=(*tracks.species, "other"),
        columns=(*tracks.species, "none"),
        counts=tuple(tuple(int(count) for count in row) for row in counts),
    )
