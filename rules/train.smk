# Needs: datasets and the feature list. Makes: model directories.


rule train_model:
    input:
        dataset="<results>/{run}/dataset/simulation.parquet",
        features=rules.select_features.output.features,
        response=rules.fit_response.output.response,
        needed=needed_models,
        start=start_of,
    output:
        model=directory("<results>/{run}/train/{model}"),
    log:
        "<logs>/{run}/train_model/{model}.log",
        record="<results>/{run}/provenance/train_model/{model}.json",
    wildcard_constraints:
        model="|".join(CONFIG.models),
    conda:
        "../envs/models.yaml"
    resources:
        mem_mb=megabytes(2000, per_mb=8, of="dataset"),
        runtime=minutes(240, per_gb=240, of="dataset"),
    params:
        kinds=lambda wildcards: kinds_of(wildcards.model),
        needed=lambda wildcards: list(CONFIG.models[wildcards.model].needs),
        species=CONFIG.species,
        masks=settings(CONFIG.dataset.masks),
        seed=CONFIG.seed,
        settings=lambda wildcards: settings(CONFIG.models[wildcards.model]),
        accelerator=CONFIG.accelerator,
        code=lambda wildcards: code_of("train_model.py", wildcards.model),
    message:
        "Run {wildcards.run}: train {wildcards.model}"
    script:
        "../workflow/scripts/train_model.py"


rule retrieve_model:
    output:
        model=directory("<results>/start/{model}"),
    log:
        "<logs>/retrieve_model/{model}.log",
        record="<results>/provenance/retrieve_model/{model}.json",
    localrule: True
    conda:
        "../envs/tables.yaml"
    params:
        source=lambda wildcards: CONFIG.models[wildcards.model].init_from,
        code=digest("retrieve_model.py"),
    message:
        "Retrieve the weights that {wildcards.model} starts from"
    script:
        "../workflow/scripts/retrieve_model.py"
