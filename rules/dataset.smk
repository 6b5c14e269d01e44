# Needs: track tables. Makes: the calibrated response, the datasets and the feature list.


rule fit_response:
    input:
        tracks=tracks_of("simulation"),
        inputs="<results>/{run}/ingest/simulation.json",
    output:
        response="<results>/{run}/dataset/response.json",
    log:
        "<logs>/{run}/fit_response.log",
        record="<results>/{run}/provenance/fit_response.json",
    group:
        "dataset"
    conda:
        "../envs/tables.yaml"
    resources:
        mem_mb=megabytes(1500, per_mb=2),
    params:
        split=settings(CONFIG.dataset.split),
        code=digest("fit_response.py"),
    message:
        "Run {wildcards.run}: calibrate the detector response"
    script:
        "../workflow/scripts/fit_response.py"


rule build_dataset:
    input:
        tracks=lambda wildcards: track_tables(wildcards.run, wildcards.sample),
        response=rules.fit_response.output.response,
        inputs=rules.check_inputs.output.inputs,
    output:
        **{"probes": "<results>/{run}/dataset/{sample}.probes.parquet"} if CONFIG.ingest.v0 else {},
        dataset="<results>/{run}/dataset/{sample}.parquet",
        quality="<results>/{run}/dataset/{sample}.quality.json",
    log:
        "<logs>/{run}/build_dataset/{sample}.log",
        record="<results>/{run}/provenance/build_dataset/{sample}.json",
    wildcard_constraints:
        sample="simulation|data",
    group:
        "dataset"
    conda:
        "../envs/tables.yaml"
    resources:
        mem_mb=megabytes(1500),
        runtime=minutes(30, per_gb=30),
    params:
        dataset=settings(CONFIG.dataset),
        code=digest("build_dataset.py"),
    message:
        "Run {wildcards.run}: select tracks of {wildcards.sample}"
    script:
        "../workflow/scripts/build_dataset.py"


rule select_features:
    input:
        unpack(data_if_any),
        simulation="<results>/{run}/dataset/simulation.parquet",
    output:
        features="<results>/{run}/dataset/features.json",
        shap="<results>/{run}/dataset/shap.npz",
    log:
        "<logs>/{run}/select_features.log",
        record="<results>/{run}/provenance/select_features.json",
    conda:
        "../envs/figures.yaml"
    resources:
        mem_mb=megabytes(2000, per_mb=4, of="simulation"),
    params:
        species=CONFIG.species,
        features=settings(CONFIG.features),
        seed=CONFIG.seed,
        code=digest("select_features.py"),
    message:
        "Run {wildcards.run}: rank features"
    script:
        "../workflow/scripts/select_features.py"
