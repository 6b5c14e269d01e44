"""The physics limit of the example production: the Bayes-optimal certainty of every track of its simulation.

The example's detector is known (`pidflow.simulate`), so is the probability of what a track shows under each
species. No classifier that sees the columns used here can rank the tracks better or be better calibrated.
The certainty of species s is its posterior,

    P(s | track) ∝ Y_s(pT) · D_s(DCA) · ∫dp g(p | measured p) · Σ_end w_s(end | p) · B(clusters | end)
                   · P(TRD pattern, TOF match | end) · f_s(dE/dx | p) · f_s(TRD signal | p) · f_s(time of flight | p),

times the share of tracks whose label is neither lost nor fake. The terms and where they come from:

=====================  ==========================================================================================
Y_s                    dN/d ln pT of the species and charge before the losses on the way: labelled tracks,
                       weighted by the inverse of their chance to be selected, smoothed in ln pT
D_s                    labelled tracks, histogram of both impact parameters over the resolution of
                       ``tracking.measure``, in ranges of pT
g                      ``tracking.measure``: Gaussian, on a grid that all terms share, since they all follow from
                       the same true momentum
w_s                    decays (``decays.CHANNELS``, ``tracking.candidates``) and hadronic interactions
                       (``tracking.candidates``, ``signals.outer_path``): chance that the path ends there
B                      ``tracking.find_clusters``: binomial in the pad rows that the measured helix crosses first
TRD pattern, TOF       ``signals.trd``, ``signals.tof``: layers, gaps and matching along the measured helix; where the
                       mask hides a detector, its outcome is summed over
dE/dx                  ``signals.tpc_signal``: Gaussian, and one with an exponential tail
TRD signal             ``signals.trd``: log-normal
time of flight         ``signals.tof``: Gaussian with the uncertainty of the event time, and the share of
                       mismatched hits, whose times are distributed as those of all labelled tracks
=====================  ==========================================================================================

Left out, since no candidate feature holds it or it says nothing on the species: the ITS cluster sizes,
χ², shared clusters, the momenta at the TPC wall and at the TOF (smeared copies of the measured one), the
vertex, and the delay of secondaries, which are born within 4 cm of the beam. Labels come from the training and
validation sets only. The production knows no nuclei: the deuteron's certainty is 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.special import erfc, erfcx, gammaln

from pidflow.errors import PidflowError
from pidflow.files import replacing
from pidflow.parquet import batches
from pidflow.physics import C_CM_PER_PS, CURVATURE_PER_KG, charge_sign
from pidflow.response import expected_time
from pidflow.scores import CARRIED, schema
from pidflow.simulate import detector, generator, signals, tracking
from pidflow.simulate.particles import PROPERTIES, TRACKED

Floats = NDArray[np.float64]

_COLUMNS = (
    "p", "pt", "eta", "phi", "z", "sign", "dca_xy", "dca_z", "tpc_signal", "tpc_n_cls_found", "has_trd", "trd_signal",
    "trd_pattern", "has_tof", "tof_signal", "tof_event_time", "tof_event_time_error", "length",
)  # fmt: skip

_ROWS_AT_A_TIME = 2048

_NODES = np.linspace(-3.5, 3.5, 15)
"""True momentum in standard deviations from the measured one; the slow proton's time of flight, the sharpest of the
terms, is 0.4 wide, which the trapezoidal rule with this step integrates to 10⁻⁴."""

_WEIGHTS = np.exp(-0.5 * _NODES**2) / np.exp(-0.5 * _NODES**2).sum()

_STRAY = 1e-4
"""Chance that a detector answers where the measured helix says that it cannot, since gaps are seen imprecisely."""

_PT_EDGES = np.geomspace(0.05, 40.0, 134)
_PT_SMOOTHING = 3.0
"""Bins of 5 % in pT, and the width of the smoothing in bins."""

_YIELD_PRIOR = 0.05
"""Tracks that each species and charge has in each bin beforehand."""

_DCA_PT_EDGES = (0.3, 0.6, 1.2)
_DCA_EDGES = (1.0, 2.0, 4.0, 8.0, 20.0)
"""Ranges of pT in GeV/c, and of an impact parameter over its resolution."""

_DCA_PRIOR = 20.0
"""Tracks, distributed as those of all species, that each species has beforehand in each range of pT."""

_TIME_BIN_PS, _TIME_BINS = 50.0, 2000
_TIME_PRIOR = 1.0

_END_RADII = np.array([radius for _, radius in tracking.TPC_ROW_RADII])
_TPC_RADII = np.interp(
    np.arange(tracking.ROWS_PER_STEP / 2, tracking.TPC_ROWS, tracking.ROWS_PER_STEP),
    [row for row, _ in tracking.TPC_ROW_RADII],
    _END_RADII,
)
"""Where ``tracking.find_clusters`` looks at the path."""

_RADII = np.array([*_TPC_RADII, *signals.TRD_RADII, signals.TOF_RADIUS_CM])
_TPC, _TRD = slice(0, len(_TPC_RADII)), slice(len(_TPC_RADII), len(_RADII) - 1)
_LAYERS = len(signals.TRD_RADII)
_DEAD_ZONE_CM = np.repeat(
    [tracking.TPC_DEAD_ZONE_CM, signals.TRD_DEAD_ZONE_CM, signals.TOF_DEAD_ZONE_CM], [len(_TPC_RADII), _LAYERS, 1]
)
_HALF_LENGTH_CM = np.repeat(
    [tracking.TPC_HALF_LENGTH_CM, signals.TRD_HALF_LENGTH_CM, signals.TOF_HALF_LENGTH_CM],
    [len(_TPC_RADII), _LAYERS, 1],
)
_SECTOR = 2 * np.pi / 18


def score_ceiling(
    dataset: str | Path, output: str | Path, *, species: Sequence[int], masks: Mapping[str, float], bz: float
) -> None:
    """Write the score table of the Bayes-optimal classifier.

    Parameters
    ----------
    dataset
        Dataset of the simulation of an example run.
    output
        Score table (`pidflow.scores`), row by row as the dataset.
    species
        PDG codes, one certainty each.
    masks
        Momentum in GeV/c below which ``trd`` and ``tof`` are hidden, as the dataset was made.
    bz
        Field along z in kG.

    Raises
    ------
    PidflowError
        If the training and validation sets have no labelled track, or a track lacks its kinematics.
    """
    known = _learn(dataset, bz)
    columns = schema(species)
    settings = {"compression": "zstd", "use_dictionary": ["source", "split"]}
    with replacing(output) as temporary, pq.ParquetWriter(temporary, columns, **settings) as writer:
        for table in batches(dataset, tuple(dict.fromkeys((*CARRIED, *_COLUMNS)))):
            parts = [posterior(tracks, known, masks, bz) for tracks in _blocks(dataset, table)]
            joined = np.concatenate(parts) if parts else np.empty((0, len(TRACKED)))
            sign = table["sign"].to_numpy()
            certainty = [pa.array(_certainty(joined, sign, pdg), pa.float32()) for pdg in species]
            writer.write_table(pa.Table.from_arrays([*(table[name] for name in CARRIED), *certainty], schema=columns))


def _certainty(posterior: Floats, sign: NDArray[np.int8], pdg: int) -> Floats:
    if abs(pdg) not in TRACKED:
        return np.zeros(len(sign))
    share = 1.0 - detector.FAKE_SHARE - detector.UNLABELLED_SHARE
    return share * np.where(sign == charge_sign(pdg), posterior[:, TRACKED.index(abs(pdg))], 0.0)


class Tracks(NamedTuple):
    """What is used of tracks; arrays of shape (n,) in the units of the track table, NaN where null."""

    p: Floats
    pt: Floats
    eta: Floats
    phi: Floats
    z: Floats
    sign: Floats
    dca_xy: Floats
    dca_z: Floats
    tpc_signal: Floats
    tpc_n_cls_found: Floats
    has_trd: Floats
    trd_signal: Floats
    trd_pattern: Floats
    has_tof: Floats
    tof_signal: Floats
    tof_event_time: Floats
    tof_event_time_error: Floats
    length: Floats


def _blocks(dataset: str | Path, table: pa.Table) -> Iterator[Tracks]:
    columns = {name: table[name].cast(pa.float64()).to_numpy() for name in _COLUMNS}
    for name in _COLUMNS[: _COLUMNS.index("has_trd")]:
        if np.isnan(columns[name]).any():
            raise PidflowError(f"{dataset}: column '{name}' has nulls; the limit is known for the example runs only")
    for first in range(0, table.num_rows, _ROWS_AT_A_TIME):
        yield Tracks(**{name: values[first : first + _ROWS_AT_A_TIME] for name, values in columns.items()})


@dataclass(frozen=True)
class Known:
    """What labelled tracks tell; species in the order of `pidflow.simulate.particles.TRACKED`.

    Attributes
    ----------
    yields
        dN/d ln pT, [species, charge (negative, positive), bin of pT].
    dca
        Share of tracks, [species, range of pT, range of |DCA_xy|/σ, range of |DCA_z|/σ].
    time
        Density in 1/ps of the hit's time for any track, [bin of time].
    """

    yields: Floats
    dca: Floats
    time: Floats


def _learn(dataset: str | Path, bz: float) -> Known:
    yields = np.zeros((len(TRACKED), 2, len(_PT_EDGES) + 1))
    dca = np.zeros((len(TRACKED), len(_DCA_PT_EDGES) + 1, len(_DCA_EDGES) + 1, len(_DCA_EDGES) + 1))
    time = np.zeros(_TIME_BINS)
    masses = np.array([PROPERTIES[code].mass for code in TRACKED])
    for table in batches(dataset, (*_COLUMNS, "tof_exp_mom", "pdg_code", "split")):
        table = table.filter(pc.field("split") != "test")
        table = table.filter(pc.is_in(pc.abs(table["pdg_code"]), pa.array(TRACKED, pa.int32())))
        number = np.searchsorted(TRACKED, np.abs(table["pdg_code"].to_numpy()))
        momentum = table["tof_exp_mom"].cast(pa.float64()).to_numpy()
        for part, tracks in enumerate(_blocks(dataset, table)):
            rows = slice(part * _ROWS_AT_A_TIME, part * _ROWS_AT_A_TIME + len(tracks.p))
            own = number[rows]
            chance = _chance_of_selection(tracks, bz)[np.arange(len(own)), own]
            np.add.at(yields, (own, (tracks.sign > 0).astype(np.intp), np.digitize(tracks.pt, _PT_EDGES)), 1 / chance)
            np.add.at(dca, (own, *_dca_ranges(tracks)), 1.0)
            flight = expected_time(tracks.length, momentum[rows], masses[own]) / _TIME_BIN_PS
            time += np.bincount(flight[flight < _TIME_BINS].astype(np.intp), minlength=_TIME_BINS)
    if not yields.any():
        raise PidflowError(f"{dataset}: no labelled track in the training and validation sets; give the simulation")
    smeared = gaussian_filter1d(
        time, np.hypot(generator.COLLISION_TIME_PS, _TOF_PS) / _TIME_BIN_PS, mode="constant"
    ) + _TIME_PRIOR / _TIME_BINS  # fmt: skip
    all_species = dca.sum(axis=0, keepdims=True) + 1.0 / dca[0, 0].size
    dca += _DCA_PRIOR * all_species / all_species.sum(axis=(2, 3), keepdims=True)
    return Known(
        gaussian_filter1d(yields, _PT_SMOOTHING, axis=-1) + _YIELD_PRIOR,
        dca / dca.sum(axis=(2, 3), keepdims=True),
        smeared / (smeared.sum() * _TIME_BIN_PS),
    )


def _dca_ranges(tracks: Tracks) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    constant, slope = tracking.DCA_RESOLUTION_CM
    sigma = np.hypot(constant, slope / tracks.pt)
    return (
        np.digitize(tracks.pt, _DCA_PT_EDGES),
        np.digitize(np.abs(tracks.dca_xy) / sigma, _DCA_EDGES),
        np.digitize(np.abs(tracks.dca_z) / sigma, _DCA_EDGES),
    )


@dataclass(frozen=True)
class _Paths:
    """Paths for each node of the momentum; radii are `_RADII`.

    Attributes
    ----------
    reached
        Transverse arc length at each radius in cm, infinite if never, [n, radii] for the measured momentum.
    active
        Whether the path crosses active detector at each radius, [n, nodes, radii].
    rows
        Pad rows crossed by a path that ends before each step through the TPC, or after all, [n, nodes, steps + 1].
    """

    reached: Floats
    active: NDArray[np.bool_]
    rows: NDArray[np.int16]


def _true_momenta(momentum: Floats, pt: Floats, nodes: Floats) -> Floats:
    """Return the true momenta [n, nodes] for measured ones [n] (``tracking.measure``)."""
    constant, slope = tracking.PT_RESOLUTION
    return momentum[:, None] / (1.0 + np.hypot(constant, slope * pt)[:, None] * nodes)


def _paths(tracks: Tracks, nodes: Floats, bz: float) -> _Paths:
    """Follow helices from the vertex, as `pidflow.simulate.helix` does, without the displacement by the DCA."""
    curvature = CURVATURE_PER_KG * bz * tracks.sign[:, None] / _true_momenta(tracks.pt, tracks.pt, nodes)
    radii = _RADII.astype(np.float32)  # single precision: the gaps are not known better than by 10 µm
    sine = 0.5 * curvature.astype(np.float32)[:, :, None] * radii
    there = np.abs(sine) < 1.0
    half = np.arcsin(np.clip(sine, -1.0, 1.0))
    s = radii * np.divide(half, sine, out=np.ones_like(sine), where=sine != 0.0)
    z = np.abs(tracks.z.astype(np.float32)[:, None, None] + s * np.sinh(tracks.eta).astype(np.float32)[:, None, None])
    sector = (tracks.phi.astype(np.float32)[:, None, None] + half) / np.float32(_SECTOR)
    number = np.floor(sector)
    local = sector - number
    gap = radii * np.float32(_SECTOR) * np.minimum(local, 1.0 - local)
    active = there & (z < _HALF_LENGTH_CM.astype(np.float32)) & (gap > _DEAD_ZONE_CM.astype(np.float32))
    hole = np.isin(number[:, :, _TRD].astype(np.int8) % 18, signals.TRD_HOLE_SECTORS)
    active[:, :, _TRD] &= ~(hole & (z[:, :, _TRD] < signals.TRD_HOLE_HALF_LENGTH_CM))
    rows = np.zeros((*curvature.shape, len(_TPC_RADII) + 1), dtype=np.int16)
    np.cumsum(active[:, :, _TPC], axis=-1, dtype=np.int16, out=rows[:, :, 1:])
    rows *= tracking.ROWS_PER_STEP
    central = len(nodes) // 2
    return _Paths(np.where(there[:, central], s[:, central], np.inf).astype(np.float64), active, rows)


def _ends(tracks: Tracks, paths: _Paths) -> Floats:
    """Return the chance of each species to end before each of `_RADII` but after the last, or not at all.

    float64 [n, species, radii + 1].
    """
    positive = tracks.sign > 0
    slant = np.cosh(tracks.eta)
    surviving = np.ones((len(tracks.p), len(TRACKED), len(_RADII) + 2))
    surviving[:, :, -1] = 0.0
    outer = np.clip((_RADII - signals.TRD_RADII[0]) / (signals.TOF_RADIUS_CM - signals.TRD_RADII[0]), 0.0, 1.0)
    inner = np.minimum(_RADII / _END_RADII[-1], 1.0)
    for number, code in enumerate(TRACKED):
        survival = np.ones((len(tracks.p), len(_RADII)))
        for before, along in ((tracking.INTERACTION_PROBABILITY, inner), (signals.OUTER_INTERACTION, outer)):
            probability = np.where(positive, before.get(code, 0.0), before.get(-code, before.get(code, 0.0)))
            survival *= 1.0 - probability[:, None] * along
        if code in tracking.DECAY_MOMENTUM:
            breaks = tracks.p <= tracking.DECAY_MOMENTUM[code] / tracking.KINK_ANGLE_RAD
            rate = PROPERTIES[code].mass / (PROPERTIES[code].ctau * tracks.p) * slant * breaks
            survival *= np.exp(-rate[:, None] * np.where(np.isfinite(paths.reached), paths.reached, 0.0))
        # beyond the last radius that the path reaches, where it ends makes no difference
        surviving[:, number, 1:-1] = np.minimum.accumulate(survival, axis=1)
    return -np.diff(surviving, axis=-1)


_FEWEST_ROWS = 72
"""Pad rows, in steps of four, from which a track has the 70 crossed rows of the default selection."""


def _chance_of_selection(tracks: Tracks, bz: float) -> Floats:
    """Return the chance of each species not to end before it has enough pad rows, [n, species], at least 5 %."""
    paths = _paths(tracks, np.zeros(1), bz)
    ends = _ends(tracks, paths)
    steps = paths.rows.shape[-1]
    enough = paths.rows[:, 0] >= _FEWEST_ROWS
    chance = np.einsum("nse,ne->ns", ends[:, :, : steps - 1], enough[:, :-1].astype(np.float64))
    chance += ends[:, :, steps - 1 :].sum(axis=-1)
    return np.asarray(np.maximum(chance, 0.05))


def posterior(tracks: Tracks, known: Known, masks: Mapping[str, float], bz: float) -> Floats:
    """Return the probability of each species of `TRACKED` with the track's charge, float64 [n, species]."""
    paths = _paths(tracks, _NODES, bz)
    momentum = _true_momenta(tracks.p, tracks.pt, _NODES)
    likelihood = _WEIGHTS * _detection(tracks, paths, _ends(tracks, paths), masks)
    for number, code in enumerate(TRACKED):
        mass = PROPERTIES[code].mass
        likelihood[:, number] *= _tpc_density(tracks, momentum, mass)
        likelihood[:, number] *= _trd_density(tracks, momentum, mass)
        likelihood[:, number] *= _tof_density(tracks, momentum, mass, known.time)
    charge = (tracks.sign > 0).astype(np.intp)
    centres = np.log(_PT_EDGES[:-1] * _PT_EDGES[1:]) / 2
    joint = likelihood.sum(axis=-1)
    for number in range(len(TRACKED)):
        for sign in (0, 1):
            own = charge == sign
            joint[own, number] *= np.interp(np.log(tracks.pt[own]), centres, known.yields[number, sign, 1:-1])
        joint[:, number] *= known.dca[number][_dca_ranges(tracks)]
    joint = np.maximum(joint, np.finfo(np.float64).tiny)
    normalised: Floats = joint / joint.sum(axis=1, keepdims=True)
    return normalised


