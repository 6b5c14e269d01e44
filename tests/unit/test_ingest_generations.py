"""Every kind and generation of AO2D, written by ROOT: the values that a reader makes of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ao2d_content as content
import awkward as ak
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uproot
from ingesting import ingested

from pidflow.config.models import Ingest
from pidflow.errors import PidflowError
from pidflow.ingest.ao2d import its_columns
from pidflow.ingest.formats import format_of
from pidflow.ingest.metadata import read_map
from pidflow.origin import read_origin
from pidflow.tracks import COLUMNS, schema

FIXTURES = Path(__file__).parents[1] / "fixtures"

FILES = content.files()
RAW = [name for name in FILES if name.startswith("run")]
DERIVED = [name for name in FILES if not name.startswith("run")]
REAL = Path(__file__).parents[3] / "shared" / "data" / "ao2d" / "AO2D_UD_run529399_LHC22s_data.root"

Frames = dict[str, dict[str, dict[str, Any]]]

TOLERANCES = {"x": 3e-5, "y": 3e-5, "z": 3e-5, "dca_xy": 3e-5, "dca_z": 3e-5, "tof_event_time": 0.03}
"""Absolute, cm and ps: what single precision of a track's parameters leaves after 60 cm; and of 1/β."""
RELATIVE = 3e-6

ANGLES = ("phi", "alpha")


def run_table(name: str) -> dict[str, Any]:
    """Return what the run table says of a fixture."""
    own = FILES[name]
    return {key: getattr(own, key) for key in ("run", "period", "recopass", "bz", "simulation")}


def table_of(name: str, folder: Path, **changes: Any) -> pa.Table:
    """Return the track table of a fixture."""
    path = folder / "tracks.parquet"
    ingested(FIXTURES / "ao2d" / name, path, **run_table(name) | changes)
    return pq.read_table(path)


def refused(path: Path, folder: Path, **changes: Any) -> str:
    """Return the sentence with which a file is refused; nothing may be left of it."""
    with pytest.raises(PidflowError) as caught:
        ingested(path, folder / "out" / "tracks.parquet", **changes)
    assert not (folder / "out").exists() or list((folder / "out").iterdir()) == []
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message
    return message


def assert_column(table: pa.Table, name: str, expected: Any) -> None:
    """Compare a column's nulls and values; `expected` is masked where it must be null."""
    wanted = np.ma.masked_all(len(table)) if expected is None else np.ma.asarray(expected)
    missing = np.ma.getmaskarray(wanted)
    np.testing.assert_array_equal(table[name].is_null().to_numpy(), missing, err_msg=name)
    values = table[name].filter(pa.array(~missing)).to_numpy().astype(np.float64)
    wanted = wanted.data[~missing].astype(np.float64)
    if name in ANGLES:
        low = {"phi": 0.0, "alpha": -np.pi}[name]
        assert ((values >= low - 1e-6) & (values < low + 2 * np.pi + 1e-6)).all(), name
        values = wanted + (values - wanted + np.pi) % (2 * np.pi) - np.pi
    if pa.types.is_floating(table.schema.field(name).type):
        np.testing.assert_allclose(values, wanted, rtol=RELATIVE, atol=TOLERANCES.get(name, 2e-6), err_msg=name)
    else:
        np.testing.assert_array_equal(values, wanted, err_msg=name)


# the fixtures themselves


def test_fixtures_hold_what_their_program_says() -> None:
    assert {path.name for path in (FIXTURES / "ao2d").iterdir()} == set(FILES)
    for name, own in FILES.items():
        with uproot.open(FIXTURES / "ao2d" / name) as file:
            folders = [key for key in file.keys(recursive=False, cycle=False) if key.startswith("DF_")]
            assert folders == list(own.frames)
            for data_frame, trees in own.frames.items():
                assert set(file[data_frame].keys(cycle=False)) == set(trees)
                for tree, table in trees.items():
                    columns = content.stored(content.leaves_of(own, data_frame, tree), table)
                    held = file[data_frame][tree]
                    assert held.keys() == list(columns)
                    for leaf, values in columns.items():
                        assert_leaf(held[leaf].array(), values, f"{name} {data_frame} {tree} {leaf}")


