# Needs: model directories and datasets. Makes: score tables, metrics, figures, the table of methods.
# Closure (pseudo-data only) reads the truth files; nothing of it flows back into training or publication.


rule score_simulation:
    input:
        models=[f"<results>/{{run}}/train/{model}" for model in COMPARED],
        dataset="<results>/{run}/dataset/simulation.parquet",
    output:
        scores=[scores_of("{run}", model, "simulation") for model in COMPARED],
    log:
        "<logs>/{run}/score_simulation.log",
        record="<results>/{run}/provenance/score_simulation.json",
    conda:
        "../envs/models.yaml"
    resources:
        mem_mb=megabytes(2000),
        runtime=minutes(60, per_gb=240, of="dataset"),
    params:
        kinds=kinds_of(*COMPARED),
        code=code_of("score_tracks.py", *COMPARED),
    message:
        "Run {wildcards.run}: score simulation with every model"
    script:
        "../workflow/scripts/score_tracks.py"


# without truth only the figures of data ask for scores
use rule score_simulation as score_data with:
    input:
        models=[f"<results>/{{run}}/train/{model}" for model in (COMPARED if CLOSURE else NETWORKS)],
        dataset="<results>/{run}/dataset/data.parquet",
    output:
        scores=[scores_of("{run}", model, "data") for model in (COMPARED if CLOSURE else NETWORKS)],
    log:
        "<logs>/{run}/score_data.log",
        record="<results>/{run}/provenance/score_data.json",
    message:
        "Run {wildcards.run}: score data"


use rule score_simulation as score_oracle with:
    input:
        models=["<results>/{run}/closure/oracle"],
        dataset="<results>/{run}/dataset/data.parquet",
    output:
        scores=[scores_of("{run}", "oracle", "data")],
    log:
        "<logs>/{run}/score_oracle.log",
        record="<results>/{run}/provenance/score_oracle.json",
    params:
        kinds=kinds_of(NETWORKS[0]),
        code=code_of("score_tracks.py", NETWORKS[0]),
    message:
        "Run {wildcards.run}: score data with the oracle"


rule score_ceiling:
    input:
        dataset="<results>/{run}/dataset/simulation.parquet",
    output:
        scores=scores_of("{run}", "ceiling", "simulation"),
    log:
        "<logs>/{run}/score_ceiling.log",
        record="<results>/{run}/provenance/score_ceiling.json",
    conda:
        "../envs/simulate.yaml"
    resources:
        mem_mb=megabytes(2000, per_mb=8, of="dataset"),
    params:
        species=CONFIG.species,
        masks=settings(CONFIG.dataset.masks),
        bz=lambda wildcards: run_row(wildcards).bz,
        code=digest("score_ceiling.py"),
    message:
        "Run {wildcards.run}: score simulation with the densities that it was drawn from"
    script:
        "../workflow/scripts/score_ceiling.py"


rule attach_truth:
    input:
        dataset="<results>/{run}/dataset/data.parquet",
        truth=lambda wildcards: list(truth_files(wildcards).values()),
    output:
        dataset="<results>/{run}/closure/tracks.parquet",
    log:
        "<logs>/{run}/attach_truth.log",
        record="<results>/{run}/provenance/attach_truth.json",
    conda:
        "../envs/tables.yaml"
    resources:
        mem_mb=megabytes(1000, per_mb=6, of="dataset"),
    params:
        truth=truth_files,
        code=digest("attach_truth.py"),
    message:
        "Run {wildcards.run}: join the pseudo-data's truth for closure"
    script:
        "../workflow/scripts/attach_truth.py"


use rule train_model as train_oracle with:
    input:
        dataset=rules.attach_truth.output.dataset,
        features=rules.select_features.output.features,
        response=rules.fit_response.output.response,
    output:
        model=directory("<results>/{run}/closure/{model}"),
    wildcard_constraints:
        model="oracle",
    params:
        kinds=kinds_of(NETWORKS[0]),
        needed=[],
        species=CONFIG.species,
        masks=settings(CONFIG.dataset.masks),
        seed=CONFIG.seed,
        settings=settings(CONFIG.models[NETWORKS[0]]),
        accelerator=CONFIG.accelerator,
        code=code_of("train_model.py", NETWORKS[0]),
    message:
        "Run {wildcards.run}: train the oracle on the pseudo-data's truth, for closure"


