"""Commands between a client's request and their result: collected, sealed, sent, waited for.

    pending --seal--> unsent --take_unsent--> waiting --resolve--> done
                       | ^                       |
                       | +------ take_back ------+
                       +---- deadline, refusal, stop: done with a ProposalError

Once a batch has left for the log, its outcome is unknown until it is applied, and a deadline ends the waiting; it is
sent again only if it is known not to have been appended.  Time is what the caller says it is, in seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import chain
from operator import attrgetter
from typing import Generic, NamedTuple

from common_raft.drivers.envelope import seal
from common_raft.drivers.machine import Command, Done, Machine, ProposalError, Result, not_taken, tell
from common_raft.transport.codec import MAX_BODY_BYTES

#: Commands that wait at one node, in all stages: each holds a client's connection, and those are bounded below it.
MAX_COMMANDS = 65_536
#: Bytes of sealed batches that wait at one node; as many as a leader takes of others (`forwarding`).
MAX_BYTES = 64 << 20
#: Commands that are not sealed, and so not counted in bytes: past it they are sealed before their turn.
MAX_UNSEALED = 128
#: When the oldest command has waited for half of the time that it may, others are taken only while fewer than these
#: wait: they would only learn, after as long a time, that theirs is over.  So few may wait for an election.
MANY_COMMANDS = 512
MANY_BYTES = 8 << 20
#: One batch: half of what a leader joins into an entry, so that several nodes' batches share one.
MAX_BATCH_BYTES = 512 << 10
MAX_BATCH_COMMANDS = 4096
#: One command: an entry with it must fit into a frame, or no follower would ever have it, nor anything behind it.
MAX_COMMAND_BYTES = MAX_BODY_BYTES - (64 << 10)

TIMED_OUT = "etcdserver: request timed out"
TOO_MANY = "etcdserver: too many requests"
STOPPED = "etcdserver: server stopped"
TOO_LARGE = "etcdserver: request is too large"


class Batch(NamedTuple, Generic[Result]):
    sequence: int
    deadline: float
    sealed: bytes
    done: Sequence[Done[Result]]


class Proposals(Generic[Command, Result]):
    """All commands that clients of this node wait for.

    ``incarnation`` (32 bit, different at every start) is the upper half of the sequence numbers, so that batches
    of an earlier life, still in the log, are nobody's.
    """

    def __init__(self, machine: Machine[Command], origin: int, incarnation: int, timeout: float) -> None:
        self._machine = machine
        self._origin = origin
        self._sequence = incarnation << 32
        self._timeout = timeout
        self._commands: list[Command] = []
        self._done: list[Done[Result]] = []
        self._unsent: deque[Batch[Result]] = deque()
        self._waiting: dict[int, Batch[Result]] = {}  # in order of sequence, and so of deadline
        self._count = 0
        self._bytes = 0
        self.failed = 0  #: commands that ended with an error
        self._late = False  # the oldest has waited for long

    @property
    def full(self) -> bool:
        """Whether there are so many that another one had better be told at once."""
        count = self._count + len(self._commands)
        if self._late and (count >= MANY_COMMANDS or self._bytes >= MANY_BYTES):
            return True
        return count >= MAX_COMMANDS or self._bytes >= MAX_BYTES

    def add(self, command: Command, done: Done[Result], now: float) -> None:
        """Takes a command; past the limits it is done at once, with an error."""
        if len(self._commands) >= MAX_UNSEALED:
            self.seal_pending(now)
        if self.full:
            self.failed += 1
            done(ProposalError(TOO_MANY))
            return
        self._commands.append(command)
        self._done.append(done)

    @property
    def count(self) -> int:
        """Commands that wait for their outcome, in all stages."""
        return self._count + len(self._commands)

    @property
    def pending(self) -> bool:
        return bool(self._commands)

    def seal_pending(self, now: float) -> None:
        """Turns what has come since the last call into sealed batches."""
        commands, self._commands = self._commands, []
        done, self._done = self._done, []
        for start in range(0, len(commands), MAX_BATCH_COMMANDS):
            stop = start + MAX_BATCH_COMMANDS
            self._seal(commands[start:stop], done[start:stop], now + self._timeout)

    def _seal(self, commands: list[Command], done: list[Done[Result]], deadline: float) -> None:
        try:
            payload = self._encode(commands)
            fault = TOO_LARGE if len(payload) > MAX_COMMAND_BYTES else ""
        except Exception as error:  # of one of them, as a rule: the others are none the worse
            payload, fault = b"", f"the state machine cannot encode the command: {error!r}"
        if (fault or len(payload) > MAX_BATCH_BYTES) and len(commands) > 1:
            middle = len(commands) // 2
            self._seal(commands[:middle], done[:middle], deadline)
            self._seal(commands[middle:], done[middle:], deadline)
            return
        if fault:
            self.failed += 1
            tell(done[0], ProposalError(fault))
            return
        self._sequence += 1
        sealed = seal(self._origin, self._sequence, payload)
        self._unsent.append(Batch(self._sequence, deadline, sealed, done))
        self._count += len(done)
        self._bytes += len(sealed)

    def _encode(self, commands: list[Command]) -> bytes:
        payload = self._machine.encode(commands)
        if type(payload) is not bytes:
            raise TypeError(f"encode gave {type(payload).__name__}, not bytes")
        return payload

    def take_unsent(self, max_bytes: int) -> list[bytes]:
        """The oldest sealed batches that nobody has taken yet: until they hold ``max_bytes``, and one at least.

        From here on their outcome is unknown until resolved.
        """
        taken: list[Batch[Result]] = []
        size = 0
        while self._unsent and size < max_bytes:
            taken.append(self._unsent.popleft())
            size += len(taken[-1].sealed)
        late = bool(taken and self._waiting) and taken[0].sequence < next(reversed(self._waiting))
        for batch in taken:
            self._waiting[batch.sequence] = batch
        if late:  # it was taken back meanwhile
            self._waiting = dict(sorted(self._waiting.items()))
        return [batch.sealed for batch in taken]

    @property
    def unsent(self) -> bool:
        return bool(self._unsent)

    def is_waiting(self, origin: int, sequence: int) -> bool:
        return origin == self._origin and sequence in self._waiting

    def resolve(self, sequence: int, results: Sequence[Result]) -> None:
        """The batch was applied: everybody who waits for it gets a result."""
        batch = self._waiting.get(sequence)
        if batch is None:
            return  # its deadline passed while it was being applied
        if len(results) != len(batch.done):
            raise ValueError(f"the state machine gave {len(results)} results for {len(batch.done)} commands")
        del self._waiting[sequence]
        self._forget(batch)
        for done, result in zip(batch.done, results, strict=True):
            try:
                done(result)
            except Exception as error:
                not_taken(error)

    def refuse(self, sequences: Iterable[int], cause: str) -> None:
        """These batches were not appended, and never will be."""
        for sequence in sequences:
            batch = self._waiting.pop(sequence, None)
            if batch is not None:
                self._fail(batch, cause)

    def take_back(self, sequences: Iterable[int]) -> None:
        """These batches were not appended, and may be sent again, before all others."""
        taken = [self._waiting.pop(sequence) for sequence in sequences if sequence in self._waiting]
        self._unsent = deque(sorted([*taken, *self._unsent], key=attrgetter("sequence")))

    def expire(self, now: float) -> None:
        """Ends the waiting of all batches whose deadline has passed."""
        while self._unsent and self._unsent[0].deadline <= now:
            self._fail(self._unsent.popleft(), TIMED_OUT)
        while self._waiting:
            sequence = next(iter(self._waiting))
            if self._waiting[sequence].deadline > now:
                break
            self._fail(self._waiting.pop(sequence), TIMED_OUT)
        oldest = next(chain(self._waiting.values(), self._unsent), None)
        self._late = oldest is not None and oldest.deadline - now < self._timeout / 2

    def stop(self) -> None:
        """Ends all waiting: the node stops."""
        self.failed += len(self._done)
        for done in self._done:
            tell(done, ProposalError(STOPPED))
        self._commands, self._done = [], []
        for batch in [*self._unsent, *self._waiting.values()]:
            self._fail(batch, STOPPED)
        self._unsent.clear()
        self._waiting.clear()

    def _fail(self, batch: Batch[Result], cause: str) -> None:
        self._forget(batch)
        self.failed += len(batch.done)
        for done in batch.done:
            tell(done, ProposalError(cause))

    def _forget(self, batch: Batch[Result]) -> None:
        self._count -= len(batch.done)
        self._bytes -= len(batch.sealed)
