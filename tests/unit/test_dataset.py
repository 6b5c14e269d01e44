"""Selection, masks, split, response and the dataset."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tracks_sample import CHARGED, TOF, TPC, arrange, make_tracks, write_tracks

from pidflow import parquet
from pidflow.config.models import Dataset, Masks, Selection, Split
from pidflow.dataset.build import build_dataset, n_sigma
from pidflow.dataset.response import fit_response, read_response, robust_width
from pidflow.dataset.selection import PROMPT_CUTS, apply_masks, cut_results, require_columns
from pidflow.dataset.split import split_of
from pidflow.errors import PidflowError
from pidflow.files import read_json, sha256, write_json
from pidflow.identity import collision_ids, uniform
from pidflow.physics import SPECIES
from pidflow.publish.o2 import O2PidModel, O2Tracks
from pidflow.response import TofResponse, TpcResponse
from pidflow.tracks import DATASET_COLUMNS, DETECTOR_PATTERNS, O2_MASKED, ROW_ID, o2_label, schema
from pidflow.v0s import schema as v0_schema

ALL = tuple(Selection.model_fields)
NAN = math.nan
GOOD = {
    "source": "AO2D.root", "pt": 1.0, "eta": 0.0, "tpc_n_crossed_rows": 120, "tpc_n_cls_findable": 140,
    "tpc_chi2_ncl": 1.0, "its_chi2_ncl": 5.0, "its_inner_hit": True, "dca_xy": 0.0, "dca_z": 0.0,
}  # fmt: skip


def rows(*changes: dict[str, Any]) -> pa.Table:
    tracks = [GOOD | change for change in changes]
    return arrange({name: pa.array([track[name] for track in tracks], from_pandas=True) for name in GOOD})


# selection


@pytest.mark.parametrize(
    ("cut", "change", "passes"),
    [
        ("pt_min", {"pt": 0.25}, True),
        ("pt_min", {"pt": 0.24}, False),
        ("pt_max", {"pt": 19.99}, True),
        ("pt_max", {"pt": 20.0}, False),
        ("eta_max", {"eta": -0.79}, True),
        ("eta_max", {"eta": -0.81}, False),
        ("eta_max", {"eta": 0.81}, False),
        ("eta_max", {"eta": NAN}, False),
        ("tpc_n_crossed_rows_min", {"tpc_n_crossed_rows": 70, "tpc_n_cls_findable": 70}, True),
        ("tpc_n_crossed_rows_min", {"tpc_n_crossed_rows": 69, "tpc_n_cls_findable": 70}, False),
        ("tpc_crossed_over_findable_min", {"tpc_n_crossed_rows": 120, "tpc_n_cls_findable": 150}, True),
        ("tpc_crossed_over_findable_min", {"tpc_n_crossed_rows": 119, "tpc_n_cls_findable": 150}, False),
        ("tpc_crossed_over_findable_min", {"tpc_n_cls_findable": None}, False),
        ("tpc_chi2_ncl_max", {"tpc_chi2_ncl": 3.99}, True),
        ("tpc_chi2_ncl_max", {"tpc_chi2_ncl": 4.0}, False),
        ("its_chi2_ncl_max", {"its_chi2_ncl": 35.9}, True),
        ("its_chi2_ncl_max", {"its_chi2_ncl": 36.1}, False),
        ("its_inner_hit", {"its_inner_hit": False}, False),
        ("its_inner_hit", {"its_inner_hit": None}, False),
        # 0.0105 + 0.035 at 1 GeV/c; 0.0105 + 0.035/2^1.1 = 0.02683 at 2 GeV/c
        ("dca_xy_pt_dependent", {"dca_xy": -0.0454}, True),
        ("dca_xy_pt_dependent", {"dca_xy": -0.0456}, False),
        ("dca_xy_pt_dependent", {"dca_xy": 0.0268, "pt": 2.0}, True),
        ("dca_xy_pt_dependent", {"dca_xy": 0.0269, "pt": 2.0}, False),
        ("dca_xy_pt_dependent", {"dca_xy": NAN}, False),
        ("dca_z_max", {"dca_z": -1.99}, True),
        ("dca_z_max", {"dca_z": -2.01}, False),
    ],
)  # fmt: skip
def test_each_cut_at_its_limit(cut, change, passes):
    results = cut_results(rows(change, {}), Selection(pt_min=0.25))
    assert tuple(results) == ALL
    assert {name: bool(passed[0]) for name, passed in results.items()} == {
        name: passes or name != cut for name in ALL
    } | ({"tpc_n_crossed_rows_min": True} if cut != "tpc_n_crossed_rows_min" else {})
    assert all(passed[1] for passed in results.values())


OFF = dict.fromkeys(ALL) | {"its_inner_hit": False, "dca_xy_pt_dependent": False}


def test_cuts_that_are_off_are_left_out():
    assert cut_results(rows({}), Selection.model_validate(OFF)) == {}
    assert list(cut_results(rows({}), Selection.model_validate(OFF | {"eta_max": 0.5}))) == ["eta_max"]


@pytest.mark.parametrize(
    ("column", "cut"),
    [
        ("eta", "eta_max"),
        ("tpc_chi2_ncl", "tpc_chi2_ncl_max"),
        ("its_inner_hit", "its_inner_hit"),
        ("tpc_n_cls_findable", "tpc_crossed_over_findable_min"),
        ("dca_xy", "dca_xy_pt_dependent"),
        ("dca_z", "dca_z_max"),
    ],
)
def test_cut_on_an_empty_column_is_named(column, cut, tmp_path):
    def table(name, first, second):
        return write_tracks(rows({column: first}, {column: second}), tmp_path / name)

    value = rows({})[column][0].as_py()
    empty, half = table("AO2D.parquet", None, None), table("half.parquet", None, value)
    with pytest.raises(PidflowError, match=f"AO2D.parquet: column {column} is empty, which the cut '{cut}' needs"):
        require_columns([empty], Selection())
    require_columns([empty, half], Selection())
    off = False if cut in ("its_inner_hit", "dca_xy_pt_dependent") else None
    require_columns([empty], Selection.model_validate({cut: off} | ({"pt_min": None} if column == "pt" else {})))


def test_table_without_rows_is_no_empty_column():
    results = cut_results(rows({}).slice(0, 0), Selection())
    assert tuple(results) == ALL
    assert all(len(passed) == 0 for passed in results.values())


# masks


def masked(p: list[float], masks: Masks, **changes: Any) -> dict[str, list[Any]]:
    n = len(p)
    columns = {
        "p": np.array(p, np.float32), "has_trd": [True] * n, "has_tof": [True] * n, "trd_signal": [100.0] * n,
        "trd_pattern": [7] * n, "tof_signal": [12000.0] * n, "beta": [0.75] * n, "tof_chi2": [1.0] * n,
    }  # fmt: skip
    table = apply_masks(arrange(columns | changes), masks)
    assert table.schema.equals(schema())
    return {name: table[name].to_pylist() for name in columns}


@pytest.mark.parametrize("limit", [0.5, 0.8])
def test_limit_itself_is_visible(limit):
    at = np.float32(limit)
    below, above = np.nextafter(at, np.float32(0)), np.nextafter(at, np.float32(9))
    found = masked([below, at, above, 0.1, 5.0], Masks(tof=limit, trd=limit))
    seen = [False, True, True, False, True]
    assert found["has_tof"] == found["has_trd"] == seen
    for name, value in {"tof_signal": 12000.0, "beta": 0.75, "trd_signal": 100.0, "trd_pattern": 7}.items():
        assert found[name] == [value if visible else None for visible in seen]
    assert found["tof_chi2"] == [1.0] * 5


def test_limits_are_per_detector():
    found = masked([0.4, 0.6, 0.9], Masks(tof=0.5, trd=0.8))
    assert found["has_tof"] == [False, True, True]
    assert found["has_trd"] == [False, False, True]
    assert found["beta"] == [None, 0.75, 0.75]
    assert found["trd_pattern"] == [None, None, 7]


def test_absent_detector_stays_absent():
    absent = {"has_tof": [False, True], "beta": [0.75, NAN], "tof_signal": [12000.0, 1.0]}
    found = masked([2.0, 2.0], Masks(), **absent)
    assert found["has_tof"] == [False, True]
    assert found["beta"] == [None, None]
    assert found["tof_signal"] == [None, 1.0]


def test_masks_agree_with_the_loader_of_the_published_model():
    table = make_tracks(3000, seed=5)
    p = np.round(table["p"].to_numpy(), 1).astype(np.float32)  # many values at the limits themselves
    table = table.set_column(table.schema.get_field_index("p"), "p", pa.array(p))
    names = [name for features in O2_MASKED.values() for name in features] + ["p", "eta"]
    flags = {name: table[name].to_numpy() for name in ("has_trd", "has_tof")}
    columns = {o2_label(name): table[name].cast(pa.float32()).fill_null(-999.0).to_numpy() for name in names}
    loader = O2PidModel.__new__(O2PidModel)
    loader.columns, loader.scaling = tuple(columns), {}
    for masks in (Masks(), Masks(tof=1.5, trd=0.0), Masks(tof=0.7, trd=0.7)):
        loader.limits = (0.0, masks.tof, masks.trd)
        expected = loader.inputs(O2Tracks(columns, p, **flags))
        dataset = apply_masks(table, masks)
        found = np.stack([dataset[name].cast(pa.float32()).to_numpy() for name in names], axis=1)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(dataset["has_trd"].to_numpy(), ~np.isnan(expected[:, 0]))
        np.testing.assert_array_equal(dataset["has_tof"].to_numpy(), ~np.isnan(expected[:, 2]))
    assert (p == np.float32(1.5)).sum() > 10


# split


def test_split_fractions_and_independence():
    identifiers = collision_ids("AO2D.root", 3, np.arange(100_000))
    sets = split_of(identifiers, Split(test=0.3, validation=0.25))
    shares = {name: float((sets == name).mean()) for name in ("train", "validation", "test")}
    # five standard deviations of 100 000 collisions are 0.007
    assert shares == pytest.approx({"train": 0.525, "validation": 0.175, "test": 0.3}, abs=0.007)
    test, validation = (uniform(identifiers, f"pid/{name}") for name in ("test", "validation"))
    for values in (test, validation):
        assert values.min() >= 0.0
        assert values.max() < 1.0
        counts = np.bincount((values * 100).astype(int), minlength=100)
        # χ² of 99 degrees of freedom: 99 ± 14
        assert ((counts - 1000) ** 2 / 1000).sum() < 99 + 6 * 14.1
    assert abs(np.corrcoef(test, validation)[0, 1]) < 0.016
    neighbours = np.corrcoef(test[:-1], test[1:])[0, 1]
    assert abs(neighbours) < 0.016


def test_split_keeps_collisions_together_and_ignores_other_tracks():
    identifiers = collision_ids("AO2D.root", 0, np.repeat(np.arange(500), 7))
    sets = split_of(identifiers, Split())
    assert all(len(set(group)) == 1 for group in sets.reshape(500, 7))
    assert set(sets) == {"train", "validation", "test"}
    order = np.random.default_rng(0).permutation(len(identifiers))
    np.testing.assert_array_equal(split_of(identifiers[order], Split()), sets[order])
    others = np.concatenate([collision_ids("B.root", 0, np.arange(300)), identifiers])
    np.testing.assert_array_equal(split_of(others, Split())[300:], sets)


def test_key_and_fraction_of_the_split():
    identifiers = collision_ids("AO2D.root", 0, np.arange(5000))
    first, again = (split_of(identifiers, Split()) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    other = split_of(identifiers, Split(key="other"))
    # two independent splits agree for 0.49² + 0.21² + 0.3² of collisions
    assert (first == other).mean() == pytest.approx(0.3742, abs=0.04)
    larger = split_of(identifiers, Split(test=0.4))
    assert set(larger[first == "test"]) == {"test"}


def test_splitmix_reference_value():
    # first output of SplitMix64 with state 0, as published with the generator
    from pidflow.identity import mix

    assert int(mix(np.zeros(1, np.uint64))[0]) == 0xE220A8397B1DCDAF


def test_collision_ids_tell_files_frames_and_collisions_apart():
    parts = [collision_ids(source, frame, np.arange(200)) for source in ("a", "b") for frame in (1, 2, 11)]
    assert len(set(np.concatenate(parts).tolist())) == 1200


# response


def expected_tpc_nsigma(response: TpcResponse, signal: float, p: float, clusters: float, mass: float) -> float:
    p1, p2, p3, p4, p5 = response.bethe_bloch
    beta = p / math.sqrt(p * p + mass * mass)
    loss = p1 / beta**p4 * (p2 - beta**p4 - math.log(p3 + (mass / p) ** p5))
    mean = response.mip * loss
    return (signal - mean) / (response.resolution * mean * (159 / clusters) ** response.resolution_exponent)


def expected_tof_nsigma(response: TofResponse, flight: float, length: float, p: float, mass: float) -> float:
    def time(momentum: float) -> float:
        return length / 299792458e-10 * math.hypot(momentum, mass) / momentum

    step = 1e-5 * p
    slope = (time(p - step) - time(p + step)) / (2 * step) * p
    return (flight - time(p)) / math.hypot(response.resolution, response.momentum_term * slope)


def test_robust_width():
    values = np.random.default_rng(0).normal(3.0, 2.0, 50_000)
    assert robust_width(values) == pytest.approx(2.0, rel=0.02)
    values[:500] = 1e6
    assert robust_width(values) == pytest.approx(2.0, rel=0.03)


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> tuple[pa.Table, Path]:
    folder = tmp_path_factory.mktemp("response")
    table = make_tracks(80_000, seed=3, species=(*CHARGED, 11, -11))
    path = write_tracks(table, folder / "tracks.parquet")
    fit_response([path], folder / "response.json", split=Split())
    return table, folder / "response.json"


def test_fit_recovers_the_injected_tpc_response(calibration):
    fitted = read_response(calibration[1]).tpc
    assert fitted is not None
    for species in SPECIES[:4]:
        p = np.geomspace(0.25, 5.0, 30)
        np.testing.assert_allclose(fitted.signal(p, species.mass), TPC.signal(p, species.mass), rtol=0.006)
    # the widths where the tracks are, which have 70 to 159 clusters
    for clusters in (80, 120, 155):
        assert fitted.sigma(1.0, clusters) == pytest.approx(float(TPC.sigma(1.0, clusters)), rel=0.05)
    assert fitted.resolution_exponent == pytest.approx(TPC.resolution_exponent, abs=0.06)


def test_fit_recovers_the_injected_tof_response(calibration):
    fitted = read_response(calibration[1]).tof
    assert fitted is not None
    assert fitted.resolution == pytest.approx(TOF.resolution, rel=0.05)
    assert fitted.momentum_term == pytest.approx(TOF.momentum_term, rel=0.08)


def test_fitted_nsigma_is_a_standard_normal(calibration):
    table, path = calibration
    response = read_response(path)
    values = n_sigma(table, response)
    pdg = np.abs(table["pdg_code"].to_numpy())
    for species in SPECIES[:4]:
        for detector in ("tpc", "tof"):
            own = values[f"{detector}_nsigma_{species.key}"][pdg == species.pdg]
            own = own[~np.isnan(own)]
            assert len(own) > 5000
            assert abs(own.mean()) < 0.1, (detector, species.key)
            assert own.std() == pytest.approx(1.0, abs=0.05), (detector, species.key)


def test_fit_uses_labelled_training_tracks_alone(tmp_path):
    table = make_tracks(20_000, seed=4)
    pdg, signal = table["pdg_code"].to_numpy(), table["tpc_signal"].to_numpy().copy()
    outside = split_of(table["collision_id"].to_numpy(), Split()) != "train"
    unlabelled = ~outside & (np.arange(20_000) % 5 == 0)

    def fit(name: str, values: np.ndarray) -> dict[str, Any]:
        changed = table.set_column(table.schema.get_field_index("tpc_signal"), "tpc_signal", pa.array(values))
        labels = pa.array(pdg, pa.int32(), mask=unlabelled)
        changed = changed.set_column(table.schema.get_field_index("pdg_code"), "pdg_code", labels)
        fit_response([write_tracks(changed, tmp_path / f"{name}.parquet")], tmp_path / f"{name}.json", split=Split())
        return read_json(tmp_path / f"{name}.json")

    reference = fit("reference", signal)
    spoiled = signal.copy()
    spoiled[outside | unlabelled] *= 3
    assert fit("spoiled", spoiled) == reference
    assert fit("control", signal * np.float32(1.1)) != reference


def test_run_without_tof_and_without_labels(tmp_path):
    table = make_tracks(15_000, seed=6)
    for name in ("tof_signal", "length"):
        table = table.set_column(table.schema.get_field_index(name), name, pa.nulls(15_000, pa.float32()))
    fit_response([write_tracks(table, tmp_path / "no_tof.parquet")], tmp_path / "response.json", split=Split())
    assert read_json(tmp_path / "response.json")["tof"] is None
    response = read_response(tmp_path / "response.json")
    values = n_sigma(table, response)
    assert np.isnan(values["tof_nsigma_pi"]).all()
    assert not np.isnan(values["tpc_nsigma_pi"]).any()
    path = write_tracks(make_tracks(500, labelled=False), tmp_path / "data.parquet")
    with pytest.raises(PidflowError, match=r"data.parquet: no labelled track with a TPC signal"):
        fit_response([path], tmp_path / "none.json", split=Split())
    assert not (tmp_path / "none.json").exists()


# the dataset


SETTINGS = Dataset(selection=Selection(eta_max=0.8, dca_z_max=1.5), masks=Masks(tof=0.5, trd=0.8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small track tables, the dataset and the probes made of them, and their account."""
    folder = tmp_path_factory.mktemp("dataset")
    tables = [make_tracks(1500, seed=seed, source=f"{seed}.root") for seed in (8, 9)]
    paths = [
        write_tracks(table, folder / f"{n}.parquet", source=f"{n}.root", sha256="0" * 64, counts={"tracks": 1500})
        for n, table in enumerate(tables)
    ]
    write_json(
        folder / "response.json",
        {
            "tpc": {
                "mip": TPC.mip,
                "bethe_bloch": TPC.bethe_bloch,
                "resolution": TPC.resolution,
                "resolution_exponent": TPC.resolution_exponent,
            },
            "tof": {"resolution": TOF.resolution, "momentum_term": TOF.momentum_term},
        },
    )
    tracks = pa.concat_tables(tables)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "_BATCH_ROWS", 700)
        build_dataset(
            list(paths),
            folder / "response.json",
            inputs_file(folder),
            folder / "out.parquet",
            folder / "quality.json",
            settings=SETTINGS,
            v0s=[
                write_v0s(tracks.take(pa.array(legs)), folder / f"{number}.v0s.parquet")
                for number, legs in enumerate(LEGS)
            ],
            probes=folder / "probes.parquet",
        )
    return folder


