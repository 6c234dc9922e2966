"""A service without Raft: one process, no log.  What consensus costs is measured against it.

``linearizable``: operations take effect one after another, in the order in which they came.  ``unsafe``: nothing
keeps two operations apart; with a store that is awaited, one may decide on what another is just about to change.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Sequence
from itertools import count
from typing import Generic, cast

from common_raft.drivers.administration import Alone
from common_raft.drivers.machine import (
    AsyncStateMachine,
    Command,
    Done,
    ProposalError,
    ReadDone,
    Result,
    StateMachine,
)
from common_raft.drivers.membership import MemberInfo
from common_raft.drivers.proposals import MAX_COMMANDS, STOPPED, TOO_MANY

log = logging.getLogger(__name__)

TERM = 1


class StandaloneNode(Alone, Generic[Command, Result]):
    """Stands where an `AsyncioNode` stands, in the running loop; it leads itself."""

    problem: str | None = None
    term = TERM

    def __init__(
        self,
        node_id: int,
        name: str,
        cluster_id: int,
        machine: StateMachine[Command, Result] | AsyncStateMachine[Command, Result],
        *,
        linearizable: bool,
        client_urls: Sequence[str] = (),
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._machine = machine
        self._awaits = inspect.iscoroutinefunction(machine.apply)
        self._indexes = count(machine.applied + 1)
        self._at_once = 1 if linearizable else MAX_COMMANDS
        self.id, self.name, self.cluster_id = node_id, name, cluster_id
        self.members = [MemberInfo(node_id, name, (), tuple(client_urls))]
        self.leader = node_id
        self.applied = machine.applied
        self.failed: asyncio.Future[BaseException] = self._loop.create_future()
        self._since = self._loop.time()
        self._waiting: deque[tuple[Command, Done[Result]]] = deque()
        self._running = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = False

    @property
    def leader_seconds(self) -> float:
        return self._loop.time() - self._since

    @property
    def pending(self) -> int:
        return len(self._waiting) + self._running

    async def start(self) -> None:
        """Nothing has to be agreed upon."""

    async def close(self) -> None:
        """Finishes what is under way; what waits behind it gets an error."""
        self._stopped = True
        while self._waiting:
            self._waiting.popleft()[1](self.refusal(STOPPED))
        if self._tasks:
            await asyncio.wait(self._tasks)

    def propose(self, command: Command, done: Done[Result]) -> None:
        """Applies ``command``; ``done`` gets its result, or a ProposalError."""
        if self._stopped:
            done(self.refusal(STOPPED))
        elif not self._awaits:
            machine = cast("StateMachine[Command, Result]", self._machine)
            self.applied += 1
            [results] = machine.apply([(machine.encode([command]), True)], machine.applied + 1)
            assert results is not None
            done(results[0])
        elif len(self._waiting) >= MAX_COMMANDS:
            done(self.refusal(TOO_MANY))
        else:
            self._waiting.append((command, done))
            if self._running < self._at_once:
                self._running += 1
                task = self._loop.create_task(self._apply_waiting())
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    def read_index(self, done: ReadDone) -> None:
        """What was acknowledged is applied here: every read is linearizable."""
        done(ProposalError(STOPPED) if self._stopped else None)

    async def _apply_waiting(self) -> None:
        try:
            await self._apply_all()
        finally:
            # In the same moment in which nothing waited any more: the next operation starts a new task.
            self._running -= 1

    async def _apply_all(self) -> None:
        machine = cast("AsyncStateMachine[Command, Result]", self._machine)
        while self._waiting:
            command, done = self._waiting.popleft()
            self.applied += 1
            try:
                result = await self._apply(machine, machine.encode([command]))
            except ConnectionError as error:
                self.problem = str(error)
                done(self.refusal(self.problem))
            except Exception as error:
                log.debug("applying failed", exc_info=True)
                done(self.refusal(STOPPED))
                self._stopped = True
                if not self.failed.done():
                    self.failed.set_result(error)
            else:
                self.problem = None
                done(result)

    async def _apply(self, machine: AsyncStateMachine[Command, Result], payload: bytes) -> Result:
        while True:
            # There is no log that could be applied again: any index that the store has not seen will do.
            [results] = await machine.apply([(payload, True)], next(self._indexes))
            if results is not None:
                return results[0]
            # The store is beyond it, by what was begun later and done earlier, or by a write whose outcome was not
            # known until now: nothing was done.
