"""Input files on servers: which addresses are accepted, and one copy of each, resumed where a transfer broke off.

XRootD (``root://``) and HTTPS are read through fsspec. Credentials come from where their clients look for
them, never from an address: ``X509_USER_PROXY``, ``X509_CERT_DIR`` and ``BEARER_TOKEN_FILE`` for both;
the XRootD client's own settings (``XRD_*``, ``XrdSec*``) and, for HTTPS, ``SSL_CERT_FILE`` and ``~/.netrc``.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import SplitResult, unquote, urlsplit

from pidflow.errors import PidflowError
from pidflow.files import replacing

if TYPE_CHECKING:
    import ssl

    import aiohttp

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_HOST = re.compile(r"[a-z0-9_.-]+|[0-9a-f:.]+")
_USER = re.compile(r"(?<=://)(?:[^/]*|[^/@]*:(?!\d+/)[^@]*)@")
_QUERY = re.compile(r"[?#][^\s'\")]*")
_PATTERN = re.compile(r"[*\[\]]")

_PORTS = {"root": 1094, "https": 443}
_BLOCK = 4 << 20
_PROGRESS_EVERY = 5.0
_LONGEST_PAUSE = 60.0
_TIMEOUT = 60.0
_CREDENTIALS = "give credentials to the client (X509_USER_PROXY or BEARER_TOKEN_FILE)"

# Without these the client waits for up to half an hour; the repetition is done here.
_XROOTD_CLIENT = {
    "XRD_CONNECTIONWINDOW": "30",
    "XRD_CONNECTIONRETRY": "1",
    "XRD_REQUESTTIMEOUT": "60",
    "XRD_STREAMTIMEOUT": "60",
    "XRD_STREAMERRORWINDOW": "0",
    "XRD_TIMEOUTRESOLUTION": "1",
}


class RemoteMissingError(PidflowError):
    """The server answers that there is no such file."""


class _AttemptError(Exception):
    """What went wrong in one attempt, and what mends it; a final failure is not tried again."""

    def __init__(self, reason: str, mend: str, *, final: bool = False, missing: bool = False) -> None:
        super().__init__(reason)
        self.reason = redacted(reason)[:200]
        self.mend = mend
        self.final = final or missing
        self.missing = missing


@dataclass(frozen=True)
class _Source:
    """An open remote file.

    Attributes
    ----------
    size
        Size of the whole file in bytes.
    offset
        Byte from which `read` goes on: the one asked for, or 0 where a server cannot start later.
    read
        Returns at most as many bytes as asked for, none at the end.
    """

    size: int
    offset: int
    read: Callable[[int], bytes]


# addresses


def is_remote(uri: str) -> bool:
    """Return whether a name is an address (``scheme://...``) and no local path."""
    return _SCHEME.match(uri) is not None


def is_pattern(uri: str) -> bool:
    """Return whether an address holds wildcards."""
    return _PATTERN.search(urlsplit(uri).path) is not None


def redacted(text: str) -> str:
    """Return a text, in one line, with users, passwords and queries of the addresses in it left out."""
    line = " ".join(text.split())
    plain = "".join(character if character.isprintable() else "\ufffd" for character in line)
    return _QUERY.sub("?...", _USER.sub("...@", plain))


def _parts(uri: str) -> SplitResult:
    """Return the parts of an address, its scheme as fsspec knows it."""
    parts = urlsplit(uri)
    return parts._replace(scheme="root") if parts.scheme == "xroot" else parts


def _fault(uri: str) -> str | None:
    """Return what is wrong with an address, and the mend."""
    if " " in uri or not unquote(uri).isprintable():
        return "holds white space or control characters; correct the address"
    try:
        parts = _parts(uri)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "has no valid host and port; correct the address"
    if parts.scheme == "http":
        return "plain http is not encrypted; use https"
    if parts.scheme not in _PORTS:
        return f"'{parts.scheme}' is not supported; use root or https, or copy the file to a local path"
    if not _HOST.fullmatch(host) or port == 0:
        return "has no valid host and port; correct the address"
    if not parts.path.strip("/") or parts.path.endswith("/"):
        return "names no file; give the path of a file on the server"
    if {".", ".."}.intersection(unquote(parts.path).split("/")):
        return "holds '.' or '..'; give the path itself"
    return None


def check(uri: str) -> None:
    """Check an address of the run table.

    Raises
    ------
    PidflowError
        For anything but a plain ``root://`` (``xroot://``) or ``https://`` address of a file: other schemes,
        credentials in the address, a query, '..', white space, wildcards in ``https://``.
    """
    fault = _fault(uri)
    if fault is None and ("@" in urlsplit(uri).netloc or "?" in uri or "#" in uri):
        fault = f"an address must not carry a user, a password or a query; {_CREDENTIALS}"
    if fault is None and is_pattern(uri) and _parts(uri).scheme == "https":
        fault = "https servers cannot list files; name each file, in a list ('@list.txt') if there are many"
    if fault:
        raise PidflowError(f"{redacted(uri)}: {fault}")


def normal(uri: str) -> str:
    """Return the same text for addresses that differ only in writing."""
    parts = _parts(uri)
    port = parts.port or _PORTS[parts.scheme]
    path = unquote(parts.path) if parts.scheme == "https" else parts.path
    return f"{parts.scheme}://{parts.hostname}:{port}{posixpath.normpath('/' + path.lstrip('/'))}"


def expand(uri: str) -> list[str]:
    """Return the files that a ``root://`` pattern matches, sorted.

    Raises
    ------
    PidflowError
        If nothing matches, or the server cannot be asked.
    """
    parts = _parts(uri)
    try:
        with _told(_xrootd_failure):
            found = _xrootd(parts.netloc, _TIMEOUT).glob(parts.path[1:], detail=True, on_error="raise")
    except _AttemptError as failure:
        raise _final(uri, failure) from None
    files = sorted(path for path, details in found.items() if details["type"] != "directory")
    if not files:
        raise PidflowError(f"{uri}: no file on the server matches; correct the pattern")
    uris = [f"root://{parts.netloc}/{path}" for path in files]
    for found_uri in uris:
        check(found_uri)
    return uris


# transfers


def fetch(uri: str, folder: str | Path, *, retries: int, pause: float = 1.0, timeout: float = _TIMEOUT) -> Path:
    """Copy a remote file into a folder.

    A transfer that breaks off is resumed at the byte that it reached, where the server can. The file
    appears under its name only when it is whole.

    Parameters
    ----------
    uri
        Address of the file.
    folder
        Where the copy goes, under the file's own name; the folder is made.
    retries
        How often in a row an attempt that brought nothing is repeated.
    pause
        Wait before the first repetition, in seconds; it doubles each time, up to a minute.
    timeout
        Longest wait for a server's answer, in seconds.

    Returns
    -------
    Path
        The copy.

    Raises
    ------
    RemoteMissingError
        If the server knows no such file.
    PidflowError
        If the address is not accepted, access is refused, the server cannot be reached, its certificate is
        not trusted, the file changed or broke off for good, or the copy cannot be written.
    """
    if fault := _fault(uri):
        raise PidflowError(f"{redacted(uri)}: {fault}")
    target = Path(folder) / posixpath.basename(_parts(uri).path)
    try:
        with replacing(target) as temporary, temporary.open("wb") as copy:
            _Transfer(uri, copy, retries, pause, timeout).run()
    except OSError as error:
        raise PidflowError(
            f"{folder}: the copy of {redacted(uri)} cannot be written ({error.strerror}); "
            "free space there, or mend the folder's permissions"
        ) from None
    return target


def fetch_with_companions(
    uri: str, folder: str | Path, names: Sequence[str], *, retries: int, pause: float = 1.0, timeout: float = _TIMEOUT
) -> Path:
    """Copy a remote file and those of the named files that lie beside it on the server.

    Parameters
    ----------
    names
        Names of companions; one that the server does not have is left out.
    uri, folder, retries, pause, timeout
        As for `fetch`.

    Returns
    -------
    Path
        The copy of the file itself; its companions lie beside it.

    Raises
    ------
    PidflowError
        As for `fetch`.
    """
    copy = fetch(uri, folder, retries=retries, pause=pause, timeout=timeout)
    parts = urlsplit(uri)
    for name in names:
        companion = parts._replace(path=posixpath.join(posixpath.dirname(parts.path), name)).geturl()
        with contextlib.suppress(RemoteMissingError):
            fetch(companion, folder, retries=retries, pause=pause, timeout=timeout)
    return copy


class _Transfer:
    """One copy, in as many attempts as it takes."""

    def __init__(self, uri: str, copy: BinaryIO, retries: int, pause: float, timeout: float) -> None:
        self._uri = uri
        self._name = redacted(uri)
        self._copy = copy
        self._retries = retries
        self._pause = pause
        self._timeout = timeout
        self._size: int | None = None
        self._began = time.monotonic()

    def run(self) -> None:
        """Copy the file."""
        furthest = failures = 0
        while True:
            try:
                self._attempt()
            except _AttemptError as failure:
                reached = self._copy.tell()
                failures = 0 if reached > furthest else failures + 1
                furthest = max(furthest, reached)
                if failure.final or failures > self._retries:
                    raise _final(self._uri, failure, self._where(reached)) from failure
                self._wait(failures, f"{failure.reason}{self._where(reached)}")
            else:
                print(f"{self._name}: {self._copy.tell()} bytes in {time.monotonic() - self._began:.1f} s", flush=True)
                return

    def _attempt(self) -> None:
        """Copy what is missing still."""
        https = _parts(self._uri).scheme == "https"
        told, opened = (_https_failure, _over_https) if https else (_xrootd_failure, _over_xrootd)
        with contextlib.ExitStack() as stack:
            with _told(told):
                source = stack.enter_context(opened(self._uri, self._copy.tell(), self._timeout))
            self._size = source.size if self._size is None else self._size
            if source.size != self._size:
                raise _AttemptError("the file changed on the server during the transfer", "run again", final=True)
            self._copy.seek(source.offset)
            progress = _Progress(self._name, source)
            while (reached := self._copy.tell()) < source.size:
                with _told(told):
                    block = source.read(min(_BLOCK, source.size - reached))
                if not block:
                    raise _AttemptError("the server sent less than the file's size", "run again")
                self._copy.write(block)
                progress.report(reached + len(block))

    def _where(self, reached: int) -> str:
        return f" after {reached} of {self._size} bytes" if reached else ""

    def _wait(self, failures: int, reason: str) -> None:
        seconds = min(_LONGEST_PAUSE, self._pause * 2 ** max(0, failures - 1)) * random.uniform(0.5, 1)
        print(f"{self._name}: {reason}; next attempt in {seconds:.1f} s", flush=True)
        time.sleep(seconds)


class _Progress:
    """Prints how far a transfer is, every few seconds."""

    def __init__(self, name: str, source: _Source) -> None:
        self._name = name
        self._size = source.size
        self._last = time.monotonic(), source.offset

    def report(self, reached: int) -> None:
        now = time.monotonic()
        then, before = self._last
        if now - then < _PROGRESS_EVERY:
            return
        rate = (reached - before) / (now - then)
        left = (self._size - reached) / rate
        print(
            f"{self._name}: {reached / 1e6:.0f} of {self._size / 1e6:.0f} MB, {rate / 1e6:.1f} MB/s, {left:.0f} s left",
            flush=True,
        )
        self._last = now, reached


def _final(uri: str, failure: _AttemptError, where: str = "") -> PidflowError:
    kind = RemoteMissingError if failure.missing else PidflowError
    return kind(f"{redacted(uri)}: {failure.reason}{where}; {failure.mend}")


@contextlib.contextmanager
def _told(failure_of: Callable[[Exception], _AttemptError | None]) -> Iterator[None]:
    """Turn what a client raises into an `_AttemptError`, defects of the program left as they are."""
    try:
        yield
    except _AttemptError:
        raise
    except ImportError as error:
        raise _AttemptError(f"a client is missing ({error})", "install requirements.lock", final=True) from error
    except Exception as error:
        failure = failure_of(error)
        if failure is None:
            raise
        raise failure from error


def _missing() -> _AttemptError:
    return _AttemptError("the server has no such file", "correct the path", missing=True)


def _refused(answer: str) -> _AttemptError:
    return _AttemptError(f"the server refuses access ({answer})", _CREDENTIALS, final=True)


def _silent() -> _AttemptError:
    return _AttemptError("the server did not answer in time", "try again later")


def _unreachable(why: str) -> _AttemptError:
    return _AttemptError(f"the server cannot be reached ({why})", "correct the host, or try again later")


# XRootD


def _xrootd(hostid: str, timeout: float) -> Any:
    """Return the file system of a server. The client reads its settings when it is first imported."""
    for name, value in _XROOTD_CLIENT.items():
        os.environ.setdefault(name, value)
    import fsspec

    return fsspec.filesystem(
        "root", hostid=hostid, timeout=max(1, round(timeout)), locate_all_sources=False, use_listings_cache=False
    )


@contextlib.contextmanager
def _over_xrootd(uri: str, offset: int, timeout: float) -> Iterator[_Source]:
    parts = _parts(uri)
    filesystem = _xrootd(parts.netloc, timeout)
    path = parts._replace(scheme="", netloc="", path=parts.path[1:]).geturl()
    details = filesystem.info(path)
    if details["type"] == "directory":
        raise _AttemptError("this is a folder", "name a file in it", final=True)
    stream = filesystem.open(path, cache_type="none", size=details["size"])
    try:
        stream.seek(offset)
        yield _Source(details["size"], offset, stream.read)
    finally:
        with contextlib.suppress(OSError):
            stream.close()
        stream.closed = True  # after a failed close it would be closed again when collected


def _xrootd_failure(error: Exception) -> _AttemptError | None:
    """Return what an error of the XRootD client means; it tells its kind in the text alone."""
    if not isinstance(error, OSError):
        return None
    text = " ".join(str(error).split())
    answer = re.search(r"\[(3\d\d\d)\] ?(.*)", text)
    code, said = (answer[1], answer[2]) if answer else ("", text)
    if code == "3011":
        return _missing()
    if code in ("3010", "3030") or "Auth failed" in text:
        return _refused(said)
    if code:
        return _AttemptError(f"the server answers: {said}", "try again later")
    if re.search("time-?out|expired", text, flags=re.IGNORECASE):
        return _silent()
    return _unreachable(text.rpartition("] ")[2])


# HTTPS


def _trust() -> ssl.SSLContext:
    """Return the authorities that are trusted, and the certificate that the client shows if it is asked for one."""
    import ssl

    context = ssl.create_default_context()
    try:
        if folder := os.environ.get("X509_CERT_DIR"):
            context.load_verify_locations(capath=folder)
        if proxy := os.environ.get("X509_USER_PROXY"):
            context.load_cert_chain(proxy)
    except OSError as error:
        raise _AttemptError(
            f"credentials cannot be read ({error.strerror})",
            "correct X509_CERT_DIR and X509_USER_PROXY, or unset them",
            final=True,
        ) from error
    return context


def _token() -> dict[str, str]:
    """Return the header that carries the token of ``BEARER_TOKEN_FILE``, if that is set."""
    path = os.environ.get("BEARER_TOKEN_FILE")
    if not path:
        return {}
    try:
        return {"Authorization": f"Bearer {Path(path).read_text(encoding='ascii').strip()}"}
    except (OSError, ValueError) as error:
        raise _AttemptError(
            f"the token in {path} cannot be read", "correct BEARER_TOKEN_FILE, or unset it", final=True
        ) from error


async def _session(**options: Any) -> aiohttp.ClientSession:
    import aiohttp

    connector = aiohttp.TCPConnector(ssl=_trust())
    return aiohttp.ClientSession(
        connector=connector, middlewares=(_encrypted,), auto_decompress=False, trust_env=True, **options
    )


async def _encrypted(request: aiohttp.ClientRequest, proceed: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Pass on a request, redirected ones included, if its address is an https one."""
    if request.url.scheme != "https":
        raise _AttemptError("the server leads on to an address without https", "give another address", final=True)
    return await proceed(request)


@contextlib.contextmanager
def _over_https(uri: str, offset: int, timeout: float) -> Iterator[_Source]:
    import aiohttp
    import fsspec
    from fsspec.asyn import sync

    waits = aiohttp.ClientTimeout(total=None, connect=timeout, sock_connect=timeout, sock_read=timeout)
    filesystem = fsspec.filesystem(
        "https", get_client=_session, client_kwargs={"timeout": waits}, skip_instance_cache=True
    )
    headers = {"Accept-Encoding": "identity", **_token()}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    session = sync(filesystem.loop, filesystem.set_session)
    try:
        # with a size given and no blocks, fsspec sends one request and hands on what comes
        with filesystem.open(uri, block_size=0, size=-1, headers=headers) as stream:
            size, start = _extent(stream.r, offset)
            yield _Source(size, start, stream.read)
    finally:
        sync(filesystem.loop, session.close)


def _extent(response: aiohttp.ClientResponse, offset: int) -> tuple[int, int]:
    """Return the file's size and the byte with which an answer begins."""
    if response.status == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
        if not found or int(found[1]) != offset:
            raise _AttemptError(
                "the server sends another part than asked for", "copy the file to a local path", final=True
            )
        return int(found[2]), offset
    if response.content_length is None:
        raise _AttemptError("the server does not tell the file's size", "copy the file to a local path", final=True)
    return response.content_length, 0


def _https_failure(error: Exception) -> _AttemptError | None:
    """Return what an error of the HTTPS client means."""
    import aiohttp

    match error:
        case FileNotFoundError():
            return _missing()
        case aiohttp.ClientResponseError():
            return _status_failure(error.status)
        case aiohttp.ClientConnectorCertificateError():
            return _AttemptError(
                "the server's certificate is not trusted",
                "correct the host, or give its authority in SSL_CERT_FILE or X509_CERT_DIR",
                final=True,
            )
        case aiohttp.ClientSSLError():
            return _AttemptError("no encrypted connection comes about", "correct the host and port", final=True)
        case TimeoutError():
            return _silent()
        case aiohttp.ClientConnectorError():
            return _unreachable(str(error.os_error.strerror))
        case aiohttp.ClientError() | OSError():
            return _AttemptError(f"the connection broke off ({type(error).__name__})", "try again later")
    return None


def _status_failure(status: int) -> _AttemptError:
    if status in (401, 403, 407):
        return _refused(f"HTTP {status}")
    if status in (404, 410):
        return _missing()
    if status == 416:
        return _AttemptError("the file became shorter on the server during the transfer", "run again", final=True)
    passing = status >= 500 or status in (408, 425, 429)
    mend = "try again later" if passing else "correct the address"
    return _AttemptError(f"the server answers HTTP {status}", mend, final=not passing)
