"""How much a front lets its clients take, and the addresses it listens on."""

import socket
from collections.abc import Sequence

from msgspec import Struct

Address = tuple[str, int]


class Limits(Struct, frozen=True, kw_only=True):
    """Bytes, counts and seconds. Where Go's server has a limit, ours is the same unless told otherwise."""

    header_bytes: int = 1 << 20  # net/http's DefaultMaxHeaderBytes
    body_bytes: int = 1536 << 10  # etcd's --max-request-bytes
    connections: int = 16_384  # each costs some 10 KiB here and a socket in the kernel
    #: Requests that are worked on at a time, where each has a thread; others wait for their turn.  Every thread that
    #: waits for the interpreter looks 200 times a second whether it is free: a thousand of them do nothing else.
    threads: int = 128
    #: Streams at a time, where each may have a thread.  Those wait for events, and not for the interpreter.
    streams: int = 512
    #: Requests of one connection that are read before their turn.  What a client sends beyond it waits in the
    #: kernel: to parse many of thousands of connections takes longer than Raft's heartbeats may be late.
    pipelined: int = 8
    idle: float = 300.0  # without a request; etcd keeps such connections for ever
    request: float = 30.0  # from a request's first byte to its last
    write: float = 30.0  # for a client to take any of the bytes that wait for it
    backlog: int = 4096  # as Go's, which takes the kernel's limit


class ListenError(OSError):
    """An address that cannot be listened on; the text names it and says why."""


def bind(listen: Sequence[Address], backlog: int) -> list[socket.socket]:
    """Listening sockets, one or more for each address. Raises ListenError, with nothing left open."""
    sockets: list[socket.socket] = []
    try:
        for host, port in listen:
            sockets += _bind_one(host, port, backlog)
    except ListenError:
        for opened in sockets:
            opened.close()
        raise
    return sockets


def _bind_one(host: str, port: int, backlog: int) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in dict.fromkeys(found):
            opened = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(opened)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            opened.bind(address)
            opened.listen(backlog)
            opened.setblocking(False)
    except OSError as error:
        for opened in sockets:
            opened.close()
        reason = error.strerror or str(error)
        raise ListenError(f"cannot listen on {host}:{port}: {reason}") from error
    return sockets
