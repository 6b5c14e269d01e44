"""Reweighting: each simulated track counts as often as data has tracks like it.

For each detector pattern a classifier learns to tell data from simulation; its odds are the ratio of the densities.
Training tracks are judged by classifiers that did not see their collision, all others by the mean of all. Weights
cannot move a signal: where data lies beside the simulation, they only pick the simulated tracks that lie there by
chance.

Sources: H. Shimodaira, J. Stat. Plan. Inference 90 (2000) 227 (weights under covariate shift); S. Bickel, M. Brückner,
T. Scheffer, JMLR 10 (2009) 2137 (densities' ratio from a classifier); L. Kish, Survey Sampling, Wiley 1965 (effective
size of a sample).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field

from pidflow.adapt.steps import base
from pidflow.blocks import Count, Positive
from pidflow.tracks import BY_NAME, DETECTOR_PATTERNS

if TYPE_CHECKING:
    import pyarrow as pa

Floats = NDArray[np.float64]

_FEWEST = 200
"""Tracks that a pattern needs in either sample for a classifier."""

_FLAGS = ("has_trd", "has_tof")


def _readable(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name not in BY_NAME or BY_NAME[name].detector in ("id", "truth"):
            raise ValueError(f"{name!r} is no measured column of the dataset; name columns of pidflow.tracks")
    return names


class Settings(base.StepSettings):
    """Simulated tracks weighted to data's density by classifiers of the two samples."""

    kind: Literal["reweight"] = "reweight"
    columns: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_readable)] = Field(
        (
            "p", "eta", "sign", "its_mean_cluster_size", "its_signal", "tpc_signal", "tpc_n_cls_found", "trd_signal",
            "beta",
        ),
        description="columns in which the samples are compared, as far as both have them",
    )  # fmt: skip
    clip: Annotated[float, Field(gt=1)] = Field(10.0, description="ratios of densities end here and at its inverse")
    folds: Annotated[int, Field(ge=2, le=20)] = Field(5, description="parts for cross-fitting, by collision")
    trees: Count = Field(200, description="trees of a classifier at most; it stops once a tenth of its tracks says so")
    leaves: Annotated[int, Field(ge=2)] = Field(15, description="leaves of a tree")
    learning_rate: Positive = Field(0.05, description="step of the boosting")


def effective_size(weight: Floats) -> float:
    """Return how many tracks of equal weight are worth as much: (Σ w)² / Σ w² (Kish)."""
    squares = float(np.square(weight).sum())
    return float(weight.sum()) ** 2 / squares if squares > 0 else 0.0


def fold_of(collision: NDArray[np.uint64], folds: int) -> NDArray[np.intp]:
    """Return the part that collisions [n] belong to, by a hash: the mixing function of SplitMix64."""
    mixed = collision.astype(np.uint64)
    with np.errstate(over="ignore"):
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
        mixed = mixed ^ (mixed >> np.uint64(31))
    return (mixed % np.uint64(folds)).astype(np.intp)


def pattern_of(table: pa.Table) -> NDArray[np.intp]:
    """Return the index of each track's pattern in `pidflow.tracks.DETECTOR_PATTERNS`, [n]."""
    trd, tof = (table[name].to_numpy().astype(np.intp) for name in _FLAGS)
    return np.asarray(trd + 2 * tof)


class Ratio:
    """Ratio of data's density to simulation's within one pattern, by a classifier per fold.

    Parameters
    ----------
    settings
        Of the classifiers.
    seed
        Of their choices.
    """

    def __init__(self, settings: Settings, seed: int) -> None:
        self._settings = settings
        self._seed = seed
        self._used: NDArray[np.intp] = np.empty(0, np.intp)
        self._models: list[Any] = []

    def fit(self, features: Floats, is_data: NDArray[np.bool_], weight: Floats, fold: NDArray[np.intp]) -> None:
        """Train on tracks of both samples: features [n, F], sample, weight and fold of each [n]."""
        from sklearn.ensemble import HistGradientBoostingClassifier
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        seen = np.isfinite(features)
        self._used = np.flatnonzero(seen[is_data].any(axis=0) & seen[~is_data].any(axis=0))
        self._models = []
        for number in range(self._settings.folds if len(self._used) else 0):
            chosen = fold != number
            balanced = weight[chosen]
            for domain in (False, True):
                own = is_data[chosen] == domain
                balanced[own] *= 0.5 * len(balanced) / balanced[own].sum()
            model = HistGradientBoostingClassifier(
                learning_rate=self._settings.learning_rate,
                max_iter=self._settings.trees,
                max_leaf_nodes=self._settings.leaves,
                min_samples_leaf=50,
                l2_regularization=1.0,
                early_stopping=True,
                validation_fraction=0.1,
                n_iter_no_change=10,
                random_state=self._seed + number,
            )
            # threads that wait for each other on a shared machine cost more than they gain
            with threadpool_limits(1):
                self._models.append(model.fit(features[chosen][:, self._used], is_data[chosen], sample_weight=balanced))

    def of(self, features: Floats, fold: NDArray[np.intp], held_out: NDArray[np.bool_]) -> Floats:
        """Return the ratio at features [n, F]: of its own fold's classifier where held out, else the mean of all."""
        from threadpoolctl import threadpool_limits

        if not len(features) or not self._models:
            return np.ones(len(features))
        with threadpool_limits(1):
            odds = np.stack([np.exp(model.decision_function(features[:, self._used])) for model in self._models])
        return np.where(held_out, odds[fold, np.arange(len(features))], odds.mean(axis=0))