rule compute_metrics:
    input:
        dataset="<results>/{run}/dataset/simulation.parquet",
        scores=lambda wildcards: [scores_of(wildcards.run, model, "simulation") for model in COMPARED],
    output:
        metrics=metrics_of("{run}", COMPARED, "simulation"),
    log:
        "<logs>/{run}/compute_metrics.log",
        record="<results>/{run}/provenance/compute_metrics.json",
    conda:
        "../envs/tables.yaml"
    resources:
        mem_mb=megabytes(1000, per_mb=8, of="dataset"),
    params:
        models=COMPARED,
        sample="simulation",
        species=CONFIG.species,
        pt_edges=CONFIG.evaluate.pt_edges,
        threshold=CONFIG.evaluate.threshold,
        bootstrap=CONFIG.evaluate.bootstrap,
        confidence=CONFIG.evaluate.confidence,
        seed=CONFIG.seed,
        code=digest("compute_metrics.py"),
    message:
        "Run {wildcards.run}: metrics of every model on {params.sample}"
    script:
        "../workflow/scripts/compute_metrics.py"


use rule compute_metrics as compute_closure with:
    input:
        dataset=rules.attach_truth.output.dataset,
        scores=lambda wildcards: [scores_of(wildcards.run, model, "data") for model in [*COMPARED, "oracle"]],
    output:
        metrics=metrics_of("{run}", [*COMPARED, "oracle"], "closure"),
    log:
        "<logs>/{run}/compute_closure.log",
        record="<results>/{run}/provenance/compute_closure.json",
    params:
        models=[*COMPARED, "oracle"],
        sample="closure",
        species=CONFIG.species,
        pt_edges=CONFIG.evaluate.pt_edges,
        threshold=CONFIG.evaluate.threshold,
        bootstrap=CONFIG.evaluate.bootstrap,
        confidence=CONFIG.evaluate.confidence,
        seed=CONFIG.seed,
        code=digest("compute_metrics.py"),


use rule compute_metrics as compute_ceiling with:
    input:
        dataset="<results>/{run}/dataset/simulation.parquet",
        scores=[rules.score_ceiling.output.scores],
    output:
        metrics=metrics_of("{run}", ["ceiling"], "simulation"),
    log:
        "<logs>/{run}/compute_ceiling.log",
        record="<results>/{run}/provenance/compute_ceiling.json",
    params:
        models=["ceiling"],
        sample="simulation",
        species=CONFIG.species,
        pt_edges=CONFIG.evaluate.pt_edges,
        threshold=CONFIG.evaluate.threshold,
        bootstrap=CONFIG.evaluate.bootstrap,
        confidence=CONFIG.evaluate.confidence,
        seed=CONFIG.seed,
        code=digest("compute_metrics.py"),
    message:
        "Run {wildcards.run}: metrics of the best that is possible"


use rule compute_metrics as compute_equalised with:
    output:
        metrics=metrics_of("{run}", COMPARED, "equalised"),
    log:
        "<logs>/{run}/compute_equalised.log",
        record="<results>/{run}/provenance/compute_equalised.json",
    params:
        models=COMPARED,
        sample="equalised",
        species=CONFIG.species,
        pt_edges=CONFIG.evaluate.pt_edges,
        threshold=CONFIG.evaluate.threshold,
        bootstrap=CONFIG.evaluate.bootstrap,
        confidence=CONFIG.evaluate.confidence,
        seed=CONFIG.seed,
        equalise=CONFIG.evaluate.equalise,
        code=digest("compute_metrics.py"),


