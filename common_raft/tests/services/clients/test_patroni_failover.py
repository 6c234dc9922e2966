"""Patroni itself, with two PostgreSQL servers and a store of three nodes: who leads, and who follows, survives.

Minutes for each store, and so only ``tox -e patroni`` runs it; ``tox -e patroni -- -k v2.reactive`` one of them.
"""

from __future__ import annotations

import re
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from common_raft.testing.postgresql import programs
from common_raft.testing.processes import HOST, NodeProcess, ProcessCluster
from common_raft.tests.services.clients.patroni_pair import Member, Pair
from common_raft.tests.services.variants import SYSTEMS, system_of

# `processes` keeps these tests out where others say "not processes".
pytestmark = [pytest.mark.patroni, pytest.mark.processes, pytest.mark.timeout(600)]

README = Path(__file__).parents[4] / "README.md"


@pytest.fixture(scope="module", params=SYSTEMS)
def store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProcessCluster]:
    if programs() is None:
        pytest.skip("no PostgreSQL is installed: apt-get install postgresql")
    with system_of(request.param, tmp_path_factory.mktemp("store")) as started:
        yield started


@pytest.fixture(scope="module")
def started(store: ProcessCluster) -> Iterator[Pair]:
    with Pair(section_of_the_readme([node.client_port for node in store.nodes])) as pair:
        with pair.primary().connect() as connection:
            connection.execute("create table rows (number int primary key)")
        yield pair


@pytest.fixture
def pair(store: ProcessCluster, started: Pair) -> Pair:
    """Both members are there and agree, and so are all nodes of the store."""
    for node in store.nodes:
        if not node.running:
            node.start()
    store.wait_ready()
    started.settled()
    return started


def section_of_the_readme(ports: list[int]) -> dict[str, Any]:
    """Patroni's ``etcd:`` section as the README has it, with these ports in place of its own."""
    found = re.search(r"^    etcd:\n(?:     .*\n)+", README.read_text(), re.MULTILINE)
    assert found is not None
    section: dict[str, Any] = yaml.safe_load(textwrap.dedent(found[0]))["etcd"]
    assert len(section["hosts"]) == len(ports)
    return {**section, "hosts": [f"{HOST}:{port}" for port in ports]}


class Writer:
    """Inserts one row after another, until it is told to stop or cannot: ``acknowledged`` are those that count."""

    def __init__(self, member: Member) -> None:
        self.acknowledged: list[int] = []
        self._member = member
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._write)

    def __enter__(self) -> Writer:
        [(self._next,)] = self._member.ask("select coalesce(max(number), 0) + 1 from rows")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _write(self) -> None:
        try:
            with self._member.connect() as connection:
                while not self._stopping.wait(0.005):
                    connection.execute("insert into rows values (%s)", [self._next])
                    self.acknowledged.append(self._next)
                    self._next += 1
        except psycopg.Error:
            pass  # it was killed


def rows(member: Member) -> set[int]:
    return {number for (number,) in member.ask("select number from rows")}


def in_recovery(member: Member) -> bool:
    return bool(member.ask("select pg_is_in_recovery()")[0][0])


def timeline(member: Member) -> int:
    return int(member.ask("select timeline_id from pg_control_checkpoint()")[0][0])


def lease(node: NodeProcess) -> int:
    """The index at which the primary last said that it lives."""
    return int(node.ask("GET", "/v2/keys/service/pair/leader?quorum=true").json["node"]["modifiedIndex"])


def test_the_store_holds_what_patroni_says(store: ProcessCluster, pair: Pair) -> None:
    primary = pair.primary()
    keys = {
        node["key"].rpartition("/")[2]: node
        for node in store.nodes[0]
        .ask("GET", "/v2/keys/service/pair?recursive=true&quorum=true")
        .json["node"]["nodes"]
    }
    assert keys["leader"]["value"] == primary.name
    assert {node["key"].rpartition("/")[2] for node in keys["members"]["nodes"]} == {"first", "second"}
    assert {"initialize", "config", "status", "sync"} <= keys.keys()
    assert pair.listed() == {primary.name: "Leader", pair.other(primary).name: "Sync Standby"}


def test_a_switchover_is_done_when_it_is_asked_for(pair: Pair) -> None:
    primary = pair.primary()
    heir = pair.other(primary)
    pair.patronictl("switchover", "pair", "--leader", primary.name, "--candidate", heir.name, "--force")
    pair.until(lambda: pair.settled() is heir)
    assert (in_recovery(heir), in_recovery(primary)) == (False, True)


def test_the_primary_stays_when_the_stores_leader_is_killed(store: ProcessCluster, pair: Pair) -> None:
    primary = pair.primary()
    before = timeline(primary)
    with Writer(primary) as writer:
        store.leader().kill()
        asked = store.leader()
        kept = lease(asked)
        pair.until(lambda: lease(asked) > kept)  # by Patroni, through another node
        so_far = len(writer.acknowledged)
        pair.until(lambda: len(writer.acknowledged) > so_far + 100)
    assert pair.settled() is primary
    assert timeline(primary) == before
    assert rows(primary) >= set(writer.acknowledged)


def test_a_killed_primary_is_replaced_loses_nothing_and_comes_back_as_a_replica(pair: Pair) -> None:
    killed = pair.primary()
    heir = pair.other(killed)
    with Writer(killed) as writer:
        pair.until(lambda: len(writer.acknowledged) >= 100)
        killed.kill()
    pair.until(lambda: heir.is_("primary"))
    assert not in_recovery(heir)
    assert rows(heir) >= set(writer.acknowledged)
    with Writer(heir) as later:
        pair.until(lambda: len(later.acknowledged) >= 10)
    killed.start()
    assert pair.settled() is heir
    assert in_recovery(killed)
    pair.until(lambda: rows(killed) == rows(heir))
    assert rows(killed) >= {*writer.acknowledged, *later.acknowledged}
    assert pair.listed() == {heir.name: "Leader", killed.name: "Sync Standby"}
