"""How good a model probably is on data, told without any label of data.

Of every score, higher is better, and models are to be compared on the same tracks with the same seed. Labels and
weights are the simulation's alone. Certainties are one-vs-all, float [N, S] in [0, 1], of S species; unless a
function says otherwise, none is NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

Array = NDArray[np.float64]
Floats = NDArray[np.floating[Any]]

_LEAST = 1e-7
"""Certainties are kept this far from 0 and 1, so that logarithms stay finite."""


def macro_auc(certainty: Floats, labels: NDArray[np.uint8], weights: Floats | None = None) -> float:
    """Return the mean over species of the weighted area under the ROC curve.

    Parameters
    ----------
    certainty
        Shape (n_tracks, n_species); a NaN ranks below every certainty.
    labels
        1 where the simulated track is of the species, shape (n_tracks, n_species).
    weights
        How much each track counts, shape (n_tracks,); 1 if not given.

    Returns
    -------
    float
        In [0, 1], over the species that have true and other tracks; NaN if there is none.

    Notes
    -----
    The area is the weighted share of (true, other) pairs in which the true track has the higher certainty, ties
    counted half (H. B. Mann, D. R. Whitney, Ann. Math. Stat. 18 (1947) 50).
    """
    weight = _ones_or(weights, len(labels))
    areas = [_auc(*columns, weight) for columns in zip(certainty.T, labels.T, strict=True)]
    defined = [area for area in areas if not np.isnan(area)]
    return float(np.mean(defined)) if defined else float("nan")


def _auc(score: Floats, label: NDArray[np.uint8], weight: Array) -> float:
    _, level = np.unique(np.where(np.isnan(score), -np.inf, score), return_inverse=True)
    true, other = (np.bincount(level, weight * (label == value)) for value in (1, 0))
    pairs = true.sum() * other.sum()
    return float(true @ (np.cumsum(other) - 0.5 * other) / pairs) if pairs > 0 else float("nan")


def log_likelihood(certainty: Floats, labels: NDArray[np.uint8], weights: Floats | None = None) -> float:
    """Return the weighted mean logarithm of the probability that the certainties give to the labels.

    It is minus the log loss (binary cross-entropy, in nats), averaged over species.

    Parameters
    ----------
    certainty, labels, weights
        As of `macro_auc`, without NaN.
    """
    return -float(np.average(_losses(certainty, labels), weights=_ones_or(weights, len(labels))))


def importance_weighted_likelihood(
    certainty: Floats, labels: NDArray[np.uint8], ratio: Floats, weights: Floats | None = None
) -> float:
    """Return the log-likelihood that simulated tracks let one expect on data: minus the importance-weighted risk.

    Parameters
    ----------
    certainty, labels, weights
        As of `macro_auc`, without NaN.
    ratio
        Density of data over that of the (weighted) simulation at each track, shape (n_tracks,).

    Notes
    -----
    M. Sugiyama, M. Krauledat, K.-R. Müller, J. Mach. Learn. Res. 8 (2007) 985.
    """
    return -float(np.average(ratio * _losses(certainty, labels), weights=_ones_or(weights, len(labels))))


def deep_embedded_validation(
    certainty: Floats, labels: NDArray[np.uint8], ratio: Floats, weights: Floats | None = None
) -> float:
    """Return the importance-weighted log-likelihood with the density ratio as a control variate.

    The ratio has mean 1 over the simulation, so where its mean on these tracks is off by chance, the risk is off in
    a way that their correlation tells. A ratio that was scaled to mean 1 on these very tracks leaves nothing to
    correct: give `DensityRatio.unscaled`, or tracks that are a part of those it was scaled on.

    Parameters
    ----------
    certainty, labels, ratio, weights
        As of `importance_weighted_likelihood`.

    Notes
    -----
    K. You et al., Towards accurate model selection in deep unsupervised domain adaptation, ICML (2019).
    """
    weight = _ones_or(weights, len(labels))
    weighted = ratio * _losses(certainty, labels)
    risk, mean = (float(np.average(values, weights=weight)) for values in (weighted, ratio))
    variance = float(np.average((ratio - mean) ** 2, weights=weight))
    covariance = float(np.average((weighted - risk) * (ratio - mean), weights=weight))
    factor = -covariance / variance if variance > 0 else 0.0
    return -(risk + factor * (mean - 1.0))


def _losses(certainty: Floats, labels: NDArray[np.uint8]) -> Array:
    """Return the binary cross-entropy of each track, mean over species, shape (n_tracks,)."""
    bounded = _bounded(certainty)
    return np.asarray(-np.log(np.where(labels == 1, bounded, 1.0 - bounded)).mean(axis=1))


@dataclass(frozen=True)
class DensityRatio:
    """How simulation must be weighted to look like data, as a classifier of the two tells it.

    Attributes
    ----------
    ratio
        Density of data over that of simulation, per simulated track, float64 [N]; (weighted) mean 1.
    scale
        What the ratio was divided by to have mean 1; far from 1, the classifier is not calibrated.
    effective_share
        Effective sample size of the weights times the ratio, (Σw)²/Σw², over N.
    discriminator_auc
        Area under the ROC curve of the classifier on tracks that it was not fitted to: 0.5 if data and simulation
        cannot be told apart. Lower is better.
    """

    ratio: Array
    scale: float
    effective_share: float
    discriminator_auc: float

    @property
    def unscaled(self) -> Array:
        """The ratio as the classifier gave it, after clipping, float64 [N]."""
        return self.ratio * self.scale


def density_ratio(
    simulation: Floats,
    data: Floats,
    *,
    seed: int,
    collisions: NDArray[np.uint64],
    folds: int = 5,
    weights: Floats | None = None,
    most: float = 20.0,
    iterations: int = 100,
) -> DensityRatio:
    """Estimate the density ratio of data and simulation with boosted trees, out of fold.

    Both samples are made to weigh the same in the fit, so that the odds of a track to be data are the ratio.

    Parameters
    ----------
    simulation, data
        Features, [N, F] and [M, F]; NaN for a value that is absent.
    seed
        Seed of folds and trees.
    collisions
        Collision of each track, the simulated ones first, shape (N + M,). Tracks of one share features, so that all are
        in one fold.
    folds
        Parts of the samples; a part's odds come from a classifier fitted to the others.
    weights
        How much each simulated track counts, shape (N,); 1 if not given.
    most
        The ratio is clipped to [1/most, most] before it is scaled.
    iterations
        Trees of a classifier.

    Notes
    -----
    S. Bickel, M. Brückner, T. Scheffer, J. Mach. Learn. Res. 10 (2009) 2137.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import StratifiedGroupKFold

    n = len(simulation)
    weight = _ones_or(weights, n)
    features = np.concatenate([simulation, data])
    is_data = np.repeat(np.array([0, 1], np.uint8), [n, len(data)])
    share = np.concatenate([weight / weight.sum(), np.full(len(data), 1.0 / len(data))]) * len(features) / 2.0
    probability = np.empty(len(features))
    parts = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(features, is_data, collisions)
    for fitted, held_out in parts:
        trees = HistGradientBoostingClassifier(max_iter=iterations, early_stopping=False, random_state=seed)
        trees.fit(features[fitted], is_data[fitted], share[fitted])
        probability[held_out] = trees.predict_proba(features[held_out])[:, 1]
    odds = _odds(probability[:n])
    clipped = np.clip(odds, 1.0 / most, most)
    scale = float(np.average(clipped, weights=weight))
    total = weight * clipped
    return DensityRatio(
        ratio=clipped / scale,
        scale=scale,
        effective_share=float(total.sum() ** 2 / (total @ total) / n),
        discriminator_auc=_auc(probability, is_data, share),
    )


