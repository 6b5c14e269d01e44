"""The few requests of the CCDB's REST interface that publication needs.

Secrets come from environment variables alone, and no message of this module holds one. A request is tried again after
a lost connection, a time-out and the answers 429 and 5xx, with growing random pauses; never after any other answer.
A POST whose answer was lost is looked up before it is sent again, so that the object is not stored twice; if the
server is so late that it stores both, they are the same.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import requests

from pidflow.errors import PidflowError
from pidflow.publish import registry

UPLOAD_TIMEOUT = 20.0
"""Longest silence of the server during an upload, s."""
DOWNLOAD_TIMEOUT = 15.0
"""Longest silence of the server during any other request, s."""

TOKEN = "PIDFLOW_CCDB_TOKEN"
CERTIFICATE = "JALIEN_TOKEN_CERT"
KEY = "JALIEN_TOKEN_KEY"

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 8.0
_LOST = (requests.ConnectionError, requests.exceptions.ChunkedEncodingError)
_MENDS = {
    400: "correct the path, validity or metadata",
    401: "check the token or certificate",
    403: "check the token or certificate and that the account may write there",
}
# of the browser's answer; metadata of the same name could not be told from them
_FIELDS = {
    *("path", "createtime", "lastmodified", "created", "last-modified", "id", "validfrom", "validuntil", "etag"),
    *("initialvalidity", "initialvaliditylimit", "md5", "filename", "contenttype", "size", "valid-from", "valid-until"),
    *("replicas", "location", "content-location", "content-type", "content-length", "content-disposition"),
    *("content-md5", "accept-ranges", "date", "server", "connection", "transfer-encoding"),
}


@dataclass(frozen=True)
class Credentials:
    """What the client shows to the server; its text form holds no secret.

    Attributes
    ----------
    token
        Sent as ``Authorization: Bearer``.
    certificate
        Files of a client certificate and of its key.
    """

    token: str | None = field(default=None, repr=False)
    certificate: tuple[str, str] | None = None


def credentials(
    *,
    token: str = TOKEN,
    certificate: str = CERTIFICATE,
    key: str = KEY,
    environment: Mapping[str, str] = os.environ,
) -> Credentials:
    """Read the credentials from the environment variables of these names; those that are not set are left out.

    Raises
    ------
    PidflowError
        If a token is not one printable word, or a certificate comes without key or names no file.
    """
    secret = environment.get(token) or None
    if secret is not None and not re.fullmatch(r"[\x21-\x7e]+", secret):
        raise PidflowError(f"environment variable {token}: it holds no token; set it to one word without line break")
    files = {name: environment[name] for name in (certificate, key) if environment.get(name)}
    if len(files) == 1:
        raise PidflowError(f"environment variable {next(iter(files))}: set both {certificate} and {key}, or neither")
    for name, file in files.items():
        if not Path(file).is_file():
            raise PidflowError(f"environment variable {name}: it names no file; set it to a certificate or key in PEM")
    return Credentials(secret, (files[certificate], files[key]) if files else None)


@dataclass(frozen=True)
class Stored:
    """One version of an object.

    Attributes
    ----------
    uuid
        Identity of the version.
    valid_from, valid_until, created
        ms since 1970; the validity excludes its end.
    md5
        Of the content; known from `Client.browse` only.
    fields
        Metadata, among what else the server says.
    """

    uuid: str
    valid_from: int
    valid_until: int
    created: int
    md5: str | None
    fields: Mapping[str, Any]

    def carries(self, metadata: Mapping[str, str]) -> bool:
        """Return whether all of `metadata` is there; the server adds some of its own."""
        return all(str(self.fields.get(key)) == value for key, value in metadata.items())


def check_object_path(path: str) -> str:
    """Return `path` if the CCDB takes it as that of an object.

    Raises
    ------
    PidflowError
        For more than ten parts, a part that is a number, or barred characters.
    """
    folder, slash, name = path.rpartition("/")
    if slash:
        registry.check_path(folder)
    registry.check_path(name)
    return path


def check_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return `metadata`, sorted, if the CCDB takes it.

    Raises
    ------
    PidflowError
        For barred characters, or a key that the CCDB uses itself.
    """
    for key in metadata:
        if key.lower() in _FIELDS:
            raise PidflowError(f"metadata {key}: the CCDB uses this key itself; choose another")
    return registry.check_metadata(metadata)


