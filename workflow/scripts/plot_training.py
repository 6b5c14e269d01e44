"""Draw the learning curves of the networks.

Input: model directories. Output: one figure.
"""

from pidflow.jobs import job

with job(snakemake.log[0]):
    from pathlib import Path

    from pidflow.evaluate.figures.history import plot_history
    from pidflow.model import HISTORY_FILE

    folders = zip(snakemake.params.models, snakemake.input.models, strict=True)
    plot_history(
        {model: Path(folder) / HISTORY_FILE for model, folder in folders},
        snakemake.output.history,
        title=f"Run {snakemake.wildcards.run}",
    )