def assert_leaf(held: ak.Array, values: Any, where: str) -> None:
    """Compare a leaf with what was to be written, lists too."""
    if isinstance(values, list):
        assert held.to_list() == values, where
    else:
        assert (held.to_numpy().dtype, held.to_numpy().shape) == (values.dtype, values.shape), where
        np.testing.assert_array_equal(held.to_numpy(), values, err_msg=where)


def test_fixtures_are_compressed_in_every_way_and_have_old_cycles() -> None:
    algorithms = set()
    for name in FILES:
        with uproot.open(FIXTURES / "ao2d" / name) as file:
            for key in file.keys(recursive=True, cycle=False, filter_classname="TTree"):
                algorithms |= {type(branch.compression).__name__ for branch in file[key].branches}
    assert algorithms >= {"ZLIB", "LZMA", "LZ4", "ZSTD"}
    for name, tree in (("run3_data.root", "O2track_iu"), ("run3_mc.root", "O2mctracklabel")):
        with uproot.open(FIXTURES / "ao2d" / name) as file:
            folder = file[next(iter(FILES[name].frames))]
            assert folder[f"{tree};1"].num_entries < folder[f"{tree};2"].num_entries


def test_transported_tracks_run_on_circles() -> None:
    own, bz = content.tracks(5), 5.0
    radius = own.pt / (content.GEV_PER_KG_CM * bz)
    start, momentum = content.transported(own, bz, np.zeros(len(own)))
    turn = 2 * np.pi * radius * own.p / own.pt
    end, at_end = content.transported(own, bz, turn, steps=4000)
    np.testing.assert_allclose(end[:, :2], start[:, :2], atol=1e-5)
    np.testing.assert_allclose(at_end, momentum, atol=1e-8)
    np.testing.assert_allclose(end[:, 2] - start[:, 2], 2 * np.pi * radius * own.tgl, rtol=1e-9)
    half, _ = content.transported(own, bz, turn / 2)
    centre = (start[:, :2] + half[:, :2]) / 2
    inward = centre - start[:, :2]
    side = momentum[:, 0] * inward[:, 1] - momentum[:, 1] * inward[:, 0]
    np.testing.assert_array_equal(np.sign(side), -own.sign)  # a positive charge turns clockwise


# values


@pytest.mark.parametrize("name", FILES)
def test_values_are_those_that_were_written(name: str, tmp_path: Path) -> None:
    own = FILES[name]
    table = table_of(name, tmp_path)
    assert table.schema.remove_metadata().equals(schema())
    for column in COLUMNS:
        if column.name not in ("source", "run", "collision_id"):
            assert_column(table, column.name, own.expected.get(column.name))
    assert set(table["source"].to_pylist()) == {name} and set(table["run"].to_pylist()) == {own.run}


@pytest.mark.parametrize("name", FILES)
def test_what_was_dropped_is_counted(name: str, tmp_path: Path) -> None:
    own = FILES[name]
    result = ingested(FIXTURES / "ao2d" / name, tmp_path / "tracks.parquet", **run_table(name))
    assert dict(result.counts) == own.counts
    assert result.format == own.format
    filled = {frame for frame, trees in own.frames.items() if any(len(t["fPx" if "fPx" in t else next(iter(t))])
              for tree, t in trees.items() if "track" in tree)}  # fmt: skip
    assert set(result.fingerprints) == filled and len(set(result.fingerprints.values())) == len(filled)
    assert read_origin(tmp_path / "tracks.parquet")["counts"] == own.counts


@pytest.mark.parametrize("name", FILES)
def test_collision_ids_tell_collisions_apart(name: str, tmp_path: Path) -> None:
    table, own = table_of(name, tmp_path), FILES[name].expected
    if "collision" not in own:
        pytest.fail("the fixture must say to which collision a track belongs")
    collisions = list(zip(own["data_frame"].tolist(), own["collision"].tolist(), strict=True))
    ids = table["collision_id"].to_pylist()
    assert len(set(zip(collisions, ids, strict=True))) == len(set(collisions)) == len(set(ids))


