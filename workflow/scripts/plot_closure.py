"""Draw macro F1 and AUC on pseudo-data without adaptation, with it, and of the oracle.

Input: closure metrics. Output: one figure.
"""

from pidflow.jobs import job

with job(snakemake.log[0]):
    from pidflow.evaluate.figures.summary import plot_closure

    plot_closure(
        dict(zip(snakemake.params.models, snakemake.input.metrics, strict=True)),
        snakemake.output.closure,
        title=f"Run {snakemake.wildcards.run}: closure on pseudo-data",
    )
