"""Who proposes that what has expired be removed, and when: the leader, once something is due."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from common_raft.drivers.standalone import StandaloneNode
from common_raft.drivers.standalone_threads import StandaloneThreadsNode
from common_raft.keyspace import (
    AsyncKeyspace,
    Command,
    EtcdError,
    Expire,
    HashMapStore,
    Keyspace,
    Put,
    Set,
    Update,
)
from common_raft.service.expiry import ExpiryThread, expire_keys, what_is_due
from common_raft.stores import PooledKeyspace
from common_raft.tests.stores_under_test import Awaited
from common_raft.tests.web_fakes import FakeFailure, FakeNode

SECOND = 10**9
NOW = 1_800_000_000 * SECOND


def node_with(*commands: Command) -> FakeNode:
    node = FakeNode(Keyspace(HashMapStore()))
    for command in commands:
        node.propose(command, lambda _: None)
    return node


def due(node: FakeNode, now: int = NOW) -> Expire | None:
    return what_is_due(node, node.keyspace, lambda: now)


def test_nothing_is_proposed_while_no_key_has_a_ttl() -> None:
    assert due(node_with(Set("/a", "x"))) is None


def test_the_leader_proposes_once_the_first_key_is_due_and_nobody_else_does() -> None:
    node = node_with(Put("/late", "x", NOW + SECOND), Put("/a", "x", NOW))
    assert due(node, NOW - 1) is None
    assert due(node) == Expire(NOW)
    node.leader = 0
    assert due(node) is None


def test_what_is_left_is_waited_for_anew() -> None:
    node = node_with(Put("/late", "x", NOW + SECOND), Put("/a", "x", NOW), Expire(NOW))
    assert due(node, NOW + SECOND - 1) is None
    assert due(node, NOW + SECOND) == Expire(NOW + SECOND)
    node.propose(Expire(NOW + SECOND), lambda _: None)
    assert due(node, NOW * 2) is None


def test_a_key_that_was_refreshed_costs_one_command_that_finds_nothing() -> None:
    node = node_with(Put("/a", "x", NOW), Put("/a", "", NOW + SECOND, refresh=True))
    assert due(node) == Expire(NOW)
    node.propose(Expire(NOW), lambda _: None)
    assert due(node) is None
    assert not isinstance(node.keyspace.get("/a"), EtcdError)


def test_a_keyspace_that_was_restored_may_hold_anything_until_that_is_found_out() -> None:
    node = node_with(Put("/a", "x", NOW + SECOND))
    other = node_with()
    other.keyspace.restore(filter(None, node.keyspace.snapshot()))
    assert due(other) == Expire(NOW)
    other.propose(Expire(NOW), lambda _: None)
    assert due(other) is None
    assert due(other, NOW + SECOND) == Expire(NOW + SECOND)


class Proposals(FakeNode):
    """Notes what is proposed; says when there was a second one."""

    def __init__(self, *, fails: bool) -> None:
        super().__init__(node_with(Put("/a", "x", NOW)).keyspace)
        self.failure = FakeFailure("no leader") if fails else None
        self.proposed: list[Command] = []
        self.twice = threading.Event()

    def propose(self, command: Command, done: Callable[[Any], None]) -> None:
        self.proposed.append(command)
        if len(self.proposed) == 2:
            self.twice.set()
        super().propose(command, done)


def test_on_a_loop_what_fails_is_proposed_again() -> None:
    async def whole() -> None:
        node = Proposals(fails=True)
        ticker = asyncio.get_running_loop().create_task(
            expire_keys(node, node.keyspace, interval=0.001, clock=lambda: NOW)
        )
        assert await asyncio.to_thread(node.twice.wait, 10)
        node.failure = None
        while node.keyspace.expires is not None:
            await asyncio.sleep(0.001)
        ticker.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ticker
        assert set(node.proposed) == {Expire(NOW)}
        assert isinstance(node.keyspace.get("/a"), EtcdError)

    asyncio.run(whole())


def test_on_a_loop_a_command_under_way_is_waited_for() -> None:
    async def whole() -> None:
        node = Proposals(fails=False)
        node.held = []
        ticker = asyncio.get_running_loop().create_task(
            expire_keys(node, node.keyspace, interval=0.001, clock=lambda: NOW)
        )
        while not node.held:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)
        assert len(node.proposed) == 1
        ticker.cancel()
        node.release()

    asyncio.run(whole())


def keyspaces() -> list[Any]:
    """Of each kind that a loop's node may have."""
    return [
        Keyspace(HashMapStore()),
        PooledKeyspace(Keyspace(HashMapStore())),
        AsyncKeyspace(Awaited(HashMapStore())),
    ]


@pytest.mark.parametrize("kind", range(3))
def test_a_node_on_a_loop_removes_what_has_expired_and_tells_watchers(kind: int) -> None:
    async def whole() -> None:
        keyspace = keyspaces()[kind]
        node: Any = StandaloneNode(1, "n", 1, keyspace, linearizable=True)
        loop = asyncio.get_running_loop()
        ticker = loop.create_task(expire_keys(node, keyspace, interval=0.001))
        gone: asyncio.Future[Any] = loop.create_future()
        keyspace.watchers.watch("/d/x", recursive=False, stream=False, since=2, notify=gone.set_result)
        for command in (
            Set("/d/x", "1"),
            Put("/d/t", "", time.time_ns() + 10**7),
            Put("/t", "", time.time_ns(), True),
        ):
            node.propose(command, lambda _: None)
        node.propose(Update("/d/x", "2", time.time_ns()), lambda _: None)
        assert (await asyncio.wait_for(gone, 10)).action in ("update", "expire")
        while keyspace.expires is not None:
            await asyncio.sleep(0.001)
        (event,) = await keyspace.get_many(["/d"]) if kind else keyspace.get_many(["/d"])
        assert (event.nodes, event.index) == ([], 7)
        ticker.cancel()
        await node.close()

    asyncio.run(whole())


def test_a_node_on_threads_removes_what_has_expired() -> None:
    keyspace = Keyspace(HashMapStore())
    node: Any = StandaloneThreadsNode(1, "n", 1, keyspace, linearizable=True)
    gone = threading.Event()
    keyspace.watchers.watch("/a", recursive=False, stream=False, since=2, notify=lambda _: gone.set())
    ticker = ExpiryThread(node, keyspace, interval=0.001)
    node.propose(Put("/a", "1", time.time_ns() + 10**7), lambda _: None)
    assert gone.wait(10)
    ticker.stop()
    assert isinstance(keyspace.get("/a"), EtcdError)


def test_a_thread_proposes_until_it_is_stopped() -> None:
    node = Proposals(fails=True)
    thread = ExpiryThread(node, node.keyspace, interval=0.001, clock=lambda: NOW)
    assert node.twice.wait(10)
    thread.stop()
    thread._thread.join(10)
    assert not thread._thread.is_alive()
    assert set(node.proposed) == {Expire(NOW)}
