"""Watchers of the service's own keys: told of those alone, seen by nobody, and no burden to all others."""

from common_raft.keyspace import Create, Event, HashMapStore, Keyspace, Set, watchers
from common_raft.keyspace.commands import Command


class Told:
    def __init__(self) -> None:
        self.keyspace = Keyspace(HashMapStore())
        self.keys: list[str] = []
        self.entries = 0

    def note(self, event: Event | None) -> None:
        assert event is not None
        self.keys.append(event.node.key)

    def watch(self, key: str) -> watchers.Watch:
        return self.keyspace.watchers.watch(key, recursive=True, stream=True, since=0, notify=self.note)

    def apply(self, *commands: Command) -> None:
        self.entries += 1
        self.keyspace.apply([(self.keyspace.encode(commands), False)], self.entries)


def test_they_are_told_of_the_services_own_keys_alone_and_clients_of_theirs() -> None:
    told = Told()
    told.watch("//own")
    told.apply(Set("/k", "1"), Create("//own/a", "1"), Create("/own/b", "1"))
    told.apply(Set("//own/a", "2"), Set("//other", "1"))
    assert told.keys == ["//own/a", "//own/a"]
    told.keys.clear()
    told.watch("/")
    told.apply(Set("/k", "1"), Set("//own/a", "1"))
    assert told.keys == ["/k", "//own/a"]


def test_they_do_not_count() -> None:
    told = Told()
    own = told.watch("//own")
    assert told.keyspace.watchers.count == 0
    clients = told.watch("/k")
    assert told.keyspace.watchers.count == told.keyspace.stats.watchers == 1
    own.close()
    clients.close()
    assert told.keyspace.watchers.count == 0


def test_while_no_client_watches_nobody_looks_at_plain_changes() -> None:
    told = Told()
    told.watch("//own")
    looked: list[object] = []
    calls = told.keyspace.watchers._calls
    told.keyspace.watchers._calls = lambda *args: looked.append(args) or calls(*args)  # type: ignore[method-assign]
    told.apply(Set("/k", "1"))
    told.apply(Create("/a/b", "1"))
    assert looked == []
    told.apply(Set("//own/a", "1"))
    assert len(looked) == 1 and told.keys == ["//own/a"]
