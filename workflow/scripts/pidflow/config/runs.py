"""The run table: which runs there are, which files belong to them, and when they were taken."""

from __future__ import annotations

import csv
import glob
import hashlib
import importlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from pidflow.config.models import Config
from pidflow.errors import PidflowError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("only letters, digits and _ . + - are allowed")
    return value


def _uris(value: object) -> object:
    return tuple(part.strip() for part in value.split(";") if part.strip()) if isinstance(value, str) else value


Name = Annotated[str, AfterValidator(_name)]
Uris = Annotated[tuple[str, ...], BeforeValidator(_uris)]


class Run(BaseModel):
    """One row of the run table.

    Attributes
    ----------
    data, simulation
        Local paths and globs, addresses (``root://``, ``https://``), ``root://`` globs, and lists of these
        (``@list.txt``), separated by semicolons in the table; after `load_runs`, paths and addresses of files.
    bz
        Magnetic field along the beam in kG, with its sign (AO2D files do not carry it).
    valid_from, valid_until
        Half-open validity of the published model, ms since 1970.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: Annotated[int, Field(ge=1, lt=2**31, description="run number")]
    period: Annotated[Name, Field(description="data-taking period")]
    recopass: Annotated[Name, Field(alias="pass", description="reconstruction pass")]
    system: Annotated[Name, Field(description="collision system and energy")]
    year: Annotated[int, Field(ge=2009, le=2100, description="year of data taking")]
    bz: Annotated[float, Field(ge=-10, le=10, description="magnetic field along the beam, kG, with its sign")]
    data: Annotated[Uris, Field(description="data: paths, globs, addresses or lists, separated by ';'; may be empty")]
    simulation: Annotated[Uris, Field(description="anchored simulation: paths, globs, addresses or lists")]
    valid_from: Annotated[int, Field(ge=0, description="start of validity, ms since 1970")]
    valid_until: Annotated[int, Field(ge=0, description="end of validity, ms since 1970, exclusive")]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not self.simulation:
            raise ValueError("the run has no simulation; give its anchored files in the column 'simulation'")
        if self.valid_from >= self.valid_until:
            raise ValueError("'valid_from' must lie before 'valid_until'")
        if 0 < abs(self.bz) < 1:
            raise ValueError(f"bz = {self.bz} kG is no field that ALICE ran with; give kG, not tesla")
        return self

    def files(self, sample: str) -> dict[str, str]:
        """Return the input files of a sample (``data`` or ``simulation``), by a key fit for a file name."""
        uris = self.data if sample == "data" else self.simulation
        return {file_key(uri): uri for uri in uris}


def file_key(uri: str) -> str:
    """Return a short name for an input file that stays the same when other files come or go."""
    stem = re.sub(r"[^A-Za-z0-9_-]", "_", Path(uri).stem)[:60]
    return f"{stem}-{hashlib.sha256(uri.encode()).hexdigest()[:8]}"


def _remote() -> Any:
    # by name: every script imports this module, and none but the one that fetches depends on the clients
    return importlib.import_module("pidflow.ingest.remote")


def _listed(entry: str) -> list[str]:
    """Return the entries of a list that is given as ``@path``."""
    path = Path(entry[1:])
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError):
        raise PidflowError(f"list {path} cannot be read; give the path of a text file after '@'") from None
    entries = [line for line in lines if line and not line.startswith("#")]
    if not entries:
        raise PidflowError(f"list {path} names no file; give one per line")
    if nested := [line for line in entries if line.startswith("@")]:
        raise PidflowError(f"list {path} names the list {nested[0]}; name its files instead")
    return entries


def _files(entry: str, generated: str) -> list[str]:
    """Return the files that an entry of the table stands for."""
    if entry.startswith("@"):
        return [file for line in _listed(entry) for file in _files(line, generated)]
    if ADDRESS.match(entry):
        remote = _remote()
        remote.check(entry)
        return list(remote.expand(entry)) if remote.is_pattern(entry) else [entry]
    if entry.startswith(generated.rstrip("/") + "/") or Path(entry).is_file():
        return [entry]
    if matches := sorted(match for match in glob.glob(entry, recursive=True) if Path(match).is_file()):
        return matches
    raise PidflowError(f"file {entry} does not exist; correct the path in the run table or its list")


def _expand(run: int, column: str, entries: Iterable[str], generated: str) -> tuple[str, ...]:
    try:
        return tuple(file for entry in entries for file in _files(entry, generated))
    except PidflowError as error:
        raise PidflowError(f"run {run}: {column} {error}") from None


def _check_repeated(run: int, files: dict[str, tuple[str, ...]]) -> None:
    """Refuse a file that is named twice, however it is written, be it as data and as simulation."""
    first: dict[str, str] = {}
    for column, uris in files.items():
        for uri in uris:
            normal = _remote().normal(uri) if ADDRESS.match(uri) else os.path.normpath(Path(uri).absolute())
            if normal in first:
                other = "" if first[normal] == column else f", as {first[normal]} too"
                raise PidflowError(f"run {run}: {column} file {uri} is listed twice{other}; list it once")
            first[normal] = column


class RunTable(Mapping[int, Run]):
    """Runs by number, in the table's order.

    A run's globs and lists are expanded when it is asked for, and once: a job of one run among thousands
    does not look for the files of all others.
    """

    def __init__(self, rows: Mapping[int, Run], generated: str) -> None:
        self._rows = rows
        self._generated = generated
        self._expanded: dict[int, Run] = {}

    def __getitem__(self, number: int) -> Run:
        """Return a run with its files.

        Raises
        ------
        PidflowError
            For a missing file, an address that is not accepted, an empty list, a file given twice.
        """
        if number not in self._expanded:
            run = self._rows[number]
            files = {
                name: _expand(number, name, getattr(run, name), self._generated) for name in ("data", "simulation")
            }
            _check_repeated(number, files)
            self._expanded[number] = run.model_copy(update=files)
        return self._expanded[number]

    def __iter__(self) -> Iterator[int]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def load_runs(path: str | Path, generated: str) -> RunTable:
    """Read the run table (tab-separated, one header line, ``#`` starts a comment line).

    Parameters
    ----------
    path
        The table.
    generated
        Folder whose files the workflow itself makes, which therefore need not exist yet.

    Returns
    -------
    RunTable
        Runs by number, in the table's order; their files are looked for when a run is asked for.

    Raises
    ------
    PidflowError
        For an unreadable table, a wrong column, a wrong value, a run given twice.
    """
    table = Path(path)
    if not table.is_file():
        raise PidflowError(f"{table}: the run table does not exist; give its path in the key 'runs'")
    lines = [line for line in table.read_text(encoding="utf-8").splitlines() if line.strip() and line[0] != "#"]
    reader = csv.DictReader(lines, delimiter="\t")
    expected = [field.alias or name for name, field in Run.model_fields.items()]
    if reader.fieldnames is None or sorted(reader.fieldnames) != sorted(expected):
        raise PidflowError(f"{table}: the columns must be {', '.join(expected)}, separated by tabs")
    runs: dict[int, Run] = {}
    for row in reader:
        if None in row:
            raise PidflowError(f"{table}: run {row['run']} has more cells than columns; remove the surplus tab")
        try:
            run = Run.model_validate(row)
        except ValidationError as error:
            first = error.errors()[0]
            where = f", column '{first['loc'][0]}'" if first["loc"] else ""
            message = first["msg"].removeprefix("Value error, ")
            raise PidflowError(f"{table}: run {row.get('run')}{where}: {message}") from None
        if run.run in runs:
            raise PidflowError(f"{table}: run {run.run} is listed twice; keep one row")
        runs[run.run] = run
    if not runs:
        raise PidflowError(f"{table}: no run is listed; add a row per run")
    return RunTable(runs, generated)


def check_runs(config: Config, runs: Mapping[int, Run]) -> None:
    """Check every run: its files, and what the configuration asks of it.

    Raises
    ------
    PidflowError
        For a run whose files cannot be found, if adaptation or closure is asked of a run without data,
        or closure of remote data.
    """
    for run in runs.values():
        if run.data:
            if config.closure.truth is not None and (remote := [uri for uri in run.data if ADDRESS.match(uri)]):
                raise PidflowError(
                    f"{config.runs}: run {run.run} has no truth beside the remote file {remote[0]}; set "
                    "'closure.truth' to null, or give local files"
                )
            continue
        if config.adapted:
            raise PidflowError(
                f"{config.runs}: run {run.run} has no data to adapt to; give its data files, "
                "or set 'adapt.method' to none and 'publish.model' to fse"
            )
        if config.closure.truth is not None:
            raise PidflowError(f"{config.runs}: run {run.run} has no data for closure; set 'closure.truth' to null")