class Step(base.SampleStep):
    """Weighs simulated tracks."""

    Settings = Settings

    def fit(self, simulation: Path, data: Path, surroundings: base.Surroundings) -> dict[str, Any]:
        """Train the classifiers of every pattern on training tracks of both samples."""
        from sklearn.metrics import roc_auc_score

        from pidflow.adapt import tables

        names = tuple(dict.fromkeys(self.settings.columns))
        read = tuple(dict.fromkeys((*names, *_FLAGS, "collision_id")))
        both = [tables.read_training(path, read) for path in (simulation, data)]
        pattern = [pattern_of(table) for table in both]
        features = [self._features(table) for table in both]
        fold = [self._fold(table) for table in both]
        weight = [tables.weight_of(table) for table in both]
        self._ratios: dict[int, Ratio] = {}
        self._factor = np.ones(len(DETECTOR_PATTERNS))
        after, clipped = weight[0].copy(), np.zeros(len(weight[0]), bool)
        report: list[dict[str, Any]] = []
        for number, name in enumerate(DETECTOR_PATTERNS):
            old, new = (own == number for own in pattern)
            shares = [float(w[own].sum() / w.sum()) for w, own in zip(weight, (old, new), strict=True)]
            auc = None
            ratio = np.ones(int(old.sum()))
            if min(old.sum(), new.sum()) >= _FEWEST:
                self._ratios[number] = Ratio(self.settings, surroundings.seed)
                joined = [np.concatenate([part[own] for part, own in zip(parts, (old, new), strict=True)])
                          for parts in (features, weight, fold)]  # fmt: skip
                is_data = np.repeat((False, True), (old.sum(), new.sum()))
                self._ratios[number].fit(joined[0], is_data, joined[1], joined[2])
                judged = self._ratios[number].of(joined[0], joined[2], np.ones(len(is_data), bool))
                auc = float(roc_auc_score(is_data, judged, sample_weight=joined[1]))
                ratio = judged[~is_data]
            limited = self._clipped(ratio)
            clipped[old] = limited != ratio
            if shares[0] > 0:
                share = float(self._clipped(np.array(shares[1] / shares[0])))
                self._factor[number] = share / np.average(limited, weights=weight[0][old])
            after[old] *= self._factor[number] * limited
            report.append(
                {
                    "pattern": name,
                    "tracks": {"simulation": int(old.sum()), "data": int(new.sum())},
                    "share": {"simulation": shares[0], "data": shares[1]},
                    "auc": auc,
                    **_account(after[old], clipped[old]),
                }
            )
        return {
            "columns": [
                name for i, name in enumerate(names) if all(np.isfinite(part[:, i]).any() for part in features)
            ],
            "patterns": report,
            **_account(after, clipped),
        }

    def apply(self, table: pa.Table, random: np.random.Generator) -> pa.Table:
        """Return tracks with weights; nothing is drawn."""
        from pidflow.adapt import tables

        pattern, features, fold = pattern_of(table), self._features(table), self._fold(table)
        training = np.asarray(table["split"].to_numpy() == "train")
        weight = self._factor[pattern]
        for number, ratio in self._ratios.items():
            own = pattern == number
            weight[own] *= self._clipped(ratio.of(features[own], fold[own], training[own]))
        return tables.weighted(table, weight)

    def _features(self, table: pa.Table) -> Floats:
        from pidflow.adapt.tables import columns_of

        names = tuple(dict.fromkeys(self.settings.columns))
        return np.stack(list(columns_of(table, names).values()), axis=1)

    def _fold(self, table: pa.Table) -> NDArray[np.intp]:
        return fold_of(table["collision_id"].to_numpy(), self.settings.folds)

    def _clipped(self, ratio: Floats) -> Floats:
        return np.clip(ratio, 1.0 / self.settings.clip, self.settings.clip)


def _account(weight: Floats, clipped: NDArray[np.bool_]) -> dict[str, float]:
    size = effective_size(weight)
    return {
        "effective_size": size,
        "effective_share": size / len(weight) if len(weight) else 0.0,
        "clipped_share": float(clipped.mean()) if len(clipped) else 0.0,
    }
