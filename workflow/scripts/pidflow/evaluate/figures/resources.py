"""What the jobs of each rule used of time, processors and memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pidflow.evaluate.figures.style import COLOURS, drawing
from pidflow.resource_use import Use

_REQUESTED = "0.85"


def plot_resources(uses: Sequence[Use], output: str | Path) -> None:
    """Draw processor time, time of the longest job and memory of each rule, beside what was asked for.

    Parameters
    ----------
    uses
        What the jobs used (`pidflow.resource_use.resource_use`).
    output
        Image file.
    """
    y = np.arange(len(uses))[::-1]
    with drawing(output, 14.0, 1.6 + 0.36 * len(uses), "Resources of jobs, by rule") as figure:
        cpu, wall, memory = figure.subplots(1, 3, sharey=True)
        cpu.barh(y, [use.cpu_s / 60 for use in uses], 0.7, color=COLOURS[0])
        cpu.set(xlabel="Processor time, all jobs (min)", yticks=y, yticklabels=[f"{u.rule} ({u.jobs})" for u in uses])
        for place, use in zip(y, uses, strict=True):
            cpu.annotate(
                f"{100 * use.cpu_share:.0f} %",
                (use.cpu_s / 60, place),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
            )
        cpu.margins(x=0.15)
        wall.barh(y, [(use.runtime_requested_s or 0) / 60 for use in uses], 0.7, color=_REQUESTED, label="asked for")
        wall.barh(y, [use.longest_s / 60 for use in uses], 0.4, color=COLOURS[1], label="longest job")
        wall.set(xlabel="Time (min)", xscale="log")
        memory.barh(y, [(use.memory_requested_mb or 0) / 1e3 for use in uses], 0.7, color=_REQUESTED, label="asked for")
        memory.barh(y, [use.memory_peak_mb / 1e3 for use in uses], 0.4, color=COLOURS[2], label="highest peak")
        memory.set(xlabel="Memory (GB)")
        for axes in (wall, memory):
            axes.legend(loc="lower right")
        for axes in (cpu, wall, memory):
            axes.tick_params(axis="y", which="minor", left=False, right=False)
