"""Readers beside a writer: one at a time who writes, and, where the database keeps them apart badly, no readers then.

Connections to SQLite's database in memory refuse each other rather than wait (it has no write-ahead log), sleep in
steps of a millisecond and try again.  So they are kept apart here (``exclusive``): many readers or one writer, who is
next as soon as he asks.  Other databases show readers what was committed, whoever writes meanwhile.
"""

import asyncio
import threading


class Gate:
    """For threads.  Each ``start`` that returned is followed by its ``end``."""

    def __init__(self, *, exclusive: bool) -> None:
        self._exclusive = exclusive
        self._writers = threading.Lock()
        self._changed = threading.Condition(threading.Lock())
        self._reading = 0
        self._writing = False

    def start_reading(self) -> None:
        if self._exclusive:
            with self._changed:
                while self._writing:
                    self._changed.wait()
                self._reading += 1

    def end_reading(self) -> None:
        if self._exclusive:
            with self._changed:
                self._reading -= 1
                if self._writing and not self._reading:
                    self._changed.notify_all()

    def start_writing(self) -> None:
        self._writers.acquire()
        if self._exclusive:
            with self._changed:
                self._writing = True
                while self._reading:
                    self._changed.wait()

    def end_writing(self) -> None:
        if self._exclusive:
            with self._changed:
                self._writing = False
                self._changed.notify_all()
        self._writers.release()


class AsyncGate:
    """`Gate` for tasks of one event loop."""

    def __init__(self, *, exclusive: bool) -> None:
        self._exclusive = exclusive
        self._writers = asyncio.Lock()
        self._no_writer = asyncio.Event()
        self._no_reader = asyncio.Event()
        self._no_writer.set()
        self._no_reader.set()
        self._reading = 0

    async def start_reading(self) -> None:
        if self._exclusive:
            while not self._no_writer.is_set():
                await self._no_writer.wait()
            self._reading += 1
            self._no_reader.clear()

    def end_reading(self) -> None:
        if self._exclusive:
            self._reading -= 1
            if not self._reading:
                self._no_reader.set()

    async def start_writing(self) -> None:
        await self._writers.acquire()
        if self._exclusive:
            self._no_writer.clear()
            try:
                await self._no_reader.wait()
            except BaseException:
                self.end_writing()
                raise

    def end_writing(self) -> None:
        self._no_writer.set()
        self._writers.release()
