"""Linearizable reads between a client's request and the moment at which the local state may answer it.

    pending --take--> asked --confirmed(index)--> confirmed --applied(index)--> done
       ^                |
       +--- ask_again --+          a question lost, or a leader lost: reads change nothing, so asking twice is safe

All reads of one turn share one question (`context`).  Time is what the caller says it is, in seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from common_raft.drivers.machine import ProposalError, ReadDone, not_taken, tell
from common_raft.drivers.proposals import STOPPED, TIMED_OUT, TOO_MANY

#: Reads that wait at one node; each holds a client's connection.
MAX_READS = 65_536


class _Waiting(NamedTuple):
    deadline: float
    done: ReadDone


class _Question(NamedTuple):
    asked: float
    reads: list[_Waiting]


class Reads:
    def __init__(self, incarnation: int, timeout: float) -> None:
        self._timeout = timeout
        self._context = incarnation << 32  # so that answers to an earlier life's questions are nobody's
        self._pending: list[_Waiting] = []
        self._asked: dict[int, _Question] = {}
        self._confirmed: deque[tuple[int, list[_Waiting]]] = deque()  # in order of the index
        self._count = 0
        self.failed = 0  #: reads that ended with an error

    def add(self, done: ReadDone, now: float) -> None:
        """Takes a read; past the limit it is done at once, with an error."""
        if self._count >= MAX_READS:
            self.failed += 1
            done(ProposalError(TOO_MANY))
            return
        self._count += 1
        self._pending.append(_Waiting(now + self._timeout, done))

    @property
    def pending(self) -> bool:
        return bool(self._pending)

    def take(self, now: float) -> int:
        """The context of one question for all pending reads."""
        self._context += 1
        self._asked[self._context] = _Question(now, self._pending)
        self._pending = []
        return self._context

    def confirmed(self, context: int, index: int) -> None:
        question = self._asked.pop(context, None)
        if question is not None:
            self._confirmed.append((index, question.reads))

    def applied(self, index: int) -> None:
        """Everything up to ``index`` has been applied: answers the reads confirmed at or below it."""
        confirmed = self._confirmed
        while confirmed and confirmed[0][0] <= index:
            for read in confirmed.popleft()[1]:
                self._count -= 1
                try:
                    read.done(None)
                except Exception as error:
                    not_taken(error)

    def ask_again(self, older_than: float) -> None:
        """Questions asked before then are taken for lost: their reads are pending again."""
        for context in [c for c, question in self._asked.items() if question.asked < older_than]:
            self._pending += self._asked.pop(context).reads

    def expire(self, now: float) -> None:
        """Ends the reads whose deadline has passed."""
        self._pending = self._keep(self._pending, now)
        for context, question in list(self._asked.items()):
            kept = self._keep(question.reads, now)
            if kept:
                self._asked[context] = _Question(question.asked, kept)
            else:
                del self._asked[context]
        self._confirmed = deque((index, self._keep(reads, now)) for index, reads in self._confirmed)

    def _keep(self, reads: list[_Waiting], now: float) -> list[_Waiting]:
        kept = [read for read in reads if read.deadline > now]
        if len(kept) < len(reads):
            self._fail((read for read in reads if read.deadline <= now), TIMED_OUT)
        return kept

    def stop(self) -> None:
        """Ends all reads: the node stops."""
        groups = [self._pending, *(q.reads for q in self._asked.values()), *(r for _, r in self._confirmed)]
        self._pending, self._asked, self._confirmed = [], {}, deque()
        for reads in groups:
            self._fail(reads, STOPPED)

    def _fail(self, reads: Iterable[_Waiting], cause: str) -> None:
        for read in reads:
            self._count -= 1
            self.failed += 1
            tell(read.done, ProposalError(cause))
