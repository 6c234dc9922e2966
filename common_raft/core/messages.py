"""What Raft cores say to each other and what they write down.

Plain values only: frozen, compared by value, encoded by the transport as they stand.  The names are those of
the Raft paper (figure 2) and of Ongaro's thesis; where etcd's raft has a message that the paper lacks
(pre-vote, heartbeat apart from append, read index, timeout now), the name is etcd's without the "Msg".

Every message carries ``to`` and ``sender`` (node ids, unsigned 64 bit) and ``term``: the sender's current term,
except for a pre-vote request and its grant, which carry the term that the candidate *would* campaign in.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TypeAlias

from msgspec import Struct

from common_raft.core.configuration import Configuration

#: No node has this id: it stands for "nobody" in votes and for "not known" as a leader.
NOBODY = 0


class EntryKind(IntEnum):
    """What an entry's data means to whoever applies it."""

    NOOP = 0  #: appended by a new leader so that it can commit in its own term (paper, section 8)
    COMMANDS = 1  #: opaque to the core; the driver's batch of commands
    CONFIGURATION = 2  #: an encoded `configuration.ConfChanges`


class Entry(Struct, frozen=True, array_like=True, gc=False):
    """One slot of the log.  Its index is implied by its position, so that none is stored twice."""

    term: int
    kind: EntryKind
    data: bytes


class HardState(Struct, frozen=True, array_like=True, gc=False):
    """What must be on disk before anything that depends on it is said (paper, figure 2, "persistent state").

    ``commit`` is written along with entries, and is not promised otherwise.  So a disk that holds the entry of a
    configuration also says that the one before it is committed: a node that starts again never campaigns in a
    configuration older than that (see `configuration`).
    """

    term: int = 0
    vote: int = NOBODY
    commit: int = 0


class SnapshotMeta(Struct, frozen=True, array_like=True):
    """Which entries a snapshot stands for: all up to ``index``, which is of ``term`` (paper, section 7).

    ``configuration`` is the one in effect there.  The state itself is a file that the core never sees.
    """

    index: int
    term: int
    configuration: Configuration


class RequestVote(Struct, frozen=True, array_like=True, gc=False, tag=1):
    """A candidate asks for a vote; with ``pre_vote`` set it only asks whether it would get one (thesis 9.6).

    ``transfer`` tells that the leader itself asked for this election (thesis 3.10), so that the receiver's
    leader lease does not stand against it.
    """

    to: int
    sender: int
    term: int
    last_index: int
    last_term: int
    pre_vote: bool = False
    transfer: bool = False


class VoteResponse(Struct, frozen=True, array_like=True, gc=False, tag=2):
    """A refusal tells what the sender knows to be committed, as (``commit``, ``commit_term``).

    Without that a leader that was removed, and has more in its log than those it left, could block them for ever:
    they need its vote as long as they do not know that its removal is committed (raft-rs, maybe_commit_by_vote).
    """

    to: int
    sender: int
    term: int
    granted: bool
    pre_vote: bool = False
    commit: int = 0
    commit_term: int = 0


class AppendEntries(Struct, frozen=True, array_like=True, tag=3):
    """Entries ``prev_index + 1 ...`` in order; empty when it only probes where the logs meet."""

    to: int
    sender: int
    term: int
    prev_index: int
    prev_term: int
    entries: list[Entry]
    commit: int


class AppendResponse(Struct, frozen=True, array_like=True, gc=False, tag=4):
    """``rejected`` false: everything up to ``index`` is on the sender's disk and matches the leader's log.

    ``rejected`` true: the sender's log does not hold the ``prev_index`` (repeated in ``index``) that was offered;
    its best guess for where the logs meet is (``hint_index``, ``hint_term``), see ``log.find_conflict_by_term``.
    """

    to: int
    sender: int
    term: int
    index: int
    rejected: bool = False
    hint_index: int = 0
    hint_term: int = 0


class Heartbeat(Struct, frozen=True, array_like=True, gc=False, tag=5):
    """``commit`` is never above what is known to match, so that a follower may take it as it is.

    ``read_round`` numbers the leader's confirmation rounds for ReadIndex (thesis 6.4).
    """

    to: int
    sender: int
    term: int
    commit: int
    read_round: int


class HeartbeatResponse(Struct, frozen=True, array_like=True, gc=False, tag=6):
    to: int
    sender: int
    term: int
    read_round: int


class ReadIndex(Struct, frozen=True, array_like=True, gc=False, tag=7):
    """A follower asks the leader for an index at which its reads are linearizable; ``context`` comes back."""

    to: int
    sender: int
    term: int
    context: int


class ReadIndexResponse(Struct, frozen=True, array_like=True, gc=False, tag=8):
    to: int
    sender: int
    term: int
    context: int
    index: int


class TimeoutNow(Struct, frozen=True, array_like=True, gc=False, tag=9):
    """The leader hands over: campaign at once, without pre-vote (thesis 3.10)."""

    to: int
    sender: int
    term: int


class Commit(Struct, frozen=True, array_like=True, gc=False, tag=10):
    """Entry ``index``, which is of ``index_term``, is committed.  Not answered.

    Neither the paper nor etcd has it: both send an empty append, whose answer tells the leader nothing.  It spares
    two messages in three where appends are rare.  A receiver that lacks that entry ignores it: heartbeats repeat
    the news.
    """

    to: int
    sender: int
    term: int
    index: int
    index_term: int


class InstallSnapshot(Struct, frozen=True, array_like=True, tag=11):
    """The follower needs entries that its leader has only in a snapshot any more (paper, figure 13).

    Only what describes it: the drivers carry the file, in their own way and time, and hand the message to the
    receiving core when all of it is on the receiver's disk.
    """

    to: int
    sender: int
    term: int
    snapshot: SnapshotMeta


Message: TypeAlias = (
    RequestVote
    | VoteResponse
    | AppendEntries
    | AppendResponse
    | Heartbeat
    | HeartbeatResponse
    | ReadIndex
    | ReadIndexResponse
    | TimeoutNow
    | Commit
    | InstallSnapshot
)
