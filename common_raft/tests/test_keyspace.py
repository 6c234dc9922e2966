"""The keyspace: what commands do, in what order, and what a batch costs the store."""

from collections.abc import Collection, Iterable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common_raft.keyspace import (
    Code,
    Command,
    Create,
    CreateInOrder,
    Delete,
    EtcdError,
    Event,
    HashMapStore,
    Keyspace,
    Node,
    Result,
    Set,
    Update,
)

# Any bytes at all, as text: what percent-decoding of a client's input can give.
TEXT = st.binary(max_size=8).map(lambda data: data.decode("utf-8", "surrogateescape"))
KEYS = st.sampled_from(["/a", "/b", "/\udcff"])
COMMANDS: st.SearchStrategy[Command] = st.one_of(
    st.builds(Set, KEYS, TEXT),
    st.builds(Create, KEYS, TEXT),
    st.builds(Update, KEYS, TEXT),
    st.builds(Delete, KEYS),
)


def apply(keyspace: Keyspace, *commands: Command) -> list[Result]:
    (results,) = keyspace.apply([(keyspace.encode(commands), True)], keyspace.applied + 1)
    assert results is not None
    return list(results)


def as_told(result: Result) -> tuple[object, ...]:
    """A result as a value that compares."""
    if isinstance(result, Event):
        return (result,)
    return (result.code, result.cause, result.index)


@pytest.fixture
def keyspace() -> Keyspace:
    return Keyspace(HashMapStore())


def test_the_first_key_of_a_fresh_cluster_has_index_one(keyspace: Keyspace) -> None:
    assert apply(keyspace, Set("/a", "x")) == [Event("set", Node("/a", "x", 1, 1), None, 1)]
    assert keyspace.index == 1


def test_setting_an_existing_key_starts_it_anew_and_shows_what_it_held(keyspace: Keyspace) -> None:
    apply(keyspace, Set("/a", "x"))
    assert apply(keyspace, Set("/a", "y")) == [
        Event("set", Node("/a", "y", 2, 2), Node("/a", "x", 1, 1), 2),
    ]


def test_updating_keeps_the_created_index(keyspace: Keyspace) -> None:
    apply(keyspace, Set("/a", "x"))
    assert apply(keyspace, Update("/a", "y")) == [
        Event("update", Node("/a", "y", 2, 1), Node("/a", "x", 1, 1), 2),
    ]


def test_deleting_shows_the_node_without_its_value(keyspace: Keyspace) -> None:
    apply(keyspace, Set("/a", "x"))
    assert apply(keyspace, Delete("/a")) == [
        Event("delete", Node("/a", None, 2, 1), Node("/a", "x", 1, 1), 2),
    ]
    assert as_told(keyspace.get("/a")) == (Code.KEY_NOT_FOUND, "/a", 2)


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (Delete("/b"), Code.KEY_NOT_FOUND),
        (Update("/b", "x"), Code.KEY_NOT_FOUND),
        (Create("/a", "y"), Code.NODE_EXISTS),
    ],
)
def test_a_command_that_fails_says_why_and_changes_no_index(
    keyspace: Keyspace, command: Command, code: Code
) -> None:
    apply(keyspace, Set("/a", "x"))
    (result,) = apply(keyspace, command)
    assert as_told(result) == (code, command.key, 1)
    assert keyspace.index == 1


def test_commands_of_one_batch_see_each_other(keyspace: Keyspace) -> None:
    results = apply(keyspace, Create("/a", "x"), Delete("/a"), Create("/a", "y"), Create("/a", "z"))
    assert [type(result) for result in results] == [Event, Event, Event, EtcdError]
    assert keyspace.get("/a") == Event("get", Node("/a", "y", 3, 3), None, 3)


def test_batches_are_applied_in_order_and_only_answered_where_someone_waits(keyspace: Keyspace) -> None:
    first, second = keyspace.encode([Set("/a", "x")]), keyspace.encode([Set("/a", "y"), Delete("/b")])
    answers = keyspace.apply([(first, False), (second, True)], 1)
    assert answers[0] is None
    assert answers[1] is not None
    assert [as_told(result) for result in answers[1]] == [
        (Event("set", Node("/a", "y", 2, 2), Node("/a", "x", 1, 1), 2),),
        (Code.KEY_NOT_FOUND, "/b", 2),
    ]


class CountingStore(HashMapStore):
    """Counts how often it is asked."""

    __slots__ = ("reads", "writes")

    def __init__(self) -> None:
        super().__init__()
        self.reads = self.writes = 0

    def get_many(self, keys: Collection[str]) -> dict[str, Node | None]:
        self.reads += 1
        return super().get_many(keys)

    def write(self, upserts: Iterable[Node], deletes: Iterable[str], index: int, applied: int) -> None:
        self.writes += 1
        super().write(upserts, deletes, index, applied)


def test_however_many_commands_the_store_is_read_once_and_written_once() -> None:
    store = CountingStore()
    keyspace = Keyspace(store)
    batch = keyspace.encode([Set(f"/{i % 7}", str(i)) for i in range(100)])
    keyspace.apply([(batch, True), (batch, False), (batch, True)], 3)
    assert (store.reads, store.writes) == (1, 1)
    assert keyspace.index == 300


def test_a_batch_that_changes_nothing_writes_nothing() -> None:
    store = CountingStore()
    keyspace = Keyspace(store)
    keyspace.apply([(keyspace.encode([Delete("/a")]), True)], 1)
    assert store.writes == 0


