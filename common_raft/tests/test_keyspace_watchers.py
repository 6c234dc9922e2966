"""Who is told of which event, and from when on.  Each answer about watchers here is one that etcd 3.5.1 gave."""

from __future__ import annotations

import threading
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
    HashMapStore,
    Keyspace,
    Put,
    Set,
    Update,
    Watch,
)
from common_raft.keyspace.history import CAPACITY
from common_raft.tests.stores_under_test import clock

SOON = 2_000_000_000 * 10**9


@pytest.fixture
def keyspace() -> Keyspace:
    return Keyspace(HashMapStore(), clock)


def apply(keyspace: Keyspace, *commands: Command) -> None:
    keyspace.apply([(keyspace.encode(commands), False)], keyspace.applied + 1)


class Told(list[Event | None]):
    """What one watcher was told."""

    watch: Watch

    @property
    def short(self) -> list[tuple[str, str, int] | None]:
        return [each and (each.action, each.node.key, each.index) for each in self]


def watch(
    keyspace: Keyspace, key: str, *, recursive: bool = False, stream: bool = True, since: int = 0
) -> Told:
    told = Told()
    told.watch = keyspace.watchers.watch(
        key, recursive=recursive, stream=stream, since=since, notify=told.append
    )
    return told


class TestWhoIsTold:
    def test_whoever_watches_a_key_is_told_of_all_that_changes_it(self, keyspace: Keyspace) -> None:
        told = watch(keyspace, "/a")
        apply(
            keyspace, Set("/a", "1"), Update("/a", "2"), CompareAndSwap("/a", "3", "2"), Delete("/b"),
            CompareAndDelete("/a", "3"), Create("/a", "4"), Set("/ab", "5"),
        )  # fmt: skip
        assert [each and each[0] for each in told.short] == [
            "set", "update", "compareAndSwap", "compareAndDelete", "compareAndDelete", "create",
        ]  # fmt: skip

    def test_one_who_wants_a_single_event_is_told_one_and_waits_no_more(self, keyspace: Keyspace) -> None:
        told, other = watch(keyspace, "/a", stream=False), watch(keyspace, "/a", stream=False)
        assert keyspace.watchers.count == 2
        apply(keyspace, Set("/a", "1"), Set("/a", "2"))
        assert told.short == other.short == [("set", "/a", 1)]
        assert keyspace.watchers.count == 0

    def test_what_happens_below_is_told_to_the_recursive(self, keyspace: Keyspace) -> None:
        plain, recursive = watch(keyspace, "/d"), watch(keyspace, "/d", recursive=True)
        root, plain_root = watch(keyspace, "/", recursive=True), watch(keyspace, "/")
        apply(keyspace, Set("/d/e/f", "1"), CreateInOrder("/d", "2"), Set("/da", "3"))
        below = [("set", "/d/e/f", 1), ("create", "/d/00000000000000000002", 2)]
        assert (plain.short, recursive.short) == ([], below)
        assert (root.short, plain_root.short) == ([*below, ("set", "/da", 3)], [])

    def test_directories_that_come_with_a_key_are_no_events(self, keyspace: Keyspace) -> None:
        told = watch(keyspace, "/d")
        apply(keyspace, Set("/d/e/f", "1"))
        assert told == []

    def test_what_is_hidden_is_told_only_to_who_knows_it(self, keyspace: Keyspace) -> None:
        root = watch(keyspace, "/", recursive=True)
        above = watch(keyspace, "/d", recursive=True)
        inside = watch(keyspace, "/d/_h", recursive=True)
        itself = watch(keyspace, "/d/_h/x")
        apply(keyspace, Set("/d/_h/x", "1"), Set("/d/_h/y/z", "2"), Set("/_h", "3"), Set("/d/x_", "4"))
        assert root.short == above.short == [("set", "/d/x_", 4)]
        assert inside.short == [("set", "/d/_h/x", 1), ("set", "/d/_h/y/z", 2)]
        assert itself.short == [("set", "/d/_h/x", 1)]

    def test_when_a_directory_goes_all_who_watch_something_in_it_are_told(self, keyspace: Keyspace) -> None:
        apply(keyspace, Set("/d/e/f", "1"), Set("/d/_h/x", "2"))
        inside = [watch(keyspace, key) for key in ("/d/e/f", "/d/e", "/d/_h", "/d/_h/x")]
        nothing_there = watch(keyspace, "/d/e/no")
        above = watch(keyspace, "/", recursive=True)
        apply(keyspace, Delete("/d", recursive=True))
        gone = ("delete", "/d", 3)
        assert [told.short for told in inside] == [[gone]] * 4
        assert (nothing_there.short, above.short) == ([], [gone])

    def test_a_stream_on_what_goes_is_told_twice_as_by_etcd(self, keyspace: Keyspace) -> None:
        apply(keyspace, Set("/d/f", "1"))
        file, directory = watch(keyspace, "/d/f"), watch(keyspace, "/d")
        recursive, once = watch(keyspace, "/d", recursive=True), watch(keyspace, "/d", stream=False)
        apply(keyspace, Delete("/d/f"), Delete("/d", dir=True))
        of_file, of_directory = ("delete", "/d/f", 2), ("delete", "/d", 3)
        assert file.short == [of_file, of_file]
        assert directory.short == [of_directory, of_directory]
        assert recursive.short == [of_file, of_directory, of_directory]
        assert once.short == [of_directory]

    def test_what_expires_is_told_as_what_is_removed(self, keyspace: Keyspace) -> None:
        apply(keyspace, Put("/d", "", SOON, True), Set("/d/f", "1"), Put("/a", "2", SOON - 1))
        inside, root = watch(keyspace, "/d/f"), watch(keyspace, "/", recursive=True)
        apply(keyspace, Expire(SOON))
        assert inside.short == [("expire", "/d", 5)]
        assert root.short == [("expire", "/a", 4), ("expire", "/d", 5)]

    def test_a_refresh_is_told_to_nobody(self, keyspace: Keyspace) -> None:
        apply(keyspace, Set("/a", "1"))
        told = watch(keyspace, "/a")
        apply(keyspace, Put("/a", "", SOON, refresh=True), Update("/a", "", SOON, refresh=True))
        apply(keyspace, CompareAndSwap("/a", "", "1", 0, SOON, True))
        assert told == []
        apply(keyspace, Set("/a", "2"))
        assert told.short == [("set", "/a", 5)]

    def test_what_failed_is_told_to_nobody(self, keyspace: Keyspace) -> None:
        told = watch(keyspace, "/", recursive=True)
        apply(keyspace, Update("/a", "1"), Set("/b", "2"), Delete("/d", recursive=True), Create("/b", "3"))
        assert told.short == [("set", "/b", 1)]

    def test_the_keys_of_the_service_itself_are_told_to_no_client(self, keyspace: Keyspace) -> None:
        root, own = watch(keyspace, "/", recursive=True), watch(keyspace, "//auth", recursive=True)
        apply(keyspace, Set("//auth/users/root", "1"), Set("/a", "2"))
        assert root.short == [("set", "/a", 2)]
        assert own.short == [("set", "//auth/users/root", 1)]
        past, own_past = (
            watch(keyspace, "/", recursive=True, since=1),
            watch(keyspace, "//auth/users/root", since=1),
        )
        assert past.short == [("set", "/a", 2)]
        assert own_past.short == [("set", "//auth/users/root", 1)]


