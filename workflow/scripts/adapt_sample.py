"""Make the simulated sample look like the run's data.

Input: the simulated dataset, the unlabelled one of data, the fitted response. Output: the adapted dataset, and what was
found on the way.
"""

from pidflow.jobs import job

with job(snakemake):
    from pathlib import Path

    from pidflow.adapt.sample import adapt_sample
    from pidflow.adapt.steps.base import Surroundings

    given, params = snakemake.input, snakemake.params
    adapt_sample(
        given.simulation,
        given.data,
        snakemake.output.dataset,
        snakemake.output.report,
        snakemake.output.variations,
        settings=params.step,
        probes={given.probes: snakemake.output.probes} if given.get("probes") else None,
        surroundings=Surroundings(
            run=int(snakemake.wildcards.run),
            species=tuple(params.species),
            masks=params.masks,
            response=Path(given.response),
            seed=params.seed,
        ),
    )
