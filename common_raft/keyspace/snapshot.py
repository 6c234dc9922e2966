"""A keyspace as a stream of bytes: the same bytes, whatever store it is in and is put into.

A stream is a row of chunks, each a letter and MessagePack behind it, of ``CHUNK_SIZE`` bytes or little more:

    H  [format version, etcd index, applied index]      first
    N  [node ...]      a node is [key, value or nil, modified index, created index, is a directory, expiration or nil]
    R  [node ...]      the same with key and value as binary: for a chunk in which some are not UTF-8
    V  [event ...]     an event is [action, node, previous node or nil, is a refresh, when it was applied]
    W  [event ...]     the same with keys and values as binary
    E  [number of nodes, number of events]              last

Events are those of the last changes (``history``), in their order.  Format 1 has none, and does not say how many; it
is read as well.

Nodes come in the order of their keys' ``rank``, which is that of their bytes for all but very long keys.  Where one
chunk ends and the next begins depends on the nodes alone.  Whether all chunks have arrived as they were sent is for
whoever carries them to find out; that some are missing at the end, or in between, shows here as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from common_raft.keyspace.node import Event, Node, to_bytes, to_text
from common_raft.keyspace.store import AsyncView, View

FORMAT_VERSION = 2

#: Of keys and values, in characters; a chunk with larger ones is larger.
CHUNK_SIZE = 128 << 10
#: What a node counts beyond its key and its value.
_OVERHEAD = 32

_encode = msgspec.msgpack.Encoder().encode
_Integers = msgspec.msgpack.Decoder(list[int])
_Nodes = msgspec.msgpack.Decoder(list[Node])
_RawNode = tuple[bytes, bytes | None, int, int, bool, int | None]
_RawNodes = msgspec.msgpack.Decoder(list[_RawNode])
_Events = msgspec.msgpack.Decoder(list[tuple[str, Node, Node | None, bool, int]])
_RawEvents = msgspec.msgpack.Decoder(list[tuple[str, _RawNode, _RawNode | None, bool, int]])


class BadSnapshot(ValueError):
    """What was to be restored is not a keyspace's snapshot, or not all of it: one line for the operator."""


class ChunkEncoder:
    """Makes chunks: of nodes first, and then of events."""

    __slots__ = ("_events", "_nodes", "_number_of_events", "_number_of_nodes", "_size")

    def __init__(self) -> None:
        self._nodes: list[Node] = []
        self._events: list[Event] = []
        self._size = 0
        self._number_of_nodes = self._number_of_events = 0

    def begin(self, index: int, applied: int) -> bytes:
        return b"H" + _encode([FORMAT_VERSION, index, applied])

    def add(self, nodes: Sequence[Node]) -> list[bytes]:
        """The chunks that are full now."""
        full = []
        for node in nodes:
            self._nodes.append(node)
            self._size += _size_of(node)
            if self._size >= CHUNK_SIZE:
                full += self._flush()
        return full

    def add_events(self, events: Sequence[Event]) -> list[bytes]:
        """The chunks that are full now; after all nodes."""
        full = self._flush() if self._nodes else []
        for event in events:
            self._events.append(event)
            self._size += _size_of(event.node) + (0 if event.prev_node is None else _size_of(event.prev_node))
            if self._size >= CHUNK_SIZE:
                full += self._flush()
        return full

    def end(self) -> list[bytes]:
        """The last chunks."""
        return [*self._flush(), b"E" + _encode([self._number_of_nodes, self._number_of_events])]

    def _flush(self) -> list[bytes]:
        nodes, events, self._nodes, self._events, self._size = self._nodes, self._events, [], [], 0
        self._number_of_nodes += len(nodes)
        self._number_of_events += len(events)
        chunks = []
        if nodes:
            try:
                chunks.append(b"N" + _encode(nodes))
            except UnicodeEncodeError:
                chunks.append(b"R" + _encode([_to_raw(node) for node in nodes]))
        if events:
            kept = [(each.action, each.node, each.prev_node, each.refresh, each.seen) for each in events]
            try:
                chunks.append(b"V" + _encode(kept))
            except UnicodeEncodeError:
                chunks.append(b"W" + _encode([_event_to_raw(event) for event in events]))
        return chunks


