"""What a driver knows of the state machine that it replicates, and of those who wait for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

Command = TypeVar("Command")
Result = TypeVar("Result")
Command_contra = TypeVar("Command_contra", contravariant=True)
Result_co = TypeVar("Result_co", covariant=True)


class ProposalError(Exception):
    """A command or read that this node cannot give a result for.

    The message says why, in etcd's words where etcd has any.  Unless it says that nothing was done, the command may
    still take effect later: nobody here tries it again.
    """

    @property
    def cause(self) -> str:
        return str(self)


class StateMachine(Protocol[Command_contra, Result_co]):
    """Applies commands in the order of the log, the same on every node."""

    def encode(self, commands: Sequence[Command_contra]) -> bytes:
        """One batch of commands as bytes."""
        ...

    def apply(self, batches: Sequence[tuple[bytes, bool]]) -> Sequence[Sequence[Result_co] | None]:
        """Applies batches in log order; for each its results, or None where the flag says that nobody waits."""
        ...


#: Called with the result of a command when it was applied, or with why there is none.
Done = Callable[[Result | ProposalError], None]
#: Called with None when a local read is linearizable, or with why it cannot be.
ReadDone = Callable[[ProposalError | None], None]
