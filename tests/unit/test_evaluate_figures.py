"""Every figure and table is drawn, also of samples with gaps, and twice with the same bytes."""

import csv
import re
from itertools import groupby, product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_evaluate_sample import EDGES, SPECIES, write_dataset, write_scores

from pidflow.evaluate.figures import style
from pidflow.evaluate.figures.confusion import plot_confusion
from pidflow.evaluate.figures.history import plot_history
from pidflow.evaluate.figures.methods import main_methods, method_style
from pidflow.evaluate.figures.performance import plot_methods_pt, plot_performance
from pidflow.evaluate.figures.reliability import plot_reliability
from pidflow.evaluate.figures.roc import plot_roc
from pidflow.evaluate.figures.signal import Selection, plot_signal
from pidflow.evaluate.figures.style import class_label, error_bars
from pidflow.evaluate.figures.summary import plot_closure, plot_comparison
from pidflow.evaluate.metrics import compute_metrics
from pidflow.evaluate.paired import share_of_ceiling
from pidflow.evaluate.schema import Estimate, read_metrics
from pidflow.evaluate.tables import SHARE, compare_methods, format_table

UNSIGNED = (11, 211, 321, 2212, 1000010020)


class Sample:
    """Dataset, scores and metrics of two methods."""

    def __init__(self, folder: Path, species: tuple[int, ...], **dataset):
        self.species = species
        self.dataset = write_dataset(folder / "dataset.parquet", n_tracks=1500, **dataset)
        self.scores = {
            "fse": write_scores(folder / "fse.parquet", self.dataset, species=species),
            "nsigma": write_scores(folder / "nsigma.parquet", self.dataset, species=species, cut=3.0),
        }
        self.metrics = {}
        for (name, scores), run in zip(self.scores.items(), (1, 2), strict=True):
            self.metrics[name] = folder / f"{name}.json"
            compute_metrics(
                self.dataset,
                {name: scores},
                {name: self.metrics[name]},
                run=run,
                sample="simulation" if run == 1 else "closure",
                species=species,
                pt_edges=EDGES,
                threshold=0.5,
                bootstrap=20,
                confidence=0.68,
                seed=1,
            )
        self.history = folder / "history.parquet"
        loss = np.exp(-np.arange(5.0))
        pq.write_table(
            pa.table({"epoch": np.arange(5), "train_loss": loss, "validation_loss": loss, "validation_auc": 1 - loss}),
            self.history,
        )


@pytest.fixture(scope="module")
def signed(tmp_path_factory) -> Sample:
    return Sample(tmp_path_factory.mktemp("signed"), SPECIES)


@pytest.fixture(scope="module")
def gaps(tmp_path_factory) -> Sample:
    """No charge, two species without true tracks, no complete track."""
    return Sample(tmp_path_factory.mktemp("gaps"), UNSIGNED, truth=(211, 321, 2212), complete=False)


FIGURES = {
    "performance": lambda s, output: plot_performance(list(s.metrics.values()), output, title="run 1"),
    "methods_pt": lambda s, output: plot_methods_pt(list(s.metrics.values()), output, published="fse", title="run 1"),
    "reliability": lambda s, output: plot_reliability(s.metrics["fse"], output, title="run 1"),
    "roc": lambda s, output: plot_roc(s.dataset, s.scores, output, species=s.species, title="run 1"),
    "confusion": lambda s, output: plot_confusion(s.metrics["fse"], output, title="run 1"),
    "signal": lambda s, output: plot_signal(
        [Selection(label, s.dataset, scores) for label, scores in s.scores.items()],
        output,
        species=s.species,
        threshold=0.5,
        title="run 1",
    ),
    "history": lambda s, output: plot_history({"fse": s.history, "adapted": s.history}, output),
    "closure": lambda s, output: plot_closure(s.metrics, output),
    "comparison": lambda s, output: plot_comparison(list(s.metrics.values()), output),
}


