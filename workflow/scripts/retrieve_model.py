"""Retrieve the weights of a published network.

Output: its model directory.
"""

from pidflow.jobs import job

with job(snakemake):
    from pidflow.publish.retrieve import retrieve_model

    retrieve_model(snakemake.params.source, snakemake.output.model)
