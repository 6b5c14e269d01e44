"""The metrics file: its one schema."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pidflow.errors import PidflowError
from pidflow.files import read_json


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Estimate(_Part):
    """A value with its interval; null where it is undefined."""

    value: float | None
    low: float | None
    high: float | None


class Rates(_Part):
    """Selection of one species at the threshold.

    Attributes
    ----------
    purity
        n_correct / n_selected.
    efficiency
        n_correct / n_true.
    f1
        Harmonic mean of both, 2·n_correct / (n_true + n_selected); undefined without true tracks.
    n_true, n_selected, n_correct
        Tracks of the species, tracks selected as it, and those that are both.
    """

    purity: Estimate
    efficiency: Estimate
    f1: Estimate
    n_true: int
    n_selected: int
    n_correct: int


class PtRates(Rates):
    """Rates in one bin of transverse momentum, low ≤ pT < high, in GeV/c."""

    low: float
    high: float


class RankedRates(Rates):
    """Rates, and what needs no threshold.

    Attributes
    ----------
    auc
        Area under the ROC curve.
    ece
        Expected calibration error (`pidflow.evaluate.calibration`) of the tracks that the method
        can score; like F1 and AUC undefined without true tracks.
    """

    auc: Estimate
    ece: Estimate


class PatternRates(RankedRates):
    """Rates of the tracks with one detector pattern (`pidflow.tracks.DETECTOR_PATTERNS`)."""

    pattern: str


class ReliabilityBin(_Part):
    """Tracks with low ≤ certainty < high (≤ 1 in the last bin).

    Attributes
    ----------
    n
        Number of tracks.
    certainty
        Their mean certainty.
    share
        True share of the species among them.
    """

    low: float
    high: float
    n: int
    certainty: float
    share: Estimate


class SpeciesMetrics(_Part):
    """Metrics of one species.

    Attributes
    ----------
    key
        Suffix of the species in published object names.
    calibration
        Bins of certainty that hold tracks.
    """

    pdg: int
    key: str
    overall: RankedRates
    pt: tuple[PtRates, ...]
    patterns: tuple[PatternRates, ...]
    calibration: tuple[ReliabilityBin, ...]


class Macro(_Part):
    """Unweighted means over the species that have true tracks; `f1_hadrons` over π, K and p only.

    Attributes
    ----------
    auc_replicas
        Macro AUC of each bootstrap replica, null where it is undefined. Models evaluated on the
        same tracks with the same seed share their replicas, so that the interval of a difference
        between models follows from them (`pidflow.evaluate.paired`).
    """

    f1: Estimate
    auc: Estimate
    f1_hadrons: Estimate
    ece: Estimate
    auc_replicas: tuple[float | None, ...]


class CompleteMacro(Macro):
    """Macro metrics on the tracks that every detector saw."""

    n_tracks: int


class Confusion(_Part):
    """Counts of tracks by true class (row) and assigned species (column).

    A track is assigned the species of highest certainty if that reaches the threshold, else none.
    """

    rows: tuple[int | Literal["other"], ...]
    columns: tuple[int | Literal["none"], ...]
    counts: tuple[tuple[int, ...], ...]


class Equalised(_Part):
    """How tracks were thinned out (`pidflow.evaluate.equalise`).

    Attributes
    ----------
    variables
        Columns whose joint distribution is the same for all species.
    kept
        Share of the tracks kept, by the PDG code of the species.
    """

    variables: tuple[str, ...]
    kept: dict[int, float]


class Metrics(_Part):
    """Metrics of one model on the test tracks of one sample of one run.

    Attributes
    ----------
    seed
        Seed of the bootstrap.
    equalised
        Null if all test tracks were used.
    """

    run: int
    model: str
    sample: str
    threshold: float
    confidence: float
    seed: int
    equalised: Equalised | None
    n_tracks: int
    n_collisions: int
    species: tuple[SpeciesMetrics, ...]
    macro: Macro
    complete: CompleteMacro | None
    confusion: Confusion


def read_metrics(path: str | Path) -> Metrics:
    """Read a metrics file.

    Raises
    ------
    PidflowError
        Naming the file and the first key that does not fit the schema.
    """
    try:
        return Metrics.model_validate(read_json(path))
    except ValidationError as error:
        key = ".".join(str(part) for part in error.errors()[0]["loc"]) or "(top level)"
        raise PidflowError(f"{path}: key '{key}' does not fit the metrics schema; make the file again") from None
