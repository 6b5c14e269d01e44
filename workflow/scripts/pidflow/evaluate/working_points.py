"""Working points: thresholds on the certainty, and what they select.

A threshold is chosen on the validation tracks, its rates are measured on the test tracks. On the
tracks that chose it, a threshold looks better than it is, since the search prefers those where
chance helped: a purity asked for is always met there, and the highest F1 is too high. Test tracks
took no part in the choice, so their rates are unbiased. A requested purity or efficiency is
therefore met within the errors of both sets, not exactly; a purity that only a handful of
validation tracks reach may well be missed, which its interval shows.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from pidflow.errors import PidflowError
from pidflow.evaluate.intervals import clopper_pearson
from pidflow.evaluate.ranking import ranking_score
from pidflow.evaluate.schema import Estimate
from pidflow.evaluate.scored import ScoredTracks, read_tracks
from pidflow.files import read_json, write_json, write_text
from pidflow.physics import object_key
from pidflow.tracks import WEIGHT

Criterion = Literal["max_f1", "purity", "efficiency", "fixed"]

COLUMNS = (
    "pdg",
    "criterion",
    "requested",
    "threshold",
    "purity",
    "purity_low",
    "purity_high",
    "efficiency",
    "efficiency_low",
    "efficiency_high",
    "f1",
    "reached",
)
"""Columns of the CSV file."""

_UNDEFINED = Estimate(value=None, low=None, high=None)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WorkingPoint(_Part):
    """One threshold of one species.

    Attributes
    ----------
    criterion
        How the threshold was chosen on the validation tracks: ``max_f1`` at the highest F1;
        ``purity`` the lowest that reaches the purity, hence with the highest efficiency;
        ``efficiency`` the highest that reaches the efficiency; ``fixed`` as given.
    requested
        Purity, efficiency or certainty asked for; null for ``max_f1``.
    threshold
        Certainty from which a track is selected; null if no threshold does what was asked for.
    purity, efficiency, f1
        On the test tracks; null without a threshold, and where nothing was selected or is true.
    reached
        Whether the validation tracks have such a threshold.
    """

    criterion: Criterion
    requested: float | None
    threshold: float | None
    purity: Estimate
    efficiency: Estimate
    f1: float | None
    reached: bool


class SpeciesPoints(_Part):
    """Working points of one species, and its true tracks in both sets."""

    pdg: int
    key: str
    n_true_validation: int
    n_true_test: int
    points: tuple[WorkingPoint, ...]


class WorkingPoints(_Part):
    """Working points of one model on one sample of one run.

    Attributes
    ----------
    confidence
        Coverage of the intervals.
    weighted
        Whether the tracks of the sample carry weights.
    """

    run: int
    model: str
    sample: str
    confidence: float
    weighted: bool
    species: tuple[SpeciesPoints, ...]


def compute_working_points(
    dataset: str | Path,
    scores: Mapping[str, str | Path],
    csv_outputs: Mapping[str, str | Path],
    json_outputs: Mapping[str, str | Path],
    *,
    run: int,
    sample: str,
    species: Sequence[int],
    purities: Sequence[float],
    efficiencies: Sequence[float],
    certainties: Sequence[float],
    confidence: float,
) -> dict[str, WorkingPoints]:
    """Choose thresholds of models on validation tracks, measure them on test tracks, and write both.

    A track that the method cannot score (null certainty) is never selected. If the dataset has a
    column ``weight``, tracks count with it, in the choice and in the rates.

    Parameters
    ----------
    dataset
        Parquet file; only rows of splits ``validation`` and ``test`` are used.
    scores
        Score table of each model, aligned row by row with the dataset.
    csv_outputs, json_outputs
        Files of each model: columns `COLUMNS`, unrounded, an undefined value empty; and
        `WorkingPoints`.
    run, sample
        Labels.
    species
        PDG codes.
    purities, efficiencies
        Rates in (0, 1] to be reached.
    certainties
        Thresholds that are given.
    confidence
        Coverage of the Clopper–Pearson intervals; of weighted tracks, with effective counts.

    Returns
    -------
    dict
        Working points by model.

    Raises
    ------
    PidflowError
        If no validation track or no test track has a PDG code.
    """
    weighted = WEIGHT.name in pq.read_schema(dataset).names
    columns = ["pdg_code", *([WEIGHT.name] if weighted else [])]
    sets = {split: read_tracks(dataset, columns, split) for split in ("validation", "test")}
    for split, tracks in sets.items():
        if tracks.columns["pdg_code"].null_count == tracks.columns.num_rows:
            raise PidflowError(
                f"{dataset}: column 'pdg_code' is null on every {split} track; give a sample whose truth is known"
            )
    requests: list[tuple[Criterion, float | None]] = [
        ("max_f1", None),
        *(("purity", value) for value in purities),
        *(("efficiency", value) for value in efficiencies),
        *(("fixed", value) for value in certainties),
    ]
    computed = {}
    for model, path in scores.items():
        validation, test = (tracks.scored(path, species) for tracks in sets.values())
        points = WorkingPoints(
            run=run,
            model=model,
            sample=sample,
            confidence=confidence,
            weighted=weighted,
            species=tuple(_species(validation, test, i, requests, confidence) for i in range(len(species))),
        )
        write_text(csv_outputs[model], _csv(points))
        write_json(json_outputs[model], points.model_dump())
        computed[model] = points
    return computed


def read_working_points(path: str | Path) -> WorkingPoints:
    """Read the JSON file.

    Raises
    ------
    PidflowError
        Naming the file and the first key that does not fit the schema.
    """
    try:
        return WorkingPoints.model_validate(read_json(path))
    except ValidationError as error:
        key = ".".join(str(part) for part in error.errors()[0]["loc"]) or "(top level)"
        raise PidflowError(
            f"{path}: key '{key}' does not fit the schema of working points; make the file again"
        ) from None


@dataclass(frozen=True)
class Selections:
    """What each distinct certainty of a set of tracks selects as a threshold, from the highest down.

    Attributes
    ----------
    thresholds
        Shape (n_distinct,), falling; no NaN.
    selected, correct, squares
        Shape (n_distinct,): weight of the selected tracks, of the true ones among them, and the
        selected tracks' sum of squared weights.
    true, true_squares
        Weight of all true tracks, scored or not, and their sum of squared weights.
    """

    thresholds: NDArray[np.float32]
    selected: NDArray[np.float64]
    correct: NDArray[np.float64]
    squares: NDArray[np.float64]
    true: float
    true_squares: float

    @property
    def purity(self) -> NDArray[np.float64]:
        """Purity, shape (n_distinct,); 0 where all that is selected weighs nothing."""
        return np.divide(self.correct, self.selected, out=np.zeros_like(self.correct), where=self.selected > 0)

    def choose(self, criterion: Criterion, requested: float | None) -> float | None:
        """Return the threshold of a criterion; None if there is none (`WorkingPoint`)."""
        if criterion == "fixed":
            return requested
        if not self.correct.any():
            return None
        if requested is None:
            best = int(np.argmax(self.correct / (self.true + self.selected)))
            return float(self.thresholds[best])
        efficiency = self.correct / self.true
        # purity jumps up and down with the threshold, efficiency only grows downwards
        reached = np.flatnonzero((self.purity if criterion == "purity" else efficiency) >= requested)
        if reached.size == 0:
            return None
        return float(self.thresholds[reached[-1 if criterion == "purity" else 0]])

    def measure(self, threshold: float, confidence: float) -> tuple[Estimate, Estimate, float | None]:
        """Return purity, efficiency and F1 of the tracks at or above a threshold."""
        # compared in the precision of the certainties, as the selection itself is
        count = int(np.searchsorted(-self.thresholds, -np.float32(threshold), side="right"))
        selected, correct, squares = (
            float(sums[count - 1]) if count else 0.0 for sums in (self.selected, self.correct, self.squares)
        )
        return (
            _rate(correct, selected, squares, confidence),
            _rate(correct, self.true, self.true_squares, confidence),
            2.0 * correct / (self.true + selected) if self.true > 0 else None,
        )


def selections(
    certainty: NDArray[np.float32], is_true: NDArray[np.bool_], weight: NDArray[np.float64] | None = None
) -> Selections:
    """Sort tracks once by certainty and count what every threshold selects; tied tracks come together.

    Parameters
    ----------
    certainty
        Shape (n_tracks,), NaN where the method cannot score the track.
    is_true
        Shape (n_tracks,).
    weight
        Shape (n_tracks,), ≥ 0; 1 each if not given.
    """
    weights = np.ones(certainty.size) if weight is None else weight
    order = np.argsort(-ranking_score(certainty), kind="stable")
    falling, weights, true = certainty[order], weights[order], is_true[order]
    last_of_tie = np.append(np.flatnonzero(falling[1:] != falling[:-1]), falling.size - 1)
    last_of_tie = last_of_tie[~np.isnan(falling[last_of_tie])]
    sums = [np.cumsum(values) for values in (weights, weights * true, weights**2, weights**2 * true)]
    selected, correct, squares = (values[last_of_tie] for values in sums[:3])
    return Selections(falling[last_of_tie], selected, correct, squares, float(sums[1][-1]), float(sums[3][-1]))


def _species(
    validation: ScoredTracks,
    test: ScoredTracks,
    index: int,
    requests: Sequence[tuple[Criterion, float | None]],
    confidence: float,
) -> SpeciesPoints:
    pdg = validation.species[index]
    chosen, measured = (_selections(tracks, index) for tracks in (validation, test))

    def points() -> Iterator[WorkingPoint]:
        for criterion, requested in requests:
            threshold = chosen.choose(criterion, requested)
            purity, efficiency, f1 = (
                (_UNDEFINED, _UNDEFINED, None) if threshold is None else measured.measure(threshold, confidence)
            )
            yield WorkingPoint(
                criterion=criterion,
                requested=requested,
                threshold=threshold,
                purity=purity,
                efficiency=efficiency,
                f1=f1,
                reached=threshold is not None,
            )

    return SpeciesPoints(
        pdg=pdg,
        key=object_key(pdg),
        n_true_validation=int(validation.is_true(pdg).sum()),
        n_true_test=int(test.is_true(pdg).sum()),
        points=tuple(points()),
    )


def _selections(tracks: ScoredTracks, index: int) -> Selections:
    weighted = WEIGHT.name in tracks.columns.column_names
    return selections(
        tracks.certainty[:, index],
        tracks.is_true(tracks.species[index]),
        tracks.floats(WEIGHT.name) if weighted else None,
    )


def _rate(passed: float, total: float, squares: float, confidence: float) -> Estimate:
    """Return a rate with its Clopper–Pearson interval, all null where `total` is 0.

    Weighted tracks count as (Σw)²/Σw² tracks of weight 1, as in ROOT's ``TEfficiency``
    (L. Kish, Survey Sampling (1965) 258).
    """
    if total == 0:
        return _UNDEFINED
    value = min(passed / total, 1.0)
    scale = total / squares
    low, high = clopper_pearson(min(passed, total) * scale, total * scale, confidence)
    # with less than one effective track on a side, the bound can lie beyond the rate
    return Estimate(value=value, low=min(float(low), value), high=max(float(high), value))


def _csv(found: WorkingPoints) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for part in found.species:
        for point in part.points:
            rates = [bound for rate in (point.purity, point.efficiency) for bound in (rate.value, rate.low, rate.high)]
            head = [part.pdg, point.criterion, point.requested, point.threshold]
            writer.writerow([*head, *rates, point.f1, str(point.reached).lower()])
    return stream.getvalue()
