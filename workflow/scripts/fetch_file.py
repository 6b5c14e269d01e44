"""Copy one remote input file, and the companions that its format needs, to a local folder.

Output: a folder with the file under its own name and those companions that lie beside it on the server.
"""

from pidflow.jobs import job

with job(snakemake):
    from pidflow.ingest.remote import fetch_with_companions

    fetch_with_companions(
        snakemake.params.uri,
        snakemake.output.folder,
        snakemake.params.companions,
        retries=snakemake.params.retries,
    )
