"""Remote input files, against servers on this machine: XRootD's own, and a small one that speaks HTTPS."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme

from pidflow.config import load_runs
from pidflow.digest import sources
from pidflow.errors import PidflowError
from pidflow.ingest import remote
from pidflow.ingest.remote import RemoteMissingError, fetch, fetch_with_companions

SCRIPTS = Path(remote.__file__).parents[2]
MB = 1_000_000
CONTENT = hashlib.shake_256(b"tracks").digest(12 * MB)
FOREIGN = ("X509_USER_PROXY", "X509_CERT_DIR", "BEARER_TOKEN_FILE", "SSL_CERT_DIR")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials, authorities or proxies of whoever runs the tests."""
    proxies = [name for name in os.environ if name.lower().endswith("_proxy")]
    for name in (*FOREIGN, *proxies):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def quick(uri: str, folder: Path, **settings: Any) -> Path:
    """Fetch with short waits."""
    return fetch(uri, folder, **{"retries": 3, "pause": 0.05, "timeout": 5.0} | settings)


def left_behind(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


# addresses


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("root://h//x", True),
        ("https://h/x", True),
        ("alien:///x", True),
        ("/a/b.root", False),
        ("a:b//c", False),
        ("data/*.root", False),
        ("@list.txt", False),
    ],
)
def test_is_remote(name, expected):
    assert remote.is_remote(name) is expected


@pytest.mark.parametrize(
    "uri",
    [
        "root://eospublic.cern.ch//eos/opendata/alice/AO2D.root",
        "xroot://eospublic.cern.ch:1094//eos/AO2D.root",
        "root://[::1]:1094//data/x.root",
        "root://h//data/*/AO2D_[0-9].root",
        "https://opendata.cern.ch/eos/AO2D%20copy.root",
        "https://h:8443/a/b@c.root",
    ],
)
def test_accepted_addresses(uri):
    remote.check(uri)


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        ("http://h/x.root", "plain http is not encrypted; use https"),
        ("alien:///alice/x.root", "'alien' is not supported; use root or https"),
        ("roots://h//x.root", "'roots' is not supported"),
        ("file:///etc/passwd", "'file' is not supported"),
        ("https://user:secret@h/x.root", "must not carry .*X509_USER_PROXY or BEARER_TOKEN_FILE"),
        ("root://alice@h//x.root", "must not carry .*X509_USER_PROXY"),
        ("https://me:a/secret@h/x.root", "no valid host and port"),
        ("root://h//x.root?authz=secret", "must not carry"),
        ("https://h/x.root#secret", "must not carry"),
        ("https://h/a*.root", "https servers cannot list files; name each file"),
        ("https:///x.root", "no valid host"),
        ("https://h:port/x.root", "no valid host and port"),
        ("https://h:0/x.root", "no valid host and port"),
        ("https://h:99999/x.root", "no valid host and port"),
        ("https://[h/x.root", "no valid host and port"),
        ("https://h;rm/x.root", "no valid host and port"),
        ("https://h/", "names no file"),
        ("https://h", "names no file"),
        ("root://h//folder/", "names no file"),
        ("root://h//a/../b.root", "holds '.' or '..'"),
        ("https://h/a/%2e%2E/b.root", "holds '.' or '..'"),
        ("https://h/a b.root", "white space or control characters"),
        ("https://h/a\u00a0b.root", "white space or control characters"),
        ("https://h/a%0d%0ab.root", "white space or control characters"),
        ("https://h/a\x1b[2J.root", "white space or control characters"),
    ],
)
def test_refused_addresses(uri, sentence):
    with pytest.raises(PidflowError, match=sentence) as caught:
        remote.check(uri)
    assert "secret" not in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://h/a/x.root", "https://h/a/x.root"),
        ("https://me:se@cret@h/x.root", "https://...@h/x.root"),
        ("root://h//x.root?authz=secret&b=1 broke", "root://h//x.root?... broke"),
        ("https://h/x#secret", "https://h/x?..."),
        ("https://me:a secret@h/x", "https://...@h/x"),
        ("https://me:a/secret@h/x", "https://...@h/x"),
        ("https://h:8443/a@b.root", "https://h:8443/a@b.root"),
        ("https://h/a@b.root", "https://h/a@b.root"),
        ("two\nlines \x1b[2J", "two lines \ufffd[2J"),
    ],
)
def test_redacted(text, expected):
    assert remote.redacted(text) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("root://h//a/x.root", "xroot://H:1094//a/x.root"),
        ("root://h//a/x.root", "root://h///a//x.root"),
        ("root://h//a/x.root", "root://h/a/x.root"),
        ("https://h/a/x.root", "https://H:443/a//x.root"),
        ("https://h/a-x.root", "https://h/a%2Dx.root"),
    ],
)
def test_same_address(one, other):
    assert remote.normal(one) == remote.normal(other)


