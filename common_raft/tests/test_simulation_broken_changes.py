"""Cores, and drivers, broken in what they do about membership, snapshots and leases: the simulation must find each.

See `test_simulation_broken_cores.py`, which has those that break elections, replication, persistence and reads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from common_raft.core import (
    Configuration,
    EntryKind,
    HardState,
    RaftLog,
    RawNode,
    SnapshotMeta,
    configuration,
    elections,
    following,
    leading,
    membership,
    snapshots,
    transfer,
)
from common_raft.core.configuration import Transition, decode_changes
from common_raft.core.messages import AppendResponse, InstallSnapshot
from common_raft.core.raft import Raft
from common_raft.core.reads import Lease
from common_raft.storage.memory import MemoryStorage
from common_raft.testing import RULES, Conditions, Fault, Request, Weather
from common_raft.testing.disk import Disk
from common_raft.testing.durable import Durable, SnapshotDamaged
from common_raft.testing.faults import Faults
from common_raft.testing.journal import Journal
from common_raft.testing.process import Process
from common_raft.tests.broken_cores import Break, Expected, must_be_found, replace_handler
from common_raft.tests.test_simulation_broken_cores import CASES as OTHER_CASES

# --- membership ----------------------------------------------------------------------------------------------


def acts_on_a_configuration_when_it_is_appended(patch: pytest.MonkeyPatch) -> None:
    """The paper's way, mixed with what was made for etcd's."""
    append = leading.append

    def early(raft: Raft, entries: Any) -> None:
        append(raft, entries)
        for entry in entries:
            if entry.kind is EntryKind.CONFIGURATION:
                membership.apply_conf_change(raft, raft.log.last_index, decode_changes(entry.data))

    patch.setattr(leading, "append", early)


def acts_on_a_configuration_when_the_next_one_comes(patch: pytest.MonkeyPatch) -> None:
    apply_conf_change = RawNode.apply_conf_change
    waiting: dict[int, tuple[int, Any]] = {}

    def late(self: RawNode, index: int, changes: Any) -> Configuration:
        before = waiting.get(id(self))
        waiting[id(self)] = (index, changes)
        return self.configuration if before is None else apply_conf_change(self, *before)

    patch.setattr(RawNode, "apply_conf_change", late)


def counts_learners_for_the_commit_index(patch: pytest.MonkeyPatch) -> None:
    set_configuration = Raft.set_configuration

    def generous(raft: Raft, index: int, configuration: Configuration) -> None:
        set_configuration(raft, index, configuration)
        raft.plain = raft.is_voter and not configuration.joint

    patch.setattr(Raft, "set_configuration", generous)


def counts_learners_votes(patch: pytest.MonkeyPatch) -> None:
    result = elections.joint_vote_result

    def generous(raft: Raft, voter: int, granted: bool) -> None:
        everybody = (raft.configuration.members,)
        patch.setattr(elections, "joint_vote_result", lambda votes, halves: result(votes, everybody))
        record(raft, voter, granted)

    def ask_everybody(raft: Raft, *args: Any, **kwargs: Any) -> Any:
        mine, raft.configuration = raft.configuration, Configuration(raft.configuration.members)
        try:
            return requests(raft, *args, **kwargs)
        finally:
            raft.configuration = mine

    record, requests = elections.record_vote, elections.vote_requests
    patch.setattr(elections, "record_vote", generous)
    patch.setattr(elections, "vote_requests", ask_everybody)


def campaigns_as_a_learner(patch: pytest.MonkeyPatch) -> None:
    set_configuration = Raft.set_configuration

    def ambitious(raft: Raft, index: int, configuration: Configuration) -> None:
        set_configuration(raft, index, configuration)
        raft.is_voter = raft.id in configuration.members

    patch.setattr(Raft, "set_configuration", ambitious)


def with_halves(patch: pytest.MonkeyPatch, replace: Callable[[Any], Any]) -> None:
    """The core's arithmetic gets other halves than it asked for; the rules go on with the right ones."""
    commit, vote = leading.joint_committed_index, elections.joint_vote_result
    patch.setattr(leading, "joint_committed_index", lambda matches, halves: commit(matches, replace(halves)))
    patch.setattr(elections, "joint_vote_result", lambda votes, halves: vote(votes, replace(halves)))


def asks_only_the_new_voters_while_joint(patch: pytest.MonkeyPatch) -> None:
    with_halves(patch, lambda halves: halves[:1])


