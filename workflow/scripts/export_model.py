"""Export a network to one ONNX file per species and check them as O2Physics would load them.

Input: model directory and simulated dataset. Output: the bundle with ``gate.json``.
"""

from pidflow.jobs import job

with job(snakemake):
    from pidflow.publish.export import export_bundle
    from pidflow.publish.gate import check_bundle

    export_bundle(snakemake.input.model, snakemake.output.bundle)
    report = check_bundle(
        snakemake.output.bundle,
        snakemake.input.model,
        snakemake.params.tolerance,
        dataset=snakemake.input.dataset,
        seed=snakemake.params.seed,
    )
    print(f"{report['n_checks']} checks, worst difference {report['worst_difference']:.2g}", flush=True)