@pytest.mark.parametrize("name", FILES)
def test_parts_give_the_same(name: str, tmp_path: Path) -> None:
    whole = table_of(name, tmp_path)
    path = tmp_path / "other.parquet"
    parts, counts = [], []
    for part in (1, 2):
        result = ingested(FIXTURES / "ao2d" / name, path, part=part, parts=2, **run_table(name))
        parts.append(pq.read_table(path))
        counts.append(result.counts)
    assert pa.concat_tables(parts).equals(whole)
    assert dict(counts[0] + counts[1]) == {key: value for key, value in FILES[name].counts.items() if value}


@pytest.mark.parametrize("name", RAW)
def test_the_field_matters_to_all_raw_tracks(name: str, tmp_path: Path) -> None:
    right, wrong = table_of(name, tmp_path), table_of(name, tmp_path, bz=-FILES[name].bz)
    turned = np.abs(np.sin((right["phi"].to_numpy() - wrong["phi"].to_numpy()) / 2))
    assert (turned > 1e-6).all() and turned.max() > 1e-3


def test_both_fields_and_all_hypotheses_of_the_tracking_are_covered() -> None:
    for prefix in ("run2", "run3"):
        assert {np.sign(FILES[name].bz) for name in RAW if name.startswith(prefix)} == {-1.0, 1.0}
    for name in RAW:
        indices = set()
        for trees in FILES[name].frames.values():
            for tree, table in trees.items():
                if tree.startswith("O2trackextra"):
                    indices |= set((table["fFlags"] >> 28)[(table["fTOFChi2"] >= 0) & (table["fTOFExpMom"] > 0)])
        assert indices >= {0, 2, 3, 4}, name


@pytest.mark.parametrize("hypothesis", range(len(content.SPECIES)))
@pytest.mark.parametrize("name", RAW)
def test_time_of_flight_of_one_track_by_hand(name: str, hypothesis: int, tmp_path: Path) -> None:
    _, index, mass = content.SPECIES[hypothesis]
    table = table_of(name, tmp_path).to_pydict()
    checked = 0
    for row in range(len(table["row"])):
        trees = FILES[name].frames[f"DF_{table['data_frame'][row]}"]
        leaves = next(table for tree, table in trees.items() if tree.startswith("O2trackextra"))
        leaves = {leaf: values[table["row"][row]] for leaf, values in leaves.items()}
        if table["has_tof"][row] and leaves["fFlags"] >> 28 == index:
            momentum = leaves["fTOFExpMom"] / (0.0299792458 if name.startswith("run2") else 1)
            beta = momentum / np.hypot(momentum, mass)
            time = 1e3 * leaves["fTrackTime"] + leaves["fLength"] / (29.9792458e-3 * beta)
            assert table["tof_signal"][row] == pytest.approx(time, abs=0.02)
            assert table["tof_exp_mom"][row] == pytest.approx(momentum, rel=1e-6)
            checked += 1
    assert checked


def test_sizes_of_clusters_that_a_converter_invented_are_null() -> None:
    def mean(*sizes: int) -> list[float | None]:
        values = {"fITSClusterSizes": np.array(sizes, dtype=np.uint32)}
        n = len(sizes)
        return its_columns(values, np.zeros(n), np.zeros(n, dtype=bool))["its_mean_cluster_size"].tolist()

    assert mean(0xFFFFFFF, 0xFFF0000, 0) == [None, None, None]
    assert mean(0xFFFFFFF, 0xFF30000, 0) == [15.0, 11.0, None]  # a large cluster counts where others are smaller


# which format


@pytest.mark.parametrize("name", FILES)
def test_the_format_is_recognised(name: str, tmp_path: Path) -> None:
    assert format_of(FIXTURES / "ao2d" / name, None) == FILES[name].format
    explicit = table_of(name, tmp_path, settings=Ingest(format=FILES[name].format))
    assert explicit.equals(table_of(name, tmp_path))


@pytest.mark.parametrize(
    ("name", "explicit", "lacks"),
    [
        ("run3_data.root", "pidml", "O2pidtracksdataml"),
        ("run3_data.root", "ud", "O2udtrack"),
        ("ud_data.root", "ao2d", "O2track"),
        ("pidml_data.root", "ud", "O2udtrack"),
    ],
)
def test_a_wrong_explicit_format_is_told_by_the_missing_table(
    name: str, explicit: Any, lacks: str, tmp_path: Path
) -> None:
    message = refused(FIXTURES / "ao2d" / name, tmp_path, **run_table(name), settings=Ingest(format=explicit))
    first = next(iter(FILES[name].frames))
    assert f"data frame {first} lacks the table {lacks}" in message and "it holds O2" in message


