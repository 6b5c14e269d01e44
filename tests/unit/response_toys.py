"""Toys of one signal, with known gain, tilt and resolution, for the tests of the response calibration."""

import numpy as np

from pidflow.adapt.response.cells import GROUPS, MASSES
from pidflow.adapt.response.signals import Signal
from pidflow.physics import C_CM_PER_PS

MASS = np.array(MASSES)
SIMULATED = (0.08, 0.62, 0.15, 0.12, 0.03)
MEASURED = (0.05, 0.54, 0.26, 0.12, 0.03)
TERMS = ("1", "eta", "ln p")

GAIN = Signal(
    "gain", "tpc_signal", ("tpc_signal",), lambda c, mass: 50.0 * loss(c, mass), lambda c: np.ones(len(c["p"])),
    logarithmic=True, relative_noise=False, identifies=True, unit="", terms=TERMS,
)  # fmt: skip
TIME = Signal(
    "time", "tof_signal", ("tof_signal", "length"), lambda c, mass: flight(c, mass), lambda c: np.ones(len(c["p"])),
    logarithmic=False, relative_noise=False, identifies=True, unit="ps", terms=TERMS,
)  # fmt: skip
SIGNALS = {signal.name: signal for signal in (GAIN, TIME)}
WIDTH = {"gain": 0.07, "time": 80.0}
PLANTED = {"gain": (0.05, 0.03, 1.4), "time": (40.0, -20.0, 1.5)}
"""Offset, its slope in η, and squared scale of the resolution."""


def flight(columns, mass):
    """Return the time that particles of masses take, ps."""
    return columns["length"] * np.sqrt(1.0 + (mass / columns["p"]) ** 2) / C_CM_PER_PS


def loss(columns, mass):
    """Return the energy loss of particles of masses in units of the smallest."""
    return np.where(np.less(mass, 0.1), 1.57, (1.0 + 0.6 * (mass / columns["p"]) ** 1.7) ** 0.9)


def toy(kind, n, shares, seed, offset=0.0, slope=0.0, scale2=1.0):
    """Return tracks of one signal, and their groups."""
    rng = np.random.default_rng(seed)
    group = rng.choice(len(GROUPS), n, p=shares)
    columns = {
        "p": np.exp(rng.uniform(np.log(0.3), np.log(2.0), n)),
        "eta": rng.uniform(-0.8, 0.8, n),
        "sign": rng.choice([-1.0, 1.0], n),
        "tpc_n_cls_found": np.full(n, 140.0),
        "has_trd": np.zeros(n),
        "has_tof": (rng.random(n) < 0.7).astype(float),
    }
    distance = WIDTH[kind] * np.sqrt(scale2) * rng.normal(size=n) + offset + slope * columns["eta"]
    if kind == "gain":
        columns["tpc_signal"] = 50.0 * loss(columns, MASS[group]) * np.exp(distance)
    else:
        columns["length"] = 380.0 * np.cosh(columns["eta"])
        columns["tof_signal"] = flight(columns, MASS[group]) + distance
    return columns, group