def class_probabilities(certainty: Floats) -> Array:
    """Return probabilities of S + 1 exclusive classes, the last for none of the species, float64 [N, S + 1].

    They are those of exactly one or none of independent answers being yes: the odds of each species against 1.
    """
    odds = np.concatenate([_odds(certainty), np.ones((len(certainty), 1))], axis=1)
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))


def soft_neighbourhood(
    vectors: Floats, *, seed: int, temperature: float = 0.05, most: int = 5000, batch: int = 1000
) -> float:
    """Return how many neighbours tracks of data have: the mean entropy of the similarities to the other tracks, nats.

    A model that gives the same vector to all tracks has the highest score of all, ln(n - 1); a model is to be
    chosen by it among models that are known not to collapse.

    Parameters
    ----------
    vectors
        `class_probabilities` of data, or an encoder's vectors, [N, D].
    seed
        Seed of the tracks drawn if there are more than `most`.
    temperature
        Cosines are divided by it.
    most
        Tracks compared with one another at most.
    batch
        Tracks whose similarities to all others are in memory at once.

    Notes
    -----
    K. Saito et al., Tune it the right way: unsupervised validation of domain adaptation via soft neighborhood
    density, ICCV (2021).
    """
    drawn = vectors[_draw(len(vectors), most, np.random.default_rng(seed))].astype(np.float64)
    unit = drawn / np.maximum(np.linalg.norm(drawn, axis=1, keepdims=True), _LEAST)
    total = 0.0
    for start in range(0, len(unit), batch):
        scaled = unit[start : start + batch] @ unit.T / temperature
        own = np.arange(len(scaled))
        scaled[own, start + own] = -np.inf
        scaled -= scaled.max(axis=1, keepdims=True)
        similarity = np.exp(scaled)
        norm = similarity.sum(axis=1)
        scaled[own, start + own] = 0.0
        total += float((np.log(norm) - (similarity * scaled).sum(axis=1) / norm).sum())
    return total / len(unit)


