"""Calibrate the expected TPC and TOF signals on a run's labelled simulation.

Input: track tables of the simulation. Output: ``response.json``.
"""

from pidflow.jobs import job

with job(snakemake):
    from pidflow.config.models import Split
    from pidflow.dataset.response import fit_response
    from pidflow.tables import find_tables

    fit_response(
        find_tables(snakemake.input.tracks, "tracks"),
        snakemake.output.response,
        split=Split.model_validate(snakemake.params.split),
    )
