"""The example production: what its files hold, and that detectors answer as stated."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from pathlib import Path
from typing import Any, get_args

import awkward as ak
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uproot
from ingesting import ingest as ingest_one
from numpy.typing import NDArray
from scipy.stats import chi2 as chi2_distribution
from scipy.stats import chi2_contingency

from pidflow.config import models as config_models
from pidflow.config.models import Selection, Split
from pidflow.dataset.response import fit_response, read_response, robust_width
from pidflow.dataset.selection import cut_results
from pidflow.physics import BY_PDG
from pidflow.response import TPC_REFERENCE_CLUSTERS, expected_time
from pidflow.simulate import ao2d, production
from pidflow.simulate.decays import MATERIAL, two_body
from pidflow.simulate.helix import Helix
from pidflow.simulate.particles import PROPERTIES
from pidflow.simulate.shifts import SHIFTS, ShiftName, conditions
from pidflow.simulate.signals import TPC

SCRIPTS = Path(production.__file__).parents[2]
RUN, BZ = 900001, -5.0
EVENTS = 1500

# leaves with ROOT's type codes, of AliceO2 AnalysisDataModel.h
REFERENCE = {
    "O2bc_001": "fRunNumber/I fGlobalBC/l fTriggerMask/l fInputMask/l",
    "O2collision_001": "fIndexBCs/I fPosX/F fPosY/F fPosZ/F fCovXX/F fCovXY/F fCovYY/F fCovXZ/F fCovYZ/F fCovZZ/F "
    "fFlags/s fChi2/F fNumContrib/s fCollisionTime/F fCollisionTimeRes/F",
    "O2track_iu": "fIndexCollisions/I fTrackType/b fX/F fAlpha/F fY/F fZ/F fSnp/F fTgl/F fSigned1Pt/F",
    "O2trackextra_002": "fTPCInnerParam/F fFlags/i fITSClusterSizes/i fTPCNClsFindable/b "
    "fTPCNClsFindableMinusFound/B fTPCNClsFindableMinusPID/B fTPCNClsFindableMinusCrossedRows/B fTPCNClsShared/b "
    "fTRDPattern/b fITSChi2NCl/F fTPCChi2NCl/F fTRDChi2/F fTOFChi2/F fTPCSignal/F fTRDSignal/F fLength/F fTOFExpMom/F "
    "fTrackEtaEMCAL/F fTrackPhiEMCAL/F fTrackTime/F fTrackTimeRes/F",
}
REFERENCE_TRUTH = {
    "O2mctracklabel": "fIndexMcParticles/I fMcMask/s",
    "O2mccollision": "fIndexBCs/I fGeneratorsID/S fPosX/F fPosY/F fPosZ/F fT/F fWeight/F fImpactParameter/F",
    "O2mccollisionlabel": "fIndexMcCollisions/I fMcMask/s",
    "O2mcparticle_001": "fIndexMcCollisions/I fPdgCode/I fStatusCode/I fFlags/b fIndexArray_Mothers_size/I "
    "fIndexArray_Mothers[fIndexArray_Mothers_size]/I fIndexSlice_Daughters[2]/I "
    "fWeight/F fPx/F fPy/F fPz/F fE/F fVx/F fVy/F fVz/F fVt/F",
}
ABSENT_TOF = {"fTOFChi2": -999, "fTOFExpMom": -999, "fLength": -999, "fTrackTime": -999, "fTrackTimeRes": -999}

Frame = dict[str, dict[str, Any]]


def simulate(folder: Path, *files: dict[str, Any]) -> str:
    """Generate files in a process of their own, which the generators need, and return what a job would log."""
    script = (
        "import json, sys\n"
        "from pidflow.jobs import logged\n"
        "with logged('job.log'):\n"
        "    from pidflow.simulate import simulate_file\n"
        "    for settings in json.loads(sys.argv[1]):\n"
        "        simulate_file(**settings)\n"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, json.dumps(files)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(SCRIPTS)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""  # a generator's banner belongs in the log
    return (folder / "job.log").read_text(encoding="utf-8")


def simulation(path: str, **changes: Any) -> dict[str, Any]:
    settings = {"run": RUN, "bz": BZ, "events": EVENTS, "frames": 2, "seed": 11, "shift": "none", "truth": None}
    return {"path": path, "sample": "simulation"} | settings | changes


def data(path: str, **changes: Any) -> dict[str, Any]:
    return simulation(path, sample="data", seed=12, shift="strong", truth=f"{Path(path).stem}.parquet") | changes


@functools.cache
def example(base: Path) -> Path:
    """Return the folder of ``simulation.root`` and ``data.root`` (strong shift), made once per session."""
    folder = base / "example"
    folder.mkdir()
    (folder / "progress").write_text(simulate(folder, simulation("simulation.root"), data("data.root")))
    return folder


def read(path: Path) -> dict[int, Frame]:
    """Return every leaf of every tree by the frame's number."""
    with uproot.open(path) as file:
        return {
            int(folder.removeprefix("DF_")): {
                tree: {leaf: values(file[f"{folder}/{tree}"][leaf]) for leaf in file[f"{folder}/{tree}"].keys()}  # noqa: SIM118
                for tree in file[folder].keys(cycle=False)
            }
            for folder in file.keys(recursive=False, cycle=False)
        }


