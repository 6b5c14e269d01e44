# Needs: the configuration and the run table. Makes: CONFIG, RUNS and the functions that other rule files share.

import os
import sys
from functools import cache
from pathlib import Path
from zlib import crc32

from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(Path(workflow.basedir) / "workflow" / "scripts"))

from pidflow.config import check_runs, load_runs, validate
from pidflow.ingest.remote import is_remote
from pidflow.digest import digest
from pidflow.errors import PidflowError

try:
    CONFIG = validate(config, "configuration")
    RUNS = load_runs(CONFIG.runs, CONFIG.example.folder)
    check_runs(CONFIG, RUNS)
except PidflowError as error:
    raise WorkflowError(str(error)) from None

METHODS = list(CONFIG.evaluate.methods)
ADAPTED = [] if CONFIG.adapt.method == "none" else [f"fse_{CONFIG.adapt.method}"]
NETWORKS = ["fse", *ADAPTED]
COMPARED = [*METHODS, *ADAPTED]
PUBLISHED = ADAPTED[0] if CONFIG.publish.model == "adapted" else "fse"
CLOSURE = CONFIG.closure.truth is not None
# how a file is read; policies are params of their own
INGEST = CONFIG.ingest.model_dump(mode="json", exclude={"bad_files", "bad_files_of_run", "part_mb", "fetch_retries"})
# what lies beside a remote file of simulated events
TRUTH_COMPANIONS = ["Kinematics.root"]
IMAGE = CONFIG.evaluate.image_format


pathvars:
    **CONFIG.pathvars.model_dump(),


wildcard_constraints:
    run=r"[1-9]\d*",
    sample="simulation|data|closure",
    file=r"[A-Za-z0-9_-]+",
    model="[a-z_]+",


# values for params


def settings(block):
    """Return a block of the configuration as plain values."""
    return block.model_dump(mode="json")


def settings_of(*blocks):
    """Return several blocks of the configuration by name."""
    return {name: settings(getattr(CONFIG, name)) for name in blocks}


def described(run):
    """Return what an input file must agree with."""
    return {"period": run.period, "pass": run.recopass, "bz": run.bz}


def bad_files(run):
    """Return the policy for unusable input files of a run."""
    return CONFIG.ingest.bad_files_of_run.get(int(run), CONFIG.ingest.bad_files)


def ingest_settings(run):
    """Return how a run's files were read, and its policy for unusable ones."""
    return INGEST | {"bad_files": settings(bad_files(run))}


def run_row(wildcards):
    """Return the run table's row of the job's run."""
    return RUNS[int(wildcards.run)]


def example_settings(wildcards):
    """Return what decides the content of one generated file."""
    run = run_row(wildcards)
    return {
        "run": run.run,
        "bz": run.bz,
        "sample": wildcards.kind,
        "events": CONFIG.example.events_per_file,
        "frames": CONFIG.example.frames_per_file,
        "seed": crc32(f"{CONFIG.seed}/{run.run}/{wildcards.kind}/{wildcards.number}".encode()),
        "shift": CONFIG.example.shifts.get(run.run, "none"),
    }


def megabytes(base, per_input):
    """Return the memory request: a base and a multiple of the input's size, more at each attempt."""

    def request(wildcards, input, attempt):
        return attempt * int(base + per_input * input.size_mb)

    return request


# input functions


def local_file(wildcards):
    """Return the input file of a track table: in place, or the folder that a remote one is fetched to."""
    uri = run_row(wildcards).files(wildcards.sample)[wildcards.file]
    return rules.fetch_file.output.folder if is_remote(uri) else uri


@cache
def parts(uri):
    """Return the suffixes of the parts that a large local ROOT file is read in; one, empty, for others."""
    path = Path(uri)
    # repeated rows are found within one job only
    whole = path.suffix != ".root" or CONFIG.ingest.drop_duplicates
    size = path.stat().st_size if path.is_file() and not whole else 0
    count = -(-size // (CONFIG.ingest.part_mb * 1_000_000))
    return [f".{number}of{count}" for number in range(1, count + 1)] if count > 1 else [""]


def track_tables(run, sample):
    """Return the track tables of a run's sample."""
    files = RUNS[int(run)].files(sample)
    return [
        f"<results>/{run}/ingest/{sample}/{file}{part}.parquet" for file, uri in files.items() for part in parts(uri)
    ]


def v0_tables(run, sample):
    """Return the V0 tables of a run's sample."""
    return [table.replace(".parquet", ".v0.parquet") for table in track_tables(run, sample)]


def data_if_any(wildcards):
    """Return the data's dataset as a named input, for a run that has data."""
    return {"data": f"<results>/{wildcards.run}/dataset/data.parquet"} if run_row(wildcards).data else {}


def truth_files(wildcards):
    """Return the truth of each pseudo-data file of a run, by the data file's name."""
    return {
        uri: CONFIG.closure.truth.format(folder=Path(uri).parent, stem=Path(uri).stem)
        for uri in run_row(wildcards).data
    }


def labelled_tracks(wildcards):
    """Return the dataset that carries the labels of a sample."""
    stage, name = ("closure", "tracks") if wildcards.sample == "closure" else ("dataset", wildcards.sample)
    return f"<results>/{wildcards.run}/{stage}/{name}.parquet"


def scores_of(run, model, sample):
    """Return the score table of a model; closure is scored as the data that it is."""
    return f"<results>/{run}/evaluate/scores/{model}_{'data' if sample == 'closure' else sample}.parquet"


def metrics_of(run, models, sample):
    """Return the metrics files of models."""
    return collect("<results>/{run}/evaluate/metrics/{model}_{sample}.json", run=run, model=models, sample=sample)


def all_metrics(wildcards):
    """Return the metrics of every method on every run."""
    samples = {"simulation": COMPARED, **({"closure": [*COMPARED, "oracle"]} if CLOSURE else {})}
    return [path for run in RUNS for sample, models in samples.items() for path in metrics_of(run, models, sample)]


def report_parts(wildcards):
    """Return one figure of every rule whose figures the report shows."""
    labelled = ["simulation", *(["closure"] if CLOSURE else [])]
    with_data = [run for run, row in RUNS.items() if row.data]
    return [
        *(collect(rules.tag_and_probe.output.figure, run=RUNS, sample="simulation") if CONFIG.ingest.v0 else []),
        *(collect(rules.tag_and_probe.output.figure, run=with_data, sample="data") if CONFIG.ingest.v0 else []),
        *collect(rules.plot_response.output.figure, run=RUNS),
        *collect(rules.plot_features.output.figure, run=RUNS),
        *collect(rules.plot_training.output.history, run=RUNS),
        *collect(rules.plot_evaluation.output.performance, run=RUNS, sample=labelled),
        *collect(rules.plot_signal.output.signal, run=RUNS, sample="simulation"),
        *collect(rules.plot_signal.output.signal, run=with_data, sample="data"),
        *(collect(rules.plot_closure.output.closure, run=RUNS) if CLOSURE else []),
        rules.compare_methods.output.figure,
    ]
