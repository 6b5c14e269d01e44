# Needs: model directories and datasets. Makes: score tables, metrics, figures, the table of methods.
# Closure (pseudo-data only) reads the truth files; nothing of it flows back into training or publication.


rule score_tracks:
    input:
        model=branch(
            lambda wildcards: wildcards.model == "oracle",
            then="<results>/{run}/closure/{model}",
            otherwise="<results>/{run}/train/{model}",
        ),
        dataset="<results>/{run}/dataset/{sample}.parquet",
    output:
        scores="<results>/{run}/evaluate/scores/{model}_{sample}.parquet",
    log:
        "<logs>/{run}/score_tracks/{model}_{sample}.log",
        record="<results>/{run}/provenance/score_tracks/{model}_{sample}.json",
    benchmark:
        "<benchmarks>/{run}/score_tracks/{model}_{sample}.jsonl"
    wildcard_constraints:
        sample="simulation|data",
    group:
        "evaluate"
    conda:
        "../envs/models.yaml"
    resources:
        mem_mb=1500,
        runtime=60,
    params:
        code=digest("score_tracks.py"),
    message:
        "Run {wildcards.run}: score {wildcards.sample} with {wildcards.model}"
    script:
        "../workflow/scripts/score_tracks.py"


rule attach_truth:
    input:
        dataset="<results>/{run}/dataset/data.parquet",
        truth=lambda wildcards: list(truth_files(wildcards).values()),
    output:
        dataset="<results>/{run}/closure/tracks.parquet",
    log:
        "<logs>/{run}/attach_truth.log",
        record="<results>/{run}/provenance/attach_truth.json",
    benchmark:
        "<benchmarks>/{run}/attach_truth.jsonl"
    conda:
        "../envs/tables.yaml"
    resources:
        mem_mb=megabytes(1000, 6),
        runtime=20,
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
    output:
        model=directory("<results>/{run}/closure/{model}"),
    wildcard_constraints:
        model="oracle",
    params:
        kind="fse",
        species=CONFIG.species,
        masks=settings(CONFIG.dataset.masks),
        seed=CONFIG.seed,
        settings=settings(CONFIG.models.fse),
        code=digest("train_model.py"),
    message:
        "Run {wildcards.run}: train the oracle on the pseudo-data's truth, for closure"


rule compute_metrics:
    input:
        dataset=labelled_tracks,
        scores=lambda wildcards: scores_of(wildcards.run, wildcards.model, wildcards.sample),
    output:
        metrics="<results>/{run}/evaluate/metrics/{model}_{sample}.json",
    log:
        "<logs>/{run}/compute_metrics/{model}_{sample}.log",
        record="<results>/{run}/provenance/compute_metrics/{model}_{sample}.json",
    benchmark:
        "<benchmarks>/{run}/compute_metrics/{model}_{sample}.jsonl"
    wildcard_constraints:
        sample="simulation|closure",
    group:
        "evaluate"
    conda:
        "../envs/tables.yaml"
    resources:
        mem_mb=megabytes(1000, 8),
        runtime=30,
    params:
        species=CONFIG.species,
        pt_edges=CONFIG.evaluate.pt_edges,
        threshold=CONFIG.evaluate.threshold,
        bootstrap=CONFIG.evaluate.bootstrap,
        confidence=CONFIG.evaluate.confidence,
        seed=CONFIG.seed,
        code=digest("compute_metrics.py"),
    message:
        "Run {wildcards.run}: metrics of {wildcards.model} on {wildcards.sample}"
    script:
        "../workflow/scripts/compute_metrics.py"


