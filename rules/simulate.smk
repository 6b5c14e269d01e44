# Needs: nothing. Makes: the example runs' raw AO2D files, if the run table asks for them.

from zlib import crc32

EXAMPLE = CONFIG.example.folder


def example_settings(wildcards):
    run = run_row(wildcards)
    data = wildcards.kind == "data"
    return {
        "run": run.run,
        "bz": run.bz,
        "sample": "data" if data else "simulation",
        "events": CONFIG.example.events_per_file,
        "frames": CONFIG.example.frames_per_file,
        "seed": crc32(f"{CONFIG.seed}/{run.run}/{wildcards.kind}/{wildcards.number}".encode()),
        "shift": CONFIG.example.shifts.get(run.run, "none"),
    }


rule simulate_simulation:
    output:
        ao2d=f"{EXAMPLE}/{{run}}/{{kind}}_{{number}}.root",
    params:
        settings=example_settings,
        code=digest("simulate_ao2d.py"),
    wildcard_constraints:
        kind="simulation",
        number=r"\d{3}",
    log:
        "<logs>/{run}/simulate_ao2d/{kind}_{number}.log",
    benchmark:
        "<benchmarks>/{run}/simulate_ao2d/{kind}_{number}.jsonl"
    resources:
        mem_mb=lambda wildcards, attempt: attempt * 1500,
        runtime=30,
    conda:
        "../envs/simulate.yaml"
    message:
        "Run {wildcards.run}: generate {wildcards.kind} file {wildcards.number}"
    script:
        "../workflow/scripts/simulate_ao2d.py"


use rule simulate_simulation as simulate_data with:
    output:
        ao2d=f"{EXAMPLE}/{{run}}/{{kind}}_{{number}}.root",
        truth=f"{EXAMPLE}/{{run}}/{{kind}}_{{number}}.truth.parquet",
    wildcard_constraints:
        kind="data",
        number=r"\d{3}",
