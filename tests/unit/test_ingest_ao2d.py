"""The AO2D reader: closure against generator truth, and files that it must refuse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import uproot
from ingesting import ingest
from numpy.typing import NDArray
from test_simulate import BZ, RUN, Frame, example, joined, mothers, read

from pidflow.dataset.response import robust_width
from pidflow.errors import PidflowError
from pidflow.files import sha256
from pidflow.origin import read_origin
from pidflow.physics import BY_PDG, C_CM_PER_PS
from pidflow.response import expected_time
from pidflow.simulate.ao2d import FAKE_LABEL
from pidflow.simulate.signals import EVENT_TIME_PS, TOF_CALIBRATION_PS, TOF_HIT_PS
from pidflow.simulate.tracking import ANGLE_RESOLUTION_RAD, DCA_RESOLUTION_CM, ITS_RADII, PT_RESOLUTION
from pidflow.tracks import COLUMNS, MISSING_NEVER, ROW_ID, schema

REAL = Path(__file__).parents[3] / "shared" / "data" / "ao2d"

TIME_WIDTH_PS = np.sqrt(TOF_HIT_PS**2 + TOF_CALIBRATION_PS**2 + EVENT_TIME_PS**2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return example(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def frames(folder: Path) -> dict[int, Frame]:
    return read(folder / "simulation.root")


@pytest.fixture(scope="module")
def output(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ingest") / "simulation.parquet"
    ingest(folder / "simulation.root", path)
    return path


@pytest.fixture(scope="module")
def tracks(output: Path, frames: dict[int, Frame]) -> pd.DataFrame:
    """Return the table with the generated particle of each track beside it (``true_…``)."""
    table = pq.read_table(output).to_pandas()
    parts = []
    for number, frame in frames.items():
        particles = frame["O2mcparticle_001"]
        label = frame["O2mctracklabel"]["fIndexMcParticles"]
        fake = (label < 0) | (frame["O2mctracklabel"]["fMcMask"] & FAKE_LABEL > 0)
        own = np.maximum(label, 0)
        px, py, pz, energy = (particles[leaf][own].astype(float) for leaf in ("fPx", "fPy", "fPz", "fE"))
        mother = mothers(particles)[own]
        part = {
            "data_frame": number,
            "row": np.arange(len(own)),
            "fake": fake,
            "true_pdg": particles["fPdgCode"][own],
            "true_flags": particles["fFlags"][own],
            "true_mother_pdg": np.where(mother >= 0, particles["fPdgCode"][mother], 0),
            "true_pt": np.hypot(px, py),
            "true_p": np.sqrt(px**2 + py**2 + pz**2),
            "true_eta": np.arcsinh(pz / np.hypot(px, py)),
            "true_phi": np.arctan2(py, px),
            "true_energy": energy,
            "event": particles["fIndexMcCollisions"][own],
            "collision": frame["O2track_iu"]["fIndexCollisions"],
            "true_time": frame["O2mccollision"]["fT"][particles["fIndexMcCollisions"][own]] * 1e3,
            "innermost": innermost(frame["O2trackextra_002"]["fITSClusterSizes"]),
            "contributors": frame["O2collision_001"]["fNumContrib"][frame["O2track_iu"]["fIndexCollisions"]],
        }
        parts.append(pd.DataFrame(part))
    return table.merge(pd.concat(parts), on=["data_frame", "row"], validate="one_to_one")


def innermost(sizes: NDArray[np.uint32]) -> NDArray[np.float64]:
    """Return the radius of the innermost ITS cluster, NaN if there is none."""
    radii = np.full(len(sizes), np.nan)
    for layer in reversed(range(len(ITS_RADII))):
        radii[(sizes >> np.uint32(4 * layer)) & 0xF > 0] = ITS_RADII[layer]
    return radii


@pytest.fixture(scope="module")
def primaries(tracks: pd.DataFrame) -> pd.DataFrame:
    """Return correctly labelled primary tracks that have the ITS and the TPC."""
    chosen = ~tracks["fake"] & (tracks["true_flags"] == 4) & tracks["has_its"] & tracks["has_tpc"]
    assert chosen.sum() > 7000
    return tracks[chosen]


# what a good file gives


def test_table_has_the_schema_and_says_where_it_comes_from(folder: Path, output: Path) -> None:
    assert pq.read_schema(output).remove_metadata().equals(schema())
    origin = read_origin(output)
    assert origin["sha256"] == sha256(folder / "simulation.root")
    assert origin["source"].endswith("simulation.root")
    assert origin["counts"]["tracks"] > pq.read_metadata(output).num_rows > 0


def test_tracks_without_collision_are_dropped_and_counted(frames: dict[int, Frame], output: Path) -> None:
    index = joined(frames, "O2track_iu", "fIndexCollisions")
    label, mask = (joined(frames, "O2mctracklabel", leaf) for leaf in ("fIndexMcParticles", "fMcMask"))
    kept = index >= 0
    fake = (label < 0) | (mask & FAKE_LABEL > 0)
    assert read_origin(output)["counts"] == {
        "data_frames": 2,
        "collisions": sum(len(frame["O2collision_001"]["fPosX"]) for frame in frames.values()),
        "tracks": len(index),
        "without_collision": (~kept).sum(),
        "without_parameters": 0,
        "fake_labels": (fake & kept).sum(),
    }
    table = pq.read_table(output, columns=list(ROW_ID)).to_pandas()
    expected = [
        (number, row) for number, frame in frames.items() for row in np.flatnonzero(frame["O2track_iu"]["fX"])
        if frame["O2track_iu"]["fIndexCollisions"][row] >= 0
    ]  # fmt: skip
    assert list(zip(table["data_frame"], table["row"], strict=True)) == expected
    assert set(table["source"]) == {"simulation.root"}


def test_transverse_momentum_closes_within_the_resolution(primaries: pd.DataFrame) -> None:
    constant, slope = PT_RESOLUTION
    pull = (primaries["pt"] / primaries["true_pt"] - 1) / np.hypot(constant, slope * primaries["true_pt"])
    assert robust_width(pull) == pytest.approx(1, abs=0.06)
    assert abs(np.median(pull)) < 0.06
    total = (primaries["p"] / primaries["true_p"] - 1) / np.hypot(constant, slope * primaries["true_pt"])
    assert 0.94 < robust_width(total) < 1.1


def test_momentum_components_agree_with_each_other(tracks: pd.DataFrame) -> None:
    np.testing.assert_allclose(np.hypot(tracks["px"], tracks["py"]), tracks["pt"], rtol=1e-5)
    np.testing.assert_allclose(np.hypot(tracks["pt"], tracks["pz"]), tracks["p"], rtol=1e-5)
    np.testing.assert_allclose(tracks["pt"] * np.sinh(tracks["eta"]), tracks["pz"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(tracks["pt"] * np.cos(tracks["phi"]), tracks["px"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(tracks["pt"] * np.sin(tracks["phi"]), tracks["py"], rtol=1e-4, atol=1e-4)
    assert tracks["phi"].between(0, 2 * np.pi).all()
    assert set(tracks["sign"]) == {-1, 1}


def test_direction_closes_within_the_resolution(primaries: pd.DataFrame) -> None:
    width = ANGLE_RESOLUTION_RAD * np.hypot(1, 0.5 / primaries["true_pt"])
    # dη/d(tan λ) = 1/cosh η
    eta = (primaries["eta"] - primaries["true_eta"]) * np.cosh(primaries["true_eta"]) / width
    assert robust_width(eta) == pytest.approx(1, abs=0.08) and abs(np.median(eta)) < 0.08
    turn = np.arctan2(
        np.sin(primaries["phi"] - primaries["true_phi"]), np.cos(primaries["phi"] - primaries["true_phi"])
    )
    assert robust_width(turn / width) == pytest.approx(1, abs=0.08) and abs(np.median(turn / width)) < 0.08


def test_charge_closes(tracks: pd.DataFrame) -> None:
    known = tracks[~tracks["fake"]]
    sign = np.sign(known["true_pdg"]) * np.where(np.isin(np.abs(known["true_pdg"]), (11, 13)), -1, 1)
    np.testing.assert_array_equal(known["sign"], sign)


def test_impact_parameter_of_primaries_is_its_resolution(primaries: pd.DataFrame) -> None:
    constant, slope = DCA_RESOLUTION_CM
    lever = ANGLE_RESOLUTION_RAD * np.hypot(1, 0.5 / primaries["true_pt"]) * primaries["innermost"]
    many = primaries["contributors"] > 10  # so that the vertex is well known
    position = np.hypot(constant, slope / primaries["true_pt"])
    for name in ("dca_xy", "dca_z"):
        pull = (primaries[name] / np.hypot(np.hypot(position, lever), 0.0015))[many]
        assert robust_width(pull) == pytest.approx(1, abs=0.12), name
        assert abs(np.median(pull)) < 0.08, name
    assert np.abs(primaries["dca_xy"]).median() < 0.015


def test_impact_parameter_of_secondaries_is_large(tracks: pd.DataFrame, primaries: pd.DataFrame) -> None:
    daughters = tracks[(tracks["mother_pdg_code"] == 310) & tracks["has_its"]]
    assert len(daughters) > 50
    assert (daughters["true_mother_pdg"] == 310).all() and (daughters["pdg_code"].abs() == 211).all()
    assert not daughters["is_physical_primary"].any()
    assert daughters["dca_xy"].abs().median() > 10 * primaries["dca_xy"].abs().median()


def test_position_is_at_the_vertex(tracks: pd.DataFrame, frames: dict[int, Frame]) -> None:
    vertex = []
    for number, own in tracks.groupby("data_frame", sort=False):
        collision = frames[int(number)]["O2collision_001"]
        vertex.append(np.stack([collision[leaf][own["collision"]] for leaf in ("fPosX", "fPosY", "fPosZ")]))
    x, y, z = np.concatenate(vertex, axis=1)
    cos, sin = np.cos(tracks["alpha"]), np.sin(tracks["alpha"])
    offset_x, offset_y = tracks["x"] * cos - tracks["y"] * sin - x, tracks["x"] * sin + tracks["y"] * cos - y
    np.testing.assert_allclose(offset_x, -tracks["dca_xy"] * sin, atol=1e-4)
    np.testing.assert_allclose(offset_y, tracks["dca_xy"] * cos, atol=1e-4)
    np.testing.assert_allclose(tracks["z"] - z, tracks["dca_z"], atol=1e-4)


def test_time_of_flight_and_velocity_close_within_the_resolution(primaries: pd.DataFrame) -> None:
    matched = primaries[primaries["has_tof"] & (primaries["true_p"] > 0.4)]
    assert len(matched) > 1000
    beta = matched["true_p"] / matched["true_energy"]
    length = matched["length"].astype(float)
    time = matched["tof_signal"].astype(float) - matched["true_time"] - length / (beta * C_CM_PER_PS)
    assert robust_width(time) == pytest.approx(np.hypot(TOF_HIT_PS, TOF_CALIBRATION_PS), rel=0.1)
    assert abs(np.median(time)) < 10
    pull = (matched["beta"] - beta) / (beta**2 * C_CM_PER_PS * TIME_WIDTH_PS / length)
    assert robust_width(pull) == pytest.approx(1, abs=0.1) and abs(np.median(pull)) < 0.15
    np.testing.assert_allclose(
        matched["beta"], length / (matched["tof_signal"] - matched["tof_event_time"]) / C_CM_PER_PS, rtol=1e-4
    )
    assert robust_width(matched["tof_event_time"] - matched["true_time"]) == pytest.approx(EVENT_TIME_PS, rel=0.15)


def test_a_pion_hypothesis_of_tracking_does_not_bias_protons(primaries: pd.DataFrame) -> None:
    matched = primaries[primaries["has_tof"] & (primaries["pdg_code"].abs() == 2212)]
    residual = matched["tof_signal"].astype(float) - matched["tof_event_time"]
    residual -= expected_time(matched["length"], matched["true_p"], BY_PDG[2212].mass)
    assert len(matched) > 50 and abs(np.median(residual)) < 40


def test_absent_detectors_are_null_and_no_sentinel_is_left(tracks: pd.DataFrame, output: Path) -> None:
    table = pq.read_table(output)
    never_written = ("its_signal", "sigma_1pt")  # Run 2 has the one, files with covariances the other
    for column in COLUMNS:
        values = table[column.name]
        null = values.is_null().to_numpy()
        if column.name in never_written:
            assert null.all(), column.name
        elif column.missing == MISSING_NEVER or column.detector == "track":
            assert not null.any(), column.name
        elif column.detector in ("its", "tpc", "trd", "tof"):
            np.testing.assert_array_equal(null, ~tracks[f"has_{column.detector}"], err_msg=column.name)
            assert 10 < null.sum() < len(null), column.name
        if column.dtype == "float" and column.name not in never_written:
            present = values.drop_null().to_numpy()
            assert np.isfinite(present).all(), column.name
            assert not np.isin(present, (-999.0, -999000.0)).any(), column.name
    for name in ("tof_signal", "beta", "length", "tpc_signal", "trd_signal", "tof_chi2", "its_chi2_ncl"):
        assert tracks[name].min() > 0, name


def test_cluster_counts_are_those_of_o2(tracks: pd.DataFrame, frames: dict[int, Frame]) -> None:
    for number, own in tracks.groupby("data_frame", sort=False):
        extra = {leaf: values[own["row"]] for leaf, values in frames[int(number)]["O2trackextra_002"].items()}
        findable = extra["fTPCNClsFindable"].astype(int)
        expected = {
            "tpc_n_cls_findable": findable,
            "tpc_n_cls_found": findable - extra["fTPCNClsFindableMinusFound"],
            "tpc_n_crossed_rows": findable - extra["fTPCNClsFindableMinusCrossedRows"],
        }
        for name, values in expected.items():
            np.testing.assert_array_equal(own[name][own["has_tpc"]], values[own["has_tpc"]], err_msg=name)
        layers = [[(int(word) >> 4 * layer) & 15 for layer in range(7)] for word in extra["fITSClusterSizes"]]
        sizes = np.array(layers)[own["has_its"]]
        seen = own[own["has_its"]]
        np.testing.assert_array_equal(seen["its_n_cls"], (sizes > 0).sum(axis=1))
        np.testing.assert_array_equal(seen["its_inner_hit"].astype(bool), (sizes[:, :3] > 0).any(axis=1))
        mean = sizes.sum(axis=1) / (sizes > 0).sum(axis=1) / np.cosh(seen["eta"])
        np.testing.assert_allclose(seen["its_mean_cluster_size"], mean, rtol=1e-4)


def test_labels_close_and_fakes_have_none(tracks: pd.DataFrame) -> None:
    fake = tracks["fake"].to_numpy()
    assert 30 < fake.sum() < 0.03 * len(fake)
    for name in ("pdg_code", "is_physical_primary", "mother_pdg_code"):
        assert tracks[name][fake].isna().all(), name
    known = tracks[~fake]
    np.testing.assert_array_equal(known["pdg_code"], known["true_pdg"])
    np.testing.assert_array_equal(known["is_physical_primary"].astype(bool), known["true_flags"] & 4 > 0)
    np.testing.assert_array_equal(known["mother_pdg_code"].fillna(0), known["true_mother_pdg"])
    assert known["mother_pdg_code"].isna().any()


def test_collision_id_is_the_same_for_a_collision_and_unique_over_files(
    folder: Path, tracks: pd.DataFrame, tmp_path: Path
) -> None:
    pairs = tracks[["data_frame", "collision", "collision_id"]].drop_duplicates()
    assert len(pairs) == pairs["collision_id"].nunique() == len(pairs[["data_frame", "collision"]].drop_duplicates())
    seen = set(pairs["collision_id"])
    ingest(folder / "data.root", tmp_path / "data.parquet", simulation=False)
    ingest(folder / "simulation.root", tmp_path / "renamed.parquet", source="other.root")
    for name in ("data", "renamed"):
        others = set(pq.read_table(tmp_path / f"{name}.parquet")["collision_id"].to_pylist())
        assert len(others) > 1000 and not others & seen
        seen |= others


def test_data_has_no_truth_and_the_same_bytes_come_again(folder: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        ingest(folder / "data.root", tmp_path / f"{name}.parquet", simulation=False)
    assert sha256(tmp_path / "one.parquet") == sha256(tmp_path / "two.parquet")
    table = pq.read_table(tmp_path / "one.parquet")
    for name in ("pdg_code", "is_physical_primary", "mother_pdg_code"):
        assert table[name].null_count == table.num_rows > 10_000


def test_the_field_matters(folder: Path, output: Path, tmp_path: Path) -> None:
    ingest(folder / "simulation.root", tmp_path / "wrong.parquet", bz=-BZ)
    right, wrong = (pq.read_table(path)["dca_xy"].to_numpy() for path in (output, tmp_path / "wrong.parquet"))
    assert np.median(np.abs(wrong)) > 1.2 * np.median(np.abs(right))


# what it refuses


@pytest.fixture(scope="module")
def small(frames: dict[int, Frame]) -> dict[int, Frame]:
    """Return the first tracks, collisions and all particles of the frames, consistent in themselves."""
    shortened = {}
    for number, frame in frames.items():
        kept = frame["O2track_iu"]["fIndexCollisions"] < 5
        per_track = {"O2track_iu", "O2trackextra_002", "O2mctracklabel"}
        shortened[number] = {
            tree: {leaf: values[kept] if tree in per_track else values for leaf, values in leaves.items()}
            for tree, leaves in frame.items()
        }
    return shortened


def write(path: Path, frames: dict[int, Frame]) -> Path:
    with uproot.recreate(path) as file:
        for number, trees in frames.items():
            for name, leaves in trees.items():
                columns = {leaf: values for leaf, values in leaves.items() if not leaf.endswith("_size")}
                types: dict[str, Any] = {
                    leaf: "var * int32" if isinstance(values, ak.Array) else np.dtype((values.dtype, values.shape[1:]))
                    for leaf, values in columns.items()
                }
                tree = file.mktree(f"DF_{number}/{name}", types, counter_name=lambda counted: f"{counted}_size")
                tree.extend(columns)
    return path


def broken(small: dict[int, Frame], change: Callable[[Frame], None]) -> dict[int, Frame]:
    """Return the frames with `change` applied to the second."""
    frames = {number: {tree: dict(leaves) for tree, leaves in trees.items()} for number, trees in small.items()}
    change(frames[list(frames)[1]])
    return frames


def refused(path: Path, **settings: Any) -> str:
    """Return the message with which a file is refused; it names the file and leaves nothing behind."""
    folder = path.parent / "output"
    with pytest.raises(PidflowError) as caught:
        ingest(path, folder / "tracks.parquet", **settings)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message and "; " in message  # one sentence, with the mend
    assert not folder.exists() or list(folder.iterdir()) == []
    return message


def test_small_files_are_sound_before_they_are_broken(small: dict[int, Frame], tmp_path: Path) -> None:
    counts = ingest(write(tmp_path / "file.root", small), tmp_path / "tracks.parquet")
    assert counts["data_frames"] == 2 and counts["tracks"] > 50
    assert pq.read_metadata(tmp_path / "tracks.parquet").num_rows == counts["tracks"] - counts["without_collision"]


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.01, 0.2, 0.5, 0.8, 0.9, 0.97, 0.995])
def test_a_truncated_file_is_refused(small: dict[int, Frame], tmp_path: Path, share: float) -> None:
    content = write(tmp_path / "whole.root", small).read_bytes()
    path = tmp_path / "file.root"
    path.write_bytes(content[: int(share * len(content))])
    assert "truncated" in refused(path)


@pytest.mark.parametrize(
    "column", ["O2track_iu/fSnp", "O2trackextra_002/fTPCSignal", "O2mcparticle_001/fIndexArray_Mothers"]
)
def test_a_damaged_column_is_refused(small: dict[int, Frame], tmp_path: Path, column: str) -> None:
    path = write(tmp_path / "file.root", small)
    with uproot.open(path) as file:
        branch = file[f"DF_{list(small)[1]}/{column}"]
        start, size = int(branch.member("fBasketSeek")[0]), int(branch.member("fBasketBytes")[0])
    content = bytearray(path.read_bytes())
    content[start + size // 2 : start + size] = b"\xff" * (size - size // 2)
    path.write_bytes(content)
    assert "damaged" in refused(path)


def test_a_file_that_is_no_root_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file.root").write_text("<html>404 Not Found</html>" * 100)
    assert "neither ROOT nor Parquet" in refused(tmp_path / "file.root")
    (tmp_path / "file.root").write_bytes(b"")
    assert "an empty file" in refused(tmp_path / "file.root")


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "output").mkdir()
    assert "file.root" in refused(tmp_path / "file.root")


def test_a_file_without_data_frames_is_refused(tmp_path: Path) -> None:
    with uproot.recreate(tmp_path / "file.root") as file:
        file.mktree("tracks", {"pt": "f4"}).extend({"pt": np.ones(3, np.float32)})
    assert "holds no data frame DF_<n> and no esdTree, only tracks" in refused(tmp_path / "file.root")
    with uproot.recreate(tmp_path / "empty.root"):
        pass
    assert "only nothing" in refused(tmp_path / "empty.root")


@pytest.mark.parametrize(
    ("tree", "column"),
    [
        ("O2bc_001", "fRunNumber"),
        ("O2collision_001", "fCollisionTime"),
        ("O2track_iu", "fSigned1Pt"),
        ("O2trackextra_002", "fITSClusterSizes"),
        ("O2mctracklabel", "fMcMask"),
        ("O2mcparticle_001", "fPdgCode"),
    ],
)
def test_a_missing_table_column_or_unknown_version_is_named(
    small: dict[int, Frame], tmp_path: Path, tree: str, column: str
) -> None:
    path, plain = tmp_path / "file.root", tree.split("_0")[0]
    number = list(small)[1]

    write(path, broken(small, lambda frame: frame.pop(tree) and None))
    message = refused(path)
    lack = "holds no Monte Carlo labels" if plain == "O2mctracklabel" else f"lacks the table {plain} "
    assert f"DF_{number} {lack}" in message

    write(path, broken(small, lambda frame: frame[tree].pop(column) is None))
    message = refused(path)
    assert f"DF_{number}" in message and tree in message and f"lacks the column {column}" in message

    write(path, broken(small, lambda frame: frame.update({f"{plain}_077": frame.pop(tree)})))
    message = refused(path)
    assert f"holds {plain}_077, which this reader does not know" in message


@pytest.mark.parametrize("tree", ["O2track_iu", "O2trackextra_002", "O2mctracklabel"])
def test_joined_tables_of_unequal_length_are_refused(small: dict[int, Frame], tmp_path: Path, tree: str) -> None:
    def shorten(frame: Frame) -> None:
        frame[tree] = {leaf: values[:-1] for leaf, values in frame[tree].items()}

    message = refused(write(tmp_path / "file.root", broken(small, shorten)))
    assert "differ in length" in message


@pytest.mark.parametrize(
    ("tree", "leaf", "value", "target"),
    [
        ("O2track_iu", "fIndexCollisions", 10**6, "O2collision"),
        ("O2track_iu", "fIndexCollisions", -2, "O2collision"),
        ("O2mctracklabel", "fIndexMcParticles", 10**6, "O2mcparticle"),
        ("O2mctracklabel", "fIndexMcParticles", -2, "O2mcparticle"),
    ],
)
def test_an_index_out_of_range_is_refused(
    small: dict[int, Frame], tmp_path: Path, tree: str, leaf: str, value: int, target: str
) -> None:
    def misplace(frame: Frame) -> None:
        values = frame[tree][leaf].copy()
        kept = np.flatnonzero(frame["O2track_iu"]["fIndexCollisions"] >= 0)
        values[kept[3]] = value
        frame[tree][leaf] = values

    message = refused(write(tmp_path / "file.root", broken(small, misplace)))
    assert f"{leaf} points outside {target}" in message


def test_a_mother_out_of_range_is_refused(small: dict[int, Frame], tmp_path: Path) -> None:
    def misplace(frame: Frame) -> None:
        particles = frame["O2mcparticle_001"]
        mother = np.full((len(particles["fPdgCode"]), 1), 10**6, np.int32)
        particles["fIndexArray_Mothers"] = ak.from_regular(mother)

    refused(write(tmp_path / "file.root", broken(small, misplace)))


def test_a_wrong_run_is_refused(folder: Path, small: dict[int, Frame], tmp_path: Path) -> None:
    path = write(tmp_path / "file.root", small)
    assert f"belongs to run {RUN}, not 900002; list it under its own run" in refused(path, run=900002)

    def mix(frame: Frame) -> None:
        runs = frame["O2bc_001"]["fRunNumber"].copy()
        runs[-1] = 10**6
        frame["O2bc_001"]["fRunNumber"] = runs

    assert f"belongs to run {RUN}, 1000000, not {RUN}" in refused(write(tmp_path / "file.root", broken(small, mix)))


def test_simulation_and_data_are_not_mistaken_for_each_other(small: dict[int, Frame], tmp_path: Path) -> None:
    path = write(tmp_path / "file.root", small)
    message = refused(path, simulation=False)
    assert "holds Monte Carlo labels; list the file under 'simulation', not 'data'" in message
    without = {
        number: {tree: leaves for tree, leaves in trees.items() if not tree.startswith("O2mc")}
        for number, trees in small.items()
    }
    assert "holds no Monte Carlo labels; list the file under 'data', not 'simulation'" in refused(write(path, without))
    assert ingest(path, tmp_path / "tracks.parquet", simulation=False)["tracks"] > 50


def test_a_failure_keeps_an_earlier_result(small: dict[int, Frame], tmp_path: Path) -> None:
    output = tmp_path / "tracks.parquet"
    output.write_bytes(b"earlier")
    path = write(tmp_path / "file.root", small)
    with pytest.raises(PidflowError):
        ingest(path, output, run=1)
    assert output.read_bytes() == b"earlier"


def test_a_frame_without_tracks_or_collisions_is_read(small: dict[int, Frame], tmp_path: Path) -> None:
    def empty(frame: Frame) -> None:
        for tree, leaves in frame.items():
            frame[tree] = {leaf: values[:0] for leaf, values in leaves.items()}

    counts = ingest(write(tmp_path / "file.root", broken(small, empty)), tmp_path / "tracks.parquet")
    first = len(next(iter(small.values()))["O2track_iu"]["fX"])
    assert (counts["data_frames"], counts["tracks"]) == (2, first)
    assert len(set(pq.read_table(tmp_path / "tracks.parquet")["data_frame"].to_pylist())) == 1


@pytest.mark.skipif(not REAL.is_dir(), reason=f"{REAL} is absent")
@pytest.mark.parametrize("simulation", [False, True])
def test_a_real_file_without_tracks_is_refused(tmp_path: Path, simulation: bool) -> None:
    path = REAL / "AO2D_stub_ALICE3_one_bc.root"
    with pytest.raises(PidflowError) as caught:
        ingest(path, tmp_path / "tracks.parquet", run=300000, simulation=simulation)
    assert str(caught.value) == f"{path}: none of its 1 data frames holds a table of tracks; remove it"
    assert list(tmp_path.iterdir()) == []
