"""The client of the CCDB: what it sends, what it refuses to send, when it tries again, and what it never says."""

from __future__ import annotations

import logging
import ssl
import threading
import traceback
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme
from ccdb_server import Ccdb, Fault, serving

from pidflow.errors import PidflowError
from pidflow.publish.ccdb import client as module
from pidflow.publish.ccdb.client import Client, Credentials, credentials
from pidflow.publish.ccdb.validity import run_validity

SECRET = "s3cr3t-t0ken"
META = {"run": "5", "period": "LHC23x", "note": "apass 1 & more"}


@pytest.fixture
def ccdb() -> Iterator[Ccdb]:
    with serving() as server:
        yield server


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    taken: list[float] = []
    monkeypatch.setattr("pidflow.publish.ccdb.client.time.sleep", taken.append)
    return taken


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "UPLOAD_TIMEOUT", 0.2)


def store(client: Client, content: bytes = b"model", path: str = "a/b") -> None:
    client.post(path, 100, 200, content, META, "local.onnx")


def test_an_object_is_stored_and_read(ccdb: Ccdb) -> None:
    client = Client(ccdb.url)
    store(client, b"\r\n\x00--")
    found = client.get("a/b", 199)
    assert found is not None and found[1] == b"\r\n\x00--"
    stored = found[0]
    assert stored == client.head("a/b", 100, {"run": "5"}) and stored.carries(META) and not stored.carries({"run": "6"})
    assert (stored.uuid, stored.created) == (ccdb.versions[0].id, ccdb.versions[0].created)
    assert (stored.valid_from, stored.valid_until) == (100, 200)
    assert ccdb.versions[0].file == "local.onnx" and ccdb.versions[0].metadata == META
    assert (
        client.head("a/b", 200) is None
        and client.get("a/b", 99) is None
        and client.head("a/b", 100, {"run": "6"}) is None
    )
    (browsed,) = client.browse("a/b")
    assert browsed.uuid == stored.uuid and browsed.md5 == ccdb.versions[0].md5 and browsed.carries(META)
    assert client.browse("a/c") == []


def test_only_the_newest_of_the_same_validity_is_found(ccdb: Ccdb) -> None:
    client = Client(ccdb.url)
    assert client.find("a/b", 100, 200, b"1", {}) is None
    ccdb.store("a/b", 100, 200, b"1", {"run": "5", "more": "yes"})
    assert client.find("a/b", 100, 200, b"1", {"run": "5"}) is not None
    assert client.find("a/b", 100, 200, b"1", {"run": "6"}) is None
    assert client.find("a/b", 100, 201, b"1", {"run": "5"}) is None
    ccdb.store("a/b", 100, 300, b"2")
    assert client.find("a/b", 100, 200, b"1", {"run": "5"}) is not None
    ccdb.store("a/b", 100, 200, b"2")
    assert client.find("a/b", 100, 200, b"1", {"run": "5"}) is None


@pytest.mark.parametrize(
    "path", ["a/5", "5/a", "a//b", "/a", "a/", "", "a/b c", "a/x=y", "a/*", "../a", "/".join("abcdefghijk")]
)
def test_bad_paths_are_refused_before_any_request(ccdb: Ccdb, path: str) -> None:
    client = Client(ccdb.url)
    for request in (
        lambda: client.head(path, 100),
        lambda: client.get(path, 100),
        lambda: client.browse(path),
        lambda: store(client, path=path),
    ):
        with pytest.raises(PidflowError, match="registry path"):
            request()
    assert ccdb.seen == []


def test_ten_parts_are_allowed(ccdb: Ccdb) -> None:
    store(Client(ccdb.url), path="/".join("abcdefghij"))
    assert len(ccdb.versions) == 1


@pytest.mark.parametrize(
    "metadata",
    [{"a.b": "1"}, {"a=b": "1"}, {"": "1"}, {"a": "1/2"}, {"a": "1\n2"}, {"a": ""}, {"md5": "1"}, {"ETag": "1"}],
)
def test_bad_metadata_is_refused_before_any_request(ccdb: Ccdb, metadata: dict[str, str]) -> None:
    client = Client(ccdb.url)
    with pytest.raises(PidflowError, match="metadata"):
        client.post("a/b", 100, 200, b"", metadata, "f")
    with pytest.raises(PidflowError, match="metadata"):
        client.head("a/b", 100, metadata)
    with pytest.raises(PidflowError, match="validity"):
        client.post("a/b", 200, 200, b"", {}, "f")
    assert ccdb.seen == []


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://alice-ccdb.cern.ch", "use https"),
        ("http://localhost.example.org", "use https"),
        ("http://10.0.0.1:8080", "use https"),
        ("ftp://localhost", "not of the form"),
        ("localhost:8080", "not of the form"),
        ("https://host/folder", "not of the form"),
        ("https://host:x", "not of the form"),
        (f"https://user:{SECRET}@host", "take it out"),
    ],
)
def test_urls_that_are_refused(url: str, problem: str) -> None:
    with pytest.raises(PidflowError, match=problem) as raised:
        Client(url)
    assert SECRET not in str(raised.value)