class TestFromWhenOn:
    def test_an_index_yet_to_come_is_waited_for(self, keyspace: Keyspace) -> None:
        told = watch(keyspace, "/a", since=3)
        apply(keyspace, Set("/a", "1"), Set("/a", "2"))
        apply(keyspace, Set("/a", "3"), Set("/a", "4"))
        assert told.short == [("set", "/a", 3), ("set", "/a", 4)]

    def test_one_from_the_past_is_told_at_once_and_is_all_there_is_even_on_a_stream(
        self, keyspace: Keyspace
    ) -> None:
        apply(keyspace, Set("/a", "1"), Set("/b", "2"), Set("/a", "3"))
        told = watch(keyspace, "/a", since=2)
        apply(keyspace, Set("/a", "4"))
        assert told.short == [("set", "/a", 3)]
        assert told.watch.index == 3
        assert keyspace.watchers.count == 0

    def test_a_past_without_an_event_for_it_is_waited_through(self, keyspace: Keyspace) -> None:
        apply(keyspace, Set("/b", "1"), Set("/b", "2"))
        told = watch(keyspace, "/a", since=1)
        apply(keyspace, Set("/a", "3"))
        assert told.short == [("set", "/a", 3)]
        assert told.watch.index == 2

    def test_an_event_of_the_past_says_when_it_was(self, keyspace: Keyspace) -> None:
        apply(keyspace, Set("/a", "1"))
        (event,) = watch(keyspace, "/a", since=1)
        assert event is not None
        assert event.seen == clock()
        told = watch(keyspace, "/a")
        apply(keyspace, Set("/a", "2"))
        assert told[0] is not None
        assert told[0].seen == 0  # just now

    @pytest.mark.parametrize(
        ("key", "recursive", "since", "first"),
        [
            ("/d", False, 1, ("delete", "/d", 4)),
            ("/d", False, 5, None),
            ("/d", True, 1, ("set", "/d/_h", 1)),
            ("/d", True, 2, ("delete", "/d", 4)),
            ("/", True, 1, ("set", "/d/_h", 1)),
            ("/", True, 5, ("set", "/f", 6)),
            ("/d/_h", False, 1, ("set", "/d/_h", 1)),
            ("/d/x", False, 1, ("delete", "/d", 4)),
            ("/dx", False, 1, ("delete", "/d", 4)),
            ("/e", False, 3, ("update", "/e", 3)),
            ("/e", False, 4, None),
            ("/f", False, 7, ("compareAndDelete", "/f", 7)),
            ("/f", False, 8, None),
            ("/f/x", False, 1, None),
        ],
    )
    def test_the_past_is_searched_as_etcd_searches_it(
        self, keyspace: Keyspace, key: str, recursive: bool, since: int, first: tuple[str, str, int] | None
    ) -> None:
        """Hidden keys are shown, refreshes are not; a directory that went concerns all that begins as it does."""
        apply(
            keyspace, Set("/d/_h", "1"), Put("/e", "2", SOON), Update("/e", "3", SOON), Delete("/d", recursive=True),
            Put("/e", "", SOON, refresh=True), Set("/f", "6"), CompareAndDelete("/f", "6"),
        )  # fmt: skip
        assert watch(keyspace, key, recursive=recursive, since=since).short == ([first] if first else [])

    def test_only_so_many_events_are_kept(self, keyspace: Keyspace) -> None:
        for start in range(0, CAPACITY + 60, 7):
            apply(keyspace, *[Set(f"/{number}", "v") for number in range(start, start + 7)])
        oldest = keyspace.index - CAPACITY + 1
        assert watch(keyspace, f"/{oldest - 1}", since=oldest).short == [("set", f"/{oldest - 1}", oldest)]
        with pytest.raises(EtcdError) as caught:
            watch(keyspace, "/a", since=oldest - 1)
        assert (caught.value.code, caught.value.index) == (Code.EVENT_INDEX_CLEARED, keyspace.index)
        assert caught.value.cause == f"the requested history has been cleared [{oldest}/{oldest - 1}]"
        assert caught.value.status == 400

    def test_a_batch_of_more_events_than_are_kept_leaves_the_last(self, keyspace: Keyspace) -> None:
        apply(keyspace, *[Set(f"/{number}", "v") for number in range(CAPACITY + 5)])
        assert [event.index for event in keyspace.watchers.history()] == list(range(6, CAPACITY + 6))
        apply(keyspace, Set("/a", "1"))
        assert [event.index for event in keyspace.watchers.history()] == list(range(7, CAPACITY + 7))
        with pytest.raises(EtcdError, match=r"\[7/6\]"):
            watch(keyspace, "/a", since=6)

    def test_a_store_that_was_there_before_has_no_past_to_tell(self) -> None:
        store = HashMapStore()
        apply(Keyspace(store), Set("/a", "1"), Set("/a", "2"))
        keyspace = Keyspace(store)
        with pytest.raises(EtcdError, match=r"\[3/2\]"):
            watch(keyspace, "/a", since=2)
        assert watch(keyspace, "/a", since=3).short == []


