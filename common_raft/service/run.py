"""One process: the log is opened, the node takes part, the HTTP server answers, a signal ends it."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import uvloop

from common_raft.core import RaftError
from common_raft.drivers.asyncio import AsyncioNode, NodeOptions
from common_raft.keyspace import Keyspace
from common_raft.keyspace.store import Store
from common_raft.service.cluster import FlagError, Url
from common_raft.service.flags import Settings, parse_flags
from common_raft.storage import StorageError, Wal
from common_raft.web.etcd_v2 import EtcdV2
from common_raft.web.limits import Limits, bind
from common_raft.web.servers import Running, Start

log = logging.getLogger("raftstacks")
T = TypeVar("T")


class ServiceStopped(Exception):
    """The node or its server ended by itself; it must be restarted, or replaced."""


@dataclass(frozen=True, slots=True)
class Variant:
    """What makes one service differ from the others.  The first server is the default."""

    name: str
    make_store: Callable[[], Store]
    servers: Mapping[str, Start]


def main(variant: Variant) -> None:
    """Runs a variant until a signal ends it; exits with status 1 and one line on anything that cannot be."""
    try:
        settings = parse_flags(variant.name, list(variant.servers), sys.argv[1:], os.environ)
        logging.basicConfig(
            level=settings.log_level,
            format=f"%(asctime)s %(levelname)s {settings.name} %(message)s",
            stream=sys.stderr,
        )
        _raise_file_limit()
        uvloop.run(_serve(variant, settings))
    except (FlagError, StorageError, RaftError, ServiceStopped, OSError) as error:
        sys.exit(f"{variant.name}: {_one_line(error)}")


async def _serve(variant: Variant, settings: Settings) -> None:
    stop = _stop_on_signals()
    await _check_ports(settings)
    wal = _open_wal(settings)
    keyspace = Keyspace(variant.make_store())
    node: AsyncioNode[Any, Any] = AsyncioNode(_node_options(settings), wal, keyspace)
    server: Running | None = None
    try:
        await _listening(node.start(), "listen-peer-urls", settings.listen_peer_urls)
        api = EtcdV2(node, keyspace)
        addresses = [url.address for url in settings.listen_client_urls]
        limits = Limits(body_bytes=settings.max_request_bytes)
        start = variant.servers[settings.server](addresses, api, limits)
        server = await _listening(start, "listen-client-urls", settings.listen_client_urls)
        log.info(
            "%s: member %x of cluster %x, server %s, answers clients at %s, peers at %s",
            variant.name,
            node.id,
            node.cluster_id,
            settings.server,
            ", ".join(url.text for url in settings.listen_client_urls),
            ", ".join(url.text for url in settings.listen_peer_urls),
        )
        ended = asyncio.get_running_loop().create_task(server.wait())
        ends: list[asyncio.Future[Any]] = [stop, node.failed, ended]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        if server is not None:
            await server.close()
        await node.close()
        wal.close()
    if node.failed.done():
        raise ServiceStopped(f"stopped: {_one_line(node.failed.result())}")
    if not stop.done():
        raise ServiceStopped(
            f"stopped: server {settings.server} ended: {ended.exception() or 'nobody told it to'}"
        )


def _open_wal(settings: Settings) -> Wal:
    if not settings.fsync:
        log.warning(
            "--unsafe-no-fsync: a crash of this machine will lose acknowledged writes, or the cluster's log"
        )
    wal = Wal.open(
        settings.data_dir,
        cluster_id=settings.cluster.id,
        node_id=settings.cluster.own_id,
        fsync=settings.fsync,
    )
    if wal.recovered.torn is not None:
        log.warning("%s", wal.recovered.torn)
    return wal


def _node_options(settings: Settings) -> NodeOptions:
    return NodeOptions(
        id=settings.cluster.own_id,
        name=settings.name,
        cluster_id=settings.cluster.id,
        listen=[url.address for url in settings.listen_peer_urls],
        peers=settings.cluster.peers,
        heartbeat_interval=settings.heartbeat_interval,
        election_timeout=settings.election_timeout,
    )


async def _check_ports(settings: Settings) -> None:
    """Finds out about a port in use before anything is written."""
    listeners: list[socket.socket] = []
    try:
        for flag, urls in (
            ("listen-peer-urls", settings.listen_peer_urls),
            ("listen-client-urls", settings.listen_client_urls),
        ):
            listeners += await _listening(_bind(urls), flag, urls)
    finally:
        for listener in listeners:
            listener.close()


async def _bind(urls: Sequence[Url]) -> list[socket.socket]:
    return bind([url.address for url in urls], backlog=1)


async def _listening(starting: Awaitable[T], flag: str, urls: Sequence[Url]) -> T:
    """Awaits a start; what keeps it from listening is said with the flag to change."""
    try:
        return await starting
    except OSError as error:
        where = ", ".join(url.text for url in urls)
        raise FlagError(f"--{flag} {where}: {error}") from None


def _stop_on_signals() -> asyncio.Task[Any]:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return loop.create_task(stop.wait())


def _raise_file_limit() -> None:
    """Each client holds a file descriptor; the soft limit is often 1024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
