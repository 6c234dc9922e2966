"""A stream between who has pieces and the front that takes them."""

import threading
from collections.abc import Callable

import pytest

from common_raft.web.response import EMPTY
from common_raft.web.stream import MOST, PATIENCE, UNREAD, Stream, Streams


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Released:
    """Counts how often it was told that nobody takes any more."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


def opened(clock: Callable[[], float] | None = None) -> tuple[Stream, Released]:
    stream, released = Stream(clock or Clock()), Released()
    stream.open(b"A: b\r\n", released, EMPTY)
    return stream, released


def test_pieces_are_taken_in_the_order_in_which_they_were_put() -> None:
    stream, _ = opened()
    for piece in (b"1", b"2", b"3"):
        stream.put(piece)
    assert stream.take() == ([b"1", b"2", b"3"], False)
    assert stream.take() == ([], False)
    stream.put(b"4")
    stream.end()
    assert stream.take() == ([b"4"], True)


def test_whoever_takes_is_told_of_each_piece_and_of_the_end() -> None:
    stream, _ = opened()
    told = Released()
    stream.start(told)
    stream.put(b"1")
    stream.put(b"2")
    stream.end()
    assert told.times == 3


def test_the_last_piece_and_the_end_are_told_of_at_once() -> None:
    stream, _ = opened()
    told = Released()
    stream.start(told)
    stream.put(b"1", last=True)
    assert told.times == 1
    stream.put(b"2")
    assert stream.take() == ([b"1"], True)


def test_what_comes_after_the_end_is_dropped() -> None:
    stream, _ = opened()
    stream.end()
    stream.put(b"late")
    assert stream.take() == ([], True)


def test_who_cancels_frees_what_has_the_pieces_and_may_do_so_twice() -> None:
    stream, released = opened()
    stream.put(b"1")
    stream.cancel()
    stream.cancel()
    assert released.times == 2
    assert stream.take() == ([b"1"], True)


def test_one_that_was_cut_before_it_was_open_frees_what_has_the_pieces() -> None:
    stream, released = Stream(Clock()), Released()
    stream.end()
    stream.open(b"", released, EMPTY)
    assert released.times == 1


def test_a_client_that_leaves_too_many_pieces_for_too_long_gets_those_and_no_more() -> None:
    clock = Clock()
    stream, released = opened(clock)
    for number in range(UNREAD + 1):
        stream.put(b"%d" % number)
    assert released.times == 0
    clock.now += PATIENCE + 0.1
    stream.put(b"one too many")
    assert released.times == 1
    pieces, ended = stream.take()
    assert (len(pieces), pieces[-1], ended) == (UNREAD + 1, b"%d" % UNREAD, True)


def test_many_pieces_at_once_are_not_the_clients_fault() -> None:
    stream, released = opened()
    for number in range(MOST):
        stream.put(b"%d" % number)
    assert released.times == 0
    stream.put(b"one too many")
    assert released.times == 1
    assert len(stream.take()[0]) == MOST


def test_a_client_that_takes_now_and_then_is_not_too_slow() -> None:
    clock = Clock()
    stream, released = opened(clock)
    for _ in range(5):
        for _ in range(UNREAD + 50):
            stream.put(b"x")
        clock.now += PATIENCE - 0.1
        stream.put(b"y")
        stream.take()
    assert released.times == 0


def test_pieces_from_one_thread_reach_another_whole() -> None:
    stream, _ = opened()
    more = threading.Event()
    stream.start(more.set)

    def put() -> None:
        for number in range(5_000):
            stream.put(b"%d" % number)
        stream.end()

    putting = threading.Thread(target=put)
    putting.start()
    taken: list[bytes] = []
    ended = False
    while not ended:
        more.wait(5)
        more.clear()
        pieces, ended = stream.take()
        taken += pieces
    putting.join()
    assert taken == [b"%d" % number for number in range(5_000)]


@pytest.mark.parametrize("limit", [1, 3])
def test_only_so_many_streams_are_let_in(limit: int) -> None:
    streams = Streams(limit)
    inside = [opened()[0] for _ in range(limit)]
    assert all(streams.add(stream) for stream in inside)
    assert streams.add(inside[0])  # is there already
    assert not streams.add(opened()[0])
    streams.discard(inside[0])
    assert streams.add(opened()[0])
    assert len(streams) == limit


def test_stopping_ends_those_there_are_and_those_that_come() -> None:
    streams = Streams()
    early, early_released = opened()
    late, late_released = opened()
    streams.add(early)
    streams.stop()
    streams.add(late)
    assert (early_released.times, late_released.times) == (1, 1)
    assert early.take() == late.take() == ([], True)