V0_FIGURE = report(
    f"<results>/{{run}}/ingest/v0s.{IMAGE}",
    caption="../workflow/report/v0.rst",
    category="Run {run}",
    subcategory="Tag and probe",
    labels={"figure": "V0 samples"},
)


HISTORY_FIGURE = report(
    f"<results>/{{run}}/evaluate/plots/history.{IMAGE}",
    caption="../workflow/report/history.rst",
    category="Run {run}",
    subcategory="Training",
    labels={"figure": "learning curves"},
)


rule plot_run:
    input:
        simulation=tracks_of("simulation"),
        data=tracks_of("data"),
        v0s=lambda wildcards: [f"<results>/{wildcards.run}/ingest/{s}.v0.json" for s in v0_samples_of(wildcards)],
        response=rules.fit_response.output.response,
        features=rules.select_features.output.features,
        shap=rules.select_features.output.shap,
        networks=[f"<results>/{{run}}/train/{model}" for model in CURVES],
        datasets=lambda wildcards: [f"<results>/{wildcards.run}/dataset/{s}.parquet" for s in samples_of(wildcards)],
        signals=lambda wildcards: [
            scores_of(wildcards.run, model, sample) for sample in samples_of(wildcards) for model in NETWORKS
        ],
        scores=lambda wildcards: [
            scores_of(wildcards.run, model, "simulation") for model in simulation_models(wildcards.run)
        ],
        metrics=lambda wildcards: metrics_of(wildcards.run, simulation_models(wildcards.run), "simulation"),
    output:
        **{"v0s": V0_FIGURE} if CONFIG.ingest.v0 else {},
        **{"history": HISTORY_FIGURE} if CURVES else {},
        response=report(
            f"<results>/{{run}}/dataset/response.{IMAGE}",
            caption="../workflow/report/response.rst",
            category="Run {run}",
            subcategory="Detectors and features",
            labels={"figure": "detector response"},
        ),
        features=report(
            f"<results>/{{run}}/dataset/features.{IMAGE}",
            caption="../workflow/report/features.rst",
            category="Run {run}",
            subcategory="Detectors and features",
            labels={"figure": "feature ranking"},
        ),
        performance=report(
            f"<results>/{{run}}/evaluate/plots/performance_simulation.{IMAGE}",
            caption="../workflow/report/performance.rst",
            category="Run {run}",
            subcategory="Performance on simulation",
            labels={"figure": "purity, efficiency, F1"},
        ),
        methods=report(
            f"<results>/{{run}}/evaluate/plots/methods_simulation.{IMAGE}",
            caption="../workflow/report/methods_pt.rst",
            category="Run {run}",
            subcategory="Performance on simulation",
            labels={"figure": "all methods against pT"},
        ),
        reliability=report(
            f"<results>/{{run}}/evaluate/plots/reliability_simulation.{IMAGE}",
            caption="../workflow/report/reliability.rst",
            category="Run {run}",
            subcategory="Performance on simulation",
            labels={"figure": "reliability of the published network"},
        ),
        roc=report(
            f"<results>/{{run}}/evaluate/plots/roc_simulation.{IMAGE}",
            caption="../workflow/report/roc.rst",
            category="Run {run}",
            subcategory="Performance on simulation",
            labels={"figure": "ROC"},
        ),
        confusion=report(
            f"<results>/{{run}}/evaluate/plots/confusion_simulation.{IMAGE}",
            caption="../workflow/report/confusion.rst",
            category="Run {run}",
            subcategory="Performance on simulation",
            labels={"figure": "confusion of the published network"},
        ),
        signal=report(
            f"<results>/{{run}}/evaluate/plots/signal.{IMAGE}",
            caption="../workflow/report/signal.rst",
            category="Run {run}",
            subcategory="Signals of selected tracks",
            labels={"figure": "TPC signal"},
        ),
    log:
        "<logs>/{run}/plot_run.log",
        record="<results>/{run}/provenance/plot_run.json",
    conda:
        "../envs/figures.yaml"
    resources:
        mem_mb=megabytes(1500, per_mb=8, of="datasets"),
    params:
        v0=INGEST["v0"],
        curves=CURVES,
        networks=NETWORKS,
        samples=samples_of,
        models=lambda wildcards: simulation_models(wildcards.run),
        published=PUBLISHED,
        species=CONFIG.species,
        threshold=CONFIG.evaluate.threshold,
        code=digest("plot_run.py"),
    message:
        "Run {wildcards.run}: plot response, features, training and performance"
    script:
        "../workflow/scripts/plot_run.py"


