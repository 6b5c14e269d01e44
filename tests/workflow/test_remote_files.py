"""Remote input files: fetched once, read as local ones are, and removed."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from checkout import Checkout
from test_bad_input import TABLE, edit
from test_remote import Xrootd

from pidflow.origin import read_origin


@pytest.fixture
def xrootd() -> Iterator[Xrootd]:
    if shutil.which("xrootd") is None:
        pytest.skip("needs the program xrootd (Debian package xrootd-server)")
    with tempfile.TemporaryDirectory(prefix="xrootd-") as folder:
        server = Xrootd(Path(folder))
        server.start()
        yield server
        server.kill()


def test_files_of_a_server_give_the_tables_of_local_ones(production: Checkout, xrootd: Xrootd, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(production.folder, folder, symlinks=True)
    local = "resources/example/900002/data_00{}.root"
    for number in (1, 2):
        xrootd.add(f"900002/data_00{number}.root", (folder / local.format(number)).read_bytes())
    edit(folder / TABLE, f"{local.format(1)};{local.format(2)}", xrootd.uri("900002/data_*.root"))
    with open(folder / "small.yaml", "a") as stream:
        stream.write("closure: {truth: null}\n")
    copy = Checkout(folder)
    done = copy.snakemake("--", "results/900002/ingest/data.json", "results/900002/ingest/data.v0.json")
    assert done.returncode == 0, done.stdout[-3000:]
    assert len(re.findall(r"^Job \d+: Run 900002: fetch root://", done.stdout, flags=re.MULTILINE)) == 2
    assert list(folder.glob("results/900002/fetched/data/*")) == []
    for number in (1, 2):
        name = f"data_00{number}-*.tracks.parquet"
        (near,) = production.folder.glob(f"results/900002/ingest/data/data_001-*/{name}")
        (far,) = set(folder.glob(f"results/900002/ingest/data/data_00{number}-*/{name}")) - {
            folder / near.relative_to(production.folder)
        }
        assert read_origin(far)["source"] == xrootd.uri(f"900002/data_00{number}.root")
        assert read_origin(far)["sha256"] == read_origin(near)["sha256"]
        own, other = (pq.read_table(path).drop_columns(["source", "collision_id"]) for path in (near, far))
        assert own.replace_schema_metadata().equals(other.replace_schema_metadata())
