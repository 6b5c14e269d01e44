"""Draw the TPC and TOF signals of the simulation with the calibrated expectations.

Input: track tables of the simulation and the response. Output: one figure.
"""

from pidflow.jobs import job

with job(snakemake.log[0]):
    from pidflow.dataset.response_figure import plot_response

    title = f"Run {snakemake.wildcards.run}"
    plot_response(snakemake.input.tracks, snakemake.input.response, snakemake.output.figure, title=title)
