"""What runs again after a change, by dry run: no more and no less than the change touches."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkout import Checkout

BEFORE_ADAPTATION = {"train_model", "train_oracle", "ingest_files", "build_dataset", "select_features"}


@contextlib.contextmanager
def changed(path: Path, addition: bytes) -> Iterator[None]:
    """Append to a file for the length of the block; then restore content and time stamp."""
    content, status = path.read_bytes(), path.stat()
    path.write_bytes(content + addition)
    try:
        yield
    finally:
        path.write_bytes(content)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_second_call_does_nothing_and_says_so(production: Checkout) -> None:
    done = production.snakemake()
    assert done.returncode == 0
    assert "Nothing to be done" in done.stdout


def test_a_changed_input_reruns_its_run_only(production: Checkout) -> None:
    with changed(production.folder / "resources/example/900002/simulation_001.root", b"\0" * 2_000_000):
        plan = production.planned()
    assert {"ingest_files", "train_model", "publish_model", "train_oracle"} <= plan.rules
    assert {"adapt_sample", "train_adapted", "adapt_model", "select_model"} <= plan.rules
    assert plan.runs == {"900002"}


def test_a_plot_option_reruns_plots_only(production: Checkout) -> None:
    plan = production.planned(
        "--config", "evaluate={image_format: svg, bootstrap: 20, methods: [nsigma, bayes, gbdt, mlp_mean, fse, blend]}"
    )
    plots = {"plot_run", "plot_adaptation", "plot_closure", "compare_methods", "tabulate_resources"}
    # the report shows them, the merged configuration changed
    assert plan.rules == plots | {"write_report", "write_configuration", "all"}


def test_an_edited_module_reruns_the_rules_that_import_it(production: Checkout) -> None:
    package = production.folder / "workflow/scripts/pidflow"
    with changed(package / "evaluate/figures/roc.py", b"\n"):
        assert production.planned().rules == {"plot_run", "plot_closure", "tabulate_resources", "write_report", "all"}
    with changed(package / "adapt/steps/dann.py", b"\n"):
        rules = production.planned().rules
    assert {"adapt_model", "select_model", "score_simulation", "export_model", "publish_model"} <= rules
    assert "plot_adaptation" in rules
    assert not {"adapt_sample", "train_adapted", *BEFORE_ADAPTATION} & rules
    with changed(package / "adapt/choice/select.py", b"\n"):
        rules = production.planned().rules
    assert {"select_model", "score_simulation", "export_model", "publish_model", "plot_adaptation"} <= rules
    assert not {"adapt_sample", "adapt_model", "train_adapted", *BEFORE_ADAPTATION} & rules


def test_an_edited_step_reruns_the_candidates_that_take_it(production: Checkout) -> None:
    package = production.folder / "workflow/scripts/pidflow"
    trained = {
        "dann": {"train further on simulation and data, dann"},
        "self_training": {"train further on simulation and data, self_trained"},
        "calibrate_response": {
            "adapt the simulated sample to data, calibrated",
            "train on the sample adapted to data, calibrated",
            "train further on simulation and data, self_trained",
        },
        "mmd": set(),
    }
    for step, expected in trained.items():
        with changed(package / f"adapt/steps/{step}.py", b"\n"):
            done = production.snakemake("--dry-run")
        found = set(re.findall(r"Run \d+: ((?:adapt|train) .*)$", done.stdout, flags=re.MULTILINE))
        assert found == expected, step
        assert ("choose the adaptation" in done.stdout) == bool(expected)


def test_the_setting_of_a_step_reruns_the_candidates_that_take_it(production: Checkout) -> None:
    settings = "adapt={steps: {dann: {epochs: 3}, self_training: {epochs: 2}}}"
    done = production.snakemake("--dry-run", "--config", settings)
    found = set(re.findall(r"Run \d+: ((?:adapt|train) .*)$", done.stdout, flags=re.MULTILINE))
    assert found == {"train further on simulation and data, dann"}


def test_an_edited_model_reruns_itself_and_what_is_made_of_it(production: Checkout) -> None:
    package = production.folder / "workflow/scripts/pidflow"
    with changed(package / "models/gbdt.py", b"\n"):
        planned = production.snakemake("--dry-run").stdout
    assert set(re.findall(r"Run \d+: train (\w+)", planned)) == {"gbdt", "blend"}
    assert "export to ONNX" not in planned


@pytest.mark.parametrize("profile", ["slurm", "profiles/htcondor"])
def test_a_cluster_profile_plans_the_same_production(checkout: Checkout, profile: str) -> None:
    local, cluster = checkout.planned(), checkout.planned("--profile", profile)
    assert cluster == local
    assert {"train_model", "adapt_sample", "train_adapted", "adapt_model", "select_model"} <= cluster.rules
    assert cluster.runs == {"900001", "900002"}
