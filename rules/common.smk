# Needs: the configuration and the run table. Makes: CONFIG, RUNS and what the other rule files share.

import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

SCRIPTS = Path(workflow.basedir) / "workflow" / "scripts"
sys.path.insert(0, str(SCRIPTS))

from pidflow.config import check_runs, load_runs, validate
from pidflow.digest import digest
from pidflow.errors import PidflowError

try:
    CONFIG = validate(config, "configuration")
    RUNS = load_runs(CONFIG.runs, CONFIG.example.folder)
    check_runs(CONFIG, RUNS)
except PidflowError as error:
    raise WorkflowError(str(error)) from None


pathvars:
    **CONFIG.pathvars.model_dump(),


METHODS = list(CONFIG.evaluate.methods)
ADAPTED = None if CONFIG.adapt.method == "none" else f"fse_{CONFIG.adapt.method}"
COMPARED = [*METHODS, *([ADAPTED] if ADAPTED else [])]
CLOSURE = CONFIG.closure.truth is not None
PUBLISHED = ADAPTED if CONFIG.publish.model == "adapted" else "fse"
IMAGE = CONFIG.evaluate.image_format


wildcard_constraints:
    run=r"[1-9]\d*",
    sample="simulation|data|closure",
    file=r"[A-Za-z0-9_-]+",
    model="[a-z_]+",


def settings(block):
    """Return a block of the configuration as plain values, fit for params."""
    return block.model_dump(mode="json")


def run_row(wildcards):
    return RUNS[int(wildcards.run)]


def track_tables(sample):
    """Return the input function that lists a sample's track tables (those of data for closure)."""

    def tables(wildcards):
        of = sample or wildcards.sample
        keys = run_row(wildcards).files(of)
        return collect("<results>/{run}/ingest/{sample}/{file}.parquet", run=wildcards.run, sample=of, file=keys)

    return tables


def megabytes(base, per_input):
    """Return the memory request: a base and a multiple of the input, more at each attempt."""

    def request(wildcards, input, attempt):
        return attempt * int(base + per_input * input.size_mb)

    return request
