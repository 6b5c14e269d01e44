"""What of the configuration can affect a run's publication."""

from __future__ import annotations

from typing import Any

from pidflow.config.adapt import UNADAPTED
from pidflow.config.models import Config
from pidflow.config.runs import Run

_NEVER: dict[str, Any] = {
    "pathvars": True,
    "runs": True,
    "run": True,
    "closure": True,
    "transfer": True,
    "tune": True,
    "container": True,
    "ingest": {"bad_files", "bad_files_of_run", "batch_mb", "fetch_retries"},
    "evaluate": {"image_format"},
    "publish": {"uncommitted"},
    "adapt": True,
    "example": True,
}


def published_config(config: Config, run: Run) -> dict[str, Any]:
    """Return the configuration as merged without what cannot affect the publication of a run.

    The models that are compared belong to it: the metrics of all come from one job, whose output the card shows.
    Blocks that only some publications depend on, adaptation and the example production, are part of it where they do.
    """
    content = config.model_dump(mode="json", exclude=_NEVER)
    used = (config.adapt.model,) if config.adapted else ()
    content["models"] = {name: content["models"][name] for name in config.with_needed(*config.evaluate.methods, *used)}
    policy = config.ingest.bad_files_of_run.get(run.run, config.ingest.bad_files)
    content["ingest"]["bad_files"] = policy.model_dump(mode="json")
    adapted = config.publish.model == "adapted"
    content["adapt"] = {"method": UNADAPTED}
    if adapted:
        steps_used = {step for steps in config.adapt.used.values() for step in steps}
        content["adapt"] = config.adapt.model_dump(mode="json", exclude={"candidates", "steps"}) | {
            "candidates": {name: list(steps) for name, steps in config.adapt.used.items()},
            "steps": {name: config.adapt.steps[name].model_dump(mode="json") for name in sorted(steps_used)},
        }
    if any(config.example.makes(uri) for uri in (*run.data, *run.simulation)):
        shift = config.example.shifts.get(run.run, "none")
        content["example"] = {**config.example.model_dump(mode="json"), "shifts": {str(run.run): shift}}
    return content
