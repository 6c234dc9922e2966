"""``python -m benchmarks.floor``: nodes that do what no replicated store on Python's fastest loop could leave out.

A GET is answered with constant bytes, a write with its key.  A write is in the log of a majority, synced, when it is
answered, and goes the way that it goes in v2.reactive: from a follower to the leader, from there to all in one entry,
which holds all that came while the entry before was under way.  Nothing is parsed, encoded, checksummed or kept; the
first node leads for good, and no message is expected to be lost.  What is between this and etcd is what can be gained
at all, and what is between this and v2.reactive is what its own code takes.

Needs caio and a Linux with io_uring.  It keeps nothing, so that a workload which checks what it reads finds errors.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import struct
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import uvloop

from benchmarks.bare import BACKLOG

try:
    from caio.linux_uring import Context, Operation
except ImportError:
    Context = Operation = None  # type: ignore[assignment, misc]

HEADER = struct.Struct("<IBQQ")  # length of what follows, and a Frame without it
BATCH, ENTRY, ACK, COMMIT = range(4)
LOG_BYTES = 64 << 20  # written round and round
#: Like etcd's, which tells its cluster, indexes and term in headers; shorter by the date and CORS.
HEADERS = b"X-Etcd-Cluster-Id: cdf818194e3a8c32\r\nX-Etcd-Index: 100\r\nX-Raft-Index: 100\r\nX-Raft-Term: 2"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n%b\r\nContent-Length: %d\r\n\r\n"
NODE = b'{"action":"%b","node":{"key":"%b","value":"1","modifiedIndex":100,"createdIndex":100}}\n'

#: Who waits for a write, and the answer.
Waiting = list[tuple[asyncio.Transport, bytes]]


def response(body: bytes) -> bytes:
    return HEAD % (HEADERS, len(body)) + body


def written(request: bytes) -> bytes:
    key = request[request.index(b"/v2/keys") + 8 : request.index(b" HTTP/")]
    return response(NODE % (b"delete" if request.startswith(b"DEL") else b"set", key))


def answer(waiting: Waiting) -> None:
    for client, text in waiting:
        if not client.is_closing():
            client.write(text)


READ = response(NODE % (b"get", b"/key"))
TOLD = {"/health": b'{"health":"true"}', "/version": b'{"etcdserver":"none","etcdcluster":"none"}'}


class Frame(NamedTuple):
    """``entry``: its index; ``seq``: up to which of the sender's or the receiver's batches it counts."""

    kind: int
    entry: int
    seq: int
    data: bytes


def uring() -> Context | None:
    """None where there is none: caio is not installed, or the kernel does not let us."""
    try:
        return None if Context is None else Context(1)
    except (OSError, SystemError):
        return None


class Log:
    """Has what `common_raft.storage` has of its own: nothing here imports what is measured.

    ``synced`` is called once all that was written before the last sync began is durable."""

    def __init__(self, file: Path, synced: Callable[[], None]) -> None:
        ring = uring()
        if ring is None:
            raise SystemExit("benchmarks.floor needs caio, and a Linux that allows io_uring")
        self._ring, self._synced = ring, synced
        self._result: int | None = None
        self._file = os.open(file, os.O_RDWR | os.O_CREAT)
        os.posix_fallocate(self._file, 0, LOG_BYTES)
        self._position = 0
        self._gathered: list[bytes] = []
        self.busy = False
        asyncio.get_running_loop().add_reader(ring.fileno, self._on_readable)

    def write(self, data: bytes) -> None:
        self._gathered.append(data)
        if not self.busy:
            self._sync()

    def _sync(self) -> None:
        data = b"".join(self._gathered)
        self._gathered.clear()
        if self._position + len(data) > LOG_BYTES:
            self._position = 0
        self._position += os.pwrite(self._file, data, self._position)
        self.busy = True
        operation = Operation.fdsync(self._file)
        operation.set_callback(self._end_sync)
        self._ring.submit(operation)
        self._ring.flush()

    def _end_sync(self, result: int) -> None:
        self._result = result

    def _on_readable(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it was readable for what was taken before
            self._ring.poll()
        self._ring.process_events()
        result, self._result = self._result, None
        if result is None:
            return
        if result < 0:
            raise SystemExit(f"benchmarks.floor: fdatasync failed: {os.strerror(-result)}")
        self.busy = False
        self._synced()
        if self._gathered:
            self._sync()


class Client(asyncio.Protocol):
    """One request at a time, each in one piece as wrk sends them, or the body after the headers as others do."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._headers = b""  # of a PUT whose body is on its way

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"GET /v2/keys/"):
            self._transport.write(READ)
        elif data.startswith(b"PUT ") and data.endswith(b"\r\n\r\n"):
            self._headers = data
        elif data.startswith(b"GET "):
            self._transport.write(self._node.tell(data.split(b" ", 2)[1].decode()))
        else:
            self._node.put(self._transport, self._headers + data)
            self._headers = b""


