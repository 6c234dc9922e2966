"""Cores broken on purpose, each of which the simulation must find: proof that the invariants can fail.

Every function here breaks one thing by `monkeypatch`; its docstring says what a reader would call the bug.  The
table at the end names, for each, the rules that may report it and the seeds that it may take.
"""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from typing import Any

import pytest

from common_raft.core import (
    NOBODY,
    HardState,
    RaftLog,
    RawNode,
    Role,
    elections,
    following,
    leading,
    quorum,
    reads,
)
from common_raft.core.messages import (
    AppendEntries,
    AppendResponse,
    Heartbeat,
    HeartbeatResponse,
    RequestVote,
    VoteResponse,
)
from common_raft.core.progress import Progress
from common_raft.core.raft import Raft
from common_raft.storage import records
from common_raft.testing import Conditions, Fault, Request, Rule, Simulation, Weather
from common_raft.testing import journal as journal_module
from common_raft.testing.invariants import (
    CommittedEntries,
    ElectionSafety,
    LogMatching,
    OneVoteATerm,
    StateMachineSafety,
)
from common_raft.tests.broken_cores import Break, Expected, first_failure, must_be_found, replace_handler

# --- elections -----------------------------------------------------------------------------------------------


def votes_twice_in_a_term(patch: pytest.MonkeyPatch) -> None:
    handle = elections.handle_request_vote

    def forgetful(raft: Raft, message: RequestVote) -> None:
        if raft.role is Role.FOLLOWER:
            raft.vote = raft.leader = NOBODY
        handle(raft, message)

    replace_handler(patch, RequestVote, forgetful)


def votes_without_looking_at_the_log(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RaftLog, "is_up_to_date", lambda self, last_index, last_term: True)


def compares_logs_by_length_only(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RaftLog, "is_up_to_date", lambda self, last_index, last_term: last_index >= self.last_index)


def does_not_write_its_vote(patch: pytest.MonkeyPatch) -> None:
    new_hard_state = RawNode._new_hard_state

    def without_vote(self: RawNode, with_entries: bool) -> HardState | None:
        state = new_hard_state(self, with_entries)
        return state and HardState(state.term, NOBODY, state.commit)

    patch.setattr(RawNode, "_new_hard_state", without_vote)


def forgets_its_vote_on_restart(patch: pytest.MonkeyPatch) -> None:
    start = Raft.__init__

    def forgetful(raft: Raft, *args: Any) -> None:
        start(raft, *args)
        raft.vote = NOBODY

    patch.setattr(Raft, "__init__", forgetful)


def forgets_its_term_on_restart(patch: pytest.MonkeyPatch) -> None:
    start = Raft.__init__

    def forgetful(raft: Raft, *args: Any) -> None:
        start(raft, *args)
        raft.term = raft.log.last_term

    patch.setattr(Raft, "__init__", forgetful)


def counts_a_repeated_vote_twice(patch: pytest.MonkeyPatch) -> None:
    record = elections.record_vote

    def counting(raft: Raft, voter: int, granted: bool) -> None:
        if voter in raft.votes:
            voter = next((peer for peer in raft.peers if peer not in raft.votes), voter)
        record(raft, voter, granted)

    patch.setattr(elections, "record_vote", counting)


def takes_pre_votes_for_votes(patch: pytest.MonkeyPatch) -> None:
    def pre_candidate_wins(raft: Raft, voter: int, granted: bool) -> None:
        raft.votes.setdefault(voter, granted)
        if quorum.vote_result(raft.votes, raft.config.voters) is quorum.VoteResult.WON:
            if raft.role is Role.PRE_CANDIDATE:
                raft.term += 1
                raft.vote = raft.id
            elections.become_leader(raft)

    patch.setattr(elections, "record_vote", pre_candidate_wins)


