"""What a driver knows of the state machine that it replicates, and of those who wait for it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import Protocol, TypeAlias, TypeVar

log = logging.getLogger(__name__)

Command = TypeVar("Command")
Result = TypeVar("Result")
Command_contra = TypeVar("Command_contra", contravariant=True)
Result_co = TypeVar("Result_co", covariant=True)

#: A committed batch, and whether somebody waits for its results.
Batches: TypeAlias = Sequence[tuple[bytes, bool]]


class ProposalError(Exception):
    """A command or read that this node cannot give a result for.

    The message says why, in etcd's words where etcd has any.  Unless it says that nothing was done, the command may
    still take effect later: nobody here tries it again.
    """

    @property
    def cause(self) -> str:
        return str(self)


class Misplaced(Exception):
    """The machine's state is not where the batches begin: it was started anew, say.  Nothing was applied.

    The node goes on with the entry behind ``applied``.
    """

    def __init__(self, applied: int) -> None:
        super().__init__(f"the state machine is at entry {applied}")
        self.applied = applied


class Machine(Protocol[Command_contra]):
    """What both kinds of state machines have."""

    @property
    def applied(self) -> int:
        """Index of the last entry whose effect the machine's own state holds; 0 for one that starts empty.

        A machine that keeps its state elsewhere keeps this number with it, in the same transaction, so that a
        restart neither repeats a command nor skips one.
        """
        ...

    def encode(self, commands: Sequence[Command_contra]) -> bytes:
        """One batch of commands as bytes."""
        ...


class StateMachine(Machine[Command_contra], Protocol[Command_contra, Result_co]):
    """Applies commands in the order of the log, the same on every node."""

    def apply(self, batches: Batches, applied: int) -> Sequence[Sequence[Result_co] | None]:
        """Applies batches in log order, all or none; ``applied`` is the index of the last entry among them.

        Returns for each batch its results, or None where the flag says that nobody waits, and also when the
        machine has seen ``applied`` before.  Raises ConnectionError when what keeps its state cannot be reached, and
        is called with the same batches again; any other exception ends the node.
        """
        ...


class AsyncStateMachine(Machine[Command_contra], Protocol[Command_contra, Result_co]):
    """A state machine that awaits something to apply: see `StateMachine`.  One ``apply`` runs at a time.

    It may raise Misplaced: the node then hands out again from where the machine is.
    """

    async def apply(self, batches: Batches, applied: int) -> Sequence[Sequence[Result_co] | None]: ...


class Snapshotted(Protocol):
    """What a state machine has besides, if its node is to take snapshots and to start from them."""

    def snapshot(self, applied: int, /) -> Iterator[bytes]:
        """The state as it is now, after the entry ``applied``, in chunks of at most 64 MiB; empty ones are left out.

        They are asked for later and in another thread, while batches are applied, and must not show those: a
        generator that begins to look when the first chunk is asked for is too late.
        """
        ...

    def restore(self, chunks: Iterable[bytes], /) -> None:
        """Replaces the state by what `snapshot` gave, on this or on another node, or does nothing.

        Called in another thread than ``apply``, but not at the same time.
        """
        ...


class AsyncSnapshotted(Protocol):
    """`Snapshotted` for a machine that awaits.  Both may raise ConnectionError, and are called again later."""

    async def snapshot(self, applied: int, /) -> AsyncIterator[bytes]:
        """The state is that of the moment in which this returns; nothing is applied before that."""
        ...

    async def restore(self, chunks: AsyncIterator[bytes], /) -> None: ...


#: Called with the result of a command when it was applied, or with why there is none.  What it raises concerns nobody
#: else: it is logged, unless it is that of a future which was cancelled.
Done = Callable[[Result | ProposalError], None]
#: Called with None when a local read is linearizable, or with why it cannot be.
ReadDone = Callable[[ProposalError | None], None]


def tell(done: Callable[[Result], None], outcome: Result) -> None:
    """Lets one who waits know.  In loops over many the same is written out: a call for each costs as much again."""
    try:
        done(outcome)
    except Exception as error:
        not_taken(error)


def not_taken(error: Exception) -> None:
    """Somebody who waited could not take an outcome; the others must have theirs."""
    # A future that was cancelled, as asyncio.wait_for does: nobody waits any more.
    if not isinstance(error, (asyncio.InvalidStateError, concurrent.futures.InvalidStateError)):
        log.error("a caller's callback failed to take an outcome", exc_info=error)
