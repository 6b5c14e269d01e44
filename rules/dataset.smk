# Needs: track tables. Makes: the calibrated response, the datasets and the feature list.


rule fit_response:
    input:
        tracks=lambda wildcards: track_tables(wildcards.run, "simulation"),
        inputs="<results>/{run}/ingest/simulation.json",
    output:
        response="<results>/{run}/dataset/response.json",
    log:
        "<logs>/{run}/fit_response.log",
        record="<results>/{run}/provenance/fit_response.json",
    benchmark:
        "<benchmarks>/{run}/fit_response.jsonl"
    conda:
        "../envs/tables.yaml"
    resources:
        mem_mb=megabytes(1500, 2),
        runtime=20,
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
        dataset="<results>/{run}/dataset/{sample}.parquet",
        quality="<results>/{run}/dataset/{sample}.quality.json",
    log:
        "<logs>/{run}/build_dataset/{sample}.log",
        record="<results>/{run}/provenance/build_dataset/{sample}.json",
    benchmark:
        "<benchmarks>/{run}/build_dataset/{sample}.jsonl"
    wildcard_constraints:
        sample="simulation|data",
    conda:
        "../envs/tables.yaml"
    resources:
        mem_mb=1500,
        runtime=60,
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
    benchmark:
        "<benchmarks>/{run}/select_features.jsonl"
    conda:
        "../envs/figures.yaml"
    resources:
        mem_mb=megabytes(2000, 4),
        runtime=60,
    params:
        species=CONFIG.species,
        features=settings(CONFIG.features),
        seed=CONFIG.seed,
        code=digest("select_features.py"),
    message:
        "Run {wildcards.run}: rank features"
    script:
        "../workflow/scripts/select_features.py"


rule plot_response:
    input:
        tracks=lambda wildcards: track_tables(wildcards.run, "simulation"),
        response=rules.fit_response.output.response,
    output:
        figure=report(
            f"<results>/{{run}}/dataset/response.{IMAGE}",
            caption="../workflow/report/response.rst",
            category="Run {run}",
            subcategory="Detectors and features",
            labels={"figure": "detector response"},
        ),
    log:
        "<logs>/{run}/plot_response.log",
        record="<results>/{run}/provenance/plot_response.json",
    benchmark:
        "<benchmarks>/{run}/plot_response.jsonl"
    conda:
        "../envs/figures.yaml"
    resources:
        mem_mb=megabytes(1000, 2),
        runtime=10,
    params:
        code=digest("plot_response.py"),
    message:
        "Run {wildcards.run}: plot the detector response"
    script:
        "../workflow/scripts/plot_response.py"


rule plot_features:
    input:
        features=rules.select_features.output.features,
        shap=rules.select_features.output.shap,
    output:
        figure=report(
            f"<results>/{{run}}/dataset/features.{IMAGE}",
            caption="../workflow/report/features.rst",
            category="Run {run}",
            subcategory="Detectors and features",
            labels={"figure": "feature ranking"},
        ),
    log:
        "<logs>/{run}/plot_features.log",
        record="<results>/{run}/provenance/plot_features.json",
    benchmark:
        "<benchmarks>/{run}/plot_features.jsonl"
    conda:
        "../envs/figures.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        code=digest("plot_features.py"),
    message:
        "Run {wildcards.run}: plot the feature ranking"
    script:
        "../workflow/scripts/plot_features.py"
