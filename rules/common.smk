# Needs: the configuration and the run table. Makes: CONFIG, RUNS and the functions that other rule files share.

import os
import sys
from functools import cache
from pathlib import Path
from zlib import crc32

from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(Path(workflow.basedir) / "workflow" / "scripts"))

from pidflow.config import batches, check_runs, file_key, load_runs, validate
from pidflow.config.adapt import CHOSEN
from pidflow.config.published import published_config
from pidflow.config.studies import SCRATCH, source_and_targets, transfer_settings, tuned_run
from pidflow.ingest.remote import is_remote
from pidflow.digest import digest
from pidflow.errors import PidflowError
from pidflow.files import size_mb
from pidflow.models import model_of

try:
    CONFIG = validate(config, "configuration")
    RUNS = load_runs(CONFIG.runs, CONFIG.example.folder)
    if workflow.is_main_process:
        check_runs(CONFIG, RUNS)
except PidflowError as error:
    raise WorkflowError(str(error)) from None

COMPARED = list(CONFIG.compared)
PUBLISHED = CONFIG.published
# the model that is adapted, and its candidates that begin with their own sample or with weights
SOURCE = CONFIG.models[CONFIG.adapt.model]
SAMPLES = [name for name, steps in CONFIG.adapt.used.items() if CONFIG.adapt.changes_sample(steps[-1])]
TRAINED = [name for name in CONFIG.adapt.used if name not in SAMPLES]
# without adaptation and with it
NETWORKS = [CONFIG.adapt.model, CONFIG.adapted] if CONFIG.adapted else [PUBLISHED]
# those with a learning curve
CURVES = NETWORKS if model_of(CONFIG.models[NETWORKS[0]].kind).is_network else []
CLOSURE = CONFIG.closure.truth is not None
# how a file is read; policies are params of their own
INGEST = CONFIG.ingest.model_dump(mode="json", exclude={"bad_files", "bad_files_of_run", "batch_mb", "fetch_retries"})
# what lies beside a remote file of simulated events
TRUTH_COMPANIONS = ["Kinematics.root"]
IMAGE = CONFIG.evaluate.image_format


if CONFIG.container:

    container: CONFIG.container


pathvars:
    **CONFIG.pathvars.model_dump(),


wildcard_constraints:
    run=r"[1-9]\d*",
    sample="simulation|data|closure",
    file=r"[A-Za-z0-9_-]+",
    batch=r"[A-Za-z0-9_-]+",
    model="[a-z][a-z0-9_]*",


# values for params


def settings(block):
    """Return a block of the configuration as plain values."""
    return block.model_dump(mode="json")


def described(run):
    """Return what an input file must agree with."""
    return {"period": run.period, "pass": run.recopass, "bz": run.bz}


def bad_files(run):
    """Return the policy for unusable input files of a run."""
    return CONFIG.ingest.bad_files_of_run.get(int(run), CONFIG.ingest.bad_files)


def kinds_of(*models):
    """Return the kinds of models and of what they are made of, sorted; an adapted model is of its source's kind."""
    adapted = {CONFIG.adapted, *CONFIG.candidates}
    names = [CONFIG.adapt.model if model in adapted else model for model in models]
    return sorted({CONFIG.models[name].kind for name in CONFIG.with_needed(*names)})


def step_kinds(candidate):
    """Return the module of a candidate's last step, as `digest` takes it."""
    return [f"adapt.steps.{CONFIG.adapt.last(candidate).kind}"]


def any_of(names):
    """Return a regular expression for one of some names, or for nothing."""
    return "|".join(names) or "(?!)"


def code_of(script, *models):
    """Return the digest of the code of a script that fits or applies models."""
    return digest(" ".join([script, *kinds_of(*models)]))


def run_row(wildcards):
    """Return the run table's row of the job's run."""
    return RUNS[int(wildcards.run)]


def samples_of(wildcards):
    """Return the samples that the job's run has."""
    return ["simulation", *(["data"] if run_row(wildcards).data else [])]


def v0_samples_of(wildcards):
    """Return the samples of the job's run in which V0 candidates are searched."""
    return samples_of(wildcards) if CONFIG.ingest.v0 else []


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


