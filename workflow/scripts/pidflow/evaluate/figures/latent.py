"""Shift between simulation and data, of each feature and in the space that a network's heads see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from pidflow.adapt.choice.sample import Looked, look
from pidflow.evaluate.figures.style import COLOURS, LINES, MARKERS, class_label, drawing
from pidflow.models import load
from pidflow.models.base import Model

_MOST_FEATURES = 50_000
"""Tracks of a sample whose features are compared."""

_MOST_VECTORS = 5_000
"""Tracks of a sample that an encoder sees, and dots of a panel."""

_CHANCE = 1.358
"""Quantile of Kolmogorov's distribution below which 95 % of equal samples lie."""


_OTHER = to_rgb("0.75")
"""Colour of tracks of no species."""


@dataclass(frozen=True)
class LatentSpace:
    """What an encoder makes of simulation and data.

    Attributes
    ----------
    shift
        Distance of both samples in each component of the encoder's vector (`ks_distance`), float64 [W].
    chance
        Distance below which 95 % of equal samples would lie.
    simulation, data
        First two principal components of both samples together, float64 [N, 2] and [M, 2]; simulated tracks are drawn
        by their weights.
    explained
        Share of the variance of each of the two.
    species
        Index of the species of simulated tracks, -1 for none, int64 [N].
    """

    shift: NDArray[np.float64]
    chance: float
    simulation: NDArray[np.float64]
    data: NDArray[np.float64]
    explained: tuple[float, float]
    species: NDArray[np.int64]


def ks_distance(
    first: NDArray[np.floating[Any]], second: NDArray[np.floating[Any]], weights: NDArray[np.float64] | None = None
) -> float:
    """Return the largest distance of two cumulative distributions, 0 to 1.

    Parameters
    ----------
    first, second
        Values of two samples; NaN is left out.
    weights
        How much each value of the first counts; None: all the same.

    Returns
    -------
    float
        NaN if a sample has no value.
    """
    own = np.ones(len(first)) if weights is None else weights
    known = ~np.isnan(first)
    order = np.argsort(first[known], kind="stable")
    ours, sums = first[known][order], np.append(0.0, np.cumsum(own[known][order]))
    theirs = np.sort(second[~np.isnan(second)])
    if sums[-1] <= 0.0 or not len(theirs):
        return float("nan")
    places = np.concatenate([ours, theirs])
    below = sums[np.searchsorted(ours, places, side="right")] / sums[-1]
    return float(np.abs(below - np.searchsorted(theirs, places, side="right") / len(theirs)).max())


