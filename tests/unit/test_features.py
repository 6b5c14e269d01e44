"""Feature selection."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tracks_sample import make_dataset

with warnings.catch_warnings():
    # shap itself calls functions of matplotlib that are to be deprecated
    warnings.simplefilter("ignore", PendingDeprecationWarning)
    import shap  # noqa: F401

from pidflow.config.models import Features
from pidflow.dataset.features import Ranking, choose, domain_shift, rank, read_columns, select_features
from pidflow.errors import PidflowError
from pidflow.files import read_json

SPECIES = (211, 321, 2212)
CANDIDATES = ("x", "tpc_signal", "y", "beta", "its_signal")
SETTINGS = Features(candidates=CANDIDATES, required=("sign",), count=3, folds=2, max_tracks=1500, max_shap_tracks=150)


def select(folder: Path, settings: Features = SETTINGS, data: Path | None = None, seed: int = 1) -> dict[str, Any]:
    select_features(
        folder / "simulation.parquet", data, folder / "features.json", species=SPECIES, settings=settings, seed=seed
    )
    return read_json(folder / "features.json")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("features")
    pq.write_table(make_dataset(3000, seed=1), path / "simulation.parquet")
    shifted = make_dataset(3000, seed=2, labelled=False, shift=20.0)
    beta = shifted["beta"].to_pylist()
    beta[::2] = [None] * len(beta[::2])
    shifted = shifted.set_column(shifted.schema.get_field_index("beta"), "beta", pa.array(beta, pa.float32()))
    pq.write_table(shifted, path / "data.parquet")
    return path


@pytest.fixture(scope="module")
def chosen(folder: Path) -> dict[str, Any]:
    return select(folder, data=folder / "data.parquet")


def test_informative_features_outrank_noise(chosen):
    order = [entry["feature"] for entry in chosen["ranking"]]
    assert order[:2] == ["tpc_signal", "beta"]
    entries = {entry["feature"]: entry for entry in chosen["ranking"]}
    assert entries["tpc_signal"]["importance"] > 10 * entries["x"]["importance"]
    assert sum(entry["importance"] for entry in chosen["ranking"]) == pytest.approx(1.0)
    assert all(0 <= entry["spread"] < 0.1 for entry in chosen["ranking"])


def test_list_of_a_fixed_count_with_the_required(chosen):
    assert chosen["features"] == ["tpc_signal", "beta", "sign"]
    kept = {entry["feature"]: (entry["kept"], entry["reason"]) for entry in chosen["ranking"]}
    assert kept["sign"] == (True, "required by the configuration")
    assert kept["tpc_signal"] == (True, "among the 3 of highest mean |SHAP|")
    assert kept["x"] == (False, "below the cut on importance")
    labels = {entry["feature"]: entry["o2_label"] for entry in chosen["ranking"]}
    assert (labels["tpc_signal"], labels["sign"], labels["beta"]) == ("fTPCSignal", "fSign", "fBeta")


def test_empty_candidate_is_left_out(folder, capsys):
    content = select(folder, Features.model_validate(SETTINGS.model_dump() | {"count": 20}))
    assert "its_signal" not in {entry["feature"] for entry in content["ranking"]}
    assert sorted(content["features"]) == ["beta", "sign", "tpc_signal", "x", "y"]
    assert "left out, since the input has none: its_signal" in capsys.readouterr().out


def test_empty_required_feature_is_an_error(folder):
    settings = Features.model_validate(SETTINGS.model_dump() | {"required": ("p", "its_signal")})
    with pytest.raises(PidflowError, match=r"simulation.parquet: required feature its_signal is empty"):
        select(folder, settings)


def test_domain_shift_of_the_data(chosen, folder):
    entries = {entry["feature"]: entry for entry in chosen["ranking"]}
    assert entries["tpc_signal"]["domain_shift"] > 0.25
    assert abs(entries["tpc_signal"]["missing_shift"]) < 1e-12
    for name in ("x", "y", "beta"):
        assert entries[name]["domain_shift"] < 0.1
    # 40 % of tracks lack TOF; in data half of the others too
    assert entries["beta"]["missing_shift"] == pytest.approx(0.3, abs=0.06)
    without = select(folder)
    assert all(entry["domain_shift"] is None and entry["missing_shift"] is None for entry in without["ranking"])


def test_labels_of_data_are_not_read(folder, tmp_path, chosen):
    data = pq.read_table(folder / "data.parquet")
    planted = pa.array(np.full(data.num_rows, 211), pa.int32())
    data = data.set_column(data.schema.get_field_index("pdg_code"), "pdg_code", planted)
    pq.write_table(data, tmp_path / "planted.parquet")
    assert select(folder, data=tmp_path / "planted.parquet") == chosen


def test_same_seed_same_result(folder, chosen):
    assert select(folder, data=folder / "data.parquet") == chosen


def test_only_the_training_set_counts(folder, tmp_path, chosen):
    table = pq.read_table(folder / "simulation.parquet")
    spoiled = np.where(table["split"].to_numpy(zero_copy_only=False) == "train", table["tpc_signal"].to_numpy(), 0.0)
    table = table.set_column(
        table.schema.get_field_index("tpc_signal"), "tpc_signal", pa.array(spoiled.astype(np.float32))
    )
    pq.write_table(table, tmp_path / "simulation.parquet")
    assert select(tmp_path, data=folder / "data.parquet") == chosen


@pytest.mark.parametrize("species", [(), (211,)])
def test_fewer_than_two_classes(tmp_path, species):
    table = make_dataset(200, species=species or SPECIES, labelled=bool(species))
    pq.write_table(table, tmp_path / "simulation.parquet")
    with pytest.raises(PidflowError, match="labelled tracks of at least two classes"):
        select(tmp_path)


def test_sorted_tracks_are_ranked_as_a_whole(tmp_path):
    """Files may come species by species; thinning must not take the first alone."""
    pq.write_table(make_dataset(6000, seed=1).sort_by("pdg_code"), tmp_path / "simulation.parquet")
    columns = read_columns(tmp_path / "simulation.parquet", ("x", "tpc_signal"))
    ranking = rank(columns, ("x", "tpc_signal"), SPECIES, SETTINGS.model_copy(update={"max_tracks": 600}), seed=1)
    assert ranking.classes == SPECIES
    assert (ranking.share[:, 1] > 0.7).all()


def test_classes_of_the_ranking(folder):
    columns = read_columns(folder / "simulation.parquet", ("tpc_signal", "beta"))
    unsigned = rank(columns, ("tpc_signal", "beta"), (2212, 211), SETTINGS, seed=1)
    columns["pdg_code"][::10] *= -1
    ranking = rank(columns, ("tpc_signal", "beta"), (2212, 211, -211), SETTINGS, seed=1)
    # kaons are not among the species: they are the rest; charges are one class
    assert ranking.classes == (2212, 211, 0)
    np.testing.assert_array_equal(ranking.share, unsigned.share)
    assert ranking.values.shape == (150, 2, 3)
    assert ranking.share.shape == (2, 2)
    np.testing.assert_allclose(ranking.share.sum(axis=1), 1.0)


@pytest.mark.filterwarnings("ignore:LightGBM binary classifier:UserWarning")
def test_two_classes_rank_as_well(folder):
    columns = read_columns(folder / "simulation.parquet", ("x", "tpc_signal"))
    columns["pdg_code"][columns["pdg_code"] == 321] = 0
    columns["pdg_code"][columns["pdg_code"] == 2212] = 0
    ranking = rank(columns, ("x", "tpc_signal"), (211,), SETTINGS, seed=1)
    assert ranking.classes == (211, 0)
    assert ranking.values.shape[2] == 2
    assert (ranking.share[:, 1] > 0.7).all()


def test_read_columns(tmp_path):
    table = make_dataset(60)
    labels = pa.array([*table["pdg_code"].to_pylist()[:-1], None], pa.int32())
    table = table.set_column(table.schema.get_field_index("pdg_code"), "pdg_code", labels)
    pq.write_table(table, tmp_path / "t.parquet")
    columns = read_columns(tmp_path / "t.parquet", ("beta", "sign"))
    assert columns["features"].dtype == np.float32
    for found, expected in zip(columns["features"][:, 0], table["beta"].to_pylist(), strict=True):
        assert np.isnan(found) if expected is None else found == np.float32(expected)
    assert columns["pdg_code"][-1] == 0
    assert columns["pdg_code"][:-1].tolist() == labels.to_pylist()[:-1]


# the choice, on numbers made by hand


def ranking_of(*shares: float) -> Ranking:
    names = tuple("abcdefgh"[: len(shares)])
    spread = np.array([[1.2], [0.8]]) * np.array(shares)
    return Ranking(names, spread, np.empty((0, len(shares), 1)), np.empty((0, len(shares))), (0,))


def settings(**changes: Any) -> Features:
    # names of hand-made rankings are no columns of the track table
    return Features.model_construct(**(dict(SETTINGS) | {"required": (), "count": None} | changes))


@pytest.mark.parametrize(("share", "kept"), [(0.39, "c"), (0.41, "ca"), (0.75, "cad"), (0.91, "cadb"), (0.99, "cadbe")])
def test_cumulative_share(share, kept):
    ranking = ranking_of(0.3, 0.1, 0.4, 0.15, 0.05)
    assert list(choose(ranking, settings(cumulative_share=share))) == list(kept)


def test_count_and_required():
    ranking = ranking_of(0.3, 0.1, 0.4, 0.15, 0.05)
    assert list(choose(ranking, settings(count=2))) == ["c", "a"]
    assert list(choose(ranking, settings(count=3, required=("e",)))) == ["c", "a", "e"]
    assert list(choose(ranking, settings(count=3, required=("c",)))) == ["a", "d", "c"]
    assert list(choose(ranking, settings(count=9))) == ["c", "a", "d", "b", "e"]
    by_share = choose(ranking, settings(cumulative_share=0.5, required=("e", "c")))
    assert set(by_share) == {"c", "a", "e"}
    assert by_share["c"] == by_share["e"] == "required by the configuration"
    assert by_share["a"] == "within 50% of the summed mean |SHAP|"


def test_equal_importance_keeps_the_order_of_the_candidates():
    assert list(choose(ranking_of(0.25, 0.25, 0.25, 0.25), settings(count=2))) == ["a", "b"]


def test_domain_shift_against_counted_distances():
    simulation = np.array([[0, 1], [1, np.nan], [2, 3], [3, np.nan]], np.float32)
    data = np.array([[2, np.nan], [3, np.nan], [4, np.nan], [5, np.nan]], np.float32)
    distance, missing = domain_shift(simulation, data)
    # half of the simulation lies below all data; a feature that data never has has no distance
    np.testing.assert_allclose(distance, [0.5, 0.0])
    np.testing.assert_allclose(missing, [0.0, 0.5])


def test_a_feature_of_each_hidden_detector_is_kept():
    names = ("p", "tpc_signal", "beta", "tof_signal", "eta", "trd_pattern", "trd_signal", "sign")
    share = np.tile(np.arange(len(names), 0, -1) / 36.0, (3, 1))
    ranking = Ranking(names, share, np.zeros((0, 8, 2)), np.zeros((0, 8)), (211, 0))
    kept = choose(ranking, Features(count=5, required=("sign",)))
    assert list(kept) == ["p", "tpc_signal", "beta", "sign", "trd_pattern"]
    assert kept["trd_pattern"] == "best of the TRD: shows whether it saw the track"
    assert list(choose(ranking, Features(count=5, required=("sign",), every_detector=False))) == [
        "p", "tpc_signal", "beta", "tof_signal", "sign",
    ]  # fmt: skip
    assert "trd_pattern" not in choose(ranking, Features(count=5, required=("trd_signal",)))
