"""A local folder that answers like the CCDB: objects by path and time, the newest publication wins.

``objects/<2>/<sha256>`` holds content once; ``entries/<path>/<from>_<until>_<created>_<digest>.json`` is one
publication of all objects of a bundle. The entry takes its name last, by a rename: a bundle is visible whole or not
at all. ``index.json`` lists what is published, for people and web pages; it is made from the entries and nothing here
reads it. Nothing is ever deleted: what should no longer hold is followed by a newer entry.

Rules taken from the CCDB server: validity is [from, until) in ms; of the valid versions the one created last wins; no
part of a path is a number; ten parts at most; some characters are barred from metadata keys.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from pidflow.errors import PidflowError
from pidflow.files import read_json, sha256
from pidflow.publish.names import COLUMNS_OBJECT, GATE_FILE, MODEL_PREFIX, SCALING_OBJECT

_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
_METADATA_KEY = re.compile(r"[A-Za-z0-9_-]+")
_METADATA_VALUE = re.compile(r"[^/\x00-\x1f]+")
_MOST_PARTS = 10

INDEX_FILE = "index.json"
ROLLBACK_KEY = "rollback_of"
"""Metadata key of an entry that publishes an earlier one again: the creation time (ms) of that one."""


def _file_name(name: str) -> str:
    if not _PART.fullmatch(name):
        raise ValueError(f"{name!r} is not a plain file name")
    return name


FileName = Annotated[str, AfterValidator(_file_name)]


class Blob(BaseModel):
    """Content of an object: local file name, SHA-256 and size in bytes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: FileName
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=0)]


class Entry(BaseModel):
    """One publication.

    Attributes
    ----------
    path
        Path in the registry, without the object.
    valid_from, valid_until, created
        ms since 1970; the validity excludes its end.
    objects
        What O2Physics loads, by object name.
    documents
        What lies beside it, by file name.
    new
        Whether this call made it; not part of the file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    valid_from: int
    valid_until: int
    created: int
    metadata: dict[str, str]
    objects: dict[FileName, Blob]
    documents: dict[FileName, Blob]
    new: bool = Field(False, exclude=True)

    def same_content(self, other: Entry) -> bool:
        """Return whether both publish the same objects with the same metadata.

        Documents name times and machines and do not count, nor does whether one came back by a rollback.
        """
        mine, others = ({**entry.metadata, ROLLBACK_KEY: ""} for entry in (self, other))
        return (self.objects, mine) == (other.objects, others)

    def same_validity(self, other: Entry) -> bool:
        """Return whether both hold for exactly the same time."""
        return (self.valid_from, self.valid_until) == (other.valid_from, other.valid_until)

    def overlaps(self, other: Entry) -> bool:
        """Return whether there is a time at which both are valid."""
        return self.valid_from < other.valid_until and other.valid_from < self.valid_until

    def of_run(self, run: int) -> bool:
        """Return whether it was made for this run."""
        return self.metadata.get("run") == str(run)


def check_path(path: str) -> str:
    """Return a path if the rules allow it.

    Raises
    ------
    PidflowError
        If they do not.
    """
    parts = path.split("/")
    if any(not _PART.fullmatch(part) or part.isdigit() for part in parts) or len(parts) >= _MOST_PARTS:
        raise PidflowError(
            f"registry path {path!r}: it needs fewer than {_MOST_PARTS} parts of letters, digits and _ . + -, none of"
            " them a number; correct 'publish.path'"
        )
    return path


def check_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return metadata, sorted by key, if the rules allow them.

    Raises
    ------
    PidflowError
        If they do not.
    """
    for key, value in metadata.items():
        if not _METADATA_KEY.fullmatch(key) or not _METADATA_VALUE.fullmatch(value):
            raise PidflowError(f"metadata {key}={value!r}: the CCDB bars such a key or value; use letters and digits")
    return dict(sorted(metadata.items()))