def counts_votes_of_an_earlier_term(patch: pytest.MonkeyPatch) -> None:
    answer = Raft._answer_lower_term

    def credulous(raft: Raft, message: Any) -> None:
        answer(raft, message)
        if isinstance(message, VoteResponse) and not message.pre_vote and raft.role is Role.CANDIDATE:
            elections.record_vote(raft, message.sender, message.granted)

    patch.setattr(Raft, "_answer_lower_term", credulous)


def votes_again_after_a_lost_election(patch: pytest.MonkeyPatch) -> None:
    """Whoever falls back from candidate to follower within a term has still voted in it, for itself."""
    become_follower = Raft.become_follower

    def forgetful(raft: Raft, term: int, leader: int) -> None:
        become_follower(raft, term, leader)
        raft.vote = NOBODY

    patch.setattr(Raft, "become_follower", forgetful)


def takes_half_for_a_majority(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(quorum, "majority", lambda voters: voters // 2)


# --- persistence ---------------------------------------------------------------------------------------------


def answers_before_the_disk_has_it(patch: pytest.MonkeyPatch) -> None:
    ready = RawNode.ready

    def hasty(self: RawNode) -> Any:
        result = ready(self)
        return result._replace(
            messages=result.messages + result.messages_after_append, messages_after_append=[]
        )

    patch.setattr(RawNode, "ready", hasty)


def counts_its_own_unwritten_entries(patch: pytest.MonkeyPatch) -> None:
    maybe_commit = leading.maybe_commit

    def optimistic(raft: Raft) -> None:
        persisted, raft.log.persisted = raft.log.persisted, raft.log.last_index
        maybe_commit(raft)
        raft.log.persisted = persisted

    patch.setattr(leading, "maybe_commit", optimistic)


def commits_at_once_when_it_is_alone(patch: pytest.MonkeyPatch) -> None:
    """etcd's issue 14370: a cluster of one answered before its disk had anything."""
    maybe_commit = leading.maybe_commit

    def hasty(raft: Raft) -> None:
        if not raft.peers:
            raft.log.committed = raft.log.last_index
        maybe_commit(raft)

    append = leading.append

    def append_and_commit(raft: Raft, entries: Any) -> None:
        append(raft, entries)
        leading.maybe_commit(raft)

    patch.setattr(leading, "maybe_commit", hasty)
    patch.setattr(leading, "append", append_and_commit)


def starts_behind_what_was_committed_before(patch: pytest.MonkeyPatch) -> None:
    """Takes the commit index that it finds for what its state machine has applied."""
    resume_at = RaftLog.resume_at
    patch.setattr(RaftLog, "resume_at", lambda self, applied: resume_at(self, max(applied, self.committed)))


def still_counts_replaced_entries_as_persisted(patch: pytest.MonkeyPatch) -> None:
    truncate = RaftLog._truncate_from

    def partial_truncate(self: RaftLog, index: int) -> None:
        persisted = self.persisted
        truncate(self, index)
        self.persisted = persisted

    patch.setattr(RaftLog, "_truncate_from", partial_truncate)


def does_not_write_replaced_entries_again(patch: pytest.MonkeyPatch) -> None:
    truncate = RaftLog._truncate_from

    def partial_truncate(self: RaftLog, index: int) -> None:
        written = self.written
        truncate(self, index)
        self.written = written

    patch.setattr(RaftLog, "_truncate_from", partial_truncate)


def takes_any_confirmed_write_for_its_log(patch: pytest.MonkeyPatch) -> None:
    """A write of entries that were replaced meanwhile says nothing about those that stand there now."""

    def gullible(self: RaftLog, index: int, *_: Any) -> None:
        self.persisted = max(self.persisted, min(index, self.last_index))

    patch.setattr(RaftLog, "persisted_to", gullible)


def campaigns_before_its_term_is_on_disk(patch: pytest.MonkeyPatch) -> None:
    become_candidate = elections.become_candidate

    def hasty(raft: Raft, transfer: bool) -> None:
        become_candidate(raft, transfer)
        requests = [m for m in raft.messages_after_append if isinstance(m, RequestVote)]
        raft.messages_after_append = [m for m in raft.messages_after_append if m not in requests]
        raft.messages += requests
        elections.record_vote(raft, raft.id, granted=True)

    patch.setattr(elections, "become_candidate", hasty)


def takes_any_damage_for_a_torn_write(patch: pytest.MonkeyPatch) -> None:
    """Whatever does not fit is cut off and forgotten, although it was promised."""
    read_frame = records.read_frame

    def lenient(data: bytes, offset: int, salt: int, last: int | None) -> Any:
        frame = read_frame(data, offset, salt, last)
        return records.Flaw(True, frame.reason) if isinstance(frame, records.Flaw) else frame

    patch.setattr(journal_module, "read_frame", lenient)


def reads_its_log_without_checksums(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(records, "crc32", lambda data, start=0: 1)


def goes_on_after_a_failed_fsync(patch: pytest.MonkeyPatch) -> None:
    """PostgreSQL's "fsyncgate": the second fsync succeeds, but the data is gone."""

    def optimistic(self: Simulation, process: Any, life: int) -> None:
        lost = process.disk.failing
        process.disk.failing = False
        stored, journal = copy(process.disk.stored), process.disk.journal
        stored.entries = list(stored.entries)
        if lost and process.life == life and process.running:
            process.disk.journal = None
        completes(self, process, life)
        if lost:
            process.disk.stored, process.disk.journal = stored, journal

    completes = Simulation._disk_completes
    patch.setattr(Simulation, "_disk_completes", optimistic)


# --- replication ---------------------------------------------------------------------------------------------


def commits_an_older_terms_entry_by_counting(patch: pytest.MonkeyPatch) -> None:
    """Figure 8 of the paper; LogCabin's issue 44."""

    maybe_commit = leading.maybe_commit

    def counting(raft: Raft) -> None:
        index = quorum.committed_index([raft.log.persisted, *(p.match_index for p in raft.progress.values())])
        if index > raft.log.committed and raft.log.term(index) != raft.term:
            raft.log.commit_to(index)
            raft.wants_replication = True
        else:
            maybe_commit(raft)

    patch.setattr(leading, "maybe_commit", counting)


def skips_the_consistency_check(patch: pytest.MonkeyPatch) -> None:
    merge = RaftLog.merge

    def trusting(self: RaftLog, prev_index: int, prev_term: int, entries: Any) -> int | None:
        if prev_index <= self.last_index:
            prev_term = self.term(prev_index)
        return merge(self, prev_index, prev_term, entries)

    patch.setattr(RaftLog, "merge", trusting)


def truncates_behind_every_append(patch: pytest.MonkeyPatch) -> None:
    """PySyncObj's: a delayed append shortens a log that is further on."""
    merge = RaftLog.merge

    def truncating(self: RaftLog, prev_index: int, prev_term: int, entries: Any) -> int | None:
        if self.holds(prev_index, prev_term) and entries and prev_index < self.last_index:
            self._truncate_from(prev_index + 1)
        return merge(self, prev_index, prev_term, entries)

    patch.setattr(RaftLog, "merge", truncating)


def leader_truncates_its_own_log(patch: pytest.MonkeyPatch) -> None:
    handle = leading.handle_append_response

    def yielding(raft: Raft, message: AppendResponse) -> None:
        if message.rejected and raft.log.committed <= message.hint_index < raft.log.last_index:
            raft.log._truncate_from(message.hint_index + 1)
        handle(raft, message)

    replace_handler(patch, AppendResponse, yielding)


def new_leader_drops_what_is_not_committed(patch: pytest.MonkeyPatch) -> None:
    become_leader = elections.become_leader

    def dropping(raft: Raft) -> None:
        raft.log._truncate_from(raft.log.committed + 1)
        become_leader(raft)

    patch.setattr(elections, "become_leader", dropping)


def cuts_its_log_when_it_follows(patch: pytest.MonkeyPatch) -> None:
    """CCF's issue 5674: what is not committed yet may count for the leader's majority all the same."""
    become_follower = Raft.become_follower

    def yielding(raft: Raft, term: int, leader: int) -> None:
        if term > raft.term:
            raft.log._truncate_from(raft.log.committed + 1)
        become_follower(raft, term, leader)

    patch.setattr(Raft, "become_follower", yielding)


def remembers_what_matched_when_it_led_before(patch: pytest.MonkeyPatch) -> None:
    become_leader = elections.become_leader

    def nostalgic(raft: Raft) -> None:
        known = {peer: progress.match_index for peer, progress in raft.progress.items()}
        become_leader(raft)
        for peer, index in known.items():
            raft.progress[peer].match_index = min(index, raft.log.last_index)

    patch.setattr(elections, "become_leader", nostalgic)


def takes_what_was_sent_as_matched(patch: pytest.MonkeyPatch) -> None:
    """The Java study's: the match index follows the leader's own next index."""
    sent_append = Progress.sent_append

    def optimistic(self: Progress, last_index: int, count: int, size: int, commit: int) -> None:
        sent_append(self, last_index, count, size, commit)
        self.match_index = max(self.match_index, self.next_index - 1)

    patch.setattr(Progress, "sent_append", optimistic)


def follower_commits_past_what_it_has_checked(patch: pytest.MonkeyPatch) -> None:
    """Rule 5 of AppendEntries: not past the last *new* entry; what lies behind it may be of a dead leader."""
    handle = following.handle_append_entries

    def rash(raft: Raft, message: AppendEntries) -> None:
        handle(raft, message)
        raft.log.commit_to(min(message.commit, raft.log.last_index))

    replace_handler(patch, AppendEntries, rash)


def heartbeat_commits_past_what_matches(patch: pytest.MonkeyPatch) -> None:
    def rash(raft: Raft, message: Heartbeat) -> None:
        raft.follow(message.sender)
        leader_commit = message.commit + 1  # as if the leader had not taken the minimum with the match index
        raft.log.commit_to(min(leader_commit, raft.log.last_index))

    replace_handler(patch, Heartbeat, rash)


def takes_appends_of_a_deposed_leader(patch: pytest.MonkeyPatch) -> None:
    def obliging(raft: Raft, message: Any) -> None:
        if isinstance(message, AppendEntries) and raft.role is Role.FOLLOWER:
            last = raft.log.merge(message.prev_index, message.prev_term, message.entries)
            if last is not None:
                raft.messages_after_append.append(AppendResponse(message.sender, raft.id, message.term, last))

    patch.setattr(Raft, "_answer_lower_term", obliging)


def goes_on_leading_in_a_higher_term(patch: pytest.MonkeyPatch) -> None:
    enter = Raft._enter_higher_term

    def stubborn(raft: Raft, message: Any) -> bool:
        if raft.role is Role.LEADER and not isinstance(message, RequestVote):
            raft.term = message.term
            return False
        return enter(raft, message)

    patch.setattr(Raft, "_enter_higher_term", stubborn)


def applies_entries_twice(patch: pytest.MonkeyPatch) -> None:
    to_apply = RaftLog.to_apply

    def again(self: RaftLog, max_bytes: int) -> Any:
        self.handed_out = max(self.handed_out - 1, self.offset)
        return to_apply(self, max_bytes)

    patch.setattr(RaftLog, "to_apply", again)


def applies_what_its_disk_does_not_have(patch: pytest.MonkeyPatch) -> None:
    to_apply = RaftLog.to_apply

    def hasty(self: RaftLog, max_bytes: int) -> Any:
        persisted, self.persisted = self.persisted, self.last_index
        result = to_apply(self, max_bytes)
        self.persisted = persisted
        return result

    patch.setattr(RaftLog, "to_apply", hasty)


# --- reads ---------------------------------------------------------------------------------------------------


def answers_reads_without_asking_a_majority(patch: pytest.MonkeyPatch) -> None:
    def trusting(raft: Raft, sender: int, context: int) -> None:
        reads.deliver(raft, [reads.PendingRead(0, raft.log.committed, sender, context)], False)

    patch.setattr(reads, "add_read", trusting)


def answers_reads_before_it_has_committed_in_its_term(patch: pytest.MonkeyPatch) -> None:
    """etcd's issue 7331."""
    patch.setattr(reads, "read_as_leader", reads.add_read)


def lets_an_earlier_round_confirm_a_read(patch: pytest.MonkeyPatch) -> None:
    """The heartbeats of the round under way left before the read came."""
    add = reads.ReadRounds.add

    def sharing(self: Any, index: int, sender: int, context: int) -> bool:
        started = add(self, index, sender, context)
        if not started:
            self._waiting[-1] = reads.PendingRead(self.current, index, sender, context)
        return started

    patch.setattr(reads.ReadRounds, "add", sharing)


def lets_answers_of_an_earlier_term_confirm_a_read(patch: pytest.MonkeyPatch) -> None:
    """etcd's issue 20418: late answers to heartbeats of an earlier leadership pass for some of this one."""

    answer = Raft._answer_lower_term

    def credulous(raft: Raft, message: Any) -> None:
        answer(raft, message)
        if isinstance(message, HeartbeatResponse) and raft.role is Role.LEADER:
            reads.deliver(raft, *raft.read_rounds.answered(message.sender, message.read_round))

    patch.setattr(Raft, "_answer_lower_term", credulous)


# --- recovery ------------------------------------------------------------------------------------------------


def never_probes_again_after_a_loss(patch: pytest.MonkeyPatch) -> None:
    def deaf(raft: Raft, message: Any) -> None:
        raft.progress[message.sender].recent_active = True

    replace_handler(patch, HeartbeatResponse, deaf)


def does_not_tell_a_deposed_leader(patch: pytest.MonkeyPatch) -> None:
    """A follower ahead in term, held off by the others' lease, stays outside for ever."""
    patch.setattr(Raft, "_answer_lower_term", lambda self, message: None)


def keeps_refusing_proposals_after_a_failed_transfer(patch: pytest.MonkeyPatch) -> None:
    tick_leader = Raft._tick_leader

    def patient(raft: Raft) -> None:
        transferee = raft.transferee
        tick_leader(raft)
        if raft.role is Role.LEADER:
            raft.transferee = transferee

    patch.setattr(Raft, "_tick_leader", patient)


#: A leader is often cut off, at times only in one direction, while clients go on asking both sides.
TWO_LEADERS = Weather(
    nodes=3,
    election_tick=3,
    limits={"pre_vote": False, "check_quorum": False},
    conditions=Conditions(delay=1.0, in_order=False),
    faults={Fault.SPLIT: 1.0, Fault.ONE_WAY: 0.3, Fault.CAMPAIGN: 0.3},
    fault_interval=4.0,
    fault_length=8.0,
    requests={Request.PROPOSE: 1.0, Request.READ: 1.0},
    request_interval=0.3,
)

#: Leaders come and go before their entries get far; one entry a message, so that some arrive and others do not.
FIGURE_8 = Weather(
    nodes=5,
    election_tick=3,
    limits={"pre_vote": False, "check_quorum": False, "max_message_bytes": 0, "max_inflight_messages": 2},
    conditions=Conditions(loss=0.1, delay=1.0, in_order=False),
    faults={Fault.SPLIT: 1.0, Fault.CRASH: 0.5, Fault.CAMPAIGN: 1.0},
    fault_interval=2.0,
    fault_length=4.0,
    request_interval=1.0,
)

ALONE = Weather(nodes=1, faults={Fault.CRASH: 1.0})

DUPLICATES = Weather(
    nodes=5,
    election_tick=3,
    limits={"pre_vote": False, "check_quorum": False},
    conditions=Conditions(loss=0.1, duplication=0.5, delay=1.0),
    faults={Fault.CAMPAIGN: 1.0, Fault.SPLIT: 0.5},
    fault_interval=1.0,
    fault_length=4.0,
    request_interval=3.0,
)

#: Answers arrive so late that their leader has been replaced meanwhile, and does not know it.
LATE_ANSWERS = replace(
    TWO_LEADERS,
    conditions=Conditions(delay=0.2, in_order=False, straggle=0.3, straggle_delay=20.0),
    faults={Fault.SPLIT: 1.0},
    fault_interval=6.0,
    fault_length=15.0,
    requests={Request.PROPOSE: 0.3, Request.READ: 1.0},
    request_interval=1.0,
)

#: Votes arrive so late that their candidate has gone on to another term.
LATE_VOTES = replace(
    TWO_LEADERS,
    conditions=Conditions(delay=0.5, in_order=False, straggle=0.4, straggle_delay=30.0),
    faults={Fault.CAMPAIGN: 1.0, Fault.SPLIT: 1.0},
    fault_interval=2.0,
    fault_length=4.0,
    request_interval=0.4,
)

#: A leader that is cut off hears again what it heard when it led before.
OLD_NEWS = replace(
    TWO_LEADERS,
    conditions=Conditions(delay=0.3),
    faults={Fault.SPLIT: 1.0, Fault.REPLAY: 2.0},
    fault_interval=2.0,
    fault_length=6.0,
    requests={Request.PROPOSE: 0.5, Request.READ: 1.0},
    request_interval=3.0,
    disk_delay=0.1,
)

#: Entries are replaced while their write is still under way.
SLOW_DISKS = replace(
    TWO_LEADERS, election_tick=5, disk_delay=4.0, batching=0.9, requests={Request.PROPOSE: 1.0}
)

#: Somebody who was told to campaign comes back with a higher term, and the others keep to their leader.
RETURNING = Weather(
    nodes=3,
    election_tick=5,
    conditions=Conditions(loss=0.3),
    faults={Fault.SPLIT: 1.0, Fault.ONE_WAY: 1.0, Fault.PAUSE: 0.5},
    fault_interval=4.0,
    requests={Request.PROPOSE: 1.0, Request.TRANSFER: 0.3},
)

FAILING_TRANSFERS = Weather(
    nodes=3,
    election_tick=5,
    limits={"check_quorum": False},
    conditions=Conditions(loss=0.3),
    faults={Fault.ONE_WAY: 1.0, Fault.PAUSE: 1.0},
    fault_interval=5.0,
    requests={Request.PROPOSE: 1.0, Request.TRANSFER: 0.1},
)


CASES: dict[Break, Expected] = {
    votes_twice_in_a_term: Expected("NeverBack OneVoteATerm ElectionSafety"),
    votes_without_looking_at_the_log: Expected("LeaderCompleteness"),
    compares_logs_by_length_only: Expected("LeaderCompleteness", weather=DUPLICATES),
    does_not_write_its_vote: Expected("PersistBeforeSaying"),
    forgets_its_vote_on_restart: Expected("NeverBack"),
    forgets_its_term_on_restart: Expected("NeverBack"),
    counts_a_repeated_vote_twice: Expected("ElectedByMajority ElectionSafety", weather=DUPLICATES),
    takes_pre_votes_for_votes: Expected("ElectedByMajority ElectionSafety LeaderCompleteness"),
    counts_votes_of_an_earlier_term: Expected(
        "ElectedByMajority ElectionSafety LeaderCompleteness", weather=LATE_VOTES
    ),
    votes_again_after_a_lost_election: Expected("NeverBack OneVoteATerm ElectionSafety"),
    takes_half_for_a_majority: Expected("CommittedEntries ElectionSafety LeaderCompleteness"),
    answers_before_the_disk_has_it: Expected("PersistBeforeSaying"),
    counts_its_own_unwritten_entries: Expected("CommittedEntries"),
    commits_at_once_when_it_is_alone: Expected("CommittedEntries", weather=ALONE),
    starts_behind_what_was_committed_before: Expected("ReadyContract StateMachineSafety"),
    still_counts_replaced_entries_as_persisted: Expected("PersistedIsOnDisk"),
    does_not_write_replaced_entries_again: Expected("ReadyContract LogMatching"),
    takes_any_confirmed_write_for_its_log: Expected("PersistedIsOnDisk", weather=SLOW_DISKS),
    campaigns_before_its_term_is_on_disk: Expected("PersistBeforeSaying"),
    takes_any_damage_for_a_torn_write: Expected("FoundIsDurable"),
    reads_its_log_without_checksums: Expected("FoundIsDurable LogDamaged"),
    goes_on_after_a_failed_fsync: Expected("CommittedEntries PersistedIsOnDisk PersistBeforeSaying"),
    commits_an_older_terms_entry_by_counting: Expected("CommittedEntries", weather=FIGURE_8),
    skips_the_consistency_check: Expected(
        "LogMatching CommittedEntries PersistBeforeSaying", weather=DUPLICATES
    ),
    truncates_behind_every_append: Expected(
        "LogDamaged CommittedEntries PersistBeforeSaying LeaderCompleteness"
    ),
    leader_truncates_its_own_log: Expected("LeaderAppendOnly"),
    new_leader_drops_what_is_not_committed: Expected("LeaderCompleteness CommittedEntries"),
    cuts_its_log_when_it_follows: Expected("ReadyContract CommittedEntries LeaderCompleteness"),
    remembers_what_matched_when_it_led_before: Expected(
        "LogDamaged CommittedEntries Liveness", weather=FIGURE_8
    ),
    takes_what_was_sent_as_matched: Expected("CommittedEntries LogDamaged Liveness"),
    follower_commits_past_what_it_has_checked: Expected("CommittedEntries", weather=LATE_VOTES),
    heartbeat_commits_past_what_matches: Expected("CommittedEntries Liveness"),
    takes_appends_of_a_deposed_leader: Expected(
        "LogDamaged LeaderCompleteness CommittedEntries", weather=LATE_VOTES
    ),
    goes_on_leading_in_a_higher_term: Expected("ElectionSafety Liveness"),
    applies_entries_twice: Expected("ReadyContract"),
    applies_what_its_disk_does_not_have: Expected("ReadyContract"),
    answers_reads_without_asking_a_majority: Expected("LinearizableReads", weather=TWO_LEADERS),
    answers_reads_before_it_has_committed_in_its_term: Expected("LinearizableReads"),
    lets_an_earlier_round_confirm_a_read: Expected("LinearizableReads", seeds=600, weather=LATE_ANSWERS),
    lets_answers_of_an_earlier_term_confirm_a_read: Expected(
        "LinearizableReads", seeds=600, weather=OLD_NEWS
    ),
    never_probes_again_after_a_loss: Expected("Liveness"),
    does_not_tell_a_deposed_leader: Expected("Liveness", weather=RETURNING),
    keeps_refusing_proposals_after_a_failed_transfer: Expected("Liveness", weather=FAILING_TRANSFERS),
}


@pytest.mark.parametrize("break_core", CASES, ids=lambda break_core: break_core.__name__)
def test_the_simulation_finds_a_core_that(break_core: Break, monkeypatch: pytest.MonkeyPatch) -> None:
    must_be_found(break_core, CASES[break_core], monkeypatch)


@pytest.mark.parametrize(
    ("break_core", "rule", "weather"),
    [
        (votes_twice_in_a_term, OneVoteATerm, None),
        (votes_twice_in_a_term, ElectionSafety, TWO_LEADERS),
        (votes_without_looking_at_the_log, StateMachineSafety, TWO_LEADERS),
        (skips_the_consistency_check, LogMatching, TWO_LEADERS),
    ],
)
def test_the_consequences_are_found_without_the_rules_that_see_the_cause(
    break_core: Break, rule: type[Rule], weather: Weather | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`CommittedEntries` writes the history that others read, and may be the first to see its contradictions."""
    break_core(monkeypatch)
    failure = first_failure(100, weather, rules=(CommittedEntries, rule), passed_over="Liveness")
    assert failure is not None
    assert failure.rule in (rule.__name__, "CommittedEntries", "LogDamaged"), str(failure)
