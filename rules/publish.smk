# Needs: the network to publish, metrics, figures. Makes: the ONNX bundle, the registry entry, the HTML report.


rule export_model:
    input:
        model=f"<results>/{{run}}/train/{PUBLISHED}",
        dataset="<results>/{run}/dataset/simulation.parquet",
    output:
        bundle=directory("<results>/{run}/export"),
    log:
        "<logs>/{run}/export_model.log",
        record="<results>/{run}/provenance/export_model.json",
    group:
        "publish"
    conda:
        "../envs/models.yaml"
    resources:
        mem_mb=megabytes(1500),
    params:
        kinds=kinds_of(PUBLISHED),
        tolerance=CONFIG.publish.tolerance,
        seed=CONFIG.seed,
        code=code_of("export_model.py", PUBLISHED),
    message:
        "Run {wildcards.run}: export to ONNX and check every detector pattern"
    script:
        "../workflow/scripts/export_model.py"


rule publish_model:
    input:
        unpack(adaptation_if_any),
        bundle=rules.export_model.output.bundle,
        model=f"<results>/{{run}}/train/{PUBLISHED}",
        metrics=lambda wildcards: metrics_of(wildcards.run, [PUBLISHED], "simulation"),
        quality=lambda wildcards: [
            f"<results>/{wildcards.run}/dataset/{sample}.quality.json" for sample in samples_of(wildcards)
        ],
    output:
        publication=directory("<results>/{run}/publication"),
        entry="<registry>/runs/{run}.json",
    log:
        "<logs>/{run}/publish_model.log",
        record="<results>/{run}/provenance/publish_model.json",
    group:
        "publish"
    conda:
        "../envs/models.yaml"
    params:
        run=lambda wildcards: run_row(wildcards).model_dump(mode="json", by_alias=True),
        registry=lambda wildcards, output: str(Path(output.entry).parents[1]),
        path=CONFIG.publish.path,
        samples=samples_of,
        config=lambda wildcards: published_config(CONFIG, run_row(wildcards)),
        uncommitted=CONFIG.publish.uncommitted,
        batch_mb=CONFIG.ingest.batch_mb,
        code=digest("publish_model.py"),
    message:
        "Run {wildcards.run}: publish to {params.registry}"
    script:
        "../workflow/scripts/publish_model.py"


rule write_configuration:
    output:
        config="<results>/config.yaml",
    log:
        "<logs>/write_configuration.log",
        record="<results>/provenance/write_configuration.json",
    localrule: True
    conda:
        "../envs/tables.yaml"
    params:
        config=CONFIG.model_dump(mode="json", exclude={"run"}),
        code=digest("write_configuration.py"),
    message:
        "Write the configuration as merged"
    script:
        "../workflow/scripts/write_configuration.py"


rule tabulate_resources:
    input:
        collect("<registry>/runs/{run}.json", run=RUNS),
        report_parts,
    output:
        csv="<results>/resources.csv",
        figure=report(
            f"<results>/resources.{IMAGE}",
            caption="../workflow/report/resources.rst",
            category="All runs",
            labels={"figure": "resources of jobs"},
        ),
    log:
        "<logs>/tabulate_resources.log",
        record="<results>/provenance/tabulate_resources.json",
    localrule: True
    conda:
        "../envs/figures.yaml"
    params:
        records=lambda wildcards: [f"{CONFIG.pathvars.results}/{run}/provenance" for run in RUNS],
        code=digest("tabulate_resources.py"),
    message:
        "Tabulate the resources that jobs used"
    script:
        "../workflow/scripts/tabulate_resources.py"


rule report_content:
    input:
        report_parts,
        rules.tabulate_resources.output.figure,


rule write_report:
    input:
        report_parts,
        rules.tabulate_resources.output.figure,
        config=rules.write_configuration.output.config,
        captions=collect("workflow/report/{name}.rst", name=glob_wildcards("workflow/report/{name}.rst").name),
    output:
        html="<results>/report.html",
    log:
        "<logs>/write_report.log",
        record="<results>/provenance/write_report.json",
    localrule: True
    conda:
        "../envs/report.yaml"
    params:
        snakefile=os.path.relpath(workflow.main_snakefile),
        code=digest("write_report.py"),
    message:
        "Write {output.html}"
    script:
        "../workflow/scripts/write_report.py"