class TestTheEnd:
    def test_who_is_closed_is_told_nothing_more(self, keyspace: Keyspace) -> None:
        told, other = watch(keyspace, "/a"), watch(keyspace, "/a")
        told.watch.close()
        told.watch.close()
        apply(keyspace, Set("/a", "1"))
        assert (told, other.short) == ([], [("set", "/a", 1)])
        assert keyspace.watchers.count == 1
        other.watch.close()
        assert keyspace.watchers.count == 0

    def test_a_watcher_may_close_itself_and_others_while_it_is_told(self, keyspace: Keyspace) -> None:
        watches: list[Watch] = []
        told = []

        def close_all(event: Event | None) -> None:
            told.append(event)
            for each in watches:
                each.close()

        watches += [
            keyspace.watchers.watch("/a", recursive=False, stream=True, since=0, notify=close_all)
            for _ in range(3)
        ]
        apply(keyspace, Set("/a", "1"))
        assert keyspace.watchers.count == 0
        assert 1 <= len(told) <= 3
        apply(keyspace, Set("/a", "2"))
        assert len(told) <= 3

    def test_one_that_fails_is_closed_and_hurts_nobody(self, keyspace: Keyspace) -> None:
        def fail(_: Event | None) -> None:
            raise ValueError("broken")

        keyspace.watchers.watch("/a", recursive=False, stream=True, since=0, notify=fail)
        told = watch(keyspace, "/a")
        apply(keyspace, Set("/a", "1"))
        assert told.short == [("set", "/a", 1)]
        assert keyspace.watchers.count == 1

    def test_a_snapshot_in_the_place_of_all_clears_watchers_and_brings_its_own_past(
        self, keyspace: Keyspace
    ) -> None:
        apply(
            keyspace,
            Set("/a", "1"),
            Put("/b", "", SOON, True),
            Set("/b/c", "3"),
            Delete("/b", recursive=True),
        )
        other = Keyspace(HashMapStore(), clock)
        apply(other, Set("/a", "old"))
        told = watch(other, "/a")
        other.restore(filter(None, keyspace.snapshot()))
        assert told == [None]
        assert other.watchers.count == 0
        assert other.watchers.history() == keyspace.watchers.history()
        assert watch(other, "/b/c", since=1).short == [("set", "/b/c", 3)]
        apply(other, Set("/a", "2"))
        assert told == [None]
        assert [event.index for event in other.watchers.history()] == [1, 2, 3, 4, 5]

    def test_watchers_may_be_cleared_in_another_place_than_the_snapshot_is_restored_in(
        self, keyspace: Keyspace
    ) -> None:
        calls: list[object] = []
        keyspace.watchers.clear_in(calls.append)
        told = watch(keyspace, "/a")
        keyspace.restore(list(filter(None, keyspace.snapshot())))
        assert (len(calls), told) == (1, [])
        calls[0]()  # type: ignore[operator]
        assert told == [None]

    def test_a_service_that_stops_clears_all_and_whoever_still_comes(self, keyspace: Keyspace) -> None:
        apply(keyspace, Set("/a", "1"))
        told = watch(keyspace, "/a")
        keyspace.watchers.close()
        keyspace.watchers.close()
        assert told == watch(keyspace, "/a") == [None]
        assert watch(keyspace, "/a", since=1).short == [("set", "/a", 1)]
        assert keyspace.watchers.count == 0


def test_threads_that_come_and_go_miss_nothing_between_the_past_and_what_is_to_come(
    keyspace: Keyspace,
) -> None:
    """Whoever asks for index n gets it, whether it is past, or just being applied, or yet to come."""
    last = 600
    outcomes: list[Sequence[tuple[str, str, int] | None]] = []

    def follow() -> None:
        told = Told()
        come = threading.Semaphore(0)

        def notify(event: Event | None) -> None:
            told.append(event)
            come.release()

        for index in range(1, last + 1):
            keyspace.watchers.watch("/a", recursive=False, stream=False, since=index, notify=notify)
            assert come.acquire(timeout=20)
        outcomes.append(told.short)

    followers = [threading.Thread(target=follow) for _ in range(3)]
    for each in followers:
        each.start()
    for _ in range(last):
        apply(keyspace, Set("/a", "v"))
    for each in followers:
        each.join(60)
    assert outcomes == [[("set", "/a", index) for index in range(1, last + 1)]] * 3
    assert keyspace.watchers.count == 0