@pytest.mark.parametrize(
    "other", ["root://h//a/X.root", "root://g//a/x.root", "root://h:1095//a/x.root", "https://h/a/x.root"]
)
def test_other_address(other):
    assert remote.normal("root://h//a/x.root") != remote.normal(other)


# HTTPS


@dataclass
class Web:
    """What the HTTPS server has, how it misbehaves, and what it was asked.

    Attributes
    ----------
    drops
        Bytes after which the next answers break off.
    statuses
        Status of the next answers.
    asked
        Path, range and bytes sent of every answer.
    """

    port: int
    files: dict[str, bytes] = field(default_factory=dict)
    drops: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    ranges: bool = True
    sized: bool = True
    delay: float = 0.0
    location: str = ""
    asked: list[tuple[str, str | None, int]] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)

    def uri(self, path: str) -> str:
        return f"https://localhost:{self.port}{path}"


class WebServer(ThreadingHTTPServer):
    daemon_threads = True
    web: Web

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that clients refuse or break are part of the tests."""


class WebHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: WebServer

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        web = self.server.web
        time.sleep(web.delay)
        wanted = self.headers["Range"]
        web.tokens.append(self.headers["Authorization"])
        content = web.files.get(self.path)
        status = web.statuses.pop(0) if web.statuses else 200 if content is not None else 404
        if status != 200 or content is None:
            web.asked.append((self.path, wanted, 0))
            self.send_response(status)
            self.send_header("Location", web.location)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and web.ranges else 0
        self.send_response(206 if wanted and web.ranges else 200)
        if web.sized:
            self.send_header("Content-Length", str(len(content) - start))
        self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        end = min(len(content), start + web.drops.pop(0)) if web.drops else len(content)
        web.asked.append((self.path, wanted, end - start))
        self.wfile.write(memoryview(content)[start:end])
        self.close_connection = end < len(content) or not web.sized
        if self.close_connection:
            time.sleep(0.2)  # what a client has not taken by then is lost to it


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def stranger(authority: trustme.CA) -> Iterator[Web]:
    """An HTTPS server whose certificate is not trusted."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with WebServer(("127.0.0.1", 0), WebHandler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        server.web = Web(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.web
        server.shutdown()
        thread.join()


@pytest.fixture
def web(stranger: Web, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Web:
    """An HTTPS server whose certificate is trusted."""
    path = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(path))
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    return stranger


def test_https_copy(web, tmp_path):
    web.files["/a/AO2D.root"] = CONTENT
    copy = fetch(web.uri("/a/AO2D.root"), tmp_path / "new/out", retries=0)
    assert copy == tmp_path / "new/out/AO2D.root"
    assert copy.read_bytes() == CONTENT
    assert web.asked == [("/a/AO2D.root", None, len(CONTENT))]
    assert left_behind(tmp_path / "new") == ["AO2D.root"]


def test_https_empty_file(web, tmp_path):
    web.files["/empty"] = b""
    assert quick(web.uri("/empty"), tmp_path).read_bytes() == b""


