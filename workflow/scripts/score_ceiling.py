"""Score simulated tracks of the example production with the densities that they were drawn from.

Input: simulated dataset. Output: the score table, row by row as the dataset.
"""

from pidflow.jobs import job

with job(snakemake):
    from pidflow.evaluate.ceiling import score_ceiling

    score_ceiling(
        snakemake.input.dataset,
        snakemake.output.scores,
        species=tuple(snakemake.params.species),
        masks=snakemake.params.masks,
        bz=snakemake.params.bz,
    )
