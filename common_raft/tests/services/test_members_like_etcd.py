"""Requests on members, to three nodes of etcd and to three of ours behind different servers: the same answers."""

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from common_raft.testing.processes import Answer, NodeProcess, ProcessCluster, request
from common_raft.tests.likeness.shown import FRAMING
from common_raft.tests.services.variants import cluster_of, etcd_cluster

pytestmark = pytest.mark.processes
#: etcd wants its members connected for five seconds before it adds one.
LAX = ("--strict-reconfig-check=false",)
NODES = [("v2.reactive", "native"), ("v2.servlet", "granian"), ("v1.reactive", "hypercorn")]
JSON = {"Content-Type": "application/json"}
URLS = '{"peerURLs":["http://127.0.0.1:9","http://127.0.0.1:8"]}'

#: What neither cluster's ids and URLs are in, and so must be answered with the same bytes.
SAME = [
    ("GET", "/v2/members/foo", {}, ""),
    ("GET", "/v2/members/leader/", {}, ""),
    ("GET", "/v2/members//", {}, ""),
    ("GET", "/v2/membersx", {}, ""),
    ("GET", "/v2/machines/", {}, ""),
    ("HEAD", "/v2/members", {}, ""),
    ("PATCH", "/v2/members", {}, ""),
    ("OPTIONS", "/v2/members", {}, ""),
    *((method, "/v2/machines", {}, "") for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH")),
    *((method, "/v2/members", JSON, URLS) for method in ("PUT", "DELETE")),
    *((method, "/v2/members/", JSON, URLS) for method in ("PUT", "DELETE")),
    *(
        (method, f"/v2/members/{each}", JSON, URLS)
        for method in ("PUT", "DELETE")
        for each in ("zz", "12", "0012", "12/", "a/b", "leader", "+12", "0x12", "1_2", "AB%20C", "%3Cb%3E", "1" * 17)
    ),
    ("PUT", "/v2/members/12", {}, ""),
    ("PUT", "/v2/members/12", JSON, "{}"),
    *(
        ("POST", "/v2/members", {"Content-Type": each}, "{}")
        for each in ("text/Plain", "Text/Plain; a=b", "Application/JSON", "Application/JSON; charset=utf-8", "")
    ),
    ("POST", "/v2/members", {}, ""),
    *(
        ("POST", "/v2/members", JSON, each)
        for each in (
            "", "{}", "[]", "null", "true", "1", '"a"', '{"peerURLs":[]}', '{"peerURLs":null}', '{"PEERURLS":[]}',
            '{"peerURLs":{}}', '{"peerURLs":"http://a:1"}', '{"peerURLs":[1]}', '{"peerURLs":[null]}',
            '{"peerURLs":["http://a:1"', "{", "[1,2",
        )
    ),
    *(
        ("POST", "/v2/members", JSON, json.dumps({"peerURLs": [each]}))
        for each in (
            "", "a:1", ":1", "//a:1", "a", "ftp://a:1", "HTTP://a:1/", "http://a", "http://a:1/", "http://a:1/x",
            "http://a:1:2", "http://[::1]", "http://a:x", "http://%zz:1", "http://a:1/%zz", "http://a b:1",
            "http://a:1\n2", "http://a\u00e9:x", "http://", "http:a:1", "http://a^b:1", "http://[::1]:x",
        )
    ),
]  # fmt: skip


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessCluster]:
    with etcd_cluster(tmp_path_factory.mktemp("etcd"), flags=LAX) as started:
        yield started


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessCluster]:
    with cluster_of(NODES, tmp_path_factory.mktemp("ours"), LAX) as started:
        yield started


def ask(node: NodeProcess, method: str, target: str, headers: Mapping[str, str], body: str) -> Answer:
    return request(node.client_port, method, target, body.encode(), headers)


def shown(answer: Answer) -> tuple[int, dict[str, str], bytes]:
    passing = FRAMING | {"x-etcd-cluster-id"}
    headers = {name: text for name, text in answer.headers.items() if name not in passing}
    return answer.status, headers, answer.body


@pytest.mark.parametrize("system", ["etcd", "ours"])
def test_who_is_healthy_is_among_the_machines(system: str, tmp_path: Path) -> None:
    with etcd_cluster(tmp_path) if system == "etcd" else cluster_of(NODES, tmp_path) as cluster:
        for node in cluster.nodes:
            while node.ask("GET", "/health").status != 200:
                time.sleep(0.01)
            assert b":%d" % node.client_port in node.ask("GET", "/v2/machines").body


def test_what_is_wrong_is_refused_with_the_same_bytes_by_each_server(
    etcd: ProcessCluster, ours: ProcessCluster
) -> None:
    for method, target, headers, body in SAME:
        expected = shown(ask(etcd.nodes[0], method, target, headers, body))
        for node, variant in zip(ours.nodes, NODES, strict=True):
            got = shown(ask(node, method, target, headers, body))
            assert got == expected, (variant, method, target, headers, body)


