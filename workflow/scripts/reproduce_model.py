"""Make the published model of a run again in a clean folder, and compare every file of every step.

Input: the registry. Output: the verdict as JSON; a difference ends the job with one sentence.
"""

from pidflow.jobs import job

with job(snakemake):
    from pathlib import Path

    from pidflow.publish.reproduce import reproduce

    params = snakemake.params
    folder = Path(params.folder)
    reproduce(
        params.run,
        params.registry,
        folder / f"{params.run}.json",
        folder / str(params.run),
        cores=snakemake.threads,
        options=params.options,
    )
