"""`drivers.standalone` for threads: a service without Raft whose operations come from many threads.

``linearizable``: operations take effect one after another, under a lock.  ``unsafe``: nothing keeps two operations
apart; one may decide on what another is just about to change.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from threading import Lock
from typing import Generic

from common_raft.drivers.machine import Command, Done, ProposalError, ReadDone, Result, StateMachine
from common_raft.drivers.proposals import STOPPED
from common_raft.drivers.standalone import TERM

log = logging.getLogger(__name__)


class StandaloneThreadsNode(Generic[Command, Result]):
    """Stands where a `ThreadsNode` stands; it leads itself."""

    appends_sent = 0
    appends_received = 0
    problem: str | None = None
    term = TERM

    def __init__(
        self,
        node_id: int,
        name: str,
        cluster_id: int,
        machine: StateMachine[Command, Result],
        *,
        linearizable: bool,
    ) -> None:
        self._machine = machine
        self._turn: AbstractContextManager[object] = Lock() if linearizable else nullcontext()
        self.id, self.name, self.cluster_id = node_id, name, cluster_id
        self.leader = node_id
        self.applied = machine.applied
        self.failed: Future[BaseException] = Future()
        self._since = time.monotonic()
        self._stopped = False

    @property
    def leader_seconds(self) -> float:
        return time.monotonic() - self._since

    def start(self) -> None:
        """Nothing has to be agreed upon."""

    def close(self) -> None:
        """What comes from now on gets an error; what is under way ends in its own threads."""
        self._stopped = True

    def propose(self, command: Command, done: Done[Result]) -> None:
        """Applies ``command`` in this thread; ``done`` gets its result, or a ProposalError."""
        done(self._outcome(command))

    def read_index(self, done: ReadDone) -> None:
        """What was acknowledged is applied here: every read is linearizable."""
        done(ProposalError(STOPPED) if self._stopped else None)

    def _outcome(self, command: Command) -> Result | ProposalError:
        payload = self._machine.encode([command])
        try:
            with self._turn:
                if self._stopped:
                    return ProposalError(STOPPED)
                result = self._apply(payload)
                self.applied += 1
        except ConnectionError as error:
            self.problem = str(error)
            return ProposalError(self.problem)
        except Exception as error:
            log.debug("applying failed", exc_info=True)
            self._fail(error)
            return ProposalError(STOPPED)
        self.problem = None
        return result

    def _apply(self, payload: bytes) -> Result:
        machine = self._machine
        while True:
            # There is no log that could be applied again: an index that the store has not seen will do.
            [results] = machine.apply([(payload, True)], machine.applied + 1)
            if results is not None:
                return results[0]
            # Another thread has used the same index before this one: nothing was done.

    def _fail(self, error: Exception) -> None:
        self._stopped = True
        if not self.failed.done():
            self.failed.set_result(error)
