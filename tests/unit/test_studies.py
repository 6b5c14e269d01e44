"""The optional studies: transfer learning and the search for better settings."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from environments import SCRIPTS, third_party
from optuna.trial import TrialState
from sklearn.metrics import log_loss
from tracks_sample import make_dataset

from pidflow.config.models import validate
from pidflow.config.published import published_config
from pidflow.config.runs import Run
from pidflow.config.studies import source_and_targets, transfer_settings, tuned_run
from pidflow.digest import sources
from pidflow.dotted import with_values
from pidflow.errors import PidflowError
from pidflow.evaluate.figures.transfer import plot_transfer
from pidflow.evaluate.figures.tuning import plot_tuning
from pidflow.evaluate.metrics import compute_metrics
from pidflow.evaluate.schema import Estimate
from pidflow.evaluate.transfer import Point, format_points, read_points, score_transfer, write_points
from pidflow.evaluate.tuning import Trial, best_trial, read_trials, write_best, write_trials
from pidflow.files import read_json, write_json
from pidflow.train import tune
from pidflow.train.fit import fit_model
from pidflow.train.score import score_dataset

SPECIES = (211, 321, 2212)
OPTIONS: dict[str, Any] = {"run": 7, "species": SPECIES, "masks": {"tof": 0.5, "trd": 0.8}, "seed": 11, "threads": 1}
MLP = {"kind": "mlp", "hidden": [8], "optimisation": {"batch": 64, "epochs": 2, "patience": 2}}
SPACE: dict[str, Any] = {
    "optimisation.learning_rate": {"low": 1e-3, "high": 1e-1, "log": True},
    "optimisation.batch": {"low": 32, "high": 128},
    "dropout": [0.0, 0.1],
}


@pytest.fixture(autouse=True)
def library_state() -> Iterator[None]:
    """Leave the tensor library's global switches as they were."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(strict)


def dataset(path: Path, **options: Any) -> None:
    table = make_dataset(1600, **options)
    place = table.column_names.index("has_trd")
    pq.write_table(table.set_column(place, table.field(place), pa.repeat(False, len(table))), path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("studies")
    dataset(path / "simulation.parquet", seed=1)
    write_json(path / "features.json", {"features": ["tpc_signal", "beta", "p", "sign"]})
    write_json(path / "response.json", {})
    return path


def inputs(folder: Path) -> tuple[Path, Path, Path]:
    return folder / "simulation.parquet", folder / "features.json", folder / "response.json"


def config(**changes: Any) -> Any:
    return validate({"models": {"fse": {}, "gbdt": {}, "nsigma": {}, "mlp": {}}, **changes}, "here")


# the configuration


def test_studies_take_the_first_run_of_the_table_or_the_one_that_is_named() -> None:
    assert source_and_targets(config(), [3, 1, 2]) == (3, (1, 2))
    assert source_and_targets(config(transfer={"source": 1}), [3, 1, 2]) == (1, (3, 2))
    assert tuned_run(config(), [3, 1]) == 3
    assert tuned_run(config(tune={"run": 1}), [3, 1]) == 1


@pytest.mark.parametrize(
    ("changes", "runs", "sentence"),
    [
        ({}, [5], r"run 5 is the only one; add a run"),
        ({"source": 9}, [5, 6], r"'transfer\.source' is 9, which is no run of the run table"),
        ({"model": "nothing"}, [5, 6], r"'transfer\.model' is nothing, which is no entry of 'models'"),
        ({"model": "gbdt"}, [5, 6], r"'transfer\.model' is gbdt, which is no network"),
    ],
)
def test_impossible_transfer_is_refused(changes: dict[str, Any], runs: list[int], sentence: str) -> None:
    with pytest.raises(PidflowError, match=sentence):
        source_and_targets(config(transfer=changes), runs)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"run": 9}, r"'tune\.run' is 9, which is no run"),
        ({"model": "nothing"}, r"'tune\.model' is nothing, which is no entry"),
        ({"space": {"network.depth": [1]}}, r"names 'network\.depth', which is no key of 'models\.fse'"),
        ({"space": {"optimiser.batch": [1]}}, r"names 'optimiser\.batch', which is no key"),
        ({"space": {"calibration.way": [1]}}, r"lets 'calibration\.way' be 1, which 'models\.fse' refuses"),
        ({"space": {"network.dropout": [0.1, 1.0]}}, r"lets 'network\.dropout' be 1\.0, .* less than 1"),
        ({"space": {"optimisation.batch": {"low": 0, "high": 9}}}, r"lets 'optimisation\.batch' be 0, "),
        # the default space is that of fse
        ({"model": "gbdt"}, r"names 'optimisation\.learning_rate', which is no key of 'models\.gbdt'"),
    ],
)
def test_impossible_search_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(PidflowError, match=sentence):
        tuned_run(config(tune=changes), [5, 6])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"tune": {"space": {"dropout": {"low": 2, "high": 1}}}}, r"'tune\.space\.dropout\.range' .* low < high"),
        ({"tune": {"space": {"a": {"low": 0, "high": 1, "log": True}}}}, r"logarithmic range needs low > 0"),
        ({"tune": {"space": {}}}, r"'tune\.space'"),
        ({"transfer": {"fractions": [0.1, 0.1]}}, r"'fractions' holds a value twice"),
        ({"transfer": {"fractions": [1.5]}}, r"less than or equal to 1"),
    ],
)
def test_invalid_block_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(PidflowError, match=sentence):
        config(**changes)


