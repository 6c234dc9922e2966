"""Who gets past the guard, and when there is one: over a node that is a cluster by itself."""

import json
from collections.abc import Callable

import pytest

from common_raft.keyspace import Create, HashMapStore, Keyspace, Set, Update
from common_raft.tests.auth_story import ROOT, Ask, get, kv, role, user
from common_raft.tests.test_auth_story import Direct
from common_raft.tests.web_fakes import FakeFailure, FakeNode
from common_raft.web.auth import passwords
from common_raft.web.auth.accounts import ENABLED
from common_raft.web.auth.passwords import BlockingPasswords, TooBusy
from common_raft.web.etcd_v2 import EtcdV2
from common_raft.web.response import Response

PUT = Ask("PUT", "/v2/keys/k", "value=1")


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "COST", 4)


@pytest.fixture
def node() -> FakeNode:
    return FakeNode()


@pytest.fixture
def api(node: FakeNode) -> EtcdV2:
    return EtcdV2(node, node.keyspace)


@pytest.fixture
def ask(api: EtcdV2) -> Direct:
    return Direct(api)


def enable(ask: Direct) -> None:
    assert ask(user("root", password="secret")).status == 201
    assert ask(Ask("PUT", "/v2/auth/enable")).status == 200


def test_once_the_first_write_was_let_through_nothing_stands_before_requests(
    api: EtcdV2, ask: Direct
) -> None:
    assert api.wants_authorization
    assert ask(get("/v2/keys/k")).status == 404
    assert api.wants_authorization
    assert ask(PUT).status == 201
    assert not api.wants_authorization


def test_a_node_that_does_not_know_what_the_cluster_decided_lets_no_write_through(
    node: FakeNode, api: EtcdV2, ask: Direct
) -> None:
    node.failure = FakeFailure("no leader")
    for asked in (PUT, Ask("DELETE", "/v2/keys/k"), Ask("POST", "/v2/keys/k", "value=1")):
        answer = ask(asked)
        assert (answer.status, answer.json["cause"]) == (500, "no leader")
    assert ask(Ask("DELETE", "/v2/members/12")).status == 500
    assert ask(user("root", password="secret")).status == 500
    assert ask(get("/v2/keys/k")).status == 404
    node.failure = None
    assert node.keyspace.index == 0 and api.wants_authorization
    assert ask(PUT).status == 201


def test_a_node_that_was_started_anew_guards_what_its_log_holds(node: FakeNode, ask: Direct) -> None:
    enable(ask)
    ask(role("guest", ROOT, revoke=kv(["/*"], ["/*"])))
    for asked in (PUT, get("/v2/keys/k"), get("/v2/auth/users")):
        again = Direct(EtcdV2(node, node.keyspace))
        assert again(asked).status == 401
        assert again(asked._replace(by=ROOT)).status in (200, 201, 404)


def test_a_switch_through_another_node_is_seen_at_once(node: FakeNode, api: EtcdV2, ask: Direct) -> None:
    other = Direct(EtcdV2(node, node.keyspace))
    ask(PUT)
    assert not api.wants_authorization
    enable(other)
    assert api.wants_authorization
    assert ask(get("/v2/auth/users")).status == 401
    other(Ask("DELETE", "/v2/auth/enable", by=ROOT))
    assert not api.wants_authorization
    assert ask(get("/v2/auth/users")).status == 200


def test_a_snapshot_brings_its_users_and_roles_along(node: FakeNode, api: EtcdV2, ask: Direct) -> None:
    ask(PUT)
    other_node = FakeNode(Keyspace(HashMapStore()))
    enable(Direct(EtcdV2(other_node, other_node.keyspace)))
    node.keyspace.restore(filter(None, other_node.keyspace.snapshot()))
    assert api.wants_authorization
    assert ask(get("/v2/auth/users")).status == 401
    assert [each["user"] for each in ask(get("/v2/auth/users", ROOT)).json["users"]] == ["root"]
    empty = FakeNode(Keyspace(HashMapStore()))
    empty.keyspace.apply([(empty.keyspace.encode([Set("/k", "2")]), False)], 1)
    node.keyspace.restore(filter(None, empty.keyspace.snapshot()))
    assert ask(get("/v2/auth/users")).json == {"users": None}
    assert not api.wants_authorization


@pytest.mark.parametrize(
    "target",
    [
        "/v2/keys//auth", "/v2/keys//auth/users/root", "/v2/keys/%2Fauth/users/root", "/v2/keys%2F%2Fauth%2Fenabled",
        "/v2/keys///auth/enabled", "/v2/keys/./%2Fauth/enabled", "/v2/keys/%2F/auth/enabled",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "POST", "DELETE", "CONNECT", "PATCH"])
def test_no_path_of_a_client_leads_to_what_is_kept(
    node: FakeNode, ask: Direct, method: str, target: str
) -> None:
    enable(ask)
    before = node.keyspace.index
    for by in ("", ROOT):
        for query in (
            "",
            "?recursive=true",
            "?dir=true&recursive=true",
            "?prevExist=true",
            "?wait=true&waitIndex=1",
        ):
            body = "" if method == "HEAD" else "value=false"
            answer = ask(Ask(method, target + query, body, by))
            assert answer.status in (301, 405, 401), answer
    assert node.keyspace.index == before