@pytest.fixture(scope="module")
def built(folder: Path) -> tuple[list[dict[str, Any]], pa.Table, dict[str, Any]]:
    """Rows of the track tables, the dataset made of them, and its account."""
    return (
        pa.concat_tables([pq.read_table(folder / f"{n}.parquet") for n in (0, 1)]).to_pylist(),
        pq.read_table(folder / "out.parquet"),
        read_json(folder / "quality.json"),
    )


# legs by their row in both track tables, in no order; one is a leg of candidates in both V0 tables
LEGS = (
    [*np.random.default_rng(0).permutation(1500)[:700].tolist(), 1700],
    [1700, *(1500 + np.random.default_rng(1).permutation(1500)[:700]).tolist()],
)


def write_v0s(legs: pa.Table, path: Path) -> Path:
    """Write a V0 table in which each track is a leg of two candidates."""
    rows = pa.concat_tables([legs, legs])
    own = [*ROW_ID, "run", "collision_id"]
    columns = [
        rows[field.name].cast(field.type) if field.name in own else pa.nulls(len(rows), field.type)
        for field in v0_schema()
    ]
    pq.write_table(pa.table(columns, schema=v0_schema()), path)
    return path


def cuts_of(track: dict[str, Any]) -> list[tuple[str, bool]]:
    ratio = track["tpc_n_crossed_rows"] / track["tpc_n_cls_findable"]
    return [
        ("pt_min", track["pt"] >= 0.1),
        ("pt_max", track["pt"] < 20),
        ("eta_max", abs(track["eta"]) < 0.8),
        ("tpc_n_crossed_rows_min", track["tpc_n_crossed_rows"] >= 70),
        ("tpc_crossed_over_findable_min", ratio >= 0.8),
        ("tpc_chi2_ncl_max", track["tpc_chi2_ncl"] < 4),
        ("its_chi2_ncl_max", track["its_chi2_ncl"] is not None and track["its_chi2_ncl"] < 36),
        ("its_inner_hit", track["its_inner_hit"] is True),
        ("dca_xy_pt_dependent", abs(track["dca_xy"]) < 0.0105 + 0.035 * track["pt"] ** -1.1),
        ("dca_z_max", abs(track["dca_z"]) < 1.5),
    ]


