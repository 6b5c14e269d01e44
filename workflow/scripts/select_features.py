"""Rank the candidate features by SHAP values of boosted trees and keep the best.

Input: the simulated dataset, and the data's for the domain-shift score. Output: ``features.json``, SHAP values.
"""

from pidflow.jobs import job

with job(snakemake):
    from pidflow.config.models import Features
    from pidflow.dataset.features import select_features

    ranking = select_features(
        snakemake.input.simulation,
        snakemake.input.get("data"),
        snakemake.output.features,
        species=tuple(snakemake.params.species),
        settings=Features.model_validate(snakemake.params.features),
        seed=snakemake.params.seed,
    )
    ranking.write(snakemake.output.shap)
