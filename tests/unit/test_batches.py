"""Which files one job reads, and how their tables are found again."""

from __future__ import annotations

from pathlib import Path

import pytest

from pidflow.config import batches, file_key
from pidflow.tables import find_tables, table_name


def files(folder: Path, *sizes_mb: float, suffix: str = ".root") -> dict[str, str]:
    uris = []
    for number, size in enumerate(sizes_mb):
        path = folder / f"file_{number:03d}{suffix}"
        with open(path, "wb") as stream:
            stream.truncate(int(size * 1e6))
        uris.append(str(path))
    return {file_key(uri): uri for uri in uris}


def made(given: dict[str, str], megabytes: int = 10, whole: bool = False) -> list[tuple[list[str], int]]:
    found = batches(given, megabytes=megabytes, generated="generated", whole=whole)
    assert all(batch.key == key == file_key(batch.uris[0]) for key, batch in found.items())
    return [([Path(uri).name[5:8] for uri in batch.uris], batch.parts) for batch in found.values()]


def test_small_files_come_together_up_to_the_limit(tmp_path):
    assert made(files(tmp_path, 4, 4, 2, 1, 9.5, 0.5)) == [
        (["000", "001", "002"], 1),
        (["003"], 1),
        (["004", "005"], 1),
    ]


def test_a_large_root_file_is_parted_and_stays_alone(tmp_path):
    assert made(files(tmp_path, 1, 25, 1, 1)) == [(["000"], 1), (["001"], 3), (["002", "003"], 1)]
    assert made(files(tmp_path, 1, 25, 1, 1), whole=True)[1] == (["001"], 1)
    assert made(files(tmp_path, 25, suffix=".parquet")) == [(["000"], 1)]


def test_every_file_is_in_one_batch_whatever_the_limit(tmp_path):
    given = files(tmp_path, 3, 1, 12, 5, 5, 5, 0, 2)
    for megabytes in (1, 4, 7, 100):
        assert [name for names, _ in made(given, megabytes) for name in names] == [f"{n:03d}" for n in range(8)]


def test_a_file_added_behind_leaves_earlier_batches_alone(tmp_path):
    given = files(tmp_path, 6, 6, 6, 6)
    first = dict(list(given.items())[:3])
    assert made(given)[:3] == made(first)


def test_remote_and_generated_files(tmp_path):
    uris = ["generated/a.root", "generated/b.root", "root://host//c.root", "https://host/d.root", "generated/e.root"]
    found = batches({file_key(uri): uri for uri in uris}, megabytes=1, generated="generated", whole=False)
    assert [batch.uris for batch in found.values()] == [tuple(uris[:2]), (uris[2],), (uris[3],), (uris[4],)]


@pytest.mark.parametrize("kind", ["tracks", "v0s"])
def test_tables_are_found_in_an_order_that_does_not_depend_on_batches(tmp_path, kind):
    def tables(*layout: tuple[str, str]) -> list[str]:
        folders = []
        for folder, key in layout:
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / table_name(key, "tracks")).touch()
            (tmp_path / folder / table_name(key, "v0s")).touch()
            folders.append(tmp_path / folder)
        return [path.name for path in find_tables(dict.fromkeys(folders), kind)]

    expected = [f"{key}.{kind}.parquet" for key in ("a", "b", "c")]
    assert tables(("one/a", "a"), ("one/a", "c"), ("one/b", "b")) == expected
    assert tables(("two/c", "c"), ("two/a", "a"), ("two/a", "b")) == expected
    parts = [tmp_path / f"three/a.{n}of12" for n in (10, 2, 1, 12)]
    for part in parts:
        part.mkdir(parents=True)
        (part / table_name("a", kind)).touch()
    assert [path.parent.name for path in find_tables(parts, kind)] == ["a.1of12", "a.2of12", "a.10of12", "a.12of12"]