# what a file says of itself


@pytest.mark.parametrize("name", [name for name, own in FILES.items() if own.metadata or own.parents])
def test_maps_are_read_as_root_wrote_them(name: str) -> None:
    with uproot.open(FIXTURES / "ao2d" / name) as file:
        assert read_map(file, "metaData") == FILES[name].metadata
        assert read_map(file, "parentFiles") == FILES[name].parents


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("run3_data.root", {"simulation": True}, "DataType RAW; list the file under 'data', not 'simulation'"),
        ("run3_mc.root", {"simulation": False}, "DataType MC; list the file under 'simulation', not 'data'"),
        ("run2_mc.root", {"simulation": False}, "DataType MC; list the file under 'simulation', not 'data'"),
        ("run3_data.root", {"recopass": "apass3"}, "RecoPassName apass4, the run table pass apass3; correct 'pass'"),
        ("run3_data.root", {"period": "LHC22o"}, "LPMProductionTag LHC23zzf, the run table period LHC22o; correct"),
        ("run3_mc.root", {"recopass": "apass3"}, "AnchorPassName apass4, the run table pass apass3; correct 'pass'"),
        ("run3_mc.root", {"period": "LHC22o"}, "AnchorProduction LHC23zzf, the run table period LHC22o; correct"),
    ],
)
def test_a_file_that_says_otherwise_is_refused(name: str, changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    message = refused(FIXTURES / "ao2d" / name, tmp_path, **run_table(name) | changes)
    assert f"metaData says {says}" in message


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("run2_data.root", "holds no Monte Carlo labels; list the file under 'data', not 'simulation'"),
        ("pidml_data.root", "holds O2pidtracksdataml; list the file under 'data', not 'simulation'"),
        ("pidml_mc.root", "holds O2pidtracksmc; list the file under 'simulation', not 'data'"),
        ("ud_data.root", "holds no Monte Carlo labels; list the file under 'data', not 'simulation'"),
        ("ud_mc.root", "holds Monte Carlo labels; list the file under 'simulation', not 'data'"),
    ],
)
def test_trees_tell_simulation_from_data_where_no_map_does(name: str, says: str, tmp_path: Path) -> None:
    changes = {"simulation": not FILES[name].simulation}
    message = refused(FIXTURES / "ao2d" / name, tmp_path, **run_table(name) | changes)
    assert f"data frame {next(iter(FILES[name].frames))} {says}" in message


@pytest.mark.parametrize("name", FILES)
def test_a_wrong_run_is_refused(name: str, tmp_path: Path) -> None:
    message = refused(FIXTURES / "ao2d" / name, tmp_path, **run_table(name) | {"run": 300000})
    assert f"belongs to run {FILES[name].run}, not 300000; list it under its own run" in message


# damage of derived files


def written(path: Path, frames: Frames, own: Any) -> Path:
    """Write data frames by uproot."""
    with uproot.recreate(path) as file:
        for data_frame, trees in frames.items():
            for tree, table in trees.items():
                known = content.leaves_of(own, data_frame, tree.replace("particles", "particle"))
                leaves = " ".join(leaf for leaf in known.split() if leaf.split("/")[0] in table)
                lists = {leaf: values for leaf, values in table.items() if isinstance(values, ak.Array)}
                file[f"{data_frame}/{tree}"] = content.stored(leaves, table) | lists
    return path


def changed(name: str, path: Path, change: Callable[[dict[str, dict[str, Any]]], None]) -> Path:
    """Write the last filled data frame of a fixture anew after a change; each particle has one mother."""
    own = FILES[name]
    data_frame = next(
        frame for frame, trees in reversed(own.frames.items()) if all(len(t[next(iter(t))]) for t in trees.values())
    )
    trees = {
        tree: {leaf: np.array(values) for leaf, values in table.items() if leaf != "fIndexArray_Mothers"}
        for tree, table in own.frames[data_frame].items()
    }
    for tree, table in trees.items():
        table.pop("fIndexSlice_Daughters", None)
        if "mcparticle" in tree:
            table["fIndexArray_Mothers"] = ak.Array([[0]] * len(table["fPdgCode"]))
    change(trees)
    return written(path, {data_frame: trees}, own)


