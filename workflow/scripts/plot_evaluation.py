"""Draw purity, efficiency and F1 against pT, ROC curves and the confusion matrix.

Input: labelled dataset, metrics and score tables of the compared models. Output: three figures.
"""

from pidflow.jobs import job

with job(snakemake.log[0]):
    from pidflow.evaluate.figures.confusion import plot_confusion
    from pidflow.evaluate.figures.performance import plot_performance
    from pidflow.evaluate.figures.roc import plot_roc

    title = f"Run {snakemake.wildcards.run}, {snakemake.wildcards.sample}"
    plot_performance(snakemake.input.metrics, snakemake.output.performance, title=title)
    plot_roc(
        snakemake.input.dataset,
        dict(zip(snakemake.params.models, snakemake.input.scores, strict=True)),
        snakemake.output.roc,
        species=tuple(snakemake.params.species),
        title=title,
    )
    plot_confusion(
        snakemake.input.metrics[snakemake.params.confusion_of],
        snakemake.output.confusion,
        title=f"{title}: {snakemake.params.models[snakemake.params.confusion_of]}",
    )
