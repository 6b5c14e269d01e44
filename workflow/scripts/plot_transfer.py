"""Show transfer learning: macro F1 and AUC against the share of a run's simulation that trains a network.

Input: measured trainings of every run. Output: a table as CSV, which is printed too, and a figure.
"""

from pidflow.jobs import job

with job(snakemake):
    from pidflow.evaluate.figures.transfer import plot_transfer
    from pidflow.evaluate.transfer import format_points, read_points, write_points

    points = read_points(snakemake.input.points)
    print(format_points(points), flush=True)
    write_points(points, snakemake.output.csv)
    plot_transfer(
        points,
        snakemake.output.figure,
        source=snakemake.params.source,
        title=f"Transfer learning of {snakemake.params.model}",
    )
