"""How pure the legs of V0 candidates are, told from the mass spectra alone."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.special import gammaincinv

from pidflow.config.v0 import V0Cuts
from pidflow.files import write_json
from pidflow.v0s import KINDS, Kind

CONFIDENCE = math.erf(math.sqrt(0.5))
"""One standard deviation."""

_FEWEST_FOR_A_PEAK = 10
_COLUMNS = ("kind", "region", "leg_pdg_code", "mass", "alpha", "qt")


@dataclass(frozen=True)
class Spectrum:
    """Candidates of one kind.

    Attributes
    ----------
    kind
        The decay.
    mass, alpha, qt
        Of each candidate, GeV/c² and GeV/c, float64 [n].
    signal, sideband
        Region of each candidate, bool [n].
    """

    kind: Kind
    mass: NDArray[np.float64]
    alpha: NDArray[np.float64]
    qt: NDArray[np.float64]
    signal: NDArray[np.bool_]
    sideband: NDArray[np.bool_]


def read_spectra(tables: Iterable[str | Path]) -> list[Spectrum]:
    """Return the candidates of V0 tables, one entry for each of `pidflow.v0s.KINDS`.

    Parameters
    ----------
    tables
        Parquet files of the V0 schema.
    """
    parts = [pq.read_table(path, columns=list(_COLUMNS)) for path in tables]
    return [_spectrum(kind, pa.concat_tables(parts)) for kind in KINDS]


def _spectrum(kind: Kind, table: pa.Table) -> Spectrum:
    # one row of the two that each candidate has
    own = pc.and_(pc.equal(table["kind"], kind.key), pc.equal(table["leg_pdg_code"], kind.positive))
    table = table.filter(own)
    mass, alpha, qt = (table[name].cast(pa.float64()).to_numpy() for name in ("mass", "alpha", "qt"))
    signal, sideband = (pc.equal(table["region"], name).to_numpy() for name in ("signal", "sideband"))
    return Spectrum(kind, mass, alpha, qt, signal, sideband)


def summarise(spectra: Iterable[Spectrum], cuts: V0Cuts) -> dict[str, Any]:
    """Return candidates, background, purity and mass peak of each kind, and the purity of each species' legs.

    Parameters
    ----------
    spectra
        What `read_spectra` gave.
    cuts
        The cuts that the tables were made with.

    Returns
    -------
    dict
        Of numbers, strings and None alone. ``kinds`` by key: the count in the signal window and in
        each sideband, ``background`` in the window and ``purity`` as value, low and high at one
        standard deviation, and ``peak``. ``species`` by PDG code: legs, background and purity summed
        over the kinds. An estimate of no candidates is None.

    Notes
    -----
    The background per GeV/c² is the mean of two sidebands of equal width on both sides of the peak,
    which is exact for one that is linear in mass. Photons have no lower side: there the background
    per GeV/c² of the one sideband is taken to reach down to the peak. The error has three parts: the
    counts in the sidebands (exact Poisson interval, F. Garwood, Biometrika 28 (1936) 437), the
    fluctuation of the background inside the window, and a systematic uncertainty: for two sidebands
    the half difference of what either alone would give, as far as it exceeds its own fluctuation;
    for photons the estimate itself, because among pairs that are parallel by chance those with a
    small opening angle point back more often, so that their spectrum rises towards the peak by a
    factor of about two over the sideband in the example production.

    A background pair may contain a leg of the right species, so the purity is a lower limit for legs.
    Decays of the right kind whose legs were interchanged in the reconstruction are not told apart.
    """
    kinds: dict[str, Any] = {}
    species: dict[int, list[_Count]] = {}
    for spectrum in spectra:
        count = _count(spectrum, cuts)
        kinds[spectrum.kind.key] = {
            "legs": [spectrum.kind.positive, spectrum.kind.negative],
            "signal": count.signal,
            "sidebands": list(count.sides),
            "background": count.background(),
            "background_systematic": count.systematic,
            "purity": _purity([count]),
            "peak": _peak(spectrum.mass[spectrum.signal]),
        }
        for leg in (spectrum.kind.positive, spectrum.kind.negative):
            species.setdefault(leg, []).append(count)
    legs = {
        str(pdg): {
            "tracks": sum(count.signal for count in counts),
            "background": sum(count.expected for count in counts),
            "purity": _purity(counts),
        }
        for pdg, counts in sorted(species.items())
    }
    return {"confidence": CONFIDENCE, "kinds": kinds, "species": legs}


@dataclass(frozen=True)
class _Count:
    """Counts of one kind.

    Attributes
    ----------
    signal, sides
        Candidates in the window, and in the two sidebands or halves of the sideband.
    scale
        Width of the window over that of the sidebands together.
    one_sided
        Whether the sides are halves of one sideband.
    """

    signal: int
    sides: tuple[int, int]
    scale: float
    one_sided: bool

    @property
    def expected(self) -> float:
        return self.scale * sum(self.sides)

    @property
    def systematic(self) -> float:
        if self.one_sided:
            return self.expected
        return self.scale * math.sqrt(max((self.sides[0] - self.sides[1]) ** 2 - sum(self.sides), 0))

    def errors(self) -> tuple[float, float]:
        """Return the distances of the background's bounds from its value."""
        low, high = (self.scale * bound for bound in _garwood(sum(self.sides)))
        other = self.expected + self.systematic**2
        down = math.sqrt((self.expected - low) ** 2 + other)
        return min(down, self.expected), math.sqrt((high - self.expected) ** 2 + other)

    def background(self) -> dict[str, float]:
        down, up = self.errors()
        return {"value": self.expected, "low": self.expected - down, "high": self.expected + up}


