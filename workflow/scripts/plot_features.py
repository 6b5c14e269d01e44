"""Draw the feature ranking with its spread over folds, and SHAP values per species.

Input: feature list and SHAP values. Output: one figure.
"""

from pidflow.jobs import job

with job(snakemake.log[0]):
    from pidflow.dataset.feature_figure import plot_ranking
    from pidflow.dataset.ranking import Ranking
    from pidflow.files import read_json

    plot_ranking(
        Ranking.read(snakemake.input.shap),
        read_json(snakemake.input.features)["features"],
        snakemake.output.figure,
        title=f"Run {snakemake.wildcards.run}: feature ranking",
    )
