"""What is read: files, directories with what is in them, and why there is nothing."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pytest

from common_raft.keyspace import (
    Code,
    Command,
    Create,
    EtcdError,
    Event,
    HashMapStore,
    Keyspace,
    Node,
    Put,
    Query,
    Result,
    Set,
    Tree,
)
from common_raft.keyspace.node import ROOT, ancestors_of

COMMANDS: Sequence[Command] = (
    Set("/d/b", "1"), Set("/d/a/x", "2"), Set("/d/a/_h", "3"), Set("/d/_h/x", "4"), Set("/da", "5"), Set("/_h", "6"),
    Put("/empty", "", None, True), Set("//own/x", "8"), Set("/d/a.b", "9"),
)  # fmt: skip


@pytest.fixture
def keyspace() -> Keyspace:
    keyspace = Keyspace(HashMapStore())
    keyspace.apply([(keyspace.encode(COMMANDS), False)], 1)
    return keyspace


def names(trees: Sequence[Tree] | None) -> object:
    """A listing without all but its keys."""
    if trees is None:
        return None
    return [(tree.node.key, names(tree.nodes)) for tree in trees]


def listed(keyspace: Keyspace, key: str, *, recursive: bool = False) -> object:
    (event,) = keyspace.get_many([Query(key, recursive)])
    assert isinstance(event, Event)
    assert (event.action, event.prev_node, event.index) == ("get", None, 9)
    return names(event.nodes)


def test_a_directory_shows_what_is_in_it_in_the_order_of_keys_and_nothing_hidden(keyspace: Keyspace) -> None:
    assert listed(keyspace, "/d") == [("/d/a", None), ("/d/a.b", None), ("/d/b", None)]
    assert listed(keyspace, "/d/_h") == [("/d/_h/x", None)]
    assert listed(keyspace, "/empty") == []


def test_recursively_all_of_it_is_shown(keyspace: Keyspace) -> None:
    assert listed(keyspace, "/d", recursive=True) == [
        ("/d/a", [("/d/a/x", None)]), ("/d/a.b", None), ("/d/b", None),
    ]  # fmt: skip


def test_the_root_is_a_directory_that_was_never_changed_and_shows_no_key_of_the_service(
    keyspace: Keyspace,
) -> None:
    assert listed(keyspace, "/") == [("/d", None), ("/da", None), ("/empty", None)]
    (event,) = keyspace.get_many([Query("/", recursive=True)])
    assert isinstance(event, Event)
    assert event.node is ROOT
    assert names(event.nodes) == [
        ("/d", [("/d/a", [("/d/a/x", None)]), ("/d/a.b", None), ("/d/b", None)]), ("/da", None), ("/empty", []),
    ]  # fmt: skip


def test_the_service_lists_its_own(keyspace: Keyspace) -> None:
    assert listed(keyspace, "//own") == [("//own/x", None)]


def test_an_empty_keyspace_has_a_root() -> None:
    assert Keyspace(HashMapStore()).get_many(["/"]) == [Event("get", ROOT, None, 0, [])]


@pytest.mark.parametrize(
    ("key", "code", "cause"),
    [
        ("/no", Code.KEY_NOT_FOUND, "/no"),
        ("/no/x/y", Code.KEY_NOT_FOUND, "/no"),
        ("/d/a/no", Code.KEY_NOT_FOUND, "/d/a/no"),
        ("/d/a/no/x", Code.KEY_NOT_FOUND, "/d/a/no"),
        ("/d/b/x", Code.NOT_DIR, "/d/b"),
        ("/d/b/x/y", Code.NOT_DIR, "/d/b"),
    ],
)
def test_what_is_not_there_says_from_where_on(keyspace: Keyspace, key: str, code: Code, cause: str) -> None:
    told: list[object] = []
    for query in (key, Query(key), Query(key, recursive=True)):
        keyspace.read(query, told.append)
    for error in (*told, keyspace.get(key)):
        assert isinstance(error, EtcdError)
        assert (error.code, error.cause, error.index) == (code, cause, 9)


def test_a_key_by_itself_is_read_as_any_other(keyspace: Keyspace) -> None:
    told: list[object] = []
    for query in ("/d/a/x", Query("/d/a/x"), Query("/d/a/x", recursive=True), "/d", Query("/d")):
        keyspace.read(query, told.append)
    file = Event("get", Node("/d/a/x", "2", 2, 2), None, 9)
    assert told[:3] == [file, file, file]
    assert told[3] == told[4]
    assert isinstance(told[4], Event)
    assert told[4].node == Node("/d", None, 1, 1, True)


class Counting(HashMapStore):
    """Notes what it is asked."""

    __slots__ = ("asked",)

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def get_many(self, keys: Collection[str]) -> dict[str, Node | None]:
        self.asked.append("keys " + " ".join(sorted(keys)))
        return super().get_many(keys)

    def listing(self, key: str, recursive: bool) -> list[Node]:
        self.asked.append(f"listing {key} {recursive}")
        return super().listing(key, recursive)


def test_reads_that_come_together_are_made_together() -> None:
    store = Counting()
    keyspace = Keyspace(store)
    keyspace.apply([(keyspace.encode(COMMANDS), False)], 1)
    store.asked.clear()
    queries = ["/da", Query("/d"), "/d", Query("/d", recursive=True), "/no/x", "/d/b/x/y", "/da", "/"]
    results: list[Result] = keyspace.get_many(queries)
    assert store.asked == [
        "keys /d /d/b/x/y /da /no/x",
        "listing /d False",
        "listing /d True",
        "listing / False",
        "keys /d /d/b /d/b/x /no",
    ]
    assert [each.code if isinstance(each, EtcdError) else each.node.key for each in results] == [
        "/da", "/d", "/d", "/d", Code.KEY_NOT_FOUND, Code.NOT_DIR, "/da", "/",
    ]  # fmt: skip


class Changing(HashMapStore):
    """Is changed by somebody else between two looks at it."""

    __slots__ = ("between",)

    def __init__(self) -> None:
        super().__init__()
        self.between: tuple[list[Node], list[str]] = ([], [])

    def listing(self, key: str, recursive: bool) -> list[Node]:
        self.write(*self.between, self.index + 1, self.applied + 1)
        return super().listing(key, recursive)


@pytest.mark.parametrize("between", [([], ["/d"]), ([Node("/d", "file", 2, 2)], [])])
def test_a_directory_that_changes_while_it_is_read_is_what_it_has_become(
    between: tuple[list[Node], list[str]],
) -> None:
    store = Changing()
    keyspace = Keyspace(store)
    keyspace.apply([(keyspace.encode([Put("/d", "", None, True)]), False)], 1)
    store.between = between
    result = keyspace.get("/d")
    if between[0]:
        assert result == Event("get", Node("/d", "file", 2, 2), None, 2)
    else:
        assert isinstance(result, EtcdError)
        assert (result.code, result.cause) == (Code.KEY_NOT_FOUND, "/d")


def test_the_index_is_none_that_the_nodes_are_behind() -> None:
    """Who goes on from there with a watch would miss what happened between the look and the index."""

    class Overtaken(HashMapStore):
        def get_many(self, keys: Collection[str]) -> dict[str, Node | None]:
            found = super().get_many(keys)
            self.write([Node("/a", "new", 2, 2)], [], 2, 2)
            return found

    keyspace = Keyspace(Overtaken())
    keyspace.apply([(keyspace.encode([Create("/a", "old")]), False)], 1)
    keyspace._store.write([Node("/a", "old", 1, 1)], [], 1, 1)
    assert keyspace.get("/a") == Event("get", Node("/a", "old", 1, 1), None, 1)


def test_reads_are_counted(keyspace: Keyspace) -> None:
    keyspace.read("/da", lambda _: None)
    keyspace.read("/no", lambda _: None)
    keyspace.get_many(["/d", "/", "/no/x"])
    assert (keyspace.stats.gets_success, keyspace.stats.gets_fail) == (3, 2)


@pytest.mark.parametrize(
    ("key", "above"),
    [
        ("/a", []), ("/a/b", ["/a"]), ("/a/b/c", ["/a", "/a/b"]), ("/", []),
        ("//auth", []), ("//auth/users/x", ["//auth", "//auth/users"]),
    ],
)  # fmt: skip
def test_what_a_key_is_in(key: str, above: list[str]) -> None:
    assert list(ancestors_of(key)) == above
