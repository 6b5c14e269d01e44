"""The V0 table: legs of weak decays and photon conversions, tagged by the decay's topology alone.

A row is a track that is one leg of a candidate; its identity is that of the track table. Nothing in
the selection looks at the leg's own particle identification, so the legs of the signal region are
pions, protons and electrons with known purity, in data as in simulation.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from pidflow.tracks import BY_NAME, MISSING_NEVER, ROW_ID, Column

_F, _I32 = pa.float32(), pa.int32()


@dataclass(frozen=True)
class Kind:
    """A decay into two charged particles.

    Attributes
    ----------
    key
        Name in the table.
    mass
        GeV/c²; Particle Data Group, Phys. Rev. D 110 (2024) 030001.
    positive, negative
        PDG codes of the legs.
    symbol
        For plots, in matplotlib's mathtext.
    """

    key: str
    mass: float
    positive: int
    negative: int
    symbol: str


KINDS = (
    Kind("k0s", 0.497611, 211, -211, r"$\mathrm{K}^{0}_{\mathrm{S}} \to \pi^{+}\pi^{-}$"),
    Kind("lambda", 1.115683, 2212, -211, r"$\Lambda \to \mathrm{p}\pi^{-}$"),
    Kind("antilambda", 1.115683, 211, -2212, r"$\overline{\Lambda} \to \overline{\mathrm{p}}\pi^{+}$"),
    Kind("gamma", 0.0, -11, 11, r"$\gamma \to \mathrm{e}^{+}\mathrm{e}^{-}$"),
)

REGIONS = ("signal", "sideband", "other")
"""Where in the mass spectrum a candidate lies."""


def _column(name: str, dtype: pa.DataType, unit: str, doc: str) -> Column:
    return Column(name, dtype, unit, "id", MISSING_NEVER, None, doc)


COLUMNS: tuple[Column, ...] = (
    *(BY_NAME[name] for name in (*ROW_ID, "run", "collision_id")),
    _column("v0", _I32, "", "number of the candidate in the data frame; its two legs share it"),
    _column("kind", pa.string(), "", "decay: " + ", ".join(kind.key for kind in KINDS)),
    _column("region", pa.string(), "", "part of the mass spectrum: " + ", ".join(REGIONS)),
    _column("leg_pdg_code", _I32, "", "PDG code that the decay gives to this leg"),
    _column("mass", _F, "GeV/c²", "invariant mass under the decay's hypothesis"),
    _column("v0_pt", _F, "GeV/c", "transverse momentum of the candidate"),
    _column("radius", _F, "cm", "transverse distance of the decay from the collision"),
    _column("cos_pointing", _F, "", "cosine of the angle between momentum and flight (cosPA)"),
    _column("dca_daughters", _F, "cm", "distance of the legs at their closest approach"),
    _column("alpha", _F, "", "Armenteros–Podolanski asymmetry of the legs' momenta along the candidate's"),
    _column("qt", _F, "GeV/c", "Armenteros–Podolanski momentum of a leg across the candidate's"),
)


def schema() -> pa.Schema:
    """Return the Arrow schema of a V0 table."""
    return pa.schema([pa.field(column.name, column.dtype) for column in COLUMNS])