def test_https_resumes_where_it_broke_off(web, tmp_path, capsys):
    web.files["/x.root"] = CONTENT
    web.drops = [5 * MB, 3 * MB]
    assert quick(web.uri("/x.root"), tmp_path / "out", retries=0).read_bytes() == CONTENT
    ranges = [wanted for _, wanted, _ in web.asked]
    assert ranges == [None, f"bytes={5 * MB}-", f"bytes={8 * MB}-"]
    assert sum(sent for *_, sent in web.asked) == len(CONTENT)
    assert f"the connection broke off (ClientPayloadError) after {5 * MB} of {12 * MB} bytes" in capsys.readouterr().out


def test_https_server_without_ranges_starts_again(web, tmp_path):
    web.files["/x.root"] = CONTENT
    web.ranges = False
    web.drops = [5 * MB]
    assert quick(web.uri("/x.root"), tmp_path).read_bytes() == CONTENT
    assert [sent for *_, sent in web.asked] == [5 * MB, len(CONTENT)]


def test_attempts_without_progress_are_counted(web, tmp_path):
    web.files["/x.root"] = CONTENT
    web.ranges = False
    web.drops = [MB] * 10
    with pytest.raises(PidflowError, match=rf"broke off .* after {MB} of {12 * MB} bytes; try again later"):
        quick(web.uri("/x.root"), tmp_path / "out", retries=2)
    assert len(web.asked) == 1 + 3
    assert left_behind(tmp_path / "out") == []


def test_busy_server_is_asked_again(web, tmp_path):
    web.files["/x.root"] = CONTENT
    web.statuses = [503, 500, 429]
    assert quick(web.uri("/x.root"), tmp_path, retries=3).read_bytes() == CONTENT
    assert len(web.asked) == 4


def test_waits_double_up_to_the_longest(web, tmp_path, monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr(remote.time, "sleep", waits.append)
    monkeypatch.setattr(remote.random, "uniform", lambda low, high: high)
    monkeypatch.setattr(remote, "_LONGEST_PAUSE", 3.0)
    web.statuses = [500] * 5
    web.delay = 0
    with pytest.raises(PidflowError, match="the server answers HTTP 500; try again later"):
        quick(web.uri("/x.root"), tmp_path, retries=4, pause=1.0)
    assert [wait for wait in waits if wait] == [1, 2, 3, 3]


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (404, "the server has no such file; correct the path"),
        (410, "the server has no such file"),
        (403, r"refuses access \(HTTP 403\); give credentials to the client \(X509_USER_PROXY or BEARER_TOKEN_FILE\)"),
        (401, r"refuses access \(HTTP 401\)"),
        (400, "the server answers HTTP 400; correct the address"),
    ],
)
def test_https_answers_that_no_repetition_changes(web, tmp_path, status, sentence):
    web.statuses = [status]
    with pytest.raises(PidflowError, match=sentence) as caught:
        quick(web.uri("/x.root"), tmp_path / "out")
    assert isinstance(caught.value, RemoteMissingError) is (status in (404, 410))
    assert str(caught.value).startswith(web.uri("/x.root"))
    assert len(web.asked) == 1
    assert left_behind(tmp_path / "out") == []


def test_an_earlier_copy_survives_a_failure(web, tmp_path):
    (tmp_path / "x.root").write_text("earlier")
    web.files["/x.root"] = CONTENT
    web.drops = [MB, 0]
    with pytest.raises(PidflowError, match="broke off"):
        quick(web.uri("/x.root"), tmp_path, retries=0)
    assert (tmp_path / "x.root").read_text() == "earlier"


def test_file_that_changes_during_the_transfer(web, tmp_path, monkeypatch):
    web.files["/x.root"] = CONTENT
    web.drops = [5 * MB]

    def replaced(_seconds: float) -> None:
        web.files["/x.root"] = CONTENT[: 6 * MB]

    monkeypatch.setattr(remote._Transfer, "_wait", lambda *_: replaced(0))
    with pytest.raises(PidflowError, match=r"changed on the server during the transfer .*run again"):
        quick(web.uri("/x.root"), tmp_path / "out")
    assert left_behind(tmp_path / "out") == []


