"""The bytes of commands in logs: what was written once is read for ever."""

from __future__ import annotations

import msgspec
import pytest

from common_raft.keyspace import (
    Command,
    CompareAndDelete,
    CompareAndSwap,
    Create,
    CreateInOrder,
    Delete,
    Expire,
    Put,
    Set,
    Update,
)
from common_raft.keyspace.commands import decode, encode

GOLDEN: list[tuple[Command, bytes]] = [
    (Set("/a", "v"), b"\x93\x00\xa2/a\xa1v"),
    (Delete("/a", True, False), b"\x94\x01\xa2/a\xc3\xc2"),
    (Create("/a", "v", 5, True), b"\x95\x02\xa2/a\xa1v\x05\xc3"),
    (Update("/a", "v", -1, True), b"\x95\x03\xa2/a\xa1v\xff\xc3"),
    (
        CompareAndSwap("/a", "v", "w", 2**64 - 1, None, True),
        b"\x97\x04\xa2/a\xa1v\xa1w\xcf" + b"\xff" * 8 + b"\xc0\xc3",
    ),
    (CompareAndDelete("/a", "w", 7), b"\x94\x05\xa2/a\xa1w\x07"),
    (CreateInOrder("/", "v", None, False), b"\x95\x06\xa1/\xa1v\xc0\xc2"),
    (Expire(2**62), b"\x92\x07\xcf\x40" + b"\0" * 7),
    (Put("/a", "v", 5, True, True), b"\x96\x08\xa2/a\xa1v\x05\xc3\xc3"),
]


@pytest.mark.parametrize(("command", "data"), GOLDEN, ids=lambda each: type(each).__name__)
def test_the_bytes_are_what_they_were(command: Command, data: bytes) -> None:
    assert encode([command]) == b"\x91" + data
    assert decode(b"\x91" + data) == [command]


def test_all_of_them_are_pinned() -> None:
    assert {type(command) for command, _ in GOLDEN} == set(Command.__args__)


def test_what_is_not_utf8_goes_as_binary() -> None:
    data = b"\xc1\x92\x96\x08\xc4\x03/\xff\x61\xc4\x00\x05\xc2\xc3\x92\x07\x05"
    commands: list[Command] = [Put("/\udcffa", "", 5, False, True), Expire(5)]
    assert encode(commands) == data
    assert decode(data) == commands


def test_logs_of_the_first_version_are_read() -> None:
    """It had no ttls, directories or conditions."""
    commands: list[Command] = [Set("/a", "v"), Delete("/a"), Create("/a", "v"), Update("/a", "v")]
    data = b"\x94\x93\x00\xa2/a\xa1v\x92\x01\xa2/a\x93\x02\xa2/a\xa1v\x93\x03\xa2/a\xa1v"
    assert decode(data) == commands
    raw = (
        b"\xc1\x94\x93\x00\xc4\x02/a\xc4\x01\xff\x92\x01\xc4\x02/a"
        b"\x93\x02\xc4\x02/a\xc4\x01\xff\x93\x03\xc4\x02/a\xc4\x01\xff"
    )
    assert decode(raw) == [
        Set("/a", "\udcff"), Delete("/a"), Create("/a", "\udcff"), Update("/a", "\udcff"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "data",
    [
        b"\x91\x92\x09\xa2/a",
        b"\x91\x92\x07\xa1x",
        b"\x91\x95\x02\xa2/a\xa1v\xa1x\xc2",
        b"\xc1\x91\x92\x07\xc0",
    ],
)
def test_what_is_no_command_is_refused(data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(data)
