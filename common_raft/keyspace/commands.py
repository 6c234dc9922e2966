"""The commands that go through the log, and their bytes.

A batch is a msgpack array of arrays ``[tag, field ...]``. Fields may be added at a struct's end, with a
default, without making older logs unreadable; a tag is never given a new meaning.

msgpack's text is UTF-8 and etcd's keys and values are any bytes. A batch in which some are not UTF-8 is written
in another form: the byte 0xC1 (which msgpack never begins with), then the same array with all text as binary.

Keys are absolute paths without a slash at the end, ``/`` for the root; those that begin with ``//`` belong to the
service itself.  ``expiration`` is in nanoseconds since 1970, as 64 bits with a sign, by the clock of the node that
took the request; None: the node stays.
"""

from collections.abc import Sequence
from typing import ClassVar

import msgspec
from msgspec import Struct


class Set(Struct, array_like=True, tag=0, frozen=True, gc=False):
    """PUT of a value: give the key this value, whether it exists or not.

    Most commands are of this kind, and so it has no more fields; `put` makes it, or a `Put`.
    """

    key: str
    value: str


class Delete(Struct, array_like=True, tag=1, frozen=True, gc=False):
    """DELETE: remove the key, if it exists; a directory only with ``dir``, or ``recursive`` with all in it."""

    key: str
    dir: bool = False
    recursive: bool = False


class Create(Struct, array_like=True, tag=2, frozen=True, gc=False):
    """PUT with prevExist=false: only if the key does not exist."""

    key: str
    value: str
    expiration: int | None = None
    dir: bool = False


class Update(Struct, array_like=True, tag=3, frozen=True, gc=False):
    """PUT with prevExist=true and no other condition: only if the key exists; it keeps its createdIndex.

    ``refresh``: it keeps its value as well, and no watcher is told.
    """

    key: str
    value: str
    expiration: int | None = None
    refresh: bool = False


class CompareAndSwap(Struct, array_like=True, tag=4, frozen=True, gc=False):
    """PUT with prevValue or prevIndex: `Update` of a file that holds that; ``""`` and 0 are no conditions."""

    key: str
    value: str
    prev_value: str = ""
    prev_index: int = 0
    expiration: int | None = None
    refresh: bool = False


class CompareAndDelete(Struct, array_like=True, tag=5, frozen=True, gc=False):
    """DELETE with prevValue or prevIndex: `Delete` of a file that holds that; ``""`` and 0 are no conditions."""

    key: str
    prev_value: str = ""
    prev_index: int = 0


class CreateInOrder(Struct, array_like=True, tag=6, frozen=True, gc=False):
    """POST: create a node in the directory ``key`` that is named for the index that it gets."""

    key: str
    value: str
    expiration: int | None = None
    dir: bool = False


class Expire(Struct, array_like=True, tag=7, frozen=True, gc=False):
    """etcd's SYNC: it is ``now``, in nanoseconds since 1970, by the leader's clock; what has expired is removed."""

    #: What it is about is found out from the store.
    key: ClassVar[str] = "/"

    now: int


class Put(Struct, array_like=True, tag=8, frozen=True, gc=False):
    """PUT without a condition that is more than a `Set`: of a directory, with a ttl, or a refresh (see `Update`)."""

    key: str
    value: str
    expiration: int | None = None
    dir: bool = False
    refresh: bool = False


Command = Set | Delete | Create | Update | CompareAndSwap | CompareAndDelete | CreateInOrder | Expire | Put

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Command])
_raw_decoder = msgspec.msgpack.Decoder(list[list[int | bytes | bool | None]])

_RAW = b"\xc1"


def put(
    key: str, value: str, expiration: int | None = None, *, is_dir: bool = False, refresh: bool = False
) -> Set | Put:
    """PUT without a condition."""
    if expiration is None and not is_dir and not refresh:
        return Set(key, value)
    return Put(key, value, expiration, is_dir, refresh)


def encode(commands: Sequence[Command]) -> bytes:
    """One batch as bytes."""
    try:
        return _encoder.encode(commands)
    except UnicodeEncodeError:
        return _RAW + _encoder.encode([_to_raw(command) for command in commands])


def decode(data: bytes) -> list[Command]:
    """The commands of one batch. Raises msgspec.DecodeError if ``data`` is not what ``encode`` gave."""
    if data[:1] != _RAW:
        return _decoder.decode(data)
    return [_from_raw(fields) for fields in _raw_decoder.decode(memoryview(data)[1:])]


def _to_raw(command: Command) -> list[object]:
    fields = (
        field.encode("utf-8", "surrogateescape") if isinstance(field, str) else field
        for field in msgspec.structs.astuple(command)
    )
    return [command.__struct_config__.tag, *fields]


def _from_raw(fields: list[int | bytes | bool | None]) -> Command:
    text = [
        field.decode("utf-8", "surrogateescape") if isinstance(field, bytes) else field for field in fields
    ]
    command: Command = msgspec.convert(text, Command)
    return command
