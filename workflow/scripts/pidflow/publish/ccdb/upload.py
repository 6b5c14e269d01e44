"""Upload of a publication to the CCDB.

The CCDB stores one object per request and has no transaction. What a reader can see while an upload runs, or after it
was killed, depends on the layout:

versioned (default)
    The objects go to the version's own folder, where no other version ever stands (`pidflow.publish.ccdb.versions`).
    Once all are read back and found right, one POST of ``<path>/current`` names the folder. That POST takes effect or
    not: whoever asks `resolve` gets the older complete version or the new complete one at every moment, and one who
    resolved before goes on reading the older. O2Physics is given the folder, one per run.
direct
    The objects lie directly below ``<path>``, where O2Physics looks if it knows nothing of versions. Over an older
    publication of an overlapping validity this is not atomic, whatever the order: between the first POST and the
    last, and after a kill until the rerun, O2Physics can load some objects of each. Nothing in the protocol can hide
    that: validity and creation time are changed object by object too. Where nothing older is valid, a reader misses
    objects and stops instead. The key ``pidflow_bundle`` differs between the objects of a mixture.

In both, what is there already is left alone, so that a rerun sends only what is missing, and all objects are read
back. Two uploads at once are not kept apart: the last ``current`` wins, and it names a complete version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pidflow.errors import PidflowError
from pidflow.files import write_json
from pidflow.publish.ccdb.client import Client, Stored, check_metadata, check_object_path
from pidflow.publish.ccdb.versions import BUNDLE_KEY, CURRENT, VERSION_KEY, Version, version_of
from pidflow.publish.names import MODEL_PREFIX
from pidflow.publish.registry import Entry, read_object

Layout = Literal["versioned", "direct"]
State = Literal["uploaded", "present", "missing"]


@dataclass(frozen=True)
class Receipt:
    """What became of one object.

    Attributes
    ----------
    path
        Path of the object.
    uuid, created
        Of its version, creation in ms since 1970; None if the upload was only tried.
    md5, sha256
        Of the content.
    state
        ``present`` if it was there before, ``missing`` if the upload was only tried.
    """

    path: str
    uuid: str | None
    created: int | None
    md5: str
    sha256: str
    state: State


@dataclass(frozen=True)
class _Item:
    path: str
    file: str
    content: bytes
    metadata: dict[str, str]

    def receipt(self, stored: Stored | None, state: State) -> Receipt:
        return Receipt(
            path=self.path,
            uuid=stored.uuid if stored else None,
            created=stored.created if stored else None,
            md5=hashlib.md5(self.content, usedforsecurity=False).hexdigest(),
            sha256=hashlib.sha256(self.content).hexdigest(),
            state=state,
        )


def upload(
    entry: Entry, registry: str | Path, client: Client, *, layout: Layout = "versioned", dry_run: bool = False
) -> list[Receipt]:
    """Upload all objects of a publication, the JSON files first, and read them back.

    Parameters
    ----------
    entry
        Publication in the local registry.
    registry
        Folder of the registry.
    layout
        Where the objects go; see the module.
    dry_run
        Only ask what is there; nothing is stored or read back.

    Returns
    -------
    list of Receipt
        By object, in the order of upload; ``current`` is the last in the versioned layout.

    Raises
    ------
    PidflowError
        If an object in the registry is damaged, a path or metadata is barred, the server refuses or does not answer,
        or what is read back is not what was sent.
    """
    version = version_of(entry)
    items, current = _items(entry, Path(registry), version, layout)
    for item in (*items, current):
        check_object_path(item.path)
        check_metadata(item.metadata)
    states = [_put(client, entry, item, dry_run) for item in items]
    if dry_run:
        tried = [(item, state) for item, state in zip(items, states, strict=True)]
        if layout == "versioned":
            tried.append((current, _put(client, entry, current, dry_run)))
        return [item.receipt(None, state) for item, state in tried]
    receipts = [_read_back(client, entry, item, state) for item, state in zip(items, states, strict=True)]
    if layout == "versioned":
        receipts.append(_read_back(client, entry, current, _put(client, entry, current, dry_run)))
    return receipts


def write_receipts(file: str | Path, entry: Entry, url: str, layout: Layout, receipts: Sequence[Receipt]) -> None:
    """Write the receipts of an upload, whole or not at all.

    Parameters
    ----------
    url
        CCDB that was asked.
    """
    version = version_of(entry)
    content = {
        "url": url,
        "layout": layout,
        "path": entry.path if layout == "direct" else version.path,
        "valid_from": entry.valid_from,
        "valid_until": entry.valid_until,
        "bundle": version.bundle,
        "objects": [asdict(receipt) for receipt in receipts],
    }
    write_json(file, content)


def _items(entry: Entry, registry: Path, version: Version, layout: Layout) -> tuple[list[_Item], _Item]:
    """Return the objects in the order of upload, and ``current``."""
    metadata = {**entry.metadata, BUNDLE_KEY: version.bundle}
    folder = version.path if layout == "versioned" else entry.path
    names = sorted(entry.objects, key=lambda name: (name.startswith(MODEL_PREFIX), name))
    items = [
        _Item(f"{folder}/{name}", entry.objects[name].file, read_object(registry, entry, name), metadata)
        for name in names
    ]
    current = _Item(
        path=f"{entry.path}/{CURRENT}",
        file=f"{CURRENT}.json",
        content=version.model_dump_json(indent=2).encode(),
        metadata={**metadata, VERSION_KEY: version.path.rpartition("/")[2]},
    )
    return items, current


def _put(client: Client, entry: Entry, item: _Item, dry_run: bool) -> State:
    validity = (entry.valid_from, entry.valid_until)
    if client.find(item.path, *validity, item.content, item.metadata) is not None:
        return "present"
    if dry_run:
        return "missing"
    client.post(item.path, *validity, item.content, item.metadata, item.file)
    return "uploaded"


def _read_back(client: Client, entry: Entry, item: _Item, state: State) -> Receipt:
    found = client.get(item.path, entry.valid_from)
    if found is None or found[1] != item.content or not found[0].carries(item.metadata):
        what = "nothing" if found is None else f"another object ({found[0].uuid})"
        raise PidflowError(
            f"{client.url}/{item.path}: {what} is read back at {entry.valid_from} ms; upload again, and see that no"
            " other run's validity overlaps"
        )
    return item.receipt(found[0], state)
