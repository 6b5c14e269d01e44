"""Damaged files: whatever bytes change, ingestion ends soon, in bounded memory, with a table or with one sentence.

A table can come of damage to what is not read, and of other values in the place of values: only a checksum of the
transfer can tell those.
"""

from __future__ import annotations

import multiprocessing
import resource
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uproot
from ingesting import ingest

from pidflow.config.models import Ingest
from pidflow.errors import PidflowError
from pidflow.tracks import BY_NAME, MISSING_NEVER, schema

FIXTURES = Path(__file__).parents[1] / "fixtures"
SECONDS, MEMORY_GIB = 20, 2
CASES = 65


def mutations(content: bytes, seed: int) -> Iterator[bytes]:
    """Yield damaged versions of a file: changed, lost, swapped and inserted bytes, all over it and in its header."""
    rng = np.random.default_rng(seed)
    whole, size = np.frombuffer(content, np.uint8), len(content)
    while True:
        kind, changed = rng.integers(7), whole.copy()
        start = int(rng.integers(100 if rng.random() < 0.15 else size))
        length = int(min(2 ** rng.uniform(0, 12), size - start))
        match kind:
            case 0 | 1:
                count = int(rng.integers(1, 9))
                changed[rng.integers(0, size, count)] = rng.integers(0, 256, count)
            case 2:
                changed[start] ^= 1 << int(rng.integers(8))
            case 3:
                changed[start : start + length] = rng.choice([0, 255])
            case 4:
                changed[start : start + length] = rng.integers(0, 256, length)
            case 5:
                changed = np.delete(changed, np.s_[start : start + length])
            case 6:
                other = int(rng.integers(size - length + 1))
                changed[start : start + length] = whole[other : other + length]
        if changed.tobytes() != content:
            yield changed.tobytes()


def _too_long(number: int, frame: FrameType | None) -> None:
    raise BaseException(f"no end after {SECONDS} s")


ENDINGS = ("refused", "same", "other values")


def _attempt(path: Path, output: Path, changes: dict[str, Any], whole: pa.Table) -> str:
    """Return how one damaged file ends: one of `ENDINGS`, or what is wrong with the ending."""
    signal.alarm(SECONDS)
    try:
        ingest(path, output, **changes)
    except PidflowError as error:
        message = str(error)
        plain = message.startswith(f"{path}: ") and "\n" not in message and "; " in message
        left = output.exists() or output.with_suffix(".v0.parquet").exists()
        return "refused" if plain and not left else f"unclear: {message}"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
    table = pq.read_table(output)
    output.unlink()
    output.with_suffix(".v0.parquet").unlink()
    holes = [name for name in schema().names if BY_NAME[name].missing == MISSING_NEVER and table[name].null_count]
    if holes:
        return f"nulls in {holes}"
    return "same" if table.equals(whole) else "other values"


def _attempts(source: str, folder: str, seed: int, changes: dict[str, Any], queue: Any) -> None:
    """Run all cases of one file in a process whose memory is limited."""
    limit = MEMORY_GIB << 30
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    signal.signal(signal.SIGALRM, _too_long)
    path = Path(folder) / Path(source).name
    output = Path(folder) / "output" / "tracks.parquet"
    ingest(Path(source), output, **changes)
    whole = pq.read_table(output)
    output.unlink()
    output.with_suffix(".v0.parquet").unlink()
    cases = mutations(Path(source).read_bytes(), seed)
    for number in range(CASES):
        path.write_bytes(next(cases))
        queue.put((number, _attempt(path, output, changes, whole)))


FLAT = Ingest(columns={"p": "P", "pt": "PT", "tpc_signal": "dEdx"}, tree="tracks")

AO2D = {"run": 544124, "period": "LHC23zzf", "recopass": "apass4", "bz": 5.0, "simulation": False}
FILES: dict[str, dict[str, Any]] = {
    "ao2d/run3_data.root": AO2D,
    "ao2d/run3_mc.root": AO2D | {"simulation": True, "bz": -5.0},
    "ao2d/pidml_data.root": AO2D,
    "ao2d/ud_data.root": AO2D,
    "esd/AliESDs_v37_2007.root": {"run": 123456, "bz": -5.0, "simulation": False},
    "esd/AliESDs_v74_2016.root": {"run": 123456, "bz": -5.0, "simulation": False},
    "tracks.parquet": {"settings": FLAT, "simulation": False},
    "tracks.root": {"settings": FLAT, "simulation": False},
}


def whole_file(name: str, folder: Path) -> Path:
    """Return a file of the fixtures, or a flat table written into `folder`."""
    if (FIXTURES / name).exists():
        return FIXTURES / name
    rng = np.random.default_rng(3)
    columns = {"P": rng.uniform(1, 5, 300), "PT": rng.uniform(0.1, 1, 300), "dEdx": rng.uniform(30, 90, 300)}
    if name.endswith(".parquet"):
        pq.write_table(pa.table(columns), folder / name, write_page_checksum=True)
    else:
        with uproot.recreate(folder / name) as file:
            file.mktree("tracks", dict.fromkeys(columns, "f8")).extend(columns)
    return folder / name


@pytest.mark.parametrize("name", FILES)
def test_damage_ends_in_a_table_or_one_sentence(name: str, tmp_path: Path) -> None:
    changes = FILES[name]
    (tmp_path / "whole").mkdir()
    (tmp_path / "damaged").mkdir()
    source = whole_file(name, tmp_path / "whole")
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    worker = context.Process(target=_attempts, args=(str(source), str(tmp_path / "damaged"), 7, changes, queue))
    worker.start()
    endings = [queue.get(timeout=10 * SECONDS)[1] for _ in range(CASES)]
    worker.join()
    count = Counter(ending if ending in ENDINGS else "wrong" for ending in endings)
    print(f"{name}: {dict(count)}")
    assert count["wrong"] == 0, [ending for ending in endings if ending not in ENDINGS][:3]
    assert worker.exitcode == 0
    assert count["refused"] > CASES // 10
