"""Columns that raw and derived AO2D files record in the same way: the ITS, and the truth by label."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pidflow.ingest.frames import Frame, require_joined, require_range
from pidflow.ingest.reader import Columns, masked_unless, measured, recorded

ITS_MAP, ITS_SIZES = "fITSClusterMap", "fITSClusterSizes"
"""Leaves of ``O2trackextra`` that tell the layers with a cluster: a bit or four bits per layer."""

_ITS_LAYERS = 7
_OVERFLOW = 15
"""Size of a large cluster; of all clusters of a frame where a converter knew only which layers were hit
(O2Physics ``Common/TableProducer/Converters/tracksExtraConverter.cxx``)."""
_INNER_RUN3, _INNER_RUN2 = 0b111, 0b11
"""Layers of the inner barrel, and of the pixel detector."""

_PARTICLE = ("fPdgCode", "fFlags")
_FAKE = 1 << 15
_PHYSICAL_PRIMARY = 4


def its_columns(extra: Columns, tgl: NDArray[np.float64], run2: NDArray[np.bool_]) -> Columns:
    """Return the columns of the ITS, masked where it did not see the track.

    Parameters
    ----------
    extra
        Leaves of ``O2trackextra``, [n]: ``fITSClusterSizes`` or ``fITSClusterMap``, ``fITSChi2NCl`` and
        ``fITSSignal`` if they are there.
    tgl
        Tangent of the dip angle, [n].
    run2
        Which tracks are of Run 2, whose inner layers are the pixel detector's two; bool [n].
    """
    if ITS_SIZES in extra:
        hits, total = _unpacked_sizes(extra[ITS_SIZES])
    else:
        hits, total = extra[ITS_MAP], None
    n_clusters = np.bitwise_count(hits)
    present = n_clusters > 0
    columns = {
        "has_its": present,
        "its_n_cls": masked_unless(present, n_clusters),
        "its_inner_hit": masked_unless(present, hits & np.where(run2, _INNER_RUN2, _INNER_RUN3) != 0),
    }
    if total is not None:
        mean = total / np.maximum(n_clusters, 1) / np.hypot(1.0, tgl)
        sized = ~run2 & (total < _OVERFLOW * n_clusters.astype(np.uint32)).any()
        columns["its_mean_cluster_size"] = masked_unless(present & sized, mean)
    if "fITSChi2NCl" in extra:
        columns["its_chi2_ncl"] = measured(present, extra["fITSChi2NCl"])
    if "fITSSignal" in extra:
        columns["its_signal"] = recorded(present, extra["fITSSignal"])
    return columns


def _unpacked_sizes(sizes: NDArray[np.uint32]) -> tuple[NDArray[np.uint8], NDArray[np.uint32]]:
    """Return the map of hit layers and the sum of the cluster sizes, given four bits per layer."""
    hits = np.zeros(len(sizes), dtype=np.uint8)
    total = np.zeros(len(sizes), dtype=np.uint32)
    for layer in range(_ITS_LAYERS):
        size = sizes >> np.uint32(4 * layer) & np.uint32(0xF)
        hits |= (size > 0).astype(np.uint8) << np.uint8(layer)
        total += size
    return hits, total


@dataclass(frozen=True)
class TruthNames:
    """Tables and columns that link a track to its particle.

    Attributes
    ----------
    label, index
        Table of labels, and its column with the row of the particle.
    particle, mother
        Table of particles, and its column with the row of the mother.
    """

    label: str
    index: str
    particle: str
    mother: str


def truth_columns(
    frame: Frame, tracks: tuple[str, int], kept: NDArray[np.intp], names: TruthNames
) -> tuple[Columns, int]:
    """Return the truth of the `kept` tracks, masked for fake labels, and the number of those.

    Parameters
    ----------
    frame
        Data frame of simulation.
    tracks
        Name and length of the table of tracks.
    kept
        Rows of the tracks, [n].
    names
        Where the truth is.

    Raises
    ------
    PidflowError
        If a table or column is missing, or an index points outside its table.
    """
    label = frame.read(names.label, (names.index, "fMcMask"))
    require_joined(frame.where, tracks, (names.label, len(label["fMcMask"])))
    particle = frame.read(names.particle, (*_PARTICLE, names.mother))
    n_particles = len(particle["fPdgCode"])
    index = label[names.index][kept]
    require_range(frame.where, names.index, index, names.particle, n_particles)
    fake = (index < 0) | ((label["fMcMask"][kept] & _FAKE) != 0)
    if not n_particles:
        return {}, int(fake.sum())
    index = np.where(fake, 0, index)
    mother = particle[names.mother][index]
    require_range(frame.where, names.mother, mother, names.particle, n_particles)
    truth = {
        "pdg_code": np.ma.array(particle["fPdgCode"][index], mask=fake),
        "is_physical_primary": np.ma.array((particle["fFlags"][index] & _PHYSICAL_PRIMARY) != 0, mask=fake),
        "mother_pdg_code": np.ma.array(particle["fPdgCode"][np.maximum(mother, 0)], mask=fake | (mother < 0)),
    }
    return truth, int(fake.sum())