class Names:
    """Replaces a cluster's own ids and URLs by the same words in both."""

    def __init__(self, cluster: ProcessCluster) -> None:
        self._words: dict[str, str] = {}
        for member in cluster.nodes[0].ask("GET", "/v2/members").json["members"]:
            self.learn(member["name"], member)

    def learn(self, name: str, member: Mapping[str, object]) -> None:
        self._words[str(member["id"])] = f"id of {name}"
        if name.startswith("n"):
            for kind in ("peerURLs", "clientURLs"):
                self._words[member[kind][0]] = f"{kind} of {name}"  # type: ignore[index]

    def told(self, answer: Answer) -> tuple[int, dict[str, str], object]:
        status, headers, body = shown(answer)
        text = body.decode()
        for own, word in self._words.items():
            text = text.replace(own, word)
        members = re.findall(r"\{[^{}]*\}", text)
        if text.startswith('{"members":['):  # in the order of the ids, which differs
            ordered = re.findall(r'"id":"(\w+)"', body.decode())
            assert [int(each, 16) for each in ordered] == sorted(int(each, 16) for each in ordered)
            assert text == '{"members":[' + ",".join(members) + "]}\n"
            return status, headers, sorted(members)
        return (
            status,
            headers,
            sorted(text.split(", ")) if headers.get("content-type", "").startswith("text") else text,
        )


def story(cluster: ProcessCluster) -> list[object]:
    """What a cluster answers to an operator who adds, moves and removes, each through another node."""
    first, second, third = cluster.nodes
    wait_until(lambda: all(len(listed(node)) == 3 and all(listed(node)) for node in cluster.nodes))
    names = Names(cluster)
    told: list[object] = []

    def tell(node: NodeProcess, method: str, target: str, body: object = None) -> Answer:
        text = "" if body is None else json.dumps(body)
        answer = ask(node, method, target, JSON if text else {}, text)
        told.append((method, names.told(answer)))
        if method != "GET":
            time.sleep(0.1)  # the others apply it
        return answer

    def look() -> None:
        for node in cluster.nodes:
            for target in ("/v2/members", "/v2/members/", "/v2/members?x=1", "/v2/machines"):
                tell(node, "GET", target)

    look()
    own = {member["name"]: member for member in first.ask("GET", "/v2/members").json["members"]}
    tell(first, "POST", "/v2/members", {"peerURLs": own["n1"]["peerURLs"]})
    tell(second, "PUT", f"/v2/members/{own['n2']['id']}", {"peerURLs": own["n1"]["peerURLs"]})
    tell(third, "PUT", f"/v2/members/{own['n2']['id']}", {"peerURLs": own["n2"]["peerURLs"]})
    answer = ask(second, "POST", "/v2/members/ignored", JSON, URLS)
    added = answer.json
    names.learn("added", added)
    told.append(names.told(answer))
    time.sleep(0.1)
    look()
    tell(third, "POST", "/v2/members", {"peerURLs": ["http://127.0.0.1:9"]})
    tell(
        first,
        "PUT",
        f"/v2/members/{added['id'].upper()}",
        {"peerURLs": ["http://127.0.0.1:7", "http://127.0.0.1:6"]},
    )
    look()
    tell(second, "DELETE", f"/v2/members/{added['id']}")
    for node in cluster.nodes:
        tell(node, "DELETE", f"/v2/members/{added['id']}")
        tell(node, "DELETE", f"/v2/members/00{added['id']}"[:40])
        tell(node, "PUT", f"/v2/members/{added['id']}", {"peerURLs": ["http://127.0.0.1:6"]})
    look()
    leader = cluster.leader()
    members = leader.ask("GET", "/v2/members").json["members"]
    for node in cluster.nodes:
        assert node.ask("GET", "/v2/members/leader").json in members
        assert node.ask("GET", "/v2/members/leader").json["name"] == leader.name
    follower = cluster.followers()[0]
    # Not through itself: etcd may have stopped before it answers.
    tell(leader, "DELETE", f"/v2/members/{own[follower.name]['id']}")
    told.append(follower.stop_by_itself())
    told.append(len(listed(leader)))
    return told


def listed(node: NodeProcess) -> list[str]:
    """The client URLs of all members, as one node knows them."""
    members = node.ask("GET", "/v2/members").json["members"]
    return [url for member in members for url in member["clientURLs"] or [""]]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_operator_who_adds_moves_and_removes_hears_the_same(
    etcd: ProcessCluster, ours: ProcessCluster
) -> None:
    for expected, got in zip(story(etcd), story(ours), strict=True):
        assert got == expected