def test_size_must_be_told(web, tmp_path):
    web.files["/x.root"] = CONTENT
    web.sized = False
    with pytest.raises(PidflowError, match="does not tell the file's size; copy the file to a local path"):
        quick(web.uri("/x.root"), tmp_path)


def test_untrusted_certificate(stranger, tmp_path, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    stranger.files["/x.root"] = CONTENT
    with pytest.raises(PidflowError, match=r"certificate is not trusted; .*SSL_CERT_FILE or X509_CERT_DIR"):
        quick(stranger.uri("/x.root"), tmp_path / "out")
    assert stranger.asked == []
    assert left_behind(tmp_path / "out") == []


def test_certificate_of_another_host(web, tmp_path):
    with pytest.raises(PidflowError, match="certificate is not trusted"):
        quick(web.uri("/x.root").replace("localhost", "127.0.0.1"), tmp_path)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_redirect(web, tmp_path, scheme):
    web.files["/x.root"] = CONTENT
    web.statuses = [302]
    web.location = web.uri("/x.root?authz=secret").replace("https", scheme)
    web.files["/x.root?authz=secret"] = CONTENT
    if scheme == "https":
        assert quick(web.uri("/y.root"), tmp_path).read_bytes() == CONTENT
        return
    with pytest.raises(PidflowError, match="leads on to an address without https") as caught:
        quick(web.uri("/y.root"), tmp_path)
    assert "secret" not in str(caught.value)


def test_token_is_sent_and_never_shown(web, tmp_path, monkeypatch, capsys):
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    monkeypatch.setenv("BEARER_TOKEN_FILE", str(token))
    web.files["/x.root"] = CONTENT
    quick(web.uri("/x.root"), tmp_path)
    assert web.tokens == ["Bearer s3cret"]
    web.statuses = [403]
    with pytest.raises(PidflowError) as caught:
        quick(web.uri("/x.root"), tmp_path)
    assert "s3cret" not in str(caught.value) + capsys.readouterr().out


@pytest.mark.parametrize("name", ["BEARER_TOKEN_FILE", "X509_USER_PROXY", "X509_CERT_DIR"])
def test_unreadable_credentials_are_named(web, tmp_path, monkeypatch, name):
    monkeypatch.setenv(name, str(tmp_path / "absent"))
    web.files["/x.root"] = CONTENT
    if name == "X509_CERT_DIR":  # a folder without authorities adds none
        assert quick(web.uri("/x.root"), tmp_path).read_bytes() == CONTENT
        return
    with pytest.raises(PidflowError, match=f"cannot be read.*{name}"):
        quick(web.uri("/x.root"), tmp_path)


def test_secrets_in_an_address_are_not_shown(web, tmp_path, capsys):
    web.files["/x.root?authz=secret"] = CONTENT
    web.statuses = [500]
    uri = web.uri("/x.root?authz=secret").replace("localhost", "me:secret@localhost")
    assert quick(uri, tmp_path).name == "x.root"
    with pytest.raises(
        PidflowError, match=r"https://\.\.\.@localhost:\d+/y\.root\?\.\.\.: the server has no"
    ) as caught:
        quick(uri.replace("x.root", "y.root"), tmp_path)
    printed = capsys.readouterr().out
    assert "HTTP 500" in printed
    assert "secret" not in printed + str(caught.value)


def test_progress_is_printed(web, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(remote, "_PROGRESS_EVERY", 0.0)
    web.files["/x.root"] = CONTENT
    quick(web.uri("/x.root"), tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 2
    assert all(
        re.fullmatch(r"https://localhost:\d+/x\.root: \d+ of 12 MB, [\d.]+ MB/s, \d+ s left", line)
        for line in lines[:-1]
    )
    assert re.fullmatch(rf"https://.*: {12 * MB} bytes in [\d.]+ s", lines[-1])


def test_slow_server_is_given_up(web, tmp_path):
    web.delay = 2
    began = time.monotonic()
    with pytest.raises(PidflowError, match="the server did not answer in time; try again later"):
        quick(web.uri("/x.root"), tmp_path, retries=1, timeout=0.3)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("scheme", ["https", "root"])
def test_server_down(tmp_path, scheme, capsys):
    uri = f"{scheme}://127.0.0.1:{free_port()}//x.root"
    began = time.monotonic()
    with pytest.raises(PidflowError, match=r"//x\.root: the server cannot be reached \(.+\); .*try again later"):
        quick(uri, tmp_path / "out", retries=2)
    assert time.monotonic() - began < 10
    assert capsys.readouterr().out.count("next attempt in") == 2
    assert left_behind(tmp_path / "out") == []


def test_unknown_host(tmp_path):
    for scheme in ("https", "root"):
        with pytest.raises(PidflowError, match="the server cannot be reached"):
            quick(f"{scheme}://no-such-host.invalid//x.root", tmp_path, retries=0)


def test_plain_http_is_not_fetched(tmp_path):
    with pytest.raises(PidflowError, match=r"http://h/x\.root\?\.\.\.: plain http is not encrypted; use https"):
        fetch("http://h/x.root?authz=secret", tmp_path, retries=0)


def test_copy_that_cannot_be_written(web, tmp_path):
    (tmp_path / "out").write_text("a file in the folder's place")
    web.files["/x.root"] = CONTENT
    with pytest.raises(PidflowError, match=r"out: the copy of https.* cannot be written \(.+\); free space"):
        quick(web.uri("/x.root"), tmp_path / "out")
    assert web.asked == []


def test_full_disk_is_no_fault_of_the_server(web, tmp_path, monkeypatch):
    web.files["/x.root"] = CONTENT

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(remote._Progress, "report", full)
    with pytest.raises(PidflowError, match=r"cannot be written \(No space left on device\)"):
        quick(web.uri("/x.root"), tmp_path / "out")
    assert len(web.asked) == 1
    assert left_behind(tmp_path / "out") == []


def test_companions(web, tmp_path):
    web.files |= {"/d/AliESDs.root": CONTENT, "/d/Kinematics.root": b"kinematics"}
    copy = fetch_with_companions(
        web.uri("/d/AliESDs.root"), tmp_path / "out", ["galice.root", "Kinematics.root"], retries=0
    )
    assert copy == tmp_path / "out/AliESDs.root"
    assert left_behind(tmp_path / "out") == ["AliESDs.root", "Kinematics.root"]
    assert (tmp_path / "out/Kinematics.root").read_bytes() == b"kinematics"
    assert [path for path, *_ in web.asked] == ["/d/AliESDs.root", "/d/galice.root", "/d/Kinematics.root"]


def test_companion_out_of_reach_is_an_error(web, tmp_path):
    web.files["/d/AliESDs.root"] = CONTENT
    web.statuses = [200, 403]
    with pytest.raises(PidflowError, match=r"/d/Kinematics\.root: the server refuses access"):
        fetch_with_companions(web.uri("/d/AliESDs.root"), tmp_path, ["Kinematics.root"], retries=0)


def test_missing_file_with_companions_is_an_error(web, tmp_path):
    with pytest.raises(RemoteMissingError, match=r"AliESDs\.root"):
        fetch_with_companions(web.uri("/d/AliESDs.root"), tmp_path, ["Kinematics.root"], retries=0)


# XRootD


class Xrootd:
    """An XRootD server for a folder, for this machine alone; it serves as nobody if root starts it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "data").mkdir()
        (folder / "admin").mkdir()
        (folder / "server.cfg").write_text(
            f"xrd.port {self.port}\nxrd.allow host localhost\nall.export /data\noss.localroot {folder}\n"
            f"all.adminpath {folder}/admin\nall.pidpath {folder}/admin\n"
        )
        folder.chmod(0o755)
        if os.geteuid() == 0:
            shutil.chown(folder / "admin", "nobody")

    def uri(self, path: str, port: int | None = None) -> str:
        return f"root://localhost:{port or self.port}//data/{path}"

    def add(self, path: str, content: bytes) -> str:
        file = self.folder / "data" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return self.uri(path)

    def start(self) -> None:
        command = ["xrootd", "-c", str(self.folder / "server.cfg"), "-l", str(self.folder / "admin/log")]
        if os.geteuid() == 0:
            command += ["-R", "nobody"]
        self._process = subprocess.Popen(command, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 10
        while time.monotonic() < until and self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("localhost", self.port), timeout=1):
                return
            time.sleep(0.02)
        log = next((self.folder / "admin").rglob("log"), None)
        pytest.fail(f"xrootd does not start: {log.read_text() if log else 'no log'}")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@pytest.fixture(scope="session")
def xrootd_folder() -> Iterator[Path]:
    # not below tmp_path, which nobody but its owner may enter
    with tempfile.TemporaryDirectory(prefix="xrootd-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def xrootd(xrootd_folder: Path) -> Iterator[Xrootd]:
    if shutil.which("xrootd") is None:
        pytest.skip("needs the program xrootd (Debian package xrootd-server)")
    server = Xrootd(xrootd_folder)
    server.start()
    yield server
    server.kill()


class Link:
    """Passes connections on to a server; counts what comes back, and acts once after a number of bytes."""

    def __init__(self, port: int, after: int, act: Callable[[], None]) -> None:
        self._server = port
        self._after = after
        self._act: Callable[[], None] | None = act
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.passed = 0
        self.port: int = self._listener.getsockname()[1]
        self._run(self._accept)

    def _run(self, work: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                try:
                    server = socket.create_connection(("localhost", self._server))
                except OSError:
                    client.close()
                    continue
                self._open += [client, server]
                self._run(self._pass, client, server, False)
                self._run(self._pass, server, client, True)

    def _pass(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while block := source.recv(1 << 16):
                target.sendall(block)
                if counted:
                    self.passed += len(block)
                if counted and self._act is not None and self.passed >= self._after:
                    act, self._act = self._act, None
                    act()
                    break
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in self._open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for end in self._open:
            end.close()


def test_root_copy(xrootd, tmp_path):
    uri = xrootd.add("a/AO2D.root", CONTENT)
    copy = fetch(uri, tmp_path / "out", retries=0)
    assert copy == tmp_path / "out/AO2D.root"
    assert copy.read_bytes() == CONTENT
    assert fetch(uri.replace("root://", "xroot://", 1), tmp_path / "x", retries=0).read_bytes() == CONTENT
    assert left_behind(tmp_path) == ["AO2D.root", "AO2D.root"]


def test_root_empty_file(xrootd, tmp_path):
    assert quick(xrootd.add("empty.root", b""), tmp_path).read_bytes() == b""


@pytest.mark.parametrize("restart", [False, True])
def test_root_resumes_after_a_break(xrootd, tmp_path, capsys, restart):
    xrootd.add("broken.root", CONTENT)
    back = threading.Timer(1, xrootd.start)

    def kill() -> None:
        xrootd.kill()
        back.start()

    link = Link(xrootd.port, 9 * MB, kill if restart else lambda: None)
    try:
        copy = quick(xrootd.uri("broken.root", link.port), tmp_path, retries=20)
    finally:
        link.close()
    assert copy.read_bytes() == CONTENT
    assert len(CONTENT) < link.passed < len(CONTENT) + 5 * MB
    if restart:  # a short break the client may mend by itself
        back.join()
        assert f"after {8 << 20} of {12 * MB} bytes; next attempt" in capsys.readouterr().out


def test_root_not_found(xrootd, tmp_path, capsys):
    with pytest.raises(RemoteMissingError, match=r"//data/none\.root: the server has no such file; correct the path"):
        quick(xrootd.uri("none.root"), tmp_path / "out")
    assert "next attempt" not in capsys.readouterr().out
    assert left_behind(tmp_path / "out") == []


def test_root_refused(xrootd, tmp_path, capsys):
    uri = xrootd.add("secret.root", b"x")
    (xrootd.folder / "data/secret.root").chmod(0)
    for path in (uri, uri.replace("//data/secret.root", "//etc/passwd")):
        with pytest.raises(PidflowError, match=r"the server refuses access \(.+\); give credentials .*X509_USER_PROXY"):
            quick(path, tmp_path)
    assert "next attempt" not in capsys.readouterr().out


def test_root_folder(xrootd, tmp_path):
    xrootd.add("folder/x.root", b"x")
    with pytest.raises(PidflowError, match="this is a folder; name a file in it"):
        quick(xrootd.uri("folder"), tmp_path)


def test_root_companions(xrootd, tmp_path):
    uri = xrootd.add("esd/AliESDs.root", b"tracks")
    fetch_with_companions(uri, tmp_path / "one", ["Kinematics.root"], retries=0)
    assert left_behind(tmp_path / "one") == ["AliESDs.root"]
    xrootd.add("esd/Kinematics.root", b"kinematics")
    fetch_with_companions(uri, tmp_path / "two", ["Kinematics.root"], retries=0)
    assert left_behind(tmp_path / "two") == ["AliESDs.root", "Kinematics.root"]


def test_file_that_grew_since_a_listing(xrootd, tmp_path):
    uri = xrootd.add("listed/x.root", b"short")
    assert remote.expand(xrootd.uri("listed/*.root")) == [uri]
    xrootd.add("listed/x.root", b"grown longer")
    assert fetch(uri, tmp_path, retries=0).read_bytes() == b"grown longer"


def test_root_globs(xrootd):
    added = [xrootd.add(f"glob/{name}", b"x") for name in ("b/2.root", "a/1.root", "a/10.root", "a/deep/3.root")]
    xrootd.add("glob/a/1.txt", b"x")
    (xrootd.folder / "data/glob/a/folder.root").mkdir()
    two, one, ten, deep = added
    assert remote.expand(xrootd.uri("glob/*/*.root")) == [one, ten, two]
    assert remote.expand(xrootd.uri("glob/a/[0-9].root")) == [one]
    assert remote.expand(xrootd.uri("glob/**/*.root")) == [one, ten, deep, two]


@pytest.mark.parametrize("pattern", ["none*.root", "no/such/folder/*.root"])
def test_root_glob_without_match(xrootd, pattern):
    with pytest.raises(
        PidflowError, match=r"no file on the server matches; correct|has no such file; correct the path"
    ):
        remote.expand(xrootd.uri(pattern))


def test_root_glob_on_a_server_that_is_down():
    with pytest.raises(PidflowError, match="the server cannot be reached"):
        remote.expand(f"root://127.0.0.1:{free_port()}//data/*.root")


def run_python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "PYTHONPATH": str(SCRIPTS), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_root_server_that_never_answers(tmp_path):
    code = f"""
import time
from pidflow.errors import PidflowError
from pidflow.ingest.remote import fetch
began = time.monotonic()
try:
    fetch("root://127.0.0.1:PORT//x.root", {str(tmp_path)!r}, retries=0, timeout=2)
except PidflowError as error:
    print(error, time.monotonic() - began < 10)
"""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        told = run_python(code.replace("PORT", str(mute.getsockname()[1])), XRD_CONNECTIONWINDOW="1")
    assert re.search(r"the server did not answer in time; try again later True$", told.strip())


def test_client_time_outs_are_set_unless_the_operator_did():
    code = """
import os
from pidflow.ingest.remote import _xrootd
_xrootd("localhost", 5)
print(*(os.environ[f"XRD_{name}"] for name in
        ("CONNECTIONWINDOW", "CONNECTIONRETRY", "REQUESTTIMEOUT", "STREAMTIMEOUT", "STREAMERRORWINDOW")))
"""
    assert run_python(code, XRD_STREAMTIMEOUT="7").split() == ["30", "1", "60", "7", "0"]


def test_import_is_light():
    code = """
import sys, pidflow.ingest.remote
print(sorted({"fsspec", "aiohttp", "XRootD", "fsspec_xrootd", "ssl"} & set(sys.modules)))
"""
    assert run_python(code).strip() == "[]"


MEASURED = """
import re
from pathlib import Path
from pidflow.ingest.remote import fetch
# the peak that getrusage tells begins with that of the parent
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
fetch("SMALL", "FOLDER", retries=0)
before = peak()
fetch("LARGE", "FOLDER", retries=0)
print(peak() - before)
"""


@pytest.mark.parametrize("server", ["xrootd", "web"])
def test_memory_does_not_grow_with_the_file(server, request, tmp_path):
    served = request.getfixturevalue(server)
    size = 100 * MB
    if server == "web":
        served.files |= {"/small.root": CONTENT, "/large.root": bytes(size)}
        small, large = served.uri("/small.root"), served.uri("/large.root")
    else:
        small, large = served.add("small.root", CONTENT), served.add("large.root", b"")
        os.truncate(served.folder / "data/large.root", size)
    code = MEASURED.replace("SMALL", small).replace("LARGE", large).replace("FOLDER", str(tmp_path))
    grown = int(run_python(code).split()[-1])
    copy = tmp_path / "large.root"
    assert copy.stat().st_size == size
    copy.unlink()
    assert grown < 20_000  # KiB


# the script

SCRIPT = """
import runpy, sys
from types import SimpleNamespace as Space
uri, folder, log = sys.argv[1:]
sys.modules["__main__"].__file__ = "fetch_file.py"
class Items(dict):
    # as in a job's script: values by name, and by number in their order
    __getattr__ = dict.__getitem__

    def __iter__(self):
        return iter(self.values())

    def __getitem__(self, number):
        return list(self)[number]


params = Items(uri=uri, retries=0, companions=["Kinematics.root"])
described = {"rule": "fetch_file", "wildcards": Items(), "input": [], "threads": 1, "resources": Items()}
snakemake = Space(params=params, output=Items(folder=folder), log=Items(log=log, record=log + ".json"), **described)
runpy.run_path("fetch_file.py", {"snakemake": snakemake})
"""


def test_script(web, tmp_path):
    web.files |= {"/d/AliESDs.root": CONTENT, "/d/Kinematics.root": b"kinematics"}
    for name, code in (("AliESDs", 0), ("absent", 1)):
        log = tmp_path / "logs" / f"{name}.log"
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, web.uri(f"/d/{name}.root"), str(tmp_path / name), str(log)],
            cwd=SCRIPTS,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert done.stderr == log.read_text()
    assert left_behind(tmp_path / "AliESDs") == ["AliESDs.root", "Kinematics.root"]
    assert left_behind(tmp_path / "absent") == []
    assert done.stderr == f"error: {web.uri('/d/absent.root')}: the server has no such file; correct the path\n"


def test_only_the_script_that_fetches_depends_on_the_clients():
    source = Path(remote.__file__)
    assert source in sources(SCRIPTS / "fetch_file.py")
    assert source not in sources(SCRIPTS / "train_model.py")


# the run table

COLUMNS = ("run", "period", "pass", "system", "year", "bz", "data", "simulation", "valid_from", "valid_until")


def table(folder: Path, data: str, simulation: str) -> dict[str, tuple[str, ...]]:
    """Read a table with one run; return its files."""
    cells = ("544121", "LHC23zzh", "apass4", "PbPb", "2023", "-5", data, simulation, "1", "2")
    (folder / "runs.tsv").write_text("\n".join(["\t".join(COLUMNS), "\t".join(cells)]) + "\n")
    run = load_runs(folder / "runs.tsv", "generated")[544121]
    return {"data": run.data, "simulation": run.simulation}


def test_run_table_with_patterns_and_lists(xrootd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one, two = xrootd.add("table/1.root", b"x"), xrootd.add("table/2.root", b"x")
    (tmp_path / "list.txt").write_text(f"https://h/z.root\n{xrootd.uri('table/*.root')}\n")
    files = table(tmp_path, "@list.txt ; https://h/a.root", "root://h//s.root")
    assert files["data"] == ("https://h/z.root", one, two, "https://h/a.root")


def test_run_table_names_run_and_pattern(xrootd, tmp_path):
    pattern = xrootd.uri("nothing*.root")
    with pytest.raises(PidflowError, match=rf"run 544121: data {re.escape(pattern)}: no file on the server matches"):
        table(tmp_path, pattern, "root://h//s.root")
