"""Draw the TPC signal against momentum of tracks selected as each species, without and with adaptation.

Input: a dataset and the networks' score tables. Output: one figure.
"""

from pidflow.jobs import job

with job(snakemake.log[0]):
    from pidflow.evaluate.figures.signal import plot_signal

    labels = [
        "without adaptation" if model == "fse" else f"with adaptation ({model.removeprefix('fse_')})"
        for model in snakemake.params.models
    ]
    plot_signal(
        snakemake.input.dataset,
        dict(zip(labels, snakemake.input.scores, strict=True)),
        snakemake.output.signal,
        species=tuple(snakemake.params.species),
        threshold=snakemake.params.threshold,
        title=f"Run {snakemake.wildcards.run}, {snakemake.wildcards.sample}",
    )
