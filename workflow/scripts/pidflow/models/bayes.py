"""Bayesian PID: the TPC and TOF responses of the run, and priors found in the sample itself.

ALICE Collaboration, Eur. Phys. J. Plus 131 (2016) 168, arXiv:1602.01392.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from pidflow.blocks import Count, Fraction, Positive
from pidflow.models import base
from pidflow.models.base import Fitting, Floats
from pidflow.physics import SPECIES, charge_sign, species_of

if TYPE_CHECKING:
    from pidflow.models.base import Tracks

_RESPONSE_FILE = "response.json"
_COLUMNS = (
    "p", "pt", "sign", "tpc_signal", "tpc_inner_param", "tpc_n_cls_found",
    "tof_signal", "tof_event_time", "tof_exp_mom", "length",
)  # fmt: skip
_CHARGES = 3
"""Negative, unknown, positive."""

_ROWS_AT_A_TIME = 100_000


class Settings(base.ModelSettings):
    """Bayesian combination of TPC and TOF, with priors from the sample that is scored."""

    kind: Literal["bayes"] = "bayes"
    pt_edges: tuple[float, ...] = Field(
        (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0, 20.0),
        description="edges of the pT bins that have priors each, GeV/c; tracks outside count in the nearest",
        min_length=2,
    )
    iterations: Count = Field(50, description="most iterations of the priors, from equal ones")
    tolerance: Fraction = Field(0.001, description="largest change of a prior at which the iteration ends")
    range: Positive = Field(5.0, description="deviation in σ beyond which a likelihood no longer falls")

    @model_validator(mode="after")
    def _increasing(self) -> Self:
        if any(low >= high for low, high in zip(self.pt_edges, self.pt_edges[1:], strict=False)):
            raise ValueError("'pt_edges' must increase")
        return self


class Model(base.Model[Settings]):
    """Posterior of a species: prior times the likelihoods of TPC and TOF, over all of `pidflow.physics.SPECIES`.

    Attributes
    ----------
    priors
        float64 [bins of pT, negative/unknown/positive charge, species]; equal until `prepare` has seen the sample.

    Notes
    -----
    The likelihood of a detector is exp(−nσ²/2)/σ with the species' own σ, where |nσ| counts as at most
    ``range``; a detector that deviates by more from every species says nothing. Source: AliRoot
    ``STEER/STEERBase/AliPIDResponse.cxx``, ``GetComputeTPCProbability``. A prior is the mean posterior of
    the tracks of its bin in the sample, a fixed point of the iteration from equal priors. A track
    of the other charge gets 0, if charges are known; a track without a signal in both detectors, NaN.
    """

    Settings = Settings
    exported: ClassVar[bool] = False

    def __init__(self, info: Any, folder: str | Path, threads: int = 1) -> None:
        super().__init__(info, folder, threads)
        self.priors = np.full((len(self.settings.pt_edges) - 1, _CHARGES, len(SPECIES)), 1.0 / len(SPECIES))

    @classmethod
    def columns(cls, selected: Sequence[str], species: Sequence[int]) -> tuple[str, ...]:
        return _COLUMNS

    def fit(self, train: Tracks, validation: Tracks, fitting: Fitting) -> None:
        """Keep the run's response; no label is used but those that it was fitted to."""
        from pidflow.errors import PidflowError
        from pidflow.files import read_json, write_json

        if fitting.response is None:
            raise PidflowError(f"{self.folder}: the model needs the run's response; fit it first")
        write_json(self.folder / _RESPONSE_FILE, read_json(fitting.response))

    def prepare(self, dataset: str | Path) -> None:
        """Iterate the priors on all tracks of a dataset, none of whose labels is read."""
        from pidflow.parquet import batches, matrix

        with tempfile.TemporaryFile() as file:
            rows = 0
            for table in batches(dataset, _COLUMNS):
                features = matrix(table, _COLUMNS)
                likelihood, seen = self._likelihood(features)
                cells = self._cell(features).astype(np.float64)
                file.write(np.column_stack([cells, likelihood])[seen].tobytes())
                rows += int(seen.sum())
            file.flush()
            if rows:
                self._iterate(np.memmap(file, np.float64, "r", shape=(rows, 1 + len(SPECIES))))

    def _iterate(self, seen: NDArray[np.float64]) -> None:
        """Iterate the priors; a row holds a track's cell and its likelihoods."""
        cells = self.priors.shape[0] * _CHARGES
        number, change = 0, np.inf
        while number < self.settings.iterations and change >= self.settings.tolerance:
            count, total = np.zeros(cells), np.zeros((cells, len(SPECIES)))
            flat = self.priors.reshape(cells, -1)
            for first in range(0, len(seen), _ROWS_AT_A_TIME):
                rows = seen[first : first + _ROWS_AT_A_TIME]
                cell = rows[:, 0].astype(np.intp)
                posterior = _normalised(rows[:, 1:] * flat[cell])
                count += np.bincount(cell, minlength=cells)
                for species in range(len(SPECIES)):
                    total[:, species] += np.bincount(cell, posterior[:, species], cells)
            updated = np.where(count[:, None] > 0, total / np.maximum(count, 1.0)[:, None], flat)
            number, change = number + 1, float(np.abs(updated - flat).max())
            self.priors = updated.reshape(self.priors.shape)
        print(
            f"run {self.info.run} {self.info.kind}: priors of {len(seen):,} tracks after {number} iterations, "
            f"largest change {change:.1e}",
            flush=True,
        )

    def score(self, features: Floats) -> Floats:
        likelihood, seen = self._likelihood(features)
        prior = self.priors.reshape(-1, len(SPECIES))[self._cell(features)]
        posterior = _normalised(likelihood * prior)
        sign = self._column(features, "sign")
        certainties = []
        for pdg in self.info.species:
            own = posterior[:, SPECIES.index(species_of(pdg))]
            certainties.append(np.where(sign * charge_sign(pdg) < 0, 0.0, own))
        certainty = np.stack(certainties, axis=1)
        certainty[~seen] = np.nan
        return certainty.astype(np.float32)

    @cached_property
    def _response(self) -> Any:
        from pidflow.dataset.response import read_response

        return read_response(self.folder / _RESPONSE_FILE)

    def _column(self, features: Floats, name: str) -> NDArray[np.float64]:
        return features[:, _COLUMNS.index(name)].astype(np.float64)

    def _cell(self, features: Floats) -> NDArray[np.intp]:
        """Return the number of each track's prior: bin of pT, then charge, [n]."""
        pt_bin = np.digitize(self._column(features, "pt"), self.settings.pt_edges[1:-1])
        charge = np.sign(np.nan_to_num(self._column(features, "sign"))).astype(np.intp)
        cell: NDArray[np.intp] = pt_bin * _CHARGES + charge + 1
        return cell

    def _likelihood(self, features: Floats) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return the likelihood of each species up to a common factor, [n, species], and who has a signal, [n]."""
        column = {name: self._column(features, name) for name in _COLUMNS}
        wall = np.where(np.isnan(column["tpc_inner_param"]), column["p"], column["tpc_inner_param"])
        flight = column["tof_signal"] - column["tof_event_time"]
        length, momentum = column["length"], column["tof_exp_mom"]
        tpc, tof = self._response.tpc, self._response.tof
        log = np.zeros((len(features), len(SPECIES)))
        seen = np.zeros(len(features), dtype=bool)
        if tpc is not None:
            deviation, sigma = [], []
            for species in SPECIES:
                expected = tpc.signal(wall, species.mass)
                sigma.append(tpc.sigma(expected, column["tpc_n_cls_found"]))
                deviation.append((column["tpc_signal"] - expected) / sigma[-1])
            seen |= self._add(log, np.stack(deviation, axis=1), np.stack(sigma, axis=1))
        if tof is not None:
            deviation = [tof.n_sigma(flight, length, momentum, species.mass) for species in SPECIES]
            sigma = [tof.sigma(length, momentum, species.mass) for species in SPECIES]
            seen |= self._add(log, np.stack(deviation, axis=1), np.stack(sigma, axis=1))
        return np.exp(log - log.max(axis=1, keepdims=True)), seen

    def _add(
        self, log: NDArray[np.float64], deviation: NDArray[np.float64], sigma: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """Add a detector's logarithmic likelihood where it has a signal, and return where, [n]."""
        seen = np.asarray(np.isfinite(deviation).all(axis=1))
        size = np.abs(deviation)
        used = seen & (size <= self.settings.range).any(axis=1)
        log[used] -= 0.5 * np.minimum(size[used], self.settings.range) ** 2 + np.log(sigma[used])
        return seen


def _normalised(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    total = weights.sum(axis=1, keepdims=True)
    # a species' prior can vanish; no likelihood does
    return np.asarray(weights / np.maximum(total, np.finfo(np.float64).tiny))