def drop(tree: str, leaf: str) -> Callable[[dict[str, dict[str, Any]]], None]:
    """Return a change that takes a leaf away."""
    return lambda trees: trees[tree].__delitem__(leaf)


def put(tree: str, leaf: str, row: int, value: float) -> Callable[[dict[str, dict[str, Any]]], None]:
    """Return a change of one value."""
    return lambda trees: trees[tree][leaf].__setitem__(row, value)


def shorten(tree: str) -> Callable[[dict[str, dict[str, Any]]], None]:
    """Return a change that takes the last row away."""

    def change(trees: dict[str, dict[str, Any]]) -> None:
        trees[tree] = {leaf: values[:-1] for leaf, values in trees[tree].items()}

    return change


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("ud_data.root", drop("O2udtrackextra", "fITSClusterSizes"), "table O2udtrackextra lacks the column fITSCl"),
        ("ud_data.root", drop("O2udtrackextra", "fTOFSignal"), "table O2udtrackextra lacks the column fTOFSignal"),
        ("ud_data.root", drop("O2udtrack", "fIndexUDCollisions"), "lacks the table O2udtrcolid"),
        ("ud_data.root", put("O2udtrack", "fIndexUDCollisions", 3, 3), "fIndexUDCollisions points outside O2udcoll"),
        ("ud_data.root", put("O2udcollision_001", "fRunNumber", 1, 5), "belongs to run 5, 544124, not 544124"),
        ("ud_data.root", shorten("O2udtrackextra"), "O2udtrackextra and O2udtrack differ in length (11 and 12)"),
        ("ud_data.root", shorten("O2udtrackdca"), "O2udtrackdca and O2udtrack differ in length (11 and 12)"),
        ("ud_mc.root", shorten("O2udmctracklabel"), "O2udmctracklabel and O2udtrack differ in length (11 and 12)"),
        ("ud_mc.root", put("O2udmctracklabel", "fIndexUDMcParticles", 0, 99), "fIndexUDMcParticles points outside"),
        ("pidml_data.root", drop("O2pidtracksdata", "fBeta"), "table O2pidtracksdata lacks the column fBeta"),
        ("pidml_mc.root", drop("O2pidtracksmcml", "fPdgCode"), "table O2pidtracksmcml lacks the column fPdgCode"),
    ],
)
def test_a_damaged_derived_file_is_refused(name: str, change: Any, says: str, tmp_path: Path) -> None:
    path = changed(name, tmp_path / "file.root", change)
    message = refused(path, tmp_path, **run_table(name))
    assert "data frame DF_" in message and says in message


def test_both_kinds_of_trees_in_a_frame_are_refused_for_either(tmp_path: Path) -> None:
    data, simulated = FILES["pidml_data.root"], FILES["pidml_mc.root"]
    first = next(iter(data.frames))
    frames = {first: {"O2pidtracksdataml": data.frames[first]["O2pidtracksdataml"]}}
    frames[first]["O2pidtracksmcml"] = simulated.frames[first]["O2pidtracksmcml"]
    path = tmp_path / "file.root"
    with uproot.recreate(path) as file:
        for own in (data, simulated):
            for tree in set(frames[first]) & set(own.frames[first]):
                file[f"{first}/{tree}"] = content.stored(content.leaves_of(own, first, tree), frames[first][tree])
    for simulation, held in ((False, "O2pidtracksmcml"), (True, "O2pidtracksdataml")):
        message = refused(path, tmp_path, **run_table("pidml_data.root") | {"simulation": simulation})
        assert f"data frame {first} holds {held}; list the file under" in message


@pytest.mark.parametrize("name", DERIVED)
def test_tracks_without_direction_or_charge_are_dropped_and_counted(name: str, tmp_path: Path) -> None:
    odd = (("fPx", 0, np.inf), ("fPz", 3, np.nan), ("fSign", 1, 0), ("fPx", 4, 0.0), ("fPy", 4, 0.0))
    tree = []

    def change(trees: dict[str, dict[str, Any]]) -> None:
        tree.append(next(tree for tree in trees if tree in ("O2udtrack", "O2pidtracksdata", "O2pidtracksmcml")))
        for leaf, row, value in odd:
            trees[tree[0]][leaf][row] = value

    path = changed(name, tmp_path / "file.root", change)
    counts = ingested(path, tmp_path / "tracks.parquet", **run_table(name)).counts
    rows = pq.read_table(tmp_path / "tracks.parquet")["row"].to_pylist()
    assert not {0, 1, 3, 4} & set(rows)
    assert counts["without_parameters"] == 4 and len(rows) == counts["tracks"] - 4 - counts["without_collision"]


