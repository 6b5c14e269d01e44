"""Read one input file (raw AO2D or a flat table) into a track table.

Input: the file. Output: Parquet with the schema of `pidflow.tracks`, parameters at the collision vertex.
"""

from pidflow.jobs import job

with job(snakemake.log[0]):
    from pidflow.config.models import Ingest
    from pidflow.ingest.read import ingest_file

    counts = ingest_file(
        snakemake.input.file,
        snakemake.output.tracks,
        source=snakemake.params.source,
        run=int(snakemake.wildcards.run),
        bz=snakemake.params.bz,
        simulation=snakemake.wildcards.sample == "simulation",
        settings=Ingest.model_validate(snakemake.params.ingest),
    )
    print(f"{snakemake.params.source}: {counts}", flush=True)