def asks_only_the_old_voters_while_joint(patch: pytest.MonkeyPatch) -> None:
    with_halves(patch, lambda halves: halves[-1:])


def asks_any_majority_of_both_while_joint(patch: pytest.MonkeyPatch) -> None:
    with_halves(patch, lambda halves: ({node for half in halves for node in half},))


def takes_a_second_change_before_the_first_is_applied(patch: pytest.MonkeyPatch) -> None:
    propose = membership.propose_conf_change

    def impatient(raft: Raft, changes: Any) -> None:
        raft.pending_conf_index = 0
        propose(raft, changes)

    patch.setattr(membership, "propose_conf_change", impatient)


def forgets_as_new_leader_that_a_change_may_be_pending(patch: pytest.MonkeyPatch) -> None:
    become_leader = elections.become_leader

    def hopeful(raft: Raft) -> None:
        become_leader(raft)
        raft.pending_conf_index = 0

    patch.setattr(elections, "become_leader", hopeful)


def changes_several_voters_at_once(patch: pytest.MonkeyPatch) -> None:
    changed = configuration.changed

    def at_once(before: Configuration, changes: Any) -> Configuration:
        if not changes.changes or changes.transition is not Transition.AUTO or before.joint:
            return changed(before, changes)
        return configuration._with(before, changes.changes)

    patch.setattr(membership, "changed", at_once)


def leaves_a_joint_configuration_for_the_old_voters(patch: pytest.MonkeyPatch) -> None:
    changed = configuration.changed

    def back(before: Configuration, changes: Any) -> Configuration:
        after = changed(before, changes)
        return after if changes.changes else msgspec.structs.replace(after, voters=before.outgoing)

    patch.setattr(membership, "changed", back)


