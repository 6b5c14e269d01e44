"""The file of rates measured with tagged probes: its one schema."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from pidflow.evaluate.schema import Estimate


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HeadRate(_Part):
    """Share of probes whose certainty for one species reaches the threshold.

    Attributes
    ----------
    pdg
        PDG code of the certainty. For probes of both charges it is the unsigned one: each probe is asked for the
        species of its own charge.
    rate
        Efficiency if the species is the probes' own, else misidentification probability, after subtraction of the
        background, which can take it below 0 or above 1.
    error
        Half width of the interval at one standard deviation; null where the rate is undefined.
    """

    pdg: int
    rate: Estimate
    error: float | None


class ProbeBin(_Part):
    """Probes in one bin of transverse momentum, low ≤ pT < high, in GeV/c.

    Attributes
    ----------
    n_probes
        Legs in the signal windows of their decays.
    n_background
        Legs expected among them that the decays did not make, from the sidebands.
    """

    low: float
    high: float
    n_probes: int
    n_background: float
    heads: tuple[HeadRate, ...]


class ProbeSpecies(_Part):
    """Rates of the probes of one species, of one charge or of both.

    Attributes
    ----------
    pdg
        PDG codes of the probes, the unsigned one first where both charges are counted together.
    """

    pdg: tuple[int, ...]
    pt: tuple[ProbeBin, ...]


class ProbeRates(_Part):
    """Rates of one model on the tagged probes of one sample of one run.

    Attributes
    ----------
    confidence
        Coverage of the intervals.
    """

    run: int
    model: str
    sample: str
    threshold: float
    confidence: float
    probes: tuple[ProbeSpecies, ...]
