"""Runs a core on threads, with blocking sockets and without any event loop.

    consensus     owns the core, and everything that waits for it; works in turns (`drivers.member`)
    applying      calls the state machine, so that a slow one does not hold up consensus
    wal-writer    writes the log (`storage.writer`)
    peers' own    see `transport.blocking`

All of them, and the threads of the clients' requests, hand what they have to the consensus thread through one queue.
A turn takes everything that has gathered there: the slower the turns, the larger the batches.
"""

from __future__ import annotations

import inspect
import logging
import threading
import time
from _thread import LockType, allocate_lock
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from functools import partial
from itertools import groupby
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias, cast

from common_raft.drivers.applying import Step, Work, together
from common_raft.drivers.machine import (
    Command,
    Done,
    ProposalError,
    ReadDone,
    Result,
    Snapshotted,
    StateMachine,
)
from common_raft.drivers.member import RETRY_SECONDS, Member, next_tick
from common_raft.drivers.membership import ChangeDone, ChangeError, ChangeKind, MemberInfo, Problem
from common_raft.drivers.options import NodeOptions
from common_raft.drivers.proposals import STOPPED
from common_raft.drivers.snapshotting import Overtaken
from common_raft.storage import SnapshotMark, Wal
from common_raft.transport.blocking import BlockingTransport
from common_raft.transport.messages import PeerMessage

log = logging.getLogger(__name__)

#: How often a receiving thread that is held back looks whether the node has stopped, in seconds.
_LOOK_SECONDS = 0.2

_Results: TypeAlias = Sequence[Sequence[Result] | None]


class _AskState:
    """In the row of what is to be applied: the machine's state as it is then is to be taken."""


_ASK_STATE = _AskState()


class _Waiter:
    """A thread that waits for one outcome.

    A lock of its own is the cheapest way: see ARCHITECTURE.md, "Waiting in threads".
    """

    __slots__ = ("_lock", "_outcome", "command")

    def __init__(self, command: Any = None) -> None:
        self.command = command
        self._outcome: Any = None
        self._lock = allocate_lock()
        self._lock.acquire()

    def __call__(self, outcome: Any) -> None:
        """Lets the thread go on; may be called once."""
        self._outcome = outcome
        self._lock.release()

    def wait(self) -> Any:
        self._lock.acquire()
        return self._outcome


