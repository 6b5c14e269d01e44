"""A publication: the checked bundle with card, provenance and checksums, in the registry."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pidflow.files import read_json, write_json
from pidflow.model import model_digest, read_info
from pidflow.publish.card import write_card
from pidflow.publish.names import GATE_FILE
from pidflow.publish.provenance import digest, provenance, write_sums
from pidflow.publish.registry import Entry, publish

_METADATA = ("run", "period", "pass", "system")


def publish_bundle(
    bundle: str | Path,
    model: str | Path,
    publication: str | Path,
    entry_file: str | Path,
    *,
    metrics: Mapping[str, str | Path],
    quality: str | Path,
    run: Mapping[str, Any],
    registry: str | Path,
    path: str,
    threshold: float,
    selection: Mapping[str, Any],
    config: Mapping[str, Any],
    seed: int,
    code: str,
    repository: str | Path,
) -> Entry:
    """Complete a bundle and publish it.

    Parameters
    ----------
    bundle, model
        Checked bundle and the model directory that it was made of.
    publication
        Folder to make: the bundle with ``card.md``, ``provenance.json`` and ``SHA256SUMS``.
    entry_file
        JSON copy of the registry's entry.
    metrics
        Metrics file by title, for the card.
    quality
        Account of the simulated dataset, for the inputs' checksums.
    run
        Row of the run table.
    registry, path
        Folder of the registry and path of the objects in it.
    threshold
        Certainty from which a track is accepted.
    selection, config, seed, code, repository
        What card and provenance record.

    Returns
    -------
    Entry
        The registry's entry; ``new`` is false if the same was published before.
    """
    folder, info = Path(publication), read_info(model)
    shutil.copytree(bundle, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))
    inputs = {origin["source"]: origin["sha256"] for origin in read_json(quality)["inputs"]}
    record = provenance(run=run, config=config, code=code, seed=seed, checksums=inputs, repository=repository)
    record["model"] = model_digest(model)
    write_json(folder / "provenance.json", record)
    write_card(
        folder / "card.md",
        run={key: value for key, value in run.items() if key not in ("data", "simulation")},
        info=info,
        metrics=metrics,
        gate=read_json(folder / GATE_FILE),
        provenance=record,
        registry_path=path,
        selection=selection,
        certainty=threshold,
    )
    write_sums(folder)
    entry = publish(
        registry,
        path,
        folder,
        valid_from=run["valid_from"],
        valid_until=run["valid_until"],
        metadata={**{key: str(run[key]) for key in _METADATA}, "provenance": digest(record)},
    )
    write_json(entry_file, entry.model_dump(mode="json"))
    return entry
