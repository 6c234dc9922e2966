"""A service on threads: the log is opened, the node takes part, the HTTP server answers, a signal ends it."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import NamedTuple, cast

from common_raft.drivers.machine import StateMachine
from common_raft.drivers.standalone_threads import StandaloneThreadsNode
from common_raft.drivers.threads import ThreadsNode
from common_raft.keyspace import Command, Keyspace, Result
from common_raft.keyspace.hashmap import HashMapStore
from common_raft.service.expiry import Expiring, ExpiryThread
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
from common_raft.service.run import ServiceStopped, open_wal
from common_raft.service.settling import SettlingThread
from common_raft.service.signals import on_signals
from common_raft.web.api import Api
from common_raft.web.application import BlockingApplication
from common_raft.web.auth.passwords import BlockingPasswords
from common_raft.web.etcd_v2 import EtcdV2, Reader
from common_raft.web.flask_servers import Running, Start

log = logging.getLogger("raftstacks")

#: How often a start that takes long looks whether it should end.
LOOK_SECONDS = 0.1

Node = ThreadsNode[Command, Result] | StandaloneThreadsNode[Command, Result]
#: What ends a service.
_Ends = SimpleQueue[ServiceStopped | signal.Signals]


class State(NamedTuple):
    """What is replicated: how commands change it, and how clients read it, each in its request's thread."""

    machine: StateMachine[Command, Result]
    reader: Reader


@contextmanager
def hash_map(_settings: Settings) -> Iterator[State]:
    """A state in memory that needs neither opening nor closing."""
    keyspace = Keyspace(HashMapStore())
    yield State(keyspace, keyspace)


@dataclass(frozen=True, slots=True)
class ServletVariant:
    """A service on threads.  The first of ``servers`` is the default."""

    name: str
    servers: Mapping[str, Start]
    open_state: Callable[[Settings], AbstractContextManager[State]]
    takes_database: bool = False

    def serve(self, settings: Settings) -> None:
        """Until a signal ends it.  Raises ServiceStopped and what `service.main` says in one line.

        Belongs to the main thread, before there are others (see `on_signals`).
        """
        ends: _Ends = SimpleQueue()
        on_signals(ends.put)
        check_ports(settings)
        with ExitStack() as stack:
            state = stack.enter_context(self.open_state(settings))
            part = _start_part(settings, state, ends, stack)
            if part.restored(ends):
                server = self._start_server(settings, part.api)
                stack.callback(_stop_serving, server, part)
                stack.callback(state.reader.watchers.close)
                _watch(server, settings.server, ends)
                log.info("%s: %s, server %s", self.name, part.places, settings.server)
            ended_by = ends.get()
            if isinstance(ended_by, signal.Signals):
                log.info("%s: stopping", ended_by.name)
                part.hand_over()
        if isinstance(ended_by, ServiceStopped):
            raise ended_by

    def _start_server(self, settings: Settings, api: Api) -> Running:
        at = front(settings)
        with listening(at.flag, at.urls):
            return self.servers[settings.server](at.addresses, api, at.limits)


class _Part(NamedTuple):
    """What this process is: a node that answers clients, or a service that a node drives.

    ``raft``: the member of a cluster that others rely on.
    """

    api: Api
    places: str
    raft: ThreadsNode[Command, Result] | None = None

    def restored(self, ends: _Ends) -> bool:
        """Waits until clients would find what this node has had before it was stopped; false when an end comes."""
        while self.raft is not None and ends.empty():
            if self.raft.restored(LOOK_SECONDS):
                break
        return ends.empty()

    def hand_over(self) -> None:
        """Clients are served meanwhile: whoever comes now has nobody better to ask."""
        if self.raft is not None:
            self.raft.hand_over()


def _stop_serving(server: Running, part: _Part) -> None:
    """Nobody new comes in; who is there is answered, in the end with an error, before the connection is closed."""
    closing = threading.Thread(target=server.close, name="http-close")
    closing.start()
    closing.join(IN_FLIGHT_SECONDS)
    if part.raft is not None:
        part.raft.stop()
    closing.join()


def _start_part(settings: Settings, state: State, ends: _Ends, stack: ExitStack) -> _Part:
    if settings.listen_application_urls:
        assert isinstance(state.machine, Keyspace)
        driven = BlockingApplication(state.machine)
        stack.callback(driven.close)
        return _Part(driven, driven_places(settings))
    node = _start_node(settings, state, stack)
    node.failed.add_done_callback(lambda failed: ends.put(node_failed(failed.result())))
    api = EtcdV2(node, state.reader, BlockingPasswords())
    for duty in (ExpiryThread(node, cast(Expiring, state.machine)), SettlingThread(api)):
        stack.callback(duty.stop)
    raft = node if isinstance(node, ThreadsNode) else None
    return _Part(api, places(settings, node), raft)


def _start_node(settings: Settings, state: State, stack: ExitStack) -> Node:
    node: Node
    if settings.standalone:
        node = StandaloneThreadsNode(
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
        node = ThreadsNode(node_options(settings), wal, state.machine)
    stack.callback(node.close)
    with listening(PEER_FLAG, settings.listen_peer_urls):
        node.start()
    return node


def _watch(server: Running, name: str, ends: _Ends) -> None:
    """Sees to it that a server which ends by itself ends the service."""

    def wait() -> None:
        error: BaseException | None = None
        try:
            server.wait()
        except BaseException as ended_by:
            error = ended_by
        ends.put(server_ended(name, error))

    threading.Thread(target=wait, name="http-watch", daemon=True).start()
