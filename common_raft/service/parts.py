"""What services have in common, whatever they run on: checks, and the words for what happens to them."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from common_raft.drivers.options import NodeOptions
from common_raft.service.cluster import FlagError, Url
from common_raft.service.flags import Settings
from common_raft.service.run import ServiceStopped, one_line
from common_raft.web.limits import bind

CLIENT_FLAG = "listen-client-urls"
PEER_FLAG = "listen-peer-urls"


class Identity(Protocol):
    """A node, as far as its ids go."""

    @property
    def id(self) -> int: ...
    @property
    def cluster_id(self) -> int: ...


def node_options(settings: Settings) -> NodeOptions:
    return NodeOptions(
        id=settings.cluster.own_id,
        name=settings.name,
        cluster_id=settings.cluster.id,
        listen=[url.address for url in settings.listen_peer_urls],
        peers=settings.cluster.peers,
        heartbeat_interval=settings.heartbeat_interval,
        election_timeout=settings.election_timeout,
    )


def check_ports(settings: Settings) -> None:
    """Finds out about a port in use before anything is written.  Raises FlagError."""
    listeners: list[socket.socket] = []
    flags = {CLIENT_FLAG: settings.listen_client_urls}
    if not settings.standalone:
        flags[PEER_FLAG] = settings.listen_peer_urls
    try:
        for flag, urls in flags.items():
            with listening(flag, urls):
                listeners += bind([url.address for url in urls], backlog=1)
    finally:
        for listener in listeners:
            listener.close()


@contextmanager
def listening(flag: str, urls: Sequence[Url]) -> Iterator[None]:
    """Around a start: what keeps it from listening is said with the flag to change.  Raises FlagError."""
    try:
        yield
    except OSError as error:
        where = ", ".join(url.text for url in urls)
        raise FlagError(f"--{flag} {where}: {error}") from None


def places(settings: Settings, node: Identity) -> str:
    """Who a node is, and where it is reached."""
    clients = ", ".join(url.text for url in settings.listen_client_urls)
    if settings.standalone:
        return f"standalone ({settings.standalone}), answers clients at {clients}"
    peers = ", ".join(url.text for url in settings.listen_peer_urls)
    return (
        f"member {node.id:x} of cluster {node.cluster_id:x}, answers clients at {clients}, peers at {peers}"
    )


def node_failed(error: BaseException) -> ServiceStopped:
    return ServiceStopped(f"stopped: {one_line(error)}")


def server_ended(server: str, error: BaseException | None) -> ServiceStopped:
    return ServiceStopped(f"stopped: server {server} ended: {error or 'nobody told it to'}")
