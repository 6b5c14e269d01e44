"""Purity, efficiency, F1 and AUC with intervals, on the test set of a labelled dataset.

Input: dataset and score table. Output: metrics (JSON).
"""

from pidflow.jobs import job

with job(snakemake.log[0]):
    from pidflow.evaluate.metrics import compute_metrics

    compute_metrics(
        snakemake.input.dataset,
        snakemake.input.scores,
        snakemake.output.metrics,
        run=int(snakemake.wildcards.run),
        model=snakemake.wildcards.model,
        sample=snakemake.wildcards.sample,
        species=tuple(snakemake.params.species),
        pt_edges=tuple(snakemake.params.pt_edges),
        threshold=snakemake.params.threshold,
        bootstrap=snakemake.params.bootstrap,
        confidence=snakemake.params.confidence,
        seed=snakemake.params.seed,
    )
