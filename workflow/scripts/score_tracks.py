"""Score a dataset with models.

Input: model directories and dataset. Output: a score table per model, row by row as the dataset.
"""

from pidflow.jobs import job

with job(snakemake):
    from pidflow.train.score import score_dataset

    for model, output in zip(snakemake.input.models, snakemake.output.scores, strict=True):
        score_dataset(model, snakemake.input.dataset, output, threads=snakemake.threads)