def test_particles_of_older_ud_files_have_another_name(tmp_path: Path) -> None:
    def rename(trees: dict[str, dict[str, Any]]) -> None:
        trees["O2udmcparticles"] = trees.pop("O2udmcparticle")

    own = FILES["ud_mc.root"]
    path = changed("ud_mc.root", tmp_path / "file.root", rename)
    ingested(path, tmp_path / "tracks.parquet", **run_table("ud_mc.root"))
    table = pq.read_table(tmp_path / "tracks.parquet")
    assert_column(table, "pdg_code", own.expected["pdg_code"])
    assert set(table["mother_pdg_code"].drop_null().to_pylist()) == {content.MOTHERS[0]}


# a real file


@pytest.mark.skipif(not REAL.is_file(), reason=f"{REAL} is absent")
def test_a_real_ud_file_agrees_with_a_plain_reading(tmp_path: Path) -> None:
    changes = {"run": 529399, "period": "LHC22s", "recopass": "apass5", "simulation": False, "bz": 5.0}
    result = ingested(REAL, tmp_path / "tracks.parquet", **changes)
    table = pq.read_table(tmp_path / "tracks.parquet")
    leaves: dict[str, list[Any]] = {}
    n_collisions = n_filled = 0
    with uproot.open(REAL) as file:
        folders = sorted(file.keys(filter_name="DF_*", recursive=False, cycle=False), key=lambda key: int(key[3:]))
        for folder in folders:
            n_collisions += file[folder]["O2udcollision"].num_entries
            n_filled += file[folder]["O2udtrack"].num_entries > 0
            for tree in ("O2udtrack", "O2udtrackextra"):
                for leaf, values in file[folder][tree].arrays(library="np").items():
                    leaves.setdefault(leaf, []).append(values)
    plain = {leaf: np.concatenate(values) for leaf, values in leaves.items()}
    assert (len(folders), n_filled, len(plain["fPx"])) == (43, 42, 551)
    assert result.format == "ud" and len(result.fingerprints) == 42
    assert dict(result.counts) == {
        "data_frames": 43, "collisions": n_collisions, "tracks": 551, "without_collision": 0, "without_parameters": 0,
        "fake_labels": 0,
    }  # fmt: skip
    for column, leaf in {"px": "fPx", "py": "fPy", "pz": "fPz", "sign": "fSign"}.items():
        assert_column(table, column, plain[leaf])
    pt = np.sqrt(plain["fPx"].astype(float) ** 2 + plain["fPy"].astype(float) ** 2)
    assert_column(table, "pt", pt)
    assert_column(table, "eta", np.arcsinh(plain["fPz"] / pt))
    has_tpc, has_its = plain["fTPCNClsFindable"] > 0, plain["fITSClusterMap"] > 0
    assert_column(table, "has_tpc", has_tpc)
    assert_column(table, "tpc_signal", np.ma.array(plain["fTPCSignal"], mask=~has_tpc | (plain["fTPCSignal"] < 0)))
    found = plain["fTPCNClsFindable"].astype(int) - plain["fTPCNClsFindableMinusFound"]
    assert_column(table, "tpc_n_cls_found", np.ma.array(found, mask=~has_tpc))
    layers = np.array([int(value).bit_count() for value in plain["fITSClusterMap"]])
    assert_column(table, "its_n_cls", np.ma.array(layers, mask=~has_its))
    for column in ("tof_signal", "beta", "tof_chi2", "length", "trd_signal", "trd_chi2", "pdg_code", "dca_xy"):
        assert table[column].null_count == 551, column
    assert not any(table["has_tof"].to_pylist()) and not any(table["has_trd"].to_pylist())
    assert len(set(table["collision_id"].to_pylist())) == n_collisions