def test_dataset_rows_are_the_selected_ones_in_order(built):
    tracks, dataset, _ = built
    expected = [track for track in tracks if all(passed for _, passed in cuts_of(track))]
    assert 300 < len(expected) < 2700
    assert dataset.schema.names == [column.name for column in DATASET_COLUMNS]
    assert dataset.schema.equals(schema(DATASET_COLUMNS))
    found = dataset.to_pylist()
    assert [[row[name] for name in ROW_ID] for row in found] == [[row[name] for name in ROW_ID] for row in expected]
    hidden = {name: flag for flag, names in O2_MASKED.items() for name in (*names, f"has_{flag}")}
    for row, track in zip(found, expected, strict=True):
        for name, value in track.items():
            limit = getattr(SETTINGS.masks, hidden[name]) if name in hidden else 0.0
            covered = np.float32(track["p"]) < np.float32(limit)
            wanted = (False if name.startswith("has_") else None) if covered else value
            assert row[name] == wanted, name


def test_dataset_nsigma_follows_the_formulae(built):
    dataset = built[1].to_pylist()
    seen = 0
    for row in dataset[::5]:
        for species in SPECIES:
            expected = expected_tpc_nsigma(
                TPC, row["tpc_signal"], row["tpc_inner_param"], row["tpc_n_cls_found"], species.mass
            )
            assert row[f"tpc_nsigma_{species.key}"] == pytest.approx(expected, rel=1e-5, abs=1e-5)
            found = row[f"tof_nsigma_{species.key}"]
            if row["length"] is None:
                assert found is None
            elif row["has_tof"]:
                flight = row["tof_signal"] - row["tof_event_time"]
                expected = expected_tof_nsigma(TOF, flight, row["length"], row["tof_exp_mom"], species.mass)
                assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)
                seen += 1
    assert seen > 100