def never_leaves_a_joint_configuration_by_itself(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(membership, "leave_joint_if_due", lambda raft: None)


def asks_an_earlier_configuration_after_a_restart(patch: pytest.MonkeyPatch) -> None:
    """What the snapshot says of the configuration is not looked at."""
    start = Raft.__init__

    def forgetful(raft: Raft, config: Any, stored: Any, rng: Any) -> None:
        start(raft, config, stored, rng)
        if stored.snapshot is not None and config.voters:
            raft.set_configuration(0, Configuration(config.voters))

    patch.setattr(Raft, "__init__", forgetful)


# --- snapshots -----------------------------------------------------------------------------------------------


def leaves_the_configuration_out_of_a_snapshot(patch: pytest.MonkeyPatch) -> None:
    snapshot_meta = RawNode.snapshot_meta

    def bare(self: RawNode) -> SnapshotMeta:
        meta = snapshot_meta(self)
        return SnapshotMeta(meta.index, meta.term, Configuration(self._raft.config.voters or (self.id,)))

    patch.setattr(RawNode, "snapshot_meta", bare)


def keeps_its_configuration_when_it_installs_a_snapshot(patch: pytest.MonkeyPatch) -> None:
    """openraft's issue 1808."""
    handle = snapshots.handle_install_snapshot

    def stubborn(raft: Raft, message: InstallSnapshot) -> None:
        mine = raft.configuration_index, raft.configuration
        restored = raft.restored
        handle(raft, message)
        if raft.restored is not restored:
            raft.set_configuration(*mine)

    replace_handler(patch, InstallSnapshot, stubborn)


def installs_a_snapshot_older_than_its_log(patch: pytest.MonkeyPatch) -> None:
    def obedient(raft: Raft, message: InstallSnapshot) -> None:
        raft.follow(message.sender)
        meta = message.snapshot
        raft.log.restore(meta.index, meta.term)
        raft.restored = raft.snapshot = meta
        raft.set_configuration(meta.index, meta.configuration)
        following.acknowledge(raft, meta.index)

    replace_handler(patch, InstallSnapshot, obedient)


def acknowledges_a_snapshot_before_its_log_says_so(patch: pytest.MonkeyPatch) -> None:
    handle = snapshots.handle_install_snapshot

    def hasty(raft: Raft, message: InstallSnapshot) -> None:
        handle(raft, message)
        answers = [m for m in raft.messages_after_append if isinstance(m, AppendResponse)]
        raft.messages_after_append = [m for m in raft.messages_after_append if m not in answers]
        raft.messages += answers

    replace_handler(patch, InstallSnapshot, hasty)


def drops_more_of_its_log_than_the_snapshot_holds(patch: pytest.MonkeyPatch) -> None:
    compact = RawNode.compact

    def greedy(self: RawNode, index: int) -> None:
        compact(self, index)
        self._raft.log.compact(min(self.applied, index + 3))

    patch.setattr(RawNode, "compact", greedy)


def forgets_the_term_where_its_log_begins(patch: pytest.MonkeyPatch) -> None:
    compact = RaftLog.compact

    def forgetful(self: RaftLog, index: int) -> None:
        compact(self, index)
        self.offset_term = 0

    patch.setattr(RaftLog, "compact", forgetful)


def keeps_the_old_log_beside_a_snapshot_that_replaces_it(patch: pytest.MonkeyPatch) -> None:
    """The disk then finds entries that contradict the snapshot (etcd's issue 22442 is of this family)."""

    def lenient(self: MemoryStorage, snapshot: SnapshotMeta) -> None:
        self.snapshot = snapshot
        if self.last_index < snapshot.index:
            self.first_index, self.entries = snapshot.index + 1, []

    patch.setattr(MemoryStorage, "mark_snapshot", lenient)


def marks_a_snapshot_that_its_disk_does_not_have(patch: pytest.MonkeyPatch) -> None:
    mark = Disk.mark_snapshot

    def early(self: Disk, snapshot: SnapshotMeta) -> None:
        mark(self, snapshot)
        self.files.pop((snapshot.index, snapshot.term))

    patch.setattr(Disk, "mark_snapshot", early)


def waits_for_ever_for_a_snapshot_that_was_lost(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RawNode, "report_snapshot", lambda self, peer, ok: None)


def restores_its_machine_from_a_damaged_snapshot(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Disk, "is_sound", lambda self, snapshot: (snapshot.index, snapshot.term) in self.files)


def falls_back_although_its_log_does_not_reach_so_far(patch: pytest.MonkeyPatch) -> None:
    """It begins with an empty machine, and what is left of its log."""

    def lenient(self: Durable, is_sound: Callable[[SnapshotMeta], bool]) -> None:
        sound = [mark for mark in self.marks if is_sound(mark)]
        self.snapshot = sound[-1] if sound else None

    patch.setattr(Durable, "pass_over", lenient)


def begins_anew_when_its_snapshot_is_damaged(patch: pytest.MonkeyPatch) -> None:
    """The others will send it everything once more; but it has promised what it has."""
    pass_over = Durable.pass_over

    def forgetful(self: Durable, is_sound: Callable[[SnapshotMeta], bool]) -> None:
        try:
            pass_over(self, is_sound)
        except SnapshotDamaged:
            self.first_index, self.entries, self.marks, self.snapshot = 1, [], [], None
            self.hard_state = HardState(self.hard_state.term, self.hard_state.vote, 0)

    patch.setattr(Durable, "pass_over", forgetful)


def starts_again_with_an_emptied_disk(patch: pytest.MonkeyPatch) -> None:
    """It votes as if it had never voted, and lacks what it has acknowledged."""

    def careless(self: Faults, victim: Process, length: float) -> None:
        if victim.running and self._simulation.operators.can_lose(victim):
            self._simulation.count(f"the disk of {victim.id} is emptied")
            victim.crash(0)
            victim.disk = Disk(journal=Journal(self._random))
            self._simulation.start(victim)

    patch.setattr(Faults, "_wipe", careless)


# --- leases --------------------------------------------------------------------------------------------------


def trusts_its_lease_for_twice_as_long(patch: pytest.MonkeyPatch) -> None:
    """etcd's lasts until the next check of the quorum."""

    def trusting(self: Lease, now: int) -> bool:
        return self._since is not None and now - self._since <= 2 * self._election_tick

    patch.setattr(Lease, "holds", trusting)


def keeps_its_lease_while_it_hands_over(patch: pytest.MonkeyPatch) -> None:
    """openraft's issue 1747, tikv's pull request 4688."""
    hand_over = transfer.hand_over_if_caught_up

    def trusting(raft: Raft) -> None:
        lease = raft.lease
        hand_over(raft)
        raft.lease = lease

    patch.setattr(transfer, "hand_over_if_caught_up", trusting)


def forgets_on_restart_what_a_lease_rests_on(patch: pytest.MonkeyPatch) -> None:
    start = Raft.__init__

    def forgetful(raft: Raft, config: Any, stored: Any, rng: Any) -> None:
        start(raft, config, stored, rng)
        raft.silence = config.election_tick

    patch.setattr(Raft, "__init__", forgetful)


def does_not_make_up_for_ticks_that_it_missed(patch: pytest.MonkeyPatch) -> None:
    """A driver whose clock stood still while it was stopped."""
    patch.setattr(Process, "lease_reads", property(lambda self: False))


#: Members come and go, and leaders with them.
CHURN = Weather(
    nodes=3,
    election_tick=3,
    limits={"pre_vote": False, "check_quorum": False, "max_message_bytes": 40},
    conditions=Conditions(loss=0.05, delay=0.5),
    faults={Fault.SPLIT: 1.0, Fault.CRASH: 0.5, Fault.CAMPAIGN: 0.5},
    fault_interval=4.0,
    fault_length=5.0,
    requests={Request.PROPOSE: 1.0, Request.CHANGE: 0.5},
    request_interval=0.5,
)

#: Followers fall behind what their leader keeps.
LAGGARDS = Weather(
    nodes=3,
    election_tick=5,
    conditions=Conditions(loss=0.05, delay=0.5, in_order=False),
    faults={Fault.SPLIT: 1.0, Fault.CRASH: 0.5, Fault.PAUSE: 0.5, Fault.REPLAY: 0.5},
    fault_interval=4.0,
    fault_length=8.0,
    request_interval=0.3,
    snapshot_every=5,
    snapshot_delay=1.0,
)

#: The same, while members come and go.
CHURN_AND_LAGGARDS = replace(CHURN, snapshot_every=5, snapshot_delay=1.0, fault_length=8.0)

#: The files of snapshots are damaged, more often than not those of nodes that the others need.
ROT = replace(
    LAGGARDS,
    faults={Fault.ROT: 1.0, Fault.CRASH: 0.5, Fault.SPLIT: 1.0, Fault.CAMPAIGN: 1.0},
    fault_interval=2.0,
    fault_length=4.0,
)

#: Leaders that are cut off while they rely on promises.
LEASES = Weather(
    nodes=3,
    election_tick=8,
    limits={"lease_reads": True},
    conditions=Conditions(delay=0.3),
    faults={Fault.SPLIT: 1.0, Fault.CAMPAIGN: 3.0},
    fault_interval=2.0,
    fault_length=15.0,
    requests={Request.PROPOSE: 1.0, Request.READ: 2.0},
    request_interval=0.3,
    disk_delay=0.1,
    clock_drift=0.15,
)

#: The same, and they are stopped meanwhile.
STOPPED = replace(LEASES, faults={Fault.SPLIT: 1.0, Fault.PAUSE: 2.0, Fault.CAMPAIGN: 2.0}, fault_length=20.0)

#: They do not hear of those to whom they have handed over.
HANDED_OVER = replace(
    LEASES,
    conditions=Conditions(loss=0.25, delay=1.0, in_order=False),
    faults={Fault.SPLIT: 1.0, Fault.ONE_WAY: 1.0},
    fault_interval=3.0,
    fault_length=8.0,
    requests={Request.PROPOSE: 1.0, Request.READ: 2.0, Request.TRANSFER: 0.5},
)

#: Others restart, all within the time of one lease.
LONG_LEASES = replace(
    LEASES,
    election_tick=30,
    conditions=Conditions(delay=0.2),
    faults={Fault.SPLIT: 1.0, Fault.CRASH: 1.5, Fault.CAMPAIGN: 3.0},
    fault_interval=1.2,
    fault_length=5.0,
    requests={Request.PROPOSE: 1.0, Request.READ: 3.0},
    request_interval=0.5,
)

#: Disks are emptied, and nobody replaces their nodes.
EMPTIED_DISKS = replace(CHURN, faults={Fault.WIPE: 1.0, Fault.CAMPAIGN: 1.0, Fault.SPLIT: 0.5})

CASES: dict[Break, Expected] = {
    acts_on_a_configuration_when_it_is_appended: Expected("ActsOnWhatIsApplied", weather=CHURN),
    acts_on_a_configuration_when_the_next_one_comes: Expected("ActsOnWhatIsApplied", weather=CHURN),
    counts_learners_for_the_commit_index: Expected("CommittedEntries", weather=CHURN),
    counts_learners_votes: Expected("ElectedByMajority", weather=CHURN),
    campaigns_as_a_learner: Expected("ElectedByMajority", weather=CHURN),
    asks_only_the_new_voters_while_joint: Expected("ElectedByMajority CommittedEntries", weather=CHURN),
    asks_only_the_old_voters_while_joint: Expected("ElectedByMajority CommittedEntries", weather=CHURN),
    asks_any_majority_of_both_while_joint: Expected("ElectedByMajority CommittedEntries", weather=CHURN),
    takes_a_second_change_before_the_first_is_applied: Expected(
        "OneUncommittedConfiguration MajoritiesOverlap", weather=CHURN
    ),
    forgets_as_new_leader_that_a_change_may_be_pending: Expected(
        "OneUncommittedConfiguration MajoritiesOverlap", weather=CHURN
    ),
    changes_several_voters_at_once: Expected("MajoritiesOverlap", weather=CHURN),
    leaves_a_joint_configuration_for_the_old_voters: Expected("MajoritiesOverlap", weather=CHURN),
    never_leaves_a_joint_configuration_by_itself: Expected("Liveness", weather=CHURN),
    asks_an_earlier_configuration_after_a_restart: Expected(
        "ActsOnWhatIsApplied", weather=CHURN_AND_LAGGARDS
    ),
    leaves_the_configuration_out_of_a_snapshot: Expected(
        "SnapshotsAreTrue ActsOnWhatIsApplied", weather=CHURN_AND_LAGGARDS
    ),
    keeps_its_configuration_when_it_installs_a_snapshot: Expected(
        "ActsOnWhatIsApplied", weather=CHURN_AND_LAGGARDS
    ),
    installs_a_snapshot_older_than_its_log: Expected(
        "NeverBack StateMachineSafety SnapshotsAreTrue", weather=LAGGARDS
    ),
    acknowledges_a_snapshot_before_its_log_says_so: Expected("PersistBeforeSaying", weather=LAGGARDS),
    drops_more_of_its_log_than_the_snapshot_holds: Expected("SnapshotsAreTrue", weather=LAGGARDS),
    forgets_the_term_where_its_log_begins: Expected(
        "ReadyContract LeaderAppendOnly LeaderCompleteness PersistBeforeSaying PersistedIsOnDisk",
        weather=LAGGARDS,
    ),
    keeps_the_old_log_beside_a_snapshot_that_replaces_it: Expected(
        "PersistBeforeSaying LogDamaged", weather=LAGGARDS
    ),
    marks_a_snapshot_that_its_disk_does_not_have: Expected("KeyError SnapshotDamaged", weather=LAGGARDS),
    waits_for_ever_for_a_snapshot_that_was_lost: Expected("Liveness", weather=LAGGARDS),
    restores_its_machine_from_a_damaged_snapshot: Expected("StateMachineSafety", weather=ROT),
    falls_back_although_its_log_does_not_reach_so_far: Expected("LogDamaged", weather=ROT),
    begins_anew_when_its_snapshot_is_damaged: Expected(
        "LogDamaged LeaderCompleteness CommittedEntries", weather=ROT
    ),
    starts_again_with_an_emptied_disk: Expected(
        "LogDamaged LeaderCompleteness CommittedEntries OneVoteATerm", weather=EMPTIED_DISKS
    ),
    trusts_its_lease_for_twice_as_long: Expected("LinearizableReads", weather=LEASES),
    keeps_its_lease_while_it_hands_over: Expected("LinearizableReads", weather=HANDED_OVER),
    forgets_on_restart_what_a_lease_rests_on: Expected("LinearizableReads", weather=LONG_LEASES),
    does_not_make_up_for_ticks_that_it_missed: Expected("LinearizableReads", weather=STOPPED),
}


@pytest.mark.parametrize("break_core", CASES, ids=lambda break_core: break_core.__name__)
def test_the_simulation_finds_a_core_that(break_core: Break, monkeypatch: pytest.MonkeyPatch) -> None:
    must_be_found(break_core, CASES[break_core], monkeypatch)


def test_every_rule_is_broken_by_some_core() -> None:
    cases = [*OTHER_CASES.values(), *CASES.values()]
    assert {rule.__name__ for rule in RULES} <= {
        rule for expected in cases for rule in expected.rules.split()
    }
