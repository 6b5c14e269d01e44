# Needs: datasets and the feature list. Makes: model directories.


rule train_model:
    input:
        dataset="<results>/{run}/dataset/simulation.parquet",
        features=rules.select_features.output.features,
    output:
        model=directory("<results>/{run}/train/{model}"),
    log:
        "<logs>/{run}/train_model/{model}.log",
        record="<results>/{run}/provenance/train_model/{model}.json",
    wildcard_constraints:
        model="|".join(METHODS),
    conda:
        "../envs/models.yaml"
    resources:
        mem_mb=megabytes(2000, per_mb=8, of="dataset"),
        runtime=minutes(240, per_gb=240, of="dataset"),
    params:
        kind="{model}",
        species=CONFIG.species,
        masks=settings(CONFIG.dataset.masks),
        seed=CONFIG.seed,
        settings=lambda wildcards: settings(getattr(CONFIG.models, wildcards.model)),
        code=digest("train_model.py"),
    message:
        "Run {wildcards.run}: train {wildcards.model}"
    script:
        "../workflow/scripts/train_model.py"


rule adapt_model:
    input:
        model="<results>/{run}/train/fse",
        simulation="<results>/{run}/dataset/simulation.parquet",
        data="<results>/{run}/dataset/data.parquet",
    output:
        model=directory("<results>/{run}/train/fse_{method}"),
    log:
        "<logs>/{run}/adapt_model/{method}.log",
        record="<results>/{run}/provenance/adapt_model/{method}.json",
    wildcard_constraints:
        method=CONFIG.adapt.method,
    conda:
        "../envs/models.yaml"
    resources:
        mem_mb=megabytes(2000, per_mb=8, of="simulation"),
        runtime=minutes(240, per_gb=240, of="simulation"),
    params:
        adapt=settings(CONFIG.adapt),
        code=digest("adapt_model.py"),
    message:
        "Run {wildcards.run}: adapt the network to data by {wildcards.method}"
    script:
        "../workflow/scripts/adapt_model.py"
