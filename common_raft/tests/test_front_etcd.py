"""The same requests to a real etcd and to each front: the answers must not differ.

Compared are status, body and all headers but Date; indexes, also those that name a node, are counted from where each
keyspace stood at the start.  Of expirations only that there is one, and of ttls the hundreds: time goes on.
"""

import json
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from common_raft.tests.web_fixtures import (
    FORM,
    FRONTS,
    Answer,
    Listening,
    Served,
    ask,
    connect,
    free_port,
    read_until_closed,
    serving,
)

pytestmark = pytest.mark.processes

_BESIDE = Path(sys.executable).with_name("etcd")
ETCD = str(_BESIDE) if _BESIDE.exists() else shutil.which("etcd")
SERVERS_OWN = ("date", "server", "connection", "transfer-encoding", "content-length")


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The client port of a single etcd."""
    if ETCD is None:
        pytest.skip("etcd is not installed")
    port, peers = free_port(), f"http://127.0.0.1:{free_port()}"
    client = f"http://127.0.0.1:{port}"
    command = [ETCD, "--name", "n1", "--data-dir", str(tmp_path_factory.mktemp("etcd")), "--enable-v2"]
    command += [
        "--listen-client-urls",
        client,
        "--advertise-client-urls",
        client,
        "--listen-peer-urls",
        peers,
    ]
    command += ["--initial-advertise-peer-urls", peers, "--initial-cluster", f"n1={peers}"]
    command += ["--log-level", "error", "--unsafe-no-fsync"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until_healthy(port)
        yield port
    finally:
        process.kill()
        process.wait()


def wait_until_healthy(port: int) -> None:
    end = time.monotonic() + 30
    while True:
        try:
            if ask(port, "GET", "/health").status == 200:
                return
        except OSError:
            pass
        assert time.monotonic() < end, "etcd did not start"
        time.sleep(0.05)


@pytest.fixture(params=FRONTS)
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    with serving(request.param) as running:
        yield running


class Side:
    """One of the two that are compared."""

    def __init__(self, port: int) -> None:
        self.port = port
        for method in ("PUT", "DELETE"):  # so that no index is 0
            ask(port, method, "/v2/keys/" + KEYS[0])
        listed = json.loads(ask(port, "GET", "/v2/keys").body)["node"].get("nodes", [])
        shown = [quote(node["key"][1:], safe="") for node in listed]
        for key in (*KEYS, *TREE, *shown):  # what is hidden is not listed
            ask(port, "DELETE", f"/v2/keys/{key}?recursive=true")
        self.base = int(ask(port, "GET", "/v2/keys/no-such-key").headers["x-etcd-index"])

    def ask(self, method: str, target: str, body: str, content_type: str | None) -> Answer:
        answer = ask(self.port, method, target, body, content_type)
        headers = {name: value for name, value in answer.headers.items() if name not in SERVERS_OWN}
        for name in ("x-raft-index", "x-raft-term"):  # whether they are there, not what they are
            if name in headers:
                headers[name] = "some"
        if "x-etcd-index" in headers:
            headers["x-etcd-index"] = self._relative(headers["x-etcd-index"])
        if "x-etcd-cluster-id" in headers:
            assert re.fullmatch("[0-9a-f]{1,16}", headers["x-etcd-cluster-id"])
            headers["x-etcd-cluster-id"] = "some"
        return Answer(answer.status, headers, self.comparable(answer.body))

    def comparable(self, body: bytes) -> bytes:
        body = re.sub(rb'"((?:modifiedI|createdI|i)ndex)":(\d+)', self._index, body)
        body = re.sub(rb"/(\d{20})", lambda match: b"/base+%d" % (int(match[1]) - self.base), body)
        body = re.sub(rb'"ttl":(\d+)', lambda match: b'"ttl":%d' % round(int(match[1]), -2), body)
        body = re.sub(rb"\[999999 != (\d+)\]", self._compared, body)
        return re.sub(rb'"expiration":"[^"]*Z"', b'"expiration":"some"', body)

    def _compared(self, match: re.Match[bytes]) -> bytes:
        return b"[999999 != %s]" % self._relative(match[1].decode()).encode()

    def _index(self, match: re.Match[bytes]) -> bytes:
        return b'"%s":%s' % (match[1], self._relative(match[2].decode()).encode())

    def _relative(self, index: str) -> str:
        """Parameter errors carry 0, which is no index of the keyspace."""
        return index if index == "0" else f"base+{int(index) - self.base}"


Request = tuple[str, str, str, str | None]

KEYS = [
    "a", "b", "_hidden", "A.b-c~d_1", "%C3%BC", "%ff%fe", "a%20b+c", "%3Ca%3E%26%22", "a%00%0A%7F", "%E2%80%A8",
    "\xc3\xa9",
]  # fmt: skip
VALUES = [
    "1", "", "x", "%FF%C3%28", "a+b%2Bc", "%3C%3E%26%22%5C%2F", "%00%08%0C%0A%0D%09%1F%7F", "%E2%80%A8%F0%9F%98%80",
    "x" * 3000, "a=b", "%ED%A0%80", "ü",
]  # fmt: skip
ODD_FIELDS = [
    "quorum=true", "quorum=false", "quorum=x", "quorum=", "sorted=true", "sorted=T", "sorted=2", "recursive=0",
    "recursive=nope", "stream=tRUE", "dir=false", "dir=", "waitIndex=", "waitIndex=7", "waitIndex=-1", "prevIndex=0",
    "prevIndex=x", "prevIndex=18446744073709551616", "prevValue=", "ttl=", "ttl=x", "ttl=-1", "refresh=false",
    "refresh=x", "refresh=true", "wait=false", "wait=x", "noValueOnSuccess=true", "noValueOnSuccess=", "prevExist=",
    "prevExist=true", "prevExist=false", "prevExist=yes", "%zz=1", "x=%", "x=%4", "=1", "&&", ";value=semi", "value",
    "value=late", "a=b;c=d", "VALUE=1", "%76alue=escaped", "x=%\"a", "+=+",
]  # fmt: skip
CONTENT_TYPES = [
    FORM, FORM, FORM, FORM, FORM, f"{FORM}; charset=utf-8", FORM.upper(), None, "text/plain", "multipart/form-data",
    ";", "a b", "a/", "application/x-www-form-urlencoded;", "application/x-www-form-urlencoded; x", "a/b; c=d; c=e",
    f'{FORM}; a="b;c"',
]  # fmt: skip


def random_request(rng: random.Random) -> Request:
    method = rng.choice(["GET", "GET", "PUT", "PUT", "PUT", "DELETE", "HEAD"])
    target = "/v2/keys/" + rng.choice(KEYS) + rng.choice(["", "", "", "/"])
    fields = [rng.choice(ODD_FIELDS) for _ in range(rng.choice([0, 0, 1, 1, 2]))]
    body = ""
    content_type = rng.choice(CONTENT_TYPES)
    if method == "PUT":
        value = "value=" + rng.choice(VALUES)
        if rng.random() < 0.8:
            body = "&".join([value, *fields])
            fields = [rng.choice(ODD_FIELDS)] if rng.random() < 0.1 else []
        else:
            fields.append(value)
    query = "&".join(fields).encode().decode("latin-1") if all(map(str.isascii, fields)) else "&".join(fields)
    if fields and all(ord(character) < 256 for character in query) and " " not in query:
        target += "?" + query
    return method, target, body, content_type if body else FORM


TREE = ["d", "d/a", "d/b", "d/_h", "d/_h/a", "d/e/f/g", "d/e/f", "d/%C3%BC/%ff", "f", "f/a", "_h/x"]
WHAT = [
    "recursive=true", "dir=true", "dir=true", "quorum=true", "prevExist=true", "prevExist=false", "prevValue=1",
    "prevValue=2", "prevValue=", "ttl=100", "ttl=1000", "ttl=", "ttl=5000000000", "ttl=9223372036", "refresh=true",
    "refresh=true&ttl=300", "noValueOnSuccess=true", "prevIndex=0", "value=2", "prevIndex=999999", "wait=false",
]  # fmt: skip


def random_request_on_trees(rng: random.Random) -> Request:
    """Of any kind that is answered at once; listings are sorted, since etcd's have no order otherwise."""
    method = rng.choice(["GET", "GET", "HEAD", "PUT", "PUT", "PUT", "PUT", "POST", "DELETE", "DELETE"])
    target = "/v2/keys" + rng.choice(["", "/", *("/" + key for key in TREE * 2)])
    fields = [rng.choice(WHAT) for _ in range(rng.choice([0, 0, 1, 1, 2, 3]))]
    if method in ("GET", "HEAD"):
        fields.append("sorted=true")
    if method not in ("PUT", "POST"):
        return method, target + "?" + "&".join(fields), "", FORM
    if rng.random() < 0.9:
        fields.append("value=" + rng.choice(["1", "2", ""]))
    if rng.random() < 0.8:
        return method, target, "&".join(fields), FORM
    return method, target + "?" + "&".join(fields), "", FORM


