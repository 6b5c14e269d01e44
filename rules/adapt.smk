# Needs: datasets, V0 candidates and the model trained on simulation. Makes: adapted samples, candidates, the chosen one.
# Nothing here reads a label of data.


rule adapt_sample:
    input:
        **{"probes": probes_before} if CONFIG.ingest.v0 else {},
        simulation=sample_before,
        data="<results>/{run}/dataset/data.parquet",
        response=rules.fit_response.output.response,
    output:
        **{"probes": "<results>/{run}/adapt/{candidate}/probes.parquet"} if CONFIG.ingest.v0 else {},
        dataset="<results>/{run}/adapt/{candidate}/simulation.parquet",
        report="<results>/{run}/adapt/{candidate}/report.json",
        variations="<results>/{run}/adapt/{candidate}/variations.parquet",
    log:
        "<logs>/{run}/adapt_sample/{candidate}.log",
        record="<results>/{run}/provenance/adapt_sample/{candidate}.json",
    wildcard_constraints:
        candidate=any_of(SAMPLES),
    conda:
        "../envs/models.yaml"
    resources:
        mem_mb=megabytes(1500, per_mb=8, of="data"),
        runtime=minutes(30, per_gb=60, of="simulation"),
    params:
        kinds=lambda wildcards: step_kinds(wildcards.candidate),
        species=CONFIG.species,
        masks=settings(CONFIG.dataset.masks),
        seed=CONFIG.seed,
        step=lambda wildcards: settings(CONFIG.adapt.last(wildcards.candidate)),
        code=lambda wildcards: digest(" ".join(["adapt_sample.py", *step_kinds(wildcards.candidate)])),
    message:
        "Run {wildcards.run}: adapt the simulated sample to data, {wildcards.candidate}"
    script:
        "../workflow/scripts/adapt_sample.py"


use rule train_model as train_adapted with:
    input:
        dataset="<results>/{run}/adapt/{candidate}/simulation.parquet",
        features=rules.select_features.output.features,
        response=rules.fit_response.output.response,
        needed=lambda wildcards: [f"<results>/{wildcards.run}/train/{name}" for name in SOURCE.needs],
        start=lambda wildcards: start_of_model(CONFIG.adapt.model),
    output:
        model=directory(f"<results>/{{run}}/train/{CONFIG.adapt.model}_{{candidate}}"),
    log:
        "<logs>/{run}/train_adapted/{candidate}.log",
        record="<results>/{run}/provenance/train_adapted/{candidate}.json",
    wildcard_constraints:
        candidate=any_of(SAMPLES),
    params:
        kinds=kinds_of(CONFIG.adapt.model),
        needed=list(SOURCE.needs),
        species=CONFIG.species,
        masks=settings(CONFIG.dataset.masks),
        seed=CONFIG.seed,
        settings=settings(SOURCE),
        adaptation=lambda wildcards: steps_of(wildcards.candidate),
        accelerator=CONFIG.accelerator,
        code=code_of("train_model.py", CONFIG.adapt.model),
    message:
        "Run {wildcards.run}: train on the sample adapted to data, {wildcards.candidate}"


rule adapt_model:
    input:
        model=model_before,
        simulation=lambda wildcards: sample_of(wildcards.run, wildcards.candidate),
        data="<results>/{run}/dataset/data.parquet",
    output:
        model=directory(f"<results>/{{run}}/train/{CONFIG.adapt.model}_{{candidate}}"),
    log:
        "<logs>/{run}/adapt_model/{candidate}.log",
        record="<results>/{run}/provenance/adapt_model/{candidate}.json",
    wildcard_constraints:
        candidate=any_of(TRAINED),
    conda:
        "../envs/models.yaml"
    resources:
        mem_mb=megabytes(2000, per_mb=8, of="simulation"),
        runtime=minutes(240, per_gb=240, of="simulation"),
    params:
        kinds=lambda wildcards: [*kinds_of(CONFIG.adapt.model), *step_kinds(wildcards.candidate)],
        step=lambda wildcards: settings(CONFIG.adapt.last(wildcards.candidate)),
        accelerator=CONFIG.accelerator,
        code=lambda wildcards: digest(
            " ".join(["adapt_model.py", *kinds_of(CONFIG.adapt.model), *step_kinds(wildcards.candidate)])
        ),
    message:
        "Run {wildcards.run}: train further on simulation and data, {wildcards.candidate}"
    script:
        "../workflow/scripts/adapt_model.py"


