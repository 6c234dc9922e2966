"""etcd v2's keyspace as a replicated state machine, over any store.

A committed batch is one cycle: read what it may touch, decide (``decide.py``), write what it changed. The order of
commands is the log's; that all replicas apply the same batches in the same order is for whoever calls to see to.
"""

from collections.abc import Sequence

from common_raft.keyspace.commands import Command, decode, encode
from common_raft.keyspace.decide import Result, View
from common_raft.keyspace.errors import Code, EtcdError
from common_raft.keyspace.node import Event
from common_raft.keyspace.store import Store


class Keyspace:
    """The state machine of a node. Not safe for use by several threads at a time."""

    __slots__ = ("_store",)

    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def index(self) -> int:
        """The etcd index: how many changes this keyspace has seen; a command that fails is none."""
        return self._store.index

    def encode(self, commands: Sequence[Command]) -> bytes:
        """A batch of commands as the bytes for one log entry."""
        return encode(commands)

    def apply(self, batches: Sequence[tuple[bytes, bool]]) -> list[Sequence[Result] | None]:
        """Carry out committed batches, in log order.

        Each comes with whether somebody waits for its results: a list of them, or None if nobody does.
        Raises msgspec.DecodeError, with nothing applied, if a batch is not what ``encode`` gave.
        """
        decoded = [(decode(data), wanted) for data, wanted in batches]
        keys = {command.key for commands, _ in decoded for command in commands}
        store = self._store
        view = View(store.get_many(keys), store.index)
        answers: list[Sequence[Result] | None] = []
        for commands, wanted in decoded:
            results = view.run(commands)
            answers.append(results if wanted else None)
        if view.changed:
            upserts, deletes = view.write_set()
            store.write(upserts, deletes, view.index)
        return answers

    def get(self, key: str) -> Result:
        """Read one key as this replica has it now."""
        node = self._store.get(key)
        if node is None:
            return EtcdError(Code.KEY_NOT_FOUND, key, self._store.index)
        return Event("get", node, None, self._store.index)
