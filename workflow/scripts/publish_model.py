"""Complete a bundle with card, provenance and checksums, and publish it in the local registry.

Input: bundle, model directory, metrics, accounts of the inputs, what is known of the adaptation. Output: the
publication and its registry entry.
"""

from pidflow.jobs import job

with job(snakemake):
    from pathlib import Path

    from pidflow.publish.publication import publish_bundle

    entry = publish_bundle(
        snakemake.input.bundle,
        snakemake.input.model,
        snakemake.output.publication,
        snakemake.output.entry,
        metrics={"Simulation, test set": snakemake.input.metrics[0]},
        quality=dict(zip(snakemake.params.samples, snakemake.input.quality, strict=True)),
        records=Path(snakemake.log.record).parent,
        run=snakemake.params.run,
        registry=snakemake.params.registry,
        path=snakemake.params.path,
        config=snakemake.params.config,
        code=snakemake.params.code,
        rule=snakemake.rule,
        script=Path(__file__).name,
        uncommitted=snakemake.params.uncommitted,
        batch_mb=snakemake.params.batch_mb,
        choice=snakemake.input.get("choice"),
        efficiency=snakemake.input.get("efficiency"),
    )
    done = "published" if entry.new else "already published"
    print(f"run {snakemake.wildcards.run}: {done} at {entry.path}", flush=True)
