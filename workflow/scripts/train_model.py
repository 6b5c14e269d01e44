"""Train one model on a labelled dataset: the network, boosted trees, or the nσ reference.

Input: dataset and feature list. Output: the model directory. A killed training goes on from its last epoch.
"""

from pidflow.jobs import job

with job(snakemake):
    from pidflow.train.fit import fit_model

    fit_model(
        snakemake.input.dataset,
        snakemake.input.features,
        snakemake.output.model,
        kind=snakemake.params.kind,
        run=int(snakemake.wildcards.run),
        species=tuple(snakemake.params.species),
        masks=snakemake.params.masks,
        seed=snakemake.params.seed,
        settings=snakemake.params.settings,
        threads=snakemake.threads,
    )
