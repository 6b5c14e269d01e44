"""Select tracks, add nσ, apply the detector masks and assign each collision to a set.

Input: track tables and response. Output: the dataset, that of the legs of V0 candidates, and the
account of what was kept.
"""

from pidflow.jobs import job

with job(snakemake):
    from pidflow.config.models import Dataset
    from pidflow.dataset.build import build_dataset
    from pidflow.tables import find_tables

    build_dataset(
        find_tables(snakemake.input.tracks, "tracks"),
        snakemake.input.response,
        snakemake.input.inputs,
        snakemake.output.dataset,
        snakemake.output.quality,
        v0s=find_tables(snakemake.input.tracks, "v0s"),
        probes=snakemake.output.get("probes"),
        settings=Dataset.model_validate(snakemake.params.dataset),
    )
