"""Check the input files of a sample together, and tell how pure its tagged legs of V0 candidates are.

Input: folders of track tables and V0 candidates. Output: JSON of `pidflow.ingest.inputs`, and of
`pidflow.ingest.tag_and_probe` where V0 candidates were searched.
"""

from pidflow.jobs import job

with job(snakemake):
    from pidflow.config.models import BadFiles
    from pidflow.config.v0 import V0Cuts
    from pidflow.ingest.inputs import check_inputs
    from pidflow.tables import find_tables

    folders, output = snakemake.input.tracks, snakemake.output
    check_inputs(
        find_tables(folders, "tracks"),
        output.inputs,
        policy=BadFiles.model_validate(snakemake.params.policy),
    )
    if snakemake.params.v0 is not None:
        from pidflow.ingest.tag_and_probe import write_summary

        write_summary(find_tables(folders, "v0s"), output.v0s, cuts=V0Cuts.model_validate(snakemake.params.v0))
