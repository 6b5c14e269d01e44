"""The whole response calibration: report, adapted table and figures; nothing else is changed."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tracks_sample import TOF, TPC, arrange, make_tracks

from pidflow.adapt.response.calibration import fit_calibration
from pidflow.adapt.response.figure import label_of, plot_calibration, plot_composition
from pidflow.adapt.sample import adapt_sample
from pidflow.adapt.steps.base import Surroundings
from pidflow.adapt.steps.calibrate_response import Settings
from pidflow.dataset.build import n_sigma
from pidflow.dataset.response import Response
from pidflow.files import write_json
from pidflow.physics import C_CM_PER_PS
from pidflow.tracks import DATASET_COLUMNS, WEIGHT

RESPONSE = Response(TPC, TOF)
SETTINGS = {"kind": "calibrate_response", "p_bins": 4, "eta_bins": 3}
TRUTH = ("pdg_code", "is_physical_primary", "mother_pdg_code")


def dataset(n, seed, **tracks):
    """Return a dataset of generated tracks; part of it is no training set."""
    table = make_tracks(n, seed=seed, **tracks)
    columns = {name: table[name] for name in table.column_names}
    columns |= n_sigma(table, RESPONSE)
    columns["split"] = np.resize(["train", "train", "test", "train", "validation"], n)
    return arrange(columns, DATASET_COLUMNS)


def without_tof(table, lost):
    for position, field in enumerate(table.schema):
        if field.name == "has_tof" or field.name.startswith(("tof_", "beta", "length")):
            absent = pa.scalar(False) if field.name == "has_tof" else pa.scalar(None, field.type)
            table = table.set_column(position, field.name, pc.if_else(pa.array(lost), absent, table[field.name]))
    return table


class Run:
    """A run whose data has another TPC gain and fewer tracks with TOF."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.simulation, self.data, self.response = (folder / name for name in ("s.parquet", "d.parquet", "r.json"))
        write_json(
            self.response,
            {
                "tpc": {**vars(TPC), "bethe_bloch": list(TPC.bethe_bloch)},
                "tof": vars(TOF),
            },
        )
        self.source = dataset(6000, 1)
        pq.write_table(self.source, self.simulation)
        data = dataset(6000, 2, labelled=False, tpc=replace(TPC, mip=47.0))
        phi = data["phi"].to_numpy()
        pq.write_table(without_tof(data, (phi < 2.0) & (phi > 1.0)), self.data)
        self.adapted, self.report = self.run(self.data, "own")
        self.content = json.loads(self.report.read_bytes())

    @property
    def surroundings(self) -> Surroundings:
        return Surroundings(900001, (211, 321, 2212), {}, self.response, 1)

    def run(self, data: Path, name: str) -> tuple[Path, Path]:
        outputs = [self.folder / f"{name}{end}" for end in (".parquet", ".json", "-varied.parquet")]
        adapt_sample(self.simulation, data, *outputs, settings=SETTINGS, surroundings=self.surroundings)
        return outputs[0], outputs[1]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return Run(tmp_path_factory.mktemp("run"))


def test_report_has_the_gain_that_the_data_has(run):
    tpc = run.content["signals"][0]
    assert tpc["signal"] == "TPC" and tpc["tracks"] == {"simulation": 3600, "data": 3600}
    points = [point for point in tpc["points"] if point["variable"] == "eta"]
    assert np.mean([point["offset"] for point in points]) == pytest.approx(np.log(47.0 / 50.0), abs=0.008)
    kinds = [(signal["signal"], signal["unit"], signal["logarithmic"]) for signal in run.content["signals"]]
    assert kinds == [("TPC", "", True), ("TRD", "", True), ("TOF", "ps", False)]


def test_rows_and_what_is_not_calibrated_stay(run):
    adapted = pq.read_table(run.adapted)
    assert adapted.column_names == [*run.source.column_names, WEIGHT.name]
    changed = {
        field.name
        for field in run.source.schema
        if not adapted[field.name].combine_chunks().equals(run.source[field.name].combine_chunks())
    }
    allowed = {
        field for field in run.source.column_names if field.startswith(("tpc_signal", "tpc_nsigma", "trd_", "tof_"))
    }
    assert changed <= allowed | {"has_trd", "has_tof", "beta", "length"}
    assert {"tpc_signal", "tpc_nsigma_pi", "trd_signal", "tof_signal", "beta", "has_tof"} <= changed
    for field in run.source.schema:
        assert adapted.schema.field(field.name).type == field.type


def test_adapted_signal_has_the_mean_of_data(run):
    adapted = pq.read_table(run.adapted)
    ratio = adapted["tpc_signal"].to_numpy() / run.source["tpc_signal"].to_numpy()
    assert np.median(ratio) == pytest.approx(47.0 / 50.0, abs=0.008)


