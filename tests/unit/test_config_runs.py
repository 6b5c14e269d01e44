"""The run table: its columns and the files that it names."""

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
from checkout import ROOT
from config_sample import HEADER, UNADAPTED

from pidflow.config import check_runs, file_key, load_runs, validate
from pidflow.config.models import Config
from pidflow.errors import PidflowError


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name in ("sim_1.root", "sim_2.root", "data_1.root"):
        (tmp_path / name).write_text("")
    return tmp_path


def row(folder: Path, **changes: object) -> dict[str, str]:
    values = {
        "run": 544121,
        "period": "LHC23zs",
        "pass": "apass5",
        "system": "pp_13.6TeV",
        "year": 2023,
        "bz": -5.0,
        "data": folder / "data_1.root",
        "simulation": folder / "sim_1.root",
        "valid_from": 1000,
        "valid_until": 2000,
        **changes,
    }
    return {name: str(value) for name, value in values.items()}


def write_table(folder: Path, *rows: dict[str, str], header: tuple[str, ...] = HEADER) -> Path:
    lines = ["# a comment", "\t".join(header), "", *("\t".join(each[name] for name in header) for each in rows)]
    (folder / "runs.tsv").write_text("\n".join(lines) + "\n")
    return folder / "runs.tsv"


def read(folder: Path, *rows: dict[str, str], **options: Any):
    return dict(load_runs(write_table(folder, *rows, **options), "generated"))


def test_good_row(files):
    runs = read(files, row(files), row(files, run=7, data="", bz=0))
    assert list(runs) == [544121, 7]
    run = runs[544121]
    assert (run.period, run.recopass, run.system, run.year, run.bz) == ("LHC23zs", "apass5", "pp_13.6TeV", 2023, -5.0)
    assert (run.valid_from, run.valid_until) == (1000, 2000)
    assert run.data == (f"{files}/data_1.root",)
    assert runs[7].data == ()
    assert list(run.files("simulation").values()) == [f"{files}/sim_1.root"]
    assert list(run.files("data").values()) == [f"{files}/data_1.root"]


def test_columns_in_another_order(files):
    assert list(read(files, row(files), header=tuple(reversed(HEADER)))) == [544121]


@pytest.mark.parametrize("header", [HEADER[1:], (*HEADER[:5], *HEADER[6:])])
def test_missing_column(files, header):
    with pytest.raises(PidflowError, match=r"runs.tsv: the columns must be run, period, pass, .*separated by tabs"):
        read(files, row(files), header=header)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"simulation": ""}, "run 544121: the run has no simulation"),
        ({"simulation": " ; "}, "run 544121: the run has no simulation"),
        ({"bz": 0.5}, "run 544121: bz = 0.5 kG .* not tesla"),
        ({"bz": -0.2}, "not tesla"),
        ({"bz": 50}, "run 544121, column 'bz'"),
        ({"bz": "nan"}, "run 544121, column 'bz'"),
        ({"valid_from": 2000}, "'valid_from' must lie before 'valid_until'"),
        ({"valid_from": 3000}, "'valid_from' must lie before 'valid_until'"),
        ({"valid_from": -1}, "column 'valid_from'"),
        ({"year": 1999}, "column 'year'"),
        ({"year": "soon"}, "column 'year'"),
        ({"run": 0}, "run 0, column 'run'"),
        ({"run": "LHC"}, "run LHC, column 'run'"),
        ({"period": "../../etc"}, "column 'period': only letters"),
        ({"period": ".."}, "column 'period'"),
        ({"period": ""}, "column 'period'"),
        ({"pass": "a/b"}, "column 'pass'"),
        ({"pass": "a b"}, "column 'pass'"),
        ({"system": "pp;rm"}, "column 'system'"),
        ({"system": "pp\u00e9"}, "column 'system'"),
    ],
)
def test_wrong_value_names_run_and_column(files, changes, sentence):
    with pytest.raises(PidflowError, match=sentence):
        read(files, row(files, **changes))


def test_duplicate_run(files):
    with pytest.raises(PidflowError, match="run 544121 is listed twice; keep one row"):
        read(files, row(files), row(files))


