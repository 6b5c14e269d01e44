"""Rate and memory of ingestion: raw AO2D to track table, beside uproot alone and the plain way with pandas.

Run as ``make bench-ingest``. Prints a table and writes ``benchmarks/results/ingest.json``. Every measurement is a
process of its own; the rate is that of the steady state, (tracks of the large − of the small file) / (difference of
their times). The workflow reads a large file by several jobs, each with its share of the data frames; so two jobs are
what two cores do. The files are example data: a simulated data frame, repeated with noise on every float so that it
compresses as data does, with zstd, one basket per column and data frame. Rates depend on the size of the frames, that
of uproot most; the result names it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pidflow.config.v0 import V0Cuts

RUN, BZ = 900001, -5.0
FRAME_TRACKS = 90_000
FRAMES = {"small": 10, "large": 100}
ROUNDS = 3
RESULTS = Path(__file__).parent / "results" / "ingest.json"


# the files


def write_files(folder: Path) -> dict[str, int]:
    """Write the small and the large file; return their numbers of tracks."""
    import uproot

    from pidflow.simulate import ao2d
    from pidflow.simulate.production import simulate_file

    seed = folder / "seed.root"
    simulate_file(
        seed, run=RUN, bz=BZ, sample="data", events=4000, frames=1, seed=1, shift="none", truth=folder / "seed.parquet"
    )
    with uproot.open(seed) as file:
        frame = next(key for key in file.keys(recursive=False))
        tables = {
            name.split(";")[0]: tree.arrays(library="np") for name, tree in file[frame].items() if "mc" not in name
        }
    copies = FRAME_TRACKS // len(tables["O2track_iu"]["fX"]) + 1
    rng = np.random.default_rng(1)
    tracks = {}
    for name, frames in FRAMES.items():
        tracks[name] = 0
        with uproot.recreate(folder / f"{name}.root", compression=uproot.ZSTD(5)) as file:
            for number in range(frames):
                content = _repeated(tables, copies, rng)
                ao2d.write_frame(file, (RUN << 32) + number, content)
                tracks[name] += len(content["O2track_iu"]["fX"])
    return tracks


def _repeated(tables: dict[str, Any], copies: int, rng: np.random.Generator) -> dict[str, dict[str, np.ndarray]]:
    collisions = len(tables["O2collision_001"]["fPosX"])
    bcs = len(tables["O2bc_001"]["fRunNumber"])
    result: dict[str, dict[str, np.ndarray]] = {}
    for name, table in tables.items():
        result[name] = {}
        for leaf, values in table.items():
            whole = np.tile(values, copies)
            if values.dtype == np.float32:
                whole = np.where(whole == -999, whole, whole * (1 + 1e-3 * rng.standard_normal(len(whole))))
            step = {"fIndexCollisions": collisions, "fIndexBCs": bcs}.get(leaf)
            if step is not None:
                shift = np.repeat(np.arange(copies) * step, len(values))
                whole = np.where(whole >= 0, whole + shift, whole)
            result[name][leaf] = whole
    return result


# what is measured, each in its own process


def ingest(path: Path, folder: Path, part: int, parts: int, v0: V0Cuts | None = None) -> None:
    """Run the workflow's own ingestion of a part of a file, from raw AO2D to the track table."""
    from pidflow.config.models import Ingest
    from pidflow.ingest.read import ingest_file
    from pidflow.ingest.reader import Request

    request = Request(
        path=path, source=path.name, run=RUN, period="EX22a", recopass="apass1", bz=BZ, simulation=False,
        settings=Ingest(v0=v0),
    )  # fmt: skip
    ingest_file(request, folder / "tracks.parquet", folder / "v0s.parquet", part=part, parts=parts)


def ingest_with_v0(path: Path, folder: Path, part: int, parts: int) -> None:
    """The same with the search for V0 candidates, as the workflow does by default."""
    from pidflow.config.v0 import V0Cuts

    ingest(path, folder, part, parts, V0Cuts())


def _columns() -> dict[str, tuple[str, ...]]:
    from pidflow.ingest import ao2d
    from pidflow.ingest.o2_columns import ITS_SIZES

    return {
        "O2track_iu": ao2d._TRACK,
        "O2trackextra_002": (*ao2d._EXTRA, ITS_SIZES),
        "O2collision_001": ao2d._COLLISION,
        "O2bc_001": ("fRunNumber",),
    }


def _read_frame(file: Any, frame: str, library: str) -> list[Any]:
    return [file[f"{frame}/{table}"].arrays(list(names), library=library) for table, names in _columns().items()]


def uproot_alone(path: Path, folder: Path, part: int, parts: int) -> None:
    """Read the same columns with uproot, and do nothing with them."""
    import uproot

    with uproot.open(path) as file:
        for frame in np.array_split(file.keys(recursive=False, cycle=False), parts)[part - 1]:
            _read_frame(file, frame, "np")