class ChunkDecoder:
    """Reads chunks, in their order.  Raises BadSnapshot for anything else."""

    __slots__ = ("_count", "_ended", "_version", "history")

    def __init__(self) -> None:
        self.history: list[Event] = []  #: the events so far
        self._version = FORMAT_VERSION
        self._count = 0
        self._ended = False

    def begin(self, chunk: bytes) -> tuple[int, int]:
        """The etcd index and the applied index, from the first chunk."""
        version, *marks = self._integers(chunk, b"H")
        if not 1 <= version <= FORMAT_VERSION:
            raise BadSnapshot(
                f"a snapshot of format {version}, and this version reads formats 1 to {FORMAT_VERSION}"
            )
        self._version = version
        if len(marks) != 2 or min(marks) < 0:
            raise BadSnapshot("the first chunk of the snapshot is not one")
        return marks[0], marks[1]

    def nodes(self, chunk: bytes) -> list[Node]:
        """The nodes in a further chunk; none in one of events, which go to ``history``, and none in the last."""
        kind = chunk[:1]
        if self._ended:
            raise BadSnapshot("the snapshot goes on behind its end")
        if kind == b"E":
            self._check_end(chunk)
            return []
        if kind in _OF_EVENTS:
            self.history += events_in(chunk)
            return []
        try:
            nodes = _Nodes.decode(chunk[1:]) if kind == b"N" else self._raw(chunk)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise BadSnapshot(f"a chunk of the snapshot cannot be read: {error}") from error
        self._count += len(nodes)
        for node in nodes:
            if node.created_index == node.modified_index:
                # One number in memory, as where a key was just made.
                msgspec.structs.force_setattr(node, "created_index", node.modified_index)
        return nodes

    def _check_end(self, chunk: bytes) -> None:
        nodes, *more = self._integers(chunk, b"E")
        if len(more) != self._version - 1:
            raise BadSnapshot("the last chunk of the snapshot is not one")
        if nodes != self._count:
            raise BadSnapshot(f"the snapshot should hold {nodes} nodes, and {self._count} came")
        if more and more[0] != len(self.history):
            raise BadSnapshot(f"the snapshot should hold {more[0]} events, and {len(self.history)} came")
        self._ended = True

    def end(self) -> None:
        """All chunks have come."""
        if not self._ended:
            raise BadSnapshot(f"the snapshot ends after {self._count} nodes, before its end")

    def _raw(self, chunk: bytes) -> list[Node]:
        if chunk[:1] != b"R":
            raise BadSnapshot(f"a chunk of unknown kind {chunk[:1]!r} in the snapshot")
        return [_from_raw(*fields) for fields in _RawNodes.decode(chunk[1:])]

    def _integers(self, chunk: bytes, kind: bytes) -> list[int]:
        try:
            numbers = _Integers.decode(chunk[1:])
        except msgspec.MsgspecError:
            numbers = []
        if chunk[:1] != kind or not numbers:
            raise BadSnapshot("what was to be restored does not begin, or end, as a snapshot does")
        return numbers


_OF_EVENTS = frozenset((b"V", b"W"))


def events_in(chunk: bytes) -> list[Event]:
    """The events in a chunk that holds events; none in any other.  Raises BadSnapshot."""
    try:
        if chunk[:1] == b"V":
            return [_event(*fields) for fields in _Events.decode(chunk[1:])]
        if chunk[:1] == b"W":
            return [_event_from_raw(*fields) for fields in _RawEvents.decode(chunk[1:])]
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadSnapshot(f"a chunk of the snapshot cannot be read: {error}") from error
    return []


