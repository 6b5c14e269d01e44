"""Write the configuration as merged from all files and options."""

from pidflow.jobs import job

with job(snakemake):
    import yaml

    from pidflow.files import write_text

    write_text(snakemake.output.config, yaml.safe_dump(snakemake.params.config, sort_keys=False, allow_unicode=True))
