"""Generate one raw AO2D file of an example run.

Events come from Pythia 6 (simulation) or Sibyll 2.3 (pseudo-data), then pass a parametrised detector.

Output: the AO2D file; for pseudo-data also its truth, which only closure reads.
"""

from pidflow.jobs import job

with job(snakemake):
    from pidflow.simulate import simulate_file

    simulate_file(
        snakemake.output.ao2d,
        truth=snakemake.output.get("truth"),
        **snakemake.params.settings,
    )
