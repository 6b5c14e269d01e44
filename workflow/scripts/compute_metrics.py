"""Purity, efficiency, F1 and AUC of each model with intervals, on the test set of a labelled dataset.

Input: dataset and score tables. Output: metrics (JSON) per model.
"""

from pidflow.jobs import job

with job(snakemake):
    from pidflow.evaluate.metrics import compute_metrics

    params = snakemake.params
    for model, scores, output in zip(params.models, snakemake.input.scores, snakemake.output.metrics, strict=True):
        compute_metrics(
            snakemake.input.dataset,
            scores,
            output,
            run=int(snakemake.wildcards.run),
            model=model,
            sample=params.sample,
            species=tuple(params.species),
            pt_edges=tuple(params.pt_edges),
            threshold=params.threshold,
            bootstrap=params.bootstrap,
            confidence=params.confidence,
            seed=params.seed,
        )
        print(f"metrics of {model} on {params.sample}", flush=True)
