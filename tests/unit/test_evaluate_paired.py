"""Differences between models and shares of the ceiling, with paired intervals."""

import numpy as np
import pytest
from test_evaluate_metrics import compute
from test_evaluate_sample import write_dataset, write_scores

from pidflow.errors import PidflowError
from pidflow.evaluate.paired import difference, share_of_ceiling
from pidflow.evaluate.schema import Metrics


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Metrics]:
    folder = tmp_path_factory.mktemp("models")
    dataset = write_dataset(folder / "dataset.parquet", n_tracks=6000)
    scores = {
        "nsigma": write_scores(folder / "nsigma.parquet", dataset, cut=3.0),
        "fse": write_scores(folder / "fse.parquet", dataset, width=0.1),
        "hidden": write_scores(folder / "hidden.parquet", dataset, width=0.07, hidden=0.1),
        "ceiling": write_scores(folder / "ceiling.parquet", dataset, width=0.07),
    }
    return {model: compute(folder, dataset, path, bootstrap=100) for model, path in scores.items()}


def width(estimate):
    return estimate.high - estimate.low


@pytest.mark.parametrize("complete", [False, True])
def test_difference_is_known_better_than_its_terms(models, complete):
    best, other = models["ceiling"], models["fse"]
    ours, theirs = (model.complete if complete else model.macro for model in (best, other))
    found = difference(best, other, complete=complete)
    assert found.value == pytest.approx(ours.auc.value - theirs.auc.value, abs=1e-15)
    replicas = np.array(ours.auc_replicas) - np.array(theirs.auc_replicas)
    assert (found.low, found.high) == pytest.approx(np.quantile(replicas, [0.16, 0.84]))
    assert width(found) < 0.7 * max(width(ours.auc), width(theirs.auc))
    assert difference(other, best, complete=complete).value == -found.value


def test_share_of_ceiling(models):
    floor, ceiling = models["nsigma"], models["ceiling"]
    found = share_of_ceiling(models["hidden"], floor, ceiling)
    low, own, high = (model.macro.auc.value for model in (floor, models["hidden"], ceiling))
    assert found.value == pytest.approx((own - low) / (high - low))
    assert found.low < found.value < found.high
    assert share_of_ceiling(floor, floor, ceiling).value == 0.0
    assert share_of_ceiling(ceiling, floor, ceiling).value == 1.0
    assert share_of_ceiling(floor, ceiling, floor).value is None


@pytest.mark.parametrize("change", [{"seed": 4}, {"run": 2}, {"n_tracks": 1}, {"sample": "closure"}])
def test_models_on_other_tracks_or_replicas_are_refused(models, change):
    other = models["fse"].model_copy(update=change)
    with pytest.raises(PidflowError, match="not of the same tracks and bootstrap replicas"):
        difference(models["ceiling"], other)
