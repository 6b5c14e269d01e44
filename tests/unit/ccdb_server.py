"""A stand-in for the CCDB on this machine, after the documented protocol of its REST interface."""

from __future__ import annotations

import email.parser
import email.policy
import hashlib
import json
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlsplit

Fault = Literal["500", "429", "400", "401", "403", "drop before", "drop after", "late before", "late after"]

_BARRED = set(":;.,\\/'?!(){}[]@<>=+*#$&`|~^%")
_MOST_PARTS = 10


@dataclass(frozen=True)
class Version:
    """One version of an object; times in ms."""

    path: str
    valid_from: int
    valid_until: int
    initial: int
    created: int
    modified: int
    metadata: dict[str, str]
    content: bytes
    file: str
    content_type: str
    id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def md5(self) -> str:
        return hashlib.md5(self.content).hexdigest()

    def headers(self) -> dict[str, str]:
        return {
            "Content-Location": f"/download/{self.id}",
            "Valid-From": str(self.valid_from),
            "Valid-Until": str(self.valid_until),
            "InitialValidityLimit": str(self.initial),
            "Created": str(self.created),
            "Last-Modified": str(self.modified),
            "ETag": f'"{self.id}"',
            **self.metadata,
        }

    def described(self) -> dict[str, object]:
        return {
            "path": self.path,
            "createTime": self.created,
            "lastModified": self.modified,
            "Created": str(self.created),
            "Last-Modified": str(self.modified),
            "id": self.id,
            "validFrom": self.valid_from,
            "validUntil": self.valid_until,
            "initialValidity": self.initial,
            "MD5": self.md5,
            "fileName": self.file,
            "contentType": self.content_type,
            "size": len(self.content),
            "ETag": f'"{self.id}"',
            "Valid-From": str(self.valid_from),
            "Valid-Until": str(self.valid_until),
            **self.metadata,
            "replicas": ["0"],
        }


@dataclass(frozen=True)
class Seen:
    """A request that came in."""

    method: str
    target: str
    headers: dict[str, str]


class _RefusedError(Exception):
    def __init__(self, status: int) -> None:
        self.status = status


@dataclass(frozen=True)
class _Target:
    """A parsed target: path, then times, a uuid and pairs, in that order."""

    path: str
    times: list[int]
    id: str | None
    pairs: dict[str, str]

    @classmethod
    def parse(cls, text: str) -> _Target:
        tokens = [unquote(token) for token in text.split("/") if token]
        start = next((i for i, token in enumerate(tokens) if token.isdigit()), len(tokens))
        path, rest = tokens[:start], tokens[start:]
        if not path or len(path) > _MOST_PARTS:
            raise _RefusedError(400)
        times: list[int] = []
        while rest and rest[0].isdigit():
            times.append(int(rest.pop(0)))
        identity = rest.pop(0) if rest and re.fullmatch(r"[0-9a-f-]{36}", rest[0]) else None
        pairs = {}
        for token in rest:
            key, equals, value = token.partition("=")
            if not equals or not key or set(key) & _BARRED:
                raise _RefusedError(400)
            pairs[key] = value
        return cls("/".join(path), times, identity, pairs)


