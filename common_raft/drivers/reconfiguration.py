"""How a member takes part in changes of the membership: asks for them, has them appended, learns of them.

    asked --> unsent --propose, or send to the leader--> waiting --applied here--> done
                ^                                           |
                +---- refused as not led any more ----------+---- refused, deadline, stop: done with a ChangeError

The leader appends one change at a time, when all before it are applied (core.RawNode.propose_conf_change); the others
wait in its queue.  Time is in seconds.  Everything here belongs to the thread, or the loop, that owns the core.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import msgspec

from common_raft.core import (
    NOBODY,
    ConfChanges,
    EntryKind,
    InvalidConfChange,
    LogDamaged,
    ProposalDropped,
    RawNode,
    Role,
    decode_changes,
)
from common_raft.drivers.machine import tell
from common_raft.drivers.membership import (
    Change,
    ChangeDone,
    ChangeError,
    ChangeKind,
    MemberInfo,
    MemberRemoved,
    Members,
    Problem,
    decode_change,
    fault_of,
)
from common_raft.drivers.options import NodeOptions
from common_raft.drivers.proposals import STOPPED, TIMED_OUT, TOO_MANY
from common_raft.transport.links import Roster, Transport
from common_raft.transport.messages import ChangeRefused, ForwardedChange

log = logging.getLogger(__name__)

#: Changes that wait at one node, its own and others': people ask for them, one after another.
MAX_CHANGES = 1024
#: A removed node goes on for so many ticks, to say what it knows and to answer who asked (etcd: 1 s, server.go).
LAST_TICKS = 10
#: ``problem`` of a `ChangeRefused`: nothing is wrong with the change, but whom it was sent to does not lead.
NOT_LEADING = -1

#: What a part of committed work says about the configuration: entries by index.
Indexed: TypeAlias = Sequence[tuple[int, ConfChanges]]


def first_members(options: NodeOptions) -> Members:
    """The table that a node begins with."""
    if options.members:
        return Members.decode(options.members)
    own = [f"http://{host}:{port}" for host, port in options.listen]
    others = [
        MemberInfo(peer, f"{peer:x}", (f"http://{host}:{port}",))
        for peer, (host, port) in options.peers.items()
    ]
    # Not yet with what only this node knows: whoever is not in the table as it is, publishes itself.
    return Members([MemberInfo(options.id, f"{options.id:x}", tuple(own)), *others])


def first_voters(members: Members) -> tuple[int, ...]:
    """Who decides before any entry says so.  A table that is further on is of a cluster that a node joins."""
    return () if members.index else tuple(member.id for member in members.all())


class _Asked:
    """A change that a client of this node waits for."""

    __slots__ = ("change", "deadline", "done")

    def __init__(self, change: Change, deadline: float, done: ChangeDone) -> None:
        self.change = change
        self.deadline = deadline
        self.done = done


class Reconfiguration:
    """Set ``transport`` before anything else is called."""

    transport: Transport

    def __init__(
        self,
        options: NodeOptions,
        core: RawNode,
        members: Members,
        incarnation: int,
        now: Callable[[], float],
        on_removed: Callable[[MemberRemoved], None],
    ) -> None:
        """``on_removed`` is called once, some ticks after this node has learnt that it is no member any more."""
        self._options = options
        self._core = core
        self._members = members
        self._now = now
        self._on_removed = on_removed
        self._sequence = (
            incarnation << 32
        )  # so that an earlier life's requests, still in the log, are nobody's
        self._asked: dict[int, _Asked] = {}
        self._unsent: deque[Change] = deque()  # this node's, and what others sent to it as the leader
        self._ticks_left: int | None = None
        self._own = MemberInfo(options.id, options.name, (), tuple(options.client_urls))  # what it publishes
        self._publishing = False
        self.replay(core.applied)

    # --- what is known ----------------------------------------------------------------------------------------

    def roster(self) -> Roster:
        """The others, and what strangers are told."""
        members, own_id = self._members, self._options.id
        own = members.get(own_id)
        return Roster(
            own_id,
            self._options.cluster_id,
            members.addresses(own_id),
            members.removed,
            () if own is None else own.peer_urls,
            members.encode(),
            members.further_addresses(own_id),
        )

    def replay(self, applied: int) -> None:
        """The machine has seen everything up to ``applied``, so that nobody will hand it out again."""
        core_log = self._core.log
        for index in range(max(self._members.index + 1, core_log.first_index), applied + 1):
            entry = core_log.entry(index)
            if entry.kind is EntryKind.CONFIGURATION:
                self._take_in(index, decode_changes(entry.data))

    def on_applied(self, changes: Indexed) -> None:
        """Entries have been applied; the core is told by this."""
        for index, each in changes:
            self._core.apply_conf_change(index, each)
            if self._take_in(index, each):
                self.on_restored()

    def on_restored(self) -> None:
        """The table has changed: the links follow it.  A node that was removed keeps them, for its last words."""
        if self._options.id not in self._members.removed:
            self.transport.update(self.roster())

    def _take_in(self, index: int, changes: ConfChanges) -> bool:
        if not changes.context:
            return False
        change = decode_change(changes.context)
        news = self._members.apply(index, change)
        if news:
            told = change.member
            said = " ".join(filter(None, (told.name, *told.peer_urls, *told.client_urls)))
            log.info("entry %d: %s member %x %s", index, change.kind.name.lower(), told.id, said)
        if change.origin == self._options.id:
            self._finish(change.sequence, None)
        return news

    def learnt_of_removal(self) -> None:
        """By its own log, or from another member."""
        if self._ticks_left is None:
            self._ticks_left = LAST_TICKS

    # --- asking -----------------------------------------------------------------------------------------------

    def ask(self, kind: ChangeKind, member: MemberInfo, done: ChangeDone) -> None:
        """Has a change made; ``done`` is called when it is applied here, or will not be, or is not in time."""
        if len(self._asked) + len(self._unsent) >= MAX_CHANGES:
            done(ChangeError(Problem.NOT_DONE, TOO_MANY))
            return
        self._sequence += 1
        change = Change(kind, member, self._options.id, self._sequence)
        fault = fault_of(change)
        if fault is not None:
            done(fault)
            return
        self._asked[self._sequence] = _Asked(change, self._now() + self._options.request_timeout, done)
        self._unsent.append(change)

    @property
    def waiting(self) -> bool:
        return bool(self._unsent)

    def advance(self) -> None:
        """Once in a turn."""
        if self._unsent:
            if self._core.role is Role.LEADER:
                self._propose()
            elif self._core.leader != NOBODY and self.transport.is_connected(self._core.leader):
                while self._unsent:
                    data = msgspec.msgpack.encode(self._unsent.popleft())
                    self.transport.send(ForwardedChange(self._core.leader, self._options.id, data))

    def _propose(self) -> None:
        while self._unsent:
            change = self._unsent[0]
            if not self._core.may_propose_conf_change:
                return  # the one before it is not applied yet; tried again in a later turn
            error = self._members.check(change, self._reached(), strict=self._options.strict_reconfig_check)
            if error is None:
                try:
                    self._core.propose_conf_change(self._members.conf_changes(change))
                except ProposalDropped:
                    return  # leadership is being handed over
                except InvalidConfChange as invalid:
                    error = ChangeError(Problem.REFUSED, str(invalid))
            self._unsent.popleft()
            if error is not None:
                self._refuse(change, error.problem, error.cause)

    def _reached(self) -> set[int]:
        others = (member.id for member in self._members.all() if member.id != self._options.id)
        return {self._options.id, *filter(self.transport.is_connected, others)}

    def _refuse(self, change: Change, problem: int, cause: str) -> None:
        if change.origin == self._options.id:
            self._finish(change.sequence, ChangeError(Problem(problem), cause))
        else:
            refused = ChangeRefused(change.origin, self._options.id, change.sequence, problem, cause)
            self.transport.send(refused)

    def _finish(self, sequence: int, error: ChangeError | None) -> None:
        asked = self._asked.pop(sequence, None)
        if asked is not None:
            if error is not None:
                kind, member = asked.change.kind.name.lower(), asked.change.member
                log.warning("cannot %s member %x: %s", kind, member.id, error.cause)
            tell(asked.done, error)

    # --- what others send -------------------------------------------------------------------------------------

    def take(self, message: ForwardedChange | ChangeRefused) -> None:
        if isinstance(message, ChangeRefused):
            self._take_refusal(message)
            return
        try:
            change = decode_change(message.change)
        except LogDamaged as error:
            log.warning("forwarded change of %x dropped: %s", message.sender, error)
            return
        if change.origin != message.sender:
            log.warning("forwarded change of %x dropped: it is %x's", message.sender, change.origin)
        elif self._core.role is not Role.LEADER:
            self._refuse(change, NOT_LEADING, "")
        elif len(self._unsent) >= MAX_CHANGES:
            self._refuse(change, Problem.NOT_DONE, TOO_MANY)
        else:
            self._unsent.append(change)

    def _take_refusal(self, message: ChangeRefused) -> None:
        asked = self._asked.get(message.sequence)
        if asked is None:
            return
        if message.problem == NOT_LEADING:  # it was not appended: another leader may get it
            self._unsent.append(asked.change)
        else:
            problems = set(Problem)
            problem = Problem(message.problem) if message.problem in problems else Problem.REFUSED
            self._finish(message.sequence, ChangeError(problem, message.cause))

    def leads_no_longer(self) -> None:
        own = self._options.id
        foreign = [change for change in self._unsent if change.origin != own]
        self._unsent = deque(change for change in self._unsent if change.origin == own)
        for change in foreign:
            self._refuse(change, NOT_LEADING, "")

    # --- time -------------------------------------------------------------------------------------------------

    def on_tick(self) -> None:
        late = [each for each in self._asked.values() if each.deadline <= self._now()]
        self._end(late, TIMED_OUT)
        self.publish()
        if self._options.id in self._members.removed:  # known from the start, perhaps
            self.learnt_of_removal()
        if self._ticks_left is not None:
            self._ticks_left -= 1
            if self._ticks_left == 0:
                self._on_removed(MemberRemoved(self._options.id))

    def stop(self) -> None:
        """Ends all waiting: the node stops."""
        self._end(list(self._asked.values()), STOPPED)

    def _end(self, asked: Iterable[_Asked], cause: str) -> None:
        for each in asked:
            if each.change in self._unsent:
                self._unsent.remove(each.change)
            self._finish(each.change.sequence, ChangeError(Problem.NOT_DONE, cause))

    @property
    def published(self) -> bool:
        """Whether the table, as far as it is known here, has this member's name and client URLs; in any thread."""
        own, known = self._own, self._members.get(self._own.id)
        return known is not None and (known.name, known.client_urls) == (own.name, own.client_urls)

    def publish(self) -> None:
        """Lets all know this member's name, and where clients find it, unless they do."""
        if self._publishing or self._core.leader == NOBODY or self._ticks_left is not None or self.published:
            return
        if self._members.get(self._own.id) is not None:
            self._publishing = True
            self.ask(ChangeKind.PUBLISH, self._own, self._publishing_ended)

    def _publishing_ended(self, _error: ChangeError | None) -> None:
        self._publishing = False  # looked at again with the next tick
