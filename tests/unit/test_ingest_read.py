"""What holds for every format: parts, policies for bad files, the account of a sample's inputs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uproot
from hypothesis import given
from hypothesis import strategies as st
from ingesting import DEFAULTS, ingest, ingested
from test_simulate import example

from pidflow.config.models import BadFiles, Ingest
from pidflow.errors import PidflowError
from pidflow.files import read_json
from pidflow.ingest import ao2d
from pidflow.ingest.formats import format_of
from pidflow.ingest.frames import collision_blocks
from pidflow.ingest.inputs import check_inputs
from pidflow.ingest.read import skip_file
from pidflow.ingest.reader import Request
from pidflow.ingest.table import to_table
from pidflow.origin import read_origin
from pidflow.tracks import ROW_ID, schema


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return example(tmp_path_factory.getbasetemp()) / "simulation.root"


def test_parts_make_up_the_whole(simulated: Path, tmp_path: Path) -> None:
    ingest(simulated, tmp_path / "whole.parquet")
    parts = [ingested(simulated, tmp_path / f"{part}.parquet", part=part, parts=3) for part in (1, 2, 3)]
    tables = [pq.read_table(tmp_path / f"{part}.parquet").replace_schema_metadata() for part in (1, 2, 3)]
    whole = pq.read_table(tmp_path / "whole.parquet").replace_schema_metadata()
    assert pa.concat_tables(tables).equals(whole)
    assert [table.num_rows > 0 for table in tables] == [True, True, False]  # the file has two data frames
    assert [len(part.fingerprints) for part in parts] == [1, 1, 0]
    assert read_origin(tmp_path / "2.parquet")["part"] == [2, 3]


def test_an_error_leaves_nothing(simulated: Path, tmp_path: Path) -> None:
    with pytest.raises(PidflowError, match="belongs to run 900001, not 5"):
        ingest(simulated, tmp_path / "out.parquet", run=5)
    assert list(tmp_path.iterdir()) == []


def test_values_become_columns() -> None:
    columns = {
        "source": "a.root",
        "row": np.arange(9),
        "p": np.ma.array(np.linspace(1, 2, 9), mask=np.arange(9) == 3),
        "pt": np.array([1.0, np.nan, np.inf, -np.inf, 5, 6, 7, 8, 9], np.float32),
        "has_tpc": np.arange(9) % 2 == 0,
        "its_n_cls": np.ma.array(np.arange(9, dtype=np.uint8), mask=np.arange(9) > 6),
        "tpc_n_cls_found": np.array([1.0, np.nan, 3, 4, 5, 6, 7, 8, 9]),
        "collision_id": np.arange(9, dtype=np.uint64) + (1 << 63),
    }
    table = to_table(columns)
    table.validate(full=True)
    assert table.schema.equals(schema())
    assert table["source"].to_pylist() == ["a.root"] * 9
    assert table["p"].to_pylist() == [None if n == 3 else 1 + n / 8 for n in range(9)]
    assert table["pt"].to_pylist() == [1.0, None, None, None, 5.0, 6.0, 7.0, 8.0, 9.0]
    assert table["has_tpc"].to_pylist() == [True, False] * 4 + [True]
    assert table["its_n_cls"].to_pylist() == [0, 1, 2, 3, 4, 5, 6, None, None]
    assert table["tpc_n_cls_found"].to_pylist() == [1, None, 3, 4, 5, 6, 7, 8, 9]
    assert table["collision_id"].to_pylist() == [n + (1 << 63) for n in range(9)]
    assert table["tof_signal"].null_count == 9
    assert to_table({"source": "a", "row": np.arange(0)}).num_rows == 0


# formats


def test_formats_are_told_by_what_a_file_holds(simulated: Path, tmp_path: Path) -> None:
    assert format_of(simulated, None) == "ao2d"
    shutil.copy(simulated, tmp_path / "file.parquet")
    assert format_of(tmp_path / "file.parquet", None) == "ao2d"
    pq.write_table(pa.table({"p": [1.0]}), tmp_path / "file.root")
    assert format_of(tmp_path / "file.root", None) == "flat"
    with uproot.recreate(tmp_path / "tracks.root") as file:
        file.mktree("tracks", {"p": "f4"}).extend({"p": np.ones(3, np.float32)})
    assert format_of(tmp_path / "tracks.root", "tracks") == "flat"
    with pytest.raises(PidflowError, match=r"holds no data frame DF_<n> and no esdTree, only tracks; .*'ingest.tree'"):
        format_of(tmp_path / "tracks.root", None)


def test_a_format_that_is_given_is_not_guessed(simulated: Path, tmp_path: Path) -> None:
    for kind, message in {
        "ud": "lacks the table O2ud",
        "esd": "esdTree",
        "pidml": "lacks the table O2pidtracks",
    }.items():
        with pytest.raises(PidflowError, match=message):
            ingest(simulated, tmp_path / "out.parquet", settings=Ingest(format=kind))


# the inputs of a sample


def tables(folder: Path, origins: list[dict[str, Any]]) -> list[Path]:
    """Write empty track tables with these origins."""
    from tracks_sample import write_tracks

    return [
        write_tracks(pa.Table.from_pylist([], schema()), folder / f"{number}.parquet", **origin)
        for number, origin in enumerate(origins)
    ]


def origin(name: str, **changes: Any) -> dict[str, Any]:
    return {"source": name, "format": "ao2d", "sha256": name, "counts": {"tracks": 5}, "fingerprints": {}} | changes


SKIPPED = {"source": "bad.root", "skipped": "bad.root: an empty file; transfer it again"}


def test_the_account_lists_what_was_read_and_skipped(tmp_path: Path) -> None:
    read = [origin(f"{number}.root") for number in range(9)]
    check_inputs(tables(tmp_path, [*read, SKIPPED]), tmp_path / "inputs.json", policy=BadFiles(policy="skip"))
    account = read_json(tmp_path / "inputs.json")
    assert account["skipped"] == [{"source": "bad.root", "reason": SKIPPED["skipped"]}]
    assert [entry["source"] for entry in account["files"]] == [entry["source"] for entry in read]
    assert account["counts"] == {"tracks": 45}
    assert all("fingerprints" not in entry for entry in account["files"])


def test_too_many_bad_files_fail_the_run(tmp_path: Path) -> None:
    paths = tables(tmp_path, [*(origin(f"{number}.root") for number in range(8)), SKIPPED])
    with pytest.raises(PidflowError, match=r"1 of 9 input files .*max_share' \(0.1\).*bad.root: an empty file"):
        check_inputs(paths, tmp_path / "inputs.json", policy=BadFiles(policy="skip"))
    assert not (tmp_path / "inputs.json").exists()
    check_inputs(paths, tmp_path / "inputs.json", policy=BadFiles(policy="skip", max_share=0.2))
    with pytest.raises(PidflowError, match="1 of 1 input files"):
        check_inputs(paths[-1:], tmp_path / "inputs.json", policy=BadFiles(policy="skip", max_share=0.99))


def test_parts_of_a_file_are_accounted_together(tmp_path: Path) -> None:
    parts = [origin("a.root", part=[number, 2], fingerprints={f"DF_{number}": "a"}) for number in (1, 2)]
    del parts[1]["sha256"]
    check_inputs(tables(tmp_path, [*parts, origin("b.root")]), tmp_path / "inputs.json", policy=BadFiles())
    files = read_json(tmp_path / "inputs.json")["files"]
    assert [(file["source"], file["sha256"], file["counts"]["tracks"]) for file in files] == [
        ("a.root", "a.root", 10), ("b.root", "b.root", 5)
    ]  # fmt: skip


def test_parts_of_a_file_count_as_one(tmp_path: Path) -> None:
    parts = [{**SKIPPED, "part": [number, 3]} for number in (1, 2, 3)]
    read = [origin(f"{number}.root") for number in range(9)]
    check_inputs(tables(tmp_path, [*read, *parts]), tmp_path / "inputs.json", policy=BadFiles(policy="skip"))
    assert len(read_json(tmp_path / "inputs.json")["skipped"]) == 1


def test_a_data_frame_in_two_files_is_refused(simulated: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        ingest(simulated, tmp_path / f"{name}.parquet", source=f"{name}.root")
    with pytest.raises(PidflowError, match=r"two.root: data frame DF_\d+ is the same as that in one.root; list one"):
        check_inputs([tmp_path / "one.parquet", tmp_path / "two.parquet"], tmp_path / "inputs.json", policy=BadFiles())


def test_the_same_number_with_other_content_is_another_frame(tmp_path: Path) -> None:
    origins = [origin("a.root", fingerprints={"DF_1": "aa"}), origin("b.root", fingerprints={"DF_1": "bb"})]
    check_inputs(tables(tmp_path, origins), tmp_path / "inputs.json", policy=BadFiles())


def test_a_skipped_file_leaves_empty_tables_with_the_reason(tmp_path: Path) -> None:
    request = Request(path=tmp_path / "bad.root", source="bad.root", **DEFAULTS)
    tracks, v0s = tmp_path / "tracks.parquet", tmp_path / "v0s.parquet"
    skip_file(request, tracks, v0s, PidflowError("bad.root: an empty file; transfer it again"))
    assert pq.read_metadata(tracks).num_rows == pq.read_metadata(v0s).num_rows == 0
    assert pq.read_schema(tracks).remove_metadata().equals(schema())
    assert read_origin(tracks)["skipped"] == "bad.root: an empty file; transfer it again"
    assert set(ROW_ID) <= set(pq.read_schema(v0s).names)


# data frames in blocks


@given(st.lists(st.integers(0, 6), max_size=40), st.integers(1, 15))
def test_no_collision_straddles_two_blocks(collision: list[int], size: int) -> None:
    for order in (sorted(collision), collision):
        index = np.array(order, dtype=np.int64)
        blocks = collision_blocks(index, size)
        covered = [row for block in blocks for row in range(block.start, block.stop)]
        assert covered == list(range(len(index)))
        seen: set[int] = set()
        for block in blocks:
            own = set(index[block].tolist())
            assert not own & seen
            seen |= own
        assert all(block.stop - block.start >= size for block in blocks[:-1])


def test_blocks_are_no_larger_than_they_must_be() -> None:
    blocks = collision_blocks(np.repeat(np.arange(100), 10), 95)
    assert [block.stop - block.start for block in blocks] == [100] * 10
    assert collision_blocks(np.array([0, 1, 0, 1]), 1) == [slice(0, 4)]
    assert collision_blocks(np.array([], dtype=np.int64)) == [slice(0, 0)]


def test_blocks_change_nothing(simulated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ingest(simulated, tmp_path / "whole.parquet")
    monkeypatch.setattr(ao2d, "collision_blocks", lambda collision: collision_blocks(collision, 500))
    ingest(simulated, tmp_path / "blocks.parquet")
    whole, blocks = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("whole", "blocks"))
    assert blocks.equals(whole)
    tables = [pq.read_table(tmp_path / f"{name}.v0.parquet") for name in ("whole", "blocks")]
    own, other = (sorted(map(str, table.drop_columns(["v0"]).to_pylist())) for table in tables)
    assert own == other and len(own) > 100
    legs = tables[1].group_by(["data_frame", "v0"]).aggregate([("row", "count")])
    assert set(legs["row_count"].to_pylist()) == {2}
