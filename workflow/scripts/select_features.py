"""Rank the candidate features by SHAP values of boosted trees and keep the best.

Input: the simulated dataset, and the data's for the domain-shift score. Output: ``features.json``, a figure.
"""

from pidflow.jobs import job

with job(snakemake.log[0]):
    from pidflow.config.models import Features
    from pidflow.dataset.feature_figure import plot_ranking
    from pidflow.dataset.features import select_features
    from pidflow.files import read_json

    ranking = select_features(
        snakemake.input.simulation,
        snakemake.input.get("data"),
        snakemake.output.features,
        species=tuple(snakemake.params.species),
        settings=Features.model_validate(snakemake.params.features),
        seed=snakemake.params.seed,
    )
    plot_ranking(
        ranking,
        read_json(snakemake.output.features)["features"],
        snakemake.output.figure,
        title=f"Run {snakemake.wildcards.run}: feature ranking",
    )
