"""A node that is a cluster by itself: it applies at once what is proposed, without Raft, disk or network."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from common_raft.keyspace import Command, Expire, HashMapStore, Keyspace, Result
from common_raft.measures import Measurements


class FakeFailure(Exception):
    """Stands for the driver's ProposalError."""

    @property
    def cause(self) -> str:
        return str(self)


class FakeMember(NamedTuple):
    id: int
    name: str
    peer_urls: Sequence[str]
    client_urls: Sequence[str]


class FakeMembersFailure(NamedTuple):
    status: int
    cause: str


class FakeNode:
    """Satisfies what the web layer asks of the driver. Set ``failure`` to make everything fail from now on.

    With ``held`` a list, answers wait there until the test calls them.
    """

    id = 0x3115797E2B89D053
    cluster_id = 0xF1B301C7DDA370D8
    name = "n1"

    def __init__(self, keyspace: Keyspace | None = None) -> None:
        self.keyspace = keyspace or Keyspace(HashMapStore())
        self.term = 2
        self.applied = 3
        self.leader = self.id
        self.problem: str | None = None
        self.published = True
        self.leader_seconds = 61.5
        self.measured = Measurements(committed=3, appends_received=7, appends_sent=9)
        self.members = [FakeMember(self.id, self.name, ["http://peer:2380"], ["http://client:2379"])]
        self.members_failure: FakeMembersFailure | None = None
        self.failure: FakeFailure | None = None
        self.held: list[Callable[[], None]] | None = None

    def measurements(self) -> Measurements:
        return self.measured

    def propose(self, command: Command, done: Callable[[Result | FakeFailure], None]) -> None:
        self._answer(lambda: self._apply(command, done))

    def read_index(self, done: Callable[[FakeFailure | None], None]) -> None:
        self._answer(lambda: done(self.failure))

    def expire(self) -> None:
        """As the leader's clock has it."""
        self.propose(Expire(time.time_ns()), lambda result: None)

    def add_member(
        self, peer_urls: Sequence[str], done: Callable[[FakeMember | None, FakeMembersFailure | None], None]
    ) -> None:
        member = FakeMember(len(self.members) + 1, "", peer_urls, [])

        def change() -> None:
            if self.members_failure is None:
                self.members.append(member)
                done(member, None)
            else:
                done(None, self.members_failure)

        self._answer(change)

    def remove_member(self, member_id: int, done: Callable[[FakeMembersFailure | None], None]) -> None:
        self.members = [member for member in self.members if member.id != member_id]
        self._answer(lambda: done(self.members_failure))

    def move_member(
        self, member_id: int, peer_urls: Sequence[str], done: Callable[[FakeMembersFailure | None], None]
    ) -> None:
        self.members = [
            member._replace(peer_urls=peer_urls) if member.id == member_id else member
            for member in self.members
        ]
        self._answer(lambda: done(self.members_failure))

    def _apply(self, command: Command, done: Callable[[Result | FakeFailure], None]) -> None:
        if self.failure is not None:
            done(self.failure)
            return
        self.applied = max(self.applied, self.keyspace.applied) + 1
        (results,) = self.keyspace.apply([(self.keyspace.encode([command]), True)], self.applied)
        assert results is not None
        done(results[0])

    def _answer(self, call: Callable[[], None]) -> None:
        if self.held is None:
            call()
        else:
            self.held.append(call)

    def release(self) -> None:
        """Give all held answers, the newest first: the order in which they must not go out."""
        assert self.held is not None
        while self.held:
            self.held.pop()()


class BlockingFakeNode(FakeNode):
    """The same for threads: whoever asks waits for the answer, and is called back before the call returns."""

    def __init__(self) -> None:
        super().__init__()
        self._one_at_a_time = threading.RLock()  # what is called back may ask again

    def _answer(self, call: Callable[[], None]) -> None:
        if self.held is not None:
            go_on = threading.Event()
            self.held.append(go_on.set)
            go_on.wait()
        with self._one_at_a_time:
            call()