def request(base, share, of):
    """Return a resource function: a base and a share of the size of an input, more at each attempt."""
    if not share:
        return lambda wildcards, attempt: attempt * base
    # Snakemake's input.size_mb starts an event loop per call, and asks for inputs that a group has yet to make
    return lambda wildcards, input, attempt: attempt * int(base + share * size_mb(getattr(input, of)))


def megabytes(base, per_mb=0, of="tracks"):
    """Return the memory request, by the size of the input named `of`."""
    return request(base, per_mb, of)


def minutes(base, per_gb=0, of="tracks"):
    """Return the time request, by the size of the input named `of`."""
    return request(base, per_gb / 1000, of)


def published_run():
    """Return the run that is to be made again."""
    if CONFIG.run is None:
        raise WorkflowError("no run is given: snakemake reproduce --config run=<run number>")
    return CONFIG.run


def inherited_options(wildcards):
    """Return the options of this call that a call of Snakemake inside a job needs too."""
    methods = [str(method) for method in workflow.deployment_settings.deployment_method]
    prefix = os.path.abspath(workflow.deployment_settings.conda_prefix or ".snakemake/conda")
    return ["--software-deployment-method", *methods, "--conda-prefix", prefix, "--"] if methods else []


def workflow_files():
    """Return the files of the workflow itself."""
    base = Path(workflow.basedir)
    patterns = ["Snakefile", "rules/*.smk", "envs/*.yaml", "workflow/report/*", "workflow/scripts/**/*.py"]
    return [os.path.relpath(path) for pattern in patterns for path in sorted(base.glob(pattern))]


# input functions


@cache
def batches_of(run, sample):
    """Return the batches in which a run's files are read, by key."""
    settings = {"megabytes": CONFIG.ingest.batch_mb, "generated": CONFIG.example.folder}
    # repeated rows are found within one job only
    return batches(RUNS[int(run)].files(sample), **settings, whole=CONFIG.ingest.drop_duplicates)


def batch_of(wildcards):
    """Return the batch that the job reads."""
    return batches_of(wildcards.run, wildcards.sample)[wildcards.batch]


def local_files(wildcards):
    """Return a batch's input files: in place, or the folder that a remote one is fetched to."""
    fetched = "<results>/{run}/fetched/{sample}/{file}"
    return [
        fetched.format(run=wildcards.run, sample=wildcards.sample, file=file_key(uri)) if is_remote(uri) else uri
        for uri in batch_of(wildcards).uris
    ]


def track_tables(run, sample):
    """Return the folders that hold the track tables and V0 candidates of a run's sample."""
    return [
        f"<results>/{run}/ingest/{sample}/{batch.key}{suffix}"
        for batch in batches_of(run, sample).values()
        for suffix in batch.suffixes
    ]


def tracks_of(sample):
    """Return the input function that gives the track tables of one sample of the job's run."""
    return lambda wildcards: track_tables(wildcards.run, sample)


def data_if_any(wildcards):
    """Return the data's dataset as a named input, for a run that has data."""
    return {"data": f"<results>/{wildcards.run}/dataset/data.parquet"} if run_row(wildcards).data else {}


def needed_models(wildcards):
    """Return the model directories that a model is made of."""
    return [f"<results>/{wildcards.run}/train/{name}" for name in CONFIG.models[wildcards.model].needs]


def start_of_model(model):
    """Return the model directory whose weights a network starts from, if any."""
    source = getattr(CONFIG.models[model], "init_from", None)
    if source is None:
        return []
    directory = Path(source, "model.json").is_file() or Path(source).parent.name == "train"
    return source if directory else f"<results>/start/{model}"


def start_of(wildcards):
    """Return the model directory that the job's network starts from, if any."""
    return start_of_model(wildcards.model)


def sample_of(run, candidate):
    """Return the simulated dataset that a candidate is trained on; None: the plain one."""
    sample = None if candidate is None else CONFIG.adapt.sample_of(candidate)
    folder = "dataset" if sample is None else f"adapt/{sample}"
    return f"<results>/{run}/{folder}/simulation.parquet"


def sample_before(wildcards):
    """Return the simulated dataset that a candidate's last step changes."""
    return sample_of(wildcards.run, CONFIG.adapt.before(wildcards.candidate))


def probes_before(wildcards):
    """Return the probes of that sample."""
    before = CONFIG.adapt.before(wildcards.candidate)
    place = "dataset/simulation.probes" if before is None else f"adapt/{before}/probes"
    return f"<results>/{wildcards.run}/{place}.parquet"


