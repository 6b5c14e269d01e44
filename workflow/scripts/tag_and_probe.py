"""Estimate how pure the tagged legs of V0 candidates are, and draw their mass spectra.

Input: folders of V0 tables. Output: the summary and one figure.
"""

from pidflow.jobs import job

with job(snakemake):
    from pidflow.config.v0 import V0Cuts
    from pidflow.ingest.tag_and_probe import write_summary
    from pidflow.ingest.v0_figure import plot_v0s
    from pidflow.tables import find_tables

    cuts = V0Cuts.model_validate(snakemake.params.v0)
    tables = find_tables(snakemake.input.tracks, "v0s")
    summary = write_summary(tables, snakemake.output.summary, cuts=cuts)
    title = f"Run {snakemake.wildcards.run}, {snakemake.wildcards.sample}"
    plot_v0s(tables, summary, snakemake.output.figure, cuts=cuts, title=title)
