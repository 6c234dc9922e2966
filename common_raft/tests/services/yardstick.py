"""An etcd that is asked everything once, and conversations with whoever is compared with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

from common_raft.testing.processes import ProcessCluster
from common_raft.tests.likeness.cases import Case, answer_text
from common_raft.tests.likeness.conversation import Conversation, Told, TooSlow
from common_raft.tests.likeness.deviations import ALL, excused
from common_raft.tests.likeness.differences import Difference, difference, shortest, told
from common_raft.tests.likeness.generator import expiring, requests
from common_raft.tests.likeness.requests import SLEEP, Request
from common_raft.tests.services.variants import etcd_cluster

#: What is compared does not depend on the disk, and takes a third of the time without it.
FLAGS = ("--unsafe-no-fsync",)
#: Seconds that a difference may take to be made small.
SHORTENING = 60.0

#: Conversations with one node: longer than a history, so that it passes on the way.
ALONE_SEEDS, ALONE_LENGTH = range(6), 1500
#: Those with each cluster of three.
CLUSTER_SEEDS, CLUSTER_LENGTH = range(100, 102), 1000
#: With both, conversations in which keys expire after so many requests.
EXPIRING_SEEDS, EXPIRING, EXPIRING_LENGTH = range(200, 202), 60, 100
#: So often is such a conversation begun.
TRIES = 5


class Yardstick:
    """etcd's answers, each asked for once.  It runs from when something is asked until ``stop``, time and again."""

    def __init__(self, size: int, directory: Callable[[], Path]) -> None:
        """``directory`` makes a new one."""
        self._size, self._directory = size, directory
        self._told: dict[tuple[Request, ...], Told] = {}
        self._running: ProcessCluster | None = None
        self._stack = ExitStack()

    @property
    def cluster(self) -> ProcessCluster:
        if self._running is None:
            started = etcd_cluster(self._directory(), self._size, FLAGS)
            self._running = self._stack.enter_context(started)
        return self._running

    def stop(self) -> None:
        self._stack.close()
        self._running = None

    def told(self, asked: Sequence[Request], *, anew: bool = False) -> Told:
        key = tuple(asked)
        if anew or key not in self._told:
            self._told[key] = hold(ports_of(self.cluster), asked)
        return self._told[key]


def fair(
    conversation: Iterable[Request], servers: Iterable[str], length: int, *, history: bool = True
) -> list[Request]:
    """Without the requests that one of ``servers`` answers in its own way: what they write the others would miss.

    Without ``history`` nobody asks how far it goes back, and the thousand writes are saved that it takes to know.
    """
    avoided = tuple(servers)
    left = (
        each for each in conversation if not excused(each, avoided) and (history or not counts_history(each))
    )
    return list(islice(left, length))


def conversations_alone() -> list[list[Request]]:
    told = [fair(requests(seed), ["native"], ALONE_LENGTH) for seed in ALONE_SEEDS]
    return [*told, *_expiring(["native"])]


def conversations_with_clusters() -> list[list[Request]]:
    """The same with all of them, whatever servers they have."""
    told = [fair(requests(seed), ALL, CLUSTER_LENGTH, history=False) for seed in CLUSTER_SEEDS]
    return [*told, *_expiring(ALL)]


def conversations_with_driven() -> list[list[Request]]:
    """Some of those with clusters."""
    return conversations_with_clusters()[:1]


def _expiring(servers: Iterable[str]) -> list[list[Request]]:
    return [
        fair(expiring(seed, EXPIRING), servers, EXPIRING_LENGTH, history=False) for seed in EXPIRING_SEEDS
    ]


def counts_history(request: Request) -> bool:
    """Its answer says how far the history goes back, from before the conversation too."""
    return request.waits and "waitIndex=1" in request.target


def ports_of(cluster: ProcessCluster) -> list[int]:
    return [node.client_port for node in cluster.nodes]


def hold(
    ports: Sequence[int], asked: Sequence[Request], like: Told | None = None, *, fill: bool | None = None
) -> Told:
    """Raises TimeoutError if the machine is too busy for a conversation that has to come to its pause in time."""
    if fill is None:
        fill = any(map(counts_history, asked))
    for _ in range(TRIES):
        try:
            with Conversation(ports) as conversation:
                return conversation.hold(asked, like, fill=fill)
        except TooSlow:
            continue
    raise TimeoutError(f"{asked[0]} and so on: the machine is too busy")


def hold_case(port: int, case: Case) -> list[str]:
    """The answers to it as text."""
    return [answer_text(answer) for answer in hold([port], case.requests, fill=False).answers]


def compare(etcd: Yardstick, ours: ProcessCluster, conversations: Iterable[Sequence[Request]]) -> str | None:
    """Holds them with all nodes of ``ours``: the first difference as small as it gets, to be read."""
    ports = ports_of(ours)

    def both(asked: Sequence[Request]) -> Difference | None:
        theirs = etcd.told(asked)
        found = difference(theirs, hold(ports, asked, theirs))
        if found is not None and any(each.method == SLEEP for each in asked):
            # Either may have been late, which shows in what is left of a ttl.
            theirs = etcd.told(asked, anew=True)
            found = difference(theirs, hold(ports, asked, theirs))
        return found

    for number, asked in enumerate(conversations):
        found = both(asked)
        if found is not None:
            fewer, found = shortest(asked, found, both, SHORTENING)
            return f"conversation {number}\n{told(fewer, found)}"
    return None
