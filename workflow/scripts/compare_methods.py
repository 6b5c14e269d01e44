"""Compare all methods on all runs.

Input: metrics. Output: the table as CSV and HTML, a figure; the table is printed too.
"""

from pidflow.jobs import job

with job(snakemake):
    from pidflow.evaluate.figures.summary import plot_comparison
    from pidflow.evaluate.tables import compare_methods, format_table

    rows = compare_methods(snakemake.input.metrics, snakemake.output.csv, snakemake.output.html)
    print(format_table(rows), flush=True)
    plot_comparison(snakemake.input.metrics, snakemake.output.figure)
