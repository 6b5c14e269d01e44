"""Write the self-contained HTML report.

Input: all figures and tables, and the configuration as merged. Output: one HTML file. The engine's own
report generator does the work, in a process of its own, on what the production has left on disk.
"""

from pidflow.jobs import job

with job(snakemake):
    import subprocess
    import sys

    from pidflow.errors import PidflowError
    from pidflow.files import replacing

    with replacing(snakemake.output.html) as temporary:
        command = [sys.executable, "-m", "snakemake", "--snakefile", snakemake.params.snakefile]
        command += ["--configfile", snakemake.input.config, "--nolock", "--report", str(temporary), "report_content"]
        if subprocess.run(command, check=False).returncode:
            raise PidflowError(f"{snakemake.output.html}: the report could not be written; {snakemake.log[0]} says why")
