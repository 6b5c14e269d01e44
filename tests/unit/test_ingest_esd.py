"""The ESD reader: files that ROOT wrote of known values, real files, and files that it must refuse."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import esd_content
import numpy as np
import pyarrow as pa
import pytest
import uproot
from esd_content import BZ, EVENT, EVENTS, NEW, OLD, ROW, RUN, SIZES, TRACKS, Content, Version
from numpy.typing import NDArray

from pidflow.config.models import Ingest
from pidflow.errors import PidflowError
from pidflow.identity import collision_ids
from pidflow.ingest import esd, esd_members, kinematics_file
from pidflow.ingest.esd import EsdFile, Tracks, event_ranges, inner_momentum, read_events, read_tof, read_tracks
from pidflow.ingest.esd_members import Bits, EsdTree, Ragged
from pidflow.ingest.helix import TrackParameters, propagate_to_vertex
from pidflow.ingest.reader import Piece, Request
from pidflow.ingest.rootfile import RootFile
from pidflow.tracks import COLUMNS, MISSING_NEVER, schema

FIXTURES = Path(__file__).parents[1] / "fixtures"
REAL = Path(__file__).parents[3] / "shared" / "data" / "esd"
DIGESTS = json.loads((FIXTURES / "root_reading.json").read_text())
TWIN = "AO2D_run282008_from_the_same_ESD.root"
TWIN_ESD = "AliESDs_run282008_LHC17p_MC_100ev.root"


def fixture_path(version: Version) -> Path:
    return FIXTURES / "esd" / f"AliESDs_{version.name}.root"


def request(path: Path, **changes: Any) -> Request:
    settings = {"run": RUN, "period": "LHC11a", "recopass": "pass1", "bz": BZ, "simulation": False}
    return Request(path=path, source=path.name, settings=Ingest(), **settings | changes)


def pieces(path: Path, **changes: Any) -> list[Piece]:
    file = EsdFile(request(path, **changes))
    found = [file.read(unit) for unit in file.units()]
    file.close()
    return found


def table(path: Path, **changes: Any) -> pa.Table:
    return pa.concat_tables([piece.tracks for piece in pieces(path, **changes)])


def column(tracks: pa.Table, name: str) -> np.ma.MaskedArray[Any, Any]:
    values = tracks[name].combine_chunks()
    mask = np.asarray(values.is_null())
    filled = values.fill_null(False if pa.types.is_boolean(values.type) else 0)
    return np.ma.array(np.asarray(filled), mask=mask)


def open_tree(path: Path) -> Iterator[EsdTree]:
    file = RootFile(path)
    yield EsdTree(path, file.handle())
    file.close()


@pytest.fixture(params=list(esd_content.VERSIONS))
def version(request: pytest.FixtureRequest) -> Version:
    return esd_content.VERSIONS[request.param]


@pytest.fixture
def values(version: Version) -> Content:
    return esd_content.content(version)


@pytest.fixture
def tree(version: Version) -> Iterator[EsdTree]:
    yield from open_tree(fixture_path(version))


@pytest.fixture
def tracks(tree: EsdTree) -> Tracks:
    return read_tracks(tree, read_events(tree, 0, EVENTS))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for path in (FIXTURES / "esd").iterdir():
        shutil.copy(path, tmp_path)
    return tmp_path


def test_every_member_of_fixed_size_is_as_written(version: Version, values: Content, tree: EsdTree) -> None:
    sizes = tree.sizes("Tracks", 0, EVENTS)
    np.testing.assert_array_equal(sizes, SIZES)
    members = {name for name in values.tracks if tree.has("Tracks", name)}
    assert set(esd.MEMBERS) <= members
    assert {"fR", "fTrackTime"} <= members or version is NEW
    for name in members:
        found = tree.values("Tracks", name, 0, EVENTS, sizes)
        expected = values.tracks[name]
        if name in ("fHMPIDtrkPhi", "fTRDsignals"):
            np.testing.assert_allclose(found, expected.reshape(found.shape), rtol=1e-6, atol=1e-6)
        else:
            np.testing.assert_array_equal(found, expected, err_msg=name)


def test_pointers_maps_and_lists_are_as_written(
    version: Version, values: Content, tree: EsdTree, tracks: Tracks
) -> None:
    np.testing.assert_array_equal(tracks.inner, values.inner)
    assert np.isnan(values.inner[:, 0]).any()
    assert tracks.clusters is not None
    np.testing.assert_array_equal(tracks.clusters.count(), values.clusters.sum(axis=1))
    np.testing.assert_array_equal(tracks.event, EVENT)
    np.testing.assert_array_equal(tracks.row, ROW)
    if version is OLD:
        assert tracks.shared is None
        assert tracks.trd_slices is None
        return
    assert tracks.shared is not None
    assert tracks.trd_slices is not None
    np.testing.assert_array_equal(tracks.shared.count(), values.shared.sum(axis=1))
    np.testing.assert_array_equal(tracks.trd_slices.counts, [len(charges) for charges in values.slices])
    np.testing.assert_array_equal(tracks.trd_slices.values, np.concatenate(values.slices))
    sizes = tree.sizes("Tracks", 0, EVENTS)
    np.testing.assert_array_equal(tree.track_parameters("Tracks", "fTPCInner", 0, EVENTS, sizes), values.tpc_inner)


def test_crossed_rows_are_those_of_aliroot(values: Content, tracks: Tracks) -> None:
    def loop(bits: NDArray[np.bool_]) -> int:
        last, found = -2, 0
        for row in range(len(bits)):
            if bits[row]:
                last, found = row, found + 1
            elif row - last <= 2 or bits[row + 1 : row + 3].any():
                found += 1
        return found

    assert tracks.clusters is not None
    expected = [loop(bits) for bits in values.clusters]
    np.testing.assert_array_equal(tracks.clusters.crossed_rows(), expected)
    assert 1 in expected


def test_crossed_rows_end_with_the_detector_and_with_the_map() -> None:
    content = np.full(20, 255, dtype=np.uint8)
    maps = Bits(Ragged(np.tile(content, 3), np.array([20, 20, 20])), np.array([160, 159, 8]))
    np.testing.assert_array_equal(maps.crossed_rows(), [159, 159, 8])


def test_baskets_and_ranges_of_events_do_not_change_what_is_read(tree: EsdTree, tracks: Tracks) -> None:
    branches = {b.name: b for b in uproot.open(tree.path)["esdTree/Tracks"].branches}
    assert branches["Tracks.fIp"].num_baskets > 1
    for start, stop in ((0, 3), (3, 4), (4, 9), (9, 10), (1, 2)):
        part = read_tracks(tree, read_events(tree, start, stop))
        chosen = (start <= EVENT) & (stop > EVENT)
        np.testing.assert_array_equal(part.inner, tracks.inner[chosen])
        np.testing.assert_array_equal(part.event + start, EVENT[chosen])
        assert part.clusters is not None
        assert tracks.clusters is not None
        np.testing.assert_array_equal(part.clusters.crossed_rows(), tracks.clusters.crossed_rows()[chosen])
        np.testing.assert_array_equal(part.members["fC"], tracks.members["fC"][chosen])
        tof, whole = (
            read_tof(tree, read_events(tree, *span), found)
            for span, found in (((start, stop), part), ((0, EVENTS), tracks))
        )
        np.testing.assert_array_equal(tof.signal, whole.signal[chosen])


def test_vertex_is_the_best_of_the_event(values: Content, tree: EsdTree) -> None:
    np.testing.assert_array_equal(read_events(tree, 0, EVENTS).vertex, values.vertex)
    primary = values.vertices["PrimaryVertex"][0]
    assert (values.vertex[[2, 4]] != primary[[2, 4]]).all()
    assert (values.vertex[7] == primary[7]).all()


def test_spread_of_the_collision_time(version: Version, tree: EsdTree) -> None:
    expected = np.inf if version is OLD else esd_content.T0_SPREAD
    np.testing.assert_array_equal(read_events(tree, 0, EVENTS).time_spread, expected)


def test_time_of_flight_is_that_of_the_tracks_own_match(
    version: Version, values: Content, tree: EsdTree, tracks: Tracks
) -> None:
    tof = read_tof(tree, read_events(tree, 0, EVENTS), tracks)
    matched = np.isfinite(values.length)
    np.testing.assert_array_equal(tof.signal, np.where(matched, values.tof_signal, np.nan))
    np.testing.assert_array_equal(tof.length[matched], values.length[matched])
    np.testing.assert_array_equal(tof.pion_time[matched], values.times[matched, 2])
    np.testing.assert_array_equal(tof.distance[matched], values.distance[matched])
    momentum = 1 / np.abs(values.tracks["fP"][:, 4]) * np.hypot(1, values.tracks["fP"][:, 3])
    late = matched & (values.length / values.times[:, 2] < esd_content.C_CM_PER_PS)
    assert 0 < (matched & ~late).sum() < late.sum()
    np.testing.assert_allclose(tof.momentum()[late], momentum[late], rtol=1e-3)
    assert np.isnan(tof.momentum()[~late]).all()


def test_table_has_every_track_with_its_identity(version: Version) -> None:
    path = fixture_path(version)
    (piece,) = pieces(path)
    assert piece.tracks.schema == schema()
    assert piece.v0s is not None
    assert piece.counts == {
        "data_frames": EVENTS,
        "collisions": EVENTS,
        "tracks": TRACKS,
        "without_collision": 0,
        "without_parameters": 0,
        "fake_labels": 0,
    }
    np.testing.assert_array_equal(column(piece.tracks, "data_frame"), EVENT)
    np.testing.assert_array_equal(column(piece.tracks, "row"), ROW)
    np.testing.assert_array_equal(column(piece.tracks, "collision_id"), collision_ids(path.name, 0, EVENT))
    assert set(piece.tracks["source"].to_pylist()) == {path.name}
    assert set(piece.tracks["run"].to_pylist()) == {RUN}
    for entry in COLUMNS:
        assert entry.missing != MISSING_NEVER or piece.tracks[entry.name].null_count == 0, entry.name
    for truth in ("pdg_code", "is_physical_primary", "mother_pdg_code"):
        assert piece.tracks[truth].null_count == TRACKS


def test_kinematics_are_those_of_the_parameters(version: Version, values: Content) -> None:
    tracks = table(fixture_path(version))
    y, z, snp, tgl, q_over_pt = values.tracks["fP"].T
    parameters = TrackParameters(values.tracks["fX"], y, z, values.tracks["fAlpha"], snp, tgl, q_over_pt)
    at = propagate_to_vertex(parameters, values.vertex[EVENT], BZ)
    for name, expected in {
        "pt": 1 / np.abs(q_over_pt),
        "p": np.hypot(1, tgl) / np.abs(q_over_pt),
        "eta": np.arcsinh(tgl),
        "sign": np.sign(q_over_pt),
        "dca_xy": at.dca_xy,
        "dca_z": at.dca_z,
        "sigma_1pt": np.sqrt(values.tracks["fC"][:, 14]),
    }.items():
        np.testing.assert_allclose(column(tracks, name), expected, rtol=1e-5, atol=1e-6, err_msg=name)


def test_detectors_are_null_where_they_saw_nothing(version: Version, values: Content) -> None:
    tracks, raw = table(fixture_path(version)), values.tracks
    its, tpc = raw["fITSncls"] > 0, raw["fTPCnclsF"] > 0
    if version is OLD:
        planes = (raw["fTRDsignals"] > 0).any(axis=2)
    else:
        charges = [np.resize(c[:48], 48).reshape(6, 8) if len(c) else np.zeros((6, 8)) for c in values.slices]
        planes = (np.stack(charges) > 0).any(axis=2)
    pattern = planes @ (1 << np.arange(6))
    slow = values.length / values.times[:, 2] < esd_content.C_CM_PER_PS
    tof = values.has_tof() & slow
    for detector, present in {"its": its, "tpc": tpc, "trd": pattern > 0, "tof": tof}.items():
        assert 0 < present.sum() < TRACKS
        np.testing.assert_array_equal(column(tracks, f"has_{detector}"), present, err_msg=detector)
    assert (values.has_tof() & ~slow).any()
    bits = values.clusters
    ncls = raw["fTPCncls"]
    expected = {
        "its_n_cls": (its, raw["fITSncls"]),
        "its_inner_hit": (its, raw["fITSClusterMap"] & 3 != 0),
        "its_signal": (its, raw["fITSsignal"]),
        "its_chi2_ncl": (its, raw["fITSchi2"] / np.maximum(raw["fITSncls"], 1)),
        "tpc_signal": (tpc, raw["fTPCsignal"]),
        "tpc_inner_param": (tpc, inner_momentum(values.inner)),
        "tpc_n_cls_found": (tpc, ncls),
        "tpc_n_cls_findable": (tpc, raw["fTPCnclsF"]),
        "tpc_n_cls_shared": (tpc & (version is not OLD), values.shared.sum(axis=1)),
        "tpc_chi2_ncl": (tpc & (ncls > 0), raw["fTPCchi2"] / np.maximum(ncls, 1)),
        "trd_signal": (pattern > 0, raw["fTRDsignal"]),
        "trd_pattern": (pattern > 0, pattern),
        "trd_chi2": (pattern > 0, raw["fTRDchi2"]),
        "tof_signal": (tof, values.tof_signal),
        "length": (tof, values.length),
        "tof_chi2": (tof & (version is not OLD), values.distance),
        "its_mean_cluster_size": (np.zeros(TRACKS, dtype=bool), np.zeros(TRACKS)),
    }
    for name, (present, content) in expected.items():
        found = column(tracks, name)
        np.testing.assert_array_equal(~np.ma.getmaskarray(found), present, err_msg=name)
        np.testing.assert_allclose(found[present].astype(float), content[present].astype(float), rtol=1e-6)
    crossed = column(tracks, "tpc_n_crossed_rows")
    assert (crossed[tpc] >= bits.sum(axis=1)[tpc]).all()
    assert (np.ma.getmaskarray(crossed) == ~tpc).all()


@pytest.mark.parametrize(("length", "slices"), [(18, 3), (30, 3), (48, 8), (60, 8)])
def test_trd_pattern_takes_charges_and_no_momenta(length: int, slices: int, tracks: Tracks) -> None:
    charges = np.full(length, -1.0)
    charges[[0, slices * 3 + slices - 1]] = 5.0
    charges[slices * 6 :] = 2.5
    counts = np.zeros(TRACKS, dtype=np.int64)
    counts[4] = length
    changed = Tracks(**{**vars(tracks), "trd_slices": Ragged(charges, counts)})
    pattern = esd.trd_pattern(changed)
    assert pattern is not None
    assert pattern[4] == 0b1001
    assert pattern.sum() == 0b1001


def test_ranges_hold_every_event_once() -> None:
    assert event_ranges(np.array([3, 0, 4, 10, 1, 1]), 5) == [(0, 3), (3, 4), (4, 6)]
    assert event_ranges(np.array([7]), 5) == [(0, 1)]
    assert event_ranges(np.array([], dtype=np.int64), 5) == []
    assert event_ranges(np.array([0, 0]), 5) == [(0, 2)]


def test_ranges_give_the_same_table_and_fingerprints_differ(version: Version, monkeypatch: pytest.MonkeyPatch) -> None:
    (whole,) = pieces(fixture_path(version))
    monkeypatch.setattr(esd.event_ranges, "__defaults__", (8,))
    parts = pieces(fixture_path(version))
    assert len(parts) == 5
    # the event time of TOF looks at an event as a whole, so every column is the same
    assert pa.concat_tables([part.tracks for part in parts]).combine_chunks() == whole.tracks
    assert list(whole.fingerprints) == [f"events 0-{EVENTS - 1}"]
    marks = [mark for part in parts for mark in part.fingerprints.values()]
    assert len(set(marks)) == len(marks) == 5
    assert sum(part.counts["tracks"] for part in parts) == TRACKS


def test_truth_is_that_of_the_particle_with_the_label(version: Version, values: Content) -> None:
    (piece,) = pieces(fixture_path(version), simulation=True)
    labels = values.tracks["fLabel"]
    pdg, primary, mother = (column(piece.tracks, n) for n in ("pdg_code", "is_physical_primary", "mother_pdg_code"))
    assert piece.counts["fake_labels"] == (labels < 0).sum() > 0
    for track, label in enumerate(labels):
        truth = esd_content.particles(int(EVENT[track]))
        if label < 0:
            assert pdg.mask[track] and primary.mask[track] and mother.mask[track]
            continue
        assert pdg[track] == truth["pdg"][label]
        assert bool(primary[track]) == truth["primary"][label]
        own_mother = truth["mother"][label]
        assert mother.mask[track] == (own_mother < 0)
        assert own_mother < 0 or mother[track] == truth["pdg"][own_mother]


@pytest.mark.parametrize("event", range(EVENTS))
def test_physical_primaries_are_those_of_alistack(event: int) -> None:
    truth = esd_content.particles(event)
    stack = kinematics_file.KinematicsFile(fixture_path(NEW)).stack(event)
    assert stack.n_primaries == truth["n_primaries"]
    np.testing.assert_array_equal(stack.pdg, truth["pdg"])
    np.testing.assert_array_equal(stack.status, truth["status"])
    np.testing.assert_array_equal(stack.mother, truth["mother"])
    found = stack.is_physical_primary(np.arange(len(truth["pdg"])))
    np.testing.assert_array_equal(found, truth["primary"])


def test_particles_that_are_split_into_branches_are_read_too(tmp_path: Path) -> None:
    truth = esd_content.particles(0)
    order = np.roll(np.arange(len(truth["pdg"])), -int(truth["n_primaries"]))
    mothers = np.stack([truth["mother"], np.full(len(order), -1)], axis=1)
    with uproot.recreate(tmp_path / "Kinematics.root") as file:
        file.mktree("flat", {"fPdgCode": "int32", "fStatusCode": "int32", "fMother": ("int32", (2,))})
        file["flat"].extend({"fPdgCode": truth["pdg"][order].astype(np.int32),
                             "fStatusCode": truth["status"][order].astype(np.int32),
                             "fMother": mothers[order].astype(np.int32)})  # fmt: skip
    with uproot.open(tmp_path / "Kinematics.root") as file:
        tree = file["flat"]
        pdg, status, mother = kinematics_file._members(tree, {})
    np.testing.assert_array_equal(pdg, truth["pdg"][order])
    np.testing.assert_array_equal(status, truth["status"][order])
    np.testing.assert_array_equal(mother, truth["mother"][order])


def test_fixtures_are_compressed_by_all_algorithms_and_keep_roots_traps() -> None:
    algorithms = set()
    for version in esd_content.VERSIONS.values():
        with uproot.open(fixture_path(version)) as file:
            algorithms.add(type(file["esdTree/Tracks/Tracks.fC[15]"].compression).__name__)
    with uproot.open(FIXTURES / "esd" / "Kinematics.root") as file:
        algorithms.add(type(file["Event0/TreeK/Particles"].compression).__name__)
    assert algorithms == {"ZLIB", "LZ4", "ZSTD", "LZMA"}
    with uproot.open(fixture_path(NEW)) as file, pytest.raises(KeyError):
        _ = file["esdTree/Tracks/Tracks.fTPCsignal"].interpretation
    assert sum(path.stat().st_size for path in (FIXTURES / "esd").iterdir()) < 150_000


def test_run_and_field_must_be_those_of_the_run_table(version: Version) -> None:
    path = fixture_path(version)
    with pytest.raises(PidflowError, match=f"belongs to run {RUN}, not 5; list it under its own run"):
        table(path, run=5)
    for bz in (-BZ, BZ * 1.02, BZ * 0.98, 0.0):
        with pytest.raises(PidflowError, match=f"{path.name}: its field is -5 kG.*correct 'bz' in the run table"):
            table(path, bz=bz)
    assert table(path, bz=BZ * 1.009).num_rows == TRACKS


def test_kinematics_must_lie_beside_a_simulation(folder: Path) -> None:
    path = folder / fixture_path(NEW).name
    (folder / "Kinematics.root").unlink()
    assert table(path).num_rows == TRACKS
    with pytest.raises(PidflowError, match=r"no Kinematics.root with the truth beside it.*list the file under 'data'"):
        table(path, simulation=True)
    with uproot.recreate(folder / "Kinematics.root") as file:
        file.mkdir("Event0")
    with pytest.raises(PidflowError, match=f"holds 1 events, {path.name} {EVENTS}"):
        table(path, simulation=True)


def test_label_outside_the_event_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = kinematics_file.KinematicsFile.stack

    def fewer(self: kinematics_file.KinematicsFile, event: int) -> kinematics_file.Stack:
        stack = whole(self, event)
        return kinematics_file.Stack(stack.pdg[:5], stack.status[:5], stack.mother[:5], 5)

    monkeypatch.setattr(kinematics_file.KinematicsFile, "stack", fewer)
    with pytest.raises(PidflowError, match=r"Kinematics.root: event \d+ has 5 particles, .* names number \d+"):
        table(fixture_path(NEW), simulation=True)


@pytest.mark.parametrize("name", ["Tracks.fTPCsignal", "Tracks.fIp", "AliESDRun.fMagneticField"])
def test_missing_branch_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    leaves = esd_members._leaves

    def without(branch: Any, group: str) -> dict[str, Any]:
        return {key: leaf for key, leaf in leaves(branch, group).items() if f"{group}.{key}" != name}

    monkeypatch.setattr(esd_members, "_leaves", without)
    with pytest.raises(PidflowError, match=f"AliESDs_v74_2016.root: esdTree lacks the branch {name}"):
        table(fixture_path(NEW))


@pytest.mark.parametrize("name", ["fTPCClusterMap.fAllBits", "fTPCSharedMap.fAllBits", "fTRDslices"])
def test_a_branch_that_some_versions_lack_becomes_nulls(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    column_of = {
        "fTPCClusterMap.fAllBits": "tpc_n_crossed_rows",
        "fTPCSharedMap.fAllBits": "tpc_n_cls_shared",
        "fTRDslices": "trd_pattern",
    }[name]
    whole = table(fixture_path(NEW))
    leaves = esd_members._leaves
    monkeypatch.setattr(
        esd_members, "_leaves", lambda b, g: {key: leaf for key, leaf in leaves(b, g).items() if key != name}
    )
    found = table(fixture_path(NEW))
    assert whole[column_of].null_count < TRACKS
    assert found[column_of].null_count == TRACKS


def _corrupted(monkeypatch: pytest.MonkeyPatch, branch_name: str, change: Any) -> None:
    whole = esd_members.jagged

    def corrupted(branch: Any, interpretation: Any, start: int, stop: int) -> Any:
        found, counts = whole(branch, interpretation, start, stop)
        return change(found.copy(), counts.copy()) if branch.name.split("[")[0] == branch_name else (found, counts)

    monkeypatch.setattr(esd_members, "jagged", corrupted)


def _set(position: int, *new: int) -> Any:
    def change(found: Any, counts: Any) -> Any:
        found[position : position + len(new)] = new
        return found, counts

    return change


def _moved(found: Any, counts: Any) -> Any:
    counts[0] -= 1
    counts[2] += 1
    return found, counts


def _shorter(found: Any, counts: Any) -> Any:
    counts[-1] -= 1
    return found[:-1], counts


def _longer(found: Any, counts: Any) -> Any:
    counts[-1] += 4
    return np.append(found, np.zeros(4, dtype=found.dtype)), counts


@pytest.mark.parametrize(
    ("branch", "change"),
    [
        ("Tracks.fTPCsignal", _moved),
        ("Tracks.fP", _shorter),
        ("Tracks.fIp", _moved),
        ("Tracks.fIp", _shorter),
        ("Tracks.fIp", _longer),
        ("Tracks.fIp", _set(0, 0x7F, 0xFF, 0xFF, 0xFF)),
        ("Tracks.fIp", _set(0, 0x40, 0, 0, 0)),
        ("Tracks.fIp", _set(4, 1, 2, 3, 4)),
        ("Tracks.fIp", _set(8, ord("B"))),
        ("Tracks.fTPCClusterMap.fAllBits", _set(0, 2)),
        ("Tracks.fTPCClusterMap.fAllBits", _set(0, 0)),
        ("Tracks.fTPCClusterMap.fAllBits", _shorter),
        ("Tracks.fTPCClusterMap.fNbytes", _set(0, 1 << 31)),
        ("Tracks.fTRDnSlices", _set(0, *[1 << 30] * TRACKS)),
        ("Tracks.fTOFcluster", _shorter),
        ("AliESDTOFCluster.fMatchIndex", _moved),
        ("AliESDTOFHit.fTime", _shorter),
    ],
)
def test_bytes_that_do_not_fit_are_refused(branch: str, change: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _corrupted(monkeypatch, branch, change)
    with pytest.raises(
        PidflowError, match=r"AliESDs_v74_2016.root: branch (Tracks|AliESDTOF).*transfer the file again"
    ):
        table(fixture_path(NEW))


def test_a_list_that_is_not_stored_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    slices = esd_content.content(NEW).slices
    lengths = np.array([len(charges) for charges in slices])
    absent = int(np.flatnonzero(lengths)[3])
    at = int((1 + 4 * lengths)[:absent].sum())

    def change(found: Any, counts: Any) -> Any:
        counts[EVENT[absent]] -= 4 * lengths[absent]
        found[at] = 0
        return np.delete(found, np.arange(at + 1, at + 1 + 4 * lengths[absent])), counts

    _corrupted(monkeypatch, "Tracks.fTRDslices", change)
    tree = EsdTree(fixture_path(NEW), RootFile(fixture_path(NEW)).handle())
    found = read_tracks(tree, read_events(tree, 0, EVENTS)).trd_slices
    assert found is not None
    np.testing.assert_array_equal(found.counts, np.where(np.arange(TRACKS) == absent, 0, lengths))
    kept = [charges for track, charges in enumerate(slices) if track != absent]
    np.testing.assert_array_equal(found.values, np.concatenate(kept))


@pytest.mark.parametrize("branch", ["AliESDTOFCluster.fHitIndex", "AliESDTOFCluster.fMatchIndex"])
@pytest.mark.parametrize("index", [-1, 1 << 20])
def test_indices_outside_the_event_are_refused(branch: str, index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def change(found: Any, counts: Any) -> Any:
        found[:] = index
        return found, counts

    _corrupted(monkeypatch, branch, change)
    with pytest.raises(PidflowError, match=f"{branch} points outside its event"):
        table(fixture_path(NEW))


def test_damaged_files_are_refused_or_read_never_worse(version: Version, folder: Path) -> None:
    path = folder / fixture_path(version).name
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PidflowError, match=f"{path.name}: damaged or truncated file"):
        table(path)
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(12):
        content = bytearray(whole)
        for position in rng.integers(300, len(whole), 6):
            content[position] = rng.integers(256)
        path.write_bytes(content)
        try:
            table(path, simulation=True)
        except PidflowError as error:
            refused += 1
            assert path.name in str(error) or "Kinematics.root" in str(error)
    assert refused > 2


@pytest.mark.parametrize("name", list(DIGESTS))
def test_real_files_read_as_root_reads_them(name: str) -> None:
    path = REAL / name
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    tree = EsdTree(path, RootFile(path).handle())
    for quantity, expected in DIGESTS[name].items():
        values = np.ascontiguousarray(_quantity(tree, quantity), dtype="<f8")
        found = {"count": values.size, "sha256": hashlib.sha256(values.tobytes()).hexdigest()}
        assert found == expected, quantity
    assert len(DIGESTS[name]) > 30


def _quantity(tree: EsdTree, name: str) -> NDArray[Any]:
    group, member = name.split(".", 1)
    span = (0, tree.events)
    sizes = tree.sizes(group, *span)
    top = member.split(".")[0]
    counts = {"fTRDslices": ("fTRDnSlices", ">f4"), "fTOFcluster": ("fNtofClusters", ">i4")}
    if member in counts:
        of, dtype = counts[member]
        return tree.lists(group, member, *span, sizes, tree.values(group, of, *span, sizes), dtype).values
    if member.endswith(".CountBits()"):
        return tree.bits(group, top, *span, sizes).count()
    if member.endswith(".fAllBits"):
        return tree.bits(group, top, *span, sizes).content.values
    if top in ("fIp", "fTPCInner"):
        part = {"fX": slice(0, 1), "fAlpha": slice(1, 2), "fP": slice(2, 7), "fC": slice(7, 22)}[member.split(".")[1]]
        return np.nan_to_num(tree.track_parameters(group, top, *span, sizes)[:, part])
    values = tree.values(group, member, *span, sizes)
    return values.astype(np.uint64) & np.uint64(0xFFFFFFFF) if member == "fFlags" else values


@pytest.fixture(scope="module")
def twins() -> tuple[Path, dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    for name in (TWIN, TWIN_ESD):
        if not (REAL / name).is_file():
            pytest.skip(f"{REAL / name} is absent")
    with uproot.open(REAL / TWIN) as file:
        return (
            REAL / TWIN_ESD,
            file["O2tracks"].arrays(library="np"),
            file["O2events"].arrays(["fRunNumber", "fX", "fY", "fZ"], library="np"),
        )


def test_real_esd_holds_what_its_conversion_holds(twins: Any) -> None:
    path, other, collision = twins
    tree = EsdTree(path, RootFile(path).handle())
    events = read_events(tree, 0, tree.events)
    tracks = read_tracks(tree, events)
    tof = read_tof(tree, events, tracks)
    raw = tracks.members
    more = {name: tree.values("Tracks", name, 0, tree.events, events.sizes) for name in ("fTRDntracklets", "fTOFchi2")}
    tpc_inner = tree.track_parameters("Tracks", "fTPCInner", 0, tree.events, events.sizes)
    covariance = ("YY", "ZY", "ZZ", "SnpY", "SnpZ", "SnpSnp", "TglY", "TglZ", "TglSnp", "TglTgl", "1PtY", "1PtZ",
                  "1PtSnp", "1PtTgl", "1Pt21Pt2")  # fmt: skip
    expected = {
        "fCollisionsID": tracks.event + 1,  # that conversion counts from 1
        "fX": raw["fX"],
        "fAlpha": raw["fAlpha"],
        **{name: raw["fP"][:, i] for i, name in enumerate(("fY", "fZ", "fSnp", "fTgl", "fSigned1Pt"))},
        **{f"fC{name}": raw["fC"][:, i] for i, name in enumerate(covariance)},
        "fTPCinnerP": np.nan_to_num(inner_momentum(tpc_inner)),
        "fFlags": raw["fFlags"],
        "fITSClusterMap": raw["fITSClusterMap"],
        "fTPCncls": raw["fTPCncls"],
        "fTRDntracklets": more["fTRDntracklets"] >> 3 & 7,  # AliESDtrack::GetTRDntracklets
        "fITSchi2Ncl": raw["fITSchi2"] / np.maximum(raw["fITSncls"], 1) * (raw["fITSncls"] > 0),
        "fTPCchi2Ncl": raw["fTPCchi2"] / np.maximum(raw["fTPCncls"], 1) * (raw["fTPCncls"] > 0),
        "fTRDchi2": raw["fTRDchi2"],
        "fTOFchi2": more["fTOFchi2"],
        "fTPCsignal": raw["fTPCsignal"],
        "fTRDsignal": raw["fTRDsignal"],
        "fTOFsignal": np.nan_to_num(tof.signal, nan=99999.0),
        "fLength": np.nan_to_num(tof.length),
    }
    assert set(expected) == set(other)
    for name, values in expected.items():
        np.testing.assert_array_equal(np.asarray(values).astype(other[name].dtype), other[name], err_msg=name)
    np.testing.assert_array_equal(events.vertex.astype(np.float32), np.stack([collision[f"f{c}"] for c in "XYZ"], 1))
    assert set(collision["fRunNumber"]) == {282008}


def test_table_of_real_esd_agrees_with_its_conversion(twins: Any) -> None:
    path, other, _ = twins
    tracks = table(path, run=282008, bz=-5.0069)
    assert tracks.num_rows == len(other["fX"]) == 396
    np.testing.assert_array_equal(column(tracks, "data_frame") + 1, other["fCollisionsID"])
    np.testing.assert_allclose(column(tracks, "pt"), 1 / np.abs(other["fSigned1Pt"]), rtol=1e-6)
    np.testing.assert_array_equal(column(tracks, "has_its"), other["fITSClusterMap"] > 0)
    flags = esd_content.TOF_OUT | esd_content.TIME
    assert (~column(tracks, "has_tof") | ((other["fFlags"] & flags) == flags)).all()
    for name, leaf in {
        "its_chi2_ncl": "fITSchi2Ncl",
        "tpc_chi2_ncl": "fTPCchi2Ncl",
        "tpc_signal": "fTPCsignal",
        "trd_signal": "fTRDsignal",
        "trd_chi2": "fTRDchi2",
        "tof_signal": "fTOFsignal",
        "length": "fLength",
        "tpc_n_cls_found": "fTPCncls",
    }.items():
        found = column(tracks, name)
        seen = ~np.ma.getmaskarray(found)
        assert seen.sum() >= 99
        np.testing.assert_array_equal(found[seen], other[leaf][seen], err_msg=name)
    pattern = column(tracks, "trd_pattern")
    layers = np.bitwise_count(pattern.filled(0).astype(np.uint8))
    np.testing.assert_array_equal(layers, other["fTRDntracklets"])


def test_trd_planes_of_a_file_of_2009_are_as_many_as_it_says() -> None:
    path = REAL / "AliESDs-0_PDC09_MC_100ev.root"
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    tree = EsdTree(path, RootFile(path).handle())
    events = read_events(tree, 0, tree.events)
    tracks = read_tracks(tree, events)
    pattern = esd.trd_pattern(tracks)
    assert pattern is not None
    assert tracks.trd_slices is not None
    on = tracks.trd_slices.counts > 0
    assert on.sum() == 870
    planes = tree.values("Tracks", "fTRDpidQuality", 0, tree.events, events.sizes)
    np.testing.assert_array_equal(np.bitwise_count(pattern)[on], planes[on])


@pytest.mark.parametrize(
    ("name", "run", "bz", "tracks"),
    [
        ("AliESDs_run282008_LHC17p_MC_100ev.root", 282008, -5.0069, 396),
        ("AliESDs-0_PDC09_MC_100ev.root", 0, -5.0, 1765),
        ("alice_ESDs_2007_MC_20ev.root", 0, -5.0, 1287),
    ],
)
def test_tracks_of_real_files_bend_to_the_vertex_in_the_field_that_is_told(
    name: str, run: int, bz: float, tracks: int
) -> None:
    path = REAL / name
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    (piece,) = pieces(path, run=run, bz=bz)
    assert piece.tracks.num_rows == piece.counts["tracks"] == tracks
    with pytest.raises(PidflowError, match="correct 'bz'"):
        pieces(path, run=run, bz=-bz)
    # from the inner wall of the TPC, 84 cm away, where the sense of the field matters
    tree = EsdTree(path, RootFile(path).handle())
    events = read_events(tree, 0, tree.events)
    found = read_tracks(tree, events)
    refitted = (found.members["fFlags"].astype(np.uint64) & np.uint64(0x44)) == 0x44
    chosen = np.flatnonzero(refitted & np.isfinite(found.inner[:, 0]))
    x, alpha, y, z, snp, tgl, q_over_pt = found.inner[chosen, :7].T
    parameters = TrackParameters(x, y, z, alpha, snp, tgl, q_over_pt)
    distances = [
        float(np.median(np.abs(propagate_to_vertex(parameters, events.vertex[found.event[chosen]], sign * bz).dca_xy)))
        for sign in (1, -1)
    ]
    assert distances[0] < 0.5 < 5.0 < distances[1]
