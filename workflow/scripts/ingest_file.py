"""Read one input file, or a part of it, into a track table and a table of V0 candidates.

Input: the file, or the folder that it was fetched to. Output: Parquet with the schemas of `pidflow.tracks` (parameters
at the collision vertex) and `pidflow.v0s`.
"""

from pidflow.jobs import job

with job(snakemake.log[0]):
    from pathlib import Path

    from pidflow.config.models import BadFiles, Ingest
    from pidflow.errors import PidflowError
    from pidflow.ingest.read import ingest_file, skip_file
    from pidflow.ingest.reader import Request

    params, output = snakemake.params, snakemake.output
    path = Path(snakemake.input.file)
    request = Request(
        path=path / Path(params.source).name if path.is_dir() else path,
        source=params.source,
        run=int(snakemake.wildcards.run),
        period=params.run["period"],
        recopass=params.run["pass"],
        bz=params.run["bz"],
        simulation=snakemake.wildcards.sample == "simulation",
        settings=Ingest.model_validate(params.ingest),
    )
    part, parts = params.part
    try:
        ingested = ingest_file(request, output.tracks, output.v0s, part=part, parts=parts)
        print(f"{params.source}: {ingested.format}, {dict(ingested.counts)}", flush=True)
    except PidflowError as error:
        if BadFiles.model_validate(params.policy).policy == "fail":
            raise
        skip_file(request, output.tracks, output.v0s, error)
        print(f"skipped: {error}", flush=True)