def model_before(wildcards):
    """Return the model directory that a candidate's last step starts from."""
    before = CONFIG.adapt.before(wildcards.candidate)
    name = CONFIG.adapt.model if before is None else f"{CONFIG.adapt.model}_{before}"
    return f"<results>/{wildcards.run}/train/{name}"


def v0s_if_any(wildcards):
    """Return V0 candidates and the datasets of their legs as named inputs, if they are searched."""
    run, parts = wildcards.run, {}
    for sample in v0_samples_of(wildcards):
        parts[f"v0s_{sample}"] = track_tables(run, sample)
        parts[f"probes_{sample}"] = f"<results>/{run}/dataset/{sample}.probes.parquet"
    if parts:
        parts["adapted_probes"] = [f"<results>/{run}/adapt/{candidate}/probes.parquet" for candidate in SAMPLES]
    return parts


def adaptation_if_any(wildcards):
    """Return what is known of the adaptation as named inputs, if the adapted model is published."""
    if PUBLISHED != CONFIG.adapted:
        return {}
    folder = f"<results>/{wildcards.run}/adapt"
    return {"choice": f"{folder}/choice.json", "efficiency": f"{folder}/efficiency.csv"}


def steps_of(candidate):
    """Return the settings of all steps of a candidate."""
    return [settings(CONFIG.adapt.steps[step]) for step in CONFIG.adapt.chains[candidate]]


def truth_files(wildcards):
    """Return the truth of each pseudo-data file of a run, by the data file's name."""
    return {
        uri: CONFIG.closure.truth.format(folder=Path(uri).parent, stem=Path(uri).stem)
        for uri in run_row(wildcards).data
    }


def scores_of(run, model, sample):
    """Return the score table of a model."""
    return f"<results>/{run}/evaluate/scores/{model}_{sample}.parquet"


def metrics_of(run, models, sample):
    """Return the metrics files of models."""
    return [f"<results>/{run}/evaluate/metrics/{model}_{sample}.json" for model in models]


def has_ceiling(run):
    """Return whether the best that is possible is known for a run: its simulation is the example's."""
    return CONFIG.evaluate.ceiling and all(CONFIG.example.makes(uri) for uri in RUNS[int(run)].simulation)


def simulation_models(run):
    """Return the models whose metrics on simulation are known, the best that is possible among them."""
    return [*COMPARED, *(["ceiling"] if has_ceiling(run) else [])]


def all_metrics(wildcards):
    """Return the metrics of every method on every sample of every run."""
    others = {"closure": [*COMPARED, "oracle"]} if CLOSURE else {}
    others |= {"equalised": COMPARED} if CONFIG.evaluate.equalise else {}
    return [
        path
        for run in RUNS
        for sample, models in {"simulation": simulation_models(run), **others}.items()
        for path in metrics_of(run, models, sample)
    ]


def report_parts(wildcards):
    """Return one figure of every rule whose figures the report shows."""
    return [
        *collect(rules.plot_run.output.performance, run=RUNS),
        *(collect(rules.plot_adaptation.output.choice, run=RUNS) if CONFIG.adapted else []),
        *(collect(rules.plot_closure.output.closure, run=RUNS) if CLOSURE else []),
        rules.compare_methods.output.figure,
    ]


@cache
def transfer_runs():
    """Return the run whose model the transfer study starts from, and the runs that it trains."""
    return source_and_targets(CONFIG, RUNS)


def transfer_source(wildcards):
    """Return the model directory that the transfer study starts from."""
    return f"<results>/{transfer_runs()[0]}/train/{wildcards.model}"


def transfer_trainings():
    """Return start and share of each training that the transfer study makes of a run."""
    study = CONFIG.transfer
    return [(start, f"{share:g}") for start in (SCRATCH, *study.modes) for share in sorted(study.fractions)]


def transfer_paths(wildcards, pattern):
    """Return a path for each training that the transfer study makes of a run."""
    return [
        pattern.format(run=wildcards.run, model=wildcards.model, start=start, fraction=share)
        for start, share in transfer_trainings()
    ]


def tuned_settings(wildcards):
    """Return the best settings that the search shall find."""
    return f"<results>/{tuned_run(CONFIG, RUNS)}/tune/{CONFIG.tune.model}.yaml"
