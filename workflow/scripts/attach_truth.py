"""Join the pseudo-data's separate truth to its dataset, for closure only.

Input: the data's dataset and the truth files. Output: the dataset with labels.
"""

from pidflow.jobs import job

with job(snakemake):
    from pidflow.evaluate.closure import attach_truth

    attach_truth(snakemake.input.dataset, snakemake.params.truth, snakemake.output.dataset)
