"""All label-free scores of a model on a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pidflow.adapt.choice import scores
from pidflow.adapt.choice.sample import Looked, look
from pidflow.config.adapt import PLAIN
from pidflow.config.v0 import V0Cuts
from pidflow.evaluate.probes import Probes, rate_arrays, rates, read_probes
from pidflow.models.base import Floats
from pidflow.parquet import matrix

MOST = 50_000
"""Tracks of a sample that are looked at."""

_MOST_CLASSIFIED = 20_000
_BINS = 8

TRUSTED = "adapted_auc"
"""The score that chooses: macro AUC on held-out simulation that was made to look like the run's data.

It is an estimate of the very number that is wanted, as good as the adapted sample is, which the domain classifier and
the probes check. The benchmark of the scores compares it with the others.
"""


@dataclass(frozen=True)
class Tagged:
    """Legs of V0 candidates of one sample.

    Attributes
    ----------
    probes
        The legs, with the features among their columns.
    features
        float32 [n, F].
    """

    probes: Probes
    features: Floats


@dataclass(frozen=True)
class Samples:
    """What is known of a run without a label of data.

    Attributes
    ----------
    features, species
        Of the models.
    plain
        Validation tracks of the simulation as it is.
    adapted
        Validation tracks of each adapted sample, by candidate.
    data
        Validation tracks of data.
    ratio
        Density of data over each sample's, by candidate and `PLAIN`.
    yardstick
        The sample that is hardest to tell from data.
    tagged
        Probes of data and of the yardstick; None without V0 candidates.
    cuts, threshold, pt_edges, seed
        Of the probes' selection, and of random choices.
    """

    features: tuple[str, ...]
    species: tuple[int, ...]
    plain: Looked
    adapted: Mapping[str, Looked]
    data: Looked
    ratio: Mapping[str, scores.DensityRatio]
    yardstick: str
    tagged: tuple[Tagged, Tagged] | None
    cuts: V0Cuts
    threshold: float
    pt_edges: tuple[float, ...]
    seed: int

    @property
    def target(self) -> Looked:
        """Validation tracks of the yardstick."""
        return self.adapted.get(self.yardstick, self.plain)


def read_samples(
    simulation: str | Path,
    data: str | Path,
    adapted: Mapping[str, str | Path],
    *,
    features: tuple[str, ...],
    species: tuple[int, ...],
    v0s: Mapping[str, list[Path]] | None,
    probes: Mapping[str, str | Path],
    cuts: V0Cuts,
    threshold: float,
    pt_edges: tuple[float, ...],
    seed: int,
) -> Samples:
    """Read samples and compare each with data.

    Parameters
    ----------
    simulation, data
        Datasets; no truth of data is read.
    adapted
        Adapted simulated datasets by candidate.
    features, species
        Of the models.
    v0s
        V0 tables of ``simulation`` and ``data``; None if they were not searched.
    probes
        Datasets of V0 legs: of ``data``, of ``simulation``, and of each candidate's sample.
    cuts, threshold, pt_edges, seed
        As of `Samples`.
    """
    held_out = {PLAIN: look(simulation, "validation", features, species, MOST)}
    held_out |= {name: look(path, "validation", features, species, MOST) for name, path in adapted.items()}
    measured = look(data, "validation", features, None, MOST)
    few = slice(0, _MOST_CLASSIFIED)
    ratio = {
        name: scores.density_ratio(
            part.features[few],
            measured.features[few],
            seed=seed,
            collisions=np.concatenate([part.collision[few], measured.collision[few]]),
            folds=2,
            weights=part.weights[few],
        )
        for name, part in held_out.items()
    }
    yardstick = min(ratio, key=lambda name: ratio[name].discriminator_auc)
    tagged = None
    if v0s is not None:
        tagged = _tag(probes["data"], v0s["data"], features), _tag(probes[yardstick], v0s["simulation"], features)
    plain = held_out.pop(PLAIN)
    return Samples(
        features, species, plain, held_out, measured, ratio, yardstick, tagged, cuts, threshold, pt_edges, seed
    )  # fmt: skip


def _tag(dataset: str | Path, tables: list[Path], features: tuple[str, ...]) -> Tagged:
    probes = read_probes(dataset, tables, list(features))
    return Tagged(probes, matrix(probes.columns, features))


def assess(score: Callable[[Floats], Floats], samples: Samples) -> dict[str, float]:
    """Return all scores of a model; of each, higher is better.

    Parameters
    ----------
    score
        From raw features [n, F] to certainties [n, S] of the model.
    samples
        What is known of the run.
    """
    target, plain, data = samples.target, samples.plain, samples.data
    assert target.labels is not None and plain.labels is not None
    on_target, on_plain, on_data = (score(part.features) for part in (target, plain, data))
    few = slice(0, _MOST_CLASSIFIED)
    ratio = samples.ratio[PLAIN]
    weighed = on_plain[few], plain.labels[few]
    found = {
        TRUSTED: scores.macro_auc(on_target, target.labels, target.weights),
        "adapted_likelihood": scores.log_likelihood(on_target, target.labels, target.weights),
        "simulation_auc": scores.macro_auc(on_plain, plain.labels),
        "importance_weighted": scores.importance_weighted_likelihood(*weighed, ratio.ratio),
        "deep_embedded_validation": scores.deep_embedded_validation(*weighed, ratio.unscaled),
        "soft_neighbourhood": scores.soft_neighbourhood(scores.class_probabilities(on_data), seed=samples.seed),
        "mixup": scores.mixup_agreement(score, data.features[few], on_data[few], seed=samples.seed),
        "information_maximisation": scores.information_maximisation(on_data),
        "species_plausibility": scores.species_plausibility(on_data, _bin(data), _expected(target)),
    }
    if samples.tagged is not None:
        found["probe_agreement"] = scores.probe_agreement(
            *(probe_rates(score, part, samples) for part in samples.tagged)
        )
    return found


def probe_rates(
    score: Callable[[Floats], Floats], tagged: Tagged, samples: Samples
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return efficiencies and misidentification rates of probes, and their errors."""
    found = rates(
        tagged.probes,
        score(tagged.features),
        species=samples.species,
        threshold=samples.threshold,
        pt_edges=samples.pt_edges,
        confidence=0.68,
        cuts=samples.cuts,
    )
    return rate_arrays(found)


def _bin(tracks: Looked) -> NDArray[np.intp]:
    """Return the bin of charge and momentum of tracks, [N]."""
    edges = np.geomspace(0.2, 4.0, _BINS - 1)
    return 2 * np.digitize(tracks.number("p"), edges) + (np.nan_to_num(tracks.number("sign")) > 0)


def _expected(target: Looked) -> NDArray[np.float64]:
    """Return the share of each species in each bin of the yardstick, [bins, S]."""
    assert target.labels is not None
    number = _bin(target)
    total = np.bincount(number, target.weights, 2 * _BINS)
    share: Any = [np.bincount(number, target.weights * own, 2 * _BINS) for own in target.labels.T]
    return np.stack(share, axis=1) / np.maximum(total, 1e-12)[:, None]