def test_table_without_runs_and_without_file(files):
    with pytest.raises(PidflowError, match="no run is listed"):
        read(files)
    with pytest.raises(PidflowError, match=r"nowhere.tsv: the run table does not exist"):
        load_runs(files / "nowhere.tsv", "generated")


def test_files_of_a_run_are_looked_for_when_it_is_asked_for(files):
    table = write_table(files, row(files), row(files, run=2, data="nowhere/*.root"))
    runs = load_runs(table, "generated")
    assert list(runs) == [544121, 2] and len(runs) == 2
    assert runs[544121] is runs[544121]
    with pytest.raises(PidflowError, match="run 2: data file nowhere"):
        runs[2]
    with pytest.raises(PidflowError, match="run 2: data file nowhere"):
        check_runs(Config(), runs)


@pytest.mark.parametrize("column", ["data", "simulation"])
def test_missing_file_is_named(files, column):
    with pytest.raises(PidflowError, match=f"run 544121: {column} file .*absent.root does not exist"):
        read(files, row(files, **{column: files / "absent.root"}))


def test_glob_without_match_is_a_missing_file(files):
    with pytest.raises(PidflowError, match=r"other_\*.root does not exist"):
        read(files, row(files, data=files / "other_*.root"))


def test_generated_files_need_not_exist(files):
    runs = read(files, row(files, data="generated/5/data_001.root"))
    assert runs[544121].data == ("generated/5/data_001.root",)
    with pytest.raises(PidflowError, match=r"generated2/data_001\.root does not exist"):
        read(files, row(files, data="generated2/data_001.root"))


def test_globs_expand_sorted_and_lists_keep_their_order(files):
    (files / "a.root").write_text("")
    runs = read(files, row(files, simulation=files / "sim_*.root", data=f"{files}/data_1.root ; {files}/a.root"))
    assert runs[544121].simulation == (f"{files}/sim_1.root", f"{files}/sim_2.root")
    assert runs[544121].data == (f"{files}/data_1.root", f"{files}/a.root")


def test_recursive_glob(files):
    (files / "deep" / "er").mkdir(parents=True)
    (files / "deep" / "er" / "sim_3.root").write_text("")
    assert read(files, row(files, simulation=f"{files}/deep/**/*.root"))[544121].simulation == (
        f"{files}/deep/er/sim_3.root",
    )


@pytest.mark.parametrize("pattern", ["{0}/sim_1.root;{0}/sim_1.root", "{0}/sim_1.root;{0}/sim_*.root"])
def test_file_listed_twice(files, pattern):
    with pytest.raises(PidflowError, match=r"simulation file .*sim_1.root is listed twice"):
        read(files, row(files, simulation=pattern.format(files)))


@pytest.mark.parametrize(
    ("data", "simulation", "named"),
    [
        ("{0}/sim_1.root", "{0}/sim_1.root", "simulation file .*sim_1.root is listed twice, as data too; list it once"),
        (
            "{0}/data_1.root",
            "{0}/sim_1.root;{0}/../{1}/./sim_1.root",
            "simulation file .*sim_1.root is listed twice; list",
        ),
        (
            "root://h//a.root",
            "xroot://H:1094//a.root",
            r"simulation file xroot://H:1094//a\.root is listed twice, as data",
        ),
        (
            "https://h/a.root;https://h:443//a.root",
            "{0}/sim_1.root",
            r"data file https://h:443//a\.root is listed twice",
        ),
    ],
)
def test_file_listed_twice_in_other_words(files, data, simulation, named):
    with pytest.raises(PidflowError, match=f"run 544121: {named}"):
        read(files, row(files, data=data.format(files), simulation=simulation.format(files, files.name)))


def test_relative_and_absolute_path_are_one_file(files, monkeypatch):
    monkeypatch.chdir(files)
    with pytest.raises(PidflowError, match=r"simulation file sim_1\.root is listed twice; list it once"):
        read(files, row(files, simulation=f"{files}/sim_1.root;sim_1.root"))


