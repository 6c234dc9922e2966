"""What a Raft node and the service that it drives say to each other, as bytes: msgpack, all messages as arrays.

Fields may be added at a message's end, with a default.  Keys and values that are not UTF-8 go as in the log's batches
(``keyspace.commands``): the byte 0xC1, then the same message with all text as binary.  ``Apply`` has no such text.
"""

from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from common_raft.keyspace import Code, EtcdError, Event, Result

T = TypeVar("T")

APPLY = "/application/apply"
READ = "/application/read"
MARKS = "/application/marks"
CONTENT_TYPE = "application/msgpack"
#: The largest request that a service takes.  A node sends one entry, or what fits into a few MiB.
MAX_BODY_BYTES = 64 << 20

_RAW = b"\xc1"
_encoder = msgspec.msgpack.Encoder()


class Marks(Struct, array_like=True, frozen=True, gc=False):
    """Where a service is. ``instance`` is another at each of its starts."""

    instance: str
    index: int  #: the etcd index
    applied: int  #: the Raft index of the last entry that it was given


class Apply(Struct, array_like=True, frozen=True, gc=False):
    """Committed batches, each with whether its results are wanted: those behind entry ``after``, up to ``applied``.

    The service of ``instance`` must be at ``after``; else nothing is done, and the answer (409) is its ``Marks``.
    A node that does not know the instance yet leaves it empty. ``cluster`` and ``node`` are the sender's ids.
    """

    cluster: int
    node: int
    instance: str
    after: int
    applied: int
    batches: list[tuple[bytes, bool]]


class Read(Struct, array_like=True, frozen=True, gc=False):
    """Keys to read from the service of that instance; from another, which may know less, the answer is 409."""

    instance: str
    keys: list[str]


class Refusal(Struct, array_like=True, tag=1, frozen=True, gc=False):
    """An EtcdError."""

    code: int
    cause: str
    index: int


Outcome = Event | Refusal


class Applied(Struct, array_like=True, frozen=True, gc=False):
    marks: Marks
    results: list[
        list[Outcome] | None
    ]  #: for each batch, None where they are not wanted or not known any more


class Found(Struct, array_like=True, frozen=True, gc=False):
    outcomes: list[Outcome]  #: for each key


def to_outcome(result: Result) -> Outcome:
    if isinstance(result, EtcdError):
        return Refusal(int(result.code), result.cause, result.index)
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
    return [_to_raw(item) for item in value] if isinstance(value, list) else value


def _from_raw(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return [_from_raw(item) for item in value] if isinstance(value, list) else value
