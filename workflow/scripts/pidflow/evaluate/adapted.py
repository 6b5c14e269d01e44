"""What figures compare with the unadapted model: one candidate of adaptation, and probes' rates of both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pidflow.config.adapt import CHOSEN, UNADAPTED
from pidflow.config.v0 import V0Cuts
from pidflow.evaluate.probe_schema import ProbeRates
from pidflow.evaluate.probes import rates, read_probes
from pidflow.files import read_json
from pidflow.models import load
from pidflow.parquet import matrix


@dataclass(frozen=True)
class Compared:
    """A candidate, or the unadapted model, in figures.

    Attributes
    ----------
    candidate
        Its name.
    label
        What the figures call it.
    sample
        Candidate whose simulated sample it is trained on; None: the plain one.
    """

    candidate: str
    label: str
    sample: str | None


def compared(choice: str | Path, samples: Mapping[str, str | None]) -> tuple[Compared, Compared]:
    """Return the unadapted model and the candidate that figures compare with it.

    That is the chosen one; where the unadapted model stays, the one of the highest macro AUC.

    Parameters
    ----------
    choice
        JSON that `pidflow.adapt.choice.select` wrote.
    samples
        Candidate whose simulated sample each candidate is trained on; None: the plain one.
    """
    found: dict[str, Any] = read_json(choice)
    name = found[CHOSEN]
    label = f"adapted ({name})"
    if name == UNADAPTED:
        areas = {own: part["auc"]["value"] or 0.0 for own, part in found["candidates"].items() if own != UNADAPTED}
        name = max(areas, key=lambda own: areas[own])
        label = f"{name} (not chosen)"
    return Compared(UNADAPTED, "unadapted", None), Compared(name, label, samples[name])


def probe_rates(
    model: str | Path,
    dataset: str | Path,
    v0_tables: Iterable[str | Path],
    *,
    sample: str,
    threshold: float,
    pt_edges: Sequence[float],
    confidence: float,
    cuts: V0Cuts,
) -> ProbeRates:
    """Score the legs of V0 candidates with a model and return its rates; truth is not used.

    Parameters
    ----------
    model
        Model directory.
    dataset, v0_tables
        Dataset of legs, and V0 tables of the same sample.
    sample
        Label of the sample.
    threshold, pt_edges, confidence, cuts
        As of `pidflow.evaluate.probes.rates`.
    """
    loaded = load(model)
    features, species = loaded.info.features, loaded.info.species
    probes = read_probes(dataset, v0_tables, features)
    found = rates(
        probes,
        loaded.score(matrix(probes.columns, features)),
        species=species,
        threshold=threshold,
        pt_edges=pt_edges,
        confidence=confidence,
        cuts=cuts,
    )
    return ProbeRates(
        run=loaded.info.run,
        model=Path(model).name,
        sample=sample,
        threshold=threshold,
        confidence=confidence,
        probes=found,
    )
