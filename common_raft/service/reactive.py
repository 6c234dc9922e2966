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
from common_raft.keyspace import AsyncKeyspace, Command, Keyspace, Result
from common_raft.keyspace.hashmap import HashMapStore
from common_raft.service.flags import LINEARIZABLE, Settings
from common_raft.service.parts import (
    PEER_FLAG,
    check_ports,
    driven_places,
    front,
    listening,
    node_failed,
    node_options,
    places,
    server_ended,
)
from common_raft.service.run import open_wal
from common_raft.web.api import Api
from common_raft.web.application import application
from common_raft.web.etcd_v2 import EtcdV2, Reader
from common_raft.web.servers import Running, Start

log = logging.getLogger("raftstacks")

Node = AsyncioNode[Command, Result] | StandaloneNode[Command, Result]


class State(NamedTuple):
    """What is replicated: how commands change it, and how clients read it."""

    machine: StateMachine[Command, Result] | AsyncStateMachine[Command, Result]
    reader: Reader
    idle_check: float | None = None  #: see NodeOptions


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
        part = await _start_part(settings, state, stack)
        server = await _start_server(variant, settings, part.api)
        stack.push_async_callback(server.close)
        log.info("%s: %s, server %s", variant.name, part.places, settings.server)
        ended = asyncio.get_running_loop().create_task(server.wait())
        ends: list[asyncio.Future[Any]] = [stop, part.failed, ended]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    if part.failed.done():
        raise node_failed(part.failed.result())
    if not stop.done():
        raise server_ended(settings.server, ended.exception())


class _Part(NamedTuple):
    """What this process is: a node that answers clients, or a service that a node drives."""

    api: Api
    failed: asyncio.Future[BaseException]
    places: str


async def _start_part(settings: Settings, state: State, stack: AsyncExitStack) -> _Part:
    if settings.listen_application_urls:
        assert isinstance(state.machine, Keyspace | AsyncKeyspace)
        never = asyncio.get_running_loop().create_future()
        return _Part(application(state.machine), never, driven_places(settings))
    node = await _start_node(settings, state, stack)
    return _Part(EtcdV2(node, state.reader), node.failed, places(settings, node))


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
        node = AsyncioNode(node_options(settings, state.idle_check), wal, state.machine)
    stack.push_async_callback(node.close)
    with listening(PEER_FLAG, settings.listen_peer_urls):
        await node.start()
    return node


async def _start_server(variant: ReactiveVariant, settings: Settings, api: Api) -> Running:
    at = front(settings)
    with listening(at.flag, at.urls):
        return await variant.servers[settings.server](at.addresses, api, at.limits)


def _stop_on_signals() -> asyncio.Task[Any]:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return loop.create_task(stop.wait())