class _LandedError(Exception):
    """A request took effect although its answer was lost."""


class Client:
    """A client of one CCDB.

    Parameters
    ----------
    url
        ``https://<host>[:port]``; plain http is for the loopback interface alone.
    secrets
        What `credentials` returns; none by default.
    attempts
        How often a request is sent at most.

    Raises
    ------
    PidflowError
        If the URL is of another kind.
    """

    def __init__(self, url: str, secrets: Credentials | None = None, *, attempts: int = 5) -> None:
        given = secrets or Credentials()
        self.url = _check_url(url)
        self._attempts = attempts
        self._session = requests.Session()
        # a plain connection to this machine needs no authority, and no proxy may see it
        self._session.trust_env = self.url.startswith("https:")
        self._session.auth = _bearer(given.token)
        self._session.cert = given.certificate

    def head(self, path: str, timestamp: int, metadata: Mapping[str, str] | None = None) -> Stored | None:
        """Return the version that wins at `timestamp` (ms), or None; `metadata` restricts the choice.

        Raises
        ------
        PidflowError
            If the path or metadata is barred, or the server does not answer or refuses.
        """
        answer = self._request("HEAD", _at(path, timestamp, metadata=metadata))
        return None if answer.status_code == 404 else self._stored(answer)

    def get(self, path: str, timestamp: int, metadata: Mapping[str, str] | None = None) -> tuple[Stored, bytes] | None:
        """Return the version that wins at `timestamp` (ms) and its content, or None.

        Raises
        ------
        PidflowError
            As for `head`, or if the server names another host for the content: that would get the credentials.
        """
        answer = self._request("GET", _at(path, timestamp, metadata=metadata))
        if answer.status_code == 404:
            return None
        target = urljoin(f"{self.url}/", answer.headers.get("Location", ""))
        if answer.status_code != 303 or not target.startswith(f"{self.url}/download/"):
            raise PidflowError(f"{self.url}/{path}: the content is not on this server; set the URL of the one with it")
        download = self._request("GET", target.removeprefix(self.url))
        if download.status_code != 200:
            raise PidflowError(f"{target}: the content is gone (answer {download.status_code}); publish the run again")
        return self._stored(answer), download.content

    def browse(self, path: str) -> list[Stored]:
        """Return all versions of an object, the newest first.

        Raises
        ------
        PidflowError
            As for `head`.
        """
        answer = self._request("GET", f"/browse/{check_object_path(path)}", headers={"Accept": "application/json"})
        if answer.status_code == 404:
            return []
        try:
            versions = [
                Stored(
                    uuid=str(found["id"]),
                    valid_from=int(found["validFrom"]),
                    valid_until=int(found["validUntil"]),
                    created=int(found["createTime"]),
                    md5=str(found["MD5"]).lower(),
                    fields=found,
                )
                for found in answer.json()["objects"]
                if found["path"] == path
            ]
        except (ValueError, KeyError, TypeError):
            raise PidflowError(f"{self.url}/browse/{path}: the answer is not that of a CCDB; correct the URL") from None
        return sorted(versions, key=lambda version: version.created, reverse=True)

    def find(
        self, path: str, valid_from: int, valid_until: int, content: bytes, metadata: Mapping[str, str]
    ) -> Stored | None:
        """Return the newest version of exactly this validity if it has this content and metadata, or None.

        Raises
        ------
        PidflowError
            As for `head`.
        """
        validity = (valid_from, valid_until)
        newest = next((v for v in self.browse(path) if (v.valid_from, v.valid_until) == validity), None)
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        return newest if newest is not None and newest.md5 == md5 and newest.carries(metadata) else None

    def post(
        self, path: str, valid_from: int, valid_until: int, content: bytes, metadata: Mapping[str, str], file: str
    ) -> None:
        """Store a new version of an object under the file name `file`.

        Parameters
        ----------
        valid_from, valid_until
            Validity [from, until) in ms since 1970.

        Raises
        ------
        PidflowError
            As for `head`, or if the validity is empty.
        """
        if not 0 <= valid_from < valid_until:
            raise PidflowError(f"{path}: validity [{valid_from}, {valid_until}) is empty; correct the run table")
        try:
            answer = self._request(
                "POST",
                _at(path, valid_from, valid_until, metadata=metadata),
                files={"blob": (file, content, "application/octet-stream")},
                timeout=UPLOAD_TIMEOUT,
                landed=lambda: self.find(path, valid_from, valid_until, content, metadata) is not None,
            )
        except _LandedError:
            return
        if answer.status_code != 201 or "Location" not in answer.headers:
            raise PidflowError(f"{self.url}/{path}: not stored (answer {answer.status_code}); check the URL")

    def _stored(self, answer: requests.Response) -> Stored:
        said = answer.headers
        try:
            return Stored(
                uuid=said["ETag"].strip('"'),
                valid_from=int(said["Valid-From"]),
                valid_until=int(said["Valid-Until"]),
                created=int(said["Created"]),
                md5=None,
                fields=said,
            )
        except (KeyError, ValueError):
            raise PidflowError(f"{answer.url}: the answer is not that of a CCDB; correct the URL") from None

    def _request(
        self,
        method: str,
        target: str,
        *,
        timeout: float = DOWNLOAD_TIMEOUT,
        landed: Callable[[], bool] | None = None,
        **content: Any,
    ) -> requests.Response:
        """Send a request until it is answered or, its answer being lost, is found to have `landed`."""
        where, problem = f"{method} {self.url}{target}", ""
        for attempt in range(self._attempts):
            if attempt:
                time.sleep(random.uniform(0.5, 1.0) * min(_FIRST_PAUSE * 2 ** (attempt - 1), _LONGEST_PAUSE))
                if landed is not None and landed():
                    raise _LandedError
            try:
                answer = self._session.request(
                    method, self.url + target, timeout=timeout, allow_redirects=False, **content
                )
            except requests.exceptions.SSLError:
                raise PidflowError(
                    f"{where}: no trusted TLS connection; name the authority's file in REQUESTS_CA_BUNDLE, and check"
                    " the client certificate"
                ) from None
            except requests.Timeout:
                problem = "no answer in time"
            except _LOST:
                problem = "connection lost or refused"
            except (requests.RequestException, OSError):
                raise PidflowError(f"{where}: it cannot be sent; check the URL and the client certificate") from None
            else:
                status = answer.status_code
                if status < 400 or status == 404:
                    return answer
                if status != 429 and status < 500:
                    mend = _MENDS.get(status, "check the URL")
                    raise PidflowError(f"{where}: refused with {status}; {mend}")
                problem = f"answer {status}"
        raise PidflowError(f"{where}: {problem} after {self._attempts} attempts; run it again when the server is up")


def _check_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https") or parts.path.strip("/") or parts.query or parts.fragment:
        raise PidflowError("URL of the CCDB: it is not of the form https://host[:port]; correct it")
    if "@" in parts.netloc:
        raise PidflowError("URL of the CCDB: it holds a name or password; take it out and set a token instead")
    if parts.scheme == "http" and not _is_loopback(host):
        raise PidflowError(f"URL of the CCDB: http to {host} is readable by others; use https")
    return f"{parts.scheme}://{parts.netloc}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _bearer(token: str | None) -> Callable[[requests.PreparedRequest], requests.PreparedRequest]:
    # set even without a token: else requests would take a password from the netrc file
    def sign(request: requests.PreparedRequest) -> requests.PreparedRequest:
        if token is not None:
            request.headers["Authorization"] = f"Bearer {token}"
        return request

    return sign


def _at(path: str, *times: int, metadata: Mapping[str, str] | None) -> str:
    pairs = (f"{key}={quote(value, safe='')}" for key, value in check_metadata(metadata or {}).items())
    return "/" + "/".join([check_object_path(path), *map(str, times), *pairs])
