"""The generated documents of the configuration: JSON schema and the page with every key.

Run as ``python -m pidflow.config.document`` from the repository root after changing the models.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from pidflow.adapt import steps
from pidflow.config.models import Config
from pidflow.config.runs import Run
from pidflow.files import write_text
from pidflow.models import kinds, settings_of

SCHEMA = Path("config/schema.json")
PAGE = Path("docs/configuration.md")

_HEAD = """# Configuration

Generated from `pidflow.config` by `make docs`; do not edit.

The defaults lie in the code; `config/config.yaml` sets what a production is likely to change, and a file given with
`--configfile` needs only the keys that differ from it. An unknown key is an error.

"""
_MODELS_HEAD = """
## Models

Keys of an entry of `models`, by its kind; [models.md](models.md) tells what they are.

"""
_STEPS_HEAD = """
## Steps of adaptation

Keys of an entry of `adapt.steps`, by its kind; [adaptation.md](adaptation.md) tells what they are.

"""
_RUNS_HEAD = """
## The run table

A tab-separated file, one row per data-taking run, lines that start with `#` left out. File columns hold paths or
globs, separated by `;`.

| column | meaning |
| --- | --- |
"""


def schema_text() -> str:
    """Return the JSON schema of the configuration."""
    return json.dumps(Config.model_json_schema(), indent=2, ensure_ascii=False) + "\n"


def _block_of(annotation: Any) -> type[BaseModel] | None:
    if get_origin(annotation) is dict:
        return None
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _plain(value: Any) -> object:
    return {} if isinstance(value, BaseModel) else list(value)


def _rows(model: type[BaseModel], prefix: str) -> list[str]:
    rows = []
    for name, field in model.model_fields.items():
        if name == "kind":
            continue
        block = _block_of(field.annotation)
        if block is not None:
            rows += [f"| **`{prefix}{name}`** | | {field.description} |", *_rows(block, f"{prefix}{name}.")]
            continue
        default = field.get_default(call_default_factory=True)
        shown = json.dumps(default, ensure_ascii=False, default=_plain).replace("|", "\\|")
        rows.append(f"| `{prefix}{name}` | `{shown}` | {(field.description or '').replace('|', '&#124;')} |")
    return rows


def _table(model: type[BaseModel]) -> str:
    return "\n".join(["| key | default | meaning |", "| --- | --- | --- |", *_rows(model, "")])


def _models() -> str:
    parts = (f"### {kind}\n\n{settings_of(kind).__doc__}\n\n{_table(settings_of(kind))}\n" for kind in kinds())
    return _MODELS_HEAD + "\n".join(parts)


def _steps() -> str:
    parts = (
        f"### {kind}\n\n{steps.settings_of(kind).__doc__}\n\n{_table(steps.settings_of(kind))}\n"
        for kind in steps.kinds()
    )
    return _STEPS_HEAD + "\n".join(parts)


def page_text() -> str:
    """Return the page with every key, its default and its meaning."""
    column_names = [(field.alias or name, field.description) for name, field in Run.model_fields.items()]
    columns = "\n".join(f"| `{name}` | {meaning} |" for name, meaning in column_names)
    return _HEAD + _table(Config) + "\n" + _models() + _steps() + _RUNS_HEAD + columns + "\n"


if __name__ == "__main__":
    write_text(SCHEMA, schema_text())
    write_text(PAGE, page_text())
