"""Train a model with settings that earlier trials suggest.

Input: dataset, feature list, fitted response, models that it is made of, weights that it starts from.
Output: what was chosen and how good it was (JSON). A killed trial is taken up again, one that ended is not repeated.
"""

from pidflow.jobs import job

with job(snakemake):
    from pidflow.train.tune import run_trial

    given, params = snakemake.input, snakemake.params
    run_trial(
        given.dataset,
        given.features,
        given.response,
        snakemake.output.trial,
        number=int(snakemake.wildcards.trial),
        tune=params.tune,
        settings=params.settings,
        run=int(snakemake.wildcards.run),
        species=tuple(params.species),
        masks=params.masks,
        seed=params.seed,
        code=params.code,
        threads=snakemake.threads,
        accelerator=params.accelerator,
        needed=dict(zip(params.needed, given.get("needed", ()), strict=True)),
        start=given.get("start") or None,
    )
