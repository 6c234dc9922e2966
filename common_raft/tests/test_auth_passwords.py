"""Passwords: hashed away from the loop, checked once, remembered without being kept."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import bcrypt
import pytest

from common_raft.web.auth import passwords as module
from common_raft.web.auth.passwords import (
    MAX_BYTES,
    REMEMBERED,
    WAITING,
    BlockingPasswords,
    LoopPasswords,
    TooBusy,
    Verified,
)

CHEAP = 4


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COST", CHEAP)


class Counted:
    """How often bcrypt was asked to check, and in which threads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.threads: list[threading.Thread] = []
        self.go_on = threading.Event()
        self.go_on.set()
        check = bcrypt.checkpw

        def counted(password: bytes, stored: bytes) -> bool:
            self.threads.append(threading.current_thread())
            assert self.go_on.wait(20)
            return check(password, stored)

        monkeypatch.setattr(bcrypt, "checkpw", counted)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch)


@contextmanager
def loop_passwords() -> Iterator[LoopPasswords]:
    passwords = LoopPasswords()
    try:
        yield passwords
    finally:
        passwords.close()


def hashed(password: str) -> str:
    found: list[str | TooBusy] = []
    BlockingPasswords().hash(password, found.append)
    (stored,) = found
    assert isinstance(stored, str)
    return stored


def checked(passwords: BlockingPasswords, password: bytes, stored: str, name: str = "u") -> bool:
    found: list[bool | TooBusy] = []
    passwords.check(name, password, stored, found.append)
    (right,) = found
    assert isinstance(right, bool)
    return right


@pytest.mark.parametrize("password", ["p", "", "ünï", "a\0b", "x" * MAX_BYTES, "x" * 200])
def test_a_password_is_right_and_others_are_wrong(password: str) -> None:
    stored = hashed(password)
    assert checked(BlockingPasswords(), password.encode(), stored)
    assert (
        not checked(BlockingPasswords(), password.encode()[:-1] + b"~", stored) or len(password) > MAX_BYTES
    )
    assert not checked(BlockingPasswords(), b"other", stored)
    assert not checked(BlockingPasswords(), password.encode(), "no hash at all")
    assert hashed(password) != stored


def test_a_right_password_is_checked_once_and_a_wrong_one_each_time(counted: Counted) -> None:
    passwords = BlockingPasswords()
    stored = hashed("p")
    assert all(checked(passwords, b"p", stored) for _ in range(5))
    assert len(counted.threads) == 1
    assert not any(checked(passwords, b"q", stored) for _ in range(5))
    assert len(counted.threads) == 6
    passwords.forget()
    assert checked(passwords, b"p", stored)
    assert len(counted.threads) == 7


def test_what_was_verified_does_not_stand_for_anything_else() -> None:
    verified = Verified()
    digest = verified.digest("ab", b"c", "stored")
    assert digest != verified.digest("a", b"bc", "stored")
    assert digest != verified.digest("ab", b"c", "other")
    assert digest != Verified().digest("ab", b"c", "stored")


def test_a_check_that_ends_after_users_have_changed_is_not_remembered(counted: Counted) -> None:
    verified, stored = Verified(), hashed("p")
    digest = verified.digest("u", b"p", stored)
    counted.go_on.clear()
    thread = threading.Thread(target=verified.check, args=(digest, b"p", stored))
    thread.start()
    while not counted.threads:
        pass
    verified.forget()
    counted.go_on.set()
    thread.join(20)
    assert digest not in verified


def test_only_the_last_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bcrypt, "checkpw", lambda *_: True)
    verified = Verified()
    digests = [verified.digest(str(number), b"p", "stored") for number in range(REMEMBERED + 1)]
    for digest in digests[:-1]:
        verified.check(digest, b"p", "stored")
    assert digests[0] in verified  # which makes it the one that was used last
    verified.check(digests[-1], b"p", "stored")
    assert [digest in verified for digest in (digests[0], digests[1], digests[-1])] == [True, False, True]


async def outcome(start: Callable[[Callable[[object], None]], None]) -> object:
    future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    start(future.set_result)
    return await future


def test_a_loop_hashes_in_other_threads(counted: Counted) -> None:
    async def main() -> None:
        with loop_passwords() as passwords:
            stored = await outcome(lambda done: passwords.hash("p", done))
            assert isinstance(stored, str)
            assert await outcome(lambda done: passwords.check("u", b"p", stored, done)) is True
            assert await outcome(lambda done: passwords.check("u", b"q", stored, done)) is False
            assert threading.current_thread() not in counted.threads
            at_once: list[object] = []
            passwords.check("u", b"p", stored, at_once.append)
            assert at_once == [True]

    asyncio.run(main())


def test_requests_with_the_same_credentials_share_a_check(counted: Counted) -> None:
    async def main() -> None:
        stored = hashed("p")
        counted.go_on.clear()
        with loop_passwords() as passwords:
            waiting = [
                asyncio.create_task(outcome(lambda done: passwords.check("u", b"p", stored, done)))
                for _ in range(10 * WAITING)
            ]
            await asyncio.sleep(0)
            counted.go_on.set()
            assert set(await asyncio.gather(*waiting)) == {True}
            assert len(counted.threads) == 1

    asyncio.run(main())


def test_more_than_can_wait_are_told_so(counted: Counted) -> None:
    async def main() -> None:
        stored = hashed("p")
        counted.go_on.clear()
        with loop_passwords() as passwords:

            def check(number: int) -> asyncio.Task[object]:
                return asyncio.create_task(
                    outcome(lambda done: passwords.check("u", b"%d" % number, stored, done))
                )

            waiting = [check(number) for number in range(WAITING)]
            await asyncio.sleep(0)
            assert isinstance(await check(-1), TooBusy)
            assert isinstance(await outcome(lambda done: passwords.hash("p", done)), TooBusy)
            counted.go_on.set()
            assert set(await asyncio.gather(*waiting)) == {False}
            assert await check(-1) is False

    asyncio.run(main())


def test_a_loop_that_ends_waits_for_no_hash(counted: Counted) -> None:
    async def main() -> None:
        passwords = LoopPasswords()
        passwords.check("u", b"p", hashed("p"), lambda _: None)
        passwords.close()

    counted.go_on.clear()
    asyncio.run(main())
    counted.go_on.set()
