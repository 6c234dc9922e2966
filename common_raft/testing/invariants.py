"""What must hold after every step, whatever fails.

Each rule is a class: its docstring says what must hold and where that comes from, its hooks look at what has just
changed, and at nothing else, so that the cost of a step does not grow with the length of the logs.  `RULES` is
the table of them.  A new rule is one more class in it.

The observer behind the rules is omniscient: it sees all cores and disks, in one order of events.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from typing import Any

from common_raft.core import (
    NOBODY,
    Configuration,
    Entry,
    EntryKind,
    Message,
    ReadState,
    Ready,
    Role,
    SnapshotMeta,
    decode_changes,
)
from common_raft.core.messages import AppendResponse, InstallSnapshot, RequestVote, VoteResponse
from common_raft.core.quorum import has_quorum
from common_raft.testing.process import Process, View


class Violation(AssertionError):
    """A rule does not hold.  ``rule`` is the name of its class."""

    def __init__(self, rule: str, what: str) -> None:
        super().__init__(f"{rule}: {what}")
        self.rule = rule


class History:
    """What the observer knows: the committed entries, in order, in which term each became so, and which
    configurations they made.
    """

    def __init__(self, processes: Mapping[int, Process]) -> None:
        self.processes = processes  #: may grow
        self.committed: list[Entry] = []  #: of index 1, 2, ...
        self.commit_terms: list[int] = []  #: parallel to it; never falls
        #: Each with the index that it is in effect from; the first is the one that the cluster began with.
        self.configurations: list[tuple[int, Configuration]] = [(0, Configuration(tuple(sorted(processes))))]

    def commit(self, entry: Entry, term: int) -> None:
        self.committed.append(entry)
        self.commit_terms.append(term)
        if entry.kind is EntryKind.CONFIGURATION:
            configuration = decode_changes(entry.data).configuration
            if configuration is not None:
                self.configurations.append((len(self.committed), configuration))

    @property
    def configuration(self) -> Configuration:
        """The last one that is committed."""
        return self.configurations[-1][1]

    def configuration_at(self, index: int) -> Configuration:
        """The one that a node acts on that has applied everything up to ``index``."""
        for first, configuration in reversed(self.configurations):
            if first <= index:
                return configuration
        raise IndexError(f"no configuration at {index}")

    def term(self, index: int) -> int:
        """The term of a committed entry; 0 for index 0."""
        return self.committed[index - 1].term if index else 0

    def last_committed_before(self, term: int) -> int:
        """The highest index that was committed in a term before ``term``."""
        return bisect_left(self.commit_terms, term)


class Rule:
    """Base of all rules; a rule overrides the hooks it needs, and is called for no other."""

    def __init__(self, history: History) -> None:
        self.history = history

    def fail(self, what: str) -> None:
        raise Violation(type(self).__name__, what)

    def started(self, process: Process) -> None:
        """``process`` has read its disk and runs (again)."""

    def stepped(self, process: Process, before: View, now: View, /) -> None:
        """``process`` has handled some input, and something visible changed."""

    def handed_out(self, process: Process, ready: Ready) -> None:
        """``process`` gave its driver this Ready; nothing of it has been carried out yet."""

    def said(self, process: Process, message: Message) -> None:
        """``message`` leaves ``process``."""

    def applied(self, process: Process, index: int, entry: Entry, /) -> None:
        """``process`` has applied ``entry``."""

    def restored(self, process: Process, meta: SnapshotMeta, /) -> None:
        """``process`` has restored its state machine from a snapshot."""

    def asked(self, process: Process, context: int) -> None:
        """A client asks ``process`` for a linearizable read."""

    def answered(self, process: Process, state: ReadState) -> None:
        """``process`` says from which index on the read may be answered."""


class CommittedEntries(Rule):
    """Only a leader finds out that an entry is committed, from one of its own term that a majority has on disk by
    then, and there is only ever one entry for an index (paper, 5.3 and 5.4).  This rule also writes the history
    that others read.
    """

    def started(self, process: Process) -> None:
        if process.core.commit > len(self.history.committed):
            self.fail(f"{process.id} starts with commit index {process.core.commit}, which nobody committed")

    def stepped(self, process: Process, before: View, now: View, /) -> None:
        history, log = self.history, process.core.log
        if now.commit <= before.commit:
            return
        if now.commit > now.last_index:
            self.fail(f"{process.id} has committed {now.commit}, past the end of its log, {now.last_index}")
        if now.commit > len(history.committed) and log.term(now.commit) != now.term:
            self.fail(
                f"{process.id} leads term {now.term}, and commits by counting up to {now.commit}, an older one's"
            )
        for index in range(max(before.commit, now.offset) + 1, now.commit + 1):
            entry = log.entry(index)
            if index <= len(history.committed):
                known = history.committed[index - 1]
                if entry is not known and entry != known:
                    self.fail(f"{process.id} has committed {entry} at {index}, where {known} was committed")
            else:
                self._newly_committed(process, now, index, entry)

    def _newly_committed(self, process: Process, now: View, index: int, entry: Entry) -> None:
        history = self.history
        if now.role is not Role.LEADER:
            self.fail(f"{process.id} takes {index} as committed, but no leader has committed it")
        holders = [p.id for p in history.processes.values() if p.disk.holds(index, entry.term)]
        configuration = history.configuration_at(process.applied)
        if not has_quorum(holders, configuration.halves):
            self.fail(
                f"{process.id} commits {index}/{entry.term}, which only {holders} of {configuration} have on disk"
            )
        history.commit(entry, now.term)


class ElectionSafety(Rule):
    """At most one leader in a term (paper, figure 3): one node in one life, since a crash ends a leadership."""

    def __init__(self, history: History) -> None:
        super().__init__(history)
        self._leaders: dict[int, tuple[int, int]] = {}

    def stepped(self, process: Process, _before: View, now: View, /) -> None:
        if now.role is Role.LEADER:
            self_ = (process.id, process.life)
            leader = self._leaders.setdefault(now.term, self_)
            if leader != self_:
                self.fail(
                    f"{process.id} leads term {now.term}, which {leader[0]} has led (in life {leader[1]})"
                )


class ElectedByMajority(Rule):
    """Whoever leads a term has the votes of a majority of the voters that it knows of, and of both halves when
    they are joint (paper, 5.2; thesis 4.3).
    """

    def __init__(self, history: History) -> None:
        super().__init__(history)
        self._votes: dict[tuple[int, int], set[int]] = {}

    def said(self, process: Process, message: Message) -> None:
        if isinstance(message, VoteResponse) and message.granted and not message.pre_vote:
            self._votes.setdefault((message.to, message.term), set()).add(process.id)

    def stepped(self, process: Process, before: View, now: View, /) -> None:
        if now.role is not Role.LEADER or before.role is Role.LEADER:
            return
        voters = {process.id} | self._votes.get((process.id, now.term), set())
        configuration = self.history.configuration_at(process.applied)
        if not configuration.is_voter(process.id):
            self.fail(f"{process.id} leads term {now.term}, but is no voter in {configuration}")
        if not has_quorum(voters, configuration.halves):
            self.fail(f"{process.id} leads term {now.term} with the votes of {voters} out of {configuration}")


class LeaderAppendOnly(Rule):
    """A leader never overwrites or deletes entries in its log (paper, figure 3)."""

    def stepped(self, process: Process, before: View, now: View, /) -> None:
        if before.role is not Role.LEADER or now.role is not Role.LEADER or before.term != now.term:
            return
        if now.last_index < before.last_index:
            self.fail(f"{process.id} leads, and cut its log from {before.last_index} to {now.last_index}")
        if process.core.log.term(before.last_index) != before.last_term:
            self.fail(f"{process.id} leads, and replaced its entry {before.last_index}/{before.last_term}")


class LogMatching(Rule):
    """Two entries with the same index and term are equal, and so are all before them (paper, figure 3).

    Checked by induction where entries enter a log: every (index, term) has one content and one predecessor.
    """

    def __init__(self, history: History) -> None:
        super().__init__(history)
        self._known: dict[tuple[int, int], tuple[int, Entry]] = {}

    def handed_out(self, process: Process, ready: Ready) -> None:
        if not ready.entries:
            return
        first = ready.first_index
        prev_term = self._term_before(process, ready, first)
        for position, entry in enumerate(ready.entries):
            place = (first + position, entry.term)
            known_prev, known = self._known.setdefault(place, (prev_term, entry))
            if known_prev != prev_term or (known is not entry and known != entry):
                self.fail(
                    f"{process.id} has {entry} after term {prev_term} at {place[0]}, "
                    f"where another log has {known} after term {known_prev}"
                )
            prev_term = entry.term

    def _term_before(self, process: Process, ready: Ready, first: int) -> int:
        if ready.snapshot is not None and first == ready.snapshot.index + 1:
            return ready.snapshot.term
        if first > len(process.written) + 1:
            self.fail(f"{process.id} writes {first}, leaving a gap after {len(process.written)}")
        return process.written[first - 2] if first > 1 else 0


class LeaderCompleteness(Rule):
    """What was committed in a term is in the logs of the leaders of all later terms (paper, figure 3)."""

    def __init__(self, history: History) -> None:
        super().__init__(history)
        self._checked = 0  # of the history's committed entries

    def stepped(self, process: Process, before: View, now: View, /) -> None:
        history = self.history
        if now.role is Role.LEADER and before.role is not Role.LEADER:
            self._check(process, history.last_committed_before(now.term))
        if len(history.committed) > self._checked:
            self._checked = len(history.committed)
            for other in history.processes.values():
                node = other.node
                if node is not None and node.role is Role.LEADER and node.term > now.term:
                    self._check(other, self._checked)

    def _check(self, leader: Process, index: int) -> None:
        """That the leader has all up to ``index``: its having the last of it says so, by log matching."""
        if index == 0:
            return
        log, term = leader.core.log, self.history.term(index)
        if index < log.offset:
            index, term = log.offset, self.history.term(log.offset)
        if index > log.last_index or log.term(index) != term:
            self.fail(f"{leader.id} leads term {leader.core.term} without {index}/{term}, which is committed")


class StateMachineSafety(Rule):
    """All replicas apply the same entries in the same order, each once, and only committed ones (paper, figure
    3).  Their state machines then agree, too.
    """

    def __init__(self, history: History) -> None:
        super().__init__(history)
        self._applied: dict[int, int] = {}
        self._digests: dict[int, Any] = {}

    def started(self, process: Process) -> None:
        self._applied[process.id] = process.applied
        if process.applied:
            self._check_state(process, process.applied)

    def restored(self, process: Process, meta: SnapshotMeta, /) -> None:
        if meta.index <= self._applied[process.id]:
            self.fail(f"{process.id} restores {meta.index}, but has applied {self._applied[process.id]}")
        self._applied[process.id] = meta.index
        self._check_state(process, meta.index)

    def applied(self, process: Process, index: int, entry: Entry, /) -> None:
        if index != self._applied[process.id] + 1:
            self.fail(f"{process.id} applies {index} after {self._applied[process.id]}")
        self._applied[process.id] = index
        committed = self.history.committed
        if index > len(committed):
            self.fail(f"{process.id} applies {index}, which is not committed")
        if entry is not committed[index - 1] and entry != committed[index - 1]:
            self.fail(f"{process.id} applies {entry} at {index}, where {committed[index - 1]} is committed")
        self._check_state(process, index)

    def _check_state(self, process: Process, index: int) -> None:
        if process.machine is not None:
            digest = process.machine.digest()
            known = self._digests.setdefault(index, digest)
            if known != digest:
                self.fail(
                    f"the state machine of {process.id} is {digest} after {index}, another's was {known}"
                )


class FoundIsDurable(Rule):
    """A node that starts from its disk reads what was durable there: nothing torn, damaged or misplaced passes for
    it, and nothing is left out.
    """

    def started(self, process: Process) -> None:
        found, durable = process.found, process.disk.stored
        if found is durable:
            return
        if found.hard_state != durable.hard_state:
            self.fail(f"{process.id} reads {found.hard_state}; {durable.hard_state} was written")
        if found.snapshot != durable.snapshot:
            self.fail(f"{process.id} reads {found.snapshot}; {durable.snapshot} was written")
        if (found.first_index, found.entries) != (durable.first_index, durable.entries):
            self.fail(
                f"{process.id} reads entries {found.first_index} to {found.last_index}; what was written, "
                f"{durable.first_index} to {durable.last_index}, differs"
            )


class NeverBack(Rule):
    """Within a life, term and commit index never fall and a vote is never changed within its term; over
    restarts, term and vote are those that the disk holds (paper, figure 2).
    """

    def started(self, process: Process) -> None:
        durable, now = process.disk.stored.hard_state, process.seen
        if (now.term, now.vote) != (durable.term, durable.vote):
            self.fail(
                f"{process.id} starts with term {now.term} and vote {now.vote}; its disk holds {durable}"
            )

    def stepped(self, process: Process, before: View, now: View, /) -> None:
        if now.term < before.term:
            self.fail(f"the term of {process.id} fell from {before.term} to {now.term}")
        if now.commit < before.commit:
            self.fail(f"the commit index of {process.id} fell from {before.commit} to {now.commit}")
        if now.term == before.term and before.vote not in (NOBODY, now.vote):
            self.fail(f"{process.id} changed its vote in term {now.term} from {before.vote} to {now.vote}")


class OneVoteATerm(Rule):
    """A node votes for one candidate in a term, whatever happens to it in between (paper, 5.2)."""

    def __init__(self, history: History) -> None:
        super().__init__(history)
        self._votes: dict[tuple[int, int], int] = {}

    def said(self, process: Process, message: Message) -> None:
        if isinstance(message, VoteResponse) and message.granted and not message.pre_vote:
            self._voted(process, message.term, message.to)

    def stepped(self, process: Process, _before: View, now: View, /) -> None:
        if now.role is Role.LEADER:
            self._voted(process, now.term, process.id)

    def _voted(self, process: Process, term: int, candidate: int) -> None:
        known = self._votes.setdefault((process.id, term), candidate)
        if known != candidate:
            self.fail(f"{process.id} votes for {candidate} in term {term}, in which it voted for {known}")


class PersistBeforeSaying(Rule):
    """A vote or an acknowledgement leaves only after what it promises is on disk (paper, figure 2 and 5.6), and a
    candidate's request after the term and the log's end that it names.

    A promise of a term that the disk has left behind binds nobody: whatever replaced it was decided later.
    """

    def said(self, process: Process, message: Message) -> None:
        match message:
            case VoteResponse(granted=True, pre_vote=False):
                self._check_vote(process, message)
            case RequestVote(pre_vote=False):
                self._check_request(process, message)
            case AppendResponse(rejected=False):
                self._check_append(process, message)
            case _:
                pass

    def _check_vote(self, process: Process, vote: VoteResponse) -> None:
        durable = process.disk.stored.hard_state
        if (durable.term, durable.vote) != (vote.term, vote.to) and durable.term <= vote.term:
            self.fail(f"{process.id} votes for {vote.to} in term {vote.term}; its disk holds {durable}")

    def _check_request(self, process: Process, request: RequestVote) -> None:
        """Else a crash makes the candidate forget, ask again in the same term with a shorter log, and count what
        was granted to the longer one.  Votes for somebody who has given up meanwhile bind nobody.
        """
        durable = process.disk.stored.hard_state
        if process.core.role is not Role.CANDIDATE or process.core.term != request.term:
            return
        if (durable.term, durable.vote) != (request.term, process.id):
            self.fail(f"{process.id} asks for votes in term {request.term}; its disk holds {durable}")
        if not process.disk.holds(request.last_index, request.last_term):
            self.fail(
                f"{process.id} asks for votes for a log up to {request.last_index}, which its disk lacks"
            )

    def _check_append(self, process: Process, answer: AppendResponse) -> None:
        disk = process.disk
        durable = disk.stored.hard_state
        if durable.term > answer.term:
            return
        if durable.term < answer.term:
            self.fail(
                f"{process.id} acknowledges {answer.index} in term {answer.term}; its disk holds {durable}"
            )
        if disk.last_index < answer.index:
            self.fail(f"{process.id} acknowledges {answer.index}, but its disk ends at {disk.last_index}")
        leader = self.history.processes[answer.to].node
        if leader is None or leader.role is not Role.LEADER or leader.term != answer.term:
            return
        index, log = answer.index, leader.log
        if index < log.offset:
            return  # LeaderCompleteness and LogMatching see to what is compacted
        if index > log.last_index or not disk.holds(index, log.term(index)):
            self.fail(f"{process.id} acknowledges {index}, where its disk and its leader's log differ")


class PersistedIsOnDisk(Rule):
    """What a node takes as persisted, its disk holds; what it applies is committed and persisted."""

    def stepped(self, process: Process, _before: View, now: View, /) -> None:
        if process.core.log.restoring:
            return  # the snapshot's file is on the disk; that the log goes on from it has yet to be written
        if now.persisted > now.last_index:
            self.fail(f"{process.id} has persisted {now.persisted} of a log that ends at {now.last_index}")
        if not process.disk.holds(now.persisted, process.core.log.term(now.persisted)):
            self.fail(f"{process.id} takes {now.persisted} as persisted, but its disk does not hold it")


class ReadyContract(Rule):
    """What `node.RawNode` promises to drivers: Readies are numbered, hard states only move forward, the entries
    to write bring the disk to the log in memory, the entries to apply follow each other and are on disk.
    """

    def __init__(self, history: History) -> None:
        super().__init__(history)
        self._last: dict[int, tuple[int, int, int]] = {}

    def started(self, process: Process) -> None:
        hard_state = process.disk.stored.hard_state
        self._last[process.id] = (0, hard_state.term, hard_state.commit)

    def handed_out(self, process: Process, ready: Ready) -> None:
        number, term, commit = self._last[process.id]
        if ready.number != number + 1:
            self.fail(f"{process.id} hands out Ready {ready.number} after {number}")
        if ready.hard_state is not None:
            if ready.hard_state.term < term or ready.hard_state.commit < commit:
                self.fail(f"{process.id} writes {ready.hard_state} after term {term} and commit {commit}")
            term, commit = ready.hard_state.term, ready.hard_state.commit
        self._last[process.id] = (ready.number, term, commit)
        if ready.committed:
            self._check_committed(process, ready)
        self._check_entries(process, ready)

    def _check_entries(self, process: Process, ready: Ready) -> None:
        if ready.entries:
            last_index, last_term = ready.first_index + len(ready.entries) - 1, ready.entries[-1].term
        elif ready.snapshot is not None:
            last_index, last_term = ready.snapshot.index, ready.snapshot.term
        else:
            last_index = len(process.written)
            last_term = process.written[-1] if process.written else 0
        log = process.core.log
        if (log.last_index, log.term(log.last_index)) != (last_index, last_term):
            self.fail(f"{process.id} writes a log up to {last_index}/{last_term}, but has {log.last_index}")

    def _check_committed(self, process: Process, ready: Ready) -> None:
        first, entries = ready.committed_index, ready.committed
        if first != process.handed_out + 1:
            self.fail(f"{process.id} hands out {first} to apply after {process.handed_out}")
        last = first + len(entries) - 1
        if last > process.core.commit:
            self.fail(f"{process.id} hands out {last} to apply, past its commit index {process.core.commit}")
        if not process.disk.holds(last, entries[-1].term):
            self.fail(f"{process.id} hands out {last} to apply, which is not on its disk")


class LinearizableReads(Rule):
    """A read sees all that was committed anywhere when it was asked for (thesis 6.4)."""

    def __init__(self, history: History) -> None:
        super().__init__(history)
        self._floors: dict[tuple[int, int], int] = {}

    def asked(self, process: Process, context: int) -> None:
        self._floors[process.id, context] = len(self.history.committed)

    def answered(self, process: Process, state: ReadState) -> None:
        floor = self._floors.get((process.id, state.context))
        if floor is None:
            self.fail(f"{process.id} answers read {state.context}, which nobody asked of it")
        elif state.index < floor:
            self.fail(
                f"{process.id} answers read {state.context} at {state.index}, "
                f"but {floor} was committed when it was asked"
            )


class MajoritiesOverlap(Rule):
    """Majorities of a configuration and of the one that follows it have a node in common: one voter is added or
    removed, or the way leads through a joint configuration (thesis 4.1 and 4.3).  Nobody is voter and learner at
    once.
    """

    def __init__(self, history: History) -> None:
        super().__init__(history)
        self._checked = 1

    def stepped(self, _process: Process, _before: View, _now: View, /) -> None:
        configurations = self.history.configurations
        while self._checked < len(configurations):
            (_, old), (index, new) = configurations[self._checked - 1 : self._checked + 1]
            self._checked += 1
            if old.joint:
                allowed = not new.joint and new.voters == old.voters
            elif new.joint:
                allowed = new.outgoing == old.voters
            else:
                allowed = len(set(old.voters) ^ set(new.voters)) <= 1
            if not allowed:
                self.fail(f"{old} becomes {new} at {index}")
            if set(new.learners) & {*new.voters, *new.outgoing}:
                self.fail(f"{new} has somebody as voter and as learner")


class ActsOnWhatIsApplied(Rule):
    """A node's configuration is the last one that it has applied: neither one that is only in its log, nor one that
    has been replaced (etcd raft; see `core.configuration`).
    """

    def started(self, process: Process) -> None:
        self._check(process)

    def stepped(self, process: Process, before: View, now: View, /) -> None:
        if now.configuration is not before.configuration:
            self._check(process)

    def applied(self, process: Process, _index: int, entry: Entry, /) -> None:
        if entry.kind is EntryKind.CONFIGURATION:
            self._check(process)

    def restored(self, process: Process, _meta: SnapshotMeta, /) -> None:
        self._check(process)

    def _check(self, process: Process) -> None:
        log = process.core.log
        index = log.offset if log.restoring else process.applied
        expected, found = self.history.configuration_at(index), process.core.configuration
        if found == expected:
            return
        if not found.voters and expected == self.history.configurations[0][1]:
            return  # it has joined, and not heard yet who else there is
        self.fail(f"{process.id} acts on {found}, but what it has applied, up to {index}, says {expected}")


class OneUncommittedConfiguration(Rule):
    """No log holds two configurations that are not committed (thesis 4.1): whoever acts on either of them, its
    majorities overlap with those of the last one that is.
    """

    def __init__(self, history: History) -> None:
        super().__init__(history)
        self._places: dict[int, list[int]] = {}

    def handed_out(self, process: Process, ready: Ready) -> None:
        if not ready.entries:
            return
        committed = len(self.history.committed)
        places = [i for i in self._places.get(process.id, ()) if committed < i < ready.first_index]
        for position, entry in enumerate(ready.entries):
            if entry.kind is EntryKind.CONFIGURATION and ready.first_index + position > committed:
                places.append(ready.first_index + position)
        self._places[process.id] = places
        if len(places) > 1:
            self.fail(f"{process.id} has changes of the configuration at {places}; {committed} is committed")


class SnapshotsAreTrue(Rule):
    """A snapshot names the term and the configuration of the committed entry that it ends with, and a log is only
    dropped as far as a durable snapshot reaches (paper, section 7).
    """

    def stepped(self, process: Process, before: View, now: View, /) -> None:
        if now.offset == before.offset or process.core.log.restoring:
            return
        durable = process.disk.stored.snapshot
        if durable is None or durable.index < now.offset:
            self.fail(f"{process.id} has dropped its log up to {now.offset}; its disk has snapshot {durable}")

    def said(self, process: Process, message: Message) -> None:
        if not isinstance(message, InstallSnapshot):
            return
        history, meta = self.history, message.snapshot
        if meta.index > len(history.committed):
            self.fail(f"{process.id} sends a snapshot up to {meta.index}, which is not committed")
        truth = SnapshotMeta(meta.index, history.term(meta.index), history.configuration_at(meta.index))
        if meta != truth:
            self.fail(f"{process.id} sends {meta}; it should be {truth}")


#: The order matters only in that `CommittedEntries` writes the history that the others read.
RULES: tuple[type[Rule], ...] = (
    CommittedEntries,
    ElectionSafety,
    ElectedByMajority,
    LeaderAppendOnly,
    LogMatching,
    LeaderCompleteness,
    StateMachineSafety,
    FoundIsDurable,
    NeverBack,
    OneVoteATerm,
    PersistBeforeSaying,
    PersistedIsOnDisk,
    ReadyContract,
    LinearizableReads,
    MajoritiesOverlap,
    ActsOnWhatIsApplied,
    OneUncommittedConfiguration,
    SnapshotsAreTrue,
)


class Invariants:
    """All rules at once: tell it what happens; it raises `Violation`."""

    def __init__(self, processes: Mapping[int, Process], rules: tuple[type[Rule], ...] = RULES) -> None:
        self.history = History(processes)
        self._rules = [rule(self.history) for rule in rules]
        self.started = self._all("started")
        self._stepped = self._all("stepped")
        self.handed_out = self._all("handed_out")
        self.said = self._all("said")
        self.applied = self._all("applied")
        self.restored = self._all("restored")
        self.asked = self._all("asked")
        self.answered = self._all("answered")

    def _all(self, hook: str) -> Callable[..., None]:
        """One function that calls this hook of the rules that have it."""
        hooks = [
            getattr(rule, hook)
            for rule in self._rules
            if getattr(type(rule), hook) is not getattr(Rule, hook)
        ]

        def call(*args: Any) -> None:
            for each in hooks:
                each(*args)

        return call

    def stepped(self, process: Process) -> None:
        before, now = process.seen, View.of(process.core)
        if now != before:
            self._stepped(process, before, now)
            process.seen = now