def test_nsigma_takes_the_vertex_momentum_where_the_inner_wall_has_none():
    table = make_tracks(20, seed=1)
    index = table.schema.get_field_index("tpc_inner_param")
    table = table.set_column(index, "tpc_inner_param", pa.nulls(20, pa.float32()))
    from pidflow.dataset.response import Response

    values = n_sigma(table, Response(TPC, None))["tpc_nsigma_ka"]
    first = table.slice(0, 1).to_pylist()[0]
    expected = expected_tpc_nsigma(TPC, first["tpc_signal"], first["p"], first["tpc_n_cls_found"], 0.493677)
    assert values[0] == pytest.approx(expected, rel=1e-6)


def test_quality_account(built):
    tracks, dataset, quality = built
    flow, alive = {"read": len(tracks)}, tracks
    for number, (name, _) in enumerate(cuts_of(tracks[0])):
        alive = [track for track in alive if cuts_of(track)[number][1]]
        flow[name] = len(alive)
    assert quality["cut_flow"] == flow
    assert list(quality["cut_flow"]) == list(flow)
    assert quality["selected"] == len(alive) == dataset.num_rows
    assert quality["inputs"] == INPUTS["files"]
    assert quality["skipped"] == INPUTS["skipped"]
    patterns = [
        ("TPC", False, False), ("TPC+TRD", True, False), ("TPC+TOF", False, True), ("TPC+TRD+TOF", True, True),
    ]  # fmt: skip
    assert tuple(name for name, *_ in patterns) == DETECTOR_PATTERNS
    for name, trd, tof in patterns:
        count = sum(
            (t["has_trd"] and np.float32(t["p"]) >= np.float32(0.8)) == trd
            and (t["has_tof"] and np.float32(t["p"]) >= np.float32(0.5)) == tof
            for t in alive
        )
        assert count > 0
        assert quality["pattern_share"][name] == pytest.approx(count / len(alive))
    split = split_of(np.array([track["collision_id"] for track in alive], np.uint64), Split())
    assert dataset["split"].to_pylist() == split.tolist()
    assert quality["sets"] == {name: int((split == name).sum()) for name in ("train", "validation", "test")}


