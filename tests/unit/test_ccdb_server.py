"""The stand-in for the CCDB keeps to the documented protocol, asked without the client."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from ccdb_server import Ccdb, serving

NASTY = b"\r\n--x\r\n\x00\n\r" + bytes(range(256)) + b"\n"


@pytest.fixture
def ccdb() -> Iterator[Ccdb]:
    with serving() as server:
        yield server


def ask(ccdb: Ccdb, method: str, target: str, **more: object) -> requests.Response:
    return requests.request(method, f"{ccdb.url}/{target}", allow_redirects=False, timeout=5, **more)  # type: ignore[arg-type]


def post(ccdb: Ccdb, target: str, content: bytes = b"x") -> requests.Response:
    return ask(ccdb, "POST", target, files={"send": ("local.onnx", content, "application/octet-stream")})


def test_an_object_is_stored_and_read_by_a_redirect(ccdb: Ccdb) -> None:
    for content in (NASTY, os.urandom(5000)):
        made = post(ccdb, "a/b/100/200/run=5/pass=apass%201", content)
        assert made.status_code == 201 and made.headers["Location"] == made.headers["Content-Location"]
        found = ask(ccdb, "GET", "a/b/100")
        assert found.status_code == 303 and not found.content
        assert (found.headers["Valid-From"], found.headers["Valid-Until"]) == ("100", "200")
        assert found.headers["InitialValidityLimit"] == "200"
        assert (found.headers["run"], found.headers["pass"]) == ("5", "apass 1")
        assert ask(ccdb, "HEAD", "a/b/100").headers["ETag"] == found.headers["ETag"] == f'"{ccdb.versions[-1].id}"'
        read = ask(ccdb, "GET", found.headers["Location"].lstrip("/"))
        assert read.status_code == 200 and read.content == content
        assert read.headers["Content-MD5"] == hashlib.md5(content).hexdigest()
        assert read.headers["Content-Disposition"] == 'inline;filename="local.onnx"'
        assert read.headers["Accept-Ranges"] == "bytes"


def test_validity_is_half_open_and_the_newest_wins(ccdb: Ccdb) -> None:
    old, new = ccdb.store("a/b", 100, 200), ccdb.store("a/b", 150, 160)
    assert new.created > old.created
    winners = {time: ask(ccdb, "GET", f"a/b/{time}").headers.get("ETag", "").strip('"') for time in (100, 150, 160)}
    assert winners == {100: old.id, 150: new.id, 160: old.id}
    assert ask(ccdb, "GET", "a/b/99").status_code == ask(ccdb, "HEAD", "a/b/200").status_code == 404
    earlier = ask(ccdb, "GET", "a/b/150", headers={"If-Not-After": str(old.created)})
    assert earlier.headers["ETag"] == f'"{old.id}"'
    assert ask(ccdb, "GET", "a/b/100", headers={"If-Not-Before": str(new.created)}).status_code == 404


def test_metadata_restricts_the_choice(ccdb: Ccdb) -> None:
    wanted = ccdb.store("a/b", 100, 200, metadata={"run": "5"})
    ccdb.store("a/b", 100, 200, metadata={"run": "6"})
    assert ask(ccdb, "GET", "a/b/150/run=5").headers["ETag"] == f'"{wanted.id}"'
    assert ask(ccdb, "GET", "a/b/150/run=7").status_code == 404


def test_what_the_reader_has_is_not_sent_again(ccdb: Ccdb) -> None:
    version = ccdb.store("a/b", 100, 200)
    same = ask(ccdb, "GET", "a/b/150", headers={"If-None-Match": f'"{version.id}"'})
    assert same.status_code == 304 and "Location" not in same.headers
    assert ask(ccdb, "GET", "a/b/150", headers={"If-None-Match": '"other"'}).status_code == 303


def test_bad_requests(ccdb: Ccdb) -> None:
    two = {"a": ("a", b"1"), "b": ("b", b"2")}
    assert ask(ccdb, "POST", "a/b/100/200", files=two).status_code == 400
    assert ask(ccdb, "POST", "a/b/100/200", data=b"plain").status_code == 400
    barred = (
        "200/100/1",
        "a/b",
        "a/b/200/100",
        "a/b/100/200/k.k=v",
        "a/b/100/200/word",
        "/".join("abcdefghijk") + "/1/2",
    )
    for target in barred:
        assert post(ccdb, target).status_code == 400, target
    # a number ends the path: what is below it would be elsewhere
    assert post(ccdb, "a/7/9").status_code == 201 and ccdb.versions[-1].path == "a"
    assert len(ccdb.versions) == 1
    ccdb.token = "secret"
    assert post(ccdb, "a/b/100/200").status_code == 403
    assert ask(ccdb, "DELETE", "a/8").status_code == 403
    assert ask(ccdb, "GET", "a/8").status_code == 303


def test_browsing(ccdb: Ccdb) -> None:
    first, second = ccdb.store("a/b", 100, 200, b"1", {"run": "5"}), ccdb.store("a/b", 100, 200, b"2")
    ccdb.store("a/b/c/d", 100, 200)

    def browse(target: str, **headers: str) -> dict[str, Any]:
        found: dict[str, Any] = ask(ccdb, "GET", target, headers={"Accept": "application/json", **headers}).json()
        return found

    found = browse("browse/a/b")
    assert [one["id"] for one in found["objects"]] == [second.id, first.id]
    assert found["subfolders"] == ["a/b/c"]
    described = found["objects"][1]
    assert described["MD5"] == first.md5 and described["run"] == "5" and described["size"] == 1
    assert (described["validFrom"], described["validUntil"], described["createTime"]) == (100, 200, first.created)
    assert len(browse("browse/a/b/.*")["objects"]) == 3
    assert [one["id"] for one in browse("latest/a/b")["objects"]] == [second.id]
    assert browse("browse/a/b", **{"Browse-Limit": "1", "X-Filter-Fields": "id"})["objects"] == [{"id": second.id}]
    assert browse("browse/none") == {"objects": [], "subfolders": []}


def test_change_and_removal(ccdb: Ccdb) -> None:
    version = ccdb.store("a/b", 100, 200)
    assert ask(ccdb, "PUT", "a/b/150").status_code == 304
    assert ask(ccdb, "PUT", f"a/b/150/160/{version.id}?key=value").status_code == 204
    assert ask(ccdb, "GET", "a/b/160").status_code == 404
    assert ask(ccdb, "GET", "a/b/159").headers["key"] == "value"
    assert ccdb.versions[0].initial == 200
    assert ask(ccdb, "PUT", "a/b/160/170").status_code == 404
    assert ask(ccdb, "DELETE", "a/b/150").status_code == 204 and not ccdb.versions
    assert ask(ccdb, "DELETE", "a/b/150").status_code == 404
    ccdb.store("a/b", 100, 200)
    assert ask(ccdb, "GET", "truncate/a/b").status_code == 204 and not ccdb.versions


def test_faults_come_at_the_request_they_are_set_for(ccdb: Ccdb) -> None:
    ccdb.faults = {1: "500", 2: "drop before", 3: "drop after", 4: "403"}
    assert post(ccdb, "a/1/2").status_code == 500
    for stored in (0, 1):
        with pytest.raises(requests.ConnectionError):
            post(ccdb, "a/1/2")
        assert len(ccdb.versions) == stored
    assert post(ccdb, "a/1/2").status_code == 403
    assert post(ccdb, "a/1/2").status_code == 201
    ccdb.faults, ccdb.delay = {6: "late before", 7: "late after"}, 0.2
    for stored in (2, 3):
        with pytest.raises(requests.ReadTimeout):
            requests.post(f"{ccdb.url}/a/1/2", files={"a": b"x"}, timeout=0.05)
        assert len(ccdb.versions) == stored
    assert [seen.method for seen in ccdb.seen] == ["POST"] * 7
