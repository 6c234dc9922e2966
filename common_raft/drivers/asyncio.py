"""Runs a core on an event loop: ticks, links, the disk's writer thread, the state machine, the waiting clients.

A turn (`drivers.member`) is one call at the end of the loop's own turn.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, cast

from common_raft.drivers.applying import Step, Work, take
from common_raft.drivers.machine import (
    AsyncSnapshotted,
    AsyncStateMachine,
    Command,
    Done,
    Misplaced,
    ProposalError,
    ReadDone,
    Result,
    Snapshotted,
    StateMachine,
)
from common_raft.drivers.member import MAX_APPLY_BYTES, RETRY_SECONDS, Member, next_tick
from common_raft.drivers.membership import ChangeDone, ChangeError, ChangeKind, MemberInfo, Problem
from common_raft.drivers.options import NodeOptions
from common_raft.drivers.proposals import STOPPED
from common_raft.drivers.snapshotting import Overtaken, read_beside
from common_raft.storage import SnapshotMark, Wal, WalWriter
from common_raft.storage.loop_writer import LoopWriter
from common_raft.storage.ring import SyncRing
from common_raft.transport.asyncio import AsyncioTransport
from common_raft.transport.messages import PeerMessage

log = logging.getLogger(__name__)

NOT_REACHED = "the state machine was not reached yet"


class AsyncioNode(Member[Command, Result]):
    """One member of a cluster, in the running loop; made and used in it, and closed with `close`.

    ``failed`` ends with the error that stopped the node: a disk that failed, or a log that contradicts the
    cluster's.  A failed node answers nothing more and must be restarted, or replaced.

    A machine whose ``apply`` is a coroutine is applied to beside the loop's turns: meanwhile the node goes on
    replicating, and the next call takes all that was committed in between.  ``problem`` says why the machine cannot
    be reached, while it cannot.

    Raises LogDamaged when the machine has applied more than the log holds.
    """

    def __init__(
        self,
        options: NodeOptions,
        wal: Wal,
        machine: StateMachine[Command, Result] | AsyncStateMachine[Command, Result],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        super().__init__(options, wal, machine, self._loop.time)
        self._machine = machine
        self.failed: asyncio.Future[BaseException] = self._loop.create_future()
        self._transport: AsyncioTransport
        transport = AsyncioTransport(
            options.id,
            options.cluster_id,
            options.listen,
            {},
            self._on_messages,
            self._on_unreachable,
            self._reconfiguration.learnt_of_removal,
        )
        self._connect(transport)
        self._turn_is_due = False
        self._applies_beside = inspect.iscoroutinefunction(machine.apply)
        # Bounded by the core, which hands out no more than MAX_APPLYING entries.
        self._to_apply: deque[Step] = deque()
        self._state_is_asked_for = False
        self._applying: asyncio.Task[None] | None = None
        self._check_at = self._loop.time()  # when an idle machine is to be asked whether it is there
        self._regain = 0  # what the machine had applied before it was found to have less
        if options.idle_check is not None:
            self.problem = NOT_REACHED
        self._whole: asyncio.Event = asyncio.Event()
        self._ticker: asyncio.TimerHandle | None = None
        self._tick_at = self._loop.time()
        self._gathering: asyncio.TimerHandle | None = None  # a turn that is due whatever happens before

    def _writer_of(self, wal: Wal) -> WalWriter:
        ring = SyncRing.open() if wal.syncs else None
        if ring is None:
            return super()._writer_of(wal)
        log.info("the kernel syncs the log (io_uring)")
        return LoopWriter(
            wal,
            ring,
            self._durable_in_thread,
            self._disk_failed_in_thread,
            durable=self._on_durable,
            failed=self._fail,
        )

    # --- life -------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Takes part in the cluster.  Raises OSError when a peer address cannot be listened on."""
        await self._transport.start()
        self._writer.start()
        self._begin()
        self._run_turn()
        self._tick_at = self._loop.time() + self._options.heartbeat_interval
        self._ticker = self._loop.call_at(self._tick_at, self._tick)

    async def restored(self) -> None:
        """Until the machine has what the log begins behind, or the node stops; before that, it has nothing to read.

        A node that starts from a snapshot restores it beside, and gets what the others have meanwhile.
        """
        await self._whole.wait()

    async def hand_over(self) -> bool:
        """Before a stop: where this node leads, has another one lead; then it may be closed.

        Returns false when nobody else could be made to lead: after an election timeout, and 5 s at most.
        """
        if self._stopped:
            return False
        handed_over: asyncio.Future[bool] = self._loop.create_future()
        self._leaving.begin(handed_over.set_result)
        self._schedule_turn()
        return await handed_over

    def stop(self) -> None:
        """Answers nobody any more: who waits gets an error.  What else there is to stopping `close` does."""
        if not self._stopped:
            self._stop()

    async def close(self) -> None:
        """Stops: clients that wait get an error, what is at the disk is finished, links end."""
        self.stop()
        if self._applying is not None:
            await asyncio.wait([self._applying])
        await self._transport.close()
        if isinstance(self._writer, LoopWriter):
            await self._writer.leave_loop()
        await self._loop.run_in_executor(None, self._close_beside)

    def _close_beside(self) -> None:
        self._writer.close()
        self._close_snapshots()

    def _stop(self) -> None:
        for timer in (self._ticker, self._gathering):
            if timer is not None:
                timer.cancel()
        self._stop_waiting()
        self._whole.set()

    def _fail(self, error: BaseException) -> None:
        """What the node knows can no longer be trusted: say nothing more to anybody."""
        if not self._stopped:
            self._stop()
            if not self.failed.done():  # cancelled, by one who waited for it for a while
                self.failed.set_result(error)

    # --- what clients ask -------------------------------------------------------------------------------------

    def propose(self, command: Command, done: Done[Result]) -> None:
        """Replicates ``command``; ``done`` gets its result in the turn in which this node applies it.

        It gets a ProposalError when the command was refused, or was not applied within the request timeout.
        """
        if self._stopped:
            done(ProposalError(STOPPED))
            return
        self._proposals.add(command, done, self._loop.time())
        if self._forwarding.gathers_until is None:  # else it goes along with what waits
            self._schedule_turn()

    def read_index(self, done: ReadDone) -> None:
        """Calls ``done`` with None once a read of the local state is linearizable, else with a ProposalError."""
        if self._stopped:
            done(ProposalError(STOPPED))
            return
        self._reads.add(done, self._loop.time())
        self._schedule_turn()

    def change_members(self, kind: ChangeKind, member: MemberInfo, done: ChangeDone) -> None:
        """Has the cluster change its members; ``done`` gets None once this node has applied it, else why not.

        What of ``member`` counts depends on ``kind``, see there.
        """
        if self._stopped:
            done(ChangeError(Problem.NOT_DONE, STOPPED))
            return
        self._reconfiguration.ask(kind, member, done)
        self._schedule_turn()

    # --- turns ------------------------------------------------------------------------------------------------

    def _schedule_turn(self) -> None:
        if not self._turn_is_due:
            self._turn_is_due = True
            self._loop.call_soon(self._run_turn)

    def _run_turn(self) -> None:
        self._turn_is_due = False
        if self._stopped:
            return
        try:
            self._advance()
        except BaseException as error:
            log.debug("turn failed", exc_info=True)
            self._fail(error)
            if not isinstance(error, Exception):
                raise
        until = self._forwarding.gathers_until
        if until is not None and self._gathering is None:
            self._gathering = self._loop.call_at(until, self._end_gathering)

    def _end_gathering(self) -> None:
        self._gathering = None
        self._run_turn()

    def _tick(self) -> None:
        if self._stopped:
            return
        now = self._loop.time()
        self._tick_at = next_tick(self._tick_at, now, self._options.heartbeat_interval)
        self._ticker = self._loop.call_at(self._tick_at, self._tick)
        self._on_tick(now)
        if self._options.idle_check is not None and self._applying is None and now >= self._check_at:
            self._apply(Work([], [], self.applied))
        self._run_turn()

    # --- applying ---------------------------------------------------------------------------------------------

    def _apply(self, work: Work) -> None:
        if not self._applies_beside:
            machine = cast("StateMachine[Command, Result]", self._machine)
            self._on_applied(work, machine.apply(work.batches, work.applied) if work.batches else ())
            return
        self._do_beside(work)

    def _do_beside(self, step: Step) -> None:
        self._to_apply.append(step)
        if self._applying is None:
            self._applying = self._loop.create_task(self._apply_beside())

    async def _apply_beside(self) -> None:
        try:
            while self._to_apply and not self._stopped:
                step = take(self._to_apply, MAX_APPLY_BYTES)
                if isinstance(step, SnapshotMark):
                    await self._restore_beside(step)
                    continue
                asks = step.batches or self._options.idle_check is not None
                results = await self._results_of(step) if asks else ()
                if results is not None:
                    self._on_applied(step, results)
                if self._state_is_asked_for:
                    self._state_is_asked_for = False
                    await self._take_state_beside()
                self._schedule_turn()  # the core may have held entries back
        except Exception as error:
            log.debug("applying failed", exc_info=True)
            self._fail(error)
        finally:
            self._applying = None

    async def _results_of(self, work: Work) -> Sequence[Sequence[Result] | None] | None:
        """Tries until the machine can be reached: what is committed must be applied, once and in order.

        None when the node stops before that, and when the machine is elsewhere: all is then handed out again.
        """
        machine = cast("AsyncStateMachine[Command, Result]", self._machine)
        while not self._stopped:
            try:
                results = await machine.apply(work.batches, work.applied)
            except ConnectionError as error:
                self._cannot_apply(work, error)
                await asyncio.sleep(RETRY_SECONDS)
            except Misplaced as found:
                self._resume_at(found.applied)
                return None
            else:
                self._can_apply(work)
                self._look_after(work.applied)
                return results
        return None

    def _resume_at(self, applied: int) -> None:
        """The machine has more or less than this node believed: what was handed out does not go on from there."""
        if applied != self.applied:
            log.warning(
                "the state machine is at entry %d, not %d: going on from there", applied, self.applied
            )
        self._regain = max(self._regain, self.applied)
        self._go_on_behind(applied)
        self.problem = None
        self._look_after(applied)

    def _go_on_behind(self, applied: int) -> None:
        self._to_apply.clear()
        super()._go_on_behind(applied)
        # While the newest is not durable yet: it is restored when it is.
        if applied < self._core.log.offset and self._restoring is None:
            assert self._snapshotting.newest is not None
            self._to_apply.append(self._snapshotting.newest)

    def _look_after(self, applied: int) -> None:
        """The machine was reached, and is at ``applied``."""
        self._check_at = self._loop.time() + (self._options.idle_check or 0)
        if applied < self._regain:
            self.problem = f"the state machine has {applied} of {self._regain} entries again"

    # --- snapshots --------------------------------------------------------------------------------------------

    def _take_state(self) -> None:
        if self._applies_beside:
            self._state_is_asked_for = True  # before anything else is applied
        else:
            self._write_state(cast(Snapshotted, self._machine).snapshot(self.applied))

    async def _take_state_beside(self) -> None:
        try:
            chunks = await cast(AsyncSnapshotted, self._machine).snapshot(self.applied)
        except ConnectionError as error:
            self._snapshotting.give_up(error)
        else:
            self._write_state(self._in_thread(chunks))

    def _in_thread(self, chunks: AsyncIterator[bytes]) -> Iterator[bytes]:
        """``chunks`` for another thread; each is asked for in the loop."""

        async def following() -> bytes | None:
            return await anext(chunks, None)

        try:
            while (chunk := asyncio.run_coroutine_threadsafe(following(), self._loop).result()) is not None:
                yield chunk
        finally:
            close = getattr(chunks, "close", None)
            if close is not None:
                self._from_thread(lambda _: close(), None)

    def _restore(self, mark: SnapshotMark) -> None:
        self._do_beside(mark)

    async def _restore_beside(self, mark: SnapshotMark) -> None:
        """Tries until the machine can be reached; once no state of it is being taken any more."""
        await asyncio.wrap_future(self._beside.no_long_one_runs())
        while not self._stopped:
            chunks = self._snapshotting.state_in(mark)
            try:
                if self._applies_beside:
                    await cast(AsyncSnapshotted, self._machine).restore(read_beside(chunks))
                else:
                    await asyncio.to_thread(cast(Snapshotted, self._machine).restore, chunks)
            except Overtaken:
                return  # the newer one is next, or the node stops
            except ConnectionError as error:
                self._cannot_apply(Work([], [], mark.index), error)
                await asyncio.sleep(RETRY_SECONDS)
            except Misplaced as found:
                self._resume_at(found.applied)
                return
            else:
                self._can_apply(Work([], [], mark.index))
                self._on_restored(mark)
                self._look_after(mark.index)
                return

    # --- the network and the disk -----------------------------------------------------------------------------

    def _on_messages(self, messages: list[PeerMessage]) -> None:
        if self._stopped:
            return
        try:
            self._take_messages(messages)
        except Exception as error:
            self._fail(error)
        if self._forwarding.waiting or self._reconfiguration.waiting or self._core.has_ready():
            self._schedule_turn()

    def _durable_in_thread(self, number: int) -> None:
        self._from_thread(self._on_durable, number)

    def _disk_failed_in_thread(self, error: BaseException) -> None:
        self._from_thread(self._fail, error)

    def _post(self, callback: Callable[[Any], None], argument: Any) -> None:
        self._from_thread(self._take_post, (callback, argument))

    def _take_post(self, post: tuple[Callable[[Any], None], Any]) -> None:
        if self._stopped:
            return
        callback, argument = post
        try:
            callback(argument)
        except Exception as error:
            log.debug("what ran beside failed", exc_info=True)
            self._fail(error)
        self._run_turn()

    def _from_thread(self, callback: Callable[..., None], argument: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, argument)
        except RuntimeError:
            pass  # the loop is closed: nobody is left to tell

    def _on_durable(self, number: int) -> None:
        if self._stopped:
            return
        self._on_persisted(number)
        self._run_turn()