def _count(spectrum: Spectrum, cuts: V0Cuts) -> _Count:
    windows = cuts.windows(spectrum.kind.key)
    distance = spectrum.mass[spectrum.sideband] - spectrum.kind.mass
    width = windows.sideband_to - windows.sideband_from
    one_sided = spectrum.kind.mass == 0
    middle = 0.5 * (windows.sideband_from + windows.sideband_to) if one_sided else 0.0
    lower = int(np.sum(distance < middle))
    return _Count(int(spectrum.signal.sum()), (lower, len(distance) - lower), windows.signal / width, one_sided)


def _garwood(count: int) -> tuple[float, float]:
    """Return the exact central interval of a Poisson mean."""
    tail = 0.5 * (1.0 - CONFIDENCE)
    low = float(gammaincinv(count, tail)) if count else 0.0
    return low, float(gammaincinv(count + 1, 1.0 - tail))


def _purity(counts: list[_Count]) -> dict[str, float] | None:
    total = sum(count.signal for count in counts)
    if total == 0:
        return None
    background = sum(count.expected for count in counts)
    down, up = (math.hypot(*side) for side in zip(*(count.errors() for count in counts), strict=True))
    value, low, high = (1.0 - b / total for b in (background, background + up, background - down))
    return {"value": min(max(value, 0.0), 1.0), "low": max(low, 0.0), "high": min(max(high, 0.0), 1.0)}


def _peak(mass: NDArray[np.float64]) -> dict[str, float] | None:
    """Return the median and half the central 68.3 % of the masses in the window, GeV/c²; errors for a Gaussian."""
    n = len(mass)
    if n < _FEWEST_FOR_A_PEAK:
        return None
    low, median, high = np.quantile(mass, [0.5 - 0.5 * CONFIDENCE, 0.5, 0.5 + 0.5 * CONFIDENCE])
    width = 0.5 * float(high - low)
    return {
        "position": float(median),
        "position_error": math.sqrt(math.pi / 2) * width / math.sqrt(n),
        "width": width,
        "width_error": 0.96 * width / math.sqrt(n),
    }


def write_summary(tables: Iterable[str | Path], output: str | Path, *, cuts: V0Cuts) -> dict[str, Any]:
    """Summarise V0 tables into a JSON file and return its content; arguments as of `summarise`."""
    summary = summarise(read_spectra(tables), cuts)
    write_json(output, summary)
    return summary