def test_urls_that_are_taken() -> None:
    for url in ("https://alice-ccdb.cern.ch", "http://localhost:8080/", "http://127.0.0.2", "http://[::1]:8080"):
        assert Client(url).url == url.rstrip("/")


@pytest.mark.parametrize("fault", ["500", "429", "drop before", "drop after", "late before", "late after"])
def test_a_lost_upload_is_tried_again_and_stored_once(
    ccdb: Ccdb, pauses: list[float], short: None, fault: Fault
) -> None:
    ccdb.faults = {1: fault}
    store(Client(ccdb.url))
    assert len(ccdb.versions) == 1 and len(pauses) == 1
    # the POST, the look whether it landed, and the POST again if it did not
    assert len(ccdb.seen) == (2 if fault.endswith("after") else 3)


def test_reading_is_tried_again(ccdb: Ccdb, pauses: list[float]) -> None:
    ccdb.store("a/b", 100, 200, b"1")
    ccdb.faults = {1: "500", 3: "drop before", 5: "429"}
    client = Client(ccdb.url)
    found = client.get("a/b", 100)
    assert found is not None and found[1] == b"1" and client.browse("a/b") != []
    assert len(ccdb.seen) == 6 and len(pauses) == 3


def test_tries_are_bounded_and_pauses_grow(ccdb: Ccdb, pauses: list[float]) -> None:
    ccdb.faults = {0: "500"}
    with pytest.raises(PidflowError, match=r"HEAD .*/a/b/100: answer 500 after 7 attempts; run it again"):
        Client(ccdb.url, attempts=7).head("a/b", 100)
    assert len(ccdb.seen) == 7
    limits = [0.5, 1.0, 2.0, 4.0, 8.0, 8.0]
    assert len(pauses) == len(limits)
    assert all(limit / 2 <= pause <= limit for pause, limit in zip(pauses, limits, strict=True))
    assert len({pause / limit for pause, limit in zip(pauses, limits, strict=True)}) > 1


def test_a_server_that_is_down(pauses: list[float]) -> None:
    with serving() as server:
        url = server.url
    with pytest.raises(PidflowError, match="connection lost or refused after 5 attempts"):
        Client(url).browse("a/b")
    assert len(pauses) == 4


@pytest.mark.parametrize(
    ("status", "mend"), [("400", "correct the path"), ("403", "check the token"), ("401", "check the token")]
)
def test_a_refusal_is_not_tried_again(ccdb: Ccdb, pauses: list[float], status: Any, mend: str) -> None:
    ccdb.faults = {0: status}
    client = Client(ccdb.url)
    for request in (lambda: store(client), lambda: client.head("a/b", 1), lambda: client.browse("a/b")):
        with pytest.raises(PidflowError, match=f"refused with {status}; {mend}"):
            request()
    assert len(ccdb.seen) == 3 and pauses == []


def test_nothing_there_is_not_tried_again(ccdb: Ccdb, pauses: list[float]) -> None:
    assert Client(ccdb.url).get("a/b", 100) is None
    assert len(ccdb.seen) == 1 and pauses == []


def test_the_time_outs(ccdb: Ccdb, monkeypatch: pytest.MonkeyPatch) -> None:
    client, given = Client(ccdb.url), []
    send = client._session.request

    def request(method: str, url: str, **more: Any) -> Any:
        given.append((method, more["timeout"]))
        return send(method, url, **more)

    monkeypatch.setattr(client._session, "request", request)
    store(client)
    client.get("a/b", 100)
    assert given == [("POST", 20.0), ("GET", 15.0), ("GET", 15.0)]


