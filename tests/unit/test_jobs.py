"""What a script shows and logs, seen from outside its process."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pidflow

SCRIPTS = Path(pidflow.__file__).parents[1]
STAND_IN = """
import os, sys
from types import SimpleNamespace
from pidflow.errors import PidflowError
from pidflow.jobs import job

class Named(list):
    def __init__(self, **named):
        super().__init__(named.values())
        self.items = named.items
        self.__dict__.update(named)

snakemake = SimpleNamespace(
    rule="make", threads=2, wildcards=Named(run="5"), input=Named(a="in.txt"), output=Named(made=sys.argv[2]),
    params=Named(code="c0de", seed=3), resources=Named(_cores=2, tmpdir="/tmp", mem_mb=100),
    log=Named(log=sys.argv[1], record=sys.argv[1] + ".json"),
)
"""


def run(folder: Path, block: str, after: str = "") -> tuple[subprocess.CompletedProcess[str], str]:
    """Run a block inside a job; return the process and its log."""
    code = (
        f"{STAND_IN}\nwith job(snakemake):\n{textwrap.indent(textwrap.dedent(block), '    ')}\n"
        f"    open(sys.argv[2], 'w').write('made')\n{after}\n"
    )
    script = folder / "script.py"
    script.write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script), str(folder / "deep" / "job.log"), str(folder / "made.txt")],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(SCRIPTS), "PATH": "/usr/bin:/bin"},
        timeout=30,
        check=False,
    )
    return done, (folder / "deep" / "job.log").read_text(encoding="utf-8")


def test_print_lands_in_the_log_and_on_the_terminal(tmp_path):
    done, log = run(tmp_path, "print('epoch 1 of 3', flush=True)")
    assert done.returncode == 0
    assert log == "epoch 1 of 3\n"
    assert done.stderr == "epoch 1 of 3\n"
    assert done.stdout == ""


def test_output_of_compiled_code_lands_in_the_log_only(tmp_path):
    done, log = run(tmp_path, "os.write(1, b'from C out\\n')\nos.write(2, b'from C err\\n')\nos.system('echo child')")
    assert done.returncode == 0
    assert log == "from C out\nfrom C err\nchild\n"
    assert done.stdout == done.stderr == ""


def test_python_stderr_lands_in_the_log_only(tmp_path):
    done, log = run(tmp_path, "print('a warning', file=sys.stderr)")
    assert (log, done.stderr) == ("a warning\n", "")


def test_order_of_mixed_output_is_kept(tmp_path):
    _, log = run(tmp_path, "print('1')\nos.write(1, b'2\\n')\nprint('3')\nos.write(2, b'4\\n')")
    assert log.split() == ["1", "2", "3", "4"]


def test_a_problem_that_can_be_mended(tmp_path):
    sentence = "a.root: no tree 'O2track'; give a raw AO2D file"
    done, log = run(tmp_path, f"print('reading')\nraise PidflowError({sentence!r})", "print('never')")
    assert done.returncode == 1
    assert log == f"reading\nerror: {sentence}\n"
    assert done.stderr == f"reading\nerror: {sentence}\n"
    assert done.stdout == ""


def test_any_other_exception_leaves_its_traceback_in_the_log(tmp_path):
    done, log = run(tmp_path, "def inner():\n    return {}['absent']\n\ninner()")
    assert done.returncode == 1
    assert "Traceback (most recent call last)" in log
    assert "in inner" in log
    assert log.endswith(f"error: KeyError: 'absent' (traceback in {tmp_path / 'deep' / 'job.log'})\n")
    assert done.stderr == log.splitlines()[-1] + "\n"


def test_streams_are_restored(tmp_path):
    done, log = run(tmp_path, "pass", "print('after'); os.write(2, b'after too\\n')")
    assert log == ""
    assert (done.stdout, done.stderr) == ("after\n", "after too\n")


def test_an_old_log_is_replaced(tmp_path):
    run(tmp_path, "print('first, which is long')")
    assert run(tmp_path, "print('second')")[1] == "second\n"


def test_text_beyond_ascii(tmp_path):
    _, log = run(tmp_path, "print('π ≤ 3 σ')")
    assert log == "π ≤ 3 σ\n"


def test_success_leaves_a_record(tmp_path):
    run(tmp_path, "pass")
    record = json.loads((tmp_path / "deep" / "job.log.json").read_text())
    assert record["rule"] == "make" and record["script"] == "script.py" and record["wildcards"] == {"run": "5"}
    assert record["inputs"] == ["in.txt"] and record["outputs"][0]["bytes"] == 4
    assert record["params"] == {"code": "c0de", "seed": 3} and record["code"] == "c0de" and record["seed"] == 3
    assert record["threads"] == 2 and record["resources"]["requested"] == {"mem_mb": 100}


def test_failure_leaves_no_record_not_even_an_old_one(tmp_path):
    run(tmp_path, "pass")
    run(tmp_path, "raise PidflowError('no')")
    assert not (tmp_path / "deep" / "job.log.json").exists()
