"""Tabulate and draw what the jobs of the production asked for and used.

Input: none but the records that the jobs left. Output: a table (CSV) and a figure; the table is printed too.
"""

from pidflow.jobs import job

with job(snakemake):
    from pidflow.evaluate.figures.resources import plot_resources
    from pidflow.resource_use import format_table, resource_use, write_csv

    uses = resource_use(snakemake.params.records)
    write_csv(uses, snakemake.output.csv)
    plot_resources(uses, snakemake.output.figure)
    print(format_table(uses), flush=True)