GAP_FIGURE = report(
    f"<results>/{{run}}/evaluate/plots/gap.{IMAGE}",
    caption="../workflow/report/gap.rst",
    category="Run {run}",
    subcategory="Performance on closure",
    labels={"figure": "share of the gap closed"},
)


rule plot_closure:
    input:
        dataset=rules.compute_closure.input.dataset,
        scores=rules.compute_closure.input.scores,
        metrics=rules.compute_closure.output.metrics,
    output:
        **{"gap": GAP_FIGURE} if CONFIG.adapted else {},
        performance=report(
            f"<results>/{{run}}/evaluate/plots/performance_closure.{IMAGE}",
            caption="../workflow/report/performance.rst",
            category="Run {run}",
            subcategory="Performance on closure",
            labels={"figure": "purity, efficiency, F1"},
        ),
        methods=report(
            f"<results>/{{run}}/evaluate/plots/methods_closure.{IMAGE}",
            caption="../workflow/report/methods_pt.rst",
            category="Run {run}",
            subcategory="Performance on closure",
            labels={"figure": "all methods against pT"},
        ),
        reliability=report(
            f"<results>/{{run}}/evaluate/plots/reliability_closure.{IMAGE}",
            caption="../workflow/report/reliability.rst",
            category="Run {run}",
            subcategory="Performance on closure",
            labels={"figure": "reliability of the published network"},
        ),
        roc=report(
            f"<results>/{{run}}/evaluate/plots/roc_closure.{IMAGE}",
            caption="../workflow/report/roc.rst",
            category="Run {run}",
            subcategory="Performance on closure",
            labels={"figure": "ROC"},
        ),
        confusion=report(
            f"<results>/{{run}}/evaluate/plots/confusion_closure.{IMAGE}",
            caption="../workflow/report/confusion.rst",
            category="Run {run}",
            subcategory="Performance on closure",
            labels={"figure": "confusion of the published network"},
        ),
        closure=report(
            f"<results>/{{run}}/evaluate/plots/closure.{IMAGE}",
            caption="../workflow/report/closure.rst",
            category="Run {run}",
            subcategory="Performance on closure",
            labels={"figure": "unadapted, adapted, oracle"},
        ),
    log:
        "<logs>/{run}/plot_closure.log",
        record="<results>/{run}/provenance/plot_closure.json",
    conda:
        "../envs/figures.yaml"
    resources:
        mem_mb=megabytes(1000, per_mb=8, of="dataset"),
    params:
        models=COMPARED,
        networks=NETWORKS,
        candidates=CONFIG.candidates,
        published=PUBLISHED,
        species=CONFIG.species,
        code=digest("plot_closure.py"),
    message:
        "Run {wildcards.run}: plot the closure"
    script:
        "../workflow/scripts/plot_closure.py"


rule compare_methods:
    input:
        metrics=all_metrics,
    output:
        csv="<results>/compare.csv",
        html=report(
            "<results>/compare.html",
            caption="../workflow/report/table.rst",
            category="All runs",
            labels={"figure": "table of methods"},
        ),
        figure=report(
            f"<results>/compare.{IMAGE}",
            caption="../workflow/report/comparison.rst",
            category="All runs",
            labels={"figure": "macro F1, AUC and share of ceiling"},
        ),
    log:
        "<logs>/compare_methods.log",
        record="<results>/provenance/compare_methods.json",
    conda:
        "../envs/figures.yaml"
    params:
        code=digest("compare_methods.py"),
    message:
        "Compare all methods on all runs"
    script:
        "../workflow/scripts/compare_methods.py"
