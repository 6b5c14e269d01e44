"""The optional studies, by dry run: their jobs, and that nothing asks for them but their names."""

from __future__ import annotations

import re

import pytest
from checkout import Checkout

STUDIES = {"train_transfer", "score_transfer", "plot_transfer", "transfer", "tune_trial", "tune_summary", "tune"}


def jobs(checkout: Checkout, *arguments: str) -> dict[str, int]:
    """Return the number of jobs that a dry run would do, by rule."""
    done = checkout.snakemake("--dry-run", *arguments)
    assert done.returncode == 0, done.stdout
    table = done.stdout.partition("Job stats:")[2].partition("total")[0]
    return {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", table, flags=re.MULTILINE)}


def configure(checkout: Checkout, text: str) -> None:
    with open(checkout.folder / "small.yaml", "a") as stream:
        stream.write(text)


def test_each_training_and_each_trial_is_a_job(checkout: Checkout) -> None:
    configure(
        checkout, "transfer: {modes: [whole, frozen], fractions: [0.1, 1.0], source: 900002}\ntune: {trials: 7}\n"
    )
    planned = jobs(checkout, "--", "transfer", "tune")
    assert {rule: planned[rule] for rule in STUDIES} == {
        # from scratch, whole, frozen; both shares
        "train_transfer": 6, "score_transfer": 1, "plot_transfer": 1, "transfer": 1,
        "tune_trial": 7, "tune_summary": 1, "tune": 1,
    }  # fmt: skip
    # the model to start from, and nothing else of a production
    assert planned["train_model"] == 1
    assert not {"adapt_sample", "train_adapted", "adapt_model", "select_model"} & planned.keys()
    assert not {"score_simulation", "export_model", "publish_model", "plot_run"} & planned.keys()


def test_the_production_asks_for_no_study_and_does_not_look_at_its_settings(checkout: Checkout) -> None:
    configure(checkout, "transfer: {model: nothing}\ntune: {space: {network.depth: [1, 2]}}\n")
    planned = jobs(checkout)
    assert "publish_model" in planned
    assert not STUDIES & planned.keys()


@pytest.mark.parametrize(
    ("target", "settings", "sentence"),
    [
        ("tune", "tune: {space: {network.depth: [1, 2]}}", r"'tune\.space' names 'network\.depth', which is no key of"),
        ("transfer", "transfer: {source: 7}", r"'transfer\.source' is 7, which is no run of the run table"),
    ],
)
def test_impossible_study_is_refused_before_any_job(
    checkout: Checkout, target: str, settings: str, sentence: str
) -> None:
    configure(checkout, settings + "\n")
    done = checkout.snakemake("--dry-run", "--", target)
    assert done.returncode != 0
    assert re.search(sentence, done.stdout), done.stdout
    assert "Traceback (most recent call last)" not in done.stdout
