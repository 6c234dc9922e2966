"""``ETCDCTL_API=2 etcdctl``, as operators and scripts use it."""

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from common_raft.testing.processes import HOST, ProcessCluster, free_ports
from common_raft.tests.services.variants import etcd_binary

pytestmark = pytest.mark.processes


class Etcdctl:
    def __init__(self, cluster: ProcessCluster) -> None:
        endpoints = ",".join(f"http://{HOST}:{node.client_port}" for node in cluster.nodes)
        self._command = [
            etcd_binary("etcdctl"),
            "--endpoints",
            endpoints,
            "--timeout",
            "10s",
            "--total-timeout",
            "30s",
        ]
        self._environment = {**os.environ, "ETCDCTL_API": "2"}

    def __call__(self, *arguments: str) -> str:
        """What it prints; raises Refused for a status other than 0."""
        done = subprocess.run(
            [*self._command, *arguments],
            env=self._environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        if done.returncode:
            raise Refused(f"{done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout.strip()

    @contextmanager
    def running(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """In the background, once its watch has had time to reach the node."""
        process = subprocess.Popen(
            [*self._command, *arguments],
            env=self._environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        try:
            time.sleep(1)
            yield process
        finally:
            process.kill()
            process.wait()


class Refused(Exception):
    pass


@pytest.fixture
def etcdctl(cluster: ProcessCluster) -> Etcdctl:
    return Etcdctl(cluster)


def test_set_get_update_and_rm(etcdctl: Etcdctl) -> None:
    assert etcdctl("set", "/a/b", "x y") == "x y"
    assert etcdctl("get", "/a/b") == "x y"
    assert etcdctl("update", "/a/b", "z") == "z"
    assert etcdctl("set", "--swap-with-value", "z", "/a/b", "w") == "w"
    with pytest.raises(Refused, match=r"101: Compare failed \(\[z != w\]\)"):
        etcdctl("set", "--swap-with-value", "z", "/a/b", "v")
    told = etcdctl("-o", "extended", "get", "/a/b")
    assert re.search(r"Key: /a/b\nCreated-Index: \d+\nModified-Index: \d+\nTTL: 0\nIndex: \d+\n\nw", told)
    assert json.loads(etcdctl("-o", "json", "get", "--quorum", "/a/b"))["node"]["value"] == "w"
    assert etcdctl("rm", "/a/b") == "PrevNode.Value: w"
    with pytest.raises(Refused, match="100: Key not found"):
        etcdctl("get", "/a/b")
    with pytest.raises(Refused, match="100: Key not found"):
        etcdctl("update", "/a/b", "z")


def test_mk_only_where_nothing_is(etcdctl: Etcdctl) -> None:
    assert etcdctl("mk", "/m", "x") == "x"
    with pytest.raises(Refused, match="105: Key already exists"):
        etcdctl("mk", "/m", "y")
    created = etcdctl("mk", "--in-order", "/order", "x")
    assert created == "x"
    assert re.fullmatch(r"/order/\d{20}", etcdctl("ls", "/order"))
    with pytest.raises(Refused, match="101: Compare failed"):
        etcdctl("rm", "--with-value", "y", "/m")
    assert etcdctl("rm", "--with-value", "x", "/m") == ""


def test_directories(etcdctl: Etcdctl) -> None:
    etcdctl("mkdir", "/d")
    with pytest.raises(Refused, match="105"):
        etcdctl("mkdir", "/d")
    etcdctl("setdir", "/e")
    with pytest.raises(Refused, match="102"):
        etcdctl("setdir", "/e")
    etcdctl("set", "/d/x/y", "v")
    etcdctl("mkdir", "/d/z")
    assert etcdctl("ls", "--sort", "/d").split() == ["/d/x", "/d/z"]
    assert etcdctl("ls", "--sort", "--recursive", "-p", "/d").split() == ["/d/x/", "/d/x/y", "/d/z/"]
    assert etcdctl("ls", "--sort", "/").split() == ["/d", "/e"]
    with pytest.raises(Refused, match="108: Directory not empty"):
        etcdctl("rmdir", "/d")
    assert etcdctl("rmdir", "/d/z") == ""
    with pytest.raises(Refused, match="102: Not a file"):
        etcdctl("rm", "/d")
    etcdctl("rm", "--dir", "/e")
    etcdctl("rm", "--recursive", "/d")
    assert etcdctl("ls") == ""


def test_updatedir_is_as_broken_as_it_is_with_etcd(etcdctl: Etcdctl) -> None:
    etcdctl("mkdir", "--ttl", "600", "/t")
    # etcd's client takes a 500 for a member without a leader.
    with pytest.raises(Refused, match="has no leader"):
        etcdctl("updatedir", "--ttl", "600", "/t")


def test_ttls(etcdctl: Etcdctl) -> None:
    etcdctl("set", "--ttl", "600", "/t", "x")
    told = etcdctl("-o", "extended", "get", "/t")
    assert 590 < int(re.search(r"TTL: (\d+)", told)[1]) <= 600  # type: ignore[index]
    etcdctl("mkdir", "--ttl", "1", "/td")
    etcdctl("mk", "--ttl", "1", "/tk", "x")
    deadline = time.monotonic() + 10
    while etcdctl("ls").split() != ["/t"]:
        assert time.monotonic() < deadline


def test_watch(etcdctl: Etcdctl) -> None:
    with etcdctl.running("watch", "/w") as watching:
        etcdctl("set", "/w", "first")
        assert watching.communicate(timeout=20)[0].strip() == "first"
    with etcdctl.running("watch", "--forever", "--recursive", "/r") as watching:
        assert watching.stdout is not None
        for number in range(3):
            etcdctl("set", f"/r/{number}", str(number))
        lines = [watching.stdout.readline().strip() for _ in range(6)]
        assert lines == ["[set] /r/0", "0", "[set] /r/1", "1", "[set] /r/2", "2"]
    index = json.loads(etcdctl("-o", "json", "get", "/r/1"))["node"]["modifiedIndex"]
    assert etcdctl("watch", "--recursive", "--after-index", str(index - 1), "/r").split() == [
        "[set]",
        "/r/1",
        "1",
    ]


def test_exec_watch_runs_a_program_for_each_change(etcdctl: Etcdctl) -> None:
    script = 'echo "$ETCD_WATCH_ACTION $ETCD_WATCH_KEY $ETCD_WATCH_VALUE"'
    with etcdctl.running("exec-watch", "--recursive", "/x", "--", "sh", "-c", script) as watching:
        assert watching.stdout is not None
        etcdctl("set", "/x/a", "v")
        assert watching.stdout.readline().strip() == "set /x/a v"
        etcdctl("rm", "/x/a")
        assert watching.stdout.readline().strip().startswith("delete /x/a")


def test_members_are_listed_added_and_removed(cluster: ProcessCluster, etcdctl: Etcdctl) -> None:
    leader = cluster.leader().name
    told = etcdctl("member", "list")
    for node in cluster.nodes:
        leads = str(node.name == leader).lower()
        urls = rf"peerURLs=http://{HOST}:\d+ clientURLs=http://{HOST}:{node.client_port}"
        assert re.search(rf"^[0-9a-f]+: name={node.name} {urls} isLeader={leads}$", told, re.M), told
    time.sleep(5)  # etcd wants its members connected for so long before it adds one
    [port] = free_ports(1)
    told = etcdctl("member", "add", "n4", f"http://{HOST}:{port}")
    match = re.search(r"Added member named n4 with ID ([0-9a-f]+) to cluster", told)
    assert match is not None, told
    assert f"n4=http://{HOST}:{port}" in told
    assert f"{match[1]}[unstarted]: peerURLs=http://{HOST}:{port}" in etcdctl("member", "list")
    assert "Removed member" in etcdctl("member", "remove", match[1])
    assert len(etcdctl("member", "list").split("\n")) == 3
    with pytest.raises(Refused, match="Couldn't find a member"):
        etcdctl("member", "remove", "1234")


def test_cluster_health(cluster: ProcessCluster, etcdctl: Etcdctl) -> None:
    told = etcdctl("cluster-health")
    assert told.count("is healthy: got healthy result from") == 3
    assert told.endswith("cluster is healthy")
    stopped = cluster.followers()[0]
    stopped.stop()
    with pytest.raises(Refused, match="cluster is degraded"):
        etcdctl("cluster-health")
