# From raw files to published particle-identification models, one per data-taking run.
#
#   snakemake                    all runs of the run table
#   snakemake --profile slurm    the same on a cluster
#   snakemake report             the HTML report
#   snakemake compare            the table of methods
#   snakemake transfer           the study of transfer learning
#   snakemake tune               the search for better settings of a model
#   snakemake crate              the production as an RO-Crate
#   snakemake reproduce --config run=<run>   a published model again, compared file by file

from snakemake.utils import min_version

min_version("9.27")


configfile: "config/config.yaml"


report: "workflow/report/workflow.rst"


include: "rules/common.smk"
include: "rules/simulate.smk"
include: "rules/ingest.smk"
include: "rules/dataset.smk"
include: "rules/train.smk"
include: "rules/adapt.smk"
include: "rules/evaluate.smk"
include: "rules/publish.smk"
include: "rules/studies.smk"
include: "rules/provenance.smk"


rule all:
    default_target: True
    input:
        collect("<registry>/runs/{run}.json", run=RUNS),
        "<results>/report.html",


rule compare:
    input:
        rules.compare_methods.output.csv,


rule report:
    input:
        rules.write_report.output.html,
