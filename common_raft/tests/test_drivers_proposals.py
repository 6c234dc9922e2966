"""Commands and reads on their way: nobody is forgotten, nobody is answered twice, every queue ends."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common_raft.drivers import proposals as module
from common_raft.drivers.envelope import EnvelopeError, join, seal, sequence_of, split
from common_raft.drivers.machine import ProposalError
from common_raft.drivers.proposals import MAX_BYTES, STOPPED, TIMED_OUT, TOO_MANY, Proposals
from common_raft.drivers.reads import Reads

ME = 7


class Joiner:
    """A state machine of strings: a batch is its commands, joined."""

    applied = 0

    def encode(self, commands: Sequence[str]) -> bytes:
        return "|".join(commands).encode()

    def apply(self, batches: Sequence[tuple[bytes, bool]], applied: int) -> list[Sequence[str] | None]:
        return [data.decode().split("|") for data, _ in batches]


class Answers(list[object]):
    """Collects what `done` is called with; errors as their text."""

    def __call__(self, result: object) -> None:
        self.append(str(result) if isinstance(result, ProposalError) else result)


def proposals() -> Proposals[str, str]:
    return Proposals(Joiner(), ME, 3, timeout=5)


def added(to: Proposals[str, str], *commands: str) -> Answers:
    answers = Answers()
    for command in commands:
        to.add(command, answers, now=0)
    return answers


@given(
    st.lists(st.tuples(st.integers(0, 2**64 - 1), st.binary(max_size=50)), max_size=20), st.integers(1, 300)
)
def test_sealed_batches_come_out_of_entries_as_they_went_in(
    batches: list[tuple[int, bytes]], limit: int
) -> None:
    sealed = [seal(ME, sequence, payload) for sequence, payload in batches]
    entries = join(sealed, limit)
    assert [(o, s, p) for entry in entries for o, s, p in split(entry)] == [(ME, s, p) for s, p in batches]
    assert all(len(entry) <= limit or len(list(split(entry))) == 1 for entry in entries)


@pytest.mark.parametrize("data", [b"short", seal(ME, 1, b"payload")[:-1], seal(ME, 1, b"x") + b"y"])
def test_bytes_that_are_no_sealed_batch_are_refused(data: bytes) -> None:
    with pytest.raises(EnvelopeError):
        list(split(data))
    with pytest.raises(EnvelopeError):
        sequence_of(data)


def test_commands_of_one_turn_share_a_batch_and_get_their_own_results() -> None:
    ours = proposals()
    answers = added(ours, "a", "b")
    ours.seal_pending(now=0)
    (sealed,) = ours.take_unsent(MAX_BYTES)
    ((origin, sequence, payload),) = split(sealed)
    assert ours.is_waiting(origin, sequence)
    assert payload == b"a|b"
    ours.resolve(sequence, ["A", "B"])
    assert answers == ["A", "B"]
    assert not ours.is_waiting(origin, sequence)


def test_a_batch_of_another_node_or_of_an_earlier_life_is_nobodys() -> None:
    ours = proposals()
    added(ours, "a")
    ours.seal_pending(now=0)
    sequence = sequence_of(ours.take_unsent(MAX_BYTES)[0])
    assert not ours.is_waiting(ME + 1, sequence)
    assert not ours.is_waiting(ME, sequence ^ (1 << 32))


def test_what_was_refused_is_answered_at_once_and_what_was_not_waits_on() -> None:
    ours = proposals()
    first = added(ours, "a")
    ours.seal_pending(now=0)
    second = added(ours, "b")
    ours.seal_pending(now=0)
    sequences = [sequence_of(batch) for batch in ours.take_unsent(MAX_BYTES)]
    ours.refuse([sequences[1], 12345], "no")
    assert (first, second) == ([], ["no"])


def test_a_deadline_ends_the_waiting_whether_the_batch_was_sent_or_not() -> None:
    ours = proposals()
    sent = added(ours, "a")
    ours.seal_pending(now=0)
    ours.take_unsent(MAX_BYTES)
    unsent = added(ours, "b")
    ours.seal_pending(now=1)
    ours.expire(now=4.9)
    assert (sent, unsent) == ([], [])
    ours.expire(now=5)
    assert (sent, unsent) == ([TIMED_OUT], [])
    ours.expire(now=6)
    assert (sent, unsent) == ([TIMED_OUT], [TIMED_OUT])
    assert ours.take_unsent(MAX_BYTES) == []  # nothing is sent after its client was told


def test_a_stop_answers_everybody() -> None:
    ours = proposals()
    waiting = added(ours, "waiting")
    ours.seal_pending(now=0)
    ours.take_unsent(MAX_BYTES)
    sealed = added(ours, "sealed")
    ours.seal_pending(now=0)
    pending = added(ours, "pending")
    ours.stop()
    assert waiting == sealed == pending == [STOPPED]


def test_past_the_limit_a_command_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_COMMANDS", 3)
    ours = proposals()
    assert added(ours, "a", "b") == []
    ours.seal_pending(now=0)
    assert added(ours, "c", "d") == [TOO_MANY]
    ours.expire(now=5)
    assert added(ours, "e", "f") == []  # room again


def test_what_is_not_sealed_yet_counts_in_bytes_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_UNSEALED", 4)
    monkeypatch.setattr(module, "MAX_BYTES", 100)
    ours = proposals()
    assert added(ours, *["x" * 30] * 5) == [TOO_MANY]
    ours.expire(now=5)
    assert added(ours, "x") == []


def test_many_that_wait_for_long_keep_others_from_waiting_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MANY_COMMANDS", 3)
    ours = proposals()
    added(ours, "a", "b")
    ours.seal_pending(now=0)
    ours.take_unsent(MAX_BYTES)
    ours.expire(now=2.4)
    assert added(ours, "c", "d") == []  # many, and the first is not late
    ours.expire(now=2.6)
    assert added(ours, "e") == [TOO_MANY]
    ours.expire(now=5)
    assert added(ours, "f") == []


def test_a_few_may_wait_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MANY_COMMANDS", 3)
    ours = proposals()
    added(ours, "a")
    ours.seal_pending(now=0)
    ours.expire(now=4.9)
    assert added(ours, "b", "c") == []


def test_a_batch_that_is_in_no_log_is_sent_again_before_all_others_and_keeps_its_deadline() -> None:
    ours = proposals()
    answers = [added(ours, name) for name in "abc" if ours.seal_pending(now=ord(name)) is None]
    ours.seal_pending(now=ord("d"))
    first, second, _ = sent = ours.take_unsent(MAX_BYTES)
    last = added(ours, "e")
    ours.seal_pending(now=ord("e"))
    ours.take_back([sequence_of(second), sequence_of(first), 12345])
    again = ours.take_unsent(MAX_BYTES)
    assert again[:2] == [first, second]
    assert len(again) == 3
    ours.expire(now=ord("c") + 5)  # sealed one turn after it was added
    assert [*answers, last] == [[TIMED_OUT], [TIMED_OUT], [], []]
    assert sent[2] not in again


def test_a_batch_grows_no_larger_than_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BATCH_BYTES", 10)
    monkeypatch.setattr(module, "MAX_BATCH_COMMANDS", 4)
    ours = proposals()
    answers = added(ours, *(str(n) * 4 for n in range(9)), "one that is too long by itself")
    ours.seal_pending(now=0)
    batches = [(sequence, payload) for b in ours.take_unsent(MAX_BYTES) for _, sequence, payload in split(b)]
    assert all(len(payload) <= 10 or payload.count(b"|") == 0 for _, payload in batches)
    for sequence, payload in batches:
        ours.resolve(sequence, payload.decode().split("|"))
    assert answers == [*(str(n) * 4 for n in range(9)), "one that is too long by itself"]


def test_reads_of_one_turn_share_a_question_and_wait_for_their_index() -> None:
    reads, answers = Reads(1, timeout=5), Answers()
    reads.add(answers, now=0)
    reads.add(answers, now=0)
    context = reads.take(now=0)
    assert not reads.pending
    reads.confirmed(context, index=10)
    reads.applied(9)
    assert answers == []
    reads.applied(10)
    assert answers == [None, None]


def test_a_read_whose_question_was_lost_is_asked_again() -> None:
    reads, answers = Reads(1, timeout=5), Answers()
    reads.add(answers, now=0)
    lost = reads.take(now=0)
    reads.ask_again(older_than=0.5)
    assert reads.pending
    again = reads.take(now=1)
    reads.confirmed(lost, index=1)  # comes late: nobody's
    reads.applied(5)
    assert answers == []
    reads.confirmed(again, index=2)
    reads.applied(5)
    assert answers == [None]


def test_a_deadline_ends_a_read_in_every_state() -> None:
    for steps in range(3):
        reads, answers = Reads(1, timeout=5), Answers()
        reads.add(answers, now=0)
        if steps > 0:
            context = reads.take(now=0)
        if steps > 1:
            reads.confirmed(context, index=10)
        reads.expire(now=4.9)
        assert answers == []
        reads.expire(now=5)
        reads.applied(10)
        assert answers == [TIMED_OUT]


def test_a_stop_answers_every_read() -> None:
    reads, answers = Reads(1, timeout=5), Answers()
    for state in range(3):
        reads.add(answers, now=0)
        if state < 2:
            context = reads.take(now=0)
        if state == 0:
            reads.confirmed(context, index=10)
    reads.stop()
    assert answers == [STOPPED] * 3
