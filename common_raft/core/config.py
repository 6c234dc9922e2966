"""How one node takes part, and what it finds when it starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from common_raft.core.configuration import MAX_ID, is_id
from common_raft.core.errors import LogDamaged
from common_raft.core.log import RaftLog
from common_raft.core.messages import Entry, HardState, SnapshotMeta


class Rng(Protocol):
    """Where randomness comes from; `random.Random` fits."""

    def randrange(self, start: int, stop: int, /) -> int: ...


class Stored(Protocol):
    """What a node finds on its disk when it starts; read once.

    ``entries[0]`` has index ``first_index``.  They go on behind the ``snapshot``, or begin before it and hold its
    last entry; those that end before it are of no use.  A snapshot of index 0 tells the first configuration.
    """

    @property
    def hard_state(self) -> HardState: ...
    @property
    def first_index(self) -> int: ...
    @property
    def entries(self) -> Sequence[Entry]: ...
    @property
    def snapshot(self) -> SnapshotMeta | None: ...


def stored_log(stored: Stored) -> RaftLog:
    """The log that a disk holds, as early as its terms are known.  Raises LogDamaged where its parts do not meet."""
    snapshot, first, entries = stored.snapshot, stored.first_index, stored.entries
    index, term = (0, 0) if snapshot is None else (snapshot.index, snapshot.term)
    if index < first - 1:
        raise LogDamaged(
            f"the log begins with entry {first}, and the snapshot ends at {index}: what is between them is gone; "
            "remove the member and add it again"
        )
    if index > first - 1 + len(entries):
        return RaftLog(index + 1, [], term)
    if index == first - 1:
        return RaftLog(first, entries, term)
    if entries[index - first].term != term:
        raise LogDamaged(
            f"entry {index} is of term {entries[index - first].term}, but the snapshot that ends there says {term}: "
            "they do not belong together; remove the member and add it again"
        )
    if first == 1:
        return RaftLog(1, entries)
    # The term before the first entry is not known, so that the first one only serves as the offset.
    return RaftLog(first + 1, entries[1:], entries[0].term)


#: The numbers of a `Config`, and the least that each may be.
_LEAST = {
    "election_tick": 1,
    "heartbeat_tick": 1,
    "max_message_bytes": 0,
    "max_inflight_messages": 1,  # else nothing would ever be sent
    "max_inflight_bytes": 1,
    "max_uncommitted_bytes": 0,
    "max_apply_bytes": 0,
}
_SWITCHES = ("pre_vote", "check_quorum", "lease_reads")


@dataclass(frozen=True, slots=True)
class Config:
    """How one node takes part.  Ticks are the driver's unit of time; etcd's defaults are 10 and 1.

    Raises ValueError for what cannot work.
    """

    id: int
    #: The first configuration, when the disk has no snapshot that knows better.  A node that is not among them waits
    #: until it is told that it has been added.
    voters: tuple[int, ...]
    election_tick: int = 10  #: a follower campaigns after this many silent ticks, and up to as many again
    heartbeat_tick: int = 1
    max_message_bytes: int = 1 << 20  #: of entries in one append (one entry is always let through)
    max_inflight_messages: int = 256  #: appends to one follower without an answer
    max_inflight_bytes: int = 64 << 20
    max_uncommitted_bytes: int = 256 << 20  #: proposals beyond this are dropped until some commit
    max_apply_bytes: int = 64 << 20  #: of committed entries in one Ready (one entry is always let through)
    pre_vote: bool = True
    check_quorum: bool = True
    #: The leader answers reads without asking a majority each time: see `reads.Lease` for what it rests on.
    lease_reads: bool = False

    def __post_init__(self) -> None:
        if not is_id(self.id):
            raise ValueError(f"id {self.id!r} must be a whole number from 1 to {MAX_ID}")
        if not all(map(is_id, self.voters)):
            raise ValueError(f"voters {self.voters!r} must be whole numbers from 1 to {MAX_ID}")
        if len(set(self.voters)) != len(self.voters):
            raise ValueError(f"voters {self._voters} must differ from each other")
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ValueError(f"{name} {value!r} must be a whole number, {least} or above")
        for name in _SWITCHES:
            value = getattr(self, name)
            if type(value) is not bool:
                raise ValueError(f"{name} {value!r} must be True or False")
        if self.heartbeat_tick >= self.election_tick:
            raise ValueError(
                f"heartbeat_tick {self.heartbeat_tick} must be below election_tick {self.election_tick}"
            )
        if self.lease_reads and not self.check_quorum:
            raise ValueError("lease_reads need check_quorum: without it nobody keeps to the leader's lease")

    @property
    def _voters(self) -> str:
        return str([f"{voter:x}" for voter in self.voters])
