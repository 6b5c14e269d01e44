"""Train a network further on labelled simulation and unlabelled data.

Input: the network, the simulated dataset and that of data. Output: the adapted model directory.
"""

from pidflow.jobs import job

with job(snakemake):
    from pidflow.adapt.network import adapt_network

    adapt_network(
        snakemake.input.model,
        snakemake.input.simulation,
        snakemake.input.data,
        snakemake.output.model,
        settings=snakemake.params.step,
        accelerator=snakemake.params.accelerator,
        threads=snakemake.threads,
    )
