"""Adapt the trained network to unlabelled data.

Input: the network, the labelled simulation and the unlabelled data. Output: the adapted model directory.
"""

from pidflow.jobs import job

with job(snakemake):
    from pidflow.train.adapt import adapt_model

    adapt_model(
        snakemake.input.model,
        snakemake.input.simulation,
        snakemake.input.data,
        snakemake.output.model,
        settings=snakemake.params.adapt,
        accelerator=snakemake.params.accelerator,
        threads=snakemake.threads,
    )
