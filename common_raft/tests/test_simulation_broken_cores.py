"""Cores broken on purpose, each of which the simulation must find: proof that the invariants can fail.

Every function here breaks one thing by `monkeypatch`; its docstring says what a reader would call the bug.  The
table at the end names, for each, the rules that may report it and the seeds that it may take.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import pytest

from common_raft.core import NOBODY, HardState, RaftLog, RawNode, Role, quorum, raft
from common_raft.core.messages import AppendEntries, AppendResponse, Heartbeat, RequestVote
from common_raft.core.progress import Progress
from common_raft.core.raft import HANDLERS, Raft
from common_raft.testing import RULES, Conditions, Fault, Request, Rule, Simulation, SimulationFailed, Weather
from common_raft.testing.invariants import (
    CommittedEntries,
    ElectionSafety,
    LogMatching,
    OneVoteATerm,
    StateMachineSafety,
)

Break = Callable[[pytest.MonkeyPatch], None]


def replace_handler(patch: pytest.MonkeyPatch, message: type, handler: Callable[[Raft, Any], None]) -> None:
    """The role table holds functions, so that replacing a method of the class would change nothing."""
    for cells in HANDLERS.values():
        if message in cells:
            patch.setitem(cells, message, handler)  # type: ignore[arg-type]


# --- elections -----------------------------------------------------------------------------------------------


def votes_twice_in_a_term(patch: pytest.MonkeyPatch) -> None:
    handle = Raft._handle_request_vote

    def forgetful(self: Raft, message: RequestVote) -> None:
        if self.role is Role.FOLLOWER:
            self.vote = self.leader = NOBODY
        handle(self, message)

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

    def forgetful(self: Raft, *args: Any) -> None:
        start(self, *args)
        self.vote = NOBODY

    patch.setattr(Raft, "__init__", forgetful)


def forgets_its_term_on_restart(patch: pytest.MonkeyPatch) -> None:
    start = Raft.__init__

    def forgetful(self: Raft, *args: Any) -> None:
        start(self, *args)
        self.term = self.log.last_term

    patch.setattr(Raft, "__init__", forgetful)


def counts_a_repeated_vote_twice(patch: pytest.MonkeyPatch) -> None:
    record = Raft._record_vote

    def counting(self: Raft, voter: int, granted: bool) -> None:
        if voter in self._votes:
            voter = next((peer for peer in self.peers if peer not in self._votes), voter)
        record(self, voter, granted)

    patch.setattr(Raft, "_record_vote", counting)


def takes_pre_votes_for_votes(patch: pytest.MonkeyPatch) -> None:
    def pre_candidate_wins(self: Raft, voter: int, granted: bool) -> None:
        self._votes.setdefault(voter, granted)
        if quorum.vote_result(self._votes, self.config.voters) is quorum.VoteResult.WON:
            if self.role is Role.PRE_CANDIDATE:
                self.term += 1
                self.vote = self.id
            self._become_leader()

    patch.setattr(Raft, "_record_vote", pre_candidate_wins)


def takes_half_for_a_majority(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(quorum, "majority", lambda voters: voters // 2)
    patch.setattr(raft, "majority", lambda voters: voters // 2)


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
    maybe_commit = Raft.maybe_commit

    def optimistic(self: Raft) -> None:
        persisted, self.log.persisted = self.log.persisted, self.log.last_index
        maybe_commit(self)
        self.log.persisted = persisted

    patch.setattr(Raft, "maybe_commit", optimistic)


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
    become_candidate = Raft._become_candidate

    def hasty(self: Raft, transfer: bool) -> None:
        become_candidate(self, transfer)
        requests = [m for m in self.messages_after_append if isinstance(m, RequestVote)]
        self.messages_after_append = [m for m in self.messages_after_append if m not in requests]
        self.messages += requests
        self._record_vote(self.id, granted=True)

    patch.setattr(Raft, "_become_candidate", hasty)


# --- replication ---------------------------------------------------------------------------------------------


def commits_an_older_terms_entry_by_counting(patch: pytest.MonkeyPatch) -> None:
    """Figure 8 of the paper."""

    maybe_commit = Raft.maybe_commit

    def counting(self: Raft) -> None:
        index = quorum.committed_index([self.log.persisted, *(p.match_index for p in self.progress.values())])
        if index > self.log.committed and self.log.term(index) != self.term:
            self.log.commit_to(index)
            self.wants_replication = True
        else:
            maybe_commit(self)

    patch.setattr(Raft, "maybe_commit", counting)


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
    handle = Raft._handle_append_response

    def yielding(self: Raft, message: AppendResponse) -> None:
        if message.rejected and self.log.committed <= message.hint_index < self.log.last_index:
            self.log._truncate_from(message.hint_index + 1)
        handle(self, message)

    replace_handler(patch, AppendResponse, yielding)


def new_leader_drops_what_is_not_committed(patch: pytest.MonkeyPatch) -> None:
    become_leader = Raft._become_leader

    def dropping(self: Raft) -> None:
        self.log._truncate_from(self.log.committed + 1)
        become_leader(self)

    patch.setattr(Raft, "_become_leader", dropping)


def takes_what_was_sent_as_matched(patch: pytest.MonkeyPatch) -> None:
    """The Java study's: the match index follows the leader's own next index."""
    sent_append = Progress.sent_append

    def optimistic(self: Progress, last_index: int, count: int, size: int, commit: int) -> None:
        sent_append(self, last_index, count, size, commit)
        self.match_index = max(self.match_index, self.next_index - 1)

    patch.setattr(Progress, "sent_append", optimistic)


def follower_commits_past_what_it_has_checked(patch: pytest.MonkeyPatch) -> None:
    """Rule 5 of AppendEntries: not past the last *new* entry; what lies behind it may be of a dead leader."""
    handle = Raft._handle_append_entries

    def rash(self: Raft, message: AppendEntries) -> None:
        handle(self, message)
        self.log.commit_to(min(message.commit, self.log.last_index))

    replace_handler(patch, AppendEntries, rash)


def heartbeat_commits_past_what_matches(patch: pytest.MonkeyPatch) -> None:
    def rash(self: Raft, message: Heartbeat) -> None:
        self._follow(message.sender)
        leader_commit = message.commit + 1  # as if the leader had not taken the minimum with the match index
        self.log.commit_to(min(leader_commit, self.log.last_index))

    replace_handler(patch, Heartbeat, rash)


def takes_appends_of_a_deposed_leader(patch: pytest.MonkeyPatch) -> None:
    def obliging(self: Raft, message: Any) -> None:
        if isinstance(message, AppendEntries) and self.role is Role.FOLLOWER:
            last = self.log.merge(message.prev_index, message.prev_term, message.entries)
            if last is not None:
                self.messages_after_append.append(AppendResponse(message.sender, self.id, message.term, last))

    patch.setattr(Raft, "_answer_lower_term", obliging)


def goes_on_leading_in_a_higher_term(patch: pytest.MonkeyPatch) -> None:
    enter = Raft._enter_higher_term

    def stubborn(self: Raft, message: Any) -> bool:
        if self.role is Role.LEADER and not isinstance(message, RequestVote):
            self.term = message.term
            return False
        return enter(self, message)

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
    def trusting(self: Raft, sender: int, context: int) -> None:
        self._deliver_reads([raft.PendingRead(0, self.log.committed, sender, context)], False)

    patch.setattr(Raft, "_add_read", trusting)


def answers_reads_before_it_has_committed_in_its_term(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Raft, "_read_as_leader", Raft._add_read)


def lets_an_earlier_round_confirm_a_read(patch: pytest.MonkeyPatch) -> None:
    """The heartbeats of the round under way left before the read came."""
    add = raft.ReadRounds.add

    def sharing(self: Any, index: int, sender: int, context: int) -> bool:
        started = add(self, index, sender, context)
        if not started:
            self._waiting[-1] = raft.PendingRead(self.current, index, sender, context)
        return started

    patch.setattr(raft.ReadRounds, "add", sharing)


# --- recovery ------------------------------------------------------------------------------------------------


def never_probes_again_after_a_loss(patch: pytest.MonkeyPatch) -> None:
    def deaf(self: Raft, message: Any) -> None:
        self.progress[message.sender].recent_active = True

    replace_handler(patch, raft.HeartbeatResponse, deaf)


def does_not_tell_a_deposed_leader(patch: pytest.MonkeyPatch) -> None:
    """A follower ahead in term, held off by the others' lease, stays outside for ever."""
    patch.setattr(Raft, "_answer_lower_term", lambda self, message: None)


