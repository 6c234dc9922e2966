"""The log in memory follows the rules of the log on disk."""

from __future__ import annotations

import pytest

from common_raft.core import Configuration, SnapshotMeta
from common_raft.core.messages import Entry, EntryKind, HardState
from common_raft.storage import MemoryStorage


def entries(term: int, count: int) -> list[Entry]:
    return [Entry(term, EntryKind.COMMANDS, b"%d" % place) for place in range(count)]


def test_a_new_storage_is_what_a_new_node_finds() -> None:
    storage = MemoryStorage()
    assert (storage.hard_state, storage.first_index, storage.entries) == (HardState(), 1, [])
    assert storage.last_index == 0


def test_entries_are_appended_and_the_hard_state_replaced() -> None:
    storage = MemoryStorage()
    storage.append(HardState(1, 2, 0), 1, entries(1, 2))
    storage.append(None, 3, entries(1, 1))
    assert storage.last_index == 3
    assert storage.hard_state == HardState(1, 2, 0)


def test_entries_replace_everything_from_their_first_index_on() -> None:
    storage = MemoryStorage()
    storage.append(None, 1, entries(1, 5))
    storage.append(None, 2, entries(2, 1))
    assert [entry.term for entry in storage.entries] == [1, 2]


def test_no_entries_leave_the_log_as_it_is() -> None:
    storage = MemoryStorage(None, 1, entries(1, 5))
    storage.append(HardState(7, 0, 0), 1, [])
    assert storage.last_index == 5


@pytest.mark.parametrize("first_index", [3, 13])
def test_a_gap_is_refused(first_index: int) -> None:
    storage = MemoryStorage(None, 10, entries(1, 2))
    with pytest.raises(ValueError, match="do not fit a log of 10 to 11"):
        storage.append(None, first_index, entries(1, 1))


def snapshot(index: int, term: int) -> SnapshotMeta:
    return SnapshotMeta(index, term, Configuration((1,)))


def test_a_snapshot_of_what_the_log_holds_leaves_the_log_until_it_is_purged() -> None:
    storage = MemoryStorage(None, 1, entries(1, 5))
    storage.mark_snapshot(snapshot(3, 1))
    assert (storage.first_index, storage.last_index) == (1, 5)
    storage.purge(2)
    assert (storage.first_index, storage.last_index) == (3, 5)
    storage.purge(1)
    assert (storage.first_index, storage.last_index) == (3, 5)


@pytest.mark.parametrize(("index", "term"), [(3, 2), (9, 1)])
def test_a_snapshot_of_another_log_replaces_it(index: int, term: int) -> None:
    storage = MemoryStorage(None, 1, entries(1, 5))
    storage.mark_snapshot(snapshot(index, term))
    assert (storage.first_index, storage.entries) == (index + 1, [])
    storage.append(None, index + 1, entries(2, 1))
    storage.mark_snapshot(snapshot(index, term))
    assert storage.last_index == index + 1


def test_only_what_a_snapshot_holds_is_purged() -> None:
    storage = MemoryStorage(None, 1, entries(1, 5))
    with pytest.raises(ValueError, match="up to 1: the snapshot ends at 0"):
        storage.purge(1)
    storage.mark_snapshot(snapshot(3, 1))
    with pytest.raises(ValueError, match="up to 4: the snapshot ends at 3"):
        storage.purge(4)
