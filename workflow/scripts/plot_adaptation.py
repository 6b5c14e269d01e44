"""Draw the adaptation to data: what was fitted, the choice, what it gives on data, the shift before and after.

Input: what the adaptation made, the unadapted model and the candidates, the samples, V0 candidates. Output: one image
per figure, and the rates of the probes as JSON.
"""

from pidflow.jobs import job

with job(snakemake):
    from pidflow.adapt.response.figure import plot_calibration, plot_composition
    from pidflow.config.adapt import UNADAPTED
    from pidflow.config.v0 import V0Cuts
    from pidflow.evaluate.adapted import compared, probe_rates
    from pidflow.evaluate.figures.choice import plot_choice, plot_efficiency
    from pidflow.evaluate.figures.latent import plot_latent
    from pidflow.evaluate.figures.probes import plot_probes
    from pidflow.files import write_json
    from pidflow.tables import find_tables

    given, output, params = snakemake.input, snakemake.output, snakemake.params
    run = f"Run {snakemake.wildcards.run}"

    for number, name in enumerate(params.calibrated):
        plot_calibration(given.reports[number], output.calibration[number], title=f"{run}: calibration, {name}")
        plot_composition(given.reports[number], output.composition[number], title=f"{run}: composition, {name}")
    plot_choice(given.choice, output.choice, title=f"{run}: choice of the adaptation")
    plot_efficiency(given.efficiency, output.efficiency, title=f"{run}: efficiency to expect on data")

    models = dict(zip([UNADAPTED, *params.candidates], given.models, strict=True))
    samples = {None: given.simulation, **dict(zip(params.samples, given.samples, strict=True))}
    both = compared(given.choice, params.sample_of)
    plot_latent(
        {part.label: models[part.candidate] for part in both},
        {part.label: samples[part.sample] for part in both},
        given.data,
        output.shift,
        species=tuple(params.species),
        title=f"{run}: simulation against data",
        seed=params.seed,
    )

    if params.v0 is not None:
        tables = {sample: find_tables(given[f"v0s_{sample}"], "v0s") for sample in ("data", "simulation")}
        simulated = {None: given.probes_simulation, **dict(zip(params.samples, given.adapted_probes, strict=True))}
        series = {}
        for part in both:
            for sample, dataset in {"data": given.probes_data, "simulation": simulated[part.sample]}.items():
                series[f"{sample}, {part.label}"] = probe_rates(
                    models[part.candidate],
                    dataset,
                    tables[sample],
                    sample=sample,
                    threshold=params.threshold,
                    pt_edges=params.pt_edges,
                    confidence=params.confidence,
                    cuts=V0Cuts.model_validate(params.v0),
                )
        plot_probes(series, output.probes, title=f"{run}: V0 probes")
        write_json(output.rates, {label: rates.model_dump(mode="json") for label, rates in series.items()})
