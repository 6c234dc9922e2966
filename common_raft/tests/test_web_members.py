"""``/v2/members`` over a node that is told what to answer; the rest is compared with etcd itself."""

import json

import pytest

from common_raft.drivers.administration import Alone
from common_raft.drivers.membership import MemberInfo
from common_raft.tests.web_fakes import FakeMember, FakeMembersFailure, FakeNode
from common_raft.web.etcd_v2 import EtcdV2
from common_raft.web.response import Response

JSON = b"application/json"
OWN = '{"id":"3115797e2b89d053","name":"n1","peerURLs":["http://peer:2380"],"clientURLs":["http://client:2379"]}'


@pytest.fixture
def node() -> FakeNode:
    return FakeNode()


def ask(node: FakeNode, method: str, path: str, body: object = None) -> Response:
    answers: list[Response] = []
    sent = b"" if body is None else json.dumps(body).encode()
    EtcdV2(node, node.keyspace).handle(method, path.encode(), JSON, sent, answers.append)
    (answer,) = answers
    return answer


def test_members_machines_and_the_leader(node: FakeNode) -> None:
    node.members.append(FakeMember(0xFFFF, "", ["http://b:1", "http://c:2"], []))
    added = '{"id":"ffff","name":"","peerURLs":["http://b:1","http://c:2"],"clientURLs":[]}'
    answer = ask(node, "GET", "/v2/members")
    assert answer.body.decode() == f'{{"members":[{OWN},{added}]}}\n'
    assert (b"x-etcd-cluster-id", b"f1b301c7dda370d8") in answer.headers()
    assert ask(node, "GET", "/v2/members/leader").body.decode() == OWN + "\n"
    assert ask(node, "GET", "/v2/machines").body == b"http://client:2379"


def test_without_a_leader_nobody_is_told_to_lead(node: FakeNode) -> None:
    node.leader = 0
    answer = ask(node, "GET", "/v2/members/leader")
    assert (answer.status, answer.body) == (503, b'{"message":"During election"}')


def test_a_member_is_added_moved_and_removed(node: FakeNode) -> None:
    answer = ask(node, "POST", "/v2/members", {"peerURLs": ["http://z:1", "http://a:1"]})
    added = b'{"id":"2","name":"","peerURLs":["http://a:1","http://z:1"],"clientURLs":[]}\n'
    assert (answer.status, answer.body) == (201, added)
    assert ask(node, "PUT", "/v2/members/02", {"peerURLs": ["http://b:2"]}).status == 204
    assert node.members[1].peer_urls == ["http://b:2"]
    answer = ask(node, "DELETE", "/v2/members/2")
    assert (answer.status, answer.body) == (204, b"")
    assert len(node.members) == 1


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("https://a:1", "members are reached without TLS, by http://host:port: https://a:1"),
        ("unix://a", "members are reached without TLS, by http://host:port: unix://a"),
        ("http://a:0", "URL must name a host and a port from 1 to 65535: http://a:0"),
        ("http://a:65536", "URL must name a host and a port from 1 to 65535: http://a:65536"),
        ("http://a:", "URL must name a host and a port from 1 to 65535: http://a:"),
        ("http://:1", "URL must name a host and a port from 1 to 65535: http://:1"),
    ],
)
def test_where_nobody_can_be_reached_is_refused(node: FakeNode, url: str, message: str) -> None:
    for method, target in (("POST", "/v2/members"), ("PUT", "/v2/members/1")):
        answer = ask(node, method, target, {"peerURLs": ["http://a:1", url]})
        assert (answer.status, answer.body) == (400, f'{{"message":"{message}"}}'.encode())
    assert len(node.members) == 1


@pytest.mark.parametrize(
    ("failure", "method", "status", "message"),
    [
        (404, "DELETE", 404, "No such member: ab"),
        (404, "PUT", 404, "No such member: ab"),
        (410, "DELETE", 410, "Member permanently removed: ab"),
        (410, "PUT", 500, "Internal Server Error"),
        (409, "PUT", 409, "why"),
        (409, "POST", 409, "why"),
        (500, "POST", 500, "Internal Server Error"),
        (500, "DELETE", 500, "Internal Server Error"),
        (501, "POST", 501, "why"),
    ],
)
def test_what_the_node_refuses(node: FakeNode, failure: int, method: str, status: int, message: str) -> None:
    node.members_failure = FakeMembersFailure(failure, "why")
    path = "/v2/members" if method == "POST" else "/v2/members/AB"
    answer = ask(node, method, path, None if method == "DELETE" else {"peerURLs": ["http://a:1"]})
    assert (answer.status, answer.body) == (status, f'{{"message":"{message}"}}'.encode())


def test_who_stands_alone_has_no_members_to_change() -> None:
    alone = Alone()
    alone.members = [MemberInfo(1, "n1", ())]
    said: list[tuple[int, str]] = []
    alone.remove_member(1, lambda error: said.append((error.status, error.cause) if error else (0, "")))
    alone.add_member(
        ["http://a:1"], lambda _, error: said.append((error.status, error.cause) if error else (0, ""))
    )
    assert said == [(501, "a standalone service has no members to change")] * 2
