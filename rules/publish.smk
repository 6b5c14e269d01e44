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
    benchmark:
        "<benchmarks>/{run}/export_model.jsonl"
    conda:
        "../envs/models.yaml"
    resources:
        mem_mb=1500,
        runtime=20,
    params:
        tolerance=CONFIG.publish.tolerance,
        seed=CONFIG.seed,
        code=digest("export_model.py"),
    message:
        "Run {wildcards.run}: export to ONNX and check every detector pattern"
    script:
        "../workflow/scripts/export_model.py"


rule publish_model:
    input:
        bundle=rules.export_model.output.bundle,
        model=f"<results>/{{run}}/train/{PUBLISHED}",
        metrics=lambda wildcards: metrics_of(wildcards.run, [PUBLISHED], "simulation"),
        quality="<results>/{run}/dataset/simulation.quality.json",
    output:
        publication=directory("<results>/{run}/publication"),
        entry="<registry>/runs/{run}.json",
    log:
        "<logs>/{run}/publish_model.log",
        record="<results>/{run}/provenance/publish_model.json",
    benchmark:
        "<benchmarks>/{run}/publish_model.jsonl"
    conda:
        "../envs/models.yaml"
    resources:
        mem_mb=1000,
        runtime=20,
    params:
        run=lambda wildcards: run_row(wildcards).model_dump(mode="json", by_alias=True),
        registry=lambda wildcards, output: str(Path(output.entry).parents[1]),
        path=CONFIG.publish.path,
        threshold=CONFIG.evaluate.threshold,
        selection=settings(CONFIG.dataset.selection),
        config=lambda wildcards: {"ingest": ingest_settings(wildcards.run)}
        | settings_of("dataset", "features", "models", "adapt"),
        seed=CONFIG.seed,
        repository=str(workflow.basedir),
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
        config=settings(CONFIG),
        code=digest("write_configuration.py"),
    message:
        "Write the configuration as merged"
    script:
        "../workflow/scripts/write_configuration.py"


rule report_content:
    input:
        report_parts,


rule write_report:
    input:
        report_parts,
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
