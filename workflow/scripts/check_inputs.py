"""Check the input files of a sample together: what was skipped, and whether a data frame came twice.

Input: track tables. Output: JSON of `pidflow.ingest.inputs`.
"""

from pidflow.jobs import job

with job(snakemake):
    from pidflow.config.models import BadFiles
    from pidflow.ingest.inputs import check_inputs
    from pidflow.tables import find_tables

    check_inputs(
        find_tables(snakemake.input.tracks, "tracks"),
        snakemake.output.inputs,
        policy=BadFiles.model_validate(snakemake.params.policy),
    )
