# Needs: the input files of the run table. Makes: track tables and V0 candidates, a folder per batch of files (or part of
# a large one), the account of a sample's inputs, and its tag-and-probe samples.


rule fetch_file:
    output:
        folder=temp(directory("<results>/{run}/fetched/{sample}/{file}")),
    log:
        "<logs>/{run}/fetch_file/{sample}_{file}.log",
        record="<results>/{run}/provenance/fetch_file/{sample}_{file}.json",
    wildcard_constraints:
        sample="simulation|data",
    conda:
        "../envs/fetch.yaml"
    resources:
        runtime=minutes(240),
        transfers=1,
    params:
        uri=lambda wildcards: run_row(wildcards).files(wildcards.sample)[wildcards.file],
        companions=lambda wildcards: TRUTH_COMPANIONS if wildcards.sample == "simulation" else [],
        retries=CONFIG.ingest.fetch_retries,
        code=digest("fetch_file.py"),
    message:
        "Run {wildcards.run}: fetch {params.uri}"
    script:
        "../workflow/scripts/fetch_file.py"


rule ingest_files:
    input:
        files=local_files,
    output:
        tracks=directory("<results>/{run}/ingest/{sample}/{batch}{part}"),
    log:
        "<logs>/{run}/ingest_files/{sample}_{batch}{part}.log",
        record="<results>/{run}/provenance/ingest_files/{sample}_{batch}{part}.json",
    wildcard_constraints:
        sample="simulation|data",
        part=r"|\.\d+of\d+",
    conda:
        "../envs/tables.yaml"
    resources:
        mem_mb=megabytes(1500),
        runtime=minutes(30, per_gb=30, of="files"),
    params:
        sources=lambda wildcards: batch_of(wildcards).uris,
        part=lambda wildcards: [int(n) for n in wildcards.part[1:].split("of")] if wildcards.part else [1, 1],
        run=lambda wildcards: described(run_row(wildcards)),
        ingest=INGEST,
        policy=lambda wildcards: settings(bad_files(wildcards.run)),
        code=digest("ingest_files.py"),
    message:
        "Run {wildcards.run}: ingest {wildcards.sample}, {wildcards.batch}{wildcards.part}"
    script:
        "../workflow/scripts/ingest_files.py"


rule check_inputs:
    input:
        tracks=lambda wildcards: track_tables(wildcards.run, wildcards.sample),
    output:
        **{"v0s": "<results>/{run}/ingest/{sample}.v0.json"} if CONFIG.ingest.v0 else {},
        inputs="<results>/{run}/ingest/{sample}.json",
    log:
        "<logs>/{run}/check_inputs/{sample}.log",
        record="<results>/{run}/provenance/check_inputs/{sample}.json",
    wildcard_constraints:
        sample="simulation|data",
    group:
        "dataset"
    conda:
        "../envs/tables.yaml"
    resources:
        mem_mb=megabytes(1000, per_mb=1),
    params:
        policy=lambda wildcards: settings(bad_files(wildcards.run)),
        v0=INGEST["v0"],
        code=digest("check_inputs.py"),
    message:
        "Run {wildcards.run}: check the inputs of {wildcards.sample}"
    script:
        "../workflow/scripts/check_inputs.py"
