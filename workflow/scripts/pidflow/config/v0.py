"""Settings of the search for weak decays and photon conversions."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[float, Field(gt=0)]

_SIGNAL = "half width of the signal window around the nominal mass, GeV/c²"
_FROM = "inner edge of the sidebands, as distance from the nominal mass, GeV/c²"
_TO = "outer edge of the sidebands, GeV/c²"


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class MassWindows(_Block):
    """Parts of the mass spectrum of a decay."""

    signal: Positive
    sideband_from: Positive
    sideband_to: Positive

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.signal <= self.sideband_from < self.sideband_to:
            raise ValueError("needs signal ≤ sideband_from < sideband_to")
        return self


class K0sWindows(MassWindows):
    """Parts of the mass spectrum of K⁰_S."""

    signal: Positive = Field(0.012, description=_SIGNAL)
    sideband_from: Positive = Field(0.020, description=_FROM)
    sideband_to: Positive = Field(0.032, description=_TO)


class LambdaWindows(MassWindows):
    """Parts of the mass spectrum of Λ and anti-Λ."""

    signal: Positive = Field(0.004, description=_SIGNAL)
    sideband_from: Positive = Field(0.0065, description=_FROM)
    sideband_to: Positive = Field(0.0105, description=_TO)


class PhotonWindows(MassWindows):
    """Parts of the mass spectrum of photons, which has one side."""

    signal: Positive = Field(0.010, description="upper edge of the signal window, GeV/c²")
    sideband_from: Positive = Field(0.015, description="lower edge of the sideband, GeV/c²")
    sideband_to: Positive = Field(0.045, description="upper edge of the sideband, GeV/c²")


class V0Cuts(_Block):
    """Topology of V0 candidates; no cut looks at the particle identification of a leg."""

    dca_xy_min: float = Field(0.05, ge=0, description="least |transverse impact parameter| of a leg, cm")
    dca_daughters_max: Positive = Field(0.3, description="largest distance of the legs of K⁰_S and Λ, cm")
    conversion_gap_max: Positive = Field(
        1.0, description="largest distance of a photon's legs where they are parallel, across and along the beam, cm"
    )
    cos_pointing_min: float = Field(0.998, ge=-1, lt=1, description="least cosine of the pointing angle")
    radius_min: float = Field(0.5, ge=0, description="least transverse distance of a decay from the collision, cm")
    conversion_radius_min: float = Field(1.5, ge=0, description="the same of a photon conversion, cm")
    radius_max: Positive = Field(83.0, description="largest transverse distance of a decay from the collision, cm")
    beyond_innermost_max: Positive = Field(
        1.0, description="how far a decay may lie beyond the innermost cluster of a leg, cm; twice that for photons"
    )
    k0s: K0sWindows = Field(default_factory=K0sWindows, description="mass windows of K⁰_S")
    hyperon: LambdaWindows = Field(default_factory=LambdaWindows, description="mass windows of Λ and anti-Λ")
    gamma: PhotonWindows = Field(default_factory=PhotonWindows, description="mass windows of photons")

    def windows(self, kind: str) -> MassWindows:
        """Return the windows of a kind of `pidflow.v0s.KINDS`."""
        if kind == "k0s":
            return self.k0s
        return self.gamma if kind == "gamma" else self.hyperon