def _detection(tracks: Tracks, paths: _Paths, ends: Floats, masks: Mapping[str, float]) -> Floats:
    """Return the chance of clusters, TRD pattern and TOF match for each species and node, [n, species, nodes]."""
    clusters = _cluster_chance(tracks, paths.rows)
    outer = _outer_chance(tracks, paths, masks)
    silent = outer[:, :, 0]
    inside = paths.rows.shape[-1] - 1
    chance: Floats = np.einsum("nse,nke->nsk", ends[:, :, :inside], clusters[:, :, :-1]) * silent[:, None]
    chance += np.einsum("nse,nke->nsk", ends[:, :, inside:], outer) * clusters[:, None, :, -1]
    return chance


_LOG_FACTORIAL = gammaln(np.arange(tracking.TPC_ROWS + 2) + 1.0)


def _cluster_chance(tracks: Tracks, rows: NDArray[np.int16]) -> Floats:
    """Return the chance of the found clusters for paths with `rows` pad rows, as wide as `rows`."""
    efficiency = (tracking.TPC_CLUSTER_EFFICIENCY - 0.002 / tracks.pt)[:, None, None]
    found = tracks.tpc_n_cls_found.astype(np.int16)[:, None, None]
    lost = rows - found
    log = _LOG_FACTORIAL[rows] - _LOG_FACTORIAL[np.maximum(lost, 0)] + lost * np.log(1.0 - efficiency)
    log += found * np.log(efficiency) - _LOG_FACTORIAL[found]
    chance: Floats = np.exp(np.where((lost >= 0) & (rows >= _FEWEST_ROWS), log, -np.inf))
    chance *= 1.0 - _STRAY
    chance += _STRAY / tracking.TPC_ROWS
    return chance


