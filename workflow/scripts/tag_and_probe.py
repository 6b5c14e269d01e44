"""Estimate how pure the tagged legs of V0 candidates are, and draw their mass spectra.

Input: V0 tables. Output: the summary and one figure.
"""

from pidflow.jobs import job

with job(snakemake.log[0]):
    from pidflow.config.v0 import V0Cuts
    from pidflow.ingest.tag_and_probe import write_summary
    from pidflow.ingest.v0_figure import plot_v0s

    cuts = V0Cuts.model_validate(snakemake.params.v0)
    tables = list(snakemake.input.v0s)
    summary = write_summary(tables, snakemake.output.summary, cuts=cuts)
    title = f"Run {snakemake.wildcards.run}, {snakemake.wildcards.sample}"
    plot_v0s(tables, summary, snakemake.output.figure, cuts=cuts, title=title)