# probes


def test_probes_are_the_legs_that_fail_prompt_cuts_at_most(built, folder):
    tracks, dataset, _ = built
    probes = pq.read_table(folder / "probes.parquet")
    legs = {number for part in LEGS for number in part}
    passed = [all(good for name, good in cuts_of(track) if name not in PROMPT_CUTS) for track in tracks]
    expected = [track for number, track in enumerate(tracks) if number in legs and passed[number]]
    assert probes.schema.equals(schema(DATASET_COLUMNS))
    # each once, in the order of the track tables
    ids = [tuple(track[name] for name in ROW_ID) for track in expected]
    assert list(zip(*(probes[name].to_pylist() for name in ROW_ID), strict=True)) == ids
    assert 400 < len(ids) == len(set(ids)) < len(legs)
    # some fail a prompt cut, for each of them; some fail another; others are no legs
    for name in PROMPT_CUTS:
        assert any(not dict(cuts_of(track))[name] for track in expected)
    assert len(legs) > len(ids) and sum(passed) > len(ids)
    # a track that both hold is the same in both, masks and nσ included
    both = set(ids) & set(zip(*(dataset[name].to_pylist() for name in ROW_ID), strict=True))
    assert 50 < len(both) < len(ids)
    rows = [{tuple(row[name] for name in ROW_ID): row for row in table.to_pylist()} for table in (dataset, probes)]
    assert all(rows[0][each] == rows[1][each] for each in both)


