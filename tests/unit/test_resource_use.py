"""What jobs asked for and used, from the records that they left."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from pidflow.errors import PidflowError
from pidflow.evaluate.figures.resources import plot_resources
from pidflow.files import write_json
from pidflow.resource_use import Use, format_table, resource_use, write_csv


def record(folder: Path, name: str, rule: str, threads: int = 1, asked: dict[str, Any] | None = None, **used: float):
    used = {"wall_s": 10.0, "cpu_s": 9.0, "peak_rss_mib": 100.0} | used
    content = {"rule": rule, "threads": threads, "resources": {"requested": asked or {}, "used": used}}
    content |= {"inputs": [], "outputs": [], "ended": "2022-06-18T00:00:00+00:00"}
    write_json(folder / f"{name}.json", content)


@pytest.fixture
def uses(tmp_path: Path) -> list[Use]:
    one, two = tmp_path / "1/provenance", tmp_path / "2/provenance"
    record(one, "train/a", "train", 2, {"mem_mb": 2000, "runtime": 60}, wall_s=10.0, cpu_s=16.0, peak_rss_mib=1000.0)
    record(one, "train/b", "train", 2, {"mem_mb": 4000, "runtime": 120}, wall_s=30.0, cpu_s=32.0)
    record(two, "train/a", "train", 2, {"mem_mb": 2000}, wall_s=20.0, cpu_s=32.0)
    record(two, "publish", "publish", cpu_s=0.5, wall_s=1.0)
    # what the engine leaves of a job that failed
    (two / "failed.json").touch()
    return resource_use([one, two])


def test_jobs_are_summed_by_rule_the_dearest_first(uses: list[Use]) -> None:
    train, publish = uses
    assert (train.rule, train.jobs, train.wall_s, train.longest_s, train.cpu_s) == ("train", 3, 20.0, 30.0, 80.0)
    assert train.cpu_share == pytest.approx(80 / (2 * 60), abs=1e-3)
    assert (train.memory_requested_mb, train.runtime_requested_s) == (4000, 7200)
    assert train.memory_peak_mb == pytest.approx(1048.6)
    assert (publish.rule, publish.memory_requested_mb, publish.runtime_requested_s) == ("publish", None, None)


def test_table_holds_every_number(uses: list[Use], tmp_path: Path) -> None:
    write_csv(uses, tmp_path / "resources.csv")
    with open(tmp_path / "resources.csv") as stream:
        train, publish = csv.DictReader(stream)
    assert train["rule"] == "train" and float(train["cpu_s"]) == 80.0 and train["memory_requested_mb"] == "4000"
    assert publish["memory_requested_mb"] == ""
    assert "1,049 / 4,000 MB" in format_table(uses) and "105 / – MB" in format_table(uses)


def test_figure_has_the_same_bytes_twice(uses: list[Use], tmp_path: Path) -> None:
    for name in ("first.svg", "second.svg"):
        plot_resources(uses, tmp_path / name)
    assert (tmp_path / "first.svg").read_bytes() == (tmp_path / "second.svg").read_bytes()
    assert b"train (3)" in (tmp_path / "first.svg").read_bytes()


def test_no_record_is_told(tmp_path: Path) -> None:
    with pytest.raises(PidflowError, match="no job has left a record"):
        resource_use([tmp_path / "nothing"])
