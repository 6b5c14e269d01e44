"""Metrics of models on the test tracks of one sample, with intervals."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pidflow.errors import PidflowError
from pidflow.evaluate.calibration import reliability
from pidflow.evaluate.equalise import equalised
from pidflow.evaluate.intervals import percentile, rate, replica_weights
from pidflow.evaluate.ranking import ranking_score
from pidflow.evaluate.resampling import BOTH, SELECTED, TRUE, Resampled, Sample, resample
from pidflow.evaluate.schema import (
    CompleteMacro,
    Confusion,
    Equalised,
    Macro,
    Metrics,
    PatternRates,
    PtRates,
    RankedRates,
    Rates,
    ReliabilityBin,
    SpeciesMetrics,
)
from pidflow.evaluate.scored import ScoredTracks, read_tracks
from pidflow.files import write_json
from pidflow.physics import object_key
from pidflow.tracks import DETECTOR_PATTERNS

HADRONS = (211, 321, 2212)
"""|PDG code| of the species in ``f1_hadrons``."""

COMPLETE = len(DETECTOR_PATTERNS) - 1
"""Index of the pattern in which every detector saw the track."""

COLUMNS = ("pdg_code", "pt", "has_trd", "has_tof", "collision_id")


def compute_metrics(
    dataset: str | Path,
    scores: Mapping[str, str | Path],
    outputs: Mapping[str, str | Path],
    *,
    run: int,
    sample: str,
    species: Sequence[int],
    pt_edges: Sequence[float],
    threshold: float,
    bootstrap: int,
    confidence: float,
    seed: int,
    equalise: Sequence[str] | None = None,
) -> dict[str, Metrics]:
    """Compute the metrics of models and write them as JSON.

    A track that the method cannot score (null certainty) is not selected, ranks below every
    scored track in the AUC, and is left out of the calibration error. A track without a PDG code
    is true for no species. Purity and efficiency carry Clopper–Pearson intervals, all else
    bootstrap intervals by collision. All models see the same replicas.

    Parameters
    ----------
    dataset
        Parquet file; only rows of split ``test`` are used.
    scores
        Score table of each model, aligned row by row with the dataset.
    outputs
        JSON file of each model after `pidflow.evaluate.schema.Metrics`.
    run, sample
        Labels written to the files.
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
        Seed of the bootstrap, and of the thinning.
    equalise
        Columns in which tracks are thinned out until they are distributed alike for all species
        (`pidflow.evaluate.equalise.equalised`); None uses all test tracks.

    Returns
    -------
    dict
        Metrics by model.
    """
    tracks = read_tracks(dataset, [*dict.fromkeys((*COLUMNS, *(equalise or ())))])
    columns = tracks.columns
    if columns["pdg_code"].null_count == columns.num_rows:
        raise PidflowError(
            f"{dataset}: column 'pdg_code' is null on every test track; give a sample whose truth is known"
        )
    thinned = equalised(columns, species, equalise, seed) if equalise else None
    rows = np.argsort(columns["collision_id"].to_numpy(), kind="stable")
    if thinned is not None:
        rows = rows[thinned.mask[rows]]
    shared: Sample | None = None
    computed = {}
    for model, path in scores.items():
        scored = tracks.scored(path, species).take(rows)
        shared = shared or _sample(scored, pt_edges, bootstrap, seed)
        resampled = resample(shared, scored.certainty, threshold)
        metrics = Metrics(
            run=run,
            model=model,
            sample=sample,
            threshold=threshold,
            confidence=confidence,
            seed=seed,
            equalised=None if thinned is None else Equalised(variables=tuple(equalise or ()), kept=thinned.kept),
            n_tracks=scored.columns.num_rows,
            n_collisions=len(shared.weights),
            species=tuple(
                _species(
                    resampled,
                    i,
                    pdg,
                    pt_edges,
                    confidence,
                    reliability(scored.certainty[:, i], shared.is_true[i], confidence),
                )
                for i, pdg in enumerate(species)
            ),
            macro=Macro(**_macro(resampled, slice(None), 0, species, confidence)),
            complete=_complete(resampled, shared, species, confidence),
            confusion=_confusion(scored, threshold),
        )
        write_json(outputs[model], metrics.model_dump())
        computed[model] = metrics
    return computed


def _sample(tracks: ScoredTracks, pt_edges: Sequence[float], bootstrap: int, seed: int) -> Sample:
    collisions, collision = np.unique(tracks.columns["collision_id"].to_numpy(), return_inverse=True)
    return Sample(
        is_true=np.stack([tracks.is_true(pdg) for pdg in tracks.species]),
        pt_bin=np.digitize(tracks.floats("pt"), pt_edges),
        pattern=(tracks.floats("has_trd") + 2 * tracks.floats("has_tof")).astype(np.intp),
        collision=collision,
        weights=replica_weights(seed, bootstrap, collisions.size),
        n_pt=len(pt_edges) + 1,
    )


def _f1(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return F1 of counts of shape (..., 3); NaN without true tracks."""
    selected, true, both = counts[..., SELECTED], counts[..., TRUE], counts[..., BOTH]
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
    resampled: Resampled,
    index: int,
    pdg: int,
    pt_edges: Sequence[float],
    confidence: float,
    calibration: tuple[ReliabilityBin, ...],
) -> SpeciesMetrics:
    counts = resampled.counts[:, index]

    def ranked(part: NDArray[np.float64], member: int) -> RankedRates:
        auc, ece = resampled.auc[:, index, member], resampled.ece[:, index, member]
        return RankedRates(
            **dict(_rates(part, confidence)),
            auc=percentile(auc[0], auc[1:], confidence),
            ece=percentile(ece[0], ece[1:], confidence),
        )

    by_pt = counts.sum(axis=2)
    by_pattern = counts.sum(axis=1)
    return SpeciesMetrics(
        pdg=pdg,
        key=object_key(pdg),
        overall=ranked(counts.sum(axis=(1, 2)), 0),
        pt=tuple(
            PtRates(**dict(_rates(by_pt[:, i + 1], confidence)), low=low, high=high)
            for i, (low, high) in enumerate(itertools.pairwise(pt_edges))
        ),
        patterns=tuple(
            PatternRates(**dict(ranked(by_pattern[:, i], i + 1)), pattern=name)
            for i, name in enumerate(DETECTOR_PATTERNS)
        ),
        calibration=calibration,
    )