def _place(content: bytes, final: Path) -> None:
    """Write under a name that no other process on any machine uses, then rename."""
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.with_name(f".{uuid.uuid4().hex}")
    try:
        with open(temporary, "xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)


def _object_path(registry: Path, digest: str) -> Path:
    return registry / "objects" / digest[:2] / digest


def _read_blob(registry: Path, blob: Blob) -> bytes:
    path = _object_path(registry, blob.sha256)
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != blob.sha256:
        raise PidflowError(f"{path}: the object is missing or damaged; publish {blob.file} again")
    return content


def read_entry(path: str | Path) -> Entry:
    """Read one entry.

    Raises
    ------
    PidflowError
        If it is damaged.
    """
    try:
        return Entry.model_validate(read_json(path))
    except (ValidationError, ValueError):
        raise PidflowError(f"{path}: the entry is damaged; remove it and publish again") from None


def latest(registry: str | Path, run: int) -> Entry | None:
    """Return the newest publication of a run, under whatever path, or None.

    Raises
    ------
    PidflowError
        If an entry is damaged.
    """
    return max((e for e in _entries(registry) if e.of_run(run)), key=_created, default=None)


def newest(registry: str | Path) -> Entry | None:
    """Return the newest publication of all runs, or None.

    Raises
    ------
    PidflowError
        If an entry is damaged.
    """
    return max(_entries(registry), key=_created, default=None)


def _entries(registry: str | Path) -> list[Entry]:
    # from the entries themselves: the copy in runs/ goes when the job that makes it fails
    return [read_entry(file) for file in _entry_files(registry)]


def _entry_files(registry: str | Path) -> list[Path]:
    return sorted((Path(registry) / "entries").rglob("[!.]*.json"))


def _created(entry: Entry) -> int:
    return entry.created


def read_document(registry: str | Path, entry: Entry, name: str) -> bytes:
    """Return the content of a document that lies beside the objects of a publication.

    Raises
    ------
    PidflowError
        If the publication has no such document, or its content is missing or damaged.
    """
    if name not in entry.documents:
        raise PidflowError(f"{entry.path}: the publication has no {name}; publish the run again")
    return _read_blob(Path(registry), entry.documents[name])


def read_object(registry: str | Path, entry: Entry, name: str) -> bytes:
    """Return the content of an object of a publication.

    Raises
    ------
    PidflowError
        If the publication has no such object, or its content is missing or damaged.
    """
    if name not in entry.objects:
        raise PidflowError(f"{entry.path}: the publication has no {name}; publish the run again")
    return _read_blob(Path(registry), entry.objects[name])


def _bundle(folder: Path) -> tuple[dict[str, bytes], dict[str, str]]:
    """Return the content of a bundle by file name, and the object name of each file that is loadable.

    Raises
    ------
    PidflowError
        If a file is missing, oddly named, or not the one that passed the gate.
    """
    # hidden files belong to whoever made the folder, such as Snakemake's time stamp
    files = [path for path in sorted(folder.glob("[!.]*")) if path.is_file()]
    for path in files:
        if not _PART.fullmatch(path.name):
            raise PidflowError(f"{path}: the name is not fit for publication; rename or remove it")
    content = {path.name: path.read_bytes() for path in files}
    objects = {f.name: f.stem for f in files if f.suffix == ".onnx" or f.stem in (COLUMNS_OBJECT, SCALING_OBJECT)}
    names = set(objects.values())
    if not {COLUMNS_OBJECT, SCALING_OBJECT} <= names or not any(name.startswith(MODEL_PREFIX) for name in names):
        raise PidflowError(f"{folder}: it is no whole bundle; export the model again")
    if GATE_FILE not in content:
        raise PidflowError(f"{folder}: it has no {GATE_FILE}; pass the gate before publication")
    passed = json.loads(content[GATE_FILE]).get("files", {})
    for name in objects:
        if passed.get(name) != hashlib.sha256(content[name]).hexdigest():
            raise PidflowError(f"{folder / name}: it is not the file that passed the gate; check the bundle again")
    return content, objects


def history(registry: str | Path, path: str) -> list[Entry]:
    """Return all publications under a path, oldest creation first.

    Raises
    ------
    PidflowError
        For a path that the rules bar or an entry that cannot be read.
    """
    folder = Path(registry) / "entries" / check_path(path)
    files = sorted(file for file in folder.glob("*.json") if file.is_file() and not file.name.startswith("."))
    found: list[tuple[int, str, Entry]] = []
    for file in files:
        entry = read_entry(file)
        found.append((entry.created, file.name, entry))
    return [entry for _, _, entry in sorted(found, key=lambda item: item[:2])]


def versions(registry: str | Path, path: str, run: int | None = None) -> list[Entry]:
    """Return all publications under a path, oldest creation first; of one run, if one is given.

    Raises
    ------
    PidflowError
        If there is none, for a path that the rules bar, or an entry that cannot be read.
    """
    found = [entry for entry in history(registry, path) if run is None or entry.of_run(run)]
    if not found:
        whose = "" if run is None else f" for run {run}"
        raise PidflowError(
            f"{path}: nothing is published{whose} in {registry}; correct the path or publish the run first"
        )
    return found


def version(registry: str | Path, path: str, created: int, run: int | None = None) -> Entry:
    """Return the publication that was created at a time (ms).

    Raises
    ------
    PidflowError
        If there is none, or more than one.
    """
    found = [entry for entry in versions(registry, path, run) if entry.created == created]
    if not found:
        raise PidflowError(f"{path}: no publication was created at {created} ms; take a time that its history lists")
    if len(found) > 1:
        raise PidflowError(f"{path}: {len(found)} publications were created at {created} ms; name the run too")
    return found[0]


def lookup(registry: str | Path, path: str, timestamp: int) -> Entry | None:
    """Return the publication that wins at `timestamp` (ms), or None."""
    valid = [entry for entry in history(registry, path) if entry.valid_from <= timestamp < entry.valid_until]
    return valid[-1] if valid else None


def publish(
    registry: str | Path,
    path: str,
    bundle_dir: str | Path,
    *,
    valid_from: int,
    valid_until: int,
    metadata: Mapping[str, str],
    created: int | None = None,
) -> Entry:
    """Publish a bundle, all of it or nothing.

    If the latest publication of exactly this validity has the same objects and metadata, it is returned and nothing is
    published (``new`` is then False). The index is brought up to date in either case.

    Parameters
    ----------
    registry
        Folder of the registry; made if need be.
    path
        Path of the publication, without object.
    bundle_dir
        Folder with what O2Physics loads, a passed gate's report and documents.
    valid_from, valid_until
        Validity [from, until) in ms since 1970.
    metadata
        Free keys and values.
    created
        Creation time in ms; None: now, and later than all earlier publications under the path.

    Raises
    ------
    PidflowError
        If a rule of the registry is broken, the bundle is not whole, not the one that passed the gate, or would leave
        objects of an older publication visible beside its own.
    """
    store, folder = Path(registry), Path(bundle_dir)
    if not 0 <= valid_from < valid_until:
        raise PidflowError(f"{folder}: validity [{valid_from}, {valid_until}) is empty; correct the run table")
    earlier = history(store, path)
    content, object_of = _bundle(folder)
    blobs = {
        name: Blob(file=name, sha256=hashlib.sha256(data).hexdigest(), size=len(data)) for name, data in content.items()
    }
    if created is None:
        created = _creation_time(earlier)
    entry = Entry(
        path=path,
        valid_from=valid_from,
        valid_until=valid_until,
        created=created,
        metadata=check_metadata(metadata),
        objects={object_of[name]: blob for name, blob in blobs.items() if name in object_of},
        documents={name: blob for name, blob in blobs.items() if name not in object_of},
        new=True,
    )
    same_validity = [old for old in earlier if old.same_validity(entry)]
    if same_validity and same_validity[-1].same_content(entry):
        write_index(store)
        return same_validity[-1]
    _check_covers(entry, earlier)
    for blob in blobs.values():
        final = _object_path(store, blob.sha256)
        if not final.is_file() or sha256(final) != blob.sha256:
            _place(content[blob.file], final)
    _place_entry(store, entry)
    return entry


def _check_covers(entry: Entry, earlier: list[Entry]) -> None:
    for old in earlier:
        if old.overlaps(entry) and (left := sorted(set(old.objects) - set(entry.objects))):
            raise PidflowError(
                f"{entry.path}: {left[0]} of an older publication would stay visible beside this bundle; publish the"
                " same species or choose another 'publish.path'"
            )


def _place_entry(store: Path, entry: Entry) -> None:
    text = json.dumps(entry.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    name = f"{entry.valid_from}_{entry.valid_until}_{entry.created}_{digest}.json"
    _place(text.encode(), store / "entries" / entry.path / name)
    write_index(store)


def rollback(registry: str | Path, path: str, *, run: int | None = None, created: int | None = None) -> Entry:
    """Publish an earlier version again, so that it wins: same objects, documents and validity, created now.

    Its metadata name the version taken (``rollback_of``). Nothing is deleted: both stay in the history.

    Parameters
    ----------
    registry, path
        Folder of the registry and path in it.
    run
        Run whose publication is meant; None: all under the path are of one run, or `created` tells.
    created
        Creation time (ms) of the version to take; None: the one before the newest. If the newest is itself a rollback,
        that is the one before the version it took, so that another call goes further back.

    Raises
    ------
    PidflowError
        If there is no such version, it is in force already, its content is damaged, or objects of a newer publication
        would stay visible beside it.
    """
    store, published = Path(registry), versions(registry, path, run)
    taken = _before_newest(path, published) if created is None else version(registry, path, created, run)
    everything = history(registry, path)
    rival = [entry for entry in everything if entry.overlaps(taken)][-1]
    if rival == taken or (rival.same_validity(taken) and rival.same_content(taken)):
        raise PidflowError(
            f"{path}: the version created at {taken.created} ms is in force already; take an older one from the history"
        )
    for blob in (*taken.objects.values(), *taken.documents.values()):
        _read_blob(store, blob)
    entry = taken.model_copy(
        update={
            "created": _creation_time(everything),
            "metadata": check_metadata({**taken.metadata, ROLLBACK_KEY: str(taken.created)}),
            "new": True,
        }
    )
    _check_covers(entry, everything)
    _place_entry(store, entry)
    return entry


def _before_newest(path: str, published: list[Entry]) -> Entry:
    if len({entry.metadata.get("run") for entry in published}) > 1:
        raise PidflowError(f"{path}: it holds publications of several runs; name the run to roll back")
    newest_one = origin = published[-1]
    # from the newest back along the rollbacks, each of which is younger than what it took
    for entry in reversed(published):
        if str(entry.created) == origin.metadata.get(ROLLBACK_KEY):
            origin = entry
    before = [entry for entry in published if entry.created < origin.created and entry.overlaps(newest_one)]
    if not before:
        raise PidflowError(f"{path}: no version is older than the one in force; there is nothing to roll back to")
    return before[-1]


def _creation_time(earlier: list[Entry]) -> int:
    """Return the time in ms, moved behind all earlier publications."""
    return max([time.time_ns() // 1_000_000, *(entry.created + 1 for entry in earlier)])


def write_index(registry: str | Path) -> None:
    """Write ``index.json`` anew from the entries, unless it says the same already.

    It lists ``publications`` (path, run, valid_from, valid_until, created, metadata, objects and the file of the
    entry) by path and creation, and under ``damaged`` the files that are no entry. When several processes publish at
    once, each looks again after it has written: the last to write has seen every entry.
    """
    store = Path(registry)
    while True:
        content = _index(store)
        if (store / INDEX_FILE).is_file() and (store / INDEX_FILE).read_bytes() == content:
            return
        _place(content, store / INDEX_FILE)


def _index(store: Path) -> bytes:
    publications: list[dict[str, Any]] = []
    damaged: list[str] = []
    for file in _entry_files(store):
        name = file.relative_to(store).as_posix()
        try:
            entry = read_entry(file)
        except PidflowError:
            damaged.append(name)
            continue
        run = entry.metadata.get("run", "")
        told = entry.model_dump(mode="json", exclude={"documents"})
        publications.append({**told, "run": int(run) if run.isdecimal() else None, "entry": name})
    publications.sort(key=lambda line: (line["path"], line["created"], line["entry"]))
    text = json.dumps({"publications": publications, "damaged": damaged}, indent=2, ensure_ascii=False)
    return f"{text}\n".encode()


def retrieve(registry: str | Path, object_path: str, timestamp: int, destination: str | Path) -> Entry:
    """Write one object, found by its own path as the CCDB does, under a local name (``retrieveBlob``).

    Raises
    ------
    PidflowError
        If no publication of it is valid at `timestamp` (ms), where O2Physics stops, or its content is damaged.
    """
    path, _, name = object_path.rpartition("/")
    holding = [entry for entry in history(registry, path) if name in entry.objects]
    valid = [entry for entry in holding if entry.valid_from <= timestamp < entry.valid_until]
    if not valid:
        raise PidflowError(f"{object_path}: nothing is published for time {timestamp} ms; publish the run first")
    _place(_read_blob(Path(registry), valid[-1].objects[name]), Path(destination))
    return valid[-1]


def fetch(
    registry: str | Path, path: str, timestamp: int, destination: str | Path, *, documents: bool = False
) -> Entry:
    """Write the objects that win at `timestamp` (ms) into a folder under their local names.

    Parameters
    ----------
    documents
        Whether to write card, provenance and reports too.

    Raises
    ------
    PidflowError
        If nothing is valid then, or an object is damaged; nothing is written in either case.
    """
    entry = lookup(registry, path, timestamp)
    if entry is None:
        raise PidflowError(f"{path}: nothing is published for time {timestamp} ms; publish the run first")
    wanted = [*entry.objects.values(), *(entry.documents.values() if documents else ())]
    content = {blob.file: _read_blob(Path(registry), blob) for blob in wanted}
    for name, data in content.items():
        _place(data, Path(destination) / name)
    return entry
