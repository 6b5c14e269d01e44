"""Reader of flat tables of tracks: Parquet, or a TTree with one entry per track."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pidflow.errors import PidflowError
from pidflow.identity import collision_ids
from pidflow.ingest.reader import Columns, Piece, Reader, Request
from pidflow.ingest.rootfile import RootFile, damage_told
from pidflow.ingest.table import to_table
from pidflow.tracks import BY_NAME, MISSING_NEVER

_PRESENCE = {
    "has_its": ("its_signal", "its_n_cls"),
    "has_tpc": ("tpc_signal",),
    "has_trd": ("trd_signal", "trd_pattern"),
    "has_tof": ("beta", "tof_signal"),
}


class FlatFile(Reader):
    """One flat file, read in batches of ``ingest.batch_rows``, one after another.

    Labels are read for simulation (or for data with tagged species, listed as such).
    """

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self.path, self.settings = request.path, request.settings
        self._file: RootFile | pq.ParquetFile | None = None
        self._seen: set[int] = set()
        self._batches: Iterator[pd.DataFrame] = iter(())
        self._next = 0

    def units(self) -> range:
        """Return the numbers of the batches."""
        with damage_told(self.path):
            rows = self._open()
        return range(-(-rows // self.settings.batch_rows))

    def read(self, unit: int) -> Piece:
        """Read one batch."""
        with damage_told(self.path):
            while self._next < unit:
                next(self._batches)
                self._next += 1
            frame = next(self._batches)
            self._next += 1
            table = self._table(unit, frame)
        return Piece(table, {"batches": 1, "tracks": len(frame), "duplicates": len(frame) - table.num_rows})

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _open(self) -> int:
        with self.path.open("rb") as stream:
            is_parquet = stream.read(4) == b"PAR1"
        if is_parquet:
            parquet = self._file = pq.ParquetFile(self.path, page_checksum_verification=True)
            self._require(set(parquet.schema_arrow.names))
            self._batches = (batch.to_pandas() for batch in parquet.iter_batches(self.settings.batch_rows))
            return int(parquet.metadata.num_rows)
        root = self._file = RootFile(self.path)
        handle = root.handle()
        if self.settings.tree is None:
            raise PidflowError(f"{self.path}: name the tree of a flat ROOT file in the key 'ingest.tree'")
        if self.settings.tree not in handle:
            raise PidflowError(f"{self.path}: no tree {self.settings.tree}; correct the key 'ingest.tree'")
        tree = handle[self.settings.tree]
        self._require(set(tree.keys()))
        self._batches = tree.iterate(library="pd", step_size=self.settings.batch_rows)
        return int(tree.num_entries)

    def _require(self, present: set[str]) -> None:
        label = self.settings.label.column
        wanted = [*self.settings.columns.values(), *([label] if label and self.request.simulation else [])]
        if absent := [name for name in wanted if name not in present]:
            raise PidflowError(
                f"{self.path}: no column {absent[0]}, only {', '.join(sorted(present)[:12])}; correct 'ingest.columns'"
            )

    def _table(self, number: int, frame: pd.DataFrame) -> pa.Table:
        rows = np.arange(len(frame), dtype=np.int32)
        if self.settings.drop_duplicates:
            fresh = self._fresh(frame)
            frame, rows = frame[fresh], rows[fresh]
        columns: Columns = {
            name: self._masked(name, original, frame[original].to_numpy())
            for name, original in self.settings.columns.items()
        }
        columns = _with_kinematics(columns, self.path)
        for name, values in columns.items():
            if BY_NAME[name].missing == MISSING_NEVER and np.ma.getmaskarray(values).any():
                raise PidflowError(f"{self.path}: {name} is not known for every track; clean the columns behind it")
        for present, signals in _PRESENCE.items():
            columns[present] = np.zeros(len(rows), dtype=bool)
            for signal in signals:
                if signal in columns:
                    columns[present] |= ~np.ma.getmaskarray(columns[signal])
        columns |= {
            "source": self.request.source,
            "data_frame": np.full(len(rows), number, dtype=np.int64),
            "row": rows,
            "run": np.full(len(rows), self.request.run, dtype=np.int32),
            "collision_id": collision_ids(self.request.source, number, rows),
        }
        if self.request.simulation:
            columns["pdg_code"] = self._labels(frame)
        return to_table(columns)

    def _fresh(self, frame: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.bool_]]:
        hashes = pd.util.hash_pandas_object(frame, index=False).to_numpy()
        fresh = np.ones(len(hashes), dtype=bool)
        for position, value in enumerate(hashes.tolist()):
            if value in self._seen:
                fresh[position] = False
            self._seen.add(value)
        return fresh

    def _masked(self, name: str, original: str, values: Any) -> Any:
        """Return a column as floats or integers, masked where it is missing."""
        wanted = BY_NAME[name].dtype
        try:
            numbers = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError):
            raise PidflowError(f"{self.path}: column {original} does not hold numbers; map another to {name}") from None
        missing = ~np.isfinite(numbers)
        for sentinel in self.settings.missing.get(name, ()):
            missing |= numbers == sentinel
        if pa.types.is_integer(wanted):
            limits = np.iinfo(wanted.to_pandas_dtype())
            wrong = ~missing & ((numbers != np.round(numbers)) | (numbers < limits.min) | (numbers > limits.max))
            if wrong.any():
                raise PidflowError(
                    f"{self.path}: column {original} holds {numbers[wrong][0]:g}, which {name} ({wanted}) cannot; "
                    "correct 'ingest.columns'"
                )
        return np.ma.array(numbers, mask=missing)

    def _labels(self, frame: pd.DataFrame) -> Any:
        rule = self.settings.label
        if rule.column:
            return self._masked("pdg_code", rule.column, frame[rule.column].to_numpy())
        if self.path.stem not in rule.file_stems:
            raise PidflowError(f"{self.path}: no label for it; add '{self.path.stem}' to 'ingest.label.file_stems'")
        return np.full(len(frame), rule.file_stems[self.path.stem], dtype=np.int32)


def _with_kinematics(columns: Columns, path: Path) -> Columns:
    """Complete p, pT and momentum components from those given.

    The relations are p = pT·cosh η, pz = pT·sinh η, px = pT·cos φ and py = pT·sin φ.
    """
    completed = dict(columns)
    have = completed.keys()
    if {"px", "py", "pz"} <= have:
        completed.setdefault("pt", np.hypot(completed["px"], completed["py"]))
        completed.setdefault("p", np.hypot(completed["pt"], completed["pz"]))
        completed.setdefault("eta", np.arcsinh(completed["pz"] / completed["pt"]))
        completed.setdefault("phi", np.arctan2(completed["py"], completed["px"]) % (2.0 * np.pi))
    if "eta" in have and "pt" in have:
        completed.setdefault("p", completed["pt"] * np.cosh(completed["eta"]))
    if "eta" in have and "p" in have:
        completed.setdefault("pt", completed["p"] / np.cosh(completed["eta"]))
    if not {"p", "pt"} <= have:
        raise PidflowError(
            f"{path}: momentum is incomplete; map p and pt, pt and eta, or px, py and pz in 'ingest.columns'"
        )
    if "eta" in have:
        completed.setdefault("pz", completed["pt"] * np.sinh(completed["eta"]))
    if "phi" in have:
        completed.setdefault("px", completed["pt"] * np.cos(completed["phi"]))
        completed.setdefault("py", completed["pt"] * np.sin(completed["phi"]))
    return completed