def information_maximisation(certainty: Floats) -> float:
    """Return the mutual information between tracks of data and their classes, nats.

    It is the entropy of the mean of the class probabilities less the mean of their entropies. For a cross-check
    only: a model that is certain of everything and shares the tracks evenly among the classes has the highest
    score, however wrong it is.

    Parameters
    ----------
    certainty
        Of tracks of data, shape (n_tracks, n_species).

    Notes
    -----
    A. Krause, P. Perona, R. Gomes, Discriminative clustering by regularized information maximization, NIPS (2010).
    """
    probability = class_probabilities(certainty)
    return float(_entropy(probability.mean(axis=0)) - _entropy(probability).mean())


def mixup_agreement(
    predict: Callable[[Floats], Floats],
    features: Floats,
    certainty: Floats,
    *,
    seed: int,
    groups: NDArray[np.integer[Any]] | None = None,
    share: float = 0.55,
    most: int = 20000,
) -> float:
    """Return how often the class of a mixture of two tracks of data is that of their mixed certainties.

    Partners lack the same features. Each track is mixed with one of the same most likely class, which looks at how
    dense the classes are, and with one of another, which looks at the border between them. Every class counts the
    same, and so do the two sorts of partner.

    Parameters
    ----------
    predict
        Certainties [K, S] of features [K, F].
    features
        Of tracks of data, [N, F]; NaN for a value that is absent.
    certainty
        What `predict` gives for them, [N, S].
    seed
        Seed of the partners.
    groups
        Only tracks of the same group are mixed, shape (N,): for what cannot be mixed, such as charges.
    share
        Share of the track in the mixture; the rest is its partner's.
    most
        Tracks mixed at most, drawn by the seed.

    Returns
    -------
    float
        In [0, 1]; NaN if no track has a partner.

    Notes
    -----
    D. Hu et al., Mixed samples as probes for unsupervised model selection in domain adaptation (MixVal),
    NeurIPS (2023).
    """
    random = np.random.default_rng(seed)
    rows = _draw(len(features), most, random)
    features, certainty = features[rows], certainty[rows]
    absent = np.isnan(features)
    kept_apart = np.zeros(len(rows), np.int64) if groups is None else groups[rows]
    _, cell = np.unique(np.column_stack([kept_apart, absent]), axis=0, return_inverse=True)
    classes = class_probabilities(certainty).argmax(axis=1)
    agreements = []
    for within in (True, False):
        first, second = _partners(cell, classes, within, random)
        if not first.size:
            continue
        mixed, expected = (share * values[first] + (1.0 - share) * values[second] for values in (features, certainty))
        found = class_probabilities(predict(mixed.astype(features.dtype))).argmax(axis=1)
        agrees = found == class_probabilities(expected).argmax(axis=1)
        agreements.append(np.mean([agrees[classes[first] == one].mean() for one in np.unique(classes[first])]))
    return float(np.mean(agreements)) if agreements else float("nan")


