"""Feature selection: SHAP values of boosted trees, ranked with their spread over folds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shap
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from pidflow.config.models import Features
from pidflow.dataset.ranking import Ranking
from pidflow.errors import PidflowError
from pidflow.files import write_json
from pidflow.identity import uniform
from pidflow.parquet import matrix
from pidflow.tracks import BY_NAME, O2_MASKED, o2_label

Array = NDArray[np.float64]

_TREES = 60
_LEAVES = 15
_LEARNING_RATE = 0.15


def read_columns(
    path: str | Path, features: tuple[str, ...], rows: pc.Expression | None = None
) -> dict[str, NDArray[Any]]:
    """Read features as float32 with NaN for null, and the columns that decide label and fold.

    Returns
    -------
    dict
        ``features`` float32 [n, F]; ``pdg_code`` int64 [n], 0 where null; ``collision_id`` uint64 [n].
    """
    table = pq.read_table(path, columns=[*features, "pdg_code", "collision_id"], filters=rows)
    return {
        "features": matrix(table, features),
        "pdg_code": pc.fill_null(table["pdg_code"], 0).to_numpy().astype(np.int64),
        "collision_id": table["collision_id"].to_numpy(),
    }


def rank(
    columns: dict[str, NDArray[Any]], features: tuple[str, ...], species: tuple[int, ...], settings: Features, seed: int
) -> Ranking:
    """Rank features by cross-validated mean |SHAP| of a multiclass boosted tree.

    Parameters
    ----------
    columns
        As `read_columns` returns, training tracks.
    features, species
        Names of the features and PDG codes of the classes; other tracks form one more class.
    settings
        The ``features`` block of the configuration.
    seed
        Seed of the trees.

    Notes
    -----
    SHAP: S. Lundberg et al., Nature Machine Intelligence 2 (2020) 56 (exact TreeSHAP). Both charges
    of a species are one class, or the sign would outrank all that identifies; classes weigh the same
    whatever their abundance; folds are made of whole collisions.
    """
    classes = (*dict.fromkeys(abs(code) for code in species), 0)
    # files may come sorted by species: thin by collision, all over the table
    chosen = uniform(columns["collision_id"], "rank") < settings.max_tracks / max(len(columns["pdg_code"]), 1)
    pdg, inputs = np.abs(columns["pdg_code"][chosen]), columns["features"][chosen]
    target = np.full(len(inputs), len(classes) - 1)
    for number, code in enumerate(classes[:-1]):
        target[pdg == code] = number
    present, target = np.unique(target, return_inverse=True)
    if len(present) < 2:
        raise PidflowError(
            "feature selection needs labelled tracks of at least two classes; check the simulation's labels"
        )
    fold = (uniform(columns["collision_id"][chosen], "folds") * settings.folds).astype(int)
    shares = []
    for number in range(settings.folds):
        inside, held_out = fold != number, _thinned(np.flatnonzero(fold == number), settings.max_shap_tracks)
        if not inside.any() or not len(held_out):
            raise PidflowError(
                "feature selection needs collisions in every fold; add simulation or lower 'features.folds'"
            )
        trees = lgb.LGBMClassifier(
            n_estimators=_TREES, num_leaves=_LEAVES, learning_rate=_LEARNING_RATE, class_weight="balanced",
            random_state=seed, n_jobs=1, deterministic=True, force_col_wise=True, verbose=-1,
        )  # fmt: skip
        trees.fit(inputs[inside], target[inside])
        values = np.asarray(shap.TreeExplainer(trees).shap_values(inputs[held_out]))
        values = values if values.ndim == 3 else np.stack([-values, values], axis=2)
        importance = np.abs(values).mean(axis=(0, 2))
        shares.append(importance / importance.sum())
        print(f"fold {number + 1}/{settings.folds}: most important {features[int(np.argmax(importance))]}", flush=True)
    return Ranking(features, np.array(shares), values, inputs[held_out], tuple(classes[number] for number in present))


def _thinned(rows: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    """Return at most `most` of the rows, evenly spread."""
    return rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)] if len(rows) else rows


def domain_shift(simulation: NDArray[np.float32], data: NDArray[np.float32]) -> tuple[Array, Array]:
    """Return, per feature, the Kolmogorov–Smirnov distance and the difference of missing shares (data − simulation)."""
    distance = np.zeros(simulation.shape[1])
    for number in range(simulation.shape[1]):
        a, b = simulation[:, number], data[:, number]
        a, b = a[~np.isnan(a)], b[~np.isnan(b)]
        if len(a) and len(b):
            distance[number] = ks_2samp(a, b).statistic
    return distance, np.isnan(data).mean(axis=0) - np.isnan(simulation).mean(axis=0)


def choose(ranking: Ranking, settings: Features) -> dict[str, str]:
    """Return the features kept, best first, each with the reason."""
    mean = ranking.share.mean(axis=0)
    order = [ranking.features[number] for number in np.argsort(-mean, kind="stable")]
    share = dict(zip(ranking.features, mean, strict=True))
    if settings.count is None:
        before = np.cumsum([0.0, *(share[name] for name in order)])
        best = [name for name, sum_before in zip(order, before, strict=False) if sum_before < settings.cumulative_share]
        why = f"within {settings.cumulative_share:.0%} of the summed mean |SHAP|"
    else:
        best, why = order, f"among the {settings.count} of highest mean |SHAP|"
    forced = dict.fromkeys(settings.required, "required by the configuration")
    while True:
        free = [name for name in best if name not in forced]
        if settings.count is not None:
            free = free[: max(settings.count - len(forced), 0)]
        lacking = _lacking(order, {*free, *forced}) if settings.every_detector else None
        if lacking is None:
            return dict.fromkeys(free, why) | forced
        forced[lacking] = f"best of the {BY_NAME[lacking].detector.upper()}: shows whether it saw the track"


def _lacking(order: list[str], kept: set[str]) -> str | None:
    """Return the best feature of a detector that O2Physics masks and that no kept feature belongs to, if any."""
    for detector in O2_MASKED:
        own = [name for name in order if name in BY_NAME and BY_NAME[name].detector == detector]
        if own and not kept & set(own):
            return own[0]
    return None


def select_features(
    simulation: str | Path,
    data: str | Path | None,
    output: str | Path,
    *,
    species: tuple[int, ...],
    settings: Features,
    seed: int,
) -> Ranking:
    """Rank the candidate features on the training set and write the feature list.

    Parameters
    ----------
    simulation, data
        Datasets of the run; data, if any, only for the domain-shift score.
    output
        JSON: ``features`` (ordered names), ``ranking`` (every candidate with importance, spread
        over folds, domain shift, O2 label and why it was kept or not).

    Raises
    ------
    PidflowError
        If the training set holds fewer than two classes.
    """
    rows = pc.field("split") == "train"
    wanted = tuple(dict.fromkeys((*settings.candidates, *settings.required)))
    columns = read_columns(simulation, wanted, rows)
    filled = ~np.isnan(columns["features"]).all(axis=0)
    if empty := [name for name, ok in zip(wanted, filled, strict=True) if not ok]:
        print(f"left out, since the input has none: {', '.join(empty)}", flush=True)
    if absent := [name for name in settings.required if name in empty]:
        raise PidflowError(f"{simulation}: required feature {absent[0]} is empty; remove it from 'features.required'")
    candidates = tuple(name for name in wanted if name not in empty)
    columns["features"] = columns["features"][:, filled]
    ranking = rank(columns, candidates, species, settings, seed)
    chosen = choose(ranking, settings)
    mean, spread = ranking.share.mean(axis=0), ranking.share.std(axis=0, ddof=1)
    shift = missing = np.zeros(len(candidates))
    if data is not None:
        shift, missing = domain_shift(columns["features"], read_columns(data, candidates, rows)["features"])
    write_json(
        output,
        {
            "features": list(chosen),
            "ranking": [
                {
                    "feature": candidates[n],
                    "o2_label": o2_label(candidates[n]),
                    "importance": float(mean[n]),
                    "spread": float(spread[n]),
                    "domain_shift": float(shift[n]) if data is not None else None,
                    "missing_shift": float(missing[n]) if data is not None else None,
                    "kept": candidates[n] in chosen,
                    "reason": chosen.get(candidates[n], "below the cut on importance"),
                }
                for n in np.argsort(-mean, kind="stable")
            ],
        },
    )
    return ranking
