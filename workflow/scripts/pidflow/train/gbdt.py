"""Gradient-boosted trees: one binary ensemble per species, missing values handled by the trees."""

from __future__ import annotations

from pathlib import Path

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from pidflow.config.models import Gbdt
from pidflow.files import replacing
from pidflow.model import ModelInfo
from pidflow.physics import object_key
from pidflow.train.data import Tracks


def fit(
    train: Tracks, validation: Tracks, info: ModelInfo, settings: Gbdt, folder: str | Path, *, threads: int
) -> None:
    """Train the trees and write their model directory (LightGBM's text format)."""
    parameters = {
        "objective": "binary",
        "num_leaves": settings.leaves,
        "learning_rate": settings.learning_rate,
        "seed": info.seed,
        "deterministic": True,
        "force_col_wise": True,
        "num_threads": threads,
        "verbosity": -1,
    }
    for number, pdg in enumerate(info.species):
        rows = lgb.Dataset(train.features, np.ascontiguousarray(train.labels[:, number]))
        held_out = lgb.Dataset(validation.features, np.ascontiguousarray(validation.labels[:, number]), reference=rows)
        booster = lgb.train(
            parameters,
            rows,
            settings.trees,
            valid_sets=[held_out],
            callbacks=[lgb.early_stopping(settings.patience, verbose=False)],
        )
        with replacing(Path(folder) / f"trees_{object_key(pdg)}.txt") as temporary:
            booster.save_model(temporary, num_iteration=booster.best_iteration)
        loss = booster.best_score["valid_0"]["binary_logloss"]
        print(f"run {info.run} gbdt {pdg}: {booster.best_iteration} trees, validation_loss {loss:.4f}", flush=True)
    info.write(folder)


class Scorer:
    """Certainties float32 [N, S] of features float32 [N, F]."""

    def __init__(self, folder: str | Path, info: ModelInfo) -> None:
        self.boosters = [lgb.Booster(model_file=Path(folder) / f"trees_{object_key(pdg)}.txt") for pdg in info.species]

    def __call__(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.stack([np.asarray(booster.predict(features)) for booster in self.boosters], axis=1).astype(np.float32)
