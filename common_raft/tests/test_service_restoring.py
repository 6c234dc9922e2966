"""A service that starts from a snapshot lets clients in once it has what it had, and ends if told to before that."""

from __future__ import annotations

import asyncio
import signal
import threading
from queue import SimpleQueue
from typing import Any, cast

import pytest

from common_raft.service import reactive, servlet


class Loop:
    """A node on a loop, as far as this goes."""

    def __init__(self) -> None:
        self.whole = asyncio.Event()

    async def restored(self) -> None:
        await self.whole.wait()


class Threads:
    """A node on threads."""

    def __init__(self) -> None:
        self.whole = threading.Event()
        self.asked = threading.Event()

    def restored(self, timeout: float) -> bool:
        self.asked.set()
        return self.whole.wait(timeout)


def test_on_a_loop_clients_wait_until_the_state_is_there() -> None:
    async def scenario() -> None:
        node = Loop()
        stop: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        part = reactive._Part(cast(Any, None), stop, "", cast(Any, node))
        letting_in = asyncio.create_task(part.restored([stop]))
        await asyncio.sleep(0.05)
        assert not letting_in.done()
        node.whole.set()
        assert await letting_in

    asyncio.run(scenario())


def test_on_a_loop_nobody_is_let_in_when_the_node_is_to_stop_before_that() -> None:
    async def scenario() -> None:
        stop: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        part = reactive._Part(cast(Any, None), stop, "", cast(Any, Loop()))
        letting_in = asyncio.create_task(part.restored([stop]))
        await asyncio.sleep(0)
        stop.set_result(signal.SIGTERM)
        assert not await letting_in

    asyncio.run(scenario())


def on_threads(node: Threads, ends: SimpleQueue[Any], answers: list[bool]) -> threading.Thread:
    part = servlet._Part(cast(Any, None), "", cast(Any, node))
    waiting = threading.Thread(target=lambda: answers.append(part.restored(ends)))
    waiting.start()
    assert node.asked.wait(10)
    return waiting


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servlet, "LOOK_SECONDS", 0.01)


def test_on_threads_clients_wait_until_the_state_is_there() -> None:
    node, answers = Threads(), list[bool]()
    waiting = on_threads(node, SimpleQueue(), answers)
    waiting.join(0.05)
    assert answers == []
    node.whole.set()
    waiting.join(10)
    assert answers == [True]


def test_on_threads_nobody_is_let_in_when_the_node_is_to_stop_before_that() -> None:
    node, answers, ends = Threads(), list[bool](), SimpleQueue[Any]()
    waiting = on_threads(node, ends, answers)
    ends.put(signal.SIGTERM)
    waiting.join(10)
    assert answers == [False]


def test_what_has_no_log_of_its_own_has_nothing_to_wait_for() -> None:
    assert servlet._Part(cast(Any, None), "").restored(SimpleQueue())
    never: Any = None
    assert asyncio.run(reactive._Part(cast(Any, None), never, "").restored([]))
