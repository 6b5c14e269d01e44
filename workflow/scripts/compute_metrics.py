"""Purity, efficiency, F1, AUC and calibration of each model with intervals, on the test set of a labelled dataset.

Input: dataset and score tables. Output: metrics (JSON) per model.
"""

from pidflow.jobs import job

with job(snakemake):
    from pidflow.evaluate.metrics import compute_metrics

    params = snakemake.params
    computed = compute_metrics(
        snakemake.input.dataset,
        dict(zip(params.models, snakemake.input.scores, strict=True)),
        dict(zip(params.models, snakemake.output.metrics, strict=True)),
        run=int(snakemake.wildcards.run),
        sample=params.sample,
        species=tuple(params.species),
        pt_edges=tuple(params.pt_edges),
        threshold=params.threshold,
        bootstrap=params.bootstrap,
        confidence=params.confidence,
        seed=params.seed,
        equalise=params.get("equalise"),
    )
    thinned = next(iter(computed.values())).equalised
    if thinned is not None:
        kept = ", ".join(f"{pdg}: {share:.1%}" for pdg, share in thinned.kept.items())
        print(f"kept with {', '.join(thinned.variables)} alike for all species: {kept}")
    for model, metrics in computed.items():
        print(f"{model} on {metrics.n_tracks} tracks of {params.sample}: macro AUC {metrics.macro.auc.value:.4f}")
