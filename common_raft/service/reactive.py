"""A service on an event loop: the log is opened, the node takes part, the HTTP server answers, a signal ends it."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import uvloop

from common_raft.drivers.asyncio import AsyncioNode
from common_raft.drivers.machine import AsyncStateMachine, StateMachine
from common_raft.drivers.standalone import StandaloneNode
from common_raft.keyspace import Command, Keyspace, Result
from common_raft.keyspace.hashmap import HashMapStore
from common_raft.service.flags import LINEARIZABLE, Settings
from common_raft.service.parts import (
    CLIENT_FLAG,
    PEER_FLAG,
    check_ports,
    listening,
    node_failed,
    node_options,
    places,
    server_ended,
)
from common_raft.service.run import open_wal
from common_raft.web.etcd_v2 import EtcdV2, Reader
from common_raft.web.limits import Limits
from common_raft.web.servers import Running, Start

log = logging.getLogger("raftstacks")

Node = AsyncioNode[Command, Result] | StandaloneNode[Command, Result]


class State(NamedTuple):
    """What is replicated: how commands change it, and how clients read it."""

    machine: StateMachine[Command, Result] | AsyncStateMachine[Command, Result]
    reader: Reader


@asynccontextmanager
async def hash_map(_settings: Settings) -> Any:
    """A state in memory that needs neither opening nor closing."""
    keyspace = Keyspace(HashMapStore())
    yield State(keyspace, keyspace)


@dataclass(frozen=True, slots=True)
class ReactiveVariant:
    """A service on asyncio.  The first of ``servers`` is the default."""

    name: str
    servers: Mapping[str, Start]
    open_state: Callable[[Settings], AbstractAsyncContextManager[State]]
    takes_database: bool = False

    def serve(self, settings: Settings) -> None:
        """Until a signal ends it.  Raises ServiceStopped and what `service.main` says in one line."""
        uvloop.run(_serve(self, settings))


async def _serve(variant: ReactiveVariant, settings: Settings) -> None:
    stop = _stop_on_signals()
    check_ports(settings)
    async with AsyncExitStack() as stack:
        state = await stack.enter_async_context(variant.open_state(settings))
        node = await _start_node(settings, state, stack)
        api = EtcdV2(node, state.reader)
        server = await _start_server(variant, settings, api)
        stack.push_async_callback(server.close)
        log.info("%s: %s, server %s", variant.name, places(settings, node), settings.server)
        ended = asyncio.get_running_loop().create_task(server.wait())
        ends: list[asyncio.Future[Any]] = [stop, node.failed, ended]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    if node.failed.done():
        raise node_failed(node.failed.result())
    if not stop.done():
        raise server_ended(settings.server, ended.exception())


async def _start_node(settings: Settings, state: State, stack: AsyncExitStack) -> Node:
    node: Node
    if settings.standalone:
        node = StandaloneNode(
            settings.cluster.own_id,
            settings.name,
            settings.cluster.id,
            state.machine,
            linearizable=settings.standalone == LINEARIZABLE,
        )
    else:
        wal = open_wal(settings, state.machine.applied)
        stack.callback(wal.close)
        node = AsyncioNode(node_options(settings), wal, state.machine)
    stack.push_async_callback(node.close)
    with listening(PEER_FLAG, settings.listen_peer_urls):
        await node.start()
    return node


async def _start_server(variant: ReactiveVariant, settings: Settings, api: EtcdV2) -> Running:
    addresses = [url.address for url in settings.listen_client_urls]
    limits = Limits(body_bytes=settings.max_request_bytes)
    with listening(CLIENT_FLAG, settings.listen_client_urls):
        return await variant.servers[settings.server](addresses, api, limits)


def _stop_on_signals() -> asyncio.Task[Any]:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return loop.create_task(stop.wait())
