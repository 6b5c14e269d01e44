# Needs: the network to publish, metrics, figures. Makes: the ONNX bundle, the registry entry, the HTML report.


rule export_model:
    input:
        model=f"<results>/{{run}}/train/{PUBLISHED}",
        dataset="<results>/{run}/dataset/simulation.parquet",
    output:
        bundle=directory("<results>/{run}/export"),
    params:
        tolerance=CONFIG.publish.tolerance,
        seed=CONFIG.seed,
        code=digest("export_model.py"),
    log:
        "<logs>/{run}/export_model.log",
    benchmark:
        "<benchmarks>/{run}/export_model.jsonl"
    resources:
        mem_mb=1500,
        runtime=20,
    conda:
        "../envs/models.yaml"
    message:
        "Run {wildcards.run}: export to ONNX and check every detector pattern"
    script:
        "../workflow/scripts/export_model.py"


def made_of(*blocks):
    """Return the parts of the configuration that decide a model."""
    return {name: settings(getattr(CONFIG, name)) for name in blocks}


rule publish_model:
    input:
        bundle=rules.export_model.output.bundle,
        model=f"<results>/{{run}}/train/{PUBLISHED}",
        metrics=lambda wildcards: metrics_of(wildcards.run, [PUBLISHED], "simulation"),
        quality="<results>/{run}/dataset/simulation.quality.json",
    output:
        publication=directory("<results>/{run}/publication"),
        entry="<registry>/runs/{run}.json",
    params:
        run=lambda wildcards: run_row(wildcards).model_dump(mode="json", by_alias=True),
        registry=CONFIG.pathvars.registry,
        path=CONFIG.publish.path,
        threshold=CONFIG.evaluate.threshold,
        selection=settings(CONFIG.dataset.selection),
        config=made_of("ingest", "dataset", "features", "models", "adapt"),
        seed=CONFIG.seed,
        repository=str(workflow.basedir),
        code=digest("publish_model.py"),
    log:
        "<logs>/{run}/publish_model.log",
    benchmark:
        "<benchmarks>/{run}/publish_model.jsonl"
    resources:
        mem_mb=1000,
        runtime=20,
    conda:
        "../envs/models.yaml"
    message:
        "Run {wildcards.run}: publish to {params.registry}"
    script:
        "../workflow/scripts/publish_model.py"


rule write_configuration:
    output:
        "<results>/config.yaml",
    params:
        config=settings(CONFIG),
        code=digest("write_configuration.py"),
    localrule: True
    log:
        "<logs>/write_configuration.log",
    message:
        "Write the configuration as merged"
    script:
        "../workflow/scripts/write_configuration.py"


def report_parts(wildcards):
    """Return everything that the report shows."""
    with_data = [run for run, row in RUNS.items() if row.data]
    return [
        *collect(rules.select_features.output.figure, run=RUNS),
        *collect(rules.plot_evaluation.output.performance, run=RUNS, sample=["simulation"]),
        *collect(rules.plot_training.output.history, run=RUNS),
        *collect(rules.plot_signal.output.signal, run=RUNS, sample="simulation"),
        *collect(rules.plot_signal.output.signal, run=with_data, sample="data"),
        *(collect(rules.plot_evaluation.output.performance, run=RUNS, sample="closure") if CLOSURE else []),
        *(collect(rules.plot_closure.output.closure, run=RUNS) if CLOSURE else []),
        rules.compare_methods.output.figure,
    ]


rule report_content:
    input:
        report_parts,


rule write_report:
    input:
        report_parts,
        config="<results>/config.yaml",
        captions=multiext(
            "workflow/report/",
            "workflow.rst", "performance.rst", "roc.rst", "confusion.rst", "signal.rst", "history.rst",
            "closure.rst", "comparison.rst", "features.rst", "table.rst", "response.rst",
        ),
    output:
        html="<results>/report.html",
    params:
        snakefile=os.path.relpath(workflow.main_snakefile),
    localrule: True
    log:
        "<logs>/write_report.log",
    message:
        "Write {output.html}"
    shell:
        "{sys.executable} -m snakemake --snakefile {params.snakefile} --configfile {input.config} --nolock"
        " --report {output.html} report_content > {log} 2>&1"
