"""What a Raft node and the service that it drives say to each other, as bytes: msgpack, all messages as arrays.

Fields may be added at a message's end, with a default.  Keys and values that are not UTF-8 go as in the log's batches
(``keyspace.commands``): the byte 0xC1, then the same message with all text as binary.  ``Apply`` has no such text.
"""

from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from common_raft.keyspace import Code, EtcdError, Event, Query, Result, StoreStats

T = TypeVar("T")

APPLY = "/application/apply"
READ = "/application/read"
SNAPSHOT = "/application/snapshot"
RESTORE = "/application/restore"
MARKS = "/application/marks"
CONTENT_TYPE = "application/msgpack"
#: The largest request that a service takes.  A node sends one entry, what fits into a few MiB, or one chunk of a
#: snapshot, which is at most 64 MiB (``storage.snapshots``).
MAX_BODY_BYTES = 65 << 20

_RAW = b"\xc1"
_encoder = msgspec.msgpack.Encoder()


class Marks(Struct, array_like=True, frozen=True, gc=False):
    """Where a service is. ``instance`` is another at each of its starts."""

    instance: str
    index: int  #: the etcd index
    applied: int  #: the Raft index of the last entry that it was given
    expires: int | None = None  #: no key expires before this (nanoseconds since 1970); None: none has a ttl


class Apply(Struct, array_like=True, frozen=True, gc=False):
    """Committed batches, each with whether its results are wanted: those behind entry ``after``, up to ``applied``.

    The service of ``instance`` must be at ``after``; else nothing is done, and the answer (409) is its ``Marks``.
    A node that does not know the instance yet leaves it empty. ``cluster`` and ``node`` are the sender's ids.
    ``events``: it has watchers to tell, and wants to know all that is changed.
    """

    cluster: int
    node: int
    instance: str
    after: int
    applied: int
    batches: list[tuple[bytes, bool]]
    events: bool = False


class Read(Struct, array_like=True, frozen=True, gc=False):
    """Keys to read from the service of that instance; from another, which may know less, the answer is 409."""

    instance: str
    keys: list[str | Query]


class TakePiece(Struct, array_like=True, frozen=True, gc=False):
    """Asks for piece ``number``, from 0, of a snapshot that the node calls ``name``; piece 0 begins it.

    The service of ``instance`` must be at ``applied`` when it begins; else, and when it is not at that piece of that
    snapshot, the answer (409) is its ``Marks``.  The same piece may be asked for again, until the next one is.
    """

    cluster: int
    node: int
    instance: str
    applied: int  #: the Raft index that the snapshot stands for
    name: str
    number: int


class Piece(Struct, array_like=True, frozen=True, gc=False):
    data: bytes  #: a chunk (``keyspace.snapshot``); empty where work was done that has nothing to show
    last: bool


class PutPiece(Struct, array_like=True, frozen=True, gc=False):
    """Piece ``number``, from 0, of a snapshot that is put in the place of what the service has.

    The answer is its ``Marks``: those of the snapshot once the last piece is there.  They are also what a service
    answers (409) that does nothing: it is of another ``instance``, has ``applied`` already, or is not at that piece
    of the restore that the node calls ``name``.  The same piece may be sent again, until the next one is.
    """

    cluster: int
    node: int
    instance: str
    applied: int  #: the Raft index that the snapshot stands for
    name: str
    number: int
    data: bytes  #: a chunk
    last: bool


class Refusal(Struct, array_like=True, tag=1, frozen=True, gc=False):
    """An EtcdError."""

    code: int
    cause: str
    index: int


Outcome = Event | Refusal


class Applied(Struct, array_like=True, frozen=True, gc=False):
    """``results``: for each batch, None where they are not wanted or not known any more.

    Where events are told, too, a result that is one of them is its number among them.  That of an `Expire` is None.
    """

    marks: Marks
    results: list[list[Outcome | int | None] | None]
    events: list[Event] = []
    #: For events that removed a directory: their index, and the keys of what was in it.
    removed: list[tuple[int, list[str]]] = []
    stats: StoreStats | None = None


class Found(Struct, array_like=True, frozen=True, gc=False):
    outcomes: list[Outcome]  #: for each key


def to_outcome(result: Result) -> Outcome:
    if isinstance(result, EtcdError):
        return Refusal(int(result.code), result.cause, result.index)
    assert isinstance(result, Event)
    return result


def to_result(outcome: Outcome) -> Result:
    if isinstance(outcome, Refusal):
        return EtcdError(Code(outcome.code), outcome.cause, outcome.index)
    return outcome


def encode(message: Struct) -> bytes:
    try:
        return _encoder.encode(message)
    except UnicodeEncodeError:
        return _RAW + _encoder.encode(_to_raw(msgspec.to_builtins(message)))


def decode(data: bytes, kind: type[T]) -> T:
    """Raises msgspec.MsgspecError or UnicodeError when ``data`` is not what ``encode`` gave for a ``kind``."""
    if data[:1] != _RAW:
        return msgspec.msgpack.decode(data, type=kind)
    return msgspec.convert(_from_raw(msgspec.msgpack.decode(data[1:])), kind)


def _to_raw(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    # ``to_builtins`` leaves tuples what they are.
    return [_to_raw(item) for item in value] if isinstance(value, list | tuple) else value


def _from_raw(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return [_from_raw(item) for item in value] if isinstance(value, list) else value
