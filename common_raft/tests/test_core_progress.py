"""What a leader knows of a follower, while it waits for a snapshot and as it comes back from that."""

from __future__ import annotations

import pytest

from common_raft.core import Progress, ProgressState
from common_raft.core.progress import Inflights


def progress(match_index: int = 3) -> Progress:
    """A follower that matches up to 3, and is being sent a snapshot up to 10."""
    waiting = Progress(4, Inflights(4, 1000))
    waiting.match_index = match_index
    waiting.become_snapshot(10)
    return waiting


def seen(follower: Progress) -> tuple[ProgressState, int, int]:
    return follower.state, follower.match_index, follower.next_index


def test_no_appends_while_a_snapshot_is_under_way() -> None:
    waiting = progress()
    assert waiting.paused
    waiting.probe_sent = False  # as by the answer to a heartbeat
    assert waiting.paused


def test_what_was_in_flight_before_the_snapshot_is_given_up() -> None:
    follower = Progress(4, Inflights(4, 1000))
    follower.become_replicate()
    follower.sent_append(4, 1, 100, 0)
    follower.become_snapshot(10)
    assert len(follower.inflights) == 0
    assert follower.inflights.bytes == 0


@pytest.mark.parametrize(
    ("index", "offset", "expected"),
    [
        # The snapshot is there; or another, that reaches the leader's log as well, or what was believed to be lost.
        (10, 8, (ProgressState.REPLICATE, 10, 11)),
        (12, 8, (ProgressState.REPLICATE, 12, 13)),
        (8, 8, (ProgressState.REPLICATE, 8, 9)),
        # Further on, and still behind the leader's log: it goes on waiting.
        (7, 8, (ProgressState.SNAPSHOT, 7, 8)),
        (10, 11, (ProgressState.SNAPSHOT, 10, 11)),
        # Late answers of before.
        (3, 2, (ProgressState.SNAPSHOT, 3, 4)),
        (2, 2, (ProgressState.SNAPSHOT, 3, 4)),
    ],
)
def test_an_acknowledgement_ends_the_wait_when_the_log_can_go_on_there(
    index: int, offset: int, expected: tuple[ProgressState, int, int]
) -> None:
    waiting = progress()
    assert waiting.matched(index, offset) is (index > 3)
    assert seen(waiting) == expected


@pytest.mark.parametrize("prev_index", [3, 4, 10])
def test_a_refusal_of_an_append_of_before_says_nothing(prev_index: int) -> None:
    waiting = progress()
    assert not waiting.rejected(prev_index, 0)
    assert seen(waiting) == (ProgressState.SNAPSHOT, 3, 4)


def test_a_snapshot_that_has_arrived_lets_the_log_go_on_behind_it_once_the_follower_speaks() -> None:
    waiting = progress()
    waiting.snapshot_sent(ok=True)
    assert seen(waiting) == (ProgressState.PROBE, 3, 11)
    assert waiting.paused
    assert waiting.matched(10, 8)
    assert seen(waiting) == (ProgressState.REPLICATE, 10, 11)
    assert not waiting.paused


@pytest.mark.parametrize("match_index", [0, 3])
def test_a_snapshot_that_was_lost_lets_the_log_go_on_where_it_was(match_index: int) -> None:
    waiting = progress(match_index)
    waiting.snapshot_sent(ok=False)
    assert seen(waiting) == (ProgressState.PROBE, match_index, match_index + 1)
    assert waiting.paused


def test_the_next_probe_knows_nothing_of_a_snapshot_of_before() -> None:
    waiting = progress()
    waiting.snapshot_sent(ok=True)
    waiting.become_probe()
    assert seen(waiting) == (ProgressState.PROBE, 3, 4)
    again = progress()
    again.matched(10, 8)
    again.become_probe()
    assert seen(again) == (ProgressState.PROBE, 10, 11)


# --- without snapshots ----------------------------------------------------------------------------------------


def replicating(match_index: int = 3, max_messages: int = 4, max_bytes: int = 1000) -> Progress:
    follower = Progress(match_index + 1, Inflights(max_messages, max_bytes))
    follower.match_index = match_index
    follower.become_replicate()
    return follower


def test_a_follower_of_which_nothing_is_known_yet() -> None:
    fresh = Progress(1, Inflights(1, 1))
    assert seen(fresh) == (ProgressState.PROBE, 0, 1)
    assert (fresh.sent_commit, fresh.pending_snapshot, fresh.inflights.bytes) == (0, 0, 0)
    assert not fresh.paused
    assert not fresh.recent_active


def test_a_probe_begins_behind_what_matches_and_takes_for_lost_what_was_sent() -> None:
    follower = replicating(match_index=0)
    follower.sent_append(2, 2, 10, 1)
    follower.become_probe()
    assert seen(follower) == (ProgressState.PROBE, 0, 1)
    assert (follower.sent_commit, follower.inflights.bytes, len(follower.inflights)) == (0, 0, 0)
    follower.sent_append(2, 2, 10, 1)
    assert follower.paused
    follower.become_probe()
    assert not follower.paused


def test_a_follower_that_matches_earlier_than_was_hoped_is_sent_everything_from_there_on() -> None:
    follower = progress()
    follower.snapshot_sent(ok=True)
    assert follower.matched(5, 2)
    assert seen(follower) == (ProgressState.REPLICATE, 5, 6)


@pytest.mark.parametrize(("prev_index", "news"), [(2, False), (3, False), (4, True)])
def test_a_refusal_of_what_is_known_to_match_is_of_before(prev_index: int, news: bool) -> None:
    follower = replicating(match_index=3)
    assert follower.rejected(prev_index, 0) is news
    assert follower.state is (ProgressState.PROBE if news else ProgressState.REPLICATE)


@pytest.mark.parametrize(("sent", "paused"), [([9], False), ([10], True), ([4, 5], False), ([1, 1, 1], True)])
def test_appends_pause_when_the_bytes_or_the_messages_in_flight_reach_their_limit(
    sent: list[int], paused: bool
) -> None:
    follower = replicating(max_messages=3, max_bytes=10)
    for position, size in enumerate(sent):
        assert not follower.paused
        follower.sent_append(4 + position, 1, size, 0)
    assert follower.paused is paused


@pytest.mark.parametrize(
    ("hint_index", "next_index"),
    [(0, 4), (3, 4), (4, 5), (9, 5)],  # not before what matches, nor behind what was refused
)
def test_a_refused_probe_is_followed_by_one_where_the_follower_hopes_to_match(
    hint_index: int, next_index: int
) -> None:
    follower = replicating(match_index=3)
    follower.become_probe()
    follower.next_index = 6
    follower.sent_append(5, 0, 0, 0)
    assert follower.rejected(5, hint_index)
    assert seen(follower) == (ProgressState.PROBE, 3, next_index)
    assert not follower.paused
