"""From parameters to commands, queries and watches."""

import pytest

from common_raft.keyspace import (
    Command,
    CompareAndDelete,
    CompareAndSwap,
    Create,
    CreateInOrder,
    Delete,
    EtcdError,
    Put,
    Query,
    Set,
    Update,
)
from common_raft.web.request import FORM, Read, Watching, Write, parse_key_request

NOW = 1_700_000_000 * 10**9 + 5
SECOND = 10**9


def parse(method: str, query: str = "", path: str = "/a") -> Read | Watching | Write:
    return parse_key_request(method, path, query.encode(), None, b"", lambda: NOW)


def command(method: str, query: str = "") -> Command:
    request = parse(method, query)
    assert isinstance(request, Write)
    return request.command


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("value=1", Set("/a", "1")),
        ("", Set("/a", "")),
        ("value=1&ttl=", Set("/a", "1")),
        ("value=1&prevIndex=0", Set("/a", "1")),
        ("value=1&refresh=false", Set("/a", "1")),
        ("value=1&ttl=7", Put("/a", "1", NOW + 7 * SECOND)),
        ("value=1&ttl=0", Put("/a", "1", NOW)),
        ("dir=true", Put("/a", "", None, dir=True)),
        ("ttl=7&refresh=true", Put("/a", "", NOW + 7 * SECOND, refresh=True)),
        ("ttl=7&dir=1&refresh=t&value=", Put("/a", "", NOW + 7 * SECOND, dir=True, refresh=True)),
        ("value=1&prevExist=false", Create("/a", "1")),
        ("value=1&prevExist=false&prevValue=x&prevIndex=3", Create("/a", "1")),
        ("prevExist=false&dir=true&ttl=7&refresh=true", Create("/a", "", NOW + 7 * SECOND, dir=True)),
        ("value=1&prevExist=true", Update("/a", "1")),
        ("value=1&prevExist=true&prevIndex=0&dir=true", Update("/a", "1")),
        ("prevExist=true&ttl=7&refresh=true", Update("/a", "", NOW + 7 * SECOND, refresh=True)),
        ("value=1&prevExist=true&prevValue=x", CompareAndSwap("/a", "1", "x", 0)),
        ("value=1&prevValue=x&dir=true", CompareAndSwap("/a", "1", "x", 0)),
        ("value=1&prevIndex=3&ttl=7", CompareAndSwap("/a", "1", "", 3, NOW + 7 * SECOND)),
        ("prevValue=x&prevIndex=3&ttl=7&refresh=1", CompareAndSwap("/a", "", "x", 3, NOW + 7 * SECOND, True)),
        ("prevIndex=18446744073709551615", CompareAndSwap("/a", "", "", 2**64 - 1)),
    ],
)  # fmt: skip
def test_a_put_becomes_the_operation_that_etcd_makes_of_it(query: str, expected: Command) -> None:
    assert command("PUT", query) == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", Delete("/a")),
        ("dir=true", Delete("/a", dir=True)),
        ("recursive=true", Delete("/a", recursive=True)),
        ("prevExist=false", Delete("/a")),
        ("prevIndex=0&ttl=7&refresh=true", Delete("/a")),
        ("prevValue=x&dir=true&recursive=true", CompareAndDelete("/a", "x", 0)),
        ("prevIndex=3", CompareAndDelete("/a", "", 3)),
    ],
)
def test_a_delete_becomes_the_operation_that_etcd_makes_of_it(query: str, expected: Command) -> None:
    assert command("DELETE", query) == expected


def test_a_post_creates_in_order_whatever_else_is_asked() -> None:
    assert command("POST", "value=1") == CreateInOrder("/a", "1")
    odd = "dir=true&ttl=7&prevExist=true&prevValue=x&prevIndex=3&refresh=true"
    assert command("POST", odd) == CreateInOrder("/a", "", NOW + 7 * SECOND, dir=True)


@pytest.mark.parametrize(
    ("ttl", "expiration"),
    [
        (9_223_372_036, NOW + 9_223_372_036 * SECOND - 2**64),  # the sum exceeds 64 bits
        (9_223_372_037, NOW + 9_223_372_037 * SECOND - 2**64),  # so do its nanoseconds alone
        (2**64 - 1, NOW - SECOND),
    ],
)
def test_a_large_ttl_exceeds_64_bits_as_etcds_does(ttl: int, expiration: int) -> None:
    assert command("PUT", f"ttl={ttl}") == Put("/a", "", expiration)


def test_the_clock_is_asked_only_for_a_ttl() -> None:
    def clock() -> int:
        raise AssertionError("asked")

    for method in ("PUT", "POST", "DELETE", "GET"):
        parse_key_request(method, "/a", b"value=1", None, b"", clock)


@pytest.mark.parametrize(
    ("method", "query", "expected"),
    [
        ("GET", "", Read(Query("/a"), False)),
        ("GET", "recursive=true&sorted=true&quorum=true", Read(Query("/a", True, True), True)),
        ("HEAD", "recursive=true&sorted=true&quorum=true", Read(Query("/a", True, True), False)),
        ("GET", "wait=true", Watching("/a", False, 0, False)),
        ("GET", "wait=true&waitIndex=7&recursive=true&stream=true", Watching("/a", True, 7, True)),
        ("GET", "wait=true&quorum=true&waitIndex=7", Read(Query("/a"), True)),
        ("GET", "waitIndex=7&stream=true", Read(Query("/a"), False)),
    ],
)
def test_reads_and_watches(method: str, query: str, expected: Read | Watching) -> None:
    assert parse(method, query) == expected


@pytest.mark.parametrize(
    ("path", "key"), [("", "/"), ("/", "/"), ("/a/", "/a"), ("/a/b", "/a/b"), ("/a b/\udcff", "/a b/\udcff")]
)
def test_a_slash_at_the_end_does_not_matter(path: str, key: str) -> None:
    assert parse("GET", path=path) == Read(Query(key), False)


@pytest.mark.parametrize("method", ["HEAD", "PUT", "POST", "DELETE"])
def test_only_a_get_may_wait(method: str) -> None:
    with pytest.raises(EtcdError, match='"wait" can only be used with GET requests'):
        parse(method, "wait=true")


def test_no_value_on_success_is_told_with_the_command() -> None:
    assert parse("PUT", "noValueOnSuccess=true") == Write(Set("/a", ""), True)


def test_fields_of_a_form_come_before_those_of_the_query() -> None:
    request = parse_key_request("POST", "/a", b"value=query&dir=true", FORM, b"value=form;ttl=7", lambda: NOW)
    assert request == Write(CreateInOrder("/a", "form", NOW + 7 * SECOND, dir=True), False)