def _macro(
    resampled: Resampled, patterns: slice, member: int, species: Sequence[int], confidence: float
) -> dict[str, Any]:
    """Return the fields of `Macro` for the tracks of some patterns, which are one member of the areas."""
    f1 = _f1(resampled.counts[:, :, :, patterns].sum(axis=(2, 3)))
    hadrons = [i for i, pdg in enumerate(species) if abs(pdg) in HADRONS]
    means = {
        "f1": _mean(f1),
        "auc": _mean(resampled.auc[:, :, member]),
        "f1_hadrons": _mean(f1[:, hadrons]),
        "ece": _mean(resampled.ece[:, :, member]),
    }
    estimates = {name: percentile(float(mean[0]), mean[1:], confidence) for name, mean in means.items()}
    replicas = tuple(None if np.isnan(area) else float(area) for area in means["auc"][1:])
    return {**estimates, "auc_replicas": replicas}


def _complete(resampled: Resampled, sample: Sample, species: Sequence[int], confidence: float) -> CompleteMacro | None:
    n_tracks = int((sample.pattern == COMPLETE).sum())
    if n_tracks == 0:
        return None
    part = _macro(resampled, slice(COMPLETE, COMPLETE + 1), 1 + COMPLETE, species, confidence)
    return CompleteMacro(**part, n_tracks=n_tracks)


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