def values(branch: Any) -> Any:
    array = branch.array()
    return array if "Mothers" in branch.name and array.ndim > 1 else ak.to_numpy(array)


def joined(frames: dict[int, Frame], tree: str, leaf: str) -> NDArray[Any]:
    return np.concatenate([frame[tree][leaf] for frame in frames.values()])


def mothers(particles: dict[str, Any]) -> NDArray[np.int64]:
    return ak.to_numpy(ak.fill_none(ak.firsts(particles["fIndexArray_Mothers"]), -1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return example(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def frames(folder: Path) -> dict[int, Frame]:
    return read(folder / "simulation.root")


@pytest.fixture(scope="module")
def data_frames(folder: Path) -> dict[int, Frame]:
    return read(folder / "data.root")


@pytest.fixture(scope="module")
def tracks(folder: Path) -> Path:
    return ingest(folder / "simulation.root")


@pytest.fixture(scope="module")
def data_tracks(folder: Path) -> Path:
    return ingest(folder / "data.root")


def ingest(path: Path) -> Path:
    output = path.with_suffix(".tracks.parquet")
    simulated = path.stem == "simulation"
    ingest_one(path, output, simulation=simulated)
    return output


def columns(path: Path, *names: str) -> list[NDArray[np.float64]]:
    table = pq.read_table(path, columns=list(names))
    return [table[name].cast("float64").to_numpy() for name in names]


# the format


@pytest.mark.parametrize("name", ["simulation", "data"])
def test_trees_have_the_reference_leaves_in_order_and_type(folder: Path, name: str) -> None:
    reference = REFERENCE | (REFERENCE_TRUTH if name == "simulation" else {})
    codes = {"TLeafI": "Ii", "TLeafF": "FF", "TLeafB": "Bb", "TLeafS": "Ss", "TLeafL": "Ll"}
    with uproot.open(folder / f"{name}.root") as file:
        frames = file.keys(recursive=False, cycle=False)
        assert len(frames) == 2
        for frame in frames:
            assert set(file[frame].keys(cycle=False)) == set(reference)
            for tree, leaves in reference.items():
                branches = file[frame][tree].branches
                assert [branch.member("fTitle") for branch in branches] == leaves.split()
                for branch in branches:
                    leaf = branch.member("fLeaves")[0]
                    assert codes[leaf.classname][leaf.member("fIsUnsigned")] == branch.member("fTitle")[-1]


def test_frames_are_numbered_apart_over_files_runs_and_samples(folder: Path) -> None:
    numbers = [*read(folder / "simulation.root"), *read(folder / "data.root")]
    assert [number >> 32 for number in numbers] == [RUN] * 4
    firsts = [
        production.first_frame(run, sample, seed, name)
        for run in (RUN, RUN + 1)
        for sample in ("simulation", "data")
        for seed in (1, 2)
        for name in ("a.root", "b.root")
    ]
    everything = [*numbers, *(first + index for first in firsts for index in range(256))]
    assert len(set(everything)) == len(everything)


def test_joined_trees_have_equal_length_and_indices_stay_inside(frames: dict[int, Frame]) -> None:
    for frame in frames.values():
        tracks = len(frame["O2track_iu"]["fX"])
        assert len(frame["O2trackextra_002"]["fFlags"]) == len(frame["O2mctracklabel"]["fMcMask"]) == tracks > 4000
        assert len(frame["O2collision_001"]["fPosX"]) == len(frame["O2bc_001"]["fGlobalBC"]) == EVENTS / 2
        assert frame["O2track_iu"]["fIndexCollisions"].max() < EVENTS / 2
        particles = frame["O2mcparticle_001"]
        size = len(particles["fPdgCode"])
        assert 0 <= frame["O2mctracklabel"]["fIndexMcParticles"].max() < size
        mother, rows = mothers(particles), np.arange(size)
        assert (mother < rows).all()
        first, last = particles["fIndexSlice_Daughters"].T
        child = mother >= 0
        assert ((first[mother] <= rows) & (rows <= last[mother]))[child].all()
        assert child.sum() == (last - first + 1)[first >= 0].sum()


def test_tracks_without_collision_and_collisions_without_tracks_exist(frames: dict[int, Frame]) -> None:
    index = joined(frames, "O2track_iu", "fIndexCollisions")
    assert 0.008 < np.mean(index == -1) < 0.025
    orphan = joined(frames, "O2trackextra_002", "fFlags") & 4 > 0
    np.testing.assert_array_equal(orphan, index == -1)
    for frame in frames.values():
        counts = np.bincount(frame["O2track_iu"]["fIndexCollisions"] + 1, minlength=EVENTS // 2 + 1)[1:]
        assert 0 < np.mean(counts == 0) < 0.3


def test_bunch_crossings_increase_and_carry_the_run(frames: dict[int, Frame]) -> None:
    for frame in frames.values():
        assert (frame["O2bc_001"]["fRunNumber"] == RUN).all()
        assert (np.diff(frame["O2bc_001"]["fGlobalBC"].astype(np.int64)) > 0).all()


def test_absent_detectors_have_the_sentinels_of_run_3(frames: dict[int, Frame]) -> None:
    extra = {leaf: joined(frames, "O2trackextra_002", leaf) for leaf in ao2d.TREES["O2trackextra_002"]}
    no_its, no_tpc = extra["fITSClusterSizes"] == 0, extra["fTPCNClsFindable"] == 0
    no_trd, no_tof = extra["fTRDPattern"] == 0, extra["fTOFExpMom"] == -999
    expected = (
        (no_its, {"fITSChi2NCl": -999}),
        (no_tpc, {"fTPCSignal": -999, "fTPCChi2NCl": -999, "fTPCInnerParam": 0, "fTPCNClsShared": 0}),
        (no_trd, {"fTRDSignal": -999, "fTRDChi2": -999}),
        (no_tof, ABSENT_TOF),
    )
    for absent, leaves in expected:
        assert 50 < absent.sum() < len(absent) - 50
        for leaf, sentinel in leaves.items():
            assert (extra[leaf][absent] == sentinel).all(), leaf
            assert (extra[leaf][~absent] >= 0).all() or leaf == "fTrackTime", leaf
    assert (extra["fTrackEtaEMCAL"] == -999).all() and (extra["fTrackPhiEMCAL"] == -999).all()


@pytest.mark.parametrize(("leaf", "bits"), [("fSigned1Pt", 13), ("fSnp", 15), ("fTPCSignal", 15), ("fLength", 15)])
def test_mantissas_are_truncated(frames: dict[int, Frame], leaf: str, bits: int) -> None:
    tree = "O2track_iu" if leaf in ao2d.TREES["O2track_iu"] else "O2trackextra_002"
    pattern = joined(frames, tree, leaf).view(np.uint32)
    pattern = pattern[pattern != np.float32(-999).view(np.uint32)]
    assert (pattern & ((1 << (23 - bits)) - 1) == 0).all()
    assert (pattern & (1 << (23 - bits)) > 0).any()


def test_stored_makes_nan_the_sentinel_and_truncates_towards_zero() -> None:
    kept = ao2d.stored("fSigned1Pt", np.array([np.nan, 1.0, 1.0 + 2.0**-13 + 2.0**-14, -1.0 - 2.0**-14]))
    np.testing.assert_array_equal(kept, np.array([-999, 1.0, 1.0 + 2.0**-13, -1.0], np.float32))
    np.testing.assert_array_equal(ao2d.stored("fPosX", np.array([0.1])), np.array([0.1], np.float32))


def test_a_tree_with_other_leaves_is_refused(tmp_path: Path) -> None:
    with (
        uproot.recreate(tmp_path / "file.root") as file,
        pytest.raises(ValueError, match="O2mctracklabel needs exactly the leaves"),
    ):
        ao2d.write_frame(file, 1, {"O2mctracklabel": {"fMcMask": np.zeros(1)}})


# reproducibility and failure


def test_the_seed_alone_decides_the_content(tmp_path: Path) -> None:
    def production_of(name: str, seed: int) -> tuple[dict[int, Frame], dict[int, Frame], pa.Table]:
        place = tmp_path / name
        place.mkdir()
        small = {"events": 60, "seed": seed}
        simulate(place, simulation("s.root", **small), data("d.root", **small))
        return read(place / "s.root"), read(place / "d.root"), pq.read_table(place / "d.parquet")

    with ThreadPoolExecutor() as pool:
        content = list(pool.map(production_of, ("a", "b", "c"), (5, 5, 6)))
    for name in ("s.root", "d.root"):
        # the files carry neither time stamps nor temporary names
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    for first, again in zip(content[0][:2], content[1][:2], strict=True):
        assert list(first) == list(again)
        for number, trees in first.items():
            for tree, leaves in trees.items():
                for leaf, array in leaves.items():
                    assert ak.array_equal(array, again[number][tree][leaf]), (tree, leaf)
    assert content[0][2].equals(content[1][2])
    for kind in (0, 1):
        one, other = (joined(content[index][kind], "O2track_iu", "fX") for index in (0, 2))
        assert len(one) != len(other) or not np.array_equal(one, other)
        halves = [frame["O2collision_001"]["fPosZ"] for frame in content[0][kind].values()]
        assert not np.allclose(*halves, atol=0.5)
        assert not set(content[0][kind]) & set(content[2][kind])


@pytest.mark.parametrize("sample", ["simulation", "data"])
def test_failure_inside_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sample: production.Sample
) -> None:
    class Broken:
        def __init__(self, *_: object) -> None: ...

        def take(self, *_: object) -> None:
            assert len(list(tmp_path.iterdir())) > 0
            raise RuntimeError("no more events")

    monkeypatch.setattr(production, "EventGenerator", Broken)
    truth = tmp_path / "truth.parquet" if sample == "data" else None
    settings = {"run": RUN, "bz": BZ, "events": 4, "frames": 2, "seed": 1, "shift": "none"}
    with pytest.raises(RuntimeError, match="no more events"):
        production.simulate_file(tmp_path / "file.root", sample=sample, truth=truth, **settings)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sample": "data"}, "truth is a file for sample 'data'"),
        ({"truth": "truth.parquet"}, "None for 'simulation'"),
        ({"frames": 0}, "frames = 0 must lie between 1"),
        ({"events": 3, "frames": 4}, "frames = 4 must lie between 1 and the number of events"),
        ({"frames": 257}, "at most 256"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        production.simulate_file(**simulation(str(tmp_path / "file.root"), **changes))
    assert list(tmp_path.iterdir()) == []


def test_progress_is_one_line_per_frame(folder: Path) -> None:
    lines = [line for line in (folder / "progress").read_text().splitlines() if ": data frame " in line]
    assert [line.split(",")[0] for line in lines] == [
        f"{name}.root: data frame {number}/2" for name in ("simulation", "data") for number in (1, 2)
    ]


# the detector


def test_detector_patterns_of_selected_tracks_resemble_those_of_alice(tracks: Path) -> None:
    table = pq.read_table(tracks)
    selected = np.logical_and.reduce(list(cut_results(table, Selection()).values()))
    assert selected.sum() > 4000
    trd, tof = (table[name].to_numpy()[selected] for name in ("has_trd", "has_tof"))
    shares = {
        "complete": (np.mean(trd & tof), 0.37),
        "neither": (np.mean(~trd & ~tof), 0.37),
        "without TOF": (np.mean(trd & ~tof), 0.25),
        "without TRD": (np.mean(~trd & tof), 0.01),
    }
    for name, (share, wanted) in shares.items():
        assert abs(share - wanted) < 0.05, (name, share)
    assert shares["without TRD"][0] > 0


def test_time_of_flight_of_pions_has_the_stated_width_and_no_bias(tracks: Path) -> None:
    pdg, signal, event_time, length, momentum = columns(
        tracks, "pdg_code", "tof_signal", "tof_event_time", "length", "tof_exp_mom"
    )
    chosen = (np.abs(pdg) == 211) & np.isfinite(signal)
    assert chosen.sum() > 2000
    residual = (signal - event_time)[chosen] - expected_time(length[chosen], momentum[chosen], BY_PDG[211].mass)
    core = residual[np.abs(residual - np.median(residual)) < 300]
    assert 60 < robust_width(residual) < 110
    assert abs(core.mean()) < 15 and abs(np.median(residual)) < 15
    assert 0.005 < np.mean(np.abs(residual) > 500) < 0.05  # mismatches


@pytest.mark.parametrize("pdg_code", [211, 321, 2212])
def test_tpc_signal_deviates_from_the_known_response_by_its_width(tracks: Path, pdg_code: int) -> None:
    pdg, signal, p, found = columns(tracks, "pdg_code", "tpc_signal", "tpc_inner_param", "tpc_n_cls_found")
    chosen = (np.abs(pdg) == pdg_code) & np.isfinite(signal) & (p > 0.25 * (pdg_code == 211) + 0.6 * (pdg_code != 211))
    assert chosen.sum() > 200
    deviation = TPC.n_sigma(signal[chosen], p[chosen], found[chosen], BY_PDG[pdg_code].mass)
    assert abs(np.median(deviation)) < 0.15
    assert 0.9 < robust_width(deviation) < 1.1


def test_the_fitted_response_finds_the_one_put_in(tracks: Path, tmp_path: Path) -> None:
    fit_response([tracks], tmp_path / "response.json", split=Split())
    response = read_response(tmp_path / "response.json")
    assert response.tpc is not None and response.tof is not None
    pdg, signal, p, found = columns(tracks, "pdg_code", "tpc_signal", "tpc_inner_param", "tpc_n_cls_found")
    for species in (BY_PDG[211], BY_PDG[321], BY_PDG[2212]):
        chosen = (np.abs(pdg) == species.pdg) & np.isfinite(signal) & (p > 0.3)
        deviation = response.tpc.n_sigma(signal[chosen], p[chosen], found[chosen], species.mass)
        assert abs(np.median(deviation)) < 0.25 and 0.85 < robust_width(deviation) < 1.2, species.key
    # 60 and 45 ps of the hit, 25 ps of the event time
    assert response.tof.resolution == pytest.approx(np.sqrt(60**2 + 45**2 + 25**2), rel=0.12)


def test_trd_signal_and_pattern(frames: dict[int, Frame]) -> None:
    pattern = joined(frames, "O2trackextra_002", "fTRDPattern")
    seen = pattern > 0
    layers = np.bitwise_count(pattern[seen])
    assert layers.min() == 2 and layers.max() == 6 and pattern.max() < 64
    assert 4.5 < layers.mean() < 6
    assert 25 < np.median(joined(frames, "O2trackextra_002", "fTRDSignal")[seen]) < 60


def test_strong_shift_lowers_the_tpc_gain_and_delays_the_tof(folder: Path, tracks: Path, data_tracks: Path) -> None:
    state = conditions("strong", RUN).shift
    assert 0.05 < 1 - state.tpc_gain < 0.09
    ratios, times = [], []
    truth = pq.read_table(folder / "data.parquet", columns=["row", "data_frame", "pdg_code"]).to_pandas()
    names = (
        "tpc_signal",
        "tpc_inner_param",
        "tpc_n_cls_found",
        "tof_signal",
        "tof_event_time",
        "length",
        "tof_exp_mom",
    )
    table = pq.read_table(data_tracks, columns=["row", "data_frame", "eta", *names]).to_pandas()
    of_data = table.merge(truth, on=["row", "data_frame"], validate="one_to_one")
    of_simulation = pq.read_table(tracks, columns=["pdg_code", "eta", *names]).to_pandas()
    for sample in (of_simulation, of_data):
        pions = sample[(sample["pdg_code"].abs() == 211) & (sample["tpc_inner_param"] > 0.3)]
        expected = TPC.signal(pions["tpc_inner_param"], BY_PDG[211].mass)
        central = pions["eta"].abs() < 0.2
        ratios.append(np.nanmedian((pions["tpc_signal"] / expected)[central]))
        matched = pions.dropna(subset=["tof_signal"])
        flight = matched["tof_signal"] - matched["tof_event_time"]
        expected = expected_time(matched["length"], matched["tof_exp_mom"], BY_PDG[211].mass)
        times.append(np.median(flight - expected))
    assert ratios[1] / ratios[0] == pytest.approx(state.tpc_gain, abs=0.01)
    assert times[1] - times[0] == pytest.approx(state.tof_offset, abs=12)


def test_strong_shift_switches_trd_sectors_off(frames: dict[int, Frame], data_frames: dict[int, Frame]) -> None:
    dead = conditions("strong", RUN).dead_trd_sectors
    assert len(dead) == 3
    shares = []
    for sample in (frames, data_frames):
        pattern = joined(sample, "O2trackextra_002", "fTRDPattern")
        stiff = np.abs(joined(sample, "O2track_iu", "fSigned1Pt")) < 0.5
        azimuth = joined(sample, "O2track_iu", "fAlpha") + np.arcsin(joined(sample, "O2track_iu", "fSnp"))
        sector = np.floor(np.mod(azimuth, 2 * np.pi) / (np.pi / 9)).astype(int)
        shares.append(np.mean(pattern[stiff & np.isin(sector, dead)] > 0))
    assert shares[1] < 0.6 * shares[0]


def test_shift_sizes_grow_and_none_is_none() -> None:
    assert conditions("none", RUN).shift == SHIFTS["none"] and conditions("none", RUN).dead_trd_sectors == ()
    assert conditions("mild", RUN) == conditions("mild", RUN) != conditions("mild", RUN + 1)
    for run in range(900001, 900011):
        mild, moderate, strong = (conditions(name, run).shift for name in ("mild", "moderate", "strong"))
        assert 1 > mild.tpc_gain > strong.tpc_gain > 0.88
        assert 0 < mild.tof_offset < strong.tof_offset < 90
        assert strong.resolution_scale > moderate.resolution_scale > mild.resolution_scale > 1
        assert 1 > mild.matching > moderate.matching > strong.matching > 0.8
        # runs spread by a tenth, about values that lie apart by more
        assert 1 > mild.tpc_gain > moderate.tpc_gain > 0.92
        assert 0 < mild.tof_offset < moderate.tof_offset < 60
        assert [len(conditions(name, run).dead_trd_sectors) for name in SHIFTS] == [0, 1, 2, 3]
    sizes = [astuple(shift)[:-1] for shift in SHIFTS.values()]
    for values in zip(*sizes, strict=True):
        assert list(values) in (sorted(values), sorted(values, reverse=True)) and len(set(values)) == 4
    # the configuration knows the same names
    assert list(SHIFTS) == list(get_args(ShiftName)) == list(get_args(config_models.ShiftName))


# the particles


def test_generators_differ_in_multiplicity_and_in_composition_by_momentum(
    folder: Path, tracks: Path, data_tracks: Path
) -> None:
    names = ["data_frame", "row", "collision_id", "pt"]
    truth = pq.read_table(folder / "data.parquet").to_pandas()
    of_data = pq.read_table(data_tracks, columns=names).to_pandas().merge(truth, on=["data_frame", "row"])
    of_simulation = pq.read_table(tracks, columns=[*names, "pdg_code", "is_physical_primary"]).to_pandas()
    multiplicity = [len(sample) / EVENTS for sample in (of_simulation, of_data)]
    assert abs(np.log(multiplicity[1] / multiplicity[0])) > 0.2
    chi2, degrees = 0.0, 0
    for low, high in ((0.1, 0.3), (0.3, 0.5), (0.5, 1.0), (1.0, 2.0)):
        counts = []
        for sample in (of_simulation, of_data):
            primary = sample["is_physical_primary"].fillna(False).astype(bool)
            code = sample["pdg_code"].abs()[primary & sample["pt"].between(low, high)]
            counts.append([(code == species).sum() for species in (211, 321, 2212)])
        assert np.min(counts) > 10
        result = chi2_contingency(counts)
        chi2, degrees = chi2 + result.statistic, degrees + result.dof
    assert chi2_distribution.sf(chi2, degrees) < 1e-3


def family(frames: dict[int, Frame], mother_code: int) -> dict[str, NDArray[Any]]:
    """Return the charged daughters of particles of `mother_code`, and their mothers' four-momenta and rows."""
    parts = []
    for frame in frames.values():
        particles = frame["O2mcparticle_001"]
        mother = mothers(particles)
        rows = np.flatnonzero(
            (mother >= 0) & (np.abs(particles["fPdgCode"][mother]) == mother_code) & (particles["fPdgCode"] != 111)
        )
        parts.append(
            {
                "pdg": particles["fPdgCode"][rows],
                "mother": mother[rows],
                "status": particles["fStatusCode"][rows],
                "flags": particles["fFlags"][rows],
                "four": np.stack([particles[leaf][rows] for leaf in ("fPx", "fPy", "fPz", "fE")]),
                "mother_four": np.stack([particles[leaf][mother[rows]] for leaf in ("fPx", "fPy", "fPz", "fE")]),
                "vertex": np.stack([particles[leaf][rows] for leaf in ("fVx", "fVy", "fVz")]),
                "mother_vertex": np.stack([particles[leaf][mother[rows]] for leaf in ("fVx", "fVy", "fVz")]),
            }
        )
    return {name: np.concatenate([part[name] for part in parts], axis=-1) for name in parts[0]}


@pytest.mark.parametrize(("mother_code", "lifetime"), [(310, 2.6844), (3122, 7.89)])
def test_neutral_hadrons_decay_along_their_flight(frames: dict[int, Frame], mother_code: int, lifetime: float) -> None:
    daughters = family(frames, mother_code)
    assert len(daughters["pdg"]) > 100
    charged = {310: {211, -211}, 3122: {2212, -211, -2212, 211}}
    assert set(daughters["pdg"]) == charged[mother_code]
    assert (daughters["flags"] & 1 == 1).all() and (daughters["flags"] & 4 == 0).all()
    assert (daughters["status"] == 4).all()
    path = daughters["vertex"] - daughters["mother_vertex"]
    momentum = daughters["mother_four"][:3]
    size = np.sqrt(np.sum(momentum**2, axis=0))
    length = np.sqrt(np.sum(path**2, axis=0))
    cos = np.sum(path * momentum, axis=0) / (length * size)
    assert np.median(length) > 1 and (cos[length > 0.1] > 0.999).all()
    proper = length * PROPERTIES[mother_code].mass / size
    near = proper < lifetime  # beyond, those that leave the volume are missing
    assert np.median(proper[near]) == pytest.approx(lifetime * -np.log(1 - 0.5 * (1 - np.exp(-1))), rel=0.15)
    # both daughters are kept: neighbours with the same mother give the mother's four-momentum
    pair = np.flatnonzero(daughters["mother"][1:] == daughters["mother"][:-1])
    assert 2 * len(pair) == len(daughters["pdg"])
    total = daughters["four"][:, pair] + daughters["four"][:, pair + 1]
    np.testing.assert_allclose(total, daughters["mother_four"][:, pair], rtol=1e-4, atol=1e-4)


def test_photons_convert_in_the_material(frames: dict[int, Frame]) -> None:
    electrons = family(frames, 22)
    made = electrons["status"] == 5
    assert made.sum() > 100
    assert sorted(set(electrons["pdg"][made])) == [-11, 11]
    radius = np.hypot(*electrons["vertex"][:2, made])
    layers = np.array([layer for layer, _ in MATERIAL])
    assert np.abs(radius[:, None] - layers).min(axis=1).max() < 0.01
    assert len(np.unique(np.abs(radius[:, None] - layers).argmin(axis=1))) >= 5
    cos = np.sum(electrons["four"][:3] * electrons["mother_four"][:3], axis=0) / (
        np.linalg.norm(electrons["four"][:3], axis=0) * np.linalg.norm(electrons["mother_four"][:3], axis=0)
    )
    assert (cos[made & (electrons["four"][3] > 0.05)] > 0.999).all()


def test_generated_resonances_keep_their_daughters(frames: dict[int, Frame]) -> None:
    daughters = family(frames, 113)
    pair = np.flatnonzero(
        (daughters["mother"][1:] == daughters["mother"][:-1])
        & (daughters["pdg"][1:] == -daughters["pdg"][:-1])
        & (np.abs(daughters["pdg"][1:]) == 211)
    )
    assert len(pair) > 200
    total = daughters["four"][:, pair] + daughters["four"][:, pair + 1]
    np.testing.assert_allclose(total, daughters["mother_four"][:, pair], rtol=1e-3, atol=1e-3)


def test_primaries_and_secondaries_are_flagged(frames: dict[int, Frame]) -> None:
    flags, pdg = joined(frames, "O2mcparticle_001", "fFlags"), joined(frames, "O2mcparticle_001", "fPdgCode")
    status = joined(frames, "O2mcparticle_001", "fStatusCode")
    assert set(np.unique(flags)) == {0, 1, 4}
    assert (status[flags == 4] == 1).all()
    assert 0.7 < np.mean(np.abs(pdg[flags == 4]) == 211) < 0.9


def test_two_body_decay_conserves_energy_and_is_isotropic() -> None:
    rng = np.random.default_rng(4)
    momentum = rng.normal(size=(3, 20_000))
    one, two = two_body(momentum, PROPERTIES[3122].mass, (2212, -211), rng)
    np.testing.assert_allclose(one + two, momentum, atol=1e-12)
    energies = [np.sqrt(np.sum(p**2, axis=0) + PROPERTIES[code].mass ** 2) for p, code in ((one, 2212), (two, 211))]
    parent = np.sqrt(np.sum(momentum**2, axis=0) + PROPERTIES[3122].mass ** 2)
    np.testing.assert_allclose(sum(energies), parent, rtol=1e-12)
    at_rest, _ = two_body(np.zeros((3, 20_000)), PROPERTIES[310].mass, (211, -211), rng)
    np.testing.assert_allclose(np.linalg.norm(at_rest, axis=0), 0.2060, atol=1e-4)
    assert np.abs(at_rest.mean(axis=1)).max() < 5 * 0.2060 / np.sqrt(3 * 20_000)


def test_helix_reaches_the_cylinder_first_from_inside() -> None:
    rng = np.random.default_rng(2)
    n = 200
    position = rng.normal(size=(3, n))
    momentum = rng.normal(size=(3, n))
    momentum[:2] += 0.2
    for bz in (-5.0, 0.0, 5.0):
        helix = Helix.from_momentum(position, momentum, rng.choice([-1, 0, 1], n), bz)
        s = helix.crossing(50.0)
        reached = np.isfinite(s)
        assert reached.sum() > n // 2
        x, y, _, _ = helix.take(np.flatnonzero(reached)).at(s[reached])
        np.testing.assert_allclose(np.hypot(x, y), 50.0, atol=1e-8)
        steps = [np.hypot(*helix.at(np.where(reached, s, 0) * share)[:2]) for share in np.linspace(0, 0.999, 50)]
        assert (np.array(steps) < 50.0).all()
        if bz == 0:
            assert reached.all()
        else:  # the far side of the circle is out of reach
            radius, centre = 1 / helix.curvature[~reached], helix.take(np.flatnonzero(~reached))
            centre_x, centre_y = centre.x - radius * np.sin(centre.phi), centre.y + radius * np.cos(centre.phi)
            assert (np.hypot(centre_x, centre_y) + np.abs(radius) < 50.0).all()
    assert not np.isfinite(helix.crossing(0.0)).any()


# the truth of the pseudo-data


def test_truth_is_aligned_with_the_track_rows(folder: Path, data_frames: dict[int, Frame]) -> None:
    truth = pq.read_table(folder / "data.parquet")
    assert truth.schema.equals(production.TRUTH_SCHEMA)
    lengths = {number: len(frame["O2track_iu"]["fX"]) for number, frame in data_frames.items()}
    np.testing.assert_array_equal(truth["data_frame"], np.repeat(list(lengths), list(lengths.values())))
    np.testing.assert_array_equal(truth["row"], np.concatenate([np.arange(n) for n in lengths.values()]))
    assert truth["run"].unique().to_pylist() == [RUN]
    null = truth["pdg_code"].is_null().to_numpy()
    np.testing.assert_array_equal(null, truth["is_physical_primary"].is_null().to_numpy())
    assert (truth["mother_pdg_code"].is_null().to_numpy() >= null).all()
    assert 0.004 < null.mean() < 0.017


def test_truth_tells_the_charge_and_the_energy_loss_of_its_track(folder: Path, data_frames: dict[int, Frame]) -> None:
    pdg = pq.read_table(folder / "data.parquet")["pdg_code"].cast("float64").to_numpy()
    sign = np.sign(joined(data_frames, "O2track_iu", "fSigned1Pt"))
    charge = np.where(np.isin(np.abs(pdg), (11, 13)), -np.sign(pdg), np.sign(pdg))
    known = np.isfinite(pdg)
    np.testing.assert_array_equal(charge[known], sign[known])
    extra = {leaf: joined(data_frames, "O2trackextra_002", leaf) for leaf in ("fTPCSignal", "fTPCInnerParam")}
    slow = (extra["fTPCSignal"] > 0) & (extra["fTPCInnerParam"] > 0.3) & (extra["fTPCInnerParam"] < 0.6)
    protons, pions = (slow & (np.abs(pdg) == code) for code in (2212, 211))
    assert protons.sum() > 50
    assert np.median(extra["fTPCSignal"][protons]) > 2.5 * np.median(extra["fTPCSignal"][pions])


def test_its_cluster_sizes_follow_the_energy_loss(tracks: Path) -> None:
    pdg, p, size, n_cls = columns(tracks, "pdg_code", "p", "its_mean_cluster_size", "its_n_cls")
    slow = (p > 0.3) & (p < 0.5) & np.isfinite(size)
    assert np.median(size[slow & (np.abs(pdg) == 2212)]) > 2 * np.median(size[slow & (np.abs(pdg) == 211)])
    assert np.nanmin(n_cls) >= 2 and np.nanmax(n_cls) == 7


def test_clusters_found_do_not_exceed_those_that_can_be(tracks: Path) -> None:
    findable, found, crossed, shared = columns(
        tracks, "tpc_n_cls_findable", "tpc_n_cls_found", "tpc_n_crossed_rows", "tpc_n_cls_shared"
    )
    seen = np.isfinite(findable)
    findable, found, crossed, shared = findable[seen], found[seen], crossed[seen], shared[seen]
    assert findable.max() <= 152 < TPC_REFERENCE_CLUSTERS and findable.min() >= 30
    assert (shared <= found).all() and (found <= crossed).all() and (crossed <= findable).all()
