"""The counters of ``/v2/stats/store``: each number here is what etcd 3.5.1 counted for the same requests."""

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
    HashMapStore,
    Keyspace,
    Put,
    Set,
    StoreStats,
    StoreUnavailable,
    Update,
)

SOON = 2_000_000_000 * 10**9


def counted(keyspace: Keyspace, *commands: Command) -> dict[str, int]:
    """What the commands, as one batch, add to the counters."""
    before = msgspec.structs.asdict(keyspace.stats)
    keyspace.apply([(keyspace.encode(commands), False)], keyspace.applied + 1)
    after = msgspec.structs.asdict(keyspace.stats)
    return {name: after[name] - before[name] for name in after if after[name] != before[name]}


@pytest.fixture
def keyspace() -> Keyspace:
    keyspace = Keyspace(HashMapStore())
    commands: list[Command] = [Set("/f", "1"), Set("/d/x", "2")]
    keyspace.apply([(keyspace.encode(commands), False)], 1)
    return keyspace


@pytest.mark.parametrize(
    ("command", "what"),
    [
        (Set("/f", "v"), {"sets_success": 1}),
        (Put("/n", "", SOON, True), {"sets_success": 1}),
        (Set("/d", "v"), {"sets_fail": 1}),
        (Set("/f/x", "v"), {"sets_fail": 1}),
        (Put("/no", "", SOON, refresh=True), {"sets_fail": 1}),
        (Set("/", "v"), {"sets_fail": 1}),
        (Create("/n", "v"), {"create_success": 1}),
        (Create("/f", "v"), {"create_fail": 1}),
        (Create("/", "v"), {"create_fail": 1}),
        (Create("/f/x", "v"), {"create_fail": 1, "sets_fail": 1}),
        (CreateInOrder("/d", "v"), {"create_success": 1}),
        (CreateInOrder("/f", "v"), {"create_fail": 1, "sets_fail": 1}),
        (Update("/f", "v"), {"update_success": 1}),
        (Update("/no", "v"), {"update_fail": 1}),
        (Update("/d", "v"), {"update_success": 1}),
        (Update("/d", ""), {"update_success": 1}),
        (Update("/", "v"), {"update_success": 1}),
        (CompareAndSwap("/f", "v", "1"), {"compare_and_swap_success": 1}),
        (CompareAndSwap("/f", "v", "2"), {"compare_and_swap_fail": 1}),
        (CompareAndSwap("/d", "v", "2"), {"compare_and_swap_fail": 1}),
        (CompareAndSwap("/", "v", "2"), {"compare_and_swap_success": 1}),
        (Delete("/f"), {"delete_success": 1}),
        (Delete("/d"), {"delete_fail": 1}),
        (Delete("/no"), {"delete_fail": 1}),
        (Delete("/"), {"delete_success": 1}),
        (CompareAndDelete("/f", "1"), {"compare_and_delete_success": 1}),
        (CompareAndDelete("/f", "2"), {"compare_and_delete_success": 1}),
        (CompareAndDelete("/d", "2"), {"compare_and_delete_success": 1}),
        (CompareAndDelete("/no", "2"), {"compare_and_delete_fail": 1}),
        (Expire(SOON), {}),
    ],
    ids=repr,
)
def test_each_command_counts_where_etcd_counts_it(
    keyspace: Keyspace, command: Command, what: dict[str, int]
) -> None:
    assert counted(keyspace, command) == what


def test_what_expires_is_counted_and_a_directory_once(keyspace: Keyspace) -> None:
    what = counted(
        keyspace, Put("/a", "1", SOON), Put("/b", "", SOON, True), Put("/b/c", "", SOON + 1), Expire(SOON + 1)
    )
    assert what == {"sets_success": 3, "expire_count": 2}


def test_plain_batches_are_counted_as_a_whole(keyspace: Keyspace) -> None:
    assert counted(keyspace, *[Set(f"/{number}", "v") for number in range(50)]) == {"sets_success": 50}


def test_watchers_are_counted_as_they_are_now(keyspace: Keyspace) -> None:
    watch = keyspace.watchers.watch("/a", recursive=False, stream=True, since=0, notify=print)
    assert keyspace.stats.watchers == 1
    watch.close()
    assert keyspace.stats == StoreStats(sets_success=2)


def test_what_is_seen_again_or_was_not_written_counts_once() -> None:
    class Away(HashMapStore):
        away = True

        def write(self, *arguments: object) -> None:
            if self.away:
                raise StoreUnavailable("away")
            super().write(*arguments)  # type: ignore[arg-type]

    store = Away()
    keyspace = Keyspace(store)
    batch = [(keyspace.encode([Set("/a", "1")]), True)]
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            keyspace.apply(batch, 1)
    store.away = False
    keyspace.apply(batch, 1)
    keyspace.apply(batch, 1)
    assert keyspace.stats == StoreStats(sets_success=1)
