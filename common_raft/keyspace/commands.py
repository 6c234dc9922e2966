"""The commands that go through the log, and their bytes.

A batch is a msgpack array of arrays ``[tag, field ...]``. Fields may be added at a struct's end, with a
default, without making older logs unreadable; a tag is never given a new meaning.

msgpack's text is UTF-8 and etcd's keys and values are any bytes. A batch in which some are not UTF-8 is written
in another form: the byte 0xC1 (which msgpack never begins with), then the same array with all text as binary.
"""

from collections.abc import Sequence

import msgspec
from msgspec import Struct


class Set(Struct, array_like=True, tag=0, frozen=True, gc=False):
    """PUT: give the key this value, whether it exists or not."""

    key: str
    value: str


class Delete(Struct, array_like=True, tag=1, frozen=True, gc=False):
    """DELETE: remove the key, if it exists."""

    key: str


class Create(Struct, array_like=True, tag=2, frozen=True, gc=False):
    """PUT with prevExist=false: only if the key does not exist."""

    key: str
    value: str


class Update(Struct, array_like=True, tag=3, frozen=True, gc=False):
    """PUT with prevExist=true: only if the key exists; it keeps its createdIndex."""

    key: str
    value: str


Command = Set | Delete | Create | Update

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Command])
_raw_decoder = msgspec.msgpack.Decoder(list[list[int | bytes]])

_RAW = b"\xc1"


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


def _to_raw(command: Command) -> list[int | bytes]:
    fields = (field.encode("utf-8", "surrogateescape") for field in msgspec.structs.astuple(command))
    return [command.__struct_config__.tag, *fields]


def _from_raw(fields: list[int | bytes]) -> Command:
    text = [
        field.decode("utf-8", "surrogateescape") if isinstance(field, bytes) else field for field in fields
    ]
    command: Command = msgspec.convert(text, Command)
    return command
