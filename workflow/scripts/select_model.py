"""Choose among the candidates of adaptation, without a label of data.

Input: the unadapted model and the candidates, the samples, V0 candidates. Output: the chosen model, the reasons, and
the efficiencies that an analyser may expect.
"""

from pidflow.jobs import job

with job(snakemake):
    from pathlib import Path

    from pidflow.adapt.choice.select import Adapted, select_model
    from pidflow.config.adapt import UNADAPTED, Choice
    from pidflow.config.v0 import V0Cuts
    from pidflow.tables import find_tables

    given, output, params = snakemake.input, snakemake.output, snakemake.params
    tagged = params.v0 is not None
    adapted_probes = given.get("adapted_probes") or [None] * len(params.samples)
    parts = zip(given.samples, given.variations, adapted_probes, strict=True)
    select_model(
        dict(zip([UNADAPTED, *params.candidates], given.models, strict=True)),
        given.simulation,
        given.data,
        {
            name: Adapted(Path(dataset), Path(variations), Path(probes) if probes else None)
            for name, (dataset, variations, probes) in zip(params.samples, parts, strict=True)
        },
        output.model,
        output.choice,
        output.efficiency,
        method=params.method,
        trained_on=params.trained_on,
        settings=Choice.model_validate(params.choice),
        v0s={s: find_tables(given.get(f"v0s_{s}"), "v0s") for s in ("simulation", "data")} if tagged else None,
        probes={s: given.get(f"probes_{s}") for s in ("simulation", "data")} if tagged else {},
        cuts=V0Cuts.model_validate(params.v0 or {}),
        pt_edges=params.pt_edges,
        threshold=params.threshold,
        bootstrap=params.bootstrap,
        confidence=params.confidence,
        seed=params.seed,
        threads=snakemake.threads,
    )
