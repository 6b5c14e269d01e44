"""From a wish, such as pions of 90 % purity, to what an analyser writes into the configuration of O2Physics.

O2Physics' interface has an automatic mode that sets one certainty and fixed momentum limits whatever the model; here
both come from what was published with the model that is valid at the time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pidflow.errors import PidflowError
from pidflow.model import MODEL_FILE
from pidflow.publish.configuration import interface
from pidflow.publish.names import GATE_FILE, p_limits
from pidflow.publish.registry import Entry, lookup, read_document
from pidflow.publish.working_points import Criterion, WorkingPoint, read_working_points

_DEFAULT: dict[str, float | None] = {"max_f1": None}
_CLOSE = 1e-9


@dataclass(frozen=True)
class Choice:
    """A model and its working points.

    Attributes
    ----------
    path, timestamp
        Where and when (ms) the model is valid.
    run, created
        Run and creation time (ms) of the publication.
    points
        Working point of each species, in the order of the model.
    p_limits
        Momentum in GeV/c from which each of `pidflow.publish.configuration.DETECTOR_MODES` holds.
    """

    path: str
    timestamp: int
    run: str | None
    created: int
    points: tuple[WorkingPoint, ...]
    p_limits: tuple[float, float, float]

    @property
    def species(self) -> tuple[int, ...]:
        """PDG codes in the order of the model."""
        return tuple(point.pdg for point in self.points)

    @property
    def certainties(self) -> tuple[float, ...]:
        """Certainty from which a track is accepted, per species in the order of the model."""
        return tuple(point.threshold for point in self.points if point.threshold is not None)

    def fragment(self) -> dict[str, Any]:
        """Return the configuration of O2Physics' interface that applies the choice."""
        certainties = dict(zip(self.species, self.certainties, strict=True))
        return interface(certainties, self.p_limits, path=self.path, timestamp=self.timestamp)


def choose(
    registry: str | Path, path: str, timestamp: int, requests: Mapping[int, Mapping[str, float | None]]
) -> Choice:
    """Choose the publication that is valid at a time and a working point of it for each species.

    Parameters
    ----------
    registry, path
        Folder of the registry and path of the publication in it.
    timestamp
        Time of the data, ms since 1970.
    requests
        By PDG code one criterion of ``working_points.csv`` and its value, such as ``{211: {"purity": 0.9}}``. A value
        that is not in the table is served by the next stricter one that was reached. A species of the model that is
        not asked for gets its best F1 (``max_f1``, whose value is None), and is left out if it has none.

    Raises
    ------
    PidflowError
        If nothing is valid then, a request makes no sense, or no published working point meets it.
    """
    entry = lookup(registry, path, timestamp)
    if entry is None:
        raise PidflowError(f"{path}: nothing is published for time {timestamp} ms; publish the run first")
    species, masks = _species_and_masks(registry, entry)
    if unknown := sorted(set(requests) - set(species)):
        known = ", ".join(map(str, species))
        raise PidflowError(f"{path}: the model has no species {unknown[0]}; ask for {known}")
    table = read_working_points(registry, entry)
    found = [_point(path, [p for p in table if p.pdg == pdg], pdg, requests.get(pdg)) for pdg in species]
    points = tuple(point for point in found if point)
    if not points:
        raise PidflowError(f"{path}: no working point of any species was reached; evaluate the model again")
    return Choice(path, timestamp, entry.metadata.get("run"), entry.created, points, p_limits(masks))


def _species_and_masks(registry: str | Path, entry: Entry) -> tuple[list[int], dict[str, float]]:
    """Return species in the model's order and its masks in GeV/c; trees are published without ``model.json``."""
    try:
        if MODEL_FILE in entry.documents:
            model = json.loads(read_document(registry, entry, MODEL_FILE))
            return list(model["species"]), dict(model["masks"])
        gate = json.loads(read_document(registry, entry, GATE_FILE))
        config = json.loads(read_document(registry, entry, "provenance.json"))["config"]
        return [record["pdg"] for record in gate["species"]], dict(config["dataset"]["masks"])
    except (KeyError, TypeError, ValueError):
        raise PidflowError(
            f"{entry.path}: the documents do not tell the model's species and masks; publish the run again"
        ) from None


def _point(
    path: str, table: list[WorkingPoint], pdg: int, request: Mapping[str, float | None] | None
) -> WorkingPoint | None:
    """Return the row that serves the request, or None for a species that was not asked for and has no best F1."""
    criterion, value = _checked(pdg, _DEFAULT if request is None else request)
    rows = sorted((point for point in table if point.criterion == criterion and point.reached), key=_requested)
    for point in rows:
        excess = _requested(point) - value
        if abs(excess) < _CLOSE or (excess > 0 and criterion != "fixed"):
            return point
    if request is None:
        return None
    offered = ", ".join(f"{_requested(point):g}" for point in rows) or "none"
    raise PidflowError(
        f"{path}: no published working point of {pdg} has {criterion} {value:g}; take one that was reached ({offered})"
    )


def _requested(point: WorkingPoint) -> float:
    return 0.0 if point.requested is None else point.requested


def _checked(pdg: int, request: Mapping[str, float | None]) -> tuple[str, float]:
    """Return criterion and value of a request; the best F1 has no value, for which 0 stands."""
    criteria = get_args(Criterion)
    if len(request) != 1 or next(iter(request)) not in criteria:
        raise PidflowError(f"request for {pdg}: {dict(request)}; give exactly one of {', '.join(criteria)}")
    criterion, value = next(iter(request.items()))
    if criterion == "max_f1":
        return criterion, 0.0
    if value is None or not 0 < value <= 1:
        raise PidflowError(f"request for {pdg}: {criterion} = {value}; give a number above 0 and up to 1")
    return criterion, value
