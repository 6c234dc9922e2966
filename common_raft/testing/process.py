"""One simulated process: a core, its disk, its state machine, and the driver's duties between them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from common_raft.core import NOBODY, Config, Entry, EntryKind, RawNode, Ready, Rng, Role, Stored
from common_raft.testing.disk import Disk, Write
from common_raft.testing.machine import StateMachine

MakeNode: TypeAlias = Callable[[Config, Stored, Rng], RawNode]
MakeMachine: TypeAlias = Callable[[], StateMachine]


class View(NamedTuple):
    """What the invariants compare from step to step."""

    term: int
    vote: int
    role: Role
    commit: int
    last_index: int
    last_term: int
    persisted: int

    @classmethod
    def of(cls, node: RawNode) -> View:
        log = node.log
        last = log.last_index
        return cls(node.term, node.vote, node.role, log.committed, last, log.term(last), log.persisted)


class Process:
    """``life`` counts starts: what belongs to an earlier life (a disk's answer, a tick) must not reach this one."""

    __slots__ = (
        "applied",
        "backlog",
        "disk",
        "drive_due",
        "handed_out",
        "id",
        "life",
        "machine",
        "node",
        "paused",
        "seen",
        "tick_length",
        "to_apply",
        "written",
    )

    def __init__(self, node_id: int) -> None:
        self.id = node_id
        self.disk = Disk()
        self.life = 0
        self.node: RawNode | None = None
        self.machine: StateMachine | None = None
        self.seen = View(0, NOBODY, Role.FOLLOWER, 0, 0, 0, 0)
        self.tick_length = 1.0
        self._forget()

    def _forget(self) -> None:
        self.paused = False
        self.backlog: list[Callable[[], None]] = []  #: input that came while paused
        self.drive_due = False  #: the driver will take a Ready later
        self.to_apply: deque[tuple[int, Entry]] = deque()
        self.handed_out = 0  #: index of the last entry in to_apply, ever
        self.applied = 0
        self.written: list[int] = []  #: the terms of the log as the Readies have told it

    @property
    def running(self) -> bool:
        return self.node is not None

    @property
    def core(self) -> RawNode:
        if self.node is None:
            raise RuntimeError(f"process {self.id} is not running")
        return self.node

    def start(self, config: Config, rng: Rng, make_node: MakeNode, make_machine: MakeMachine) -> None:
        self.life += 1
        self._forget()
        self.written = [entry.term for entry in self.disk.stored.entries]
        self.machine = make_machine()
        self.node = make_node(config, self.disk.stored, rng)
        self.seen = View.of(self.node)

    def crash(self, survivors: int) -> None:
        self.disk.crash(survivors)
        self.node = None
        self.machine = None
        self._forget()

    def take(self, ready: Ready) -> None:
        """Puts what a Ready says into the queues of the disk and of the state machine."""
        self.disk.submit(
            Write(
                ready.number, ready.hard_state, ready.first_index, ready.entries, ready.messages_after_append
            )
        )
        if ready.entries:
            self.written[ready.first_index - 1 :] = [entry.term for entry in ready.entries]
        for position, entry in enumerate(ready.committed):
            self.to_apply.append((ready.committed_index + position, entry))
        if ready.committed:
            self.handed_out = ready.committed_index + len(ready.committed) - 1

    def apply_next(self) -> tuple[int, Entry]:
        """Applies the next committed entry; returns it."""
        index, entry = self.to_apply.popleft()
        if entry.kind is EntryKind.COMMANDS and self.machine is not None:
            self.machine.apply(index, entry.data)
        self.applied = index
        return index, entry