rule plot_evaluation:
    input:
        dataset=labelled_tracks,
        metrics=lambda wildcards: metrics_of(wildcards.run, COMPARED, wildcards.sample),
        scores=lambda wildcards: [scores_of(wildcards.run, model, wildcards.sample) for model in COMPARED],
    output:
        performance=report(
            f"<results>/{{run}}/evaluate/plots/performance_{{sample}}.{IMAGE}",
            caption="../workflow/report/performance.rst",
            category="Run {run}",
            subcategory="Performance on {sample}",
            labels={"figure": "purity, efficiency, F1"},
        ),
        roc=report(
            f"<results>/{{run}}/evaluate/plots/roc_{{sample}}.{IMAGE}",
            caption="../workflow/report/roc.rst",
            category="Run {run}",
            subcategory="Performance on {sample}",
            labels={"figure": "ROC"},
        ),
        confusion=report(
            f"<results>/{{run}}/evaluate/plots/confusion_{{sample}}.{IMAGE}",
            caption="../workflow/report/confusion.rst",
            category="Run {run}",
            subcategory="Performance on {sample}",
            labels={"figure": "confusion of the published network"},
        ),
    log:
        "<logs>/{run}/plot_evaluation/{sample}.log",
        record="<results>/{run}/provenance/plot_evaluation/{sample}.json",
    benchmark:
        "<benchmarks>/{run}/plot_evaluation/{sample}.jsonl"
    wildcard_constraints:
        sample="simulation|closure",
    conda:
        "../envs/figures.yaml"
    resources:
        mem_mb=megabytes(1000, 8),
        runtime=20,
    params:
        models=COMPARED,
        confusion_of=COMPARED.index(PUBLISHED),
        species=CONFIG.species,
        code=digest("plot_evaluation.py"),
    message:
        "Run {wildcards.run}: plot the performance on {wildcards.sample}"
    script:
        "../workflow/scripts/plot_evaluation.py"


rule plot_training:
    input:
        models=lambda wildcards: collect("<results>/{run}/train/{model}", run=wildcards.run, model=NETWORKS),
    output:
        history=report(
            f"<results>/{{run}}/evaluate/plots/history.{IMAGE}",
            caption="../workflow/report/history.rst",
            category="Run {run}",
            subcategory="Training",
            labels={"figure": "learning curves"},
        ),
    log:
        "<logs>/{run}/plot_training.log",
        record="<results>/{run}/provenance/plot_training.json",
    benchmark:
        "<benchmarks>/{run}/plot_training.jsonl"
    conda:
        "../envs/figures.yaml"
    resources:
        mem_mb=800,
        runtime=10,
    params:
        models=NETWORKS,
        code=digest("plot_training.py"),
    message:
        "Run {wildcards.run}: plot learning curves"
    script:
        "../workflow/scripts/plot_training.py"


rule plot_signal:
    input:
        dataset="<results>/{run}/dataset/{sample}.parquet",
        scores=lambda wildcards: [scores_of(wildcards.run, model, wildcards.sample) for model in NETWORKS],
    output:
        signal=report(
            f"<results>/{{run}}/evaluate/plots/signal_{{sample}}.{IMAGE}",
            caption="../workflow/report/signal.rst",
            category="Run {run}",
            subcategory="Signals of selected tracks",
            labels={"figure": "TPC signal in {sample}"},
        ),
    log:
        "<logs>/{run}/plot_signal/{sample}.log",
        record="<results>/{run}/provenance/plot_signal/{sample}.json",
    benchmark:
        "<benchmarks>/{run}/plot_signal/{sample}.jsonl"
    wildcard_constraints:
        sample="simulation|data",
    conda:
        "../envs/figures.yaml"
    resources:
        mem_mb=megabytes(1000, 8),
        runtime=20,
    params:
        models=NETWORKS,
        species=CONFIG.species,
        threshold=CONFIG.evaluate.threshold,
        code=digest("plot_signal.py"),
    message:
        "Run {wildcards.run}: plot the TPC signal of selected tracks in {wildcards.sample}"
    script:
        "../workflow/scripts/plot_signal.py"


rule plot_closure:
    input:
        metrics=lambda wildcards: metrics_of(wildcards.run, [*NETWORKS, "oracle"], "closure"),
    output:
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
    benchmark:
        "<benchmarks>/{run}/plot_closure.jsonl"
    conda:
        "../envs/figures.yaml"
    resources:
        mem_mb=800,
        runtime=10,
    params:
        models=[*NETWORKS, "oracle"],
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
            labels={"figure": "macro F1 of every method"},
        ),
    log:
        "<logs>/compare_methods.log",
        record="<results>/provenance/compare_methods.json",
    benchmark:
        "<benchmarks>/compare_methods.jsonl"
    conda:
        "../envs/figures.yaml"
    resources:
        mem_mb=1000,
        runtime=20,
    params:
        code=digest("compare_methods.py"),
    message:
        "Compare all methods on all runs"
    script:
        "../workflow/scripts/compare_methods.py"
