"""Draw a run's V0 samples, detector response, features, training, performance on simulation and selected tracks.

Input: what the run's earlier stages made. Output: one image per figure.
"""

from pidflow.jobs import job

with job(snakemake):
    from itertools import product
    from pathlib import Path

    from pidflow.config.v0 import V0Cuts
    from pidflow.dataset.feature_figure import plot_ranking
    from pidflow.dataset.ranking import Ranking
    from pidflow.dataset.response_figure import plot_response
    from pidflow.evaluate.figures.confusion import plot_confusion
    from pidflow.evaluate.figures.history import plot_history
    from pidflow.evaluate.figures.methods import main_methods
    from pidflow.evaluate.figures.performance import plot_methods_pt, plot_performance
    from pidflow.evaluate.figures.reliability import plot_reliability
    from pidflow.evaluate.figures.roc import plot_roc
    from pidflow.evaluate.figures.signal import Selection, plot_signal
    from pidflow.files import read_json
    from pidflow.ingest.v0_figure import V0Sample, plot_v0s
    from pidflow.model import HISTORY_FILE
    from pidflow.tables import find_tables

    given, output, params = snakemake.input, snakemake.output, snakemake.params
    run, species = f"Run {snakemake.wildcards.run}", tuple(params.species)

    if params.v0 is not None:
        v0s = [
            V0Sample(sample, find_tables(getattr(given, sample), "v0s"), read_json(summary))
            for sample, summary in zip(params.samples, given.v0s, strict=True)
        ]
        plot_v0s(v0s, output.v0s, cuts=V0Cuts.model_validate(params.v0), title=run)
    plot_response(find_tables(given.simulation, "tracks"), given.response, output.response, title=run)
    plot_ranking(
        Ranking.read(given.shap),
        read_json(given.features)["features"],
        output.features,
        title=f"{run}: feature ranking",
    )
    if params.curves:
        curves = {
            model: Path(folder) / HISTORY_FILE for model, folder in zip(params.curves, given.networks, strict=True)
        }
        plot_history(curves, output.history, title=run)

    title = f"{run}, simulation"
    metrics = dict(zip(params.models, given.metrics, strict=True))
    scores = dict(zip(params.models, given.scores, strict=True))
    main = main_methods(params.models, params.published)
    plot_performance([metrics[model] for model in main], output.performance, title=title)
    plot_methods_pt(given.metrics, output.methods, published=params.published, title=title)
    simulation = given.datasets[params.samples.index("simulation")]
    plot_roc(simulation, {model: scores[model] for model in main}, output.roc, species=species, title=title)
    of_published = f"{title}: {params.published}"
    plot_confusion(metrics[params.published], output.confusion, title=of_published)
    plot_reliability(metrics[params.published], output.reliability, title=of_published)

    unadapted = params.networks[0]
    adaptation = {unadapted: "unadapted"} | {m: m.removeprefix(f"{unadapted}_") for m in params.networks[1:]}
    of_sample = dict(zip(params.samples, given.datasets, strict=True))
    selections = [
        Selection(f"{sample}, {adaptation[model]}", of_sample[sample], table)
        for (sample, model), table in zip(product(params.samples, params.networks), given.signals, strict=True)
    ]
    plot_signal(selections, output.signal, species=species, threshold=params.threshold, title=run)
