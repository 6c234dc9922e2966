"""What ``/v2/stats/store`` counts: operations on the keyspace, since this node started.

Source: etcd 3.5, ``server/etcdserver/api/v2store/stats.go``, and where ``store.go`` counts, which is not always where
one would expect it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

from common_raft.keyspace.commands import (
    Command,
    CompareAndDelete,
    CompareAndSwap,
    Create,
    CreateInOrder,
    Delete,
    Put,
    Set,
    Update,
)
from common_raft.keyspace.decide import Expired, Result
from common_raft.keyspace.errors import Code
from common_raft.keyspace.node import Event


class StoreStats(Struct, array_like=True):
    """Counters, in etcd's order and by its names (``getsSuccess`` ...)."""

    gets_success: int = 0
    gets_fail: int = 0
    sets_success: int = 0
    sets_fail: int = 0
    delete_success: int = 0
    delete_fail: int = 0
    update_success: int = 0
    update_fail: int = 0
    create_success: int = 0
    create_fail: int = 0
    compare_and_swap_success: int = 0
    compare_and_swap_fail: int = 0
    compare_and_delete_success: int = 0
    compare_and_delete_fail: int = 0
    expire_count: int = 0
    watchers: int = 0  #: those that wait just now

    def count_reads(self, results: Iterable[Result]) -> None:
        for result in results:
            if isinstance(result, Event):
                self.gets_success += 1
            else:
                self.gets_fail += 1

    def count(self, commands: Sequence[Command], results: Sequence[Result]) -> None:
        """A batch that was applied."""
        for command, result in zip(commands, results, strict=True):
            if isinstance(result, Expired):
                self.expire_count += len(result.events)
                continue
            name, passing = _NAMES[type(command)]
            if isinstance(result, Event) or result.code in passing:
                name += "_success"
            else:
                name += "_fail"
                if type(command) in _MAKING and result.code is Code.NOT_DIR:
                    self.sets_fail += 1  # a path that cannot be walked counts as this as well
            setattr(self, name, getattr(self, name) + 1)


#: Errors that etcd returns without noting them, and so counts as a success.
_ROOT = frozenset((Code.ROOT_READ_ONLY,))
_NAMES: dict[type[Command], tuple[str, frozenset[Code]]] = {
    Set: ("sets", frozenset()),
    Put: ("sets", frozenset()),
    Delete: ("delete", _ROOT),
    Create: ("create", frozenset()),
    CreateInOrder: ("create", frozenset()),
    Update: ("update", frozenset((Code.ROOT_READ_ONLY, Code.NOT_FILE, Code.RAFT_INTERNAL))),
    CompareAndSwap: ("compare_and_swap", _ROOT),
    CompareAndDelete: ("compare_and_delete", frozenset((Code.NOT_FILE, Code.TEST_FAILED))),
}
_MAKING = frozenset((Create, CreateInOrder))