def _outer_chance(tracks: Tracks, paths: _Paths, masks: Mapping[str, float]) -> Floats:
    """Return the chance of what TRD and TOF show, for paths that end before each layer or the TOF, or not.

    float64 [n, nodes, layers + 2].
    """
    hit = np.where(paths.active[:, :, _TRD], signals.TRD_LAYER_EFFICIENCY, _STRAY)
    missed = 1.0 - hit
    reach = np.minimum(np.arange(_LAYERS + 2), _LAYERS)
    none, one = np.ones((*hit.shape[:2], _LAYERS + 1)), np.zeros((*hit.shape[:2], _LAYERS + 1))
    for layer in range(_LAYERS):
        none[:, :, layer + 1] = none[:, :, layer] * missed[:, :, layer]
        one[:, :, layer + 1] = one[:, :, layer] * missed[:, :, layer] + none[:, :, layer] * hit[:, :, layer]
    turn_on = _turn_on(tracks.pt, signals.TRD_TURN_ON)[:, None, None]
    # a pattern needs two layers: TRD_MIN_LAYERS
    with_trd = (signals.TRD_MATCHING * turn_on * (1.0 - none - one))[:, :, reach]
    seen = tracks.has_trd > 0
    bits = np.where(seen, tracks.trd_pattern, 0).astype(np.intp)[:, None] >> np.arange(_LAYERS) & 1 > 0
    pattern = np.ones((*hit.shape[:2], _LAYERS + 1))
    for end in range(1, _LAYERS + 1):
        pattern[:, :, end] = pattern[:, :, end - 1] * np.where(
            bits[:, None, end - 1], hit[:, :, end - 1], missed[:, :, end - 1]
        )
    beyond = np.cumsum(bits[:, ::-1], axis=1)[:, ::-1]  # hits in a layer or further out
    for end in range(_LAYERS):
        pattern[:, :, end] *= np.where(beyond[:, end], _STRAY, 1.0)[:, None] ** beyond[:, end][:, None]
    matched = (signals.TRD_MATCHING * turn_on * pattern)[:, :, reach]

    tof = np.zeros((*hit.shape[:2], _LAYERS + 2))
    tof[:, :, -1] = paths.active[:, :, -1] * _turn_on(tracks.pt, signals.TOF_TURN_ON)[:, None]
    tof = np.maximum(tof, _STRAY)
    tof_visible, has_tof = tracks.p >= masks["tof"], tracks.has_tof > 0

    def tof_chance(plateau: float) -> Floats:
        chance = plateau * tof
        return np.where(tof_visible[:, None, None], np.where(has_tof[:, None, None], chance, 1.0 - chance), 1.0)

    both, alone = tof_chance(signals.TOF_MATCHING), tof_chance(signals.TOF_MATCHING_WITHOUT_TRD)
    absent = (1.0 - with_trd) * alone
    hidden = with_trd * both + absent
    visible = np.where(seen[:, None, None], matched * both, absent)
    result: Floats = np.where((tracks.p >= masks["trd"])[:, None, None], visible, hidden)
    return result


