"""Words for what happens in a cluster: one line a message, one line an event.

Used by the simulation's trace and by the scripted scenarios; nothing decides anything on these strings.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from common_raft.core import NOBODY, Entry, Message, Progress, ProgressState, RawNode, SnapshotMeta
from common_raft.core.messages import (
    AppendEntries,
    AppendResponse,
    Commit,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    ReadIndex,
    ReadIndexResponse,
    RequestVote,
    VoteResponse,
)


def describe_entries(first_index: int, entries: Sequence[Entry]) -> str:
    """``[4/2 5/2 6/3]``: index/term of each; a long run only by its ends."""
    shown = [f"{first_index + position}/{entry.term}" for position, entry in enumerate(entries)]
    if len(shown) > 8:
        shown[3:-3] = ["..."]
    return f"[{' '.join(shown)}]"


def describe_snapshot(meta: SnapshotMeta) -> str:
    """``10/2 (1 2 3)``: the last index that it stands for, the term of that, and the configuration there."""
    return f"{meta.index}/{meta.term} {meta.configuration}"


def describe_progress(progress: Progress) -> str:
    """``replicate match=4 next=6 inflight=1``"""
    text = f"{progress.state.value} match={progress.match_index} next={progress.next_index}"
    if progress.state is ProgressState.SNAPSHOT:
        text += f" snapshot={progress.pending_snapshot}"
    if progress.inflights:
        text += f" inflight={len(progress.inflights)}"
    return text + " waiting" * (progress.state is ProgressState.PROBE and progress.probe_sent)


def _describe_body(message: Message) -> str:
    match message:
        case RequestVote():
            flags = " pre-vote" * message.pre_vote + " transfer" * message.transfer
            return f"last={message.last_index}/{message.last_term}{flags}"
        case VoteResponse():
            answer = (
                "granted" if message.granted else f"refused commit={message.commit}/{message.commit_term}"
            )
            return answer + " pre-vote" * message.pre_vote
        case AppendEntries():
            entries = describe_entries(message.prev_index + 1, message.entries)
            return f"prev={message.prev_index}/{message.prev_term} {entries} commit={message.commit}"
        case AppendResponse(rejected=True):
            return f"rejected index={message.index} hint={message.hint_index}/{message.hint_term}"
        case AppendResponse():
            return f"index={message.index}"
        case Heartbeat():
            return f"commit={message.commit} round={message.read_round}"
        case InstallSnapshot():
            return f"snapshot={describe_snapshot(message.snapshot)}"
        case Commit():
            return f"index={message.index}/{message.index_term}"
        case HeartbeatResponse():
            return f"round={message.read_round}"
        case ReadIndex():
            return f"context={message.context}"
        case ReadIndexResponse():
            return f"context={message.context} index={message.index}"
        case _:
            return ""


def describe(message: Message) -> str:
    """``1->2 AppendEntries term=3 prev=4/2 [5/3] commit=4``"""
    head = f"{message.sender}->{message.to} {type(message).__name__} term={message.term}"
    return f"{head} {_describe_body(message)}".rstrip()


def describe_node(node: RawNode) -> str:
    """``leader term=3 vote=1 leader=1 log=5/3 commit=4 persisted=5 applied=4``"""
    vote = "-" if node.vote == NOBODY else node.vote
    leader = "-" if node.leader == NOBODY else node.leader
    last = f"{node.last_index}/{node.log.term(node.last_index)}"
    return (
        f"{node.role.value} term={node.term} vote={vote} leader={leader} log={last} "
        f"commit={node.commit} persisted={node.persisted} applied={node.applied}"
    )


class _Line(NamedTuple):
    step: int
    time: float
    what: str | Message
    remark: str

    def __str__(self) -> str:
        what = self.what if isinstance(self.what, str) else describe(self.what)
        return f"{self.step:6d} {self.time:8.2f}  {what}{self.remark}"


class Trace:
    """The last lines of a run; each is put into words only when somebody reads it."""

    def __init__(self, keep: int = 80, live: Callable[[str], None] | None = None) -> None:
        """``live`` is called with every line as it comes (``print``, say)."""
        self._lines: deque[_Line] = deque(maxlen=keep)
        self._live = live

    def add(self, step: int, time: float, what: str | Message, remark: str = "") -> None:
        line = _Line(step, time, what, remark)
        self._lines.append(line)
        if self._live is not None:
            self._live(str(line))

    def __str__(self) -> str:
        return "\n".join(map(str, self._lines))