class Ccdb(ThreadingHTTPServer):
    """The server and what it holds.

    Attributes
    ----------
    versions
        All that is stored.
    seen
        Requests that came in since the last `reset`.
    faults
        What goes wrong at the n-th request since the last `reset`, counted from 1; 0: at every one.
    token
        What a writer must show; None: nothing.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.versions: list[Version] = []
        self.seen: list[Seen] = []
        self.faults: dict[int, Fault] = {}
        self.token: str | None = None
        self.delay = 0.6
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def reset(self) -> None:
        self.seen, self.faults = [], {}

    def count(self, method: str) -> int:
        return sum(seen.method == method for seen in self.seen)

    def now(self) -> int:
        return max([time.time_ns() // 1_000_000, *(version.created + 1 for version in self.versions)])

    def store(
        self,
        path: str,
        valid_from: int,
        valid_until: int,
        content: bytes = b"",
        metadata: dict[str, str] | None = None,
        *,
        file: str = "blob",
        content_type: str = "application/octet-stream",
    ) -> Version:
        now = self.now()
        times = (valid_from, valid_until, valid_until, now, now)
        version = Version(path, *times, metadata or {}, content, file, content_type)
        self.versions.append(version)
        return version

    def winner(self, target: _Target, headers: dict[str, str]) -> Version | None:
        after, before = headers.get("if-not-after"), headers.get("if-not-before")
        valid = [
            version
            for version in self.versions
            if version.path == target.path
            and version.valid_from <= target.times[0] < version.valid_until
            and (target.id is None or version.id == target.id)
            and all(version.metadata.get(key) == value for key, value in target.pairs.items())
            and (after is None or version.created <= int(after))
            and (before is None or version.created >= int(before))
        ]
        return max(valid, key=lambda version: version.created, default=None)


class _Handler(BaseHTTPRequestHandler):
    server: Ccdb

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {key.lower(): value for key, value in self.headers.items()}
        with self.server.lock:
            self.server.seen.append(Seen(self.command, self.path, dict(self.headers.items())))
            fault = self.server.faults.get(len(self.server.seen), self.server.faults.get(0))
            answer: tuple[int, dict[str, str], bytes]
            if fault is not None and fault.isdigit():
                answer = (int(fault), {}, b"")
            elif fault in ("drop before", "late before"):
                answer = (0, {}, b"")
            else:
                try:
                    answer = self._answer(headers, body)
                except _RefusedError as refused:
                    answer = (refused.status, {}, b"")
        if fault is not None and fault.startswith("late"):
            threading.Event().wait(self.server.delay)
        if fault is not None and not fault.isdigit():
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        status, said, content = answer
        self.send_response(status)
        for key, value in said.items():
            self.send_header(key, value)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _handle  # noqa: N815

    def _answer(self, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        parts = urlsplit(self.path)
        first, _, rest = parts.path.strip("/").partition("/")
        token = self.server.token
        if self.command in ("POST", "PUT", "DELETE"):
            if token is not None and headers.get("authorization") != f"Bearer {token}":
                raise _RefusedError(403)
            target = _Target.parse(parts.path)
            if not target.times:
                raise _RefusedError(400)
            return {"POST": self._post, "PUT": self._put, "DELETE": self._delete}[self.command](target, headers, body)
        if first == "download":
            return self._download(rest)
        if first in ("browse", "latest"):
            return self._browse(unquote(rest), headers, first == "latest")
        if first == "truncate":
            self.server.versions = [v for v in self.server.versions if v.path != unquote(rest)]
            return 204, {}, b""
        return self._choose(_Target.parse(parts.path), headers)

    def _choose(self, target: _Target, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        if not target.times:
            raise _RefusedError(400)
        version = self.server.winner(target, headers)
        if version is None:
            raise _RefusedError(404)
        if headers.get("if-none-match", "").strip('"') == version.id:
            return 304, version.headers(), b""
        return 303, {"Location": f"/download/{version.id}", **version.headers()}, b""

    def _download(self, identity: str) -> tuple[int, dict[str, str], bytes]:
        version = next((v for v in self.server.versions if v.id == identity), None)
        if version is None:
            raise _RefusedError(404)
        said = {
            "Content-Disposition": f'inline;filename="{version.file}"',
            "Content-Type": version.content_type,
            "Content-MD5": version.md5,
            "Accept-Ranges": "bytes",
        }
        return 200, said, version.content

    def _browse(self, path: str, headers: dict[str, str], latest: bool) -> tuple[int, dict[str, str], bytes]:
        if headers.get("accept") != "application/json":
            return 200, {"Content-Type": "text/html"}, b"<html></html>"
        folder = path.removesuffix("/.*")
        below = {v.path for v in self.server.versions if v.path.startswith(f"{folder}/")}
        wanted = {folder, *below} if path.endswith("/.*") else {folder}
        found = sorted((v for v in self.server.versions if v.path in wanted), key=lambda v: -v.created)
        if latest:
            found = list({v.path: v for v in reversed(found)}.values())
        found = found[: int(headers.get("browse-limit", len(found)))]
        described = [version.described() for version in found]
        if "x-filter-fields" in headers:
            kept = headers["x-filter-fields"].split(",")
            described = [{key: value for key, value in one.items() if key in kept} for one in described]
        subfolders = sorted({f"{folder}/{name[len(folder) + 1 :].split('/')[0]}" for name in below})
        content = json.dumps({"objects": described, "subfolders": subfolders}).encode()
        return 200, {"Content-Type": "application/json"}, content

    def _post(self, target: _Target, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        head = f"Content-Type: {headers.get('content-type', '')}\r\n\r\n".encode()
        message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
        parts = list(message.iter_parts()) if message.is_multipart() else []
        if len(parts) != 1 or len(target.times) != 2 or target.times[0] >= target.times[1]:
            raise _RefusedError(400)
        content = parts[0].get_payload(decode=True)
        assert isinstance(content, bytes)
        version = self.server.store(
            target.path,
            target.times[0],
            target.times[1],
            content,
            target.pairs,
            file=parts[0].get_filename() or "blob",
            content_type=parts[0].get_content_type(),
        )
        return 201, {"Location": f"/download/{version.id}", **version.headers()}, b""

    def _put(self, target: _Target, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        old = self.server.winner(replace(target, pairs={}), headers)
        if old is None:
            raise _RefusedError(404)
        new = replace(
            old,
            valid_until=target.times[1] if len(target.times) > 1 else old.valid_until,
            metadata={**old.metadata, **dict(parse_qsl(urlsplit(self.path).query))},
        )
        if new == old:
            return 304, {}, b""
        now = self.server.now()
        self.server.versions = [replace(new, modified=now) if v.id == old.id else v for v in self.server.versions]
        return 204, {}, b""

    def _delete(self, target: _Target, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        old = self.server.winner(target, headers)
        if old is None:
            raise _RefusedError(404)
        self.server.versions = [v for v in self.server.versions if v.id != old.id]
        return 204, {}, b""


@contextmanager
def serving() -> Iterator[Ccdb]:
    """Run a stand-in while the block lasts."""
    server = Ccdb()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