def test_a_key_in_order_does_not_take_what_is_there_whatever_that_changes_for_those_behind(
    keyspace: Keyspace,
) -> None:
    apply(keyspace, Set("/q/00000000000000000002", "mine"))
    refused, also, moved, made = apply(
        keyspace, CreateInOrder("/q", "a"), CreateInOrder("/q", "b"), Set("/x", "c"), CreateInOrder("/q", "d")
    )
    assert as_told(refused) == as_told(also) == (Code.NODE_EXISTS, "/q/00000000000000000002", 1)
    assert moved == Event("set", Node("/x", "c", 2, 2), None, 2)
    assert made == Event("create", Node("/q/00000000000000000003", "d", 3, 3), None, 3)


@pytest.mark.parametrize("left", range(4))
def test_however_few_are_left_of_what_was_in_a_directory_it_is_not_empty(
    keyspace: Keyspace, left: int
) -> None:
    children = [f"/d/{number}" for number in range(4)]
    apply(keyspace, *[Set(key, "v") for key in children])
    stays = children.pop(left)
    *_, refused = apply(keyspace, *[Delete(key) for key in children], Delete("/d", dir=True))
    assert as_told(refused) == (Code.DIR_NOT_EMPTY, "/d", 7)
    _, removed = apply(keyspace, Delete(stays), Delete("/d", dir=True))
    assert isinstance(removed, Event)


def test_of_a_large_directory_no_more_is_read_than_can_be_removed() -> None:
    asked = []

    class Asked(HashMapStore):
        def children(self, key: str, limit: int | None = None) -> list[Node]:
            asked.append((key, limit))
            return super().children(key, limit)

    keyspace = Keyspace(Asked())
    apply(keyspace, *[Set(f"/d/{number}", "v") for number in range(100)])
    apply(keyspace, Delete("/d", dir=True), Delete("/d/7"))
    assert asked == [("/d", 3)]


def test_what_was_applied_before_is_not_applied_again(keyspace: Keyspace) -> None:
    batch = [(keyspace.encode([Set("/a", "x")]), True)]
    assert keyspace.apply(batch, 7) != [None]
    assert keyspace.apply(batch, 7) == [None]
    assert (keyspace.index, keyspace.applied) == (1, 7)
    assert keyspace.apply(batch, 8) != [None]


@pytest.mark.parametrize(
    "data", [b"", b"\xc1", b"\xc1\x91\x91\x09", b"\x91\x91\x09", b"\x00", b"\xc1\x91\x90"]
)
def test_what_is_not_a_batch_is_refused_and_nothing_applied(keyspace: Keyspace, data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        keyspace.apply([(keyspace.encode([Set("/a", "x")]), True), (data, True)], 2)
    assert keyspace.index == 0


@given(st.lists(COMMANDS, max_size=20))
def test_a_batch_survives_encoding_whatever_bytes_clients_sent(commands: list[Command]) -> None:
    from common_raft.keyspace.commands import decode, encode

    assert decode(encode(commands)) == commands


@given(st.lists(st.lists(COMMANDS, max_size=6), max_size=6))
def test_the_keyspace_agrees_with_a_plain_dict_however_commands_are_batched(
    batches: list[list[Command]],
) -> None:
    keyspace = Keyspace(HashMapStore())
    answers = keyspace.apply([(keyspace.encode(batch), True) for batch in batches], 1)
    model: dict[str, Node] = {}
    index = 0
    for batch, results in zip(batches, answers, strict=True):
        assert results is not None
        for command, result in zip(batch, results, strict=True):
            index = step(model, index, command, result)
    assert keyspace.index == index
    for key in ("/a", "/b", "/\udcff"):
        found = keyspace.get(key)
        if key in model:
            assert found == Event("get", model[key], None, index)
        else:
            assert as_told(found) == (Code.KEY_NOT_FOUND, key, index)


def step(model: dict[str, Node], index: int, command: Command, result: Result) -> int:
    """One command in the model, its result checked; the new index."""
    held = model.get(command.key)
    refused = Code.NODE_EXISTS if isinstance(command, Create) and held else None
    if isinstance(command, Update | Delete) and not held:
        refused = Code.KEY_NOT_FOUND
    if refused:
        assert as_told(result) == (refused, command.key, index)
        return index
    index += 1
    created = held.created_index if held and isinstance(command, Update | Delete) else index
    value = None if isinstance(command, Delete) else command.value
    node = Node(command.key, value, index, created)
    action = type(command).__name__.lower()
    assert result == Event(action, node, held, index)
    model[command.key] = node
    if value is None:
        del model[command.key]
    return index


def test_the_hash_map_knows_its_tree_and_its_expiry_order() -> None:
    store = HashMapStore()
    keys = ["/d", "/d/b", "/d/a", "/d/a/x", "/da", "/c"]
    store.write([Node(key, "", 1, 1) for key in keys], [], 1, 1)
    assert [node.key for node in store.children("/")] == ["/c", "/d", "/da"]
    assert [node.key for node in store.children("/d")] == ["/d/a", "/d/b"]
    assert [node.key for node in store.descendants("/d")] == ["/d/a", "/d/a/x", "/d/b"]
    store.write(
        [Node(key, "", 2, 1, expiration=due) for key, due in (("/c", 9), ("/d/b", 5), ("/da", 5))], [], 2, 2
    )
    assert [node.key for node in store.expired(8)] == ["/d/b", "/da"]
    assert [node.key for node in store.expired(9)] == ["/d/b", "/da", "/c"]
    store.write([Node("/da", "", 3, 1)], ["/d/b", "/d/a/x", "/c"], 3, 3)
    assert store.expired(9) == []
    assert [node.key for node in store.descendants("/")] == ["/d", "/d/a", "/da"]
    assert store.children("/d/a") == []
