# Needs: datasets, feature lists, and models to start from. Makes: the studies that are asked for by name alone, of
# transfer learning (snakemake transfer) and of a model's settings (snakemake tune).


use rule train_model as train_transfer with:
    input:
        dataset="<results>/{run}/dataset/simulation.parquet",
        # those of the other run: weights fit no other features
        features=lambda wildcards: f"<results>/{transfer_runs()[0]}/dataset/features.json",
        response=rules.fit_response.output.response,
        start=lambda wildcards: [] if wildcards.start == SCRATCH else transfer_source(wildcards),
    output:
        model=directory("<results>/{run}/transfer/{model}/{start}_{fraction}"),
    log:
        "<logs>/{run}/train_transfer/{model}_{start}_{fraction}.log",
        record="<results>/{run}/provenance/train_transfer/{model}_{start}_{fraction}.json",
    wildcard_constraints:
        start=f"{SCRATCH}|whole|frozen|layerwise",
        fraction=r"[\d.e-]+",
    params:
        kinds=lambda wildcards: kinds_of(wildcards.model),
        needed=[],
        species=CONFIG.species,
        masks=settings(CONFIG.dataset.masks),
        seed=CONFIG.seed,
        settings=lambda wildcards: transfer_settings(CONFIG, wildcards.start, float(wildcards.fraction)),
        fraction=lambda wildcards: float(wildcards.fraction),
        accelerator=CONFIG.accelerator,
        code=lambda wildcards: code_of("train_model.py", wildcards.model),
    message:
        "Run {wildcards.run}: train {wildcards.model} on {wildcards.fraction} of the simulation, {wildcards.start}"


rule score_transfer:
    input:
        dataset="<results>/{run}/dataset/simulation.parquet",
        source=transfer_source,
        models=lambda wildcards: transfer_paths(wildcards, "<results>/{run}/transfer/{model}/{start}_{fraction}"),
    output:
        points="<results>/{run}/transfer/{model}.json",
    log:
        "<logs>/{run}/score_transfer/{model}.log",
        record="<results>/{run}/provenance/score_transfer/{model}.json",
    conda:
        "../envs/models.yaml"
    resources:
        mem_mb=megabytes(2000, per_mb=8, of="dataset"),
        runtime=minutes(60, per_gb=240, of="dataset"),
    params:
        kinds=lambda wildcards: kinds_of(wildcards.model),
        trainings=transfer_trainings(),
        records=lambda wildcards: transfer_paths(
            wildcards,
            f"{CONFIG.pathvars.results}/{{run}}/provenance/train_transfer/{{model}}_{{start}}_{{fraction}}.json",
        ),
        pt_edges=CONFIG.evaluate.pt_edges,
        threshold=CONFIG.evaluate.threshold,
        bootstrap=CONFIG.evaluate.bootstrap,
        confidence=CONFIG.evaluate.confidence,
        seed=CONFIG.seed,
        code=lambda wildcards: code_of("score_transfer.py", wildcards.model),
    message:
        "Run {wildcards.run}: measure the trainings of the transfer study"
    script:
        "../workflow/scripts/score_transfer.py"


rule plot_transfer:
    input:
        points=lambda wildcards: collect(
            rules.score_transfer.output.points, run=transfer_runs()[1], model=CONFIG.transfer.model
        ),
    output:
        csv="<results>/transfer.csv",
        figure=report(
            f"<results>/transfer.{IMAGE}",
            caption="../workflow/report/transfer.rst",
            category="Studies",
            labels={"figure": "transfer learning"},
        ),
    log:
        "<logs>/plot_transfer.log",
        record="<results>/provenance/plot_transfer.json",
    conda:
        "../envs/figures.yaml"
    params:
        model=CONFIG.transfer.model,
        source=lambda wildcards: transfer_runs()[0],
        code=digest("plot_transfer.py"),
    message:
        "Show transfer learning of {params.model} from run {params.source}"
    script:
        "../workflow/scripts/plot_transfer.py"


# the choice of a trial depends on those that ended before it, and so on how many run at a time
rule tune_trial:
    input:
        dataset="<results>/{run}/dataset/simulation.parquet",
        features=rules.select_features.output.features,
        response=rules.fit_response.output.response,
        needed=needed_models,
        start=start_of,
    output:
        trial="<results>/{run}/tune/{model}/trial_{trial}.json",
    log:
        "<logs>/{run}/tune_trial/{model}_{trial}.log",
        record="<results>/{run}/provenance/tune_trial/{model}_{trial}.json",
    wildcard_constraints:
        trial=r"\d+",
    conda:
        "../envs/tune.yaml"
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
        tune=CONFIG.tune.model_dump(mode="json", include={"objective", "space"}),
        accelerator=CONFIG.accelerator,
        code=lambda wildcards: code_of("tune_trial.py", wildcards.model),
    message:
        "Run {wildcards.run}: try settings of {wildcards.model}, trial {wildcards.trial}"
    script:
        "../workflow/scripts/tune_trial.py"


rule tune_summary:
    input:
        trials=collect("<results>/{{run}}/tune/{{model}}/trial_{trial}.json", trial=range(CONFIG.tune.trials)),
    output:
        csv="<results>/{run}/tune/{model}.csv",
        settings="<results>/{run}/tune/{model}.yaml",
        figure=report(
            f"<results>/{{run}}/tune/{{model}}.{IMAGE}",
            caption="../workflow/report/tuning.rst",
            category="Studies",
            labels={"figure": "settings of {model}, run {run}"},
        ),
    log:
        "<logs>/{run}/tune_summary/{model}.log",
        record="<results>/{run}/provenance/tune_summary/{model}.json",
    conda:
        "../envs/figures.yaml"
    params:
        tune=CONFIG.tune.model_dump(mode="json", include={"objective", "space"}),
        code=digest("tune_summary.py"),
    message:
        "Run {wildcards.run}: sum up the trials of {wildcards.model}"
    script:
        "../workflow/scripts/tune_summary.py"


rule transfer:
    input:
        rules.plot_transfer.output.csv,


rule tune:
    input:
        tuned_settings,
