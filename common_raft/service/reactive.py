"""A service on an event loop: the log is opened, the node takes part, the HTTP server answers, a signal ends it."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import uvloop

from common_raft.drivers.asyncio import AsyncioNode
from common_raft.drivers.machine import AsyncStateMachine, StateMachine
from common_raft.drivers.standalone import StandaloneNode
from common_raft.keyspace import Command, Keyspace, Result
from common_raft.keyspace.hashmap import HashMapStore
from common_raft.service.expiry import Expiring, expire_keys
from common_raft.service.flags import LINEARIZABLE, Settings
from common_raft.service.parts import (
    IN_FLIGHT_SECONDS,
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
from common_raft.service.settling import settle
from common_raft.service.signals import on_signals
from common_raft.web.api import Api
from common_raft.web.application import AwaitedKeyspace, BlockingApplication, application
from common_raft.web.auth.passwords import LoopPasswords
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
        state.reader.watchers.clear_in(asyncio.get_running_loop().call_soon_threadsafe)
        part = await _start_part(settings, state, stack)
        ends: list[asyncio.Future[Any]] = [stop, part.failed]
        if await part.restored(ends):
            server = await _start_server(variant, settings, part.api)
            stack.push_async_callback(_stop_serving, server, part)
            stack.callback(state.reader.watchers.close)
            log.info("%s: %s, server %s", variant.name, part.places, settings.server)
            ends.append(asyncio.get_running_loop().create_task(server.wait()))
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if stop.done():
            log.info("%s: stopping", stop.result().name)
            await part.hand_over()
    if part.failed.done():
        raise node_failed(part.failed.result())
    if not stop.done():
        raise server_ended(settings.server, ends[-1].exception())


class _Part(NamedTuple):
    """What this process is: a node that answers clients, or a service that a node drives.

    ``raft``: the member of a cluster that others rely on.
    """

    api: Api
    failed: asyncio.Future[BaseException]
    places: str
    raft: AsyncioNode[Command, Result] | None = None

    async def restored(self, ends: Sequence[asyncio.Future[Any]]) -> bool:
        """Until clients would find what this node has had before it was stopped; false when one of ``ends`` comes."""
        if self.raft is None:
            return True
        restored = asyncio.get_running_loop().create_task(self.raft.restored())
        await asyncio.wait([restored, *ends], return_when=asyncio.FIRST_COMPLETED)
        restored.cancel()
        return not any(end.done() for end in ends)

    async def hand_over(self) -> None:
        """Clients are served meanwhile: whoever comes now has nobody better to ask."""
        if self.raft is not None:
            await self.raft.hand_over()


async def _stop_serving(server: Running, part: _Part) -> None:
    """Nobody new comes in; who is there is answered, in the end with an error, before the connection is closed."""
    closing = asyncio.get_running_loop().create_task(server.close())
    await asyncio.wait([closing], timeout=IN_FLIGHT_SECONDS)
    if part.raft is not None:
        part.raft.stop()
    await closing


async def _start_part(settings: Settings, state: State, stack: AsyncExitStack) -> _Part:
    if settings.listen_application_urls:
        never = asyncio.get_running_loop().create_future()
        keyspace = cast(Keyspace | AwaitedKeyspace, state.machine)  # every variant's machine is one
        driven = application(keyspace)
        if isinstance(driven, BlockingApplication):
            stack.callback(driven.close)
        else:
            stack.push_async_callback(driven.close)
        return _Part(driven, never, driven_places(settings))
    node = await _start_node(settings, state, stack)
    passwords = LoopPasswords()
    stack.callback(passwords.close)
    api = EtcdV2(node, state.reader, passwords)
    for duty in (expire_keys(node, cast(Expiring, state.machine)), settle(api)):
        stack.callback(asyncio.get_running_loop().create_task(duty).cancel)
    raft = node if isinstance(node, AsyncioNode) else None
    return _Part(api, node.failed, places(settings, node), raft)


async def _start_node(settings: Settings, state: State, stack: AsyncExitStack) -> Node:
    node: Node
    if settings.standalone:
        node = StandaloneNode(
            settings.cluster.own_id,
            settings.name,
            settings.cluster.id,
            state.machine,
            linearizable=settings.standalone == LINEARIZABLE,
            client_urls=[url.text for url in settings.advertise_client_urls],
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


def _stop_on_signals() -> asyncio.Future[signal.Signals]:
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[signal.Signals] = loop.create_future()

    def asked(number: signal.Signals) -> None:
        with suppress(RuntimeError):  # the loop is closed: the process is about to end
            loop.call_soon_threadsafe(stop.set_result, number)

    on_signals(asked)
    return stop
