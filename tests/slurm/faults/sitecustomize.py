"""Faults in the processes of a test production: Python imports this module wherever PYTHONPATH names its folder.

A file ``<fault>.<script>`` in the folder ``PIDFLOW_TEST_FAULTS`` orders a fault in the processes of a script:

``die``
    The next one is killed before it does anything; the order is used up.
``hold``
    It waits until the order is taken back.
``hog``
    It holds as many MB as the file says for as long as it runs, a few seconds at least.

Every process that meets an order leaves its Slurm job's number in ``met.<fault>.<script>``.
"""

import os
import signal
import sys
import time
from pathlib import Path

_LONGEST_HOLD = 300.0
# Slurm looks at the memory once a second
_SHORTEST_HOG = 4.0


def _ordered(orders: Path, fault: str, script: str) -> Path | None:
    order = orders / f"{fault}.{script}"
    if not order.exists():
        return None
    with open(orders / f"met.{order.name}", "a") as met:
        print(os.environ.get("SLURM_JOB_ID"), file=met)
    return order


def _meet(orders: Path, script: str) -> list[bytearray]:
    if order := _ordered(orders, "die", script):
        order.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    if order := _ordered(orders, "hold", script):
        deadline = time.monotonic() + _LONGEST_HOLD
        while order.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
    if order := _ordered(orders, "hog", script):
        # filled with ones, or the kernel would not give the pages
        memory = bytearray(b"\1") * (int(order.read_text()) * 2**20)
        time.sleep(_SHORTEST_HOG)
        return [memory]
    return []


def _poll_often(seconds: float) -> None:
    """Cap the pauses between two looks at Slurm, which grow by ten seconds with every look that finds nothing."""
    import asyncio

    sleep = asyncio.sleep
    asyncio.sleep = lambda delay, result=None: sleep(min(delay, seconds), result)


if "PIDFLOW_TEST_FAULTS" in os.environ:
    # Snakemake names a job's script .snakemake/scripts/tmp<random>.<script>.py
    if len(sys.orig_argv) > 1 and Path(sys.orig_argv[1]).parent.name == "scripts":
        hogged = _meet(Path(os.environ["PIDFLOW_TEST_FAULTS"]), Path(sys.orig_argv[1]).name.split(".")[1])
    elif "--profile" in sys.orig_argv:
        _poll_often(1.0)
