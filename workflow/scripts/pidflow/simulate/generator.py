"""Proton-proton collisions at 13 TeV from the generators that chromo wraps.

Simulation comes from Pythia 6.4 (T. Sjöstrand, S. Mrenna, P. Skands, JHEP 05 (2006) 026),
pseudo-data from Sibyll 2.3e (F. Riehn et al., Phys. Rev. D 102 (2020) 063002), so that spectra
and composition differ between the two.
"""

from __future__ import annotations

import os
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pidflow.simulate.helix import Floats
from pidflow.simulate.particles import PHYSICAL_PRIMARY, Particles

Sample = Literal["simulation", "data"]

ENERGY_TEV = 13.0
ETA_MAX = 1.5
"""Final particles beyond cannot leave a track in the central barrel."""

BEAM_SPOT_CM = (0.005, 0.005, 5.0)
"""Spread of the collision vertex (chosen for the example, as in Run 3 pp)."""

COLLISION_TIME_PS = 200.0
"""Spread of the collision time within the bunch crossing (chosen for the example)."""


class EventGenerator:
    """A source of collisions.

    The generators keep their state in Fortran common blocks, so a process can hold one of each.

    Parameters
    ----------
    sample
        Chooses the generator.
    seed
        Below 10⁹.
    """

    def __init__(self, sample: Sample, seed: int) -> None:
        # the generators' banners would otherwise wait in Fortran's buffer until the process ends, after a job's log
        os.environ.setdefault("GFORTRAN_UNBUFFERED_PRECONNECTED", "y")
        from chromo.kinematics import CenterOfMass, TeV
        from chromo.models import Pythia6, Sibyll23e

        model = Pythia6 if sample == "simulation" else Sibyll23e
        self._model = model(CenterOfMass(ENERGY_TEV * TeV, "p", "p"), seed=seed)

    def take(self, events: int, rng: np.random.Generator) -> tuple[Particles, Floats]:
        """Generate collisions and place them in the interaction region.

        Parameters
        ----------
        events
            How many.
        rng
            Draws the vertices.

        Returns
        -------
        particles
            Final particles within `ETA_MAX` and all decayed hadrons and leptons, which may be mothers.
        vertices
            (4, events): x, y, z in cm and the time in ps.
        """
        vertices = rng.normal(size=(4, events)) * np.array([*BEAM_SPOT_CM, COLLISION_TIME_PS])[:, None]
        rows: dict[str, list[NDArray[Any]]] = {"event": [], "pdg": [], "mother": [], "four": [], "status": []}
        offset = 0
        for number, event in enumerate(self._model(events)):
            pdg, mothers, final = event.pid, event.mothers[:, 0], event.status == 1
            central = np.abs(event.pz) < np.sinh(ETA_MAX) * np.hypot(event.px, event.py)
            index = np.flatnonzero(_is_particle(pdg) & (event.status <= 2) & (central | ~final))
            position = np.full(len(pdg) + 1, -1, dtype=np.int64)
            position[index] = np.arange(offset, offset + len(index))
            mother = position[np.clip(mothers[index], -1, len(pdg) - 1)]
            rows["event"].append(np.full(len(index), number, dtype=np.int32))
            rows["pdg"].append(pdg[index].astype(np.int32))
            rows["mother"].append(mother)
            rows["four"].append(np.stack([event.px[index], event.py[index], event.pz[index], event.en[index]]))
            rows["status"].append(event.status[index].astype(np.int32))
            offset += len(index)
        event_of = np.concatenate(rows["event"])
        status = np.concatenate(rows["status"])
        four = np.concatenate(rows["four"], axis=1)
        particles = Particles(
            event=event_of,
            pdg=np.concatenate(rows["pdg"]),
            mother=np.concatenate(rows["mother"]),
            momentum=four[:3],
            energy=four[3],
            position=vertices[:3, event_of],
            time=vertices[3, event_of],
            flags=np.where(status == 1, PHYSICAL_PRIMARY, 0).astype(np.uint8),
            status=status,
            flight=np.full(len(status), np.inf),
        )
        return particles, vertices


def _is_particle(pdg: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Tell leptons, photons and hadrons from partons, diquarks, strings and diffractive systems."""
    code = np.abs(pdg)
    lepton = (code >= 11) & (code <= 16)
    hadron = (code > 100) & (code < 9_900_000) & ((code // 10) % 10 != 0)
    particle: NDArray[np.bool_] = lepton | (code == 22) | hadron
    return particle
