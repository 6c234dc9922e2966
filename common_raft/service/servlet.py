"""A service on threads: the log is opened, the node takes part, the HTTP server answers, a signal ends it."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import NamedTuple

from common_raft.drivers.machine import StateMachine
from common_raft.drivers.standalone_threads import StandaloneThreadsNode
from common_raft.drivers.threads import ThreadsNode
from common_raft.keyspace import Command, Keyspace, Result
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
from common_raft.service.run import ServiceStopped, open_wal
from common_raft.web.api import Api
from common_raft.web.application import application
from common_raft.web.etcd_v2 import EtcdV2, Reader
from common_raft.web.flask_servers import Running, Start

log = logging.getLogger("raftstacks")

Node = ThreadsNode[Command, Result] | StandaloneThreadsNode[Command, Result]
#: What ends a service: None for a signal.
_Ends = SimpleQueue[ServiceStopped | None]


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

        Belongs to the main thread, since only that one gets signals.
        """
        ends: _Ends = SimpleQueue()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: ends.put(None))
        check_ports(settings)
        with ExitStack() as stack:
            state = stack.enter_context(self.open_state(settings))
            api, where = _start_part(settings, state, ends, stack)
            server = self._start_server(settings, api)
            stack.callback(server.close)
            _watch(server, settings.server, ends)
            log.info("%s: %s, server %s", self.name, where, settings.server)
            stopped = ends.get()
        if stopped is not None:
            raise stopped

    def _start_server(self, settings: Settings, api: Api) -> Running:
        at = front(settings)
        with listening(at.flag, at.urls):
            return self.servers[settings.server](at.addresses, api, at.limits)


def _start_part(settings: Settings, state: State, ends: _Ends, stack: ExitStack) -> tuple[Api, str]:
    """What this process serves, and where it is: a node for clients, or a service that a node drives."""
    if settings.listen_application_urls:
        assert isinstance(state.machine, Keyspace)
        return application(state.machine), driven_places(settings)
    node = _start_node(settings, state, stack)
    node.failed.add_done_callback(lambda failed: ends.put(node_failed(failed.result())))
    return EtcdV2(node, state.reader), places(settings, node)


def _start_node(settings: Settings, state: State, stack: ExitStack) -> Node:
    node: Node
    if settings.standalone:
        node = StandaloneThreadsNode(
            settings.cluster.own_id,
            settings.name,
            settings.cluster.id,
            state.machine,
            linearizable=settings.standalone == LINEARIZABLE,
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