def test_values_of_which_only_a_combination_is_wrong_may_be_searched() -> None:
    assert tuned_run(config(tune={"space": {"network.width": [32, 33], "network.heads": [2, 3]}}), [5]) == 5


def test_values_are_put_in_by_dotted_key_and_the_rest_stays() -> None:
    settings = {"a": {"b": {"c": 1, "d": 2}}, "e": None}
    assert with_values(settings, {"a.b.c": 9, "e.f": 8}) == {"a": {"b": {"c": 9, "d": 2}}, "e": {"f": 8}}
    assert settings == {"a": {"b": {"c": 1, "d": 2}}, "e": None}


def test_small_shares_are_passed_over_more_often() -> None:
    models = {
        "fse": {
            "optimisation": {"batch": 256, "epochs": 4, "patience": 3},
            "init_from": "elsewhere",
            "transfer": "frozen",
        }
    }
    merged = config(models={**models, "gbdt": {}, "nsigma": {}}, transfer={"repeats": 20})
    found = {share: transfer_settings(merged, "layerwise", share) for share in (1.0, 0.3, 0.1, 0.02, 0.001)}
    passes = {
        share: [own["optimisation"][name] for name in ("batch", "epochs", "patience")] for share, own in found.items()
    }
    assert passes == {1.0: [256, 4, 3], 0.3: [77, 4, 3], 0.1: [32, 4, 3], 0.02: [32, 24, 18], 0.001: [32, 80, 60]}
    assert found[0.1]["transfer"] == "layerwise"
    scratch = transfer_settings(merged, "scratch", 0.1)
    assert (scratch["transfer"], scratch["init_from"]) == ("whole", None)


def test_studies_are_no_part_of_a_publication() -> None:
    row = {"run": 5, "period": "LHC22a", "pass": "apass1", "system": "pp", "year": 2022, "bz": 5.0, "data": (),
           "simulation": ("a.root",), "valid_from": 1, "valid_until": 2}  # fmt: skip
    run = Run.model_construct(**row)
    changed = config(transfer={"source": 3}, tune={"trials": 2})
    assert published_config(changed, run) == published_config(config(), run)
    assert not {"transfer", "tune"} & published_config(config(), run).keys()


def test_only_trials_need_the_search_library() -> None:
    importing = {
        path
        for path in SCRIPTS.rglob("*.py")
        if any(name.split(".")[0] == "optuna" for name in third_party(path.read_text(encoding="utf-8")))
    }
    assert importing == {SCRIPTS / "pidflow/train/tune.py"}
    assert {path.name for path in SCRIPTS.glob("*.py") if importing & {*sources(path)}} == {"tune_trial.py"}


# trials


def trial(folder: Path, work: Path, number: int, **changes: Any) -> dict[str, Any]:
    options = {"tune": {"space": SPACE}, "settings": MLP, "code": "x", **OPTIONS, **changes}
    output = work / f"trial_{number}.json"
    tune.run_trial(*inputs(folder), output, number=number, **options)
    content: dict[str, Any] = read_json(output)
    return content


def studies(work: Path) -> list[optuna.Study]:
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(work / tune.JOURNAL)))
    return [optuna.load_study(study_name=name, storage=storage) for name in optuna.get_all_study_names(storage)]


