"""Draw the performance on pseudo-data; macro F1 and AUC without adaptation, with it, and of the oracle; the gap closed.

Input: pseudo-data with its truth, score tables and closure metrics. Output: one image per figure.
"""

from pidflow.jobs import job

with job(snakemake):
    from pidflow.evaluate.figures.closure_gap import plot_closure_gap
    from pidflow.evaluate.figures.confusion import plot_confusion
    from pidflow.evaluate.figures.methods import main_methods
    from pidflow.evaluate.figures.performance import plot_methods_pt, plot_performance
    from pidflow.evaluate.figures.reliability import plot_reliability
    from pidflow.evaluate.figures.roc import plot_roc
    from pidflow.evaluate.figures.summary import plot_closure

    given, output, params = snakemake.input, snakemake.output, snakemake.params
    title = f"Run {snakemake.wildcards.run}, closure"
    metrics = dict(zip([*params.models, "oracle"], given.metrics, strict=True))
    scores = dict(zip([*params.models, "oracle"], given.scores, strict=True))

    main = main_methods(params.models, params.published)
    plot_performance([metrics[model] for model in main], output.performance, title=title)
    plot_methods_pt(list(metrics.values()), output.methods, published=params.published, title=title)
    compared = {model: scores[model] for model in main}
    plot_roc(given.dataset, compared, output.roc, species=tuple(params.species), title=title)
    of_published = f"{title}: {params.published}"
    plot_confusion(metrics[params.published], output.confusion, title=of_published)
    plot_reliability(metrics[params.published], output.reliability, title=of_published)
    shown = {model: metrics[model] for model in [*params.networks, "oracle"]}
    plot_closure(shown, output.closure, title=f"Run {snakemake.wildcards.run}: closure on pseudo-data")
    if params.candidates:
        unadapted, adapted = params.networks
        chosen = adapted.removeprefix(f"{unadapted}_")
        plot_closure_gap(
            {name: metrics[model] for model, name in {**params.candidates, adapted: chosen}.items()},
            metrics[unadapted],
            metrics["oracle"],
            output.gap,
            chosen=chosen,
            title=f"Run {snakemake.wildcards.run}: gap to the oracle closed on pseudo-data",
        )
