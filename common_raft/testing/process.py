"""One simulated process: a core, its disk, its state machine, and the driver's duties between them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from common_raft.core import (
    NOBODY,
    Config,
    Configuration,
    Entry,
    EntryKind,
    RawNode,
    Ready,
    Rng,
    Role,
    SnapshotMeta,
    Stored,
    decode_changes,
)
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
    offset: int
    configuration: Configuration

    @classmethod
    def of(cls, node: RawNode) -> View:
        log = node.log
        last = log.last_index
        return cls(
            node.term,
            node.vote,
            node.role,
            log.committed,
            last,
            log.term(last),
            log.persisted,
            log.offset,
            node.configuration,
        )


class Process:
    """``life`` counts starts: what belongs to an earlier life (a disk's answer, a tick) must not reach this one."""

    __slots__ = (
        "applied",
        "backlog",
        "config",
        "disk",
        "doomed",
        "drive_due",
        "found",
        "handed_out",
        "id",
        "life",
        "machine",
        "node",
        "over",
        "paused",
        "paused_at",
        "restore_from",
        "seen",
        "silent_ticks",
        "tick_length",
        "to_apply",
        "written",
    )

    def __init__(self, node_id: int, disk: Disk | None = None) -> None:
        self.id = node_id
        self.disk = Disk() if disk is None else disk
        self.found = self.disk.stored  #: what was read at the last start
        self.life = 0
        self.config: Config | None = None
        self.node: RawNode | None = None
        self.machine: StateMachine | None = None
        self.seen = View(0, NOBODY, Role.FOLLOWER, 0, 0, 0, 0, 0, Configuration(()))
        self.tick_length = 1.0
        self.doomed = False  #: its disk is damaged: it will not start again
        self.over = False  #: it will never run again: it was removed, or its disk has been emptied
        self.paused_at = 0.0
        self._forget()

    def _forget(self) -> None:
        self.paused = False
        self.silent_ticks = 0  #: the clock was set back: so many ticks pass unnoticed
        self.backlog: list[Callable[[], None]] = []  #: input that came while paused
        self.drive_due = False  #: the driver will take a Ready later
        self.to_apply: deque[tuple[int, Entry]] = deque()
        self.restore_from: SnapshotMeta | None = None  #: a snapshot for the machine, before all of to_apply
        self.handed_out = 0  #: index of the last entry in to_apply, ever
        self.applied = 0
        self.written: list[
            int
        ] = []  #: the terms of the log as the Readies have told it; behind a snapshot its own

    @property
    def lease_reads(self) -> bool:
        """Whether its core relies on its ticks, so that it must make up for those that it missed."""
        return self.config is not None and self.config.lease_reads

    @property
    def running(self) -> bool:
        return self.node is not None

    @property
    def core(self) -> RawNode:
        if self.node is None:
            raise RuntimeError(f"process {self.id} is not running")
        return self.node

    def start(self, config: Config, rng: Rng, make_node: MakeNode, make_machine: MakeMachine) -> None:
        """Reads the disk and runs.  Raises DiskDamaged, and stays down, when the disk is not to be trusted."""
        self.life += 1
        self._forget()
        self.config = config
        stored = self.found = self.disk.recover()
        self.machine = make_machine()
        self.written = [0] * (stored.first_index - 1) + [entry.term for entry in stored.entries]
        if stored.snapshot is not None:
            self._restore(stored.snapshot)
            self.written[: stored.snapshot.index] = [stored.snapshot.term] * stored.snapshot.index
        self.handed_out = self.applied
        self.node = make_node(config, stored, rng)
        self.seen = View.of(self.node)

    def crash(self, survivors: int, torn: int = 0) -> None:
        self.disk.crash(survivors, torn)
        self.node = None
        self.machine = None
        self._forget()

    def take(self, ready: Ready) -> None:
        """Puts what a Ready says into the queues of the disk and of the state machine."""
        self.disk.submit(
            Write(
                ready.number,
                ready.hard_state,
                ready.first_index,
                ready.entries,
                ready.messages_after_append,
                ready.snapshot,
            )
        )
        if ready.snapshot is not None:
            self.to_apply.clear()  # it stands for all of them
            self.restore_from = ready.snapshot
            self.written = [ready.snapshot.term] * ready.snapshot.index
            self.handed_out = ready.snapshot.index
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
        elif entry.kind is EntryKind.CONFIGURATION:
            self.core.apply_conf_change(index, decode_changes(entry.data))
        self.applied = index
        return index, entry

    def take_snapshot(self) -> SnapshotMeta:
        """Keeps the state of the machine as a file, at once; the disk and the core know of it."""
        meta = self.core.snapshot_meta()
        if self.machine is not None:
            self.disk.files[meta.index, meta.term] = self.machine.snapshot()
        self.disk.mark_snapshot(meta)
        self.core.snapshot_available(meta)
        return meta

    def can_restore(self) -> bool:
        """Whether the disk has marked the snapshot that the machine waits for."""
        waiting, marked = self.restore_from, self.disk.stored.snapshot
        return waiting is not None and marked is not None and waiting.index <= marked.index

    def restore_next(self) -> SnapshotMeta:
        """Restores the machine from the snapshot that it waits for; returns that."""
        meta, self.restore_from = self.restore_from, None
        if meta is None:
            raise RuntimeError(f"process {self.id} waits for no snapshot")
        self._restore(meta)
        return meta

    def _restore(self, meta: SnapshotMeta) -> None:
        if self.machine is not None and meta.index:
            self.machine.restore(self.disk.files[meta.index, meta.term])
        self.applied = meta.index