def test_trial_chooses_within_the_space_and_leaves_its_result_alone(folder: Path, tmp_path: Path) -> None:
    found = trial(folder, tmp_path, 3)
    assert found["number"] == 3
    chosen = found["parameters"]
    assert chosen.keys() == SPACE.keys()
    assert 1e-3 <= chosen["optimisation.learning_rate"] <= 1e-1
    assert isinstance(chosen["optimisation.batch"], int) and 32 <= chosen["optimisation.batch"] <= 128
    assert chosen["dropout"] in (0.0, 0.1)
    assert 0 < found["value"] < 1 and found["epochs"] == 2 and found["seconds"] > 0
    assert {path.name for path in tmp_path.iterdir()} == {"trial_3.json", tune.JOURNAL}


def test_choice_follows_from_seed_and_number(folder: Path, tmp_path: Path) -> None:
    first, again = (trial(folder, tmp_path / name, 0) for name in "ab")
    assert first["parameters"] == again["parameters"] and first["value"] == again["value"]
    assert trial(folder, tmp_path / "c", 1)["parameters"] != first["parameters"]
    assert trial(folder, tmp_path / "d", 0, seed=12)["parameters"] != first["parameters"]


def test_ended_trial_is_not_repeated(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = trial(folder, tmp_path, 0)
    (tmp_path / "trial_0.json").unlink()
    monkeypatch.setattr(tune, "fit_model", lambda *_, **__: pytest.fail("trained again"))
    assert trial(folder, tmp_path, 0) == found
    assert [own.state for own in studies(tmp_path)[0].trials] == [TrialState.COMPLETE]


@pytest.mark.parametrize("when", ["fit_model", "write_json"])
def test_killed_trial_is_taken_up_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tune, when, killed)
        with pytest.raises(KeyboardInterrupt):
            trial(folder, tmp_path, 0)
    # another job does not mistake it for its own
    trial(folder, tmp_path, 1)
    states = [own.state for own in studies(tmp_path)[0].trials]
    assert states == [TrialState.RUNNING if when == "fit_model" else TrialState.COMPLETE, TrialState.COMPLETE]
    chosen = studies(tmp_path)[0].trials[0].params
    assert trial(folder, tmp_path, 0)["parameters"] == chosen
    ended = studies(tmp_path)[0].trials
    assert [own.state for own in ended] == [TrialState.COMPLETE] * 2
    assert ended[0].value == read_json(tmp_path / "trial_0.json")["value"]


def test_trial_killed_between_its_result_and_its_end(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "tell", lambda *_, **__: pytest.exit)
        found = trial(folder, tmp_path, 0)
    assert [own.state for own in studies(tmp_path)[0].trials] == [TrialState.RUNNING]
    monkeypatch.setattr(tune, "fit_model", lambda *_, **__: pytest.fail("trained again"))
    assert trial(folder, tmp_path, 0) == found
    assert [own.value for own in studies(tmp_path)[0].trials] == [found["value"]]


def test_lock_of_a_killed_job_does_not_stop_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tune.JournalFileOpenLock
    monkeypatch.setattr(tune, "JournalFileOpenLock", lambda path: lock(path, grace_period=3))
    (tmp_path / f"{tune.JOURNAL}.lock").touch()
    tune.open_study(tmp_path, "a", "validation_loss", 0).ask()
    assert len(studies(tmp_path)[0].trials) == 1