@pytest.mark.parametrize(("name", "suffix"), [*((name, "svg") for name in FIGURES), ("confusion", "png")])
def test_figure_has_the_same_bytes_twice(tmp_path, signed, name, suffix):
    first, second = tmp_path / f"first.{suffix}", tmp_path / f"second.{suffix}"
    FIGURES[name](signed, first)
    FIGURES[name](signed, second)
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes().startswith(b"\x89PNG" if suffix == "png" else b"<?xml")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", FIGURES)
def test_figure_of_a_sample_with_gaps_is_drawn_without_warning(tmp_path, gaps, name):
    FIGURES[name](gaps, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 5000


def test_signal_figure_needs_no_truth(tmp_path):
    dataset = write_dataset(tmp_path / "data.parquet", n_tracks=300, truth=(), split="train")
    scores = write_scores(tmp_path / "scores.parquet", dataset)
    shown = [Selection("fse", dataset, scores)]
    plot_signal(shown, tmp_path / "signal.png", species=SPECIES, threshold=0.5, title="")


def test_labels_carry_the_charge_only_where_the_sample_does():
    assert class_label(-321, SPECIES) == r"$\mathrm{K}^{-}$"
    assert class_label(321, UNSIGNED) == r"$\mathrm{K}$"
    assert class_label("other", (*SPECIES, "other")) == "other"


def test_error_bars_are_never_negative():
    values, bars = error_bars([Estimate(value=0.5, low=0.6, high=0.7), Estimate(value=None, low=None, high=None)])
    np.testing.assert_allclose(bars[:, 0], [0.0, 0.2])
    assert np.isnan(values[1]) and np.isnan(bars[:, 1]).all()


def test_table_holds_the_metrics(tmp_path, signed):
    paths = list(signed.metrics.values())
    rows = compare_methods(paths, tmp_path / "table.csv", tmp_path / "table.html")
    assert [(row.run, row.sample, row.method, row.tracks) for row in rows] == [
        (1, "simulation", "fse", "all"),
        (1, "simulation", "fse", "complete"),
        (2, "closure", "nsigma", "all"),
        (2, "closure", "nsigma", "complete"),
    ]
    metrics = read_metrics(paths[0])
    with open(tmp_path / "table.csv", encoding="utf-8") as stream:
        everything, complete, *_ = csv.DictReader(stream)
    assert float(everything["macro_f1_low"]) == metrics.macro.f1.low
    assert float(everything["purity_0321"]) == metrics.species[4].overall.purity.value
    assert float(complete["auc_2212_high"]) == metrics.species[2].patterns[3].auc.high
    assert int(complete["n_tracks"]) == metrics.complete.n_tracks

    assert everything["macro_ceiling_share"] == ""
    page = (tmp_path / "table.html").read_text(encoding="utf-8")
    assert page.count("<tr><td") == len(rows)
    assert not re.search(r'(src|href)="', page)
    heads = re.search(r'<tr class="names">(.*)</tr>', page).group(1).count("<th")
    assert page.split("<tr><td", 1)[1].split("</tr>")[0].count("<td") + 1 == heads


@pytest.fixture(scope="module")
def study(tmp_path_factory, signed) -> list[Path]:
    """Metrics of twelve methods and of the ceiling on one run and two samples."""
    folder = tmp_path_factory.mktemp("study")
    names = ["bayes", "random_forest", "gbdt", "gbdt_xgboost", "mlp_mean", "mlp_delete", "pattern_ensemble", "tabm"]
    scores = {"nsigma": signed.scores["nsigma"]}
    for i, name in enumerate([*names, "fse", "fse_dann", "mine", "ceiling"]):
        scores[name] = write_scores(folder / f"{name}.parquet", signed.dataset, width=0.3 - 0.02 * i)
    written = []
    for sample in ("simulation", "closure"):
        outputs = {
            name: folder / f"{name}_{sample}.json" for name in scores if (sample, name) != ("closure", "ceiling")
        }
        compute_metrics(
            signed.dataset,
            {name: scores[name] for name in outputs},
            outputs,
            run=1,
            sample=sample,
            species=SPECIES,
            pt_edges=EDGES,
            threshold=0.5,
            bootstrap=20,
            confidence=0.68,
            seed=1,
        )
        written += outputs.values()
    return written


@pytest.mark.parametrize(
    "draw", [plot_comparison, lambda *args: plot_methods_pt(*args, published="fse_dann", title="")]
)
def test_figures_name_every_method(tmp_path, study, draw, monkeypatch):
    # text as text, not as outlines
    monkeypatch.setitem(style._RC, "svg.fonttype", "none")
    draw([path for path in study if "simulation" in path.name or draw is plot_comparison], tmp_path / "figure.svg")
    drawn = (tmp_path / "figure.svg").read_text()
    for method in ("nsigma", "fse_dann", "pattern_ensemble", "mine", "ceiling"):
        assert f">{method}<" in drawn
    assert ("Share of ceiling" in drawn) == (draw is plot_comparison)


def test_methods_of_figures_are_told_apart():
    known = ["nsigma", "bayes", "random_forest", "gbdt", "gbdt_xgboost", "mlp_mean", "mlp_regression", "mlp_delete",
             "pattern_ensemble", "tabm", "fse", "fse_paper", "blend", "fse_dann", "oracle", "ceiling"]  # fmt: skip
    styles = [method_style(method) for method in known]
    assert len({each["color"] for each in styles}) == len({each["marker"] for each in styles}) == len(known)
    assert main_methods(["mine", *known], "mine") == ["nsigma", "gbdt", "fse", "ceiling", "mine"]
    assert main_methods(["fse_dann", "tabm", "nsigma"], "fse_dann") == ["nsigma", "fse_dann"]


def test_table_gives_the_share_of_the_ceiling_where_there_is_one(tmp_path, study):
    rows = compare_methods(study, tmp_path / "table.csv", tmp_path / "table.html")
    blocks = {key: list(group) for key, group in groupby(rows, lambda row: (row.sample, row.tracks))}
    assert list(blocks) == list(product(["closure", "simulation"], ["all", "complete"]))
    for (sample, tracks), block in blocks.items():
        shares = {row.method: row.macro[SHARE] for row in block}
        if sample == "closure":
            assert {share.value for share in shares.values()} == {None}
            continue
        assert block[-1].method == "ceiling" and block[-1].is_reference
        assert shares["ceiling"].value is None and shares["nsigma"].value is None
        areas = {row.method: row.macro["auc"].value for row in block}
        expected = (areas["tabm"] - areas["nsigma"]) / (areas["ceiling"] - areas["nsigma"])
        assert shares["tabm"].value == pytest.approx(expected)
        metrics = {entry.model: entry for entry in map(read_metrics, study) if entry.sample == "simulation"}
        three = (metrics[name] for name in ("tabm", "nsigma", "ceiling"))
        assert shares["tabm"] == share_of_ceiling(*three, complete=tracks == "complete")
    page = (tmp_path / "table.html").read_text(encoding="utf-8")
    assert page.count('<tr class="reference"><td') == 2
    assert 'data-key="ceiling"' in page.split('<tr class="reference">')[1].split("</tr>")[0]


def test_printed_table_has_a_line_per_method_and_block_and_fits_a_terminal(tmp_path, study):
    text = format_table(compare_methods(study, tmp_path / "table.csv", tmp_path / "table.html"))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 160
    # two samples, all and complete tracks, macro values and six species
    assert sum(line.startswith("fse_dann ") for line in lines) == 2 * 2 * 7
    assert text.count("share of ceiling") == 2 and text.count("macro AUC") == 4
    metrics = next(entry for entry in map(read_metrics, study) if entry.model == "tabm")
    kaon = text.split("Run 1, simulation, complete tracks")[1].split("\nK⁻ ")[1]
    line = next(line for line in kaon.splitlines() if line.startswith("tabm "))
    rates = metrics.species[4].patterns[3]
    values = [f"{getattr(rates, key).value:.4f}" for key in ("purity", "efficiency", "f1", "auc", "ece")]
    assert line.split()[1::3] == values


def test_table_of_methods_with_different_species_leaves_cells_empty(tmp_path, signed, gaps):
    paths = [signed.metrics["fse"], gaps.metrics["fse"]]
    compare_methods(paths, tmp_path / "table.csv", tmp_path / "table.html")
    with open(tmp_path / "table.csv", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["purity_11"] for row in rows if row["purity_0211"]} == {""}
