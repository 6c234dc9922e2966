"""Authentication as a client meets it: the same requests to etcd and to each of our clusters, the same answers."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pytest

from common_raft.testing.processes import Answer, NodeProcess, ProcessCluster
from common_raft.tests.auth_story import ROOT, Ask, Teller, ask_port, get, kv, role, story, told, user
from common_raft.tests.services.variants import (
    CLUSTERS,
    cluster_of,
    driven_cluster_of,
    each_on_its_default,
    etcd_cluster,
)

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]
ETCDCTL = Path(sys.executable).with_name("etcdctl")
#: What the long sequence is sent to; etcd hashes a password for each request that has one, which takes the time here.
THOROUGHLY = ("v2.reactive", "v2.servlet")
SEQUENCES = {"long": 300, "short": 80}
USERS = ("ann", "bob", "_hid", "ünï", "50%")
ROLES = ("r", "q", "guest", "_hid", "root", "50%")
PATTERNS = ("/*", "/a", "/a*", "/a/*", "/a/b", "/%d", "/x/y*", "*")
KEYS = ("/", "", "/a", "/a/", "/ab", "/a/b", "/x/y", "/x/y/z", "/_h/k")
CALLERS = (
    "",
    ROOT,
    ROOT,
    ROOT,
    ROOT,
    ROOT,
    "root:wrong",
    "ann:p",
    "ann:q",
    "bob:p",
    "50%:p",
    "ünï:p",
    "nobody:p",
)


class Cluster(NamedTuple):
    kind: str
    processes: ProcessCluster

    @property
    def nodes(self) -> list[NodeProcess]:
        return self.processes.nodes


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with etcd_cluster(tmp_path_factory.mktemp("etcd")) as started:
        yield Cluster("etcd", started)


@pytest.fixture(scope="module", params=CLUSTERS)
def ours(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster_of(CLUSTERS[request.param], tmp_path_factory.mktemp("ours")) as started:
        yield Cluster(request.param, started)


@pytest.fixture(scope="module")
def heard(etcd: Cluster) -> dict[str, list[str]]:
    """What etcd answers to each of the sequences."""
    return {name: tell(etcd, name) for name in SEQUENCES}


class Through:
    """Asks one node at a time."""

    def __init__(self, node: NodeProcess) -> None:
        self.go_to(node)

    def go_to(self, node: NodeProcess) -> None:
        self._ask = ask_port(node.client_port)
        # Until it holds what others have answered with; as root, who may whether authentication is on or off.
        self(get("/v2/keys/no-such-key?quorum=true", ROOT))

    def __call__(self, asked: Ask) -> Answer:
        return self._ask(asked)


def empty(ask: Through) -> None:
    """Takes away what earlier tests have left; there is what is made before the first change, in any case."""
    ask(Ask("DELETE", "/v2/auth/enable", by=ROOT))
    for kind, field in (("users", "user"), ("roles", "role")):
        shown = [each[field] for each in ask(get(f"/v2/auth/{kind}")).json[kind] or ()]
        for name in {*shown, "_hid", "_hidden"}:
            ask(Ask("DELETE", f"/v2/auth/{kind}/{quote(name)}"))
    for node in ask(get("/v2/keys/")).json["node"].get("nodes", ()):
        ask(Ask("DELETE", f"/v2/keys{quote(node['key'])}?recursive=true"))
    ask(Ask("DELETE", "/v2/keys/_h?recursive=true"))
    assert ask(get("/v2/auth/enable")).json == {"enabled": False}
    assert ask(get("/v2/keys/")).json == {"action": "get", "node": {"dir": True}}


def tell(cluster: Cluster, name: str) -> list[str]:
    """What the cluster answers to a sequence, each part of it through another node."""
    rng = random.Random(name)
    ask = Through(cluster.nodes[0])
    empty(ask)
    teller = Teller(ask)
    answers = []
    for number, asked in enumerate(sequence(name)):
        if number % 20 == 0:
            ask.go_to(cluster.nodes[rng.randrange(3)])
        answers.append(teller.tell(asked))
    return answers


def sequence(name: str) -> list[Ask]:
    rng = random.Random(name)
    return [random_request(rng) for _ in range(SEQUENCES[name])]


def random_request(rng: random.Random) -> Ask:
    by = rng.choice(CALLERS)
    match rng.randrange(12):
        case 0 | 1:
            return random_user(rng, by)
        case 2:
            return random_role(rng, by)
        case 3:
            kind, name = random_name(rng)
            return Ask(rng.choice(["GET", "DELETE"]), f"/v2/auth/{kind}/{quote(name)}", by=by)
        case 4:
            return get(
                rng.choice(["/v2/auth/users", "/v2/auth/roles", "/v2/auth/enable", "/v2/members/x"]), by
            )
        case 5:
            return Ask(rng.choice(["PUT", "PUT", "DELETE"]), "/v2/auth/enable", by=by)
    key = "/v2/keys" + rng.choice(KEYS)
    match rng.randrange(8):
        case 0 | 1 | 2:
            query = rng.choice(
                ["?sorted=true", "?recursive=true&sorted=true", "?quorum=true&sorted=true", "?wait=x"]
            )
            return get(key + query, by)
        case 3:
            return Ask("HEAD", key, by=by)
        case 4:
            return Ask("DELETE", key + rng.choice(["", "?recursive=true", "?dir=true"]), by=by)
        case 5:
            return Ask("POST", key, f"value={rng.randrange(9)}", by)
    query = rng.choice(["", "?prevExist=false", "?recursive=true", "?prevValue=1", "?dir=true", "?ttl=x"])
    return Ask("PUT", key + query, f"value={rng.randrange(9)}", by)


def random_name(rng: random.Random) -> tuple[str, str]:
    kind = rng.choice(["users", "roles"])
    return kind, rng.choice((*USERS, "root") if kind == "users" else ROLES)


def random_user(rng: random.Random, by: str) -> Ask:
    fields: dict[str, object] = {}
    if rng.random() < 0.3:
        return user("root", by, password="secret")
    if rng.random() < 0.6:
        fields["password"] = rng.choice("pppq")
    for field in ("roles", "grant", "revoke"):
        if rng.random() < 0.3:
            fields[field] = rng.choices(ROLES, k=rng.randrange(3))
    return user(rng.choice(USERS), by, **fields)


def random_role(rng: random.Random, by: str) -> Ask:
    fields: dict[str, object] = {}
    for field in ("permissions", "grant", "revoke"):
        if rng.random() < 0.4:
            fields[field] = kv(*(rng.choice([None, rng.choices(PATTERNS, k=rng.randrange(3))]) for _ in "rw"))
    return role(rng.choice(ROLES), by, **fields)


def test_the_story_is_told_as_etcd_told_it(ours: Cluster) -> None:
    """The first test of this file, since its indexes are those of a cluster without users."""
    teller = Teller(ask_port(ours.nodes[0].client_port))
    for number, (asked, expected) in enumerate(zip(story(), told(), strict=True)):
        assert teller.tell(asked) == expected, f"{number}: {asked}"


def test_seeded_requests_get_the_same_answers_as_from_etcd(
    ours: Cluster, heard: dict[str, list[str]]
) -> None:
    name = "long" if ours.kind in THOROUGHLY else "short"
    told_by_us = tell(ours, name)
    for number, (asked, mine, theirs) in enumerate(zip(sequence(name), told_by_us, heard[name], strict=True)):
        assert mine == theirs, f"request {number} of {name}: {asked}"


def test_the_sequences_meet_all_that_may_be_answered(heard: dict[str, list[str]]) -> None:
    statuses = {answer[:3] for answers in heard.values() for answer in answers}
    assert {"200", "201", "400", "401", "403", "404", "409"} <= statuses


#: What an operator types; a second part is what is typed when asked for a password.
COMMANDS = [
    "user add root:secret", "user add root:secret", "user add ann|a", "user list", "user get root", "role add r",
    "role add r", "role grant r -path /x/* -readwrite", "role grant r -path /x/* -read", "role get r", "role list",
    "role get nope", "user grant ann -roles r", "user grant ann -roles r", "user get ann", "user get nope",
    "auth enable", "user list", "-u ann:a user list", "-u root:wrong user list", "-u root:secret user list",
    "-u root:secret auth enable", "-u ann:a set /x/1 v", "-u ann:a set /y v", "-u ann:a get /x/1",
    "-u ann:a ls --recursive /x", "-u ann:a ls --recursive /x/", "get /x/1", "set /y v",
    "-u root:secret role revoke guest -path /* -readwrite", "get /x/1", "set /y w", "-u root:secret get /y",
    "-u root:secret user passwd ann|b", "-u ann:a get /x/1", "-u ann:b get /x/1", "-u root:secret role remove r",
    "-u ann:b get /x/1", "-u root:secret user revoke ann -roles r", "-u root:secret user remove ann",
    "-u root:secret user remove root", "auth disable", "-u root:secret auth disable", "auth disable", "get /x/1",
    "user remove root", "role remove guest",
]  # fmt: skip


def etcdctl(node: NodeProcess, command: str) -> tuple[int, str, str]:
    words, _, typed = command.partition("|")
    url = f"http://127.0.0.1:{node.client_port}"
    ended = subprocess.run(
        [ETCDCTL, "--no-sync", "--endpoints", url, *words.split()],
        env={**os.environ, "ETCDCTL_API": "2"},
        input=typed + "\n",
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return ended.returncode, ended.stdout, ended.stderr.replace(url, "URL")


@pytest.fixture(scope="module")
def typed(etcd: Cluster) -> list[tuple[int, str, str]]:
    empty(Through(etcd.nodes[1]))
    return [etcdctl(etcd.nodes[1], command) for command in COMMANDS]


def test_etcdctl_says_what_it_says_of_etcd(ours: Cluster, typed: list[tuple[int, str, str]]) -> None:
    empty(Through(ours.nodes[1]))
    for command, expected in zip(COMMANDS, typed, strict=True):
        code, out, error = etcdctl(ours.nodes[1], command)
        # Indexes are in brackets at the end of its errors.
        assert (code, out, error.rpartition(" [")[0] or error) == (
            *expected[:2],
            expected[2].rpartition(" [")[0] or expected[2],
        ), command


def lock_up(nodes: Sequence[NodeProcess]) -> None:
    """Nobody but root may do anything, and every one of the nodes knows it: each guards by what it has applied."""
    ask = Through(nodes[0])
    empty(ask)
    for asked, status in (
        (user("root", password="secret"), 201),
        (Ask("PUT", "/v2/keys/a", "value=1"), 201),
        (Ask("PUT", "/v2/auth/enable"), 200),
        (Ask("DELETE", "/v2/auth/roles/guest", by=ROOT), 200),
    ):
        assert ask(asked).status == status, asked
    for node in nodes:
        Through(node)


def assert_locked(node: NodeProcess) -> None:
    end = time.monotonic() + 30
    ask = ask_port(node.client_port)
    assert ask(Ask("PUT", "/v2/keys/a", "value=2")).status == 401
    assert ask(get("/v2/keys/a?quorum=true")).status == 401
    assert ask(get("/v2/keys/a", "root:wrong")).status == 401
    assert ask(Ask("DELETE", "/v2/members/12")).status == 401
    assert ask(get("/v2/members")).status == 200
    while (answer := ask(get("/v2/keys/a?quorum=true", ROOT))).status == 500:
        assert time.monotonic() < end, answer  # a service that was started anew gets its state again first
        time.sleep(0.1)
    assert answer.json["node"]["value"] == "1"


def test_what_is_locked_stays_locked_when_nodes_are_killed(ours: Cluster) -> None:
    lock_up(ours.nodes)
    assert_locked(ours.nodes[2])
    for node in (ours.nodes[2], ours.processes.leader()):
        node.kill()
        node.start()
        ours.processes.wait_ready()
        assert_locked(node)
    for node in ours.nodes:
        node.kill()
    for node in ours.nodes:
        node.start()
    ours.processes.wait_ready()
    for node in ours.nodes:
        assert_locked(node)
    assert ask_port(ours.nodes[0].client_port)(Ask("DELETE", "/v2/auth/enable", by=ROOT)).status == 200


def test_members_that_come_behind_a_snapshot_are_locked(tmp_path: Path) -> None:
    nodes = [("v1.servlet", "hypercorn"), ("v2.reactive", "native"), ("v3.reactive", "granian")]
    with cluster_of(nodes, tmp_path, ["--snapshot-count", "20"]) as cluster:
        away = cluster.nodes[2]
        away.stop(signal.SIGTERM)
        ask = Through(cluster.nodes[1])
        lock_up(cluster.nodes[:2])
        for number in range(200):
            ask(Ask("PUT", f"/v2/keys/k{number % 7}", "value=1", ROOT))
        away.start()
        cluster.wait_ready()
        assert_locked(away)


@pytest.mark.parametrize("variant", ["v1.servlet", "v2.reactive"])
def test_driven_services_keep_users_and_their_nodes_guard_them(variant: str, tmp_path: Path) -> None:
    with driven_cluster_of(each_on_its_default(variant), tmp_path) as cluster:
        lock_up(cluster.nodes)
        for node in cluster.nodes:
            assert_locked(node)
        for process in (cluster.nodes[1], cluster.service_of(cluster.nodes[1])):
            process.kill()
            process.start()
            cluster.wait_ready()
            assert_locked(cluster.nodes[1])