def test_listings_and_watchers_do_not_show_what_is_kept(ask: Direct) -> None:
    enable(ask)
    assert ask(get("/v2/keys/?recursive=true", ROOT)).json["node"] == {"dir": True}


class HeldPasswords(BlockingPasswords):
    """Whose checks end when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.checks: list[Callable[[bool | TooBusy], None]] = []

    def check(self, name: str, password: bytes, stored: str, done: Callable[[bool | TooBusy], None]) -> None:
        self.checks.append(done)


def asked_while_checking(api: EtcdV2, asked: Ask) -> list[Response]:
    answers: list[Response] = []
    api.handle(
        asked.method,
        asked.target.encode(),
        b"application/x-www-form-urlencoded",
        asked.body.encode(),
        answers.append,
        asked.headers()["Authorization"].encode(),
    )
    assert answers == []
    return answers


@pytest.mark.parametrize("change", ["password", "user", "role", "nothing"])
def test_what_has_changed_while_a_password_was_checked_counts(node: FakeNode, change: str) -> None:
    enable(Direct(EtcdV2(node, node.keyspace)))
    other = Direct(EtcdV2(node, node.keyspace))
    other(user("ann", ROOT, roles=["root"], password="a"))
    held = HeldPasswords()
    api = EtcdV2(node, node.keyspace, held)
    answers = asked_while_checking(api, PUT._replace(by="ann:a"))
    match change:
        case "password":
            other(user("ann", ROOT, password="b"))
        case "user":
            other(Ask("DELETE", "/v2/auth/users/ann", by=ROOT))
        case "role":
            other(user("ann", ROOT, revoke=["root"]))
    held.checks.pop()(True)
    assert [answer.status for answer in answers] == [201 if change == "nothing" else 401]


def test_too_many_passwords_at_once_are_refused_and_say_why(node: FakeNode) -> None:
    enable(Direct(EtcdV2(node, node.keyspace)))
    held = HeldPasswords()
    api = EtcdV2(node, node.keyspace, held)
    for asked, status in ((PUT, 500), (get("/v2/auth/users"), 503)):
        answers = asked_while_checking(api, asked._replace(by=ROOT))
        held.checks.pop()(TooBusy())
        assert answers[0].status == status
        assert b"try again" in answers[0].body


def test_of_two_changes_at_once_none_is_lost(node: FakeNode, api: EtcdV2, ask: Direct) -> None:
    ask(user("ann", password="a"))
    ask(role("r"))
    node.held = []
    answers: list[Response] = []

    def send(asked: Ask) -> None:
        api.handle(asked.method, asked.target.encode(), None, asked.body.encode(), answers.append)

    for number in range(5):
        send(user("ann", grant=[f"role{number}"]))
        send(role("r", grant=kv([f"/{number}"])))
    node.release()
    assert [answer.status for answer in answers] == [200] * 10
    node.held = None
    permissions = ask(get("/v2/auth/roles/r")).json["permissions"]["kv"]["read"]
    assert permissions == [f"/{number}" for number in range(5)]
    roles = json.loads(ask(user("ann", password="b")).body)["roles"]
    assert roles == [f"role{number}" for number in range(5)]


def test_a_change_that_the_cluster_does_not_take_is_no_success(node: FakeNode, ask: Direct) -> None:
    enable(ask)
    node.failure = FakeFailure("no leader")
    for asked in (
        user("ann", ROOT, password="a"),
        role("r", ROOT),
        Ask("DELETE", "/v2/auth/enable", by=ROOT),
    ):
        answer = ask(asked)
        assert (answer.status, answer.json) == (500, {"message": "Internal Server Error"})
    assert ask(get("/v2/auth/enable")).json == {"enabled": True}


def test_before_its_first_change_the_service_makes_what_etcd_makes(node: FakeNode, ask: Direct) -> None:
    ask(Ask("DELETE", "/v2/auth/users/nobody"))
    assert node.keyspace.index == 4
    ask(Ask("DELETE", "/v2/auth/users/nobody"))
    assert node.keyspace.index == 4


def test_what_another_member_has_made_meanwhile_is_left_alone(node: FakeNode, ask: Direct) -> None:
    ask(get("/v2/auth/users"))

    def apply(*commands: object) -> None:
        node.applied += 1
        node.keyspace.apply([(node.keyspace.encode(commands), False)], node.applied)  # type: ignore[arg-type]

    apply(Create("//auth", "", dir=True), Create("//auth/users", "", dir=True))
    ask(user("root", password="secret"))
    assert node.keyspace.index == 5
    apply(Update(ENABLED, "true"))
    assert ask(get("/v2/auth/users")).status == 401


def test_what_is_refused_as_no_request_needs_no_password(ask: Direct) -> None:
    enable(ask)
    assert ask(Ask("DELETE", "/v2/auth/roles/guest", by=ROOT)).status == 200
    assert ask(Ask("HEAD", "/v2/keys/k")).status == 401
    assert ask(Ask("HEAD", "/v2/keys/k", "value=1")).status == 400
