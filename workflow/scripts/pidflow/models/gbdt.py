"""Gradient-boosted trees: one binary ensemble per species, missing values handled by the trees."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from pidflow.blocks import Count, Positive
from pidflow.errors import PidflowError
from pidflow.files import write_text
from pidflow.models import base
from pidflow.models.base import Fitting, Floats
from pidflow.physics import object_key

if TYPE_CHECKING:
    from pidflow.models.base import Tracks

_SUFFIX = {"lightgbm": "txt", "xgboost": "json"}


class Settings(base.ModelSettings):
    """Gradient-boosted trees, one ensemble per species."""

    kind: Literal["gbdt"] = "gbdt"
    library: Literal["lightgbm", "xgboost"] = Field("lightgbm", description="library that grows the trees")
    trees: Count = Field(300, description="most trees per species")
    leaves: Annotated[int, Field(ge=2)] = Field(31, description="leaves per tree")
    learning_rate: Positive = Field(0.1, description="shrinkage")
    patience: Count = Field(15, description="trees without a better validation loss before stopping")


Grown = Iterator[tuple[str, int, float]]  # the model as text, its trees, its validation loss


class Model(base.Model[Settings]):
    """Boosted trees, kept in the text format of the library that grew them."""

    Settings = Settings

    def fit(self, train: Tracks, validation: Tracks, fitting: Fitting) -> None:
        grow = _lightgbm if self.settings.library == "lightgbm" else _xgboost
        grown = grow(train, validation, self.settings, self.info.seed, fitting.threads)
        for pdg, (text, trees, loss) in zip(self.info.species, grown, strict=True):
            write_text(self._path(pdg), text)
            print(f"run {self.info.run} gbdt {pdg}: {trees} trees, validation_loss {loss:.4f}", flush=True)

    def score(self, features: Floats) -> Floats:
        scores = [self._predict(booster, features) for booster in self._boosters]
        return np.stack(scores, axis=1).astype(np.float32)

    def graph(self, number: int) -> Any:
        from pidflow.train.trees import from_lightgbm, from_xgboost

        convert = from_lightgbm if self.settings.library == "lightgbm" else from_xgboost
        return convert(self._boosters[number]).graph(len(self.info.features))

    def _path(self, pdg: int) -> Path:
        return self.folder / f"trees_{object_key(pdg)}.{_SUFFIX[self.settings.library]}"

    @cached_property
    def _boosters(self) -> list[Any]:
        return [self._load(self._path(pdg)) for pdg in self.info.species]

    def _load(self, path: Path) -> Any:
        if self.settings.library == "lightgbm":
            from lightgbm import Booster
            from lightgbm.basic import LightGBMError as BrokenError
        else:
            from xgboost import Booster
            from xgboost.core import XGBoostError as BrokenError
        try:
            return Booster(model_file=path)
        except BrokenError:
            raise PidflowError(f"{path}: no trees can be read from it; train the model again") from None

    def _predict(self, booster: Any, features: Floats) -> Any:
        if self.settings.library == "lightgbm":
            return booster.predict(features)
        return booster.inplace_predict(features)


def _lightgbm(train: Tracks, validation: Tracks, settings: Settings, seed: int, threads: int) -> Grown:
    import lightgbm as lgb

    parameters = {
        "objective": "binary",
        "num_leaves": settings.leaves,
        "learning_rate": settings.learning_rate,
        "seed": seed,
        "deterministic": True,
        "force_col_wise": True,
        "num_threads": threads,
        "verbosity": -1,
    }
    rows = lgb.Dataset(train.features, _label(train, 0), weight=train.weights, params=parameters).construct()
    held_out = lgb.Dataset(
        validation.features, _label(validation, 0), weight=validation.weights, reference=rows, params=parameters
    ).construct()
    for number in range(train.labels.shape[1]):
        rows.set_label(_label(train, number))
        held_out.set_label(_label(validation, number))
        stop = lgb.early_stopping(settings.patience, verbose=False)
        booster = lgb.train(parameters, rows, settings.trees, valid_sets=[held_out], callbacks=[stop])
        # the text ends with the best tree; the trees do not depend on the threads, so neither should the file
        text = re.sub(r"^\[num_threads: \d+\]\n", "", booster.model_to_string(), flags=re.MULTILINE)
        yield text, booster.best_iteration, booster.best_score["valid_0"]["binary_logloss"]


def _xgboost(train: Tracks, validation: Tracks, settings: Settings, seed: int, threads: int) -> Grown:
    import xgboost as xgb

    parameters = {
        "objective": "binary:logistic",
        "eval_metric": "logloss",
        "tree_method": "hist",
        "grow_policy": "lossguide",
        "max_leaves": settings.leaves,
        "max_depth": 0,
        "learning_rate": settings.learning_rate,
        "seed": seed,
        "nthread": threads,
    }
    rows = xgb.QuantileDMatrix(train.features, weight=train.weights, nthread=threads)
    held_out = xgb.QuantileDMatrix(validation.features, weight=validation.weights, nthread=threads, ref=rows)
    for number in range(train.labels.shape[1]):
        rows.set_label(_label(train, number))
        held_out.set_label(_label(validation, number))
        booster = xgb.train(
            parameters,
            rows,
            settings.trees,
            evals=[(held_out, "validation")],
            early_stopping_rounds=settings.patience,
            verbose_eval=False,
        )
        trees = booster.best_iteration + 1
        yield booster[:trees].save_raw("json").decode(), trees, booster.best_score


def _label(tracks: Tracks, number: int) -> Floats:
    return np.ascontiguousarray(tracks.labels[:, number], dtype=np.float32)
