"""Settings, a nested dictionary, by dotted key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Value = bool | int | float | str | None
"""Value of one key."""


def with_values(settings: Mapping[str, Any], values: Mapping[str, Value]) -> dict[str, Any]:
    """Return settings with other values, by dotted key; what a key lies in is made where it is missing."""
    result = dict(settings)
    for key, value in values.items():
        name, _, below = key.partition(".")
        inner = result.get(name)
        result[name] = with_values(inner if isinstance(inner, dict) else {}, {below: value}) if below else value
    return result
