"""Who takes part, and how that may change: joint consensus and learners as pure functions.

A configuration is a majority of ``voters``; while it is *joint* (thesis 4.3) also of ``outgoing``, the voters of
before: whatever needs a majority then needs one of each.  Learners get the log and count for nothing (thesis
4.2.1).  The rules are those of etcd raft's confchange package:

- One voter more or less is a *simple* change: majorities before and after it overlap (thesis 4.1).
- Anything else enters a joint configuration, which an empty change leaves.
- A voter that is demoted while it still counts in ``outgoing`` waits in ``learners_next`` and becomes a learner
  when the joint configuration is left: nobody is voter and learner at once.

An entry of kind CONFIGURATION holds a `ConfChanges`.  A configuration takes effect when its entry is applied, not
when it is appended (etcd raft; the paper's section 6 has it the other way round).  What keeps that safe: at most
one such entry is in the log and not applied by its leader, and nobody campaigns who has a committed one to apply;
so the configurations that two nodes act on are the same or next to each other, and their majorities overlap.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

import msgspec
from msgspec import Struct

from common_raft.core.errors import InvalidConfChange, LogDamaged

#: Ids are unsigned 64 bit, as they travel (see `messages`); 0 stands for nobody.
MAX_ID = 2**64 - 1


def is_id(value: object) -> bool:
    return type(value) is int and 0 < value <= MAX_ID


class Configuration(Struct, frozen=True, array_like=True):
    """Ids in ascending order.  ``outgoing`` and ``learners_next`` are empty unless it is joint."""

    voters: tuple[int, ...]
    outgoing: tuple[int, ...] = ()
    learners: tuple[int, ...] = ()
    learners_next: tuple[int, ...] = ()  #: voters of ``outgoing`` that become learners when it is left
    auto_leave: bool = False  #: the leader leaves the joint configuration as soon as it has been applied

    @property
    def joint(self) -> bool:
        return bool(self.outgoing)

    @property
    def halves(self) -> tuple[tuple[int, ...], ...]:
        """The sets of voters of which each must give its majority: one, or two when it is joint."""
        return (self.voters, self.outgoing) if self.outgoing else (self.voters,)

    @property
    def members(self) -> tuple[int, ...]:
        """All that get the log: voters of both halves, and learners."""
        return _ascending({*self.voters, *self.outgoing, *self.learners})

    def is_voter(self, node: int) -> bool:
        return node in self.voters or node in self.outgoing

    def __str__(self) -> str:
        """``(1 2 3)&&(1 2) learners=(4) next=(3) auto-leave``, ids in hexadecimal."""
        text = _text(self.voters)
        if self.outgoing:
            text += f"&&{_text(self.outgoing)}"
        if self.learners:
            text += f" learners={_text(self.learners)}"
        if self.learners_next:
            text += f" next={_text(self.learners_next)}"
        return text + " auto-leave" * self.auto_leave


class ConfChangeKind(IntEnum):
    ADD_VOTER = 0  #: a new voter, or a learner that is promoted
    ADD_LEARNER = 1  #: a new learner, or a voter that is demoted
    REMOVE = 2


class ConfChange(Struct, frozen=True, array_like=True, gc=False):
    kind: ConfChangeKind
    id: int


class Transition(IntEnum):
    """How several changes become one (etcd raft, ConfChangeTransition)."""

    AUTO = 0  #: one change is made at once, more go through a joint configuration that leaves itself
    IMPLICIT = 1  #: through a joint configuration that leaves itself
    EXPLICIT = 2  #: through a joint configuration that lasts until an empty change is proposed


class ConfChanges(Struct, frozen=True, array_like=True):
    """What is proposed, and what an entry of kind CONFIGURATION encodes; no changes leave a joint configuration.

    ``context`` is the application's (a new member's name and URLs, say).  ``configuration`` is what results: the
    leader that appends the entry fills it in, so that a node need not know how things were before the entry (one
    that joins and replays the log from its beginning, say).  etcd's raft has each node compute it.
    """

    changes: list[ConfChange] = []
    transition: Transition = Transition.AUTO
    context: bytes = b""
    configuration: Configuration | None = None


def changed(configuration: Configuration, changes: ConfChanges) -> Configuration:
    """The configuration after ``changes``.  Raises InvalidConfChange where the rules forbid them."""
    if not changes.changes:
        return _left(configuration)
    if configuration.joint:
        raise InvalidConfChange(f"the configuration {configuration} is joint: it must be left first")
    if changes.transition is Transition.AUTO and len(changes.changes) == 1:
        return _with(configuration, changes.changes)
    joint = Configuration(
        configuration.voters,
        outgoing=configuration.voters,
        learners=configuration.learners,
        auto_leave=changes.transition is not Transition.EXPLICIT,
    )
    return _with(joint, changes.changes)


def refuse_malformed(changes: ConfChanges) -> None:
    """Raises TypeError for what `decode_changes` would not give back: an entry that nobody can read stops all."""
    for change in changes.changes:
        _must_be(ConfChange, "change", change)
        _must_be(ConfChangeKind, "change's kind", change.kind)
    _must_be(Transition, "transition", changes.transition)
    _must_be(bytes, "context", changes.context)


def encode_changes(changes: ConfChanges) -> bytes:
    """The data of an entry of kind CONFIGURATION."""
    return msgspec.msgpack.encode(changes)


def decode_changes(data: bytes) -> ConfChanges:
    """The reverse.  Raises LogDamaged: an entry that is in the log was encoded by a leader."""
    try:
        return msgspec.msgpack.decode(data, type=ConfChanges)
    except msgspec.MsgspecError as error:
        raise LogDamaged(f"an entry of kind CONFIGURATION holds no change of it: {error}") from None


def _left(configuration: Configuration) -> Configuration:
    if not configuration.joint:
        raise InvalidConfChange(f"the configuration {configuration} is not joint: there is nothing to leave")
    learners = {*configuration.learners, *configuration.learners_next}
    return Configuration(configuration.voters, learners=_ascending(learners))


def _with(configuration: Configuration, changes: Iterable[ConfChange]) -> Configuration:
    """``outgoing`` stays as it is; the last of several changes to one node wins."""
    voters, learners, waiting = (
        set(configuration.voters),
        set(configuration.learners),
        set(configuration.learners_next),
    )
    for change in changes:
        if not is_id(change.id):
            raise InvalidConfChange(
                f"{change.id!r} is no node's id: ids are whole numbers from 1 to {MAX_ID}"
            )
        for group in (voters, learners, waiting):
            group.discard(change.id)
        if change.kind is ConfChangeKind.ADD_VOTER:
            voters.add(change.id)
        elif change.kind is ConfChangeKind.ADD_LEARNER:
            (waiting if change.id in configuration.outgoing else learners).add(change.id)
    if not voters:
        raise InvalidConfChange("no voter would be left: add another one first")
    return Configuration(
        _ascending(voters),
        configuration.outgoing,
        _ascending(learners),
        _ascending(waiting),
        configuration.auto_leave,
    )


def _must_be(expected: type, name: str, value: object) -> None:
    if type(value) is not expected:
        raise TypeError(f"{name} {value!r} must be of type {expected.__name__}")


def _ascending(ids: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(ids))


def _text(ids: Iterable[int]) -> str:
    return f"({' '.join(f'{each:x}' for each in ids)})"
