"""Services on a database of their own: restarts, a database that is away, databases that are somebody else's."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from common_raft.testing.postgresql import PostgresServer, programs
from common_raft.testing.processes import HOST, NodeProcess, ProcessCluster, free_ports

pytestmark = pytest.mark.processes
QUICK = ["--heartbeat-interval", "20", "--election-timeout", "200"]
VARIANTS = ["v1.servlet", "v1.reactive", "v3.reactive"]


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> list[str]:
    return [sys.executable, "-m", request.param]


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    if programs() is None:
        pytest.skip("no PostgreSQL is installed: apt-get install postgresql")
    with PostgresServer() as server:
        yield server


def on_files(variant: list[str], directory: Path, size: int = 3) -> ProcessCluster:
    cluster = ProcessCluster(variant, directory, size=size, flags=QUICK)
    for node in cluster.nodes:
        node.add_flags("--database-url", f"sqlite:///{directory / node.name}.db")
    return cluster


class Counter(threading.Thread):
    """PUTs to a key of its own, through one node after another; counts what was answered."""

    def __init__(self, cluster: ProcessCluster, key: str) -> None:
        super().__init__()
        self.cluster, self.key = cluster, key
        self.indexes: list[int] = []
        self.attempts = 0
        self.stopping = threading.Event()

    def run(self) -> None:
        while not self.stopping.is_set():
            node = self.cluster.nodes[self.attempts % len(self.cluster.nodes)]
            self.attempts += 1
            try:
                answer = node.ask("PUT", f"/v2/keys/{self.key}", {"value": self.attempts}, timeout=10)
            except OSError:
                continue
            if answer.status in (200, 201):
                self.indexes.append(answer.json["node"]["modifiedIndex"])

    def finish(self) -> None:
        self.stopping.set()
        self.join(60)
        assert not self.is_alive()


def counters(cluster: ProcessCluster) -> list[Counter]:
    started = [Counter(cluster, f"k{number}") for number in range(6)]
    for each in started:
        each.start()
    return started


def check_exactly_once(cluster: ProcessCluster, done: list[Counter]) -> None:
    """No index was given twice, none is missing at any node, and the nodes hold the same."""
    for each in done:
        each.finish()
    cluster.wait_ready()
    answered = [index for each in done for index in each.indexes]
    assert len(answered) == len(set(answered)) > 20
    final = cluster.nodes[0].ask("PUT", "/v2/keys/last", {"value": "x"}).json["node"]["modifiedIndex"]
    # Every write changes a key, so the index counts them: those answered, and perhaps those that were not.
    assert len(answered) < final <= sum(each.attempts for each in done) + 1
    states = [state(node, [*(each.key for each in done), "last"]) for node in cluster.nodes]
    assert states == [states[0]] * len(states)
    assert states[0]["last"] == ("x", final)


def state(node: NodeProcess, keys: list[str]) -> dict[str, tuple[str, int]]:
    answers = {key: node.ask("GET", f"/v2/keys/{key}?quorum=true").json["node"] for key in keys}
    return {key: (found["value"], found["modifiedIndex"]) for key, found in answers.items()}


def test_nodes_that_are_killed_and_started_again_apply_each_write_exactly_once(
    variant: list[str], tmp_path: Path
) -> None:
    with on_files(variant, tmp_path) as cluster:
        load = counters(cluster)
        for victim in [cluster.leader(), *cluster.followers()]:
            time.sleep(0.5)
            victim.kill()
            time.sleep(0.3)
            victim.start()
        time.sleep(0.5)
        for node in cluster.nodes:
            node.send_signal(signal.SIGKILL)
        for node in cluster.nodes:
            node.kill()
            node.start()
        cluster.wait_ready()
        time.sleep(0.5)
        check_exactly_once(cluster, load)


def test_a_database_that_is_behind_its_log_catches_up_from_it(variant: list[str], tmp_path: Path) -> None:
    with on_files(variant, tmp_path, size=1) as cluster:
        [node] = cluster.nodes
        for number in range(10):
            node.ask("PUT", f"/v2/keys/k{number}", {"value": number})
        assert node.stop() == 0
        shutil.copytree(tmp_path, tmp_path.parent / "copy", dirs_exist_ok=True)
        node.start()
        cluster.wait_ready()
        for number in range(5):
            node.ask("PUT", f"/v2/keys/k{number}", {"value": "newer"})
        assert node.stop() == 0
        for file in tmp_path.glob("n1.db*"):
            file.unlink()
        for file in (tmp_path.parent / "copy").glob("n1.db*"):
            shutil.copy(file, tmp_path)
        node.start()
        cluster.wait_ready()
        found = state(node, ["k0", "k4", "k5", "k9"])
        assert found == {"k0": ("newer", 11), "k4": ("newer", 15), "k5": ("5", 6), "k9": ("9", 10)}


def test_a_database_that_is_away_for_a_while_loses_nothing_and_repeats_nothing(
    variant: list[str], tmp_path: Path, postgres: PostgresServer
) -> None:
    cluster = ProcessCluster(variant, tmp_path, flags=QUICK)
    on_postgres, *others = cluster.nodes
    on_postgres.add_flags("--database-url", postgres.new_database())
    with cluster:
        load = counters(cluster)
        for end in (postgres.stop, postgres.kill):
            time.sleep(0.7)
            end()
            wait_until_unhealthy(on_postgres)
            assert others[0].ask("GET", "/health").status == 200
            assert on_postgres.ask("GET", "/v2/keys/k0").status == 500
            assert on_postgres.running
            postgres.start()
            cluster.wait_ready()
        on_postgres.kill()
        on_postgres.start()
        cluster.wait_ready()
        check_exactly_once(cluster, load)


def wait_until_unhealthy(node: NodeProcess) -> None:
    """Until it says why.  A check that began just before the database went away ends only with its time-out."""
    deadline = time.monotonic() + 20
    while (answer := node.ask("GET", "/health")).status == 200 or "QGET" in answer.json["reason"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert (answer.status, answer.json["health"]) == (503, "false")
    assert "the database is away" in answer.json["reason"]


def ended(variant: list[str], *flags: str) -> str:
    """The last line of a service that ends by itself, with status 1."""
    done = subprocess.run([*variant, *flags], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


def alone(directory: Path, url: str, **more: str) -> list[str]:
    """Flags of a node that is a cluster by itself."""
    client, peer = (f"http://{HOST}:{port}" for port in free_ports(2))
    flags = {
        "data-dir": str(directory),
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"default={peer}",
        "database-url": url,
    } | more
    return [part for name, text in flags.items() for part in (f"--{name}", text)]


def test_another_members_database_and_one_without_its_log_are_refused_and_left_alone(
    variant: list[str], tmp_path: Path
) -> None:
    with on_files(variant, tmp_path, size=2) as cluster:
        cluster.nodes[0].ask("PUT", "/v2/keys/k", {"value": "v"})
        for node in cluster.nodes:
            assert node.stop() == 0
        before = dump(tmp_path / "n1.db")
        first, second = cluster.nodes
        second.add_flags("--database-url", f"sqlite:///{tmp_path / 'n1.db'}")
        second.start()
        assert second.stop_by_itself() == 1
        assert "--database-url: the database belongs to" in second.log.read_text().splitlines()[-1]
        first.add_flags("--data-dir", str(tmp_path / "new"))
        first.start()
        assert first.stop_by_itself() == 1
        assert f"but --data-dir {tmp_path / 'new'} has no log" in first.log.read_text().splitlines()[-1]
        assert not (tmp_path / "new").exists()
        assert dump(tmp_path / "n1.db") == before


def test_a_database_that_is_ahead_of_its_log_is_refused(variant: list[str], tmp_path: Path) -> None:
    with on_files(variant, tmp_path, size=1) as cluster:
        [node] = cluster.nodes
        node.ask("PUT", "/v2/keys/k", {"value": "v"})
        node.stop()
        older = tmp_path.parent / "older"
        shutil.copytree(tmp_path / "data", older, dirs_exist_ok=True)
        node.start()
        cluster.wait_ready()
        for number in range(3):
            node.ask("PUT", "/v2/keys/k", {"value": number})
        node.stop()
        before = dump(tmp_path / "n1.db")
        shutil.rmtree(tmp_path / "data")
        shutil.copytree(older, tmp_path / "data")
        node.start()
        assert node.stop_by_itself() == 1
        assert "the state machine has applied entry" in node.log.read_text().splitlines()[-1]
        assert dump(tmp_path / "n1.db") == before


def dump(file: Path) -> list[str]:
    with closing(sqlite3.connect(file)) as connection:
        return list(connection.iterdump())


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense", "--database-url: 'nonsense' is no URL"),
        ("mysql://h/x", "only sqlite and postgresql are"),
        ("postgresql://me:secret@127.0.0.1:1/x", "--database-url: the database is away: "),
        (
            "sqlite:////no/such/folder/x.db",
            "--database-url: the database is away: unable to open database file",
        ),
    ],
)
def test_a_database_that_cannot_be(variant: list[str], tmp_path: Path, url: str, said: str) -> None:
    line = ended(variant, *alone(tmp_path / "data", url))
    assert said in line
    assert "secret" not in line
    assert not (tmp_path / "data").exists()


def test_a_standalone_service_keeps_its_database_and_a_member_does_not_take_it(
    variant: list[str], tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/alone.db"
    [port] = free_ports(1)
    client = f"http://{HOST}:{port}"
    command = [*variant, "--standalone", "linearizable", "--listen-client-urls", client]
    node = NodeProcess("alone", [*command, "--advertise-client-urls", client], port, tmp_path / "log")
    node.add_flags("--database-url", url)
    for number in (1, 2):
        node.start()
        try:
            while not node.knows_leader():
                assert node.alive_or_raise()
                time.sleep(0.05)
            answer = node.ask("PUT", "/v2/keys/k", {"value": number})
            assert answer.json["node"]["modifiedIndex"] == number
        finally:
            node.kill()
    said = ended(variant, *alone(tmp_path / "data", url))
    assert "the database belongs to member default of cluster standalone" in said