def _turn_on(pt: Floats, shape: tuple[float, float]) -> Floats:
    centre, width = shape
    return 1.0 / (1.0 + np.exp(-(pt - centre) / width))


def _tpc_density(tracks: Tracks, momentum: Floats, mass: float) -> Floats:
    """Return the density of the TPC signal for true momenta [n, nodes], as wide."""
    mean = signals.TPC.signal(momentum, mass)
    slant = 1.0 - 0.1 * np.sinh(tracks.eta) ** 2
    width = (signals.TPC.sigma(1.0, tracks.tpc_n_cls_found) * slant)[:, None]
    deviation = tracks.tpc_signal[:, None] / mean - 1.0
    share, length = signals.TPC_TAIL
    density: Floats = ((1.0 - share) * _normal(deviation, width) + share * _with_tail(deviation, width, length)) / mean
    return density


def _normal(deviation: Floats, width: Floats) -> Floats:
    density: Floats = np.exp(-0.5 * (deviation / width) ** 2) / (np.sqrt(2 * np.pi) * width)
    return density


def _with_tail(deviation: Floats, width: Floats, length: float) -> Floats:
    """Return the density of a normal of `width` plus an exponential of mean `length`."""
    ratio = width / length
    argument = (ratio - deviation / width) / np.sqrt(2.0)
    # erfc(a) = exp(−a²) erfcx(a), whichever of the two stays finite
    near = np.exp(-0.5 * (deviation / width) ** 2) * erfcx(np.maximum(argument, 0.0))
    far = np.exp(np.minimum(0.5 * ratio**2 - deviation / length, 0.0)) * erfc(np.minimum(argument, 0.0))
    density: Floats = np.where(argument > 0.0, near, far) / (2.0 * length)
    return density