@pytest.mark.parametrize(
    "changes", [{"code": "y"}, {"settings": MLP | {"hidden": [9]}}, {"tune": {"space": SPACE | {"dropout": [0.0]}}}]
)
def test_trials_of_something_else_are_another_study(folder: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    trial(folder, tmp_path, 0)
    trial(folder, tmp_path, 0, **changes)
    assert [len(study.trials) for study in studies(tmp_path)] == [1, 1]


def test_trials_on_other_data_are_another_study(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    dataset(other / "simulation.parquet", seed=2)
    work = tmp_path / "work"
    trial(folder, work, 0)
    trial(other, work, 0)
    assert [len(study.trials) for study in studies(work)] == [1, 1]


def test_settings_that_do_not_go_together_end_a_trial_not_the_search(folder: Path, tmp_path: Path) -> None:
    space = {"network.width": [9], "network.heads": [2]}
    fse = config().models["fse"].model_dump(mode="json")
    found = trial(folder, tmp_path, 0, tune={"space": space}, settings=fse)
    assert found["value"] is None and found["epochs"] is None
    assert [own.state for own in studies(tmp_path)[0].trials] == [TrialState.FAIL]


def test_jobs_at_the_same_time_share_a_study(tmp_path: Path) -> None:
    space = tune.distributions(config().tune)

    def one(number: int) -> tuple[int, float]:
        study = tune.open_study(tmp_path, "same", "validation_loss", number)
        asked = study.ask(space)
        study.tell(asked.number, float(number))
        return asked.number, float(number)

    with ThreadPoolExecutor(8) as pool:
        found = dict(pool.map(one, range(16)))
    (study,) = studies(tmp_path)
    assert {own.number: own.value for own in study.trials} == found
    assert sorted(found) == list(range(16))


def test_loss_is_the_cross_entropy() -> None:
    rng = np.random.default_rng(0)
    certainty = rng.uniform(0.01, 0.99, (200, 3)).astype(np.float32)
    labels = (rng.random((200, 3)) < 0.4).astype(np.float32)
    expected = np.mean([log_loss(labels[:, i], certainty[:, i].astype(float)) for i in range(3)])
    assert tune.cross_entropy(certainty, labels) == pytest.approx(expected, rel=1e-6)
    assert np.isfinite(tune.cross_entropy(np.zeros((2, 1), np.float32), np.ones((2, 1), np.float32)))


@pytest.mark.parametrize("objective", ["validation_loss", "validation_auc"])
def test_search_of_trees(folder: Path, tmp_path: Path, objective: str) -> None:
    trees = {"kind": "gbdt", "trees": 20, "leaves": 4}
    found = trial(folder, tmp_path, 0, tune={"space": {"learning_rate": [0.1]}, "objective": objective}, settings=trees)
    assert found["value"] > 0.9 if objective == "validation_auc" else found["value"] < 0.2
    assert studies(tmp_path)[0].direction.name == ("MAXIMIZE" if objective == "validation_auc" else "MINIMIZE")


# what a search found


def trials(values: list[float | None]) -> list[Trial]:
    chosen = [
        {"optimisation.learning_rate": 10.0 ** -(1 + n % 3), "network.dropout": [0.0, 0.1][n % 2]} for n in range(99)
    ]
    return [Trial(n, chosen[n], value, 1.5, n + 1) for n, value in enumerate(values)]


def test_best_trial_is_the_first_of_the_best() -> None:
    found = trials([None, 0.3, 0.2, 0.2, 0.4])
    assert best_trial(found, "validation_loss").number == 2
    assert best_trial(found, "validation_auc").number == 4
    with pytest.raises(PidflowError, match="none of the 2 trials"):
        best_trial(trials([None, None]), "validation_loss")


def test_best_settings_are_a_configuration(tmp_path: Path) -> None:
    write_best(trials([0.1, 0.3])[1], "fse", tmp_path / "best.yaml", remark="run 7")
    text = (tmp_path / "best.yaml").read_text()
    assert text.startswith("# run 7\n")
    changed = config(models={"nsigma": {}, "gbdt": {}, **yaml.safe_load(text)["models"]})
    assert changed.models["fse"].optimisation.learning_rate == pytest.approx(1e-2)
    assert changed.models["fse"].network.dropout == 0.1
    assert changed.models["fse"].optimisation.epochs == config().models["fse"].optimisation.epochs


def test_table_of_trials(tmp_path: Path) -> None:
    for found in reversed(trials([0.1, None])):
        write_json(tmp_path / f"trial_{found.number}.json", vars(found))
    found = read_trials(sorted(tmp_path.glob("*.json"), reverse=True))
    write_trials(found, "validation_loss", tmp_path / "trials.csv")
    rows = list(csv.DictReader((tmp_path / "trials.csv").read_text().splitlines()))
    assert [row["trial"] for row in rows] == ["0", "1"]
    assert [row["validation_loss"] for row in rows] == ["0.1", ""]
    assert rows[1]["network.dropout"] == "0.1"


@pytest.mark.parametrize(
    ("objective", "values"),
    [("validation_loss", [0.3, None, 0.2, 0.25, 9.0, 0.21, 0.2]), ("validation_auc", [0.1])],
)
def test_figure_of_a_search(tmp_path: Path, objective: str, values: list[float | None]) -> None:
    space = {"optimisation.learning_rate": {"low": 1e-4, "high": 1.0, "log": True}, "network.dropout": [0.0, 0.1]}
    images = [tmp_path / "first.png", tmp_path / "second.png"]
    for image in images:
        plot_tuning(trials(values), image, objective=objective, space=space, title="Settings")
    assert images[0].read_bytes() == images[1].read_bytes()


# transfer learning


@pytest.fixture(scope="module")
def trained(folder: Path) -> dict[tuple[str, float], Path]:
    """A model of another run, and trainings on a tenth and on all of the run's simulation."""
    dataset(folder / "elsewhere.parquet", seed=5, shift=4.0)
    settings = MLP | {"optimisation": {"batch": 32, "epochs": 6, "patience": 6, "learning_rate": 0.01}}
    options = OPTIONS | {"settings": settings}
    source = folder / "source"
    fit_model(folder / "elsewhere.parquet", *inputs(folder)[1:], source, **(options | {"run": 6}))
    models = {}
    for start, share in (("scratch", 0.1), ("scratch", 1.0), ("whole", 0.1), ("whole", 1.0)):
        models[start, share] = folder / f"{start}_{share:g}"
        given = None if start == "scratch" else source
        fit_model(*inputs(folder), models[start, share], **options, start=given, fraction=share)
    return models


def test_points_of_a_run(folder: Path, trained: dict[tuple[str, float], Path], tmp_path: Path) -> None:
    evaluation = {"pt_edges": (0.3, 1.0, 3.0), "threshold": 0.5, "bootstrap": 20, "confidence": 0.68, "seed": 1}
    records = {key: tmp_path / f"{n}.json" for n, key in enumerate(trained)}
    write_json(records["scratch", 0.1], {"resources": {"used": {"wall_s": 4.5}}})
    simulation, source = inputs(folder)[0], folder / "source"
    score_transfer(simulation, source, trained, records, tmp_path / "points.json", run=7, threads=1, **evaluation)
    points = {(point.start, point.fraction): point for point in read_points([tmp_path / "points.json"])}
    assert points.keys() == {("untrained", 0.0), *trained}
    splits = pq.read_table(simulation, columns=["split"])["split"].to_pylist()
    assert points["scratch", 1.0].tracks == points["whole", 1.0].tracks == splits.count("train")
    assert 0.05 < points["whole", 0.1].tracks / splits.count("train") < 0.15
    assert points["scratch", 0.1].seconds == 4.5 and points["whole", 1.0].seconds is None
    assert (points["untrained", 0.0].tracks, points["untrained", 0.0].epochs) == (0, 0)
    assert points["scratch", 1.0].epochs == 6
    # as the whole dataset is scored and measured
    score_dataset(trained["whole", 0.1], simulation, tmp_path / "scores.parquet", threads=1)
    metrics = compute_metrics(
        simulation, {"m": tmp_path / "scores.parquet"}, {"m": tmp_path / "m.json"}, run=7, sample="s", species=SPECIES,
        **evaluation,
    )["m"]  # fmt: skip
    assert points["whole", 0.1].f1 == metrics.macro.f1 and points["whole", 0.1].auc == metrics.macro.auc
    # a start from the other run is worth more than a tenth of the simulation
    gain = {start: points[start, 0.1].auc.value for start in ("scratch", "whole")}
    assert gain["whole"] is not None and gain["scratch"] is not None and gain["whole"] > gain["scratch"] + 0.01


def point(run: int, start: str, fraction: float, value: float | None) -> Point:
    estimate = Estimate(value=value, low=None if value is None else value - 0.01, high=None if value is None else 1.0)
    return Point(run, start, fraction, 100, 3, None if run == 1 else 2.5, estimate, estimate)


def test_table_and_figure_of_points(tmp_path: Path) -> None:
    points = [
        point(run, start, share, None if (run, share) == (1, 0.1) else 0.9 + 0.05 * share)
        for run in (1, 2)
        for start, share in (("untrained", 0.0), ("scratch", 0.1), ("scratch", 1.0), ("frozen", 0.1), ("frozen", 1.0))
    ]
    write_points(points, tmp_path / "points.csv")
    rows = list(csv.DictReader((tmp_path / "points.csv").read_text().splitlines()))
    assert len(rows) == len(points)
    assert rows[2] | {"f1": "", "auc": ""} == {
        "run": "1", "start": "scratch", "fraction": "1.0", "tracks": "100", "epochs": "3", "seconds": "",
        "f1": "", "f1_low": "0.9400000000000001", "f1_high": "1.0", "auc": "", "auc_low": "0.9400000000000001",
        "auc_high": "1.0",
    }  # fmt: skip
    assert rows[1]["f1"] == "" and rows[9]["seconds"] == "2.5"
    assert "10 %" in format_points(points)
    images = [tmp_path / "first.svg", tmp_path / "second.svg"]
    for image in images:
        plot_transfer(points, image, source=3, title="Transfer learning of fse")
    assert images[0].read_bytes() == images[1].read_bytes()
