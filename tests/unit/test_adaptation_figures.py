"""Figures of the adaptation to data, and the numbers behind them."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import ks_2samp
from test_evaluate_sample import EDGES, SPECIES, write_dataset, write_scores

from pidflow.adapt.choice.sample import look
from pidflow.config.adapt import CHOSEN, UNADAPTED
from pidflow.evaluate.adapted import compared
from pidflow.evaluate.figures.choice import plot_choice, plot_efficiency, score_ranks
from pidflow.evaluate.figures.closure_gap import auc_gap, f1_gap, plot_closure_gap
from pidflow.evaluate.figures.latent import feature_shift, ks_distance, latent_space, plot_latent
from pidflow.evaluate.metrics import compute_metrics
from pidflow.evaluate.paired import share_of_ceiling
from pidflow.evaluate.schema import read_metrics
from pidflow.models import load, settings_of
from pidflow.train.fit import fit_model

FEATURES = ("tpc_signal", "p", "sign")
UNSIGNED = (211, 321, 2212)


class Study:
    """Simulation, data whose signal is higher, a weighted sample, and a network and a forest trained on the first."""

    def __init__(self, folder: Path) -> None:
        self.simulation = write_dataset(folder / "simulation.parquet", n_tracks=2400, seed=1)
        self.data = write_dataset(folder / "data.parquet", n_tracks=2000, seed=2)
        self.adapted = folder / "adapted.parquet"
        _change(self.data, self.data, tpc_signal=lambda t: t["tpc_signal"].to_numpy() * 1.1)
        weight = np.random.default_rng(3).uniform(0.5, 1.5, 2400).astype(np.float32)
        _change(
            self.simulation,
            self.adapted,
            tpc_signal=lambda t: t["tpc_signal"].to_numpy() * 1.1,
            weight=lambda t: weight,
        )
        chosen = folder / "features.json"
        chosen.write_text(json.dumps({"features": list(FEATURES)}))
        self.models = {}
        small = {"fse": {"optimisation": {"epochs": 1}}, "gbdt": {"trees": 5}}
        for kind, settings in small.items():
            self.models[kind] = folder / kind
            fit_model(
                self.simulation,
                chosen,
                folder / "response.json",
                self.models[kind],
                run=1,
                species=SPECIES,
                masks={"tof": 0.5, "trd": 0.8},
                seed=1,
                settings=settings_of(kind)(kind=kind, **settings).model_dump(mode="json"),
                threads=1,
            )

    def draw(self, output: Path, kind: str) -> None:
        plot_latent(
            {"unadapted": self.models[kind], "adapted": self.models[kind]},
            {"unadapted": self.simulation, "adapted": self.adapted},
            self.data,
            output,
            species=SPECIES,
            title="Run 1",
            seed=1,
        )


def _change(source, target, **columns):
    table = pq.read_table(source)
    for name, values in columns.items():
        array = pa.array(np.asarray(values(table), dtype=np.float32))
        place = table.schema.get_field_index(name)
        table = table.append_column(name, array) if place < 0 else table.set_column(place, name, array)
    pq.write_table(table, target)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    return Study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def metrics(tmp_path_factory) -> dict[str, Path]:
    """Closure metrics from the worst model to the best."""
    folder = tmp_path_factory.mktemp("metrics")
    dataset = write_dataset(folder / "closure.parquet", n_tracks=6000)
    widths = {"unadapted": 0.9, "same": 0.9, "dann": 0.3, "oracle": 0.1}
    scores = {name: write_scores(folder / f"{name}.parquet", dataset, width=width) for name, width in widths.items()}
    outputs = {name: folder / f"{name}.json" for name in scores}
    compute_metrics(
        dataset, scores, outputs, run=1, sample="closure", species=SPECIES, pt_edges=EDGES, threshold=0.5, bootstrap=40,
        confidence=0.68, seed=1,
    )  # fmt: skip
    return outputs


def write_choice(folder: Path, chosen: str = "calibrated") -> Path:
    """Write a choice among three candidates, one of them rejected and without a score."""
    entries = {UNADAPTED: 0.0, "dann": 0.004, "calibrated": 0.002}
    found = {
        CHOSEN: chosen,
        "reason": "calibrated is better",
        "score": "adapted_auc",
        "yardstick": "calibrated",
        "trusted": False,
        "domain_auc": {
            "simulation": {"value": 0.75, "effective_share": 0.3},
            "calibrated": {"value": 0.49, "effective_share": 0.9},
        },
        "candidates": {
            name: {
                "accepted": name != "dann",
                "reason": "loses 0.0700 macro AUC on TPC tracks of simulation, more than 0.05"
                if name == "dann"
                else "",
                "auc": {"value": 0.98 + gain, "low": 0.97, "high": 0.99},
                "gain": {"value": gain, "low": gain - 0.001, "high": gain + 0.001},
                "simulation_auc_by_pattern": {},
                "scores": {"adapted_auc": 0.98 + gain, "mixup": None if name == "dann" else 0.5},
            }
            for name, gain in entries.items()
        },
    }
    (folder / "choice.json").write_text(json.dumps(found))
    return folder / "choice.json"


def write_efficiency(folder: Path, species) -> Path:
    """Write efficiencies of species, the first of which has no track in the last bin."""
    keys = ("efficiency", "statistical", "response", "methods", "systematic", "unadapted")
    with open(folder / "efficiency.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["pdg", "pt_low", "pt_high", "tracks", *keys])
        for pdg in species:
            bins = [(0.1, 1.0), (1.0, 5.0), (5.0, 20.0)][: 2 if pdg == species[0] else 3]
            for low, high in [*bins, (0.1, 20.0)]:
                writer.writerow([pdg, low, high, 100.0, 0.9, 0.02, 0.01, 0.2, 0.2, 0.8])
    return folder / "efficiency.csv"


def test_distance_is_that_of_scipy():
    random = np.random.default_rng(0)
    first, second = random.normal(size=300).round(1), random.normal(0.3, size=200).round(1)
    count = random.integers(1, 4, 300)
    assert ks_distance(first, second) == pytest.approx(ks_2samp(first, second).statistic)
    repeated = ks_2samp(np.repeat(first, count), second).statistic
    assert ks_distance(first, second, count.astype(float)) == pytest.approx(repeated)
    gaps = np.append(first, np.nan)
    assert ks_distance(gaps, second) == ks_distance(first, second)
    assert np.isnan(ks_distance(np.full(3, np.nan), second))


def test_shift_of_features_respects_weights_and_missing_values(study):
    features = ("tpc_signal", "tpc_inner_param", "beta")
    plain, adapted = (look(path, "test", features, SPECIES, 5000) for path in (study.simulation, study.adapted))
    data = look(study.data, "test", features, None, 5000)
    before, _ = feature_shift(plain, data)
    after, missing = feature_shift(adapted, data)
    expected = ks_distance(adapted.features[:, 0], data.features[:, 0], adapted.weights)
    assert after[0] == expected < 0.5 * before[0]
    known = adapted.weights[~np.isnan(adapted.features[:, 1])].sum() / adapted.weights.sum()
    assert missing[1] == pytest.approx(known - np.mean(~np.isnan(data.features[:, 1])))
    assert np.isnan(after[2]) and missing[2] == 0.0


def test_latent_shift_is_smaller_for_the_sample_like_data(study):
    model = load(study.models["fse"])
    data = look(study.data, "test", FEATURES, None, 5000)
    plain, adapted = (look(path, "test", FEATURES, SPECIES, 5000) for path in (study.simulation, study.adapted))
    before, after, again = (latent_space(model, part, data, seed=1) for part in (plain, adapted, adapted))
    assert before is not None and after is not None and again is not None
    assert after.shift.shape == (model.trained.network.encoder.width,)
    assert after.shift.mean() < before.shift.mean()
    np.testing.assert_array_equal(after.simulation, again.simulation)
    assert after.simulation.shape == (len(adapted), 2) and after.data.shape == (len(data), 2)
    assert set(np.unique(after.species)) <= {-1, *range(len(SPECIES))}
    assert latent_space(load(study.models["gbdt"]), plain, data, seed=1) is None


@pytest.mark.parametrize("kind", ["fse", "gbdt"])
def test_latent_figure_has_the_same_bytes_twice(tmp_path, study, kind):
    for name in ("first.svg", "second.svg"):
        study.draw(tmp_path / name, kind)
    assert (tmp_path / "first.svg").read_bytes() == (tmp_path / "second.svg").read_bytes()


def test_share_of_the_gap_is_the_paired_one(metrics):
    read = {name: read_metrics(path) for name, path in metrics.items()}
    gap = auc_gap({name: read[name] for name in ("dann", "same")}, read["unadapted"], read["oracle"])
    area = {name: own.macro.auc.value for name, own in read.items()}
    room = area["oracle"] - area["unadapted"]
    assert gap.share["dann"].value == pytest.approx((area["dann"] - area["unadapted"]) / room)
    assert gap.share["dann"] == share_of_ceiling(read["dann"], read["unadapted"], read["oracle"])
    assert gap.share["same"].value == 0.0
    replicas = [np.array(read[name].macro.auc_replicas) for name in ("oracle", "unadapted")]
    assert gap.room == pytest.approx(room)
    assert gap.error == pytest.approx(np.std(replicas[0] - replicas[1], ddof=1))
    assert gap.is_significant


def test_share_of_the_gap_in_f1_claims_no_interval(metrics):
    read = {name: read_metrics(path) for name, path in metrics.items()}
    gap = f1_gap({"dann": read["dann"]}, read["unadapted"], read["oracle"])
    value = {name: own.macro.f1.value for name, own in read.items()}
    room = value["oracle"] - value["unadapted"]
    assert gap.share["dann"].value == pytest.approx((value["dann"] - value["unadapted"]) / room)
    assert gap.share["dann"].low is gap.share["dann"].high is None


def test_gap_within_five_errors_is_not_significant(metrics):
    read = {name: read_metrics(path) for name, path in metrics.items()}
    for gap in (auc_gap, f1_gap):
        assert not gap({"dann": read["dann"]}, read["unadapted"], read["same"]).is_significant
        assert not gap({"dann": read["dann"]}, read["oracle"], read["unadapted"]).is_significant


def test_scores_are_ranked_from_the_best(tmp_path):
    scores, ranks = score_ranks(json.loads(write_choice(tmp_path).read_text())["candidates"])
    assert scores == ["adapted_auc", "mixup"]
    np.testing.assert_array_equal(ranks[:, 0], [3.0, 1.0, 2.0])
    # without a score no place; equal scores share theirs
    np.testing.assert_array_equal(ranks[:, 1], [1.0, np.nan, 1.0])


def test_figures_compare_the_chosen_candidate_or_the_best(tmp_path):
    samples = {"dann": None, "calibrated": "calibrated"}
    unadapted, chosen = compared(write_choice(tmp_path), samples)
    assert (unadapted.candidate, unadapted.sample) == (UNADAPTED, None)
    assert (chosen.candidate, chosen.sample) == ("calibrated", "calibrated")
    _, best = compared(write_choice(tmp_path, chosen=UNADAPTED), samples)
    assert (best.candidate, best.label, best.sample) == ("dann", "dann (not chosen)", None)


def draw_gap(metrics, output, oracle):
    models = {"dann": metrics["dann"], "adapted": metrics["same"]}
    plot_closure_gap(models, metrics["unadapted"], metrics[oracle], output, chosen="adapted", title="Run 1")


FIGURES = {
    "choice": lambda folder, metrics, output: plot_choice(write_choice(folder), output, title="Run 1"),
    "efficiency": lambda folder, metrics, output: plot_efficiency(write_efficiency(folder, SPECIES), output, title="1"),
    "unsigned": lambda folder, metrics, output: plot_efficiency(write_efficiency(folder, UNSIGNED), output, title="1"),
    "gap": lambda folder, metrics, output: draw_gap(metrics, output, "oracle"),
    "no_gap": lambda folder, metrics, output: draw_gap(metrics, output, "same"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", FIGURES)
def test_figure_has_the_same_bytes_twice(tmp_path, metrics, name):
    for output in ("first.svg", "second.svg"):
        FIGURES[name](tmp_path, metrics, tmp_path / output)
    assert (tmp_path / "first.svg").read_bytes() == (tmp_path / "second.svg").read_bytes()
    assert (tmp_path / "first.svg").stat().st_size > 5000