rule select_model:
    input:
        unpack(v0s_if_any),
        models=[f"<results>/{{run}}/train/{model}" for model in [CONFIG.adapt.model, *CONFIG.candidates]],
        samples=[f"<results>/{{run}}/adapt/{candidate}/simulation.parquet" for candidate in SAMPLES],
        variations=[f"<results>/{{run}}/adapt/{candidate}/variations.parquet" for candidate in SAMPLES],
        simulation="<results>/{run}/dataset/simulation.parquet",
        data="<results>/{run}/dataset/data.parquet",
    output:
        model=directory(f"<results>/{{run}}/train/{CONFIG.adapt.model}_{CHOSEN}"),
        choice="<results>/{run}/adapt/choice.json",
        efficiency="<results>/{run}/adapt/efficiency.csv",
    log:
        "<logs>/{run}/select_model.log",
        record="<results>/{run}/provenance/select_model.json",
    conda:
        "../envs/models.yaml"
    resources:
        mem_mb=megabytes(2000, per_mb=8, of="simulation"),
        runtime=minutes(60, per_gb=240, of="simulation"),
    params:
        kinds=kinds_of(CONFIG.adapt.model),
        candidates=list(CONFIG.adapt.used),
        samples=SAMPLES,
        method=CONFIG.adapt.method,
        trained_on=CONFIG.adapt.trained_on,
        choice=settings(CONFIG.adapt.choice),
        v0=INGEST["v0"],
        pt_edges=CONFIG.evaluate.pt_edges,
        threshold=CONFIG.evaluate.threshold,
        bootstrap=CONFIG.evaluate.bootstrap,
        confidence=CONFIG.evaluate.confidence,
        seed=CONFIG.seed,
        code=code_of("select_model.py", CONFIG.adapt.model),
    message:
        "Run {wildcards.run}: choose the adaptation"
    script:
        "../workflow/scripts/select_model.py"


CALIBRATED = [name for name in SAMPLES if CONFIG.adapt.last(name).kind == "calibrate_response"]

PROBES = {
    "probes": report(
        f"<results>/{{run}}/adapt/probes.{IMAGE}",
        caption="../workflow/report/probes.rst",
        category="Run {run}",
        subcategory="Adaptation to data",
        labels={"figure": "V0 probes"},
    ),
    "rates": "<results>/{run}/adapt/probes.json",
}


rule plot_adaptation:
    input:
        unpack(v0s_if_any),
        models=rules.select_model.input.models,
        samples=rules.select_model.input.samples,
        reports=[f"<results>/{{run}}/adapt/{name}/report.json" for name in CALIBRATED],
        simulation="<results>/{run}/dataset/simulation.parquet",
        data="<results>/{run}/dataset/data.parquet",
        choice=rules.select_model.output.choice,
        efficiency=rules.select_model.output.efficiency,
    output:
        **PROBES if CONFIG.ingest.v0 else {},
        calibration=[
            report(
                f"<results>/{{run}}/adapt/{name}/calibration.{IMAGE}",
                caption="../workflow/report/calibration.rst",
                category="Run {run}",
                subcategory="Adaptation to data",
                labels={"figure": f"response calibration, {name}"},
            )
            for name in CALIBRATED
        ],
        composition=[
            report(
                f"<results>/{{run}}/adapt/{name}/composition.{IMAGE}",
                caption="../workflow/report/composition.rst",
                category="Run {run}",
                subcategory="Adaptation to data",
                labels={"figure": f"composition, {name}"},
            )
            for name in CALIBRATED
        ],
        choice=report(
            f"<results>/{{run}}/adapt/choice.{IMAGE}",
            caption="../workflow/report/choice.rst",
            category="Run {run}",
            subcategory="Adaptation to data",
            labels={"figure": "choice of the adaptation"},
        ),
        efficiency=report(
            f"<results>/{{run}}/adapt/efficiency.{IMAGE}",
            caption="../workflow/report/efficiency.rst",
            category="Run {run}",
            subcategory="Adaptation to data",
            labels={"figure": "efficiency to expect on data"},
        ),
        shift=report(
            f"<results>/{{run}}/adapt/shift.{IMAGE}",
            caption="../workflow/report/shift.rst",
            category="Run {run}",
            subcategory="Adaptation to data",
            labels={"figure": "shift of features and latent space"},
        ),
    log:
        "<logs>/{run}/plot_adaptation.log",
        record="<results>/{run}/provenance/plot_adaptation.json",
    conda:
        "../envs/models.yaml"
    resources:
        mem_mb=megabytes(2500),
        runtime=minutes(30),
    params:
        kinds=kinds_of(CONFIG.adapt.model),
        candidates=list(CONFIG.adapt.used),
        samples=SAMPLES,
        sample_of={name: CONFIG.adapt.sample_of(name) for name in CONFIG.adapt.used},
        calibrated=CALIBRATED,
        species=CONFIG.species,
        v0=INGEST["v0"],
        pt_edges=CONFIG.evaluate.pt_edges,
        threshold=CONFIG.evaluate.threshold,
        confidence=CONFIG.evaluate.confidence,
        seed=CONFIG.seed,
        code=code_of("plot_adaptation.py", CONFIG.adapt.model),
    message:
        "Run {wildcards.run}: plot the adaptation to data"
    script:
        "../workflow/scripts/plot_adaptation.py"