class ThreadsNode(Member[Command, Result]):
    """One member of a cluster, for use from any thread; closed with `close`.

    ``failed`` ends with the error that stopped the node: a disk that failed, or a log that contradicts the
    cluster's.  A failed node answers nothing more and must be restarted, or replaced.

    ``problem`` says why the machine cannot be reached, while it cannot.

    Raises LogDamaged when the machine has applied more than the log holds.
    """

    def __init__(self, options: NodeOptions, wal: Wal, machine: StateMachine[Command, Result]) -> None:
        if inspect.iscoroutinefunction(machine.apply):
            raise TypeError(
                f"{type(machine).__name__} awaits to apply: AsyncioNode runs it, and no node of threads"
            )
        super().__init__(options, wal, machine, time.monotonic)
        self._machine = machine
        self.failed: Future[BaseException] = Future()
        # Bounded by what puts into it: a client's thread waits for its outcome, a peer's thread for `_gates`, the
        # writer and the applying thread have one thing under way each.
        self._inbox: SimpleQueue[tuple[Callable[[Any], None], Any]] = SimpleQueue()
        # Bounded by the core, which hands out no more than MAX_APPLYING entries.
        self._to_apply: SimpleQueue[Step | _AskState | None] = SimpleQueue()
        self._applied_works: list[Callable[[], None]] = []  # what is done about them, in their order
        #: A peer's messages wait in the inbox one read at a time; what comes meanwhile, TCP keeps and holds back.
        self._gates: dict[int, LockType] = {}
        self._transport: BlockingTransport
        transport = BlockingTransport(
            options.id,
            options.cluster_id,
            options.listen,
            {},
            self._messages_in_thread,
            self._unreachable_in_thread,
            self._removed_in_thread,
        )
        self._connect(transport)
        self._turn_is_due = False
        self._ending = threading.Event()
        self._whole: threading.Event = threading.Event()
        self._consensus = threading.Thread(target=self._run, name="consensus")
        self._applier = threading.Thread(target=self._apply_all, name="applying")

    # --- life -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Takes part in the cluster.  Raises OSError when a peer address cannot be listened on."""
        self._transport.start()
        self._writer.start()
        self._begin()
        self._applier.start()
        self._consensus.start()

    def restored(self, timeout: float | None = None) -> bool:
        """Waits until the machine has what the log begins behind, or the node stops; false when time is up.

        Before that, it has nothing to read.  A node that starts from a snapshot restores it beside, and gets what
        the others have meanwhile.  ``timeout`` in seconds; None: as long as it takes.
        """
        return self._whole.wait(timeout)

    def hand_over(self) -> bool:
        """Before a stop: where this node leads, has another one lead, and waits; then it may be closed.

        Returns false when nobody else could be made to lead: after an election timeout, and 5 s at most.
        """
        return self._ask(self._leaving.begin, _Waiter()) is True

    def stop(self) -> None:
        """Answers nobody any more: who waits gets an error.  What else there is to stopping `close` does."""
        self._inbox.put((self._stop, None))

    def close(self) -> None:
        """Stops: clients that wait get an error, what is at the disk is finished, links end.

        What is being applied is waited for.  Not for the node's own threads.
        """
        if self._consensus.ident is None:
            self._end()  # it was never started
        else:
            self.stop()
            self._consensus.join()
        if self._applier.ident is not None:
            self._applier.join()
        self._transport.close()
        self._writer.close()
        self._close_snapshots()

    def _stop(self, _: object) -> None:
        self._stop_waiting()

    def _fail(self, error: BaseException) -> None:
        """What the node knows can no longer be trusted: say nothing more to anybody."""
        if not self._stopped:
            self._stop_waiting()
            if not self.failed.done():  # cancelled, by one who waited for it for a while
                self.failed.set_result(error)

    # --- what clients ask, in their own threads ---------------------------------------------------------------

    def propose(self, command: Command, done: Done[Result]) -> None:
        """Replicates ``command``, and waits until this node has applied it; ``done`` gets its result, in this thread.

        It gets a ProposalError when the command was refused, or was not applied within the request timeout.
        """
        done(self._ask(self._add_proposal, _Waiter(command)))

    def read_index(self, done: ReadDone) -> None:
        """Waits until a read of the local state is linearizable; then calls ``done`` with None, in this thread.

        It gets a ProposalError when it cannot be, within the request timeout.
        """
        done(self._ask(self._add_read, _Waiter()))

    def change_members(self, kind: ChangeKind, member: MemberInfo, done: ChangeDone) -> None:
        """Has the cluster change its members, and waits; ``done`` gets None once this node has applied it, else why
        not, in this thread.  What of ``member`` counts depends on ``kind``, see there.
        """
        outcome = self._ask(self._add_change, _Waiter((kind, member)))
        # A node that is stopping has one answer for everybody.
        done(ChangeError(Problem.NOT_DONE, STOPPED) if isinstance(outcome, ProposalError) else outcome)

    def _add_change(self, waiter: _Waiter) -> None:
        kind, member = waiter.command
        self._reconfiguration.ask(kind, member, waiter)

    def _ask(self, add: Callable[[_Waiter], None], waiter: _Waiter) -> Any:
        self._inbox.put((add, waiter))
        if self._stopped:  # perhaps nobody looks into the inbox any more
            self._refuse_the_rest()
        return waiter.wait()

    def _add_proposal(self, waiter: _Waiter) -> None:
        self._proposals.add(waiter.command, waiter, self._now())

    def _add_read(self, waiter: _Waiter) -> None:
        self._reads.add(waiter, self._now())

    def _refuse_the_rest(self) -> None:
        """Answers all clients whose questions nobody will take out of the inbox."""
        while True:
            try:
                _, argument = self._inbox.get_nowait()
            except Empty:
                return
            if isinstance(argument, _Waiter):
                argument(ProposalError(STOPPED))

    # --- the consensus thread ---------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._take_turns()
        except BaseException as error:
            log.debug("turn failed", exc_info=True)
            self._fail(error)
        finally:
            self._end()

    def _take_turns(self) -> None:
        interval = self._options.heartbeat_interval
        tick_at = self._now() + interval
        while not self._stopped:
            self._turn()
            until = self._forwarding.gathers_until
            self._take_gathered(tick_at if until is None else min(tick_at, until))
            now = self._now()
            if now >= tick_at and not self._stopped:
                tick_at = next_tick(tick_at, now, interval)
                self._on_tick(now)

    def _take_gathered(self, until: float) -> None:
        """Waits for something to come, at most until then; takes everything that is there."""
        inbox = self._inbox
        try:
            take, argument = inbox.get(timeout=max(until - self._now(), 0))
            take(argument)
            for _ in range(inbox.qsize()):
                take, argument = inbox.get_nowait()
                take(argument)
        except Empty:
            pass

    def _turn(self) -> None:
        due = True
        while due and not self._stopped:
            self._turn_is_due = False
            self._advance()
            # Clients last: their threads, once they are awake, compete for the interpreter.
            works, self._applied_works = self._applied_works, []
            for take in works:
                take()
            # The core may have held entries back until these were applied.
            due = self._turn_is_due or (bool(works) and self._core.has_ready())

    def _take_told(self, take: Callable[[], None]) -> None:
        self._applied_works.append(take)

    def _schedule_turn(self) -> None:
        self._turn_is_due = True

    def _end(self) -> None:
        self._stop_waiting()  # also what was taken in the turn in which the node stopped
        self._ending.set()
        self._whole.set()
        self._to_apply.put(None)
        self._refuse_the_rest()

    # --- the applying thread ----------------------------------------------------------------------------------

    def _apply(self, work: Work) -> None:
        self._to_apply.put(work)

    def _restore(self, mark: SnapshotMark) -> None:
        self._to_apply.put(mark)

    def _take_state(self) -> None:
        self._to_apply.put(_ASK_STATE)

    def _apply_all(self) -> None:
        applied = self.applied
        try:
            for step in self._steps():
                if isinstance(step, _AskState):
                    chunks = cast(Snapshotted, self._machine).snapshot(applied)
                    self._tell(partial(self._write_state, chunks))
                elif isinstance(step, SnapshotMark):
                    if self._restore_now(step):
                        applied = step.index
                        self._tell(partial(self._on_restored, step))
                else:
                    results = self._results_of(step) if step.batches else ()
                    if results is None:
                        return
                    applied = step.applied
                    self._tell(partial(self._on_applied, step, results))
        except BaseException as error:
            log.debug("applying failed", exc_info=True)
            self._inbox.put((self._fail, error))

    def _tell(self, take: Callable[[], None]) -> None:
        """Has the consensus thread do something about what was applied, in its order."""
        self._inbox.put((self._take_told, take))

    def _steps(self) -> Iterator[Step | _AskState]:
        """What is to be done, until the node stops; work that was committed during a step is one step."""
        while True:
            steps = [self._to_apply.get()]
            steps += [self._to_apply.get_nowait() for _ in range(self._to_apply.qsize())]
            for kind, group in groupby(steps, type):
                if kind is Work:
                    yield together(cast("Iterable[Work]", group))
                    continue
                for step in group:
                    if step is None:
                        return
                    yield step

    def _restore_now(self, mark: SnapshotMark) -> bool:
        """Tries until the machine can be reached; once no state is being taken any more.

        False when the node stops before that, and when a newer snapshot has come, which is next.
        """
        free: Future[None] = Future()
        # Behind what was told of a state that this thread has taken just now.
        self._tell(lambda: self._beside.no_long_one_runs().add_done_callback(lambda _: free.set_result(None)))
        while not (self._ending.is_set() or wait([free], timeout=_LOOK_SECONDS).done):
            pass
        while not self._ending.is_set():
            try:
                cast(Snapshotted, self._machine).restore(self._snapshotting.state_in(mark))
            except Overtaken:
                return False
            except ConnectionError as error:
                self._cannot_apply(Work([], [], mark.index), error)
                self._ending.wait(RETRY_SECONDS)
            else:
                self._can_apply(Work([], [], mark.index))
                return True
        return False

    def _results_of(self, work: Work) -> _Results[Result] | None:
        """Tries until the machine can be reached: what is committed must be applied, once and in order.

        None when the node stops before that.
        """
        while not self._ending.is_set():
            try:
                results = self._machine.apply(work.batches, work.applied)
            except ConnectionError as error:
                self._cannot_apply(work, error)
                self._ending.wait(RETRY_SECONDS)
            else:
                self._can_apply(work)
                return results
        return None

    # --- the network's and the disk's threads -----------------------------------------------------------------

    def _messages_in_thread(self, messages: list[PeerMessage]) -> None:
        gate = self._gates.get(messages[0].sender) or self._gates.setdefault(
            messages[0].sender, allocate_lock()
        )
        while not gate.acquire(timeout=_LOOK_SECONDS):
            if self._stopped:
                return
        self._inbox.put((self._take_from_peer, messages))

    def _take_from_peer(self, messages: list[PeerMessage]) -> None:
        self._gates[messages[0].sender].release()
        self._take_messages(messages)

    def _unreachable_in_thread(self, peer: int) -> None:
        if not self._stopped:
            self._inbox.put((self._on_unreachable, peer))

    def _post(self, callback: Callable[[Any], None], argument: Any) -> None:
        self._inbox.put((callback, argument))

    def _removed_in_thread(self) -> None:
        if not self._stopped:
            self._inbox.put((lambda _: self._reconfiguration.learnt_of_removal(), None))

    def _durable_in_thread(self, number: int) -> None:
        self._inbox.put((self._on_persisted, number))

    def _disk_failed_in_thread(self, error: BaseException) -> None:
        self._inbox.put((self._fail, error))
