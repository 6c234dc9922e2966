"""Passwords: hashed with bcrypt, at etcd's cost, away from the event loop; what was verified is remembered.

A hash takes some 50 ms on purpose, and etcd's clients send their password with every request.  So what was verified
is remembered, as a digest of name, password and stored hash under a key that this process drew at its start.  Neither
the password nor anything that could be tried out elsewhere is kept; who changes a password changes its hash, which an
old digest does not fit any more.  Only successes are remembered, the last ``REMEMBERED`` of them, and none once users
have changed.  Guesses cost what they cost.
"""

import asyncio
import os
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from hashlib import blake2b
from typing import Final, Protocol, TypeVar

import bcrypt

T = TypeVar("T")

#: bcrypt's cost, as a power of two: that of etcd (golang.org/x/crypto/bcrypt, DefaultCost).
COST: Final = 10
#: bcrypt looks at no more bytes of a password; etcd's version of it takes longer ones without a word.
MAX_BYTES: Final = 72
REMEMBERED: Final = 1024
#: Hashes at a time: each keeps a processor busy, and the service needs some of them itself.
THREADS: Final = max(1, (os.cpu_count() or 2) // 2)
#: Hashes that may wait on an event loop, which takes some seconds for them; beyond, clients are told to come back.
WAITING: Final = 64


class TooBusy(Exception):
    """More passwords wait for their hash than would get it in reasonable time."""

    def __str__(self) -> str:
        return f"{WAITING} passwords wait to be hashed or checked: try again"


class Passwords(Protocol):
    """Each ``done`` is called exactly once, on the caller's loop or thread."""

    def hash(self, password: str, done: Callable[[str | TooBusy], None], /) -> None:
        """``done`` gets what to store."""

    def check(
        self, name: str, password: bytes, stored: str, done: Callable[[bool | TooBusy], None], /
    ) -> None: ...
    def forget(self) -> None:
        """Users have changed.  In any thread."""


def _hash(password: str) -> str:
    return bcrypt.hashpw(_cut(password.encode("utf-8", "surrogateescape")), bcrypt.gensalt(COST)).decode()


def _matches(password: bytes, stored: str) -> bool:
    try:
        return bcrypt.checkpw(_cut(password), stored.encode())
    except ValueError:  # what is stored is no hash, and so nobody's
        return False


def _cut(password: bytes) -> bytes:
    return password[:MAX_BYTES]


class Verified:
    """Which passwords were found to be right.  In any thread."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._digests: OrderedDict[bytes, None] = OrderedDict()
        self._lock = threading.Lock()
        self._generation = 0

    def digest(self, name: str, password: bytes, stored: str) -> bytes:
        parts = (name.encode("utf-8", "surrogateescape"), stored.encode(), password)
        digest = blake2b(key=self._key, digest_size=32)
        for part in parts:
            digest.update(len(part).to_bytes(8, "big"))  # so that no two triples are the same bytes
            digest.update(part)
        return digest.digest()

    def __contains__(self, digest: bytes) -> bool:
        with self._lock:
            if digest not in self._digests:
                return False
            self._digests.move_to_end(digest)
            return True

    def check(self, digest: bytes, password: bytes, stored: str) -> bool:
        """Hashes the password, unless somebody else did while this waited for its turn."""
        if digest in self:
            return True
        generation = self._generation
        if not _matches(password, stored):
            return False
        with self._lock:
            if generation == self._generation:
                self._digests[digest] = None
                if len(self._digests) > REMEMBERED:
                    self._digests.popitem(last=False)
        return True

    def forget(self) -> None:
        with self._lock:
            self._generation += 1
            self._digests.clear()


class BlockingPasswords:
    """For threads: each request hashes in its own, ``THREADS`` of them at a time; they are bounded themselves."""

    def __init__(self) -> None:
        self._verified = Verified()
        self._turns = threading.Semaphore(THREADS)

    def hash(self, password: str, done: Callable[[str | TooBusy], None]) -> None:
        with self._turns:
            stored = _hash(password)
        done(stored)

    def check(self, name: str, password: bytes, stored: str, done: Callable[[bool | TooBusy], None]) -> None:
        digest = self._verified.digest(name, password, stored)
        right = digest in self._verified
        if not right:
            with self._turns:
                right = self._verified.check(digest, password, stored)
        done(right)

    def forget(self) -> None:
        self._verified.forget()


class LoopPasswords:
    """For an event loop: hashed in threads of their own, of which there are none until the first password comes.

    Requests that come with the same credentials while these are being checked share one check.
    """

    def __init__(self) -> None:
        self._verified = Verified()
        self._threads = ThreadPoolExecutor(THREADS, "passwords")
        self._waiting = 0
        self._checks: dict[bytes, list[Callable[[bool | TooBusy], None]]] = {}

    def close(self) -> None:
        """Those that wait are not answered any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def hash(self, password: str, done: Callable[[str | TooBusy], None]) -> None:
        self._submit(partial(_hash, password), done)

    def check(self, name: str, password: bytes, stored: str, done: Callable[[bool | TooBusy], None]) -> None:
        digest = self._verified.digest(name, password, stored)
        if digest in self._verified:
            done(True)
        elif digest in self._checks:
            self._checks[digest].append(done)
        else:
            self._checks[digest] = [done]
            work = partial(self._verified.check, digest, password, stored)
            self._submit(work, partial(self._checked, digest))

    def forget(self) -> None:
        self._verified.forget()

    def _checked(self, digest: bytes, outcome: bool | TooBusy) -> None:
        for done in self._checks.pop(digest):
            done(outcome)

    def _submit(self, work: Callable[[], T], done: Callable[[T | TooBusy], None]) -> None:
        if self._waiting >= WAITING:
            done(TooBusy())
            return
        self._waiting += 1
        loop = asyncio.get_running_loop()

        def end(future: Future[T]) -> None:
            self._waiting -= 1
            done(future.result())

        def ended(future: Future[T]) -> None:
            """In the pool's thread."""
            try:
                if not future.cancelled():
                    loop.call_soon_threadsafe(end, future)
            except RuntimeError:  # the loop has ended, and whoever waited in it
                pass

        self._threads.submit(work).add_done_callback(ended)