class Link(asyncio.Protocol):
    """To another node; ``matched`` and ``seq``: what is in its log, and how many of its batches have come."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._buffer = b""
        self.matched = self.seq = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._node.links.append(self)

    def connection_lost(self, _error: Exception | None) -> None:
        self._node.links.remove(self)

    def send(self, kind: int, entry: int, seq: int, data: bytes = b"") -> None:
        self._transport.write(HEADER.pack(len(data), kind, entry, seq) + data)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        start = 0
        while len(buffer) - start >= HEADER.size:
            length, kind, entry, seq = HEADER.unpack_from(buffer, start)
            end = start + HEADER.size + length
            if end > len(buffer):
                break
            self._node.take(self, Frame(kind, entry, seq, buffer[start + HEADER.size : end]))
            start = end
        self._buffer = buffer[start:]


class Node:
    """Writes of clients gather in ``waiting`` until the end of the loop's turn, and longer where `turn` says so."""

    def __init__(self, file: Path, size: int) -> None:
        self.log = Log(file, self.synced)
        self.majority = size // 2 + 1
        self.links: list[Link] = []
        self.waiting: Waiting = []
        self.gathered: list[bytes] = []
        self._turn_is_due = False

    def put(self, client: asyncio.Transport, data: bytes) -> None:
        self.waiting.append((client, written(data)))
        self.gathered.append(data)
        self.schedule()

    def schedule(self) -> None:
        if not self._turn_is_due:
            self._turn_is_due = True
            asyncio.get_running_loop().call_soon(self._run_turn)

    def _run_turn(self) -> None:
        self._turn_is_due = False
        self.turn()

    def taken(self) -> tuple[Waiting, bytes]:
        taken = self.waiting, b"".join(self.gathered)
        self.waiting, self.gathered = [], []
        return taken

    @property
    def serves(self) -> bool:
        return len(self.links) >= self.majority - 1

    def tell(self, path: str) -> bytes:
        if path == "/health" and not self.serves:
            return b'HTTP/1.1 503 Service Unavailable\r\nContent-Length: 18\r\n\r\n{"health":"false"}'
        return response(TOLD.get(path, b"{}"))

    def turn(self) -> None:
        raise NotImplementedError

    def synced(self) -> None:
        raise NotImplementedError

    def take(self, link: Link, frame: Frame) -> None:
        raise NotImplementedError


class Leader(Node):
    """Has one entry under way: ``index``, and who waits for it here and elsewhere."""

    def __init__(self, file: Path, size: int) -> None:
        super().__init__(file, size)
        self.index = self.committed = self.durable = 0
        self._own: Waiting = []
        self._others: list[tuple[Link, int]] = []  # and up to which of its batches
        self._seqs: dict[Link, int] = {}  # the same, committed

    def take(self, link: Link, frame: Frame) -> None:
        if frame.kind == ACK:
            link.matched = frame.entry
            self._advance()
        else:
            link.seq = frame.seq
            self.gathered.append(frame.data)
            self.schedule()

    def synced(self) -> None:
        self.durable = self.index
        self._advance()
        self.turn()

    def turn(self) -> None:
        if self.gathered and self.committed == self.index and not self.log.busy:
            self._propose()

    def _propose(self) -> None:
        self.index += 1
        self._own, data = self.taken()
        self._others = [(link, link.seq) for link in self.links]
        for link in self.links:
            link.send(ENTRY, self.index, self._seqs.get(link, 0), data)
        self.log.write(data)

    def _advance(self) -> None:
        have = sum([link.matched == self.index for link in self.links]) + (self.durable == self.index)
        if self.committed == self.index or have < self.majority:
            return
        self.committed = self.index
        self._seqs = dict(self._others)
        own = self._own
        if self.gathered and not self.log.busy:
            self._propose()  # which tells of the commit as well
        else:
            for link, seq in self._others:
                link.send(COMMIT, self.index, seq)
        answer(own)


class Follower(Node):
    def __init__(self, file: Path, size: int) -> None:
        super().__init__(file, size)
        self._sent: deque[tuple[int, Waiting]] = deque()
        self._seq = self._last = self._written = 0

    def turn(self) -> None:
        if self.gathered and not self.log.busy and self.links:
            self._seq += 1
            clients, data = self.taken()
            self._sent.append((self._seq, clients))
            self.links[0].send(BATCH, 0, self._seq, data)

    def synced(self) -> None:
        self.links[0].send(ACK, self._written, 0)
        self._written = self._last  # what the next sync, if any, begins with
        self.turn()

    def take(self, _link: Link, frame: Frame) -> None:
        if frame.kind == ENTRY:
            self._last = frame.entry
            if not self.log.busy:
                self._written = frame.entry
            self.log.write(frame.data)
        while self._sent and self._sent[0][0] <= frame.seq:
            answer(self._sent.popleft()[1])


async def serve(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    members = dict(each.split("=", 1) for each in options.initial_cluster.split(","))
    leads = options.name == next(iter(members))
    directory = Path(options.data_dir)
    directory.mkdir(parents=True, exist_ok=True)
    node = (Leader if leads else Follower)(directory / "floor.log", len(members))
    if leads:
        await loop.create_server(lambda: Link(node), *place(options.listen_peer_urls))
    else:
        await _connect(node, next(iter(members.values())))
    clients = place(options.listen_client_urls)
    server = await loop.create_server(lambda: Client(node), *clients, backlog=BACKLOG)
    gc.collect()
    gc.freeze()
    await server.serve_forever()


def place(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "127.0.0.1", parts.port or 2380


async def _connect(node: Node, leader: str) -> None:
    while True:
        try:
            await asyncio.get_running_loop().create_connection(lambda: Link(node), *place(leader))
            return
        except ConnectionError:
            await asyncio.sleep(0.05)


USED = ("--name", "--data-dir", "--listen-client-urls", "--listen-peer-urls", "--initial-cluster")
NOT_USED = (
    "--advertise-client-urls",
    "--initial-advertise-peer-urls",
    "--initial-cluster-state",
    "--initial-cluster-token",
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.floor", description=__doc__)
    for flag in USED:
        parser.add_argument(flag, required=True)
    for flag in NOT_USED:
        parser.add_argument(flag, help="as the services have it; not used")
    try:
        uvloop.run(serve(parser.parse_args()))
    except KeyboardInterrupt:
        sys.exit(0)


if __name__ == "__main__":
    main()
