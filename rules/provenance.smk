# Needs: publications, and the records that jobs leave. Makes: a published model again, to compare; an RO-Crate.


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
