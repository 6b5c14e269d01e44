"""Train one model on a labelled dataset.

Input: dataset, feature list, fitted response, models that it is made of, weights that it starts from.
Output: the model directory. A killed training of a network goes on from its last epoch.
"""

from pidflow.jobs import job

with job(snakemake):
    from pidflow.train.fit import fit_model

    given, params = snakemake.input, snakemake.params
    fit_model(
        given.dataset,
        given.features,
        given.response,
        snakemake.output.model,
        run=int(snakemake.wildcards.run),
        species=tuple(params.species),
        masks=params.masks,
        seed=params.seed,
        settings=params.settings,
        threads=snakemake.threads,
        accelerator=params.accelerator,
        needed=dict(zip(params.needed, given.get("needed", ()), strict=True)),
        start=given.get("start") or None,
        adaptation=params.get("adaptation", ()),
        fraction=params.get("fraction", 1.0),
    )
