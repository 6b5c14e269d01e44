"""Tracks thinned out until given variables are distributed alike for all species.

Where tracks were tagged by topology or by other detectors, their kinematics and quality tell how a
track was tagged. On the thinned tracks they tell nothing, so what a method still separates there it
separates by the signals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pidflow.errors import PidflowError

_SIGNIFICANT = 1.36
"""Kolmogorov–Smirnov distance, in units of its spread, that species alike exceed in 5 % of cases."""

_CUTS = 33
"""Places at which a cell may be divided, per variable: quantiles of its tracks."""


@dataclass(frozen=True)
class Thinned:
    """Tracks kept of a table.

    Attributes
    ----------
    mask
        Shape (n_tracks,).
    kept
        Share of the tracks kept, by PDG code.
    """

    mask: NDArray[np.bool_]
    kept: dict[int, float]


def equalised(columns: pa.Table, species: Sequence[int], variables: Sequence[str], seed: int) -> Thinned:
    """Thin out tracks until the joint distribution of variables is the same for all species.

    The space of the variables is divided into cells, each where two species differ most in one
    variable (largest Kolmogorov–Smirnov distance; N. Smirnov, Ann. Math. Stat. 19 (1948) 279), until
    no two species in a cell differ significantly. In each cell a track is kept with probability
    min f / f of its own species, f being a species' share of its tracks in the cell (rejection:
    J. von Neumann, NBS Appl. Math. Ser. 12 (1951) 36), so that of every species the overlap Σ min f
    is kept. Cells that lack a species drop out, as do tracks of no species and those for which a
    variable is null.

    Parameters
    ----------
    columns
        Table with the variables and ``pdg_code``.
    species
        PDG codes; species without tracks are left aside.
    variables
        Columns to equalise.
    seed
        Seed of the draws.

    Raises
    ------
    PidflowError
        If a column is absent, or no track is left.
    """
    for name in ("pdg_code", *variables):
        if name not in columns.column_names:
            raise PidflowError(f"there is no column '{name}' to equalise the species in; name a column of the dataset")
    values = np.stack([columns[name].cast(pa.float64()).to_numpy() for name in variables])
    code = pc.fill_null(columns["pdg_code"].cast(pa.int64()), 0).to_numpy()
    present = [pdg for pdg in species if (code == pdg).any()]
    totals = np.array([(code == pdg).sum() for pdg in present])
    kind = np.select([code == pdg for pdg in present], range(len(present)), -1)

    keep = np.zeros(code.size)
    pending = [np.flatnonzero((kind >= 0) & ~np.isnan(values).any(axis=0))]
    while pending:
        cell = pending.pop()
        numbers = np.bincount(kind[cell], minlength=totals.size)
        if not numbers.all():
            continue
        half = _divide(values[:, cell], kind[cell], numbers)
        if half is None:
            share = numbers / totals
            keep[cell] = share.min() / share[kind[cell]]
        else:
            pending += [cell[half], cell[~half]]
    mask = np.random.default_rng([seed, code.size]).random(code.size) < keep
    if not mask.any():
        raise PidflowError(
            f"the species have no common range of {', '.join(variables)}; equalise in fewer variables, or leave it out"
        )
    return Thinned(mask, {pdg: float(mask[code == pdg].mean()) for pdg in present})


def _divide(values: NDArray[np.float64], kind: NDArray[np.intp], numbers: NDArray[np.intp]) -> NDArray[np.bool_] | None:
    """Return which tracks of a cell lie below its best cut; None if the species do not differ.

    Parameters
    ----------
    values
        Shape (n_variables, n_tracks).
    kind
        Shape (n_tracks,): index of the species.
    numbers
        Shape (n_species,): tracks of each.
    """
    # spread of the distance between two species' shares below a cut
    pairs = np.sqrt(1.0 / numbers[:, None] + 1.0 / numbers)
    half, largest = None, _SIGNIFICANT
    for value in values:
        cuts = np.unique(np.quantile(value, np.linspace(0.0, 1.0, _CUTS + 2)[1:-1]))
        below = np.stack([np.searchsorted(np.sort(value[kind == i]), cuts) for i in range(numbers.size)])
        shares = below / numbers[:, None]
        distance = (np.abs(shares[:, None] - shares) / pairs[..., None]).max(axis=(0, 1))
        if distance.max() > largest:
            half, largest = value < cuts[distance.argmax()], float(distance.max())
    return half