def test_addresses_are_taken_as_they_are(files):
    uris = ("root://eospublic.cern.ch//eos/b/AO2D.root", "https://example.org/a/AO2D.root")
    run = read(files, row(files, data=";".join(uris)))[544121]
    assert run.data == uris
    assert run.files("data") == {file_key(uri): uri for uri in uris}
    assert len(run.files("data")) == 2


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        ("http://h/x.root", r"data http://h/x\.root: plain http is not encrypted; use https"),
        ("alien:///alice/x.root", "data alien:///alice/x.root: 'alien' is not supported"),
        ("https://h/*.root", "https servers cannot list files"),
        ("root://me:secret@h//x.root", r"data root://\.\.\.@h//x\.root: an address must not carry .*X509_USER_PROXY"),
        ("https://h/x.root?authz=secret", r"data https://h/x\.root\?\.\.\.: .*BEARER_TOKEN_FILE"),
    ],
)
def test_address_that_is_not_accepted(files, uri, sentence):
    (files / "list.txt").write_text(f"{uri}\n")
    for entry in (uri, f"@{files}/list.txt"):
        with pytest.raises(PidflowError, match=f"run 544121: .*{sentence}") as caught:
            read(files, row(files, data=entry))
        assert "secret" not in str(caught.value)


def test_list_of_files(files, monkeypatch):
    monkeypatch.chdir(files)
    lines = (
        "# made by hand",
        "sim_2.root",
        "",
        "  root://h//z.root ",
        "data_?.root",
        "# https://h/no.root",
        "generated/1.root",
    )
    (files / "list.txt").write_text("\r\n".join(lines))
    run = read(files, row(files, data="https://h/a.root;@list.txt", simulation="sim_1.root"))[544121]
    assert run.data == ("https://h/a.root", "sim_2.root", "root://h//z.root", "data_1.root", "generated/1.root")


def test_list_repeats_a_file(files):
    (files / "list.txt").write_text(f"{files}/sim_1.root\n")
    with pytest.raises(PidflowError, match=r"simulation file .*sim_1\.root is listed twice"):
        read(files, row(files, simulation=f"{files}/sim_1.root;@{files}/list.txt"))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, r"data list .*list\.txt cannot be read; give the path of a text file after '@'"),
        (b"PAR1\xff\xfe", r"data list .*list\.txt cannot be read"),
        (b"", r"data list .*list\.txt names no file; give one per line"),
        (b"# none\n\n", r"data list .*list\.txt names no file"),
        (b"@other.txt\n", r"data list .*list\.txt names the list @other\.txt; name its files instead"),
        (b"absent.root\n", r"data file absent\.root does not exist; correct the path in the run table or its list"),
    ],
)
def test_bad_list(files, content, sentence):
    if content is not None:
        (files / "list.txt").write_bytes(content)
    with pytest.raises(PidflowError, match=f"run 544121: {sentence}"):
        read(files, row(files, data=f"@{files}/list.txt"))


def test_shipped_run_table():
    runs = load_runs(ROOT / "config/runs.tsv", Config().example.folder)
    assert sorted(runs) == [900001, 900002]
    assert all(len(run.data) == 3 and len(run.simulation) == 4 for run in runs.values())


CLOSURE = {"closure": {"truth": "{folder}/{stem}.truth.parquet"}}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({}, "run 544121 has no data to adapt to; .*'adapt.method' to none"),
        (CLOSURE | UNADAPTED, "run 544121 has no data for closure"),
    ],
)
def test_what_needs_data(files, content, sentence):
    config = validate(content, "here")
    check_runs(config, read(files, row(files)))
    with pytest.raises(PidflowError, match=sentence):
        check_runs(config, read(files, row(files, run=1), row(files, data="")))


def test_run_without_data_and_adaptation(files):
    check_runs(validate(UNADAPTED, "here"), read(files, row(files, data="")))


def test_file_key():
    digest = hashlib.sha256(b"/a/AO2D.root").hexdigest()[:8]
    assert file_key("/a/AO2D.root") == f"AO2D-{digest}"
    keys = [file_key(f"/{folder}/AO2D.root") for folder in "abcdef"]
    assert len(set(keys)) == 6
    wild = file_key("/a/" + "x" * 300 + " ü{}*?.root")
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,69}", wild)


def test_file_key_does_not_depend_on_other_files(files):
    alone = read(files, row(files))[544121].files("simulation")
    both = read(files, row(files, simulation=files / "sim_*.root"))[544121].files("simulation")
    assert len(both) == 2
    assert alone.items() <= both.items()