def _partners(
    cell: NDArray[np.intp], classes: NDArray[np.intp], within: bool, random: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the tracks that have a partner in their cell, and a partner of the same class or of another."""
    first, second = [np.empty(0, np.intp)], [np.empty(0, np.intp)]
    for rows in (np.flatnonzero(cell == one) for one in range(cell.max() + 1)):
        for one in np.unique(classes[rows]):
            own, others = rows[classes[rows] == one], rows[classes[rows] != one]
            if within and own.size > 1:
                shuffled = random.permutation(own)
                first.append(shuffled)
                second.append(np.roll(shuffled, 1))
            elif not within and others.size:
                first.append(own)
                second.append(random.choice(others, own.size))
    return np.concatenate(first), np.concatenate(second)


def species_plausibility(
    certainty: Floats, bins: NDArray[np.integer[Any]], expected_share: Floats, *, least: float = 1e-3
) -> float:
    """Return minus the mean |ln ratio| of the species' shares that certainties of data sum to, and expected ones.

    At -0.1 the yields are off by ten percent on average. Shares are those among the species, so tracks that are none
    of them do not matter. Species count the same, however rare; bins count by their number of tracks.

    Parameters
    ----------
    certainty
        Of tracks of data, shape (n_tracks, n_species).
    bins
        Bin of each track, shape (n_tracks,), from 0; tracks of a negative bin are left out.
    expected_share
        Yields in each bin, in any unit, shape (n_bins, n_species); a bin without any, or a species with none in a
        bin, is left out.
    least
        Shares below it count as it.
    """
    inside = bins >= 0
    n_bins = len(expected_share)
    summed = [np.bincount(bins[inside], column[inside], n_bins) for column in certainty.T]
    found = np.stack(summed, axis=1).astype(np.float64)
    counts = np.bincount(bins[inside], minlength=n_bins)[:, None] * (expected_share > 0)
    known = counts.any(axis=0)
    if not known.any():
        return float("nan")
    distance = np.abs(np.log(_shares(found, least) / _shares(expected_share, least)))
    return -float(np.average(distance[:, known], axis=0, weights=counts[:, known]).mean())


def _shares(yields: Floats, least: float) -> Array:
    total = yields.sum(axis=1, keepdims=True)
    return np.maximum(yields / np.where(total > 0, total, 1.0), least)


def probe_agreement(data: tuple[ArrayLike, ArrayLike], simulation: tuple[ArrayLike, ArrayLike]) -> float:
    """Return minus χ² per rate of the difference between rates of probes in data and in simulation.

    Parameters
    ----------
    data, simulation
        Rates and their errors (one standard deviation), each of one common shape
        (`pidflow.evaluate.probes.rate_arrays`); NaN where undefined.

    Returns
    -------
    float
        About -1 if they differ by their errors alone; NaN if no rate is defined in both.
    """
    rates, errors = (np.stack([np.asarray(pair[i], np.float64) for pair in (data, simulation)]) for i in (0, 1))
    squared = (rates[0] - rates[1]) ** 2 / (errors**2).sum(axis=0)
    defined = squared[~np.isnan(squared)]
    return -float(defined.mean()) if defined.size else float("nan")


def spearman(score: ArrayLike, truth: ArrayLike) -> float:
    """Return the rank correlation of candidates' scores with how good they are in truth.

    Parameters
    ----------
    score, truth
        Of each candidate, shape (n,), of both higher is better; a candidate with a NaN is left out.

    Returns
    -------
    float
        In [-1, 1]; NaN if all scores or all truths are the same.

    Notes
    -----
    C. Spearman, Am. J. Psychol. 15 (1904) 72; tied values share their mean rank.
    """
    values = np.stack([np.asarray(score, np.float64), np.asarray(truth, np.float64)])
    ranks = rankdata(values[:, ~np.isnan(values).any(axis=0)], axis=1)
    deviation = ranks - ranks.mean(axis=1, keepdims=True) if ranks.size else ranks
    norm = np.sqrt((deviation**2).sum(axis=1).prod())
    return float((deviation[0] @ deviation[1]) / norm) if norm > 0 else float("nan")


def regret(score: ArrayLike, truth: ArrayLike) -> float:
    """Return how much better the best candidate is in truth than the one of the best score. Lower is better.

    Parameters
    ----------
    score, truth
        As of `spearman`; a candidate of NaN score is never chosen, and among candidates that share the best score
        the choice is by chance: their mean counts. NaN if no candidate has a score.
    """
    scores, truths = np.asarray(score, np.float64), np.asarray(truth, np.float64)
    if np.isnan(scores).all():
        return float("nan")
    return float(np.nanmax(truths) - truths[scores == np.nanmax(scores)].mean())


def _ones_or(weights: Floats | None, n: int) -> Array:
    return np.ones(n) if weights is None else np.asarray(weights, np.float64)


def _bounded(certainty: Floats) -> Array:
    return np.clip(certainty.astype(np.float64), _LEAST, 1.0 - _LEAST)


def _odds(certainty: Floats) -> Array:
    bounded = _bounded(certainty)
    return np.asarray(bounded / (1.0 - bounded))


def _entropy(probability: Array) -> Array:
    return np.asarray(-(probability * np.log(probability)).sum(axis=-1))


def _draw(n: int, most: int, random: np.random.Generator) -> NDArray[np.intp]:
    return np.arange(n) if n <= most else np.sort(random.choice(n, most, replace=False))