def pandas_way(path: Path, folder: Path, part: int, parts: int) -> None:
    """Read every data frame into pandas, concatenate, write one file: no propagation, no checks."""
    import pandas as pd
    import uproot

    tables = []
    with uproot.open(path) as file:
        for frame in np.array_split(file.keys(recursive=False, cycle=False), parts)[part - 1]:
            track, extra, collision, _ = _read_frame(file, frame, "pd")
            joined = pd.concat([track, extra], axis=1)
            tables.append(joined.merge(collision, left_on="fIndexCollisions", right_index=True))
    pd.concat(tables, ignore_index=True).to_parquet(folder / "tracks.parquet")


WAYS: dict[str, Callable[[Path, Path, int, int], None]] = {
    "ingest": ingest,
    "ingest_with_v0": ingest_with_v0,
    "uproot_alone": uproot_alone,
    "pandas_way": pandas_way,
}
MEASURED = [
    ("ingest", 2),
    ("ingest", 1),
    ("ingest_with_v0", 2),
    ("uproot_alone", 2),
    ("uproot_alone", 1),
    ("pandas_way", 1),
]
"""Ways, and jobs that share a file."""


def measure(way: str, jobs: int, path: Path) -> tuple[float, float]:
    """Return wall time in s of `jobs` that share a file, and the largest peak resident memory of one in MiB."""
    start = time.perf_counter()
    commands = [[sys.executable, __file__, "--only", way, str(path), str(n), str(jobs)] for n in range(1, jobs + 1)]
    peaks = []
    for process in [subprocess.Popen(command) for command in commands]:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{way} failed on {path}")
        peaks.append(usage.ru_maxrss / 1024)
    return time.perf_counter() - start, max(peaks)


def main() -> None:
    """Measure all ways in turn, several rounds, and report medians."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # in a process of its own: the peak memory of a child counts from its parent's
        subprocess.run([sys.executable, __file__, "--write", str(folder)], check=True)
        tracks = json.loads((folder / "tracks.json").read_text())
        times: dict[tuple[str, int, str], list[float]] = {}
        peaks: dict[tuple[str, int, str], list[float]] = {}
        for round_number in range(ROUNDS):
            for way, jobs in MEASURED:
                for size in FRAMES:
                    taken, peak = measure(way, jobs, folder / f"{size}.root")
                    times.setdefault((way, jobs, size), []).append(taken)
                    peaks.setdefault((way, jobs, size), []).append(peak)
            print(f"round {round_number + 1}/{ROUNDS}", flush=True)
        megabytes = (folder / "large.root").stat().st_size / 1e6
    more = tracks["large"] - tracks["small"]
    seconds = {key: statistics.median(values) for key, values in times.items()}
    memory = {key: statistics.median(values) for key, values in peaks.items()}
    rates = {key: more / (seconds[*key, "large"] - seconds[*key, "small"]) for key in MEASURED}
    print(f"\n{'':16}{'jobs':>4}{'tracks/s':>12}{'s, large':>10}{'MiB, small':>12}{'MiB, large':>12}")
    for key in MEASURED:
        print(
            f"{key[0]:16}{key[1]:4}{rates[key]:12,.0f}{seconds[*key, 'large']:10.2f}{memory[*key, 'small']:12.0f}"
            f"{memory[*key, 'large']:12.0f}"
        )
    own = "ingest", 2
    result = {
        "tracks_per_second": round(rates[own]),
        "tracks_per_second_with_v0": round(rates["ingest_with_v0", 2]),
        "tracks_per_second_one_job": round(rates["ingest", 1]),
        "ratio_to_uproot_read": rates[own] / rates["uproot_alone", 1],
        "ratio_to_uproot_read_job_for_job": rates["ingest", 1] / rates["uproot_alone", 1],
        "peak_rss_mib": memory["ingest", 1, "large"],
        "peak_rss_ratio_10x": memory["ingest", 1, "large"] / memory["ingest", 1, "small"],
        "ratio_to_pandas_way": rates["ingest", 1] / rates["pandas_way", 1],
        "peak_rss_mib_pandas_way": memory["pandas_way", 1, "large"],
        "tracks_large": tracks["large"],
        "tracks_per_data_frame": tracks["large"] / FRAMES["large"],
        "megabytes_large": megabytes,
        "start_up_s": seconds["ingest", 1, "small"] - tracks["small"] / rates["ingest", 1],
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(f"\n{RESULTS}")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs=4, metavar=("WAY", "FILE", "PART", "PARTS"))
    parser.add_argument("--write", metavar="FOLDER")
    arguments = parser.parse_args()
    if arguments.write:
        written = write_files(Path(arguments.write))
        (Path(arguments.write) / "tracks.json").write_text(json.dumps(written))
    elif arguments.only:
        with tempfile.TemporaryDirectory() as scratch:
            way, file, part, parts = arguments.only
            WAYS[way](Path(file), Path(scratch), int(part), int(parts))
    else:
        main()
