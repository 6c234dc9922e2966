"""Who asks whether authentication is on, where no client's write does."""

from __future__ import annotations

import asyncio
import threading

import pytest

from common_raft.service.settling import SettlingThread, settle
from common_raft.tests.web_fakes import BlockingFakeNode, FakeFailure, FakeNode
from common_raft.web.etcd_v2 import EtcdV2


def api_of(node: FakeNode) -> EtcdV2:
    return EtcdV2(node, node.keyspace)


def on_loop(api: EtcdV2, node: FakeNode) -> None:
    async def scenario() -> None:
        asking = asyncio.get_running_loop().create_task(settle(api, pause=0.001))
        await asyncio.sleep(0.02)
        node.failure = None
        async with asyncio.timeout(20):
            await asking

    asyncio.run(scenario())


def in_thread(api: EtcdV2, node: FakeNode) -> None:
    before = set(threading.enumerate())
    SettlingThread(api, pause=0.001)
    (asking,) = set(threading.enumerate()) - before
    asking.join(0.02)
    node.failure = None
    asking.join(20)
    assert not asking.is_alive()


@pytest.mark.parametrize(("run", "kind"), [(on_loop, FakeNode), (in_thread, BlockingFakeNode)])
def test_a_node_asks_until_the_cluster_answers_and_then_nothing_stands_before_requests(
    run: object, kind: type[FakeNode]
) -> None:
    node = kind()
    api = api_of(node)
    node.failure = FakeFailure("no leader")
    assert api.wants_authorization
    run(api, node)  # type: ignore[operator]
    assert not api.wants_authorization


def test_a_node_that_stops_asks_no_more() -> None:
    node = BlockingFakeNode()
    node.failure = FakeFailure("no leader")
    before = set(threading.enumerate())
    settling = SettlingThread(api_of(node), pause=60)
    (asking,) = set(threading.enumerate()) - before
    settling.stop()
    asking.join(20)
    assert not asking.is_alive()