def keeps_refusing_proposals_after_a_failed_transfer(patch: pytest.MonkeyPatch) -> None:
    tick_leader = Raft._tick_leader

    def patient(self: Raft) -> None:
        transferee = self._transferee
        tick_leader(self)
        if self.role is Role.LEADER:
            self._transferee = transferee

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

#: Entries are replaced while their write is still under way.
SLOW_DISKS = replace(
    TWO_LEADERS, election_tick=5, disk_delay=4.0, batching=0.9, requests={Request.PROPOSE: 1.0}
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


class Expected(NamedTuple):
    rules: str  #: those that may report it, separated by spaces; LogDamaged is the core's own alarm
    seeds: int = 100  #: within which it must be found
    weather: Weather | None = None  #: what brings it out; None: whatever the seed brings


CASES: dict[Break, Expected] = {
    votes_twice_in_a_term: Expected("NeverBack OneVoteATerm ElectionSafety"),
    votes_without_looking_at_the_log: Expected("LeaderCompleteness"),
    compares_logs_by_length_only: Expected("LeaderCompleteness", seeds=300),
    does_not_write_its_vote: Expected("PersistBeforeSaying"),
    forgets_its_vote_on_restart: Expected("NeverBack"),
    forgets_its_term_on_restart: Expected("NeverBack"),
    counts_a_repeated_vote_twice: Expected("ElectionSafety LeaderCompleteness", weather=DUPLICATES),
    takes_pre_votes_for_votes: Expected("ElectionSafety LeaderCompleteness"),
    takes_half_for_a_majority: Expected("CommittedEntries ElectionSafety LeaderCompleteness"),
    answers_before_the_disk_has_it: Expected("PersistBeforeSaying"),
    counts_its_own_unwritten_entries: Expected("CommittedEntries"),
    still_counts_replaced_entries_as_persisted: Expected("PersistedIsOnDisk"),
    does_not_write_replaced_entries_again: Expected("ReadyContract LogMatching"),
    takes_any_confirmed_write_for_its_log: Expected("PersistedIsOnDisk", weather=SLOW_DISKS),
    campaigns_before_its_term_is_on_disk: Expected("PersistBeforeSaying"),
    commits_an_older_terms_entry_by_counting: Expected("CommittedEntries", weather=FIGURE_8),
    skips_the_consistency_check: Expected("LogMatching CommittedEntries PersistBeforeSaying", seeds=200),
    truncates_behind_every_append: Expected("LogDamaged CommittedEntries PersistBeforeSaying"),
    leader_truncates_its_own_log: Expected("LeaderAppendOnly"),
    new_leader_drops_what_is_not_committed: Expected("LeaderCompleteness CommittedEntries"),
    takes_what_was_sent_as_matched: Expected("CommittedEntries LogDamaged Liveness"),
    follower_commits_past_what_it_has_checked: Expected("CommittedEntries", seeds=200),
    heartbeat_commits_past_what_matches: Expected("CommittedEntries Liveness"),
    takes_appends_of_a_deposed_leader: Expected("Liveness LogDamaged LeaderCompleteness CommittedEntries"),
    goes_on_leading_in_a_higher_term: Expected("ElectionSafety Liveness"),
    applies_entries_twice: Expected("ReadyContract"),
    applies_what_its_disk_does_not_have: Expected("ReadyContract"),
    answers_reads_without_asking_a_majority: Expected("LinearizableReads", weather=TWO_LEADERS),
    answers_reads_before_it_has_committed_in_its_term: Expected("LinearizableReads"),
    lets_an_earlier_round_confirm_a_read: Expected("LinearizableReads", seeds=600, weather=LATE_ANSWERS),
    never_probes_again_after_a_loss: Expected("Liveness"),
    does_not_tell_a_deposed_leader: Expected("Liveness", seeds=200),
    keeps_refusing_proposals_after_a_failed_transfer: Expected("Liveness", weather=FAILING_TRANSFERS),
}


def first_failure(
    seeds: int, weather: Weather | None, rules: tuple[type[Rule], ...] = RULES
) -> SimulationFailed | None:
    for seed in range(seeds):
        try:
            Simulation(seed, weather=weather, rules=rules).run(steps=1000)
        except SimulationFailed as failure:
            return failure
    return None


@pytest.mark.parametrize("break_core", CASES, ids=lambda break_core: break_core.__name__)
def test_the_simulation_finds_a_core_that(break_core: Break, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = CASES[break_core]
    break_core(monkeypatch)
    failure = first_failure(expected.seeds, expected.weather)
    assert failure is not None, f"{expected.seeds} seeds did not find it"
    assert failure.rule in expected.rules.split(), str(failure)


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
    failure = first_failure(100, weather, rules=(CommittedEntries, rule))
    assert failure is not None
    assert failure.rule in (rule.__name__, "CommittedEntries", "LogDamaged"), str(failure)


def test_every_rule_is_broken_by_some_core() -> None:
    seen = {rule for expected in CASES.values() for rule in expected.rules.split()}
    others = {
        "StateMachineSafety"
    }  # see test_simulation.py: what breaks it is another rule's business before
    assert {rule.__name__ for rule in RULES} - others <= seen
