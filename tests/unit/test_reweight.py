"""Reweighting: what a classifier's weights recover, and their bounds."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from adapt_samples import adapted, dataset, unlabelled, values, with_values
from pydantic import ValidationError

from pidflow.adapt.steps import settings_of
from pidflow.adapt.steps.reweight import effective_size, fold_of


def test_effective_size() -> None:
    assert effective_size(np.full(7, 3.0)) == pytest.approx(7.0)
    assert effective_size(np.array([1.0, 1.0, 0.0, 0.0])) == pytest.approx(2.0)
    assert effective_size(np.array([3.0, 1.0])) == pytest.approx(1.6)
    assert effective_size(np.zeros(3)) == 0.0


def test_folds_are_even_and_follow_the_collision() -> None:
    collision = np.repeat(np.arange(5000, dtype=np.uint64), 3)
    fold = fold_of(collision, 5)
    assert (fold.reshape(-1, 3) == fold[::3, None]).all()
    assert np.bincount(fold[::3]) == pytest.approx(np.full(5, 1000), abs=120)
    assert len({fold_of(collision + np.uint64(2**63), n).max() for n in (2, 5)}) == 2


def test_known_composition_is_recovered(tmp_path: Path) -> None:
    """Data has four times as many protons per pion; the TPC tells them apart below 1 GeV/c."""
    simulation = dataset(16000, species=(211, 211, 2212), seed=4)
    data = dataset(16000, species=(211, 2212, 2212), seed=5)
    table, report = adapted(tmp_path, "reweight", simulation, unlabelled(data))
    weight, pdg = values(table, "weight"), values(table, "pdg_code")
    told = values(table, "p") < 0.8
    ratio = weight[told & (pdg == 2212)].mean() / weight[told & (pdg == 211)].mean()
    assert ratio == pytest.approx(4.0, rel=0.15)
    assert weight.mean() == pytest.approx(1.0, abs=0.02)
    training = np.asarray(table["split"].to_numpy() == "train")
    assert weight[training].mean() == pytest.approx(1.0, abs=1e-5)
    assert report["effective_size"] == pytest.approx(effective_size(weight[training]), rel=1e-5)
    assert all(0.55 < each["auc"] < 0.75 for each in report["patterns"])


def test_patterns_get_the_shares_of_data(tmp_path: Path) -> None:
    simulation, data = dataset(6000), unlabelled(dataset(6000, seed=2))
    gone = (np.random.default_rng(0).random(6000) < 0.5) & data["has_trd"].to_numpy()
    data = with_values(
        data, has_trd=data["has_trd"].to_numpy() & ~gone, trd_signal=np.where(gone, np.nan, values(data, "trd_signal"))
    )
    table, report = adapted(tmp_path, "reweight", simulation, data)
    shares = [
        np.average(own["has_trd"].to_numpy(), weights=values(own, "weight") if "weight" in own.column_names else None)
        for own in (part.filter(pc.field("split") == "train") for part in (table, data))
    ]
    assert shares[0] == pytest.approx(shares[1], abs=1e-5)
    assert sum(each["share"]["data"] for each in report["patterns"]) == pytest.approx(1.0)


def test_without_a_shift_weights_are_even(tmp_path: Path) -> None:
    table, report = adapted(tmp_path, "reweight", dataset(8000), unlabelled(dataset(8000, seed=2)))
    assert report["effective_share"] > 0.9
    assert all(abs(each["auc"] - 0.5) < 0.05 for each in report["patterns"])
    assert values(table, "weight").std() < 0.35


def test_training_tracks_are_judged_by_others(tmp_path: Path) -> None:
    """A classifier that saw the tracks it judges tells even equal samples apart."""
    samples = dataset(4000), unlabelled(dataset(4000, seed=2))
    _, report = adapted(tmp_path, "reweight", *samples, leaves=60, trees=60, learning_rate=0.3)
    assert all(each["auc"] < 0.56 for each in report["patterns"])


def test_ratios_are_clipped(tmp_path: Path) -> None:
    samples = dataset(6000), unlabelled(dataset(6000, seed=2, shifted=True))
    (loose, free), (tight, report) = (adapted(tmp_path, "reweight", *samples, clip=clip) for clip in (1000.0, 1.5))
    assert free["clipped_share"] == 0.0
    assert report["clipped_share"] > 0.1
    pattern = loose["has_trd"].to_numpy() + 2 * loose["has_tof"].to_numpy()
    for number in range(4):
        weight = values(tight, "weight")[pattern == number]
        assert weight.max() / weight.min() == pytest.approx(1.5**2, rel=1e-4)
    assert report["effective_share"] > free["effective_share"]


def test_weights_are_multiplied_into_earlier_ones(tmp_path: Path) -> None:
    simulation, data = dataset(12000), unlabelled(dataset(12000, seed=2))
    positive = values(simulation, "sign") > 0
    earlier = np.where(positive, 3.0, 1.0)
    simulation = simulation.append_column("weight", pa.array(earlier, pa.float32()))
    table, _ = adapted(tmp_path, "reweight", simulation, data, columns=["p", "sign"])
    weight = values(table, "weight")
    assert weight[positive].mean() / weight[~positive].mean() == pytest.approx(1.0, rel=0.2)


@pytest.mark.parametrize("name", ["pdg_code", "collision_id", "nonsense"])
def test_columns_that_must_not_be_compared(name: str) -> None:
    with pytest.raises(ValidationError, match=f"'{name}' is no measured column"):
        settings_of("reweight").model_validate({"kind": "reweight", "columns": ["p", name]})
