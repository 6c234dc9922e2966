"""`drivers.standalone` for threads: a service without Raft whose operations come from many threads.

``linearizable``: operations take effect one after another, under a lock.  ``unsafe``: nothing keeps two operations
apart; one may decide on what another is just about to change.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from itertools import count
from threading import Lock
from typing import Generic

from common_raft.drivers.administration import Alone
from common_raft.drivers.machine import Command, Done, ProposalError, ReadDone, Result, StateMachine
from common_raft.drivers.membership import MemberInfo
from common_raft.drivers.proposals import STOPPED
from common_raft.drivers.standalone import TERM

log = logging.getLogger(__name__)


class StandaloneThreadsNode(Alone, Generic[Command, Result]):
    """Stands where a `ThreadsNode` stands; it leads itself."""

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
        client_urls: Sequence[str] = (),
    ) -> None:
        self._machine = machine
        self._indexes = count(machine.applied + 1)
        self._turn: AbstractContextManager[object] = Lock() if linearizable else nullcontext()
        self.id, self.name, self.cluster_id = node_id, name, cluster_id
        self.members = [MemberInfo(node_id, name, (), tuple(client_urls))]
        self.leader = node_id
        self.applied = machine.applied
        self.failed: Future[BaseException] = Future()
        self._since = time.monotonic()
        self._stopped = False
        self._counting = Lock()

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

    def refusal(self, cause: str) -> ProposalError:
        """In any request's thread."""
        with self._counting:
            return super().refusal(cause)

    def _outcome(self, command: Command) -> Result | ProposalError:
        payload = self._machine.encode([command])
        try:
            with self._turn:
                if self._stopped:
                    return self.refusal(STOPPED)
                result = self._apply(payload)
                self.applied += 1
        except ConnectionError as error:
            self.problem = str(error)
            return self.refusal(self.problem)
        except Exception as error:
            log.debug("applying failed", exc_info=True)
            self._fail(error)
            return self.refusal(STOPPED)
        self.problem = None
        return result

    def _apply(self, payload: bytes) -> Result:
        machine = self._machine
        while True:
            # There is no log that could be applied again: any index that the store has not seen will do.
            [results] = machine.apply([(payload, True)], next(self._indexes))
            if results is not None:
                return results[0]
            # Another thread that began later was earlier: nothing was done.

    def _fail(self, error: Exception) -> None:
        self._stopped = True
        if not self.failed.done():
            self.failed.set_result(error)