def test_the_token_is_sent_and_never_said(
    ccdb: Ccdb,
    pauses: list[float],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(module.TOKEN, SECRET)
    caplog.set_level(logging.DEBUG)
    ccdb.token = SECRET
    secrets = credentials()
    client = Client(ccdb.url, secrets)
    store(client)
    assert ccdb.seen[0].headers["Authorization"] == f"Bearer {SECRET}"
    said = [repr(secrets), str(secrets), repr(client)]
    ccdb.token = "another"
    with pytest.raises(PidflowError) as refused:
        store(client, b"2")
    ccdb.faults = {0: "drop before"}
    with pytest.raises(PidflowError) as lost:
        store(client, b"2")
    for raised in (refused, lost):
        said += traceback.format_exception(raised.value)
    said += [caplog.text, *capfd.readouterr(), *(seen.target for seen in ccdb.seen)]
    assert "POST" in caplog.text
    assert SECRET not in "".join(said)


@pytest.mark.parametrize("token", [f"{SECRET}\n", f"{SECRET} x", f"{SECRET}é"])
def test_a_broken_token_is_refused_without_being_said(token: str) -> None:
    with pytest.raises(PidflowError, match="variable T: it holds no token") as raised:
        credentials(token="T", environment={"T": token})
    assert SECRET not in str(raised.value)


def test_no_password_is_taken_from_elsewhere(ccdb: Ccdb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login me password {SECRET}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    client = Client(ccdb.url)
    # as it is with https
    assert client.head("a/b", 100) is None
    client._session.trust_env = True
    monkeypatch.delenv("http_proxy")
    assert client.head("a/b", 100) is None
    assert not any("Authorization" in seen.headers for seen in ccdb.seen)


def test_credentials_from_the_environment(tmp_path: Path) -> None:
    cert, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    assert credentials(environment={}) == credentials(environment={module.TOKEN: ""}) == Credentials()
    with pytest.raises(PidflowError, match="set both"):
        credentials(environment={module.CERTIFICATE: cert})
    both = {module.CERTIFICATE: cert, module.KEY: key}
    with pytest.raises(PidflowError, match="JALIEN_TOKEN_CERT: it names no file"):
        credentials(environment=both)
    for file in (cert, key):
        Path(file).touch()
    assert credentials(environment=both).certificate == (cert, key)


def test_content_on_another_host_is_not_fetched(ccdb: Ccdb, monkeypatch: pytest.MonkeyPatch) -> None:
    ccdb.store("a/b", 100, 200)
    with serving() as other:
        away = {"Location": f"{other.url}/download/1"}
        monkeypatch.setattr("ccdb_server._Handler._choose", lambda *_: (303, away, b""))
        with pytest.raises(PidflowError, match="not on this server"):
            Client(ccdb.url, Credentials(SECRET)).get("a/b", 100)
        assert other.seen == []


def test_an_answer_of_something_else(ccdb: Ccdb, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(ccdb.url)
    monkeypatch.setattr("ccdb_server._Handler._answer", lambda *_: (200, {}, b"<html>"))
    for request in (
        lambda: client.head("a/b", 1),
        lambda: client.get("a/b", 1),
        lambda: client.browse("a/b"),
        lambda: store(client),
    ):
        with pytest.raises(PidflowError, match=r"correct the URL|set the URL|check the URL"):
            request()


class _Empty(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_response(404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[tuple[str, Path, dict[str, str]]]:
    """A server that asks for a client certificate: its URL, the authority's file, and a client's variables."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    own = authority.issue_cert("client@example.org")
    own.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    own.private_key_pem.write_to_path(tmp_path / "key.pem")
    server = HTTPServer(("127.0.0.1", 0), _Empty)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    files = {module.CERTIFICATE: str(tmp_path / "cert.pem"), module.KEY: str(tmp_path / "key.pem")}
    yield f"https://127.0.0.1:{server.server_port}", tmp_path / "ca.pem", files
    server.shutdown()
    thread.join()
    server.server_close()


def test_tls_is_verified_and_the_certificate_is_shown(
    tls: tuple[str, Path, dict[str, str]], pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, authority, files = tls
    secrets = credentials(environment=files)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(PidflowError, match="no trusted TLS connection"):
        Client(url, secrets).head("a/b", 100)
    assert pauses == []
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority))
    assert Client(url, secrets).head("a/b", 100) is None
    with pytest.raises(PidflowError):
        Client(url, attempts=1).head("a/b", 100)


RUN = "RCT/Info/RunInformation"


@pytest.mark.parametrize(
    ("said", "limits"),
    [
        ({"STF": "20", "ETF": "30", "SOX": "10", "EOX": "40", "SOR": "5", "EOR": "50"}, (20, 30)),
        ({"SOX": "10", "EOX": "40", "SOR": "5", "EOR": "50"}, (10, 40)),
        ({"STF": "20", "SOR": "5", "EOR": "50"}, (5, 50)),
        ({"STF": "0", "ETF": "0", "SOR": "5", "EOR": "50"}, (5, 50)),
        ({"STF": "30", "ETF": "20", "SOX": "x", "EOX": "40", "SOR": "5", "EOR": "50"}, (5, 50)),
    ],
)
def test_validity_of_a_run(ccdb: Ccdb, said: dict[str, str], limits: tuple[int, int]) -> None:
    ccdb.store(RUN, 544122, 544123, metadata=said)
    assert run_validity(Client(ccdb.url), 544122) == limits
    assert [(seen.method, seen.target) for seen in ccdb.seen] == [("HEAD", f"/{RUN}/544122")]


def test_a_run_without_times(ccdb: Ccdb) -> None:
    ccdb.store(RUN, 544122, 544123, metadata={"SOR": "5"})
    with pytest.raises(PidflowError, match=r"544122: it has no times .* set valid_from"):
        run_validity(Client(ccdb.url), 544122)
    with pytest.raises(PidflowError, match=r"544123: the run is not known; set valid_from"):
        run_validity(Client(ccdb.url), 544123)