NAMED: list[Request] = [
    (method, target, "", FORM)
    for method in ("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "FOO", "CONNECT")
    for target in (
        "/", "/version", "/version/", "/version?x=%zz", "/health", "/health/x", "/nothing", "/v2", "/v2/",
        "/v2/keysx", "/v2/stats/self/", "//v2/keys/a", "/v2/keys//a", "/v2/keys/./a", "/v2/keys/../keys/a",
        "/v2/keys/%2e%2e/a",        "/v2/keys/a%2F%2Fb?x=%22%27&y=<>", "/v2//keys?",
        "/v2/keys/a%20b//?z=%zz", "/../x/", "/a%2Fb/../c%25",
    )
] + [
    (method, target + query, "", FORM)
    for method in ("PUT", "DELETE")
    for target in ("/v2/keys", "/v2/keys/")
    for query in (
        "", "?value=x", "?prevExist=true", "?prevExist=false", "?prevIndex=3", "?prevValue=x", "?dir=true",
        "?recursive=true", "?ttl=x", "?ttl=5", "?refresh=true&ttl=5",
    )
] + [
    (method, "/v2/keys/a?wait=true" + query, "", FORM)
    for method in ("HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS")
    for query in ("", "&wait=x", "&prevValue=", "&stream=x", "&waitIndex=-1", "&quorum=true")
] + [
    ("GET", f"/v2/keys/a?wait=true&{query}", "", FORM)
    for query in ("waitIndex=x", "waitIndex=18446744073709551616", "recursive=", "stream=2", "prevIndex=x", "ttl=x")
] + [
    ("PUT", "/v2/keys/w", "value=1", FORM),
    ("GET", "/v2/keys/w?wait=true&quorum=true", "", FORM),
    ("GET", "/v2/keys/w?wait=true&quorum=true&recursive=true&stream=true", "", FORM),
    ("PUT", "/v2/keys/w", "value=1", "multipart/form-data; boundary=x"),
    ("DELETE", "/v2/keys/w", "", FORM),
]  # fmt: skip


def compare(ours: Side, etcd: Side, requests: list[Request]) -> None:
    for number, request in enumerate(requests):
        assert ours.ask(*request) == etcd.ask(*request), f"request {number}: {request}"


def readable(served: Served, requests: list[Request]) -> list[Request]:
    """Those whose target every server passes on as it came; the native front passes all."""
    if served.front == "native":
        return requests
    return [request for request in requests if re.fullmatch(r"[!#-;=?-~]*[!#-;=@-~]", request[1])]


def test_random_requests_on_plain_keys_are_answered_as_by_etcd(etcd: int, served: Served) -> None:
    rng = random.Random(20211015)
    ours, theirs = Side(served.port), Side(etcd)
    compare(ours, theirs, readable(served, [random_request(rng) for _ in range(600)]))


def test_random_requests_on_directories_are_answered_as_by_etcd(etcd: int, served: Served) -> None:
    rng = random.Random(20211016)
    ours, theirs = Side(served.port), Side(etcd)
    compare(ours, theirs, readable(served, [random_request_on_trees(rng) for _ in range(800)]))


def test_named_requests_are_answered_as_by_etcd(etcd: int, served: Served) -> None:
    ours, theirs = Side(served.port), Side(etcd)
    compare(ours, theirs, readable(served, NAMED))


WATCHES: list[tuple[str, list[Request]]] = [
    ("/a?wait=true", [("PUT", "/b", "value=1", FORM), ("PUT", "/a", "value=1", FORM)]),
    ("/a?wait=true&recursive=true", [("PUT", "/a/b/c", "value=%3C&ttl=100", FORM)]),
    ("?wait=true&recursive=true", [("PUT", "/_h/x", "value=1", FORM), ("POST", "/q", "value=1", FORM)]),
    ("/d/x?wait=true", [("PUT", "/d/x", "value=1&prevExist=true", FORM), ("PUT", "/d/x", "dir=true", FORM)]),
    (
        "/d?wait=true&stream=true&recursive=true",
        [
            ("PUT", "/d/a", "value=1", FORM),
            ("PUT", "/d/a", "value=2&prevValue=1", FORM),
            ("PUT", "/d/_a", "value=2", FORM),
            ("PUT", "/d/a", "refresh=true&ttl=100", FORM),
            ("PUT", "/d/a", "value=3&prevExist=true&noValueOnSuccess=true", FORM),
            ("DELETE", "/d/a?prevValue=3", "", FORM),
            ("PUT", "/d/e/f", "value=%FF", FORM),
            ("DELETE", "/d/e?recursive=true", "", FORM),
            ("DELETE", "/d?recursive=true", "", FORM),
        ],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("target", "changes"), WATCHES, ids=[target for target, _ in WATCHES])
def test_watches_are_answered_as_by_etcd(
    etcd: int, served: Served, target: str, changes: list[Request]
) -> None:
    """Chunk by chunk, from the head to the end."""
    assert watched(Side(served.port), target, changes) == watched(Side(etcd), target, changes)


def watched(side: Side, target: str, changes: list[Request]) -> tuple[object, list[bytes]]:
    for key in ("a", "b", "q", "d", "_h"):
        ask(side.port, "DELETE", f"/v2/keys/{key}?recursive=true")
    start = int(ask(side.port, "GET", "/v2/keys/no-such-key").headers["x-etcd-index"])
    with connect(side.port) as client:
        client.sendall(b"GET /v2/keys%s HTTP/1.1\r\nHost: x\r\n\r\n" % target.encode())
        head = Listening(client)
        assert int(head.headers["x-etcd-index"]) == start
        for method, key, body, content_type in changes:
            assert ask(side.port, method, f"/v2/keys{key}", body, content_type).status < 500
        ask(side.port, "DELETE", "/v2/keys/q?recursive=true")
        told = [b""]
        # A stream is over here when the directory that it is about is.
        while not (told[-1].startswith(b'{"action":"delete","node":{"key":"/d",') and told[-1] == told[-2]):
            told.append(head.line())
            if not told[-1]:
                break
    headers = {name: value for name, value in head.headers.items() if not name.startswith("x-")}
    headers = {name: value for name, value in headers.items() if name not in ("date", "server")}
    base, side.base = side.base, start
    lines = [side.comparable(line) for line in told]
    side.base = base
    return headers, lines


RAW = [
    b"garbage\r\n\r\n",
    b"GET /version HTTP/1.1\r\n\r\n",
    b"GET /version HTTP/1.0\r\n\r\n",
    b"GET /version HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"GET /version HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    b"GET /version HTTP/1.1\r\nHost: x y\r\n\r\n",
    b"GET /version HTTP/1.1\r\nHost: x/y\r\n\r\n",
    b"GET /version HTTP/1.1\r\nHost:\r\n\r\n",
    b"GET /version HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n",
    b"GET /version HTTP/1.1\r\nHost: x\r\nok: h\xff\r\n\r\n",
    b"GET /version HTTP/2.0\r\nHost: x\r\n\r\n",
    b"GET /version\r\n\r\n",
    b"GET /ver sion HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET version HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v2/keys/%zz HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v2/keys/\x01 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://foo/version HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://foo//version?a HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET * HTTP/1.1\r\nHost: x\r\n\r\n",
    b"F@O /version HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /version HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhelloGET /version HTTP/1.1\r\nHost: x\r\n\r\n",
    b"PUT /version HTTP/1.1\r\nHost: x\r\nContent-Length: -7\r\n\r\nvalue=1",
    b"PUT /version HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\nvalue=1",
    b"PUT /version HTTP/1.1\r\nHost: x\r\nContent-Length: 7, 7\r\n\r\nvalue=1",
    b"PUT /version HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\nContent-Length: 8\r\n\r\nvalue=1",
    b"PUT /version HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
    b"PUT /version HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    b"PUT /version HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    b"GET /version HTTP/1.1\r\nHost: x\r\nExpect: foo\r\n\r\n",
    b"GET /version HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 1_100_000 + b"\r\n\r\n",
]


@pytest.mark.parametrize("data", RAW, ids=lambda data: repr(data[:60]))
def test_bytes_that_are_hard_to_read_get_the_bytes_that_etcd_sends(etcd: int, data: bytes) -> None:
    """After a first request, since etcd looks at a connection's first bytes in a way of its own."""
    with serving("native") as served:
        assert converse(served.port, data) == converse(etcd, data)


def converse(port: int, data: bytes) -> list[bytes]:
    """All that comes, line by line without order; to a request for closing at the end."""
    first = b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n"
    with connect(port) as client:
        client.sendall(first)
        client.recv(65536)
        try:
            client.sendall(data)
            client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        except OSError:
            pass
        answer = re.sub(rb"Date: [^\r]+", b"Date: now", read_until_closed(client))
    return sorted(answer.split(b"\r\n"))