class _Taking:
    """What blocking and asynchronous snapshots share.  ``index`` and ``applied`` are the keyspace's in it."""

    __slots__ = ("_encoder", "_history", "_ready", "applied", "index")

    def __init__(self, index: int, seen: int, applied: int | None, history: Sequence[Event]) -> None:
        self.index = index
        self.applied = seen if applied is None else applied
        if self.applied < seen:
            raise ValueError(f"a snapshot of entry {applied} of a keyspace that is at {seen} already")
        self._encoder = ChunkEncoder()
        self._history = history
        self._ready = [self._encoder.begin(self.index, self.applied)]

    def _last_chunks(self) -> list[bytes]:
        return [*self._encoder.add_events(self._history), *self._encoder.end()]


class Snapshot(_Taking):
    """A keyspace as it was when this was made, as chunks: an iterator.

    Each step does little, so that it may run in an event loop's turn or beside one; chunks may be empty, for work
    that has nothing to show yet.  Its steps may be taken in another thread.  Closed at its end, or by ``close``.
    Raises StoreUnavailable.
    """

    __slots__ = ("_view",)

    def __init__(self, view: View, applied: int | None, history: Sequence[Event] = ()) -> None:
        self._view: View | None = view
        try:
            super().__init__(view.index, view.applied, applied, history)
        except BaseException:
            view.close()
            raise

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._ready:
            return self._ready.pop(0)
        if self._view is None:
            raise StopIteration
        page = next(self._view, None)
        if page is None:
            self._ready = self._last_chunks()
            self.close()
        else:
            self._ready = self._encoder.add(page)
        return self._ready.pop(0) if self._ready else b""

    def close(self) -> None:
        """Lets go of the view; closing twice is fine."""
        if self._view is not None:
            self._view.close()
            self._view = None

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncSnapshot(_Taking):
    """`Snapshot` of an asynchronous store."""

    __slots__ = ("_view",)

    def __init__(self, view: AsyncView, applied: int | None, history: Sequence[Event] = ()) -> None:
        self._view: AsyncView | None = view
        try:
            super().__init__(view.index, view.applied, applied, history)
        except BaseException:
            view.close()
            raise

    def __aiter__(self) -> AsyncSnapshot:
        return self

    async def __anext__(self) -> bytes:
        if self._ready:
            return self._ready.pop(0)
        if self._view is None:
            raise StopAsyncIteration
        page = await self._view.next()
        if page is None:
            self._ready = self._last_chunks()
            self.close()
        else:
            self._ready = self._encoder.add(page)
        return self._ready.pop(0) if self._ready else b""

    def close(self) -> None:
        """Lets go of the view; closing twice is fine."""
        if self._view is not None:
            self._view.close()
            self._view = None

    async def __aenter__(self) -> AsyncSnapshot:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


def _to_raw(node: Node) -> list[Any]:
    key, value, *rest = msgspec.structs.astuple(node)
    return [to_bytes(key), None if value is None else to_bytes(value), *rest]


def _size_of(node: Node) -> int:
    return len(node.key) + len(node.value or "") + _OVERHEAD


def _event(action: str, node: Node, previous: Node | None, refresh: bool, seen: int) -> Event:
    return Event(action, node, previous, node.modified_index, None, refresh, seen)


def _event_to_raw(event: Event) -> list[Any]:
    previous = None if event.prev_node is None else _to_raw(event.prev_node)
    return [event.action, _to_raw(event.node), previous, event.refresh, event.seen]


def _event_from_raw(
    action: str, node: _RawNode, previous: _RawNode | None, refresh: bool, seen: int
) -> Event:
    return _event(action, _from_raw(*node), None if previous is None else _from_raw(*previous), refresh, seen)


def _from_raw(key: bytes, value: bytes | None, *rest: Any) -> Node:
    return Node(to_text(key), None if value is None else to_text(value), *rest)
