"""Choice of the adapted model that is published, and what an analyser may expect of it on data."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pidflow.adapt.choice.assess import MOST, TRUSTED, Samples, assess, read_samples
from pidflow.adapt.choice.efficiency import Selected, efficiencies
from pidflow.adapt.choice.sample import Looked, look
from pidflow.adapt.choice.scores import macro_auc
from pidflow.config.adapt import AUTOMATIC, CHOSEN, UNADAPTED, Choice
from pidflow.config.v0 import V0Cuts
from pidflow.errors import PidflowError
from pidflow.evaluate.intervals import percentile, replica_weights
from pidflow.evaluate.schema import Estimate
from pidflow.files import replacing, write_json
from pidflow.models import load
from pidflow.models.base import Floats, Model
from pidflow.tracks import DETECTOR_PATTERNS


@dataclass(frozen=True)
class Adapted:
    """An adapted simulated sample.

    Attributes
    ----------
    dataset, variations, probes
        Dataset, its variations within errors (`pidflow.adapt.sample`), and that of the legs of V0 candidates, if any.
    """

    dataset: Path
    variations: Path
    probes: Path | None


@dataclass(frozen=True)
class Measured:
    """What was found for a candidate.

    Attributes
    ----------
    auc
        Macro AUC on the yardstick, and that of bootstrap replicas by collision, [1 + R].
    patterns
        Macro AUC on plain simulation by detector pattern; NaN for a pattern without tracks of a species.
    scores
        All label-free scores.
    """

    auc: NDArray[np.float64]
    patterns: dict[str, float]
    scores: dict[str, float]


def select_model(
    models: Mapping[str, str | Path],
    simulation: str | Path,
    data: str | Path,
    samples: Mapping[str, Adapted],
    folder: str | Path,
    choice: str | Path,
    efficiency: str | Path,
    *,
    method: str,
    trained_on: Mapping[str, str],
    settings: Choice,
    v0s: Mapping[str, list[Path]] | None,
    probes: Mapping[str, str | Path],
    cuts: V0Cuts,
    pt_edges: Sequence[float],
    threshold: float,
    bootstrap: int,
    confidence: float,
    seed: int,
    threads: int,
) -> None:
    """Choose among candidates, copy the chosen model, and write the reasons and the expected efficiencies.

    The yardstick is the simulated sample, plain or adapted, which a classifier finds hardest to tell from data. The
    candidate of the highest macro AUC on its validation tracks is chosen. Among candidates that are not significantly
    worse than it, those that were trained on the yardstick come first, and the unadapted model before others: a
    resemblance that all tracks tell weighs more than a difference that the bootstrap cannot. A candidate is out that
    loses too much on any detector pattern of the plain simulation. No label of data is used, or read.

    Parameters
    ----------
    models
        Model directories by candidate, the unadapted model's as ``none``.
    simulation, data
        Datasets of the run.
    samples
        Adapted samples by candidate.
    folder
        Model directory to write: a copy of the chosen one.
    choice
        JSON: the chosen candidate, why, all scores of all candidates, how well each sample resembles data.
    efficiency
        CSV of `pidflow.adapt.choice.efficiency`.
    method
        ``auto``, or the candidate that is taken whatever its scores.
    trained_on
        Sample that each candidate was trained on, ``simulation`` for the plain one.
    settings
        How the choice is made.
    v0s
        V0 tables of ``simulation`` and ``data``; None if they were not searched.
    probes
        Datasets of V0 legs of ``simulation`` and ``data``.
    cuts
        The cuts that the V0 tables were made with.
    pt_edges, threshold, bootstrap, confidence, seed
        Of efficiencies and intervals.
    threads
        Threads of the models' libraries.
    """
    loaded = {name: load(path, threads) for name, path in models.items()}
    first = loaded[UNADAPTED]
    known = read_samples(
        simulation,
        data,
        {name: sample.dataset for name, sample in samples.items()},
        features=first.info.features,
        species=first.info.species,
        v0s=v0s,
        probes={**probes, **{name: sample.probes for name, sample in samples.items() if sample.probes}},
        cuts=cuts,
        threshold=threshold,
        pt_edges=tuple(pt_edges),
        seed=seed,
    )
    measured: dict[str, Measured] = {}
    for name, model in loaded.items():
        measured[name] = _measure(model, known, bootstrap, seed)
        shown = "  ".join(f"{key} {value:.4f}" for key, value in measured[name].scores.items())
        print(f"run {first.info.run} {name}: {shown}", flush=True)
    reasons = {name: rejected(name, measured, settings) for name in measured}
    chosen, why = _chosen(measured, reasons, trained_on, known.yardstick, method, settings)
    _write_choice(choice, known, measured, reasons, chosen, why, settings, confidence)
    accepted = [name for name, reason in reasons.items() if not reason or name == chosen]
    _write_efficiency(efficiency, loaded, chosen, accepted, known, simulation, samples)
    target = Path(folder)
    shutil.copytree(models[chosen], target, ignore=shutil.ignore_patterns(".*"), dirs_exist_ok=True)
    print(f"run {first.info.run}: {chosen} is chosen; {why}", flush=True)


def _measure(model: Model[Any], known: Samples, bootstrap: int, seed: int) -> Measured:
    plain, target = known.plain, known.target
    assert plain.labels is not None
    certainty = model.score(plain.features)
    patterns = {
        name: macro_auc(certainty[plain.pattern == number], plain.labels[plain.pattern == number])
        for number, name in enumerate(DETECTOR_PATTERNS)
    }
    auc = replicated_auc(model.score(target.features), target, bootstrap, seed)
    return Measured(auc, patterns, assess(model.score, known))


def replicated_auc(certainty: Floats, tracks: Looked, bootstrap: int, seed: int) -> NDArray[np.float64]:
    """Return the weighted macro AUC of tracks, and those of bootstrap replicas by collision, [1 + R]."""
    assert tracks.labels is not None
    collisions, collision = np.unique(tracks.collision, return_inverse=True)
    weights = replica_weights(seed, bootstrap, len(collisions))[collision] * tracks.weights[:, None]
    areas = []
    for score, label in zip(np.nan_to_num(certainty, nan=-1.0).T, tracks.labels.T, strict=True):
        order = np.argsort(score, kind="stable")
        starts = np.flatnonzero(np.diff(score[order], prepend=-np.inf))
        true, other = (
            np.add.reduceat(weights[order] * (label[order] == value)[:, None], starts, axis=0) for value in (1, 0)
        )
        below = np.cumsum(other, axis=0) - 0.5 * other
        pairs = true.sum(axis=0) * other.sum(axis=0)
        areas.append(np.divide((true * below).sum(axis=0), pairs, out=np.full(len(pairs), np.nan), where=pairs > 0))
    return np.asarray(np.nanmean(areas, axis=0))


def rejected(name: str, measured: Mapping[str, Measured], settings: Choice) -> str:
    """Return why a candidate is out; empty if it is not."""
    before, now = measured[UNADAPTED].patterns, measured[name].patterns
    losses = {pattern: before[pattern] - now[pattern] for pattern in before if np.isfinite(before[pattern])}
    for pattern, loss in losses.items():
        if not loss <= settings.floor:
            return f"loses {loss:.4f} macro AUC on {pattern} tracks of simulation, more than {settings.floor:g}"
    return ""


def _chosen(
    measured: Mapping[str, Measured],
    reasons: Mapping[str, str],
    trained_on: Mapping[str, str],
    yardstick: str,
    method: str,
    settings: Choice,
) -> tuple[str, str]:
    """Return the chosen candidate and why."""
    if method != AUTOMATIC:
        return method, "the configuration names it"
    accepted = [name for name in measured if not reasons[name]]
    best = max(accepted, key=lambda name: measured[name].auc[0])

    def behind(name: str) -> tuple[float, float]:
        gap = measured[best].auc - measured[name].auc
        return float(gap[0]), float(np.nanstd(gap[1:]))

    tied = [name for name in accepted if behind(name)[0] <= settings.significance * behind(name)[1]]
    of_sample = [name for name in tied if trained_on[name] == yardstick] or tied
    chosen = UNADAPTED if UNADAPTED in of_sample else max(of_sample, key=lambda name: measured[name].auc[0])
    where = f"on the simulated sample '{yardstick}', which resembles data most"
    if chosen == best:
        return chosen, f"its macro AUC is the highest {where}"
    gap, error = behind(chosen)
    reason = (
        f"its macro AUC {where}, is within {settings.significance:g} standard errors of the highest ({best}, higher by"
        f" {gap:.5f} ± {error:.5f})"
    )
    why = "it is the model as it was" if chosen == UNADAPTED else "it was trained on that sample"
    return chosen, f"{reason}, and {why}"


def _estimate(values: NDArray[np.float64], confidence: float) -> dict[str, Any]:
    estimate: Estimate = percentile(float(values[0]), values[1:], confidence)
    return estimate.model_dump()


def _plain(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: float(value) if np.isfinite(value) else None for name, value in values.items()}


def _write_choice(
    path: str | Path,
    known: Samples,
    measured: Mapping[str, Measured],
    reasons: Mapping[str, str],
    chosen: str,
    why: str,
    settings: Choice,
    confidence: float,
) -> None:
    best = known.ratio[known.yardstick].discriminator_auc
    trusted = best <= settings.best_domain_auc
    unadapted = measured[UNADAPTED].auc
    write_json(
        path,
        {
            CHOSEN: chosen,
            "reason": why,
            "score": TRUSTED,
            "yardstick": known.yardstick,
            "trusted": trusted,
            "domain_auc": {
                name: {"value": ratio.discriminator_auc, "effective_share": ratio.effective_share}
                for name, ratio in known.ratio.items()
            },
            "candidates": {
                name: {
                    "accepted": not reasons[name],
                    "reason": reasons[name],
                    "auc": _estimate(found.auc, confidence),
                    "gain": _estimate(found.auc - unadapted, confidence),
                    "simulation_auc_by_pattern": _plain(found.patterns),
                    "scores": _plain(found.scores),
                }
                for name, found in measured.items()
            },
        },
    )
    if not trusted:
        print(
            f"warning: a classifier tells data from every simulated sample (AUC {best:.3f} at best, limit "
            f"{settings.best_domain_auc:g}); look at the calibration before the choice is trusted",
            flush=True,
        )


def _write_efficiency(
    path: str | Path,
    models: Mapping[str, Model[Any]],
    chosen: str,
    accepted: Sequence[str],
    known: Samples,
    simulation: str | Path,
    samples: Mapping[str, Adapted],
) -> None:
    """Write what the chosen model's selection probably keeps of each species in data."""
    sample = samples.get(known.yardstick)
    plain = look(simulation, "test", known.features, known.species, MOST)
    target = plain if sample is None else look(sample.dataset, "test", known.features, known.species, MOST)
    variations = None if sample is None else sample.variations
    selected = Selected(target, plain, variations, known.features, known.species, known.threshold, known.pt_edges)
    rows = efficiencies(selected, {name: models[name].score for name in (chosen, *accepted)}, chosen)
    if not rows:
        raise PidflowError(f"{simulation}: too few test tracks of every species; give the run more or larger files")
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
