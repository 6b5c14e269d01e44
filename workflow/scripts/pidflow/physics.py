"""Physical constants and the particle species that the detectors can tell apart.

Masses are those of the Particle Data Group, Phys. Rev. D 110 (2024) 030001.
"""

from dataclasses import dataclass

C_CM_PER_PS = 0.0299792458
"""Speed of light in cm/ps (exact)."""

CURVATURE_PER_KG = -0.299792458e-3
"""Curvature in 1/cm of a track with q/pT = 1 e/(GeV/c) in a field of 1 kG along z.

The sign is O2's: a positive charge in a positive field turns clockwise
(``B2C`` in AliceO2 ``Common/Constants/include/CommonConstants/PhysicsConstants.h``).
"""


@dataclass(frozen=True)
class Species:
    """A charged species.

    Attributes
    ----------
    key
        O2's two-letter short name, lower case (``el pi ka pr de``).
    pdg
        Code of the positive-numbered member of the pair (11 is the electron).
    mass
        In GeV/c².
    symbol
        For plots, in matplotlib's mathtext, without charge.
    """

    key: str
    pdg: int
    mass: float
    symbol: str


SPECIES = (
    Species("el", 11, 0.51099895e-3, r"\mathrm{e}"),
    Species("pi", 211, 0.13957039, r"\pi"),
    Species("ka", 321, 0.493677, r"\mathrm{K}"),
    Species("pr", 2212, 0.93827209, r"\mathrm{p}"),
    Species("de", 1000010020, 1.87561294, r"\mathrm{d}"),
)

BY_PDG = {species.pdg: species for species in SPECIES}


def species_of(pdg: int) -> Species:
    """Return the species of a signed PDG code; raise `KeyError` if the detectors have none such."""
    return BY_PDG[abs(pdg)]


def charge_sign(pdg: int) -> int:
    """Return the sign of the charge of a species' PDG code (the electron, 11, is negative)."""
    sign = 1 if pdg > 0 else -1
    return -sign if abs(pdg) == 11 else sign


def symbol(pdg: int, signed: bool = True) -> str:
    """Return a mathtext label such as ``$\\pi^{+}$``; without the charge where data has none.

    Baryons carry a bar for the antiparticle instead of the charge, as usual in the field.
    """
    species = species_of(pdg)
    if not signed:
        return f"${species.symbol}$"
    if species.key in ("pr", "de"):
        return f"${species.symbol}$" if pdg > 0 else rf"$\overline{{{species.symbol}}}$"
    return f"${species.symbol}^{{{'+' if charge_sign(pdg) > 0 else '-'}}}$"


def object_key(pdg: int) -> str:
    """Return the species' suffix in published object names: 211 → ``211``, -211 → ``0211``.

    Source: O2Physics ``Tools/PIDML/pidOnnxInterface.h`` (labels of the working-point table).
    """
    return str(pdg) if pdg > 0 else f"0{-pdg}"
