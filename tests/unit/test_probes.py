"""Tag and probe: known rates are found again below a known background."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import norm

from pidflow.config.v0 import V0Cuts
from pidflow.errors import PidflowError
from pidflow.evaluate.figures.probes import plot_probes
from pidflow.evaluate.probe_schema import HeadRate, ProbeBin, ProbeRates, ProbeSpecies
from pidflow.evaluate.probes import (
    PROBES,
    Probes,
    rate_arrays,
    rates,
    read_probes,
    score_interval,
    true_rates,
)
from pidflow.physics import charge_sign
from pidflow.tracks import DATASET_COLUMNS
from pidflow.tracks import schema as track_schema
from pidflow.v0s import KINDS
from pidflow.v0s import schema as v0_schema

SPECIES = (211, 321, 2212, 11, -211, -321, -2212, -11)
EDGES = (0.1, 1.0, 20.0)
CUTS = V0Cuts.model_validate(
    {
        "k0s": {"signal": 0.012, "sideband_from": 0.02, "sideband_to": 0.044},
        "hyperon": {"signal": 0.004, "sideband_from": 0.0065, "sideband_to": 0.0105},
        "gamma": {"signal": 0.01, "sideband_from": 0.015, "sideband_to": 0.055},
    }
)
SCALE = {"k0s": 0.5, "lambda": 1.0, "antilambda": 1.0, "gamma": 0.25}
KIND = {kind.key: i for i, kind in enumerate(KINDS)}
OPTIONS: dict[str, Any] = {"species": SPECIES, "threshold": 0.5, "pt_edges": EDGES, "confidence": 0.68}
EFFICIENCY = 0.85
OF_BACKGROUND = 0.25


class Legs:
    """Legs that are collected group by group, with the certainty that each has for every species."""

    def __init__(self) -> None:
        self.parts: list[tuple[Any, ...]] = []
        self.certainty: list[np.ndarray[Any, Any]] = []

    def add(self, n: int, kind: str, pdg: int, *, signal: bool, selected: dict[int, int], pt: float = 0.5, true: int):
        """Add `n` legs of true PDG code `true`; the first `selected[head]` of them pass at a head."""
        certainty = np.zeros((n, len(SPECIES)), np.float32)
        for head, passed in selected.items():
            certainty[:passed, SPECIES.index(head)] = 0.5
        self.parts.append((n, kind, pdg, signal, pt, true))
        self.certainty.append(certainty)

    def probes(self) -> tuple[Probes, np.ndarray[Any, Any]]:
        n, kind, pdg, signal, pt, true = (np.array(values) for values in zip(*self.parts, strict=True))
        columns = pa.table({"pt": np.repeat(pt, n).astype(np.float32), "pdg_code": np.repeat(true, n).astype(np.int32)})
        probes = Probes(
            row=np.arange(n.sum()),
            pdg=np.repeat(pdg, n).astype(np.int32),
            kind=np.repeat([KIND[key] for key in kind], n),
            signal=np.repeat(signal, n),
            columns=columns,
        )
        return probes, np.concatenate(self.certainty)


def part(found: tuple[ProbeSpecies, ...], *pdg: int) -> ProbeSpecies:
    return next(own for own in found if own.pdg == pdg)


def head(own: ProbeBin, pdg: int) -> HeadRate:
    return next(rate for rate in own.heads if rate.pdg == pdg)


def test_rates_of_counts_by_hand() -> None:
    legs = Legs()
    legs.add(100, "k0s", 211, signal=True, selected={211: 80, 321: 11}, true=211)
    legs.add(16, "k0s", 211, signal=False, selected={211: 4, 321: 6}, true=321)
    legs.add(30, "antilambda", 211, signal=True, selected={211: 20}, true=211)
    legs.add(5, "antilambda", 211, signal=False, selected={211: 1}, true=321)
    found = part(rates(*legs.probes(), cuts=CUTS, **OPTIONS), 211)
    low, high = found.pt
    total = 130 - 0.5 * 16 - 5
    assert (low.low, low.high, low.n_probes) == (0.1, 1.0, 130)
    assert low.n_background == pytest.approx(13.0)
    assert head(low, 211).rate.value == pytest.approx((100 - 0.5 * 4 - 1) / total)
    assert head(low, 321).rate.value == pytest.approx((11 - 0.5 * 6) / total)
    assert head(low, -211).rate.value == 0.0
    assert (high.n_probes, head(high, 211).error, head(high, 211).rate.value) == (0, None, None)


def test_window_of_photons_is_scaled_by_their_one_sideband() -> None:
    legs = Legs()
    legs.add(50, "gamma", 11, signal=True, selected={11: 30}, true=11)
    legs.add(8, "gamma", 11, signal=False, selected={11: 4}, true=211)
    low = part(rates(*legs.probes(), cuts=CUTS, **OPTIONS), 11).pt[0]
    assert low.n_background == pytest.approx(2.0)
    assert head(low, 11).rate.value == pytest.approx((30 - 1) / (50 - 2))


def test_both_charges_are_asked_for_the_species_of_their_own_charge() -> None:
    legs = Legs()
    legs.add(10, "gamma", 11, signal=True, selected={11: 8, -211: 2, 211: 7}, true=11)
    legs.add(10, "gamma", -11, signal=True, selected={-11: 6, 211: 3, 11: 9}, true=-11)
    low = part(rates(*legs.probes(), cuts=CUTS, **OPTIONS), 11, -11).pt[0]
    assert head(low, 11).rate.value == pytest.approx(14 / 20)
    assert head(low, 211).rate.value == pytest.approx(5 / 20)
    assert [one.pdg for one in low.heads] == [211, 321, 2212, 11]


def test_species_without_charge_serve_both_charges() -> None:
    legs = Legs()
    legs.add(10, "k0s", 211, signal=True, selected={211: 8, 321: 1}, true=211)
    legs.add(10, "k0s", -211, signal=True, selected={211: 6, 321: 2}, true=-211)
    probes, certainty = legs.probes()
    found = rates(probes, certainty[:, :2], cuts=CUTS, **OPTIONS | {"species": (211, 321)})
    low = part(found, 211, -211).pt[0]
    assert [head(low, pdg).rate.value for pdg in (211, 321)] == pytest.approx([0.7, 0.15])
    assert [len(own.pt[0].heads) for own in found] == [2] * len(PROBES)


def test_tracks_outside_the_bins_or_without_a_certainty() -> None:
    legs = Legs()
    legs.add(10, "k0s", 211, signal=True, selected={211: 10}, true=211, pt=0.05)
    legs.add(10, "k0s", 211, signal=True, selected={211: 10}, true=211, pt=20.0)
    legs.add(10, "k0s", 211, signal=True, selected={211: 10}, true=211, pt=1.0)
    probes, certainty = legs.probes()
    certainty[20:24] = np.nan
    low, high = part(rates(probes, certainty, cuts=CUTS, **OPTIONS), 211).pt
    assert (low.n_probes, high.n_probes) == (0, 10)
    assert head(high, 211).rate.value == pytest.approx(0.6)


def wilson(k: float, n: float, z: float) -> tuple[float, float]:
    middle = (k + z**2 / 2) / (n + z**2)
    width = z / (n + z**2) * (k * (n - k) / n + z**2 / 4) ** 0.5
    return middle - width, middle + width


@pytest.mark.parametrize(("k", "n"), [(0, 7), (3, 7), (7, 7)])
@pytest.mark.parametrize("z", [1.0, 2.0])
def test_interval_without_background_is_wilsons(k: int, n: int, z: float) -> None:
    assert score_interval(k, n, 0.0, 0.0, z) == pytest.approx(wilson(k, n, z))


def test_interval_ends_where_the_rate_implies_the_deviation() -> None:
    selected, total, z = 40.0, 60.0, 1.5
    bounds = score_interval(selected, total, 9.0, 21.0, z)
    assert bounds is not None
    for bound in bounds:
        variance = bound * (1 - bound) * total + (1 - bound) ** 2 * 9.0 + bound**2 * 21.0
        assert (selected - bound * total) ** 2 == pytest.approx(z**2 * variance)
    assert bounds[0] < selected / total < bounds[1]


def test_background_that_leaves_nothing_bounds_no_rate() -> None:
    assert score_interval(0.0, 0.0, 5.0, 5.0, 1.0) is None
    assert score_interval(1.0, 2.0, 5.0, 5.0, 1.0) is None


def test_confidence_sets_the_interval_and_not_the_error() -> None:
    legs = Legs()
    legs.add(50, "k0s", 211, signal=True, selected={211: 30}, true=211)
    narrow, wide = (
        head(part(rates(*legs.probes(), cuts=CUTS, **OPTIONS | {"confidence": c}), 211).pt[0], 211)
        for c in (0.68, 0.95)
    )
    assert (wide.rate.low, wide.rate.high) == pytest.approx(wilson(30, 50, float(norm.ppf(0.975))))
    assert narrow.error == wide.error == pytest.approx(np.diff(wilson(30, 50, 1.0))[0] / 2)


def test_pulls_of_many_samples_with_background() -> None:
    """The efficiency is unbiased, its pull has width 1 and its interval covers; the background is not small."""
    random = np.random.default_rng(3)
    probes, certainty = pseudo_experiments(random, 1000)
    edges = np.arange(1001) + 0.5
    found = rates(probes, certainty, cuts=CUTS, **OPTIONS | {"pt_edges": edges.tolist()})
    own = [head(one, 211) for one in part(found, 211).pt]
    value, error = (np.array(numbers) for numbers in zip(*((one.rate.value, one.error) for one in own), strict=True))
    pull = (value - EFFICIENCY) / error
    assert abs(pull.mean()) < 0.12
    assert pull.std() == pytest.approx(1.0, abs=0.08)
    covered = [one.rate.low <= EFFICIENCY <= one.rate.high for one in own]
    assert np.mean(covered) == pytest.approx(0.68, abs=0.05)
    plain = np.mean(certainty[probes.signal, SPECIES.index(211)] >= 0.5)
    assert plain < EFFICIENCY - 0.1


def pseudo_experiments(random: np.random.Generator, n: int) -> tuple[Probes, np.ndarray[Any, Any]]:
    """Return pions of K⁰_S and anti-Λ above background; each experiment is a bin of pT, a GeV/c wide from 0.5."""
    columns: dict[str, list[Any]] = {"experiment": [], "kind": [], "signal": [], "passed": []}
    for kind, true, background in (("k0s", 60, 20.0), ("antilambda", 30, 15.0)):
        for signal, mean, rate in (
            (True, true, EFFICIENCY),
            (True, background, OF_BACKGROUND),
            (False, background / SCALE[kind], OF_BACKGROUND),
        ):
            experiment = np.repeat(np.arange(n), random.poisson(mean, n))
            columns["experiment"].append(experiment)
            columns["kind"].append(np.full(len(experiment), KIND[kind]))
            columns["signal"].append(np.full(len(experiment), signal))
            columns["passed"].append(random.random(len(experiment)) < rate)
    experiment, kinds, signals, passed = (np.concatenate(values) for values in columns.values())
    certainty = np.zeros((len(passed), len(SPECIES)), np.float32)
    certainty[passed, SPECIES.index(211)] = 0.9
    table = pa.table({"pt": (experiment + 1).astype(np.float32)})
    return Probes(np.arange(len(passed)), np.full(len(passed), 211, np.int32), kinds, signals, table), certainty


def test_true_rates_count_those_that_are_what_they_seem() -> None:
    legs = Legs()
    legs.add(40, "k0s", 211, signal=True, selected={211: 30}, true=211)
    legs.add(10, "k0s", 211, signal=True, selected={211: 10}, true=-13)
    legs.add(10, "k0s", 211, signal=False, selected={211: 10}, true=211)
    probes, certainty = legs.probes()
    low = part(true_rates(probes, certainty, **OPTIONS), 211).pt[0]
    assert (low.n_probes, low.n_background, head(low, 211).rate.value) == (40, 0.0, 0.75)
    nothing = Probes(
        probes.row, probes.pdg, probes.kind, probes.signal, probes.columns.set_column(1, "pdg_code", pa.nulls(60))
    )
    for unlabelled in (nothing, Probes(*list(vars(nothing).values())[:4], probes.columns.select(["pt"]))):
        with pytest.raises(PidflowError, match="pdg_code"):
            true_rates(unlabelled, certainty, **OPTIONS)


def test_rate_arrays_hold_each_charge_once() -> None:
    legs = Legs()
    legs.add(50, "k0s", 211, signal=True, selected={211: 30}, true=211)
    found = rates(*legs.probes(), cuts=CUTS, **OPTIONS)
    values, errors = rate_arrays(found)
    assert values.shape == errors.shape == (6 * 2 * len(SPECIES),)
    assert np.isfinite(values).sum() == np.isfinite(errors).sum() == len(SPECIES)
    assert values[0] == 0.6


class Sample:
    """A dataset, its V0 tables and a score table as files, from two sources of equal row numbers."""

    def __init__(self, folder: Path, n: int = 4000) -> None:
        random = np.random.default_rng(5)
        self.dataset = folder / "dataset.parquet"
        self.source = np.repeat(["b.root", "a.root"], n // 2)
        self.row = np.tile(np.arange(n // 2), 2).astype(np.int32)
        self.pdg = random.choice([211, -211, 2212, -2212, 11, -11], n)
        self.split = random.choice(["test", "train"], n)
        self.pt = random.uniform(0.2, 3.0, n).astype(np.float32)
        self.certainty = random.random((n, len(SPECIES))).astype(np.float32)
        ids = {"source": self.source, "data_frame": np.full(n, 3), "row": self.row}
        own = {**ids, "pt": self.pt, "split": self.split, "pdg_code": self.pdg.astype(np.int32)}
        own["sign"] = np.array([charge_sign(code) for code in self.pdg], np.int8)
        fields = track_schema(DATASET_COLUMNS)
        arrays = [pa.array(own[f.name]).cast(f.type) if f.name in own else pa.nulls(n, f.type) for f in fields]
        pq.write_table(pa.Table.from_arrays(arrays, schema=fields), self.dataset)
        legs = random.permutation(n)[: n // 2]
        kinds = {211: "k0s", -211: "lambda", 2212: "lambda", -2212: "antilambda", 11: "gamma", -11: "gamma"}
        self.region = np.array(["signal", "sideband", "other"])[random.choice(3, n // 2, p=[0.8, 0.1, 0.1])]
        # the last ones are tracks that the selection left out
        absent = np.arange(n // 2) >= n // 2 - 50
        table = {
            "source": self.source[legs],
            "data_frame": np.where(absent, 4, 3),
            "row": self.row[legs],
            "kind": np.array([kinds[code] for code in self.pdg[legs]]),
            "region": self.region,
            "leg_pdg_code": self.pdg[legs].astype(np.int32),
        }
        self.legs = legs[~absent & (self.region != "other")]
        fields = v0_schema()
        arrays = [pa.array(table[f.name]).cast(f.type) if f.name in table else pa.nulls(n // 2, f.type) for f in fields]
        whole = pa.Table.from_arrays(arrays, schema=fields)
        self.v0s = [folder / "1.v0s.parquet", folder / "2.v0s.parquet"]
        for path, piece in zip(self.v0s, (whole.slice(0, 700), whole.slice(700)), strict=True):
            pq.write_table(piece, path)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return Sample(tmp_path_factory.mktemp("sample"))


@pytest.fixture
def in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pidflow.parquet._BATCH_ROWS", 333)


@pytest.mark.usefixtures("in_pieces")
@pytest.mark.parametrize("split", [None, "test"])
def test_probes_are_found_by_their_identity(sample: Sample, split: str | None) -> None:
    probes = read_probes(sample.dataset, sample.v0s, ["sign"], split=split)
    expected = np.sort(sample.legs if split is None else sample.legs[sample.split[sample.legs] == split])
    np.testing.assert_array_equal(probes.row, expected)
    np.testing.assert_array_equal(probes.pdg, sample.pdg[expected])
    np.testing.assert_array_equal(probes.columns["pt"].to_numpy(), sample.pt[expected])
    assert probes.columns.column_names == ["source", "data_frame", "row", "pt", "sign"]
    np.testing.assert_array_equal([KINDS[i].key for i in probes.kind[probes.pdg == 11]], "gamma")
    assert 0 < np.mean(~probes.signal) < 0.2


def test_absent_tables_and_columns_are_named(sample: Sample) -> None:
    with pytest.raises(PidflowError, match="no V0 table"):
        read_probes(sample.dataset, [], [])
    with pytest.raises(PidflowError, match="colour"):
        read_probes(sample.dataset, sample.v0s, ["colour"])
    with pytest.raises(PidflowError, match="lacks column 'kind'"):
        read_probes(sample.dataset, [sample.dataset], [])


def test_rates_are_what_a_loop_over_legs_counts(sample: Sample) -> None:
    probes = read_probes(sample.dataset, sample.v0s, [], split="test")
    for own in rates(probes, sample.certainty[probes.row], cuts=CUTS, **OPTIONS)[:6]:
        for one in own.pt:
            counts = {pdg: [0.0, 0.0] for pdg in SPECIES}
            for row, pdg, kind, signal in zip(probes.row, probes.pdg, probes.kind, probes.signal, strict=True):
                if (pdg,) == own.pdg and one.low <= sample.pt[row] < one.high:
                    weight = 1.0 if signal else -SCALE[KINDS[kind].key]
                    for i, code in enumerate(SPECIES):
                        counts[code][0] += weight * (sample.certainty[row, i] >= 0.5)
                        counts[code][1] += weight
            for code, (selected, total) in counts.items():
                assert head(one, code).rate.value == pytest.approx(selected / total)


def test_all_probes_of_a_labelled_sample_are_counted(sample: Sample) -> None:
    probes = read_probes(sample.dataset, sample.v0s, ["pdg_code"])
    found = true_rates(probes, sample.certainty[probes.row], **OPTIONS)
    assert sum(one.n_probes for own in found[:6] for one in own.pt) == sum(probes.signal)


def test_figure_is_drawn_twice_with_the_same_bytes(sample: Sample, tmp_path: Path) -> None:
    probes = read_probes(sample.dataset, sample.v0s, ["pdg_code"], split="test")
    certainty = sample.certainty[probes.row]
    measured, true = rates(probes, certainty, cuts=CUTS, **OPTIONS), true_rates(probes, certainty, **OPTIONS)
    series = {
        label: ProbeRates(run=1, model="fse", sample="data", threshold=0.5, confidence=0.68, probes=found)
        for label, found in {"data": measured, "truth of the data": true}.items()
    }
    for name in ("a.png", "b.png"):
        plot_probes(series, tmp_path / name, title="Run 1")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_figure_of_a_sample_without_probes(tmp_path: Path) -> None:
    legs = Legs()
    legs.add(1, "k0s", 211, signal=True, selected={}, true=211)
    found = rates(*legs.probes(), cuts=CUTS, **OPTIONS)
    empty = ProbeRates(run=1, model="fse", sample="data", threshold=0.5, confidence=0.68, probes=found)
    plot_probes({"data": empty}, tmp_path / "empty.svg", title="Run 1")
    assert (tmp_path / "empty.svg").stat().st_size > 0
