"""What each command does: etcd's rules, one by one.  Each answer here is one that etcd 3.5.1 gave."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from common_raft.keyspace import (
    Code,
    Command,
    CompareAndDelete,
    CompareAndSwap,
    Create,
    CreateInOrder,
    Delete,
    EtcdError,
    Event,
    Expire,
    Expired,
    Node,
    Put,
    Result,
    Set,
    Update,
    put,
)
from common_raft.keyspace.commands import encode
from common_raft.keyspace.decide import FIRST_EXPIRATION, NeedsTree, View, run_flat
from common_raft.keyspace.node import ROOT, ancestors_of
from common_raft.keyspace.steps import flat_keys

SOON = 2_000_000_000 * 10**9
LATER = SOON + 10**9


def decided(view: View, *commands: Command) -> list[Result]:
    """Carries commands out on a view of all there is: nothing at the beginning, but the root."""
    for command in commands:
        for key in [*ancestors_of(command.key), command.key]:
            view.nodes.setdefault(key, None)
    return view.run(commands)


@pytest.fixture
def view() -> View:
    return View({"/": ROOT}, 0)


def told(result: Result) -> tuple[object, ...]:
    """An error as a value that compares; anything else as it is."""
    return (result.code, result.cause, result.index) if isinstance(result, EtcdError) else (result,)


def tree(view: View) -> dict[str, str | None]:
    """All files with their values, and all directories with None."""
    return {key: node.value for key, node in view.nodes.items() if node is not None and node is not ROOT}


TREE: Sequence[Command] = (Set("/f", "1"), Set("/d/e/x", "2"), Put("/empty", "", None, True))


@pytest.mark.parametrize(
    ("command", "code", "cause"),
    [
        (Set("/d", "v"), Code.NOT_FILE, "/d"),
        (Put("/d", "", None, True), Code.NOT_FILE, "/d"),
        (Put("/d", "", SOON, refresh=True), Code.NOT_FILE, "/d"),
        (Put("/no", "", SOON, refresh=True), Code.KEY_NOT_FOUND, "/no"),
        (Put("/no/where/x", "", SOON, refresh=True), Code.KEY_NOT_FOUND, "/no"),
        (Set("/f/x", "v"), Code.NOT_DIR, "/f"),
        (Set("/f/x/y/z", "v"), Code.NOT_DIR, "/f"),
        (Put("/f/x", "", SOON, refresh=True), Code.NOT_DIR, "/f"),
        (Create("/f", "v"), Code.NODE_EXISTS, "/f"),
        (Create("/d", "v"), Code.NODE_EXISTS, "/d"),
        (Create("/f/x", "v"), Code.NOT_DIR, "/f"),
        (CreateInOrder("/f", "v"), Code.NOT_DIR, "/f"),
        (CreateInOrder("/d/e/x", "v"), Code.NOT_DIR, "/d/e/x"),
        (Update("/no", "v"), Code.KEY_NOT_FOUND, "/no"),
        (Update("/d/no/x", "v"), Code.KEY_NOT_FOUND, "/d/no"),
        (Update("/d/e/no", "v"), Code.KEY_NOT_FOUND, "/d/e/no"),
        (Update("/d/e/x/y", "v"), Code.NOT_DIR, "/d/e/x"),
        (Update("/d", "v"), Code.NOT_FILE, "/d"),
        (CompareAndSwap("/no/x", "v", "1"), Code.KEY_NOT_FOUND, "/no"),
        (CompareAndSwap("/f/x", "v", "1"), Code.NOT_DIR, "/f"),
        (CompareAndSwap("/d", "v", "1"), Code.NOT_FILE, "/d"),
        (CompareAndSwap("/f", "v", "2"), Code.TEST_FAILED, "[2 != 1]"),
        (CompareAndSwap("/f", "v", "1", 7), Code.TEST_FAILED, "[7 != 1]"),
        (CompareAndSwap("/f", "v", "2", 7), Code.TEST_FAILED, "[2 != 1] [7 != 1]"),
        (CompareAndSwap("/f", "v", "2", 1), Code.TEST_FAILED, "[2 != 1]"),
        (CompareAndDelete("/no", "1"), Code.KEY_NOT_FOUND, "/no"),
        (CompareAndDelete("/f/x", "1"), Code.NOT_DIR, "/f"),
        (CompareAndDelete("/d", "1"), Code.NOT_FILE, "/d"),
        (CompareAndDelete("/f", "2", 7), Code.TEST_FAILED, "[2 != 1] [7 != 1]"),
        (Delete("/no/x"), Code.KEY_NOT_FOUND, "/no"),
        (Delete("/f/x", recursive=True), Code.NOT_DIR, "/f"),
        (Delete("/d"), Code.NOT_FILE, "/d"),
        (Delete("/empty"), Code.NOT_FILE, "/empty"),
        (Delete("/d", dir=True), Code.DIR_NOT_EMPTY, "/d"),
        (Set("/", "v"), Code.ROOT_READ_ONLY, "/"),
        (Put("/", "", SOON, refresh=True), Code.ROOT_READ_ONLY, "/"),
        (Create("/", "v"), Code.ROOT_READ_ONLY, "/"),
        (Update("/", "v"), Code.ROOT_READ_ONLY, "/"),
        (CompareAndSwap("/", "v", "1"), Code.ROOT_READ_ONLY, "/"),
        (Delete("/", recursive=True), Code.ROOT_READ_ONLY, "/"),
        (CompareAndDelete("/", "1"), Code.NOT_FILE, ""),
    ],
    ids=repr,
)
def test_what_is_refused_says_why_and_changes_nothing(
    view: View, command: Command, code: Code, cause: str
) -> None:
    decided(view, *TREE)
    before = dict(view.nodes)
    (result,) = decided(view, command)
    assert told(result) == (code, cause, 3)
    assert view.index == 3
    assert {key: node for key, node in view.nodes.items() if node} == {k: n for k, n in before.items() if n}


@pytest.mark.parametrize("command", [Update("/d", ""), Update("/d", "", SOON), Update("/d", "", SOON, True)])
def test_the_ttl_of_a_directory_cannot_be_changed_since_etcd_cannot(view: View, command: Update) -> None:
    decided(view, *TREE)
    (result,) = decided(view, command)
    assert told(result) == (Code.RAFT_INTERNAL, "nodePath /1/d : Not a file ()", 0)
    assert isinstance(result, EtcdError)
    assert result.status == 500


class TestMaking:
    def test_missing_directories_are_made_with_the_index_of_what_is_put_in_them(self, view: View) -> None:
        (event,) = decided(view, Set("/d/e/x", "v"))
        assert event == Event("set", Node("/d/e/x", "v", 1, 1), None, 1)
        assert view.changed == {
            "/d": Node("/d", None, 1, 1, dir=True),
            "/d/e": Node("/d/e", None, 1, 1, dir=True),
            "/d/e/x": Node("/d/e/x", "v", 1, 1),
        }

    def test_directories_that_are_there_stay_as_they_are(self, view: View) -> None:
        decided(view, Set("/d/e/x", "v"), Set("/d/e/y", "v"), Set("/d/e/x", "w"))
        assert [view.nodes["/d"], view.nodes["/d/e"]] == [
            Node("/d", None, 1, 1, dir=True),
            Node("/d/e", None, 1, 1, dir=True),
        ]

    def test_a_directory_takes_the_place_of_a_file(self, view: View) -> None:
        _, event = decided(view, Set("/f", "v"), Put("/f", "ignored", SOON, True))
        assert event == Event("set", Node("/f", None, 2, 2, True, SOON), Node("/f", "v", 1, 1), 2)

    def test_a_refresh_keeps_the_value_moves_the_index_and_starts_the_node_anew(self, view: View) -> None:
        _, event = decided(view, Set("/f", "v"), Put("/f", "", SOON, refresh=True))
        assert event == Event(
            "set", Node("/f", "v", 2, 2, False, SOON), Node("/f", "v", 1, 1), 2, refresh=True
        )

    def test_what_is_set_without_a_ttl_has_none_any_more(self, view: View) -> None:
        _, event = decided(view, Put("/f", "v", SOON), Set("/f", "w"))
        assert event == Event("set", Node("/f", "w", 2, 2), Node("/f", "v", 1, 1, False, SOON), 2)

    @pytest.mark.parametrize("kind", [Put, Create])
    def test_an_expiration_of_long_ago_is_none(self, view: View, kind: type[Put] | type[Create]) -> None:
        made, kept = decided(view, kind("/a", "v", FIRST_EXPIRATION - 1), kind("/b", "v", FIRST_EXPIRATION))
        assert isinstance(made, Event)
        assert isinstance(kept, Event)
        assert (made.node.expiration, kept.node.expiration) == (None, FIRST_EXPIRATION)

    def test_creating_tells_that_it_was_created(self, view: View) -> None:
        file, directory = decided(view, Create("/a", "v", SOON), Create("/b/c", "", None, True))
        assert file == Event("create", Node("/a", "v", 1, 1, False, SOON), None, 1)
        assert directory == Event("create", Node("/b/c", None, 2, 2, True), None, 2)

    def test_keys_in_order_are_named_for_the_index_they_get(self, view: View) -> None:
        view.index = view.base = 10**19  # of 20 digits
        view.index -= 1
        first, second, top, again = decided(
            view, CreateInOrder("/q", "a"), CreateInOrder("/q", "", None, True), CreateInOrder("/", "b", SOON),
            CreateInOrder("/q/r", "c"),
        )  # fmt: skip
        index = 10**19
        assert first == Event("create", Node(f"/q/{index}", "a", index, index), None, index)
        assert second == Event(
            "create", Node(f"/q/{index + 1}", None, index + 1, index + 1, True), None, index + 1
        )
        assert top == Event(
            "create", Node(f"/{index + 2}", "b", index + 2, index + 2, False, SOON), None, index + 2
        )
        assert isinstance(again, Event)
        assert again.node.key == f"/q/r/{index + 3}"

    def test_the_index_in_a_name_has_twenty_digits_and_only_those_in_known_directories_are_looked_up(
        self, view: View
    ) -> None:
        view.nodes["/old"] = Node("/old", None, 0, 0, dir=True)
        decided(view, CreateInOrder("/old", "a"), CreateInOrder("/new", "b"), CreateInOrder("/new", "c"))
        assert view.assumed == {"/old/00000000000000000001"}

    def test_a_key_in_order_that_is_taken_is_refused(self, view: View) -> None:
        _, result = decided(view, Set("/q/00000000000000000002", "mine"), CreateInOrder("/q", "v"))
        assert told(result) == (Code.NODE_EXISTS, "/q/00000000000000000002", 1)

    def test_put_is_as_small_as_it_can_be(self) -> None:
        assert put("/a", "v") == Set("/a", "v")
        assert put("/a", "v", SOON) == Put("/a", "v", SOON)
        assert put("/a", "v", is_dir=True) == Put("/a", "v", None, True)
        assert put("/a", "", SOON, refresh=True) == Put("/a", "", SOON, False, True)


class TestChanging:
    def test_an_update_keeps_when_it_was_created_and_takes_the_ttl_that_it_is_given_or_none(
        self, view: View
    ) -> None:
        _, with_ttl, without = decided(view, Set("/f", "1"), Update("/f", "2", SOON), Update("/f", "3"))
        assert with_ttl == Event("update", Node("/f", "2", 2, 1, False, SOON), Node("/f", "1", 1, 1), 2)
        assert without == Event("update", Node("/f", "3", 3, 1), Node("/f", "2", 2, 1, False, SOON), 3)

    def test_an_update_may_let_a_key_expire_in_the_last_century(self, view: View) -> None:
        _, event = decided(view, Set("/f", "1"), Update("/f", "", -5))
        assert isinstance(event, Event)
        assert event.node.expiration == -5

    @pytest.mark.parametrize("conditions", [("1",), ("", 1), ("1", 1)])
    def test_a_swap_whose_conditions_hold_is_an_update(self, view: View, conditions: tuple[str, int]) -> None:
        _, event = decided(view, Set("/f", "1"), CompareAndSwap("/f", "2", *conditions))
        assert event == Event("compareAndSwap", Node("/f", "2", 2, 1), Node("/f", "1", 1, 1), 2)

    def test_refreshing_keeps_the_value(self, view: View) -> None:
        _, updated, swapped = decided(
            view, Set("/f", "1"), Update("/f", "", SOON, True), CompareAndSwap("/f", "", "1", 0, LATER, True)
        )
        first, second = Node("/f", "1", 2, 1, False, SOON), Node("/f", "1", 3, 1, False, LATER)
        assert updated == Event("update", first, Node("/f", "1", 1, 1), 2, refresh=True)
        assert swapped == Event("compareAndSwap", second, first, 3, refresh=True)


class TestRemoving:
    @pytest.mark.parametrize("how", [Delete("/f"), Delete("/f", dir=True), Delete("/f", recursive=True)])
    def test_a_file_is_removed_however_it_is_asked_for(self, view: View, how: Delete) -> None:
        _, event = decided(view, Set("/f", "1"), how)
        assert event == Event("delete", Node("/f", None, 2, 1), Node("/f", "1", 1, 1), 2)
        assert tree(view) == {}

    @pytest.mark.parametrize("how", [CompareAndDelete("/f", "1"), CompareAndDelete("/f", "", 1)])
    def test_a_file_that_holds_what_it_should_is_removed(self, view: View, how: CompareAndDelete) -> None:
        _, event = decided(view, Set("/f", "1"), how)
        assert event == Event("compareAndDelete", Node("/f", None, 2, 1), Node("/f", "1", 1, 1), 2)

    def test_an_empty_directory_is_removed_as_a_directory(self, view: View) -> None:
        _, event = decided(view, Put("/d", "", SOON, True), Delete("/d", dir=True))
        gone = Node("/d", None, 2, 1, True)
        assert event == Event("delete", gone, Node("/d", None, 1, 1, True, SOON), 2)

    def test_a_directory_is_empty_once_all_in_it_is_gone(self, view: View) -> None:
        *_, refused, _, event = decided(
            view, Set("/d/a", "1"), Set("/d/b/c", "2"), Delete("/d/a"), Delete("/d", dir=True),
            Delete("/d/b", recursive=True), Delete("/d", dir=True),
        )  # fmt: skip
        assert told(refused) == (Code.DIR_NOT_EMPTY, "/d", 3)
        assert isinstance(event, Event)
        assert tree(view) == {}

    def test_with_a_directory_all_in_it_is_removed_in_one_event(self, view: View) -> None:
        *_, event = decided(
            view, Set("/d/a", "1"), Set("/d/b/_c", "2"), Set("/db", "3"), Delete("/d", recursive=True)
        )
        assert event == Event("delete", Node("/d", None, 4, 1, True), Node("/d", None, 1, 1, True), 4)
        assert tree(view) == {"/db": "3"}
        assert {index: sorted(keys) for index, keys in view.removed.items()} == {
            4: ["/d/a", "/d/b", "/d/b/_c"]
        }
        assert sorted(key for key, node in view.changed.items() if node is None) == [
            "/d", "/d/a", "/d/b", "/d/b/_c",
        ]  # fmt: skip

    def test_what_was_in_a_directory_is_not_in_one_that_is_made_anew(self, view: View) -> None:
        *_, event = decided(
            view,
            Set("/d/a", "1"),
            Delete("/d", recursive=True),
            Put("/d", "", None, True),
            Delete("/d", True),
        )
        assert isinstance(event, Event)


class TestExpiring:
    def test_what_is_due_goes_in_the_order_in_which_it_was_due(self, view: View) -> None:
        *_, expired = decided(
            view, Put("/z", "1", SOON), Put("/b", "2", SOON + 1), Put("/a", "3", SOON + 1), Put("/later", "4", LATER),
            Set("/stays", "5"), Expire(SOON + 1),
        )  # fmt: skip
        assert isinstance(expired, Expired)
        assert [(event.action, event.node, event.index) for event in expired.events] == [
            ("expire", Node("/z", None, 6, 1), 6),
            ("expire", Node("/a", None, 7, 3), 7),
            ("expire", Node("/b", None, 8, 2), 8),
        ]
        assert expired.events[0].prev_node == Node("/z", "1", 1, 1, False, SOON)
        assert tree(view) == {"/later": "4", "/stays": "5"}
        assert view.index == 8

    def test_a_directory_is_one_event_and_what_is_in_it_has_none_of_its_own(self, view: View) -> None:
        *_, expired = decided(
            view, Put("/d", "", SOON, True), Put("/d/a", "1", SOON + 5), Set("/d/b/c", "2"), Expire(LATER)
        )
        assert isinstance(expired, Expired)
        assert [event.node for event in expired.events] == [Node("/d", None, 4, 1, True)]
        assert tree(view) == {}
        assert sorted(view.removed[4]) == ["/d/a", "/d/b", "/d/b/c"]

    def test_what_was_first_due_in_it_is_told_of_first(self, view: View) -> None:
        *_, expired = decided(
            view, Put("/d", "", SOON + 5, True), Put("/d/a", "1", SOON), Set("/d/b", "2"), Expire(LATER)
        )
        assert isinstance(expired, Expired)
        assert [event.node.key for event in expired.events] == ["/d/a", "/d"]

    def test_a_time_that_is_back_finds_nothing(self, view: View) -> None:
        *_, first, second, third = decided(
            view, Put("/a", "1", SOON), Put("/b", "1", LATER), Expire(SOON), Expire(SOON - 5), Expire(LATER)
        )
        assert [len(each.events) for each in (first, second, third) if isinstance(each, Expired)] == [1, 0, 1]

    def test_a_ttl_that_was_taken_away_or_moved_counts_no_more(self, view: View) -> None:
        *_, expired = decided(
            view, Put("/a", "1", SOON), Put("/b", "1", SOON), Put("/c", "1", SOON), Expire(SOON - 1),
            Update("/a", "2"), Put("/b", "", LATER, refresh=True), Delete("/c"), Set("/c", "2"), Expire(SOON),
        )  # fmt: skip
        assert expired == Expired([])
        assert sorted(tree(view)) == ["/a", "/b", "/c"]

    def test_the_first_expiration_that_is_written_is_remembered(self, view: View) -> None:
        decided(view, Set("/a", "1"))
        assert view.expires is None
        decided(view, Put("/a", "1", LATER), Update("/a", "1", SOON), Create("/b", "1", LATER), Delete("/a"))
        assert view.expires == SOON


class TestFlat:
    """The short way gives what the long way does, or says that it cannot."""

    COMMANDS: Sequence[Command] = (
        Set("/a", "1"), Set("/a", "2"), Put("/a", "", SOON, refresh=True), Set("/b", "3"), Delete("/b"), Delete("/b"),
        Create("/b", "4"), Create("/a", "5"), Update("/b", "6", SOON), CompareAndSwap("/b", "7", "6"),
        CompareAndDelete("/b", "x"), Put("/d", "", None, True), Set("/d", "8"), CompareAndDelete("/b", "7"),
        Set("/a", "9"),
    )  # fmt: skip

    def test_it_agrees_with_the_long_way(self, view: View) -> None:
        batches = [self.COMMANDS[:5], self.COMMANDS[5:6], self.COMMANDS[6:]]
        flat = run_flat(batches, dict.fromkeys(["/a", "/b", "/d"]), 0)
        assert [[told(each) for each in results] for results in flat.results] == [
            [told(each) for each in decided(view, *batch)] for batch in batches
        ]
        assert (flat.changed, flat.etcd_index) == (view.changed, view.index)
        assert flat.view is not None
        assert flat.view.expires == SOON

    def test_it_knows_when_all_was_plain(self) -> None:
        flat = run_flat([[Set("/a", "1")], [Set("/a", "2")]], {"/a": None}, 0)
        first, second = Node("/a", "1", 1, 1), Node("/a", "2", 2, 2)
        assert flat == (
            [[Event("set", first, None, 1)], [Event("set", second, first, 2)]], {"/a": second}, 2, None,
        )  # fmt: skip

    @pytest.mark.parametrize(
        "command",
        [Delete("/d", recursive=True), Delete("/d", dir=True), CreateInOrder("/d", "v"), Expire(SOON)],
    )
    def test_it_refuses_what_it_cannot_see(self, command: Command) -> None:
        with pytest.raises(NeedsTree):
            run_flat([[Set("/a", "1"), command]], {"/a": None, "/d": Node("/d", None, 1, 1, dir=True)}, 1)


@pytest.mark.parametrize(
    ("commands", "keys"),
    [
        ([Set("/a", "v"), Set("/b", "v"), Set("/a", "w")], {"/a", "/b"}),
        ([Set("/a", "http://v/"), Delete("/b")], {"/a", "/b"}),
        ([Set("/a", "v"), Set("/b/c", "v")], None),
        ([Set("/a", "/"), Set("/b/c", "v")], None),
        ([CreateInOrder("/", "v")], None),
        ([Set("/a", "v"), Set("/", "v")], None),
        ([Set("/a", "v"), Expire(SOON)], None),
        ([Set("//own", "v")], None),
        ([], set()),
    ],
)
def test_the_short_way_is_for_keys_right_below_the_root(
    commands: list[Command], keys: set[str] | None
) -> None:
    assert flat_keys([(encode(commands), True)], [commands]) == keys
