"""Complete a bundle with card, provenance and checksums, and publish it in the local registry.

Input: bundle, model directory, metrics, account of the inputs. Output: the publication and its registry entry.
"""

from pidflow.jobs import job

with job(snakemake.log[0]):
    from pidflow.publish.publication import publish_bundle

    entry = publish_bundle(
        snakemake.input.bundle,
        snakemake.input.model,
        snakemake.output.publication,
        snakemake.output.entry,
        metrics={"Simulation, test set": snakemake.input.metrics[0]},
        quality=snakemake.input.quality,
        run=snakemake.params.run,
        registry=snakemake.params.registry,
        path=snakemake.params.path,
        threshold=snakemake.params.threshold,
        selection=snakemake.params.selection,
        config=snakemake.params.config,
        seed=snakemake.params.seed,
        code=snakemake.params.code,
        repository=snakemake.params.repository,
    )
    done = "published" if entry.new else "already published"
    print(f"run {snakemake.wildcards.run}: {done} at {entry.path}", flush=True)