def feature_shift(simulation: Looked, data: Looked) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how a simulated sample differs from data in each feature.

    Parameters
    ----------
    simulation, data
        Tracks of both.

    Returns
    -------
    distance, missing
        Distance of the known values (`ks_distance`), and share of tracks with a value in simulation minus that in
        data, float64 [F] each.
    """
    columns = zip(simulation.features.T, data.features.T, strict=True)
    distance = [ks_distance(own, other, simulation.weights) for own, other in columns]
    known = np.average(~np.isnan(simulation.features), axis=0, weights=simulation.weights)
    return np.array(distance), known - (~np.isnan(data.features)).mean(axis=0)


def latent_space(model: Model[Any], simulation: Looked, data: Looked, *, seed: int) -> LatentSpace | None:
    """Compare simulation and data by what a model's encoder makes of them.

    Parameters
    ----------
    model
        Any model.
    simulation, data
        Tracks of both, with the model's features.
    seed
        Of the choice of tracks.

    Returns
    -------
    LatentSpace or None
        None for a model without an encoder.
    """
    from sklearn.decomposition import PCA

    network = getattr(model.trained, "network", None) if model.is_network else None  # type: ignore[attr-defined]
    encoder = getattr(network, "encoder", None)
    if encoder is None:
        return None
    from pidflow.train.engine import predict

    assert simulation.labels is not None
    random = np.random.default_rng([seed, model.info.run])
    rows, others = (random.permutation(len(part))[:_MOST_VECTORS] for part in (simulation, data))
    vectors, measured = predict(encoder, simulation.features[rows]), predict(encoder, data.features[others])
    weights = simulation.weights[rows]
    shift = [ks_distance(own, other, weights) for own, other in zip(vectors.T, measured.T, strict=True)]
    drawn = np.sort(random.choice(len(rows), len(rows), p=weights / weights.sum()))
    pca = PCA(2, svd_solver="full").fit(np.concatenate([vectors[drawn], measured]).astype(np.float64))
    labels = simulation.labels[rows][drawn]
    return LatentSpace(
        shift=np.array(shift),
        chance=_chance(weights, len(measured)),
        simulation=pca.transform(vectors[drawn].astype(np.float64)),
        data=pca.transform(measured.astype(np.float64)),
        explained=(float(pca.explained_variance_ratio_[0]), float(pca.explained_variance_ratio_[1])),
        species=np.where(labels.any(axis=1), labels.argmax(axis=1), -1),
    )


def plot_latent(
    models: Mapping[str, str | Path],
    simulation: Mapping[str, str | Path],
    data: str | Path,
    output: str | Path,
    *,
    species: Sequence[int],
    title: str,
    seed: int,
) -> None:
    """Draw the shift of each feature, and principal components and shift of what the models' encoders make of them.

    Parameters
    ----------
    models
        Model directories by label, of the same features: without adaptation and with it. A model without an encoder
        has no panels of its own.
    simulation
        Simulated dataset that each was trained on, by the same labels.
    data
        Dataset of data; its truth is not read.
    output
        Image file.
    species
        PDG codes of the models.
    title
        Title of the figure.
    seed
        Of the choice of tracks.
    """
    loaded = {label: load(path) for label, path in models.items()}
    features = next(iter(loaded.values())).info.features
    measured = look(data, "test", features, None, _MOST_FEATURES)
    paths = dict.fromkeys(str(simulation[label]) for label in models)
    samples: dict[str, Looked] = {path: look(path, "test", features, species, _MOST_FEATURES) for path in paths}
    spaces = {
        label: space
        for label, model in loaded.items()
        if (space := latent_space(model, samples[str(simulation[label])], measured, seed=seed)) is not None
    }
    names = {path: [label for label in models if str(simulation[label]) == path] for path in paths}
    # in tenths of an inch
    first, other = 13 + 3 * len(features), 43
    with drawing(output, 15.0, 1.2 + 0.1 * (first + other * len(spaces)), title) as figure:
        grid = figure.add_gridspec(1 + len(spaces), 3, height_ratios=[first, *([other] * len(spaces))])
        shifts = figure.add_subplot(grid[0, :2])
        shares = figure.add_subplot(grid[0, 2], sharey=shifts)
        _draw_features(shifts, shares, {", ".join(names[path]): samples[path] for path in paths}, measured, features)
        if spaces:
            _draw_components(figure.add_subplot(grid[1:, 2]), spaces)
        for i, (label, space) in enumerate(spaces.items()):
            domains, classes = (figure.add_subplot(grid[1 + i, j]) for j in range(2))
            classes.sharex(domains)
            classes.sharey(domains)
            random = np.random.default_rng(seed)
            _draw_domains(domains, space, random, legend=i == 0)
            _draw_species(classes, space, species, random, legend=i == 0)
            domains.set_title(f"{label}: sample")
            classes.set_title(f"{label}: simulated species")


def _chance(weights: NDArray[np.float64], others: int) -> float:
    """Return the distance below which 95 % of equal samples lie, one of them weighted."""
    effective = weights.sum() ** 2 / (weights**2).sum()
    return float(_CHANCE * np.sqrt(1.0 / effective + 1.0 / others))


def _draw_features(
    shifts: Axes, shares: Axes, samples: Mapping[str, Looked], data: Looked, features: Sequence[str]
) -> None:
    y = np.arange(len(features))
    found = {name: feature_shift(sample, data) for name, sample in samples.items()}
    for i, (name, (distance, missing)) in enumerate(found.items()):
        style: dict[str, Any] = {"color": COLOURS[i], "marker": MARKERS[i], "ls": "", "ms": 7}
        shifts.plot(distance, y, label=f"{name}: simulation against data", **style)
        shares.plot(100.0 * missing, y, **style)
    chance = max(_chance(sample.weights, len(data)) for sample in samples.values())
    shifts.axvspan(0.0, chance, color="0.9", lw=0, zorder=0, label="equal samples (95 %)")
    highest = max(0.02, *(float(np.nanmax(distance, initial=0.0)) for distance, _ in found.values()))
    shifts.set(xlim=(0.0, 1.12 * highest), xlabel="Distance of the cumulative distributions of a feature")
    shifts.set_yticks(y, features)
    shifts.set_ylim(len(features) - 0.5, -0.5)
    shifts.legend(loc="best", frameon=True, framealpha=0.9, edgecolor="none")
    shares.axvline(0.0, color="0.6", lw=0.8, zorder=0)
    widest = max(1.0, *(float(np.abs(100.0 * missing).max()) for _, missing in found.values()))
    shares.set(xlim=(-1.15 * widest, 1.15 * widest), xlabel="Tracks with a value, simulation $-$ data (%)")
    shares.tick_params(labelleft=False)
    for axes in (shifts, shares):
        axes.tick_params(axis="y", which="both", length=0)
        for boundary in range(1, len(features)):
            axes.axhline(boundary - 0.5, color="0.88", lw=0.8, zorder=0)


def _draw_components(axes: Axes, spaces: Mapping[str, LatentSpace]) -> None:
    """Draw the shift of the components, the most shifted first: those of two models have nothing to do with another."""
    for i, (label, space) in enumerate(spaces.items()):
        rank = np.arange(1, len(space.shift) + 1)
        text = f"{label}, mean {space.shift.mean():.3f}"
        axes.plot(rank, np.sort(space.shift)[::-1], color=COLOURS[i], ls=LINES[i], marker=MARKERS[i], label=text)
    chance = max(space.chance for space in spaces.values())
    axes.axhspan(0.0, chance, color="0.9", lw=0, zorder=0, label="equal samples (95 %)")
    highest = max(float(space.shift.max()) for space in spaces.values())
    axes.set(xlabel="Latent component, by its shift", ylabel="Distance of the cumulative distributions")
    axes.set(ylim=(0.0, 1.3 * max(highest, chance)), title="latent space: simulation against data")
    axes.legend(loc="upper right")


def _draw_domains(axes: Axes, space: LatentSpace, random: np.random.Generator, *, legend: bool) -> None:
    points = np.concatenate([space.simulation, space.data])
    colours = np.repeat([to_rgb(COLOURS[1]), to_rgb(COLOURS[0])], [len(space.simulation), len(space.data)], axis=0)
    _scatter(axes, points, colours, random)
    _set_components(axes, space)
    if legend:
        _add_legend(axes, {"simulation": to_rgb(COLOURS[1]), "data": to_rgb(COLOURS[0])}, 1)


def _draw_species(
    axes: Axes, space: LatentSpace, species: Sequence[int], random: np.random.Generator, *, legend: bool
) -> None:
    """Draw antiparticles in a lighter tone of the particle's colour."""
    kinds = list(dict.fromkeys(abs(code) for code in species))
    tones = [_tone(kinds.index(abs(code)), light=code < 0) for code in species]
    colours = np.array([*tones, _OTHER])[space.species]
    _scatter(axes, space.simulation, colours, random)
    _set_components(axes, space)
    axes.set_ylabel("")
    if legend:
        entries = {class_label(code, species): tone for code, tone in zip(species, tones, strict=True)}
        _add_legend(axes, entries | ({"other": _OTHER} if (space.species < 0).any() else {}), 2)


def _tone(number: int, *, light: bool) -> tuple[float, float, float]:
    red, green, blue = (0.45 + 0.55 * part if light else part for part in to_rgb(COLOURS[number % len(COLOURS)]))
    return red, green, blue


def _scatter(
    axes: Axes, points: NDArray[np.float64], colours: NDArray[np.float64], random: np.random.Generator
) -> None:
    """Draw dots in random order, so that no group hides another."""
    order = random.permutation(len(points))
    x, y = points[order].T
    axes.scatter(x, y, s=4, c=colours[order], alpha=0.6, linewidths=0, rasterized=True)


def _set_components(axes: Axes, space: LatentSpace) -> None:
    x, y = (f"Principal component {i} ({100.0 * share:.0f} %)" for i, share in enumerate(space.explained, start=1))
    axes.set(xlabel=x, ylabel=y)


def _add_legend(axes: Axes, entries: Mapping[str, tuple[float, float, float]], columns: int) -> None:
    handles = [Line2D([], [], ls="", marker="o", ms=6, color=colour) for colour in entries.values()]
    axes.legend(handles, list(entries), loc="best", ncols=columns, frameon=True, framealpha=0.8, edgecolor="none",
                handletextpad=0.1, columnspacing=0.8)  # fmt: skip
