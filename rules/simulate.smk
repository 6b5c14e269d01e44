# Needs: nothing. Makes: the example runs' raw AO2D files, if the run table asks for them.


rule simulate_simulation:
    output:
        ao2d=f"{CONFIG.example.folder}/{{run}}/{{kind}}_{{number}}.root",
    log:
        "<logs>/{run}/simulate_ao2d/{kind}_{number}.log",
        record="<results>/{run}/provenance/simulate_ao2d/{kind}_{number}.json",
    wildcard_constraints:
        kind="simulation",
        number=r"\d{3}",
    conda:
        "../envs/simulate.yaml"
    resources:
        mem_mb=megabytes(1500),
    params:
        settings=example_settings,
        code=digest("simulate_ao2d.py"),
    message:
        "Run {wildcards.run}: generate {wildcards.kind} file {wildcards.number}"
    script:
        "../workflow/scripts/simulate_ao2d.py"


use rule simulate_simulation as simulate_data with:
    output:
        ao2d=f"{CONFIG.example.folder}/{{run}}/{{kind}}_{{number}}.root",
        truth=f"{CONFIG.example.folder}/{{run}}/{{kind}}_{{number}}.truth.parquet",
    wildcard_constraints:
        kind="data",
        number=r"\d{3}",
