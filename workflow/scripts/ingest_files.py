"""Read a batch of input files, or a part of a large one, into track tables and tables of V0 candidates.

Input: the files, or the folders that they were fetched to. Output: a folder with Parquet files of the schemas of
`pidflow.tracks` (parameters at the collision vertex) and `pidflow.v0s`, a pair per input file.
"""

from pidflow.jobs import job

with job(snakemake):
    from pathlib import Path

    from pidflow.config.models import BadFiles, Ingest
    from pidflow.ingest.batch import ingest_batch
    from pidflow.ingest.reader import Request

    params = snakemake.params
    requests = [
        Request(
            path=path / Path(source).name if path.is_dir() else path,
            source=source,
            run=int(snakemake.wildcards.run),
            period=params.run["period"],
            recopass=params.run["pass"],
            bz=params.run["bz"],
            simulation=snakemake.wildcards.sample == "simulation",
            settings=Ingest.model_validate(params.ingest),
        )
        for path, source in zip(map(Path, snakemake.input.files), params.sources, strict=True)
    ]
    part, parts = params.part
    ingest_batch(
        requests, snakemake.output.tracks, part=part, parts=parts, policy=BadFiles.model_validate(params.policy)
    )
