"""Describe the production as an RO-Crate.

Input: publications, report, table of methods, configuration, run table, the workflow's own files. Output: a ZIP file.
"""

from pidflow.jobs import job

with job(snakemake):
    from pidflow.publish.crate import write_crate

    files = snakemake.input
    write_crate(
        snakemake.output.crate,
        root=snakemake.params.root,
        code=files.code,
        records=snakemake.params.records,
        publications=dict(zip(snakemake.params.runs, files.publications, strict=True)),
        files={
            "configuration as merged": files.config,
            "run table": files.runs,
            "report": files.report,
            "table of methods": files.compare,
        },
    )