def test_probes_have_the_set_of_their_collision_and_the_masks(built, folder):
    probes = pq.read_table(folder / "probes.parquet")
    assert probes["split"].to_pylist() == split_of(probes["collision_id"].to_numpy(), Split()).tolist()
    assert set(probes["split"].to_pylist()) == {"train", "validation", "test"}
    sets: dict[int, set[str]] = {}
    for table in (built[1], probes):
        for collision, name in zip(table["collision_id"].to_pylist(), table["split"].to_pylist(), strict=True):
            sets.setdefault(collision, set()).add(name)
    assert all(len(names) == 1 for names in sets.values())
    below = probes["p"].to_numpy() < np.float32(SETTINGS.masks.tof)
    assert below.any() and not probes["has_tof"].to_numpy()[below].any()
    assert np.isnan(probes["beta"].to_numpy()[below]).all()


def test_probes_leave_dataset_and_account_as_they_are(built, folder, tmp_path):
    build_dataset(
        [folder / "0.parquet", folder / "1.parquet"], folder / "response.json", inputs_file(tmp_path),
        tmp_path / "out.parquet", tmp_path / "quality.json", settings=SETTINGS,
    )  # fmt: skip
    assert pq.read_table(tmp_path / "out.parquet").equals(built[1])
    assert read_json(tmp_path / "quality.json") == built[2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inputs.json", "out.parquet", "quality.json"]


@pytest.mark.parametrize("tables", ["none", "without rows", "of other files"])
def test_no_legs_give_no_probes(folder, tmp_path, tables):
    other = make_tracks(100, source="other.root")
    v0s = {
        "none": lambda: [],
        "without rows": lambda: [write_v0s(other.slice(0, 0), tmp_path / "v0s.parquet")],
        "of other files": lambda: [write_v0s(other, tmp_path / "v0s.parquet")],
    }[tables]()
    build_dataset(
        [folder / "0.parquet"], folder / "response.json", inputs_file(tmp_path), tmp_path / "out.parquet",
        tmp_path / "quality.json", settings=SETTINGS, v0s=v0s, probes=tmp_path / "probes.parquet",
    )  # fmt: skip
    probes = pq.read_table(tmp_path / "probes.parquet")
    assert probes.num_rows == 0 and probes.schema.equals(schema(DATASET_COLUMNS))
    assert pq.read_metadata(tmp_path / "out.parquet").num_rows > 100


def test_legs_do_not_save_a_run_without_tracks(folder, tmp_path):
    """Every leg passes but for prompt cuts, and nothing else is left: an error, and no file."""
    tracks = pq.read_table(folder / "0.parquet")
    settings = Dataset(selection=Selection(dca_z_max=1e-9))
    v0s = [write_v0s(tracks, tmp_path / "v0s.parquet")]
    with pytest.raises(PidflowError, match="no track passes the selection"):
        build_dataset(
            [folder / "0.parquet"], folder / "response.json", inputs_file(tmp_path), tmp_path / "out.parquet",
            tmp_path / "quality.json", settings=settings, v0s=v0s, probes=tmp_path / "probes.parquet",
        )  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inputs.json", "v0s.parquet"]


INPUTS = {
    "files": [{"source": "0.root", "sha256": "00", "counts": {"tracks": 1500}}],
    "skipped": [{"source": "2.root", "reason": "2.root: an empty file"}],
}


def inputs_file(folder: Path) -> Path:
    write_json(folder / "inputs.json", INPUTS)
    return folder / "inputs.json"


def response_file(folder: Path) -> Path:
    write_json(folder / "response.json", {"tpc": None, "tof": None})
    return folder / "response.json"


def test_nothing_passes(tmp_path):
    tables = [write_tracks(make_tracks(50, source="x.root"), tmp_path / "tracks.parquet")]
    settings = Dataset(selection=Selection(pt_min=15.0))
    with pytest.raises(PidflowError, match=r"tracks.parquet: no track passes the selection \(read 50, pt_min 0, "):
        build_dataset(
            list(tables),
            response_file(tmp_path),
            inputs_file(tmp_path),
            tmp_path / "out.parquet",
            tmp_path / "quality.json",
            settings=settings,
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inputs.json", "response.json", "tracks.parquet"]


def test_detectors_without_response_leave_nulls_and_runs_are_repeatable(tmp_path):
    tables = [write_tracks(make_tracks(200), tmp_path / "tracks.parquet")]
    for name in ("a", "b"):
        build_dataset(
            list(tables), response_file(tmp_path), inputs_file(tmp_path), tmp_path / f"{name}.parquet",
            tmp_path / "q.json", settings=SETTINGS,
        )  # fmt: skip
    assert sha256(tmp_path / "a.parquet") == sha256(tmp_path / "b.parquet")
    dataset = pq.read_table(tmp_path / "a.parquet")
    for species in SPECIES:
        for detector in ("tpc", "tof"):
            assert dataset[f"{detector}_nsigma_{species.key}"].null_count == dataset.num_rows


def test_files_added_later_leave_earlier_rows_as_they_are(tmp_path):
    paths = [write_tracks(make_tracks(300, seed=n, source=f"{n}.root"), tmp_path / f"{n}.parquet") for n in range(2)]
    for name, inputs in {"one": paths[:1], "two": paths}.items():
        build_dataset(
            list(inputs), response_file(tmp_path), inputs_file(tmp_path), tmp_path / f"{name}.out.parquet",
            tmp_path / "q.json", settings=SETTINGS,
        )  # fmt: skip
    one, two = (pq.read_table(tmp_path / f"{name}.out.parquet") for name in ("one", "two"))
    assert 0 < one.num_rows < two.num_rows
    assert two.slice(0, one.num_rows).equals(one)


def test_sample_response_is_the_one_documented():
    # the sample's widths come from the code under test; its formulae are checked here once
    assert replace(TPC, resolution=1.0).sigma(2.0, 159) == pytest.approx(2.0)
    tracks = [track for track in make_tracks(4000, seed=2).to_pylist() if track["length"] is not None]
    pulls = []
    for track in tracks:
        mass = next(species.mass for species in SPECIES if species.pdg == abs(track["pdg_code"]))
        flight = track["tof_signal"] - track["tof_event_time"]
        pulls.append(expected_tof_nsigma(TOF, flight, track["length"], track["tof_exp_mom"], mass))
    assert np.mean(pulls) == pytest.approx(0.0, abs=0.08)
    assert np.std(pulls) == pytest.approx(1.0, abs=0.06)
