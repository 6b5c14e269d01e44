"""What differs between two publications."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pidflow.publish.names import COLUMNS_OBJECT
from pidflow.publish.registry import Entry, read_document, read_object
from pidflow.publish.working_points import TABLE_FILE, read_working_points

_TITLE = re.compile(r"### (.+)")
_MEAN = re.compile(r"(F1, π K p|F1|AUC) (\d\.\d+)(?: \[(\d\.\d+), (\d\.\d+)\])?")


def diff(registry: str | Path, one: Entry, other: Entry) -> dict[str, dict[str, dict[str, Any]]]:
    """Return what differs between two publications, as plain values.

    Parameters
    ----------
    registry
        Folder of the registry.
    one, other
        Two of its entries.

    Returns
    -------
    dict
        ``{part: {name: {"one": value, "other": value}}}`` with only the names whose values differ; null where a
        publication has none. Parts: ``validity`` (ms), ``metadata``, ``objects`` (sha256, size in bytes), ``features``
        (position among the inputs), ``working_point`` (certainty of acceptance, momentum in GeV/c below which a
        detector is hidden, and the threshold of each published working point) and ``metrics`` (means over species:
        value, low, high). The last two are told by documents and empty where neither publication has them.

    Raises
    ------
    PidflowError
        If what a publication holds is damaged.
    """
    parts = [_parts(registry, entry) for entry in (one, other)]
    return {name: _differences(parts[0][name], parts[1][name]) for name in parts[0]}


def _parts(registry: str | Path, entry: Entry) -> dict[str, Mapping[str, Any]]:
    columns = _parsed(read_object(registry, entry, COLUMNS_OBJECT)).get(COLUMNS_OBJECT, [])
    return {
        "validity": {"valid_from": entry.valid_from, "valid_until": entry.valid_until},
        "metadata": entry.metadata,
        "objects": {name: {"sha256": blob.sha256, "size": blob.size} for name, blob in entry.objects.items()},
        "features": {label: position for position, label in enumerate(columns)},
        "working_point": _working_point(registry, entry),
        "metrics": _metrics(_document(registry, entry, "card.md").decode()),
    }


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    names = [*one, *(name for name in other if name not in one)]
    pairs = {name: {"one": one.get(name), "other": other.get(name)} for name in names}
    return {name: pair for name, pair in pairs.items() if pair["one"] != pair["other"]}


def _document(registry: str | Path, entry: Entry, name: str) -> bytes:
    return read_document(registry, entry, name) if name in entry.documents else b""


def _parsed(content: bytes) -> dict[str, Any]:
    """Return a JSON object, empty where there is none to read."""
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _working_point(registry: str | Path, entry: Entry) -> dict[str, Any]:
    config = _parsed(_document(registry, entry, "provenance.json")).get("config", {})
    found: dict[str, Any] = {"certainty": config.get("evaluate", {}).get("threshold")}
    found |= {f"{name} hidden below": limit for name, limit in config.get("dataset", {}).get("masks", {}).items()}
    if TABLE_FILE in entry.documents:
        found |= {str(point): point.threshold for point in read_working_points(registry, entry)}
    return found


def _metrics(card: str) -> dict[str, dict[str, float | None]]:
    """Return the means over species that a card states, by sample and kind of mean."""
    found: dict[str, dict[str, float | None]] = {}
    title = ""
    for line in card.splitlines():
        if heading := _TITLE.fullmatch(line):
            title = heading[1]
        elif line.startswith("Mean over species:"):
            for name, *numbers in _MEAN.findall(line):
                value, low, high = (float(number) if number else None for number in numbers)
                found[f"{title}: {name}"] = {"value": value, "low": low, "high": high}
    return found
