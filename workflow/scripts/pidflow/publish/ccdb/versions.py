"""Versions of a bundle in the CCDB, and which of them is current.

A version is a folder ``<path>/run<run>-<digest>`` that holds the objects of one publication. Its name is made of
content, metadata and validity, so what is stored there once is never replaced by something else. The object
``<path>/current`` is a list of the objects of one version with their SHA-256: as the CCDB chooses it by time like any
other object, each run has its own.

O2Physics does not read ``current``: it is given the folder that `resolve` returns as its path in the CCDB.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pidflow.errors import PidflowError
from pidflow.publish.ccdb.client import Client
from pidflow.publish.registry import Entry

CURRENT = "current"
BUNDLE_KEY = "pidflow_bundle"
VERSION_KEY = "pidflow_version"

_DIGITS = 16


class Version(BaseModel):
    """Content of ``current``.

    Attributes
    ----------
    path
        Folder of the objects: what O2Physics is given.
    bundle
        `bundle_digest` of the objects.
    objects
        SHA-256 by object name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    bundle: str
    objects: dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]]


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def bundle_digest(objects: dict[str, str]) -> str:
    """Return the SHA-256 that stands for the SHA-256 of all objects together."""
    return _digest(objects)


def version_of(entry: Entry) -> Version:
    """Return the version that a publication makes."""
    objects = {name: blob.sha256 for name, blob in sorted(entry.objects.items())}
    whole = _digest([objects, entry.metadata, entry.valid_from, entry.valid_until])
    name = f"run{entry.metadata.get('run', '')}-{whole[:_DIGITS]}"
    return Version(path=f"{entry.path}/{name}", bundle=bundle_digest(objects), objects=objects)


def resolve(client: Client, path: str, timestamp: int) -> Version:
    """Return the version that is current at `timestamp` (ms).

    Raises
    ------
    PidflowError
        If there is none, or it does not describe a version.
    """
    found = client.get(f"{path}/{CURRENT}", timestamp)
    if found is None:
        raise PidflowError(f"{path}: no version is current at time {timestamp} ms; upload the run first")
    try:
        version = Version.model_validate_json(found[1])
    except ValidationError:
        version = None
    if version is None or version.path.rpartition("/")[0] != path or bundle_digest(version.objects) != version.bundle:
        raise PidflowError(f"{path}/{CURRENT}: it is damaged; upload the run again")
    return version


def fetch(client: Client, version: Version, timestamp: int) -> dict[str, bytes]:
    """Return the content of all objects of a version by name.

    Raises
    ------
    PidflowError
        If one is missing or is not that of this version.
    """
    content: dict[str, bytes] = {}
    for name, digest in version.objects.items():
        found = client.get(f"{version.path}/{name}", timestamp)
        if found is None or hashlib.sha256(found[1]).hexdigest() != digest:
            raise PidflowError(f"{version.path}/{name}: it is missing or damaged; upload the run again")
        content[name] = found[1]
    return content
