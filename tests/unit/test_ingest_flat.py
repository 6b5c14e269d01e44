"""The reader of flat tables: column map, completion, missing values, labels and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uproot
from ingesting import ingest as ingest_one

from pidflow.config import load
from pidflow.config.models import Ingest
from pidflow.errors import PidflowError
from pidflow.files import sha256
from pidflow.origin import read_origin
from pidflow.tracks import COLUMNS, schema

COLUMN_MAP = {
    "p": "P",
    "pt": "PT",
    "eta": "Eta",
    "phi": "Phi",
    "tpc_signal": "dEdx",
    "its_signal": "dEdxITS",
    "tpc_n_cls_found": "NCls",
    "beta": "Beta",
}


def content(n: int = 50) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(8)
    pt, eta = rng.uniform(0.2, 5.0, n), rng.uniform(-0.9, 0.9, n)
    its = rng.uniform(20.0, 200.0, n)
    its[::5] = 0.0
    beta = rng.uniform(0.5, 1.0, n)
    beta[::7] = np.nan
    return {
        "P": pt * np.cosh(eta),
        "PT": pt,
        "Eta": eta,
        "Phi": rng.uniform(0, 2 * np.pi, n),
        "dEdx": rng.uniform(40, 300, n).astype(np.float32),
        "dEdxITS": its,
        "NCls": rng.integers(60, 160, n).astype(np.int32),
        "Beta": beta,
        "Pdg": rng.choice(np.array([211, -211, 321, 2212], np.int32), n),
        "Unused": np.arange(n, dtype=np.int64),
    }


def settings(**changes: Any) -> Ingest:
    values = {
        "format": "flat",
        "columns": COLUMN_MAP,
        "missing": {"its_signal": [0.0]},
        "label": {"column": "Pdg"},
    } | changes
    return Ingest.model_validate(values)


def write(path: Path, columns: dict[str, Any]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def ingest(path: Path, simulation: bool = True, **changes: Any) -> tuple[pd.DataFrame, dict[str, int]]:
    output = path.parent / "output" / "tracks.parquet"
    counts = ingest_one(path, output, run=2010, bz=0.0, simulation=simulation, settings=settings(**changes))
    return pq.read_table(output).to_pandas(), counts


def refused(path: Path, simulation: bool = True, **changes: Any) -> str:
    """Return the message with which a file is refused; it names the file and leaves nothing behind."""
    with pytest.raises(PidflowError) as caught:
        ingest(path, simulation, **changes)
    output = path.parent / "output"
    assert not output.exists() or list(output.iterdir()) == []
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    assert "; " in message or "'ingest." in message  # the mend
    return message


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    return write(tmp_path / "tracks.parquet", content())


def test_columns_are_mapped(parquet: Path) -> None:
    tracks, counts = ingest(parquet)
    given = content()
    for name, original in COLUMN_MAP.items():
        if name not in ("its_signal", "beta"):
            np.testing.assert_allclose(tracks[name], given[original], rtol=1e-6)
    assert counts == {"batches": 1, "tracks": 50, "duplicates": 0}
    output = parquet.parent / "output" / "tracks.parquet"
    assert pq.read_schema(output).remove_metadata().equals(schema())
    origin = read_origin(output)
    assert origin["counts"] == counts and origin["sha256"] == sha256(parquet)


def test_identity_of_rows(parquet: Path) -> None:
    tracks, counts = ingest(parquet, batch_rows=20)
    assert counts["batches"] == 3
    assert tracks["source"].unique().tolist() == ["tracks.parquet"] and tracks["run"].unique().tolist() == [2010]
    assert tracks["data_frame"].tolist() == [0] * 20 + [1] * 20 + [2] * 10
    assert tracks["row"].tolist() == [*range(20), *range(20), *range(10)]
    assert tracks["collision_id"].nunique() == 50
    np.testing.assert_allclose(tracks["pt"], content()["PT"], rtol=1e-6)


def test_collision_ids_differ_between_files(tmp_path: Path) -> None:
    ids = [set(ingest(write(tmp_path / f"{name}.parquet", content()))[0]["collision_id"]) for name in "ab"]
    assert len(ids[0]) == len(ids[1]) == 50 and not ids[0] & ids[1]


def test_missing_values_become_null_and_hide_the_detector(parquet: Path) -> None:
    tracks, _ = ingest(parquet)
    given = content()
    no_its, no_beta = given["dEdxITS"] == 0, np.isnan(given["Beta"])
    assert no_its.sum() == 10 and no_beta.sum() == 8
    np.testing.assert_array_equal(tracks["its_signal"].isna(), no_its)
    np.testing.assert_array_equal(tracks["beta"].isna(), no_beta)
    np.testing.assert_allclose(tracks["its_signal"][~no_its], given["dEdxITS"][~no_its], rtol=1e-6)
    np.testing.assert_array_equal(tracks["has_its"], ~no_its)
    np.testing.assert_array_equal(tracks["has_tof"], ~no_beta)
    assert tracks["has_tpc"].all() and not tracks["has_trd"].any()
    absent = {column.name for column in COLUMNS} - set(COLUMN_MAP)
    for name in ("x", "dca_xy", "sign", "trd_signal", "tof_signal", "mother_pdg_code"):
        assert name in absent and tracks[name].isna().all(), name


def test_null_and_infinity_are_missing_too(tmp_path: Path) -> None:
    given: dict[str, Any] = content(4)
    given["dEdx"] = pa.array([50.0, None, np.inf, 60.0])
    given["NCls"] = pa.array([70, None, 80, 90])
    tracks, _ = ingest(write(tmp_path / "tracks.parquet", given))
    assert tracks["tpc_signal"].isna().tolist() == [False, True, True, False]
    assert tracks["has_tpc"].tolist() == [True, False, False, True]
    assert tracks["tpc_n_cls_found"].isna().tolist() == [False, True, False, False]
    assert tracks["tpc_n_cls_found"].dropna().tolist() == [70, 80, 90]


def test_several_sentinels(tmp_path: Path) -> None:
    given = content(4)
    given["dEdx"] = np.array([50.0, -1.0, -999.0, 0.0], np.float32)
    tracks, _ = ingest(write(tmp_path / "tracks.parquet", given), missing={"tpc_signal": [-1.0, -999.0]})
    assert tracks["tpc_signal"].isna().tolist() == [False, True, True, False]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_momentum_that_is_missing_is_refused(tmp_path: Path, bad: float) -> None:
    given = content()
    given["P"][7] = bad
    path = write(tmp_path / "tracks.parquet", given)
    assert "p is not known for every track" in refused(path)


# kinematics


@pytest.mark.parametrize(
    ("names", "completed"),
    [
        (("p", "pt", "eta", "phi"), ("px", "py", "pz")),
        (("pt", "eta"), ("p", "pz")),
        (("p", "eta", "phi"), ("pt", "px", "py", "pz")),
        (("pt", "eta", "phi"), ("p", "px", "py", "pz")),
        (("px", "py", "pz"), ("p", "pt", "eta", "phi")),
        (("p", "pt"), ()),
        (("p", "pt", "phi"), ("px", "py")),
    ],
)
def test_kinematics_are_completed(tmp_path: Path, names: tuple[str, ...], completed: tuple[str, ...]) -> None:
    rng = np.random.default_rng(9)
    px, py, pz = rng.normal(size=(3, 40))
    pt = np.hypot(px, py)
    truth = {
        "px": px,
        "py": py,
        "pz": pz,
        "pt": pt,
        "p": np.sqrt(px**2 + py**2 + pz**2),
        "eta": np.arcsinh(pz / pt),
        "phi": np.arctan2(py, px) % (2 * np.pi),
    }
    path = write(tmp_path / "tracks.parquet", {name: truth[name] for name in names})
    tracks, _ = ingest(path, simulation=False, columns={name: name for name in names}, missing={})
    for name, values in truth.items():
        if name in names or name in completed:
            np.testing.assert_allclose(tracks[name], values, rtol=1e-5, atol=1e-6, err_msg=name)
        else:
            assert tracks[name].isna().all(), name


def test_a_column_that_is_given_is_not_computed(tmp_path: Path) -> None:
    path = write(tmp_path / "tracks.parquet", {"p": [5.0], "pt": [1.0], "eta": [0.0], "phi": [0.0], "pz": [4.5]})
    names = ("p", "pt", "eta", "phi", "pz")
    tracks, _ = ingest(path, simulation=False, columns={name: name for name in names}, missing={})
    assert tracks[["p", "pt", "pz"]].iloc[0].tolist() == [5.0, 1.0, 4.5]


@pytest.mark.parametrize("names", [("p",), ("pt",), ("px", "py"), ("p", "phi"), ("eta", "phi")])
def test_incomplete_momentum_is_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    path = write(tmp_path / "tracks.parquet", {name: np.ones(3) for name in names})
    assert "momentum is incomplete" in refused(path, False, columns={name: name for name in names}, missing={})


# duplicates


def test_duplicates_are_dropped_across_batches(tmp_path: Path) -> None:
    frame = pd.DataFrame(content(30))
    frame.loc[3, "Beta"] = np.nan
    twice = pd.concat([frame[:12], frame.iloc[[3, 10]], frame[12:], frame.iloc[[29, 3]]], ignore_index=True)
    path = tmp_path / "tracks.parquet"
    twice.to_parquet(path)
    tracks, counts = ingest(path, drop_duplicates=True, batch_rows=8)
    assert counts == {"batches": 5, "tracks": 34, "duplicates": 4}
    np.testing.assert_allclose(tracks["pt"], frame["PT"], rtol=1e-6)
    position = tracks["data_frame"] * 8 + tracks["row"]  # the first of equal rows stays
    assert position.tolist() == [*range(12), *range(14, 32)]
    tracks, counts = ingest(path, batch_rows=8)
    assert len(tracks) == 34 and counts["duplicates"] == 0


def test_rows_that_differ_in_any_column_are_no_duplicates(tmp_path: Path) -> None:
    given = {name: np.repeat(values[:1], 3) for name, values in content(1).items()}
    given["Unused"] = np.array([1, 2, 1])
    tracks, counts = ingest(write(tmp_path / "tracks.parquet", given), drop_duplicates=True)
    assert len(tracks) == 2 and counts["duplicates"] == 1


# labels


def test_labels_come_from_the_column(parquet: Path) -> None:
    tracks, _ = ingest(parquet)
    np.testing.assert_array_equal(tracks["pdg_code"], content()["Pdg"])
    tracks, _ = ingest(parquet, simulation=False)
    assert tracks["pdg_code"].isna().all()


def test_labels_come_from_the_stem(parquet: Path) -> None:
    rule = {"file_stems": {"tracks": -321, "others": 211}}
    tracks, _ = ingest(parquet, label=rule)
    assert tracks["pdg_code"].tolist() == [-321] * 50
    tracks, _ = ingest(parquet, simulation=False, label={"file_stems": {}})
    assert tracks["pdg_code"].isna().all()


def test_labels_follow_their_rows_when_duplicates_go(tmp_path: Path) -> None:
    frame = pd.DataFrame(content(20))
    pd.concat([frame.iloc[:10], frame.iloc[:5], frame.iloc[10:]]).to_parquet(tmp_path / "tracks.parquet")
    tracks, _ = ingest(tmp_path / "tracks.parquet", drop_duplicates=True)
    np.testing.assert_array_equal(tracks["pdg_code"], frame["Pdg"])


def test_a_missing_label_is_refused(parquet: Path) -> None:
    message = refused(parquet, label={"file_stems": {"pions": 211}})
    assert "no label for it; add 'tracks' to 'ingest.label.file_stems'" in message
    assert "no column Truth" in refused(parquet, label={"column": "Truth"})
    assert len(ingest(parquet, simulation=False, label={"column": "Truth"})[0]) == 50


# ROOT trees


def root(path: Path, columns: dict[str, np.ndarray], tree: str = "tracks") -> Path:
    with uproot.recreate(path) as file:
        file.mktree(tree, {name: values.dtype for name, values in columns.items()}).extend(columns)
    return path


@pytest.mark.parametrize("tree", ["tracks", "folder/tracks"])
@pytest.mark.parametrize("drop_duplicates", [False, True])
def test_a_root_tree_gives_the_same_as_parquet(parquet: Path, tmp_path: Path, tree: str, drop_duplicates: bool) -> None:
    path = root(tmp_path / "tracks.root", content(), tree)
    changes = {"batch_rows": 20, "drop_duplicates": drop_duplicates}
    expected, counts = ingest(parquet, **changes)
    found, found_counts = ingest(path, tree=tree, **changes)
    assert found_counts == counts and found["source"].unique().tolist() == ["tracks.root"]
    own = ["source", "collision_id"]
    pd.testing.assert_frame_equal(found.drop(columns=own), expected.drop(columns=own))


def test_a_root_file_without_the_tree_is_refused(tmp_path: Path) -> None:
    path = root(tmp_path / "tracks.root", content())
    assert "name the tree of a flat ROOT file in the key 'ingest.tree'" in refused(path)
    assert "no tree others; correct the key 'ingest.tree'" in refused(path, tree="others")


# refusals


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    given = content()
    del given["dEdx"]
    for path in (write(tmp_path / "a.parquet", given), root(tmp_path / "a.root", given)):
        message = refused(path, tree="tracks")
        assert "no column dEdx, only " in message and "Beta" in message and "'ingest.columns'" in message


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.95, 0.999])
@pytest.mark.parametrize("suffix", ["parquet", "root"])
def test_a_truncated_file_is_refused(tmp_path: Path, share: float, suffix: str) -> None:
    writer = {"parquet": write, "root": root}[suffix]
    whole = writer(tmp_path / f"whole.{suffix}", content(2000)).read_bytes()
    path = tmp_path / f"tracks.{suffix}"
    path.write_bytes(whole[: int(share * len(whole))])
    assert "damaged or truncated file" in refused(path, tree="tracks")


def test_damage_after_the_first_batch_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "tracks.parquet"
    pq.write_table(pa.table(content(4000)), path, row_group_size=1000)
    raw = bytearray(path.read_bytes())
    start = pq.read_metadata(path).row_group(3).column(0).data_page_offset
    raw[start : start + 400] = b"\xff" * 400
    path.write_bytes(raw)
    assert "damaged or truncated file" in refused(path, batch_rows=1000)


def test_an_empty_table_gives_no_rows(tmp_path: Path) -> None:
    tracks, counts = ingest(write(tmp_path / "tracks.parquet", {name: v[:0] for name, v in content().items()}))
    assert len(tracks) == 0 and counts["tracks"] == 0


def test_numbers_that_the_column_cannot_hold_are_refused(tmp_path: Path) -> None:
    given = content()
    given["Ncls"] = np.full(len(given["P"]), 500.0)
    path = write(tmp_path / "tracks.parquet", given)
    assert "column Ncls holds 500, which its_n_cls (int8) cannot" in refused(
        path, columns={**COLUMN_MAP, "its_n_cls": "Ncls"}
    )


def test_text_is_refused_as_text(tmp_path: Path) -> None:
    given = content()
    given["Word"] = np.array(["a"] * len(given["P"]))
    path = write(tmp_path / "tracks.parquet", given)
    assert "column Word does not hold numbers" in refused(path, columns={**COLUMN_MAP, "tpc_chi2_ncl": "Word"})


# real files, beside the repository where they can be had

ROOT = Path(__file__).resolve().parents[2]
REAL = ROOT.parent / "shared/data/labelled_tracks"


@pytest.mark.skipif(not REAL.is_dir(), reason=f"{REAL} is absent")
@pytest.mark.parametrize(("stem", "pdg"), [("kaons", 321), ("deuterons", 1000010020)])
def test_real_tagged_tracks(tmp_path: Path, stem: str, pdg: int) -> None:
    """Counts against pandas' own: rows that are equal in every column, and tracks without ITS signal."""
    settings = load(ROOT / "config/examples/labelled_tracks.yaml").ingest
    output = tmp_path / "tracks.parquet"
    path = REAL / f"{stem}.parquet"
    counts = ingest_one(path, output, run=2010, bz=0.0, settings=settings)
    distinct = pd.read_parquet(path).drop_duplicates()
    assert counts["duplicates"] == 100_000 - len(distinct) > 10_000
    table = pq.read_table(output)
    assert table["its_signal"].null_count == (distinct["dEdxITS"] == 0).sum()
    np.testing.assert_array_equal(table["tpc_signal"].to_numpy(), distinct["dEdxTPC"])
    assert set(table["pdg_code"].to_pylist()) == {pdg}
