"""The members of a cluster, as replicated state: who they are, where they are, and who was removed for good.

It begins with the members of ``--initial-cluster``, or with what an existing cluster told a node that joins it, and
is changed by the entries of kind CONFIGURATION, whose context is a `Change`.  Also those that change nothing about
the voters (a member's URLs, its name) go that way, as a change to what the member is already: so a leader judges
each change by a table that holds all changes before it.  Rules and words are those of etcd
(server/etcdserver/api/membership/cluster.go).

What lies behind ``index`` is known, so that an entry which is handed out again, or was in the table that a node began
with, changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from enum import IntEnum
from hashlib import sha1
from typing import NamedTuple, TypeAlias

import msgspec
from msgspec import Struct

from common_raft.core import ConfChange, ConfChangeKind, ConfChanges, LogDamaged
from common_raft.core.configuration import is_id
from common_raft.transport.links import Address, address_of, addresses_of

#: As etcd 3.5.
MAX_LEARNERS = 1


class MemberRemoved(Exception):
    """This node is no member any more, and never will be again.  It must stop."""

    def __init__(self, node_id: int) -> None:
        super().__init__(
            f"the member {node_id:x} has been permanently removed from the cluster: to let the node join again, add "
            "it as a new member, and start it with an empty --data-dir and --initial-cluster-state existing"
        )


class MemberInfo(Struct, frozen=True, array_like=True):
    """One member.  Its name and client URLs are told by itself, once it runs."""

    id: int
    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...] = ()
    learner: bool = False

    @property
    def started(self) -> bool:
        """Whether it has run: only then does it count for what a change may cost."""
        return bool(self.name)

    @property
    def address(self) -> Address:
        """Where to dial it."""
        return address_of(self.peer_urls)


class ChangeKind(IntEnum):
    ADD = 0  #: all of the member
    REMOVE = 1  #: its id
    UPDATE = 2  #: its peer URLs
    PUBLISH = 3  #: its name and client URLs, told by itself
    PROMOTE = 4  #: a learner becomes a voter


class Change(Struct, frozen=True, array_like=True):
    """What an entry does to the table.  ``origin`` and ``sequence`` name the request, for the one who waits."""

    kind: ChangeKind
    member: MemberInfo
    origin: int = 0
    sequence: int = 0


class Problem(IntEnum):
    """Why a change was not made."""

    UNKNOWN = 0  #: there is no such member
    REMOVED = 1  #: there was, and an id never comes back
    URL_EXISTS = 2
    ID_EXISTS = 3
    REFUSED = 4  #: the cluster cannot afford it now, or the rules forbid it
    NOT_DONE = 5  #: by nobody, as far as is known, within the request's time
    ALONE = 6  #: there is no cluster


_STATUS = {
    Problem.UNKNOWN: 404,
    Problem.REMOVED: 410,
    Problem.URL_EXISTS: 409,
    Problem.ID_EXISTS: 409,
    Problem.ALONE: 501,
}


class ChangeError(NamedTuple):
    problem: Problem
    cause: str

    @property
    def status(self) -> int:
        """As HTTP has it, and etcd: 404, 409, 410, else 500; and 501."""
        return _STATUS.get(self.problem, 500)


#: Gets None once the change is applied here.
ChangeDone: TypeAlias = Callable[[ChangeError | None], None]

ID_NOT_FOUND = ChangeError(Problem.UNKNOWN, "membership: ID not found")
ID_REMOVED = ChangeError(Problem.REMOVED, "membership: ID removed")
URL_EXISTS = ChangeError(Problem.URL_EXISTS, "membership: peerURL exists")
ID_EXISTS = ChangeError(Problem.ID_EXISTS, "membership: ID exists")
NOT_LEARNER = ChangeError(Problem.REFUSED, "membership: can only promote a learner member")
TOO_MANY_LEARNERS = ChangeError(Problem.REFUSED, "membership: too many learner members in cluster")
NOT_ENOUGH_STARTED = ChangeError(
    Problem.REFUSED, "etcdserver: re-configuration failed due to not enough started members"
)
UNHEALTHY = ChangeError(Problem.REFUSED, "etcdserver: unhealthy cluster")


class _Table(Struct, frozen=True, array_like=True):
    index: int
    members: list[MemberInfo]
    removed: list[int]


class Members:
    """The table.  One thread changes it; ``all`` and ``get`` may be called in any."""

    def __init__(self, members: Iterable[MemberInfo], removed: Iterable[int] = (), index: int = 0) -> None:
        self.index = index  #: the last entry that is in the table
        self.removed = frozenset(removed)
        self._members: Mapping[int, MemberInfo] = {member.id: member for member in members}  # never changed

    @classmethod
    def decode(cls, data: bytes) -> Members:
        """Raises ValueError (msgspec.ValidationError) for what `encode` did not make."""
        table = msgspec.msgpack.decode(data, type=_Table)
        return cls(table.members, table.removed, table.index)

    def encode(self) -> bytes:
        return msgspec.msgpack.encode(_Table(self.index, self.all(), sorted(self.removed)))

    def restore(self, data: bytes) -> None:
        """A snapshot holds ``data``.  A table that is further on stays."""
        table = Members.decode(data)
        if table.index > self.index:
            self.index, self.removed, self._members = table.index, table.removed, table._members

    def all(self) -> list[MemberInfo]:
        """In ascending order of the id, as etcd lists them."""
        return sorted(self._members.values(), key=lambda member: member.id)

    def get(self, node_id: int) -> MemberInfo | None:
        return self._members.get(node_id)

    def addresses(self, own_id: int) -> dict[int, Address]:
        """Where to dial the others."""
        return {member.id: member.address for member in self.all() if member.id != own_id}

    def further_addresses(self, own_id: int) -> dict[int, list[Address]]:
        """Where else to dial those that have several URLs."""
        ways = {member.id: addresses_of(member.peer_urls) for member in self.all() if member.id != own_id}
        return {node_id: addresses[1:] for node_id, addresses in ways.items() if len(addresses) > 1}

    # --- changing ---------------------------------------------------------------------------------------------

    def apply(self, index: int, change: Change) -> bool:
        """The entry at ``index`` holds ``change``; whether that was news."""
        if index <= self.index:
            return False
        self.index = index
        told, members = change.member, dict(self._members)
        before = members.get(told.id)
        if change.kind is ChangeKind.ADD and told.id not in self.removed:
            members[told.id] = told
        elif change.kind is ChangeKind.REMOVE:
            members.pop(told.id, None)
            self.removed |= {told.id}
        elif before is not None:
            members[told.id] = _changed(before, change)
        self._members = members
        return True

    def conf_changes(self, change: Change) -> ConfChanges:
        """What the core is to make of a change that may be made."""
        node_id, kind = change.member.id, ConfChangeKind.ADD_VOTER
        if change.kind is ChangeKind.REMOVE:
            kind = ConfChangeKind.REMOVE
        elif (change.kind is ChangeKind.ADD and change.member.learner) or (
            change.kind in (ChangeKind.UPDATE, ChangeKind.PUBLISH) and self._members[node_id].learner
        ):
            kind = ConfChangeKind.ADD_LEARNER
        return ConfChanges([ConfChange(kind, node_id)], context=msgspec.msgpack.encode(change))

    # --- what may be changed ----------------------------------------------------------------------------------

    def check(self, change: Change, connected: Collection[int], *, strict: bool) -> ChangeError | None:
        """Why a change must not be made; None if it may.

        ``connected``: those whom the leader reaches, and itself.  ``strict``: see `_afford`.
        """
        return (self._afford(change, connected) if strict else None) or self._fits(change)

    def _fits(self, change: Change) -> ChangeError | None:
        told = change.member
        before = self._members.get(told.id)
        if told.id in self.removed:
            return ID_REMOVED
        if change.kind is ChangeKind.ADD:
            learners = sum(member.learner for member in self._members.values())
            if before is not None:
                return ID_EXISTS
            if told.learner and learners >= MAX_LEARNERS:
                return TOO_MANY_LEARNERS
        elif before is None:
            return ID_NOT_FOUND
        elif change.kind is ChangeKind.PROMOTE and not before.learner:
            return NOT_LEARNER
        if change.kind in (ChangeKind.ADD, ChangeKind.UPDATE) and self._urls_taken(told):
            return URL_EXISTS
        return None

    def _urls_taken(self, told: MemberInfo) -> bool:
        taken = {url for member in self._members.values() if member.id != told.id for url in member.peer_urls}
        return not taken.isdisjoint(told.peer_urls)

    def _afford(self, change: Change, connected: Collection[int]) -> ChangeError | None:
        """``--strict-reconfig-check``: no change after which those that run are no majority.

        etcd's rules (server.go, mayAddMember, mayRemoveMember, mayPromote), but that it has them connected for five
        seconds, and takes a voter's removal that leaves one active member of two.
        """
        voters = [member for member in self._members.values() if not member.learner]
        reached = [member for member in voters if member.id in connected]
        if change.kind is ChangeKind.ADD and not change.member.learner:
            if not _quorum_started(voters, 1) and not (len(voters) == 1 and voters[0].started):
                return NOT_ENOUGH_STARTED
            return UNHEALTHY if len(reached) < len(voters) else None
        if change.kind is ChangeKind.PROMOTE:
            return None if _quorum_started(voters, 1, 1) else NOT_ENOUGH_STARTED
        if change.kind is ChangeKind.REMOVE:
            return self._afford_removal(change.member.id, voters, len(reached), connected)
        return None

    def _afford_removal(
        self, node_id: int, voters: Sequence[MemberInfo], reached: int, connected: Collection[int]
    ) -> ChangeError | None:
        before = self._members.get(node_id)
        if before is None or before.learner:
            return None
        left = [member for member in voters if member.id != node_id]
        if not _quorum_started(left, 0):
            return NOT_ENOUGH_STARTED
        if node_id not in connected:
            return None  # it counts for nothing now
        return UNHEALTHY if reached - 1 < _quorum(len(left)) else None


def _quorum(size: int) -> int:
    return size // 2 + 1


def _quorum_started(voters: Sequence[MemberInfo], more: int, more_started: int = 0) -> bool:
    """Whether those that have run are a majority of the voters and ``more``."""
    started = sum(member.started for member in voters) + more_started
    return started >= _quorum(len(voters) + more)


def _changed(before: MemberInfo, change: Change) -> MemberInfo:
    told = change.member
    if change.kind is ChangeKind.UPDATE:
        return msgspec.structs.replace(before, peer_urls=told.peer_urls)
    if change.kind is ChangeKind.PUBLISH:
        return msgspec.structs.replace(before, name=told.name, client_urls=told.client_urls)
    if change.kind is ChangeKind.PROMOTE:
        return msgspec.structs.replace(before, learner=False)
    return before


def fault_of(change: Change) -> ChangeError | None:
    """Why ``change``, made of a caller's arguments, would be no entry that members understand; None if it would be.

    What is in the log is applied by all, and again at each start: it must be found out before.
    """
    node_id, urls = change.member.id, change.member.peer_urls
    try:
        msgspec.msgpack.decode(msgspec.msgpack.encode(change), type=Change)
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError) as error:
        return ChangeError(Problem.REFUSED, f"not a change of members: {error}")
    if not is_id(node_id):
        return ChangeError(Problem.REFUSED, f"member id {node_id}: it must be from 1 to 2^64 - 1")
    if change.kind in (ChangeKind.ADD, ChangeKind.UPDATE) and not addresses_of(urls):
        return ChangeError(
            Problem.REFUSED,
            f"peer URLs {list(urls)}: none names a host and a port, as http://10.0.0.1:2380 does",
        )
    return None


def decode_change(data: bytes) -> Change:
    """Raises LogDamaged: it is in the log, so that a leader has encoded it."""
    try:
        return msgspec.msgpack.decode(data, type=Change)
    except msgspec.MsgspecError as error:
        raise LogDamaged(f"a change of the configuration holds no change of members: {error}") from None


def new_member(peer_urls: Iterable[str], *, learner: bool = False) -> MemberInfo:
    """A member to be added.  Its id is of its URLs and the time (etcd, computeMemberID): the same URL, added again,
    is another member.  etcd counts seconds; here two in one second differ as well.
    """
    urls = sorted(peer_urls)
    digest = sha1(("".join(urls) + str(time.time_ns())).encode(errors="surrogateescape")).digest()
    return MemberInfo(int.from_bytes(digest[:8], "big"), "", tuple(urls), learner=learner)
