"""Weighted average of other models of the run, with the weights that describe validation tracks best."""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from pidflow.errors import PidflowError
from pidflow.models.base import Fitting, Floats, ModelSettings, Tracks
from pidflow.models.members import Members

_SMALL = 1e-7
_LEAST = 0.01


class Settings(ModelSettings):
    """Weighted average of other models."""

    kind: Literal["blend"] = "blend"
    members: tuple[str, ...] = Field(("fse", "gbdt"), description="names of the models that it averages", min_length=2)

    @model_validator(mode="after")
    def _different(self) -> Self:
        if len(set(self.members)) != len(self.members):
            raise ValueError("'members' names a model twice")
        return self

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of other models of the run that must be fitted first."""
        return self.members


def best_weights(
    certainty: NDArray[np.float64], labels: NDArray[np.float64], tracks: NDArray[np.float32] | None = None
) -> NDArray[np.float64]:
    """Return the weights [M], none negative and of sum 1, whose average of certainties [M, N] has the least log loss.

    `tracks` tells how much each track counts, [N]; None: all the same.

    Expectation maximisation for the shares of a mixture of M known distributions; it rises at each step.
    Weights below one per cent are left out.
    """
    likelihood = np.where(labels > 0, certainty, 1.0 - certainty).clip(_SMALL)
    weights = np.full(len(certainty), 1.0 / len(certainty))
    for _ in range(500):
        part = weights[:, None] * likelihood
        following = np.average(part / part.sum(axis=0), axis=1, weights=tracks)
        done = np.abs(following - weights).max() < 1e-6
        weights = following
        if done:
            break
    weights[weights < _LEAST] = 0.0
    shares: NDArray[np.float64] = weights / weights.sum()
    return shares


class Model(Members[Settings]):
    """Average of models that were trained apart."""

    Settings = Settings

    def fit(self, train: Tracks, validation: Tracks, fitting: Fitting) -> None:
        """Copy the members and weigh them, species by species, by validation tracks."""
        from pidflow.models import load

        scores: list[Floats] = []
        for name, folder in fitting.needed.items():
            member = load(folder, fitting.threads)
            if member.info.features != self.info.features or not member.exported:
                raise PidflowError(
                    f"{folder}: the model '{name}' reads other columns than the selected features, so it cannot be "
                    "averaged; remove it from 'members'"
                )
            self.take(name, folder)
            scores.append(member.score(validation.features))
            if np.isnan(scores[-1]).any():
                raise PidflowError(f"{folder}: '{name}' does not score every track; remove it from 'members'")
        certainty = np.stack(scores).astype(np.float64)
        labels = validation.labels.astype(np.float64)
        species = range(len(self.info.species))
        weights = np.stack(
            [best_weights(certainty[:, :, n], labels[:, n], validation.weights) for n in species], axis=1
        )
        self.write(dict(zip(fitting.needed, weights, strict=True)))
        shown = ", ".join(f"{name} {row.mean():.2f}" for name, row in zip(fitting.needed, weights, strict=True))
        print(f"run {self.info.run} {self.folder.name}: mean weights {shown}", flush=True)
