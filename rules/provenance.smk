# Needs: publications, and the records that jobs leave. Makes: a published model again, to compare; an RO-Crate.


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


# no output: it runs whenever it is asked for
rule reproduce:
    log:
        f"<logs>/reproduce/{CONFIG.run}.log",
        record=f"<results>/provenance/reproduce/{CONFIG.run}.json",
    localrule: True
    conda:
        "../envs/report.yaml"
    threads: workflow.cores or 1
    params:
        run=lambda wildcards: published_run(),
        registry=CONFIG.pathvars.registry,
        folder=f"{CONFIG.pathvars.results}/reproduce",
        options=inherited_options,
        code=digest("reproduce_model.py"),
    message:
        "Run {params.run}: make the published model again"
    script:
        "../workflow/scripts/reproduce_model.py"


rule write_crate:
    input:
        publications=collect(rules.publish_model.output.publication, run=RUNS),
        report=rules.write_report.output.html,
        compare=rules.compare_methods.output.csv,
        config=rules.write_configuration.output.config,
        runs=CONFIG.runs,
        code=workflow_files(),
    output:
        crate="<results>/crate.zip",
    log:
        "<logs>/write_crate.log",
        record="<results>/provenance/write_crate.json",
    localrule: True
    conda:
        "../envs/crate.yaml"
    params:
        root=os.path.relpath(workflow.basedir),
        records=lambda wildcards: [f"{CONFIG.pathvars.results}/{name}/provenance" for name in RUNS]
        + [f"{CONFIG.pathvars.results}/provenance"],
        runs=list(RUNS),
        code=digest("write_crate.py"),
    message:
        "Write {output.crate}"
    script:
        "../workflow/scripts/write_crate.py"


rule crate:
    input:
        rules.write_crate.output.crate,
