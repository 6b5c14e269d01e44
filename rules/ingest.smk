# Needs: the input files of the run table. Makes: one track table per file.


rule ingest_file:
    input:
        file=lambda wildcards: run_row(wildcards).files(wildcards.sample)[wildcards.file],
    output:
        tracks="<results>/{run}/ingest/{sample}/{file}.parquet",
    log:
        "<logs>/{run}/ingest_file/{sample}_{file}.log",
    benchmark:
        "<benchmarks>/{run}/ingest_file/{sample}_{file}.jsonl"
    group:
        "ingest"
    conda:
        "../envs/tables.yaml"
    resources:
        mem_mb=megabytes(1000, 2),
        runtime=30,
    params:
        source=lambda wildcards: run_row(wildcards).files(wildcards.sample)[wildcards.file],
        bz=lambda wildcards: run_row(wildcards).bz,
        ingest=settings(CONFIG.ingest),
        code=digest("ingest_file.py"),
    message:
        "Run {wildcards.run}: ingest {input.file}"
    script:
        "../workflow/scripts/ingest_file.py"
