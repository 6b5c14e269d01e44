"""Score a dataset with a model.

Input: model directory and dataset. Output: the score table, row by row as the dataset.
"""

from pidflow.jobs import job

with job(snakemake):
    from pidflow.train.score import score_dataset

    score_dataset(snakemake.input.model, snakemake.input.dataset, snakemake.output.scores, threads=snakemake.threads)