def test_derived_columns_agree_with_the_new_signals(run):
    adapted = pq.read_table(run.adapted)
    for name, values in n_sigma(adapted, RESPONSE).items():
        # float32 of large times
        np.testing.assert_allclose(adapted[name].to_numpy(), values, atol=2e-3)
    seen = adapted.filter(pc.field("has_tof"))
    length, time, start = (
        seen[name].cast(pa.float64()).to_numpy() for name in ("length", "tof_signal", "tof_event_time")
    )
    np.testing.assert_allclose(seen["beta"].to_numpy(), length / (C_CM_PER_PS * (time - start)), rtol=2e-6)
    # all event times are later by the same
    before = run.source["tof_event_time"].to_numpy()[adapted["has_tof"].to_numpy()]
    np.testing.assert_allclose(start - before, run.content["event_time_offset_ps"], atol=1e-3)


@pytest.mark.parametrize(("flag", "prefix"), [("has_trd", "trd_"), ("has_tof", "tof_")])
def test_hidden_detector_is_null_everywhere(run, flag, prefix):
    adapted = pq.read_table(run.adapted)
    seen = adapted[flag].to_numpy()
    assert not np.any(seen & ~run.source[flag].to_numpy())
    extra = ("beta", "length") if flag == "has_tof" else ()
    for name in [name for name in adapted.column_names if name.startswith(prefix) or name in extra]:
        assert not np.any(adapted[name].is_valid().to_numpy() & ~seen)
    filled = adapted[f"{prefix}signal"].is_valid().to_numpy()
    np.testing.assert_array_equal(filled, seen)


def test_sector_without_tof_in_data_lacks_it_afterwards(run):
    adapted = pq.read_table(run.adapted)
    phi, seen = adapted["phi"].to_numpy(), adapted["has_tof"].to_numpy()
    assert seen[(phi > 1.05) & (phi < 1.74)].mean() < 0.03
    assert seen[(phi < 1.0) | (phi > 2.1)].mean() > 0.55


def test_weight_has_mean_one_on_training_tracks(run):
    adapted = pq.read_table(run.adapted)
    weight = adapted[WEIGHT.name].to_numpy()
    assert adapted[WEIGHT.name].type == WEIGHT.dtype and weight.min() > 0.0
    assert weight[adapted["split"].to_numpy() == "train"].mean() == pytest.approx(1.0, abs=0.03)


def test_weight_that_is_there_is_multiplied(run):
    calibration = fit_calibration(run.simulation, run.data, run.surroundings, Settings(p_bins=4, eta_bins=3))
    weighted = run.source.append_column(WEIGHT.name, pa.array(np.full(len(run.source), 2.0), WEIGHT.dtype))
    once, twice = (
        calibration.apply(table, np.random.default_rng(1))[WEIGHT.name].to_numpy() for table in (run.source, weighted)
    )
    np.testing.assert_allclose(twice, 2.0 * once, rtol=1e-6)


def test_truth_of_data_is_never_read(run):
    data = pq.read_table(run.data)
    planted = np.random.default_rng(9).choice([211, 321, -2212, 11], len(data))
    assert data["pdg_code"].null_count == len(data)
    for name, values in zip(TRUTH, (planted, planted > 0, planted), strict=True):
        column = pa.array(values).cast(data.schema.field(name).type)
        data = data.set_column(data.column_names.index(name), name, column)
    path = run.folder / "labelled.parquet"
    pq.write_table(data, path)
    for mine, theirs in zip(run.run(path, "again"), (run.adapted, run.report), strict=True):
        assert mine.read_bytes() == theirs.read_bytes()


def test_only_training_tracks_of_data_are_looked_at(run):
    data = pq.read_table(run.data)
    other = data["split"].to_numpy() != "train"
    signal = np.where(other, 500.0, data["tpc_signal"].to_numpy())
    place = data.column_names.index("tpc_signal")
    path = run.folder / "spoilt.parquet"
    pq.write_table(data.set_column(place, data.schema.field(place), pa.array(signal, pa.float32())), path)
    assert run.run(path, "spoilt")[1].read_bytes() == run.report.read_bytes()


# figures


def gaps(run, folder):
    """Return a report with one signal, neither yields nor matching."""
    content = {**run.content, "yields": None, "matching": None, "signals": run.content["signals"][:1]}
    write_json(folder / "gaps.json", content)
    return folder / "gaps.json"


FIGURES = {"calibration": plot_calibration, "composition": plot_composition}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", FIGURES)
def test_figure_is_drawn_without_warning_and_has_the_same_bytes_twice(tmp_path, run, name):
    first, second, other = (tmp_path / file for file in ("first.svg", "second.svg", "gaps.png"))
    for file in (first, second):
        FIGURES[name](run.report, file, title="run 1")
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes().startswith(b"<?xml") and first.stat().st_size > 5000
    FIGURES[name](gaps(run, tmp_path), other, title="run 1")
    assert other.stat().st_size > 5000


def test_axis_of_an_offset_is_that_of_its_coordinate(run):
    tpc, *_, tof = run.content["signals"]
    assert label_of({**tpc, "signal": "TOF"}, "offset") == label_of(tpc, "offset") != label_of(tof, "offset")
    assert label_of({**tof, "signal": "other", "unit": "ns"}, "offset") == "Offset (ns)"
    assert label_of({**tof, "signal": "other", "unit": ""}, "offset") == "Offset"
