"""What operators ask of a node about its members, on top of `Member.change_members`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from common_raft.drivers.machine import ProposalError
from common_raft.drivers.membership import (
    ChangeDone,
    ChangeError,
    ChangeKind,
    MemberInfo,
    Problem,
    new_member,
)
from common_raft.measures import Measurements


class Administration:
    """Mixed into the nodes.  Each ``done`` is called once, as ``change_members`` of the node does."""

    def change_members(self, kind: ChangeKind, member: MemberInfo, done: ChangeDone) -> None:
        raise NotImplementedError

    def add_member(
        self, peer_urls: Sequence[str], done: Callable[[MemberInfo | None, ChangeError | None], None]
    ) -> None:
        """A voter that will be reached at ``peer_urls``; ``done`` gets it, with its id, or why it was not added."""
        member = new_member(peer_urls)

        def changed(error: ChangeError | None) -> None:
            done(member if error is None else None, error)

        self.change_members(ChangeKind.ADD, member, changed)

    def remove_member(self, member_id: int, done: ChangeDone) -> None:
        self.change_members(ChangeKind.REMOVE, MemberInfo(member_id, "", ()), done)

    def move_member(self, member_id: int, peer_urls: Sequence[str], done: ChangeDone) -> None:
        """From now on it is reached at ``peer_urls``."""
        self.change_members(ChangeKind.UPDATE, MemberInfo(member_id, "", tuple(sorted(peer_urls))), done)


class Alone(Administration):
    """Mixed into what stands alone: it is all members there are."""

    members: Sequence[MemberInfo]
    published = True
    applied: int
    failed_proposals = 0

    def measurements(self) -> Measurements:
        """This node as it is now."""
        return Measurements(committed=self.applied, pending=self.pending, failed=self.failed_proposals)

    @property
    def pending(self) -> int:
        """Commands that wait for their outcome."""
        return 0

    def refusal(self, cause: str) -> ProposalError:
        """The answer to a command that is not carried out, which is counted."""
        self.failed_proposals += 1
        return ProposalError(cause)

    def change_members(self, _kind: ChangeKind, _member: MemberInfo, done: ChangeDone) -> None:
        done(ChangeError(Problem.ALONE, "a standalone service has no members to change"))
