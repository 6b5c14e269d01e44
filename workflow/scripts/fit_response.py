"""Calibrate the expected TPC and TOF signals on a run's labelled simulation.

Input: track tables of the simulation. Output: ``response.json`` and a figure of the fit.
"""

from pidflow.jobs import job

with job(snakemake.log[0]):
    from pidflow.config.models import Split
    from pidflow.dataset.response import fit_response
    from pidflow.dataset.response_figure import plot_response

    fit_response(snakemake.input.tracks, snakemake.output.response, split=Split.model_validate(snakemake.params.split))
    plot_response(
        snakemake.input.tracks,
        snakemake.output.response,
        snakemake.output.figure,
        title=f"Run {snakemake.wildcards.run}",
    )
