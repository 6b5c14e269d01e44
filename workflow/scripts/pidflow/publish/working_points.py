"""The table of working points that lies beside a published model: what each threshold is good for."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from pidflow.errors import PidflowError
from pidflow.publish.registry import Entry, read_document

TABLE_FILE = "working_points.csv"

Criterion = Literal["max_f1", "purity", "efficiency", "fixed"]

_EMPTY = BeforeValidator(lambda text: None if text == "" else text)
_Number = Annotated[Annotated[float, Field(allow_inf_nan=False)] | None, _EMPTY]
_Certainty = Annotated[Annotated[float, Field(ge=0, le=1)] | None, _EMPTY]


class WorkingPoint(BaseModel):
    """One row of ``working_points.csv``; an empty field is null.

    Attributes
    ----------
    pdg
        Signed PDG code of the species.
    criterion
        What the threshold was sought for: the best F1, a purity, an efficiency; or it was fixed beforehand.
    requested
        The purity, efficiency or threshold asked for; null for the best F1.
    threshold
        Certainty from which a track is accepted.
    purity, efficiency, f1
        Rates of the test tracks at the threshold, the first two with the bounds of their intervals.
    reached
        Whether the validation tracks have such a threshold; the test tracks may miss the request within the errors.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    pdg: int
    criterion: Criterion
    requested: _Number
    threshold: _Certainty
    purity: _Number
    purity_low: _Number
    purity_high: _Number
    efficiency: _Number
    efficiency_low: _Number
    efficiency_high: _Number
    f1: _Number
    reached: bool

    def __str__(self) -> str:
        """Return species, criterion and what was asked for, which name the row within its table."""
        return f"{self.pdg} {self.criterion}" + ("" if self.requested is None else f" {self.requested:g}")


def read_working_points(registry: str | Path, entry: Entry) -> list[WorkingPoint]:
    """Read the table of a publication.

    Raises
    ------
    PidflowError
        If the publication has none, or a line does not fit; line and column are named.
    """
    text = read_document(registry, entry, TABLE_FILE).decode()
    found: list[WorkingPoint] = []
    for number, row in enumerate(csv.DictReader(io.StringIO(text)), 2):
        try:
            point = WorkingPoint.model_validate(row)
        except ValidationError as error:
            column = ".".join(str(part) for part in error.errors()[0]["loc"][:1])
            raise PidflowError(
                f"{entry.path}: {TABLE_FILE}, line {number}: column '{column}' does not fit; publish the run again"
            ) from None
        if point.reached and point.threshold is None:
            raise PidflowError(
                f"{entry.path}: {TABLE_FILE}, line {number}: reached, but without threshold; publish the run again"
            )
        found.append(point)
    return found