def _trd_density(tracks: Tracks, momentum: Floats, mass: float) -> Floats:
    """Return the density of the TRD signal, 1 without one, [n, nodes]."""
    seen = (tracks.has_trd > 0)[:, None]
    beta_gamma = momentum / mass
    share, onset = signals.TRD_TRANSITION
    transition = share / (1.0 + (onset / beta_gamma) ** 2)
    mean = signals.TRD_MIP * signals.TPC.signal(beta_gamma, 1.0) / signals.TPC.mip * (1.0 + transition)
    bits = np.where(tracks.has_trd > 0, tracks.trd_pattern, 1).astype(np.uint8)
    layers = np.bitwise_count(bits)[:, None]
    width = signals.TRD_WIDTH * np.sqrt(_LAYERS / layers)
    deviation = np.log(np.where(seen, tracks.trd_signal[:, None], 1.0) / mean)
    return np.where(seen, _normal(deviation, width), 1.0)


_TOF_PS = float(np.hypot(signals.TOF_HIT_PS, signals.TOF_CALIBRATION_PS))


def _tof_density(tracks: Tracks, momentum: Floats, mass: float, pool: Floats) -> Floats:
    """Return the density in 1/ps of the time of flight, 1 without one, [n, nodes]."""
    seen = tracks.has_tof > 0
    flight, length = (tracks.tof_signal - tracks.tof_event_time)[:, None], tracks.length[:, None]
    width = np.hypot(_TOF_PS, tracks.tof_event_time_error)[:, None]
    own = _normal(flight - length * np.hypot(1.0, mass / momentum) / C_CM_PER_PS, width)
    number = np.where(seen, np.clip(tracks.tof_signal / _TIME_BIN_PS, 0, _TIME_BINS - 1), 0).astype(np.intp)
    density = (1.0 - signals.TOF_MISMATCH) * own + signals.TOF_MISMATCH * pool[number][:, None]
    return np.where(seen[:, None], density, 1.0)
