"""What services have in common, whatever they run on: checks, and the words for what happens to them."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol

from common_raft.drivers.membership import MemberRemoved
from common_raft.drivers.options import NodeOptions
from common_raft.service.cluster import FlagError, Url
from common_raft.service.flags import Settings
from common_raft.service.run import ServiceEnded, ServiceStopped, one_line
from common_raft.web.application_wire import MAX_BODY_BYTES
from common_raft.web.limits import Address, Limits, bind

CLIENT_FLAG = "listen-client-urls"
APPLICATION_FLAG = "listen-application-urls"
PEER_FLAG = "listen-peer-urls"

#: Seconds that requests get to be answered after nobody new is let in; then who waits for the cluster gets an error.
#: Less than what any of the servers leaves them before it closes their connections.
IN_FLIGHT_SECONDS = 1.5


class Identity(Protocol):
    """A node, as far as its ids go."""

    @property
    def id(self) -> int: ...
    @property
    def cluster_id(self) -> int: ...


def node_options(settings: Settings, idle_check: float | None = None) -> NodeOptions:
    return NodeOptions(
        id=settings.cluster.own_id,
        name=settings.name,
        cluster_id=settings.cluster.id,
        listen=[url.address for url in settings.listen_peer_urls],
        peers=settings.cluster.peers,
        heartbeat_interval=settings.heartbeat_interval,
        election_timeout=settings.election_timeout,
        idle_check=idle_check,
        snapshot_count=settings.snapshot_count,
        max_snapshots=settings.max_snapshots,
        client_urls=tuple(url.text for url in settings.advertise_client_urls),
        members=settings.cluster.table,
        strict_reconfig_check=settings.strict_reconfig_check,
        lease_reads=settings.lease_reads,
    )


class Front(NamedTuple):
    """Where HTTP is served, and how much a request may hold."""

    flag: str
    urls: Sequence[Url]
    limits: Limits

    @property
    def addresses(self) -> list[Address]:
        return [url.address for url in self.urls]


def front(settings: Settings) -> Front:
    if settings.listen_application_urls:
        return Front(APPLICATION_FLAG, settings.listen_application_urls, Limits(body_bytes=MAX_BODY_BYTES))
    limits = Limits(body_bytes=settings.max_request_bytes)
    return Front(CLIENT_FLAG, settings.listen_client_urls, limits)


def check_ports(settings: Settings) -> None:
    """Finds out about a port in use before anything is written.  Raises FlagError."""
    listeners: list[socket.socket] = []
    flag, urls, _ = front(settings)
    flags = {flag: urls}
    if not settings.standalone and not settings.listen_application_urls:
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


def driven_places(settings: Settings) -> str:
    """Where a service is driven."""
    return "driven by a Raft node at " + ", ".join(url.text for url in settings.listen_application_urls)


def node_failed(error: BaseException) -> ServiceStopped:
    if isinstance(error, MemberRemoved):
        return ServiceEnded(f"stopped: {error}")
    return ServiceStopped(f"stopped: {one_line(error)}")


def server_ended(server: str, error: BaseException | None) -> ServiceStopped:
    return ServiceStopped(f"stopped: server {server} ended: {error or 'nobody told it to'}")
