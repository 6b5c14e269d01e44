"""Measure the networks of the transfer study that one run's simulation trained, on its test set.

Input: dataset, the model that they start from, their model directories. Output: F1 and AUC of each (JSON).
"""

from pidflow.jobs import job

with job(snakemake):
    from pidflow.evaluate.transfer import score_transfer

    params = snakemake.params
    keys = [(start, float(share)) for start, share in params.trainings]
    score_transfer(
        snakemake.input.dataset,
        snakemake.input.source,
        dict(zip(keys, snakemake.input.models, strict=True)),
        dict(zip(keys, params.records, strict=True)),
        snakemake.output.points,
        run=int(snakemake.wildcards.run),
        threads=snakemake.threads,
        pt_edges=tuple(params.pt_edges),
        threshold=params.threshold,
        bootstrap=params.bootstrap,
        confidence=params.confidence,
        seed=params.seed,
    )
