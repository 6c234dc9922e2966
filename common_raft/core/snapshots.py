"""How a snapshot takes the place of the entries that it stands for: dropping, offering and installing them.

The core only knows what describes a snapshot.  The drivers write and carry the files (see `node`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from common_raft.core.following import acknowledge
from common_raft.core.messages import InstallSnapshot, SnapshotMeta
from common_raft.core.progress import Progress, ProgressState
from common_raft.core.role import Role

if TYPE_CHECKING:
    from common_raft.core.raft import Raft


def offer(raft: Raft, meta: SnapshotMeta) -> None:
    """A snapshot is on this node's disk: followers may be given it from now on, if it is the newest."""
    if meta.index > raft.log.applied:
        raise ValueError(f"a snapshot up to {meta.index}, where only {raft.log.applied} is applied")
    if raft.snapshot is None or meta.index > raft.snapshot.index:
        raft.snapshot = meta


def compact(raft: Raft, index: int) -> None:
    held = 0 if raft.snapshot is None else raft.snapshot.index
    if index > held:
        raise ValueError(f"cannot drop entries up to {index}: the newest snapshot ends at {held}")
    raft.log.compact(index)


def send(raft: Raft, peer: int, progress: Progress) -> None:
    """Offers the newest snapshot instead of entries that are compacted away; or waits for the peer's next answer.

    Who is not there, or does not answer, gets none: carrying it costs much (etcd raft, maybeSendSnapshot).
    """
    snapshot = raft.snapshot
    if snapshot is None or snapshot.index < raft.log.offset or not progress.recent_active:
        progress.become_probe()
        progress.probe_sent = True
    else:
        progress.become_snapshot(snapshot.index)
        raft.messages.append(InstallSnapshot(peer, raft.id, raft.term, snapshot))


def report(raft: Raft, peer: int, ok: bool) -> None:
    """The driver has carried a snapshot to ``peer``, or has given up."""
    progress = raft.progress.get(peer) if raft.role is Role.LEADER else None
    if progress is not None and progress.state is ProgressState.SNAPSHOT:
        progress.snapshot_sent(ok)


def handle_install_snapshot(raft: Raft, message: InstallSnapshot) -> None:
    """Starts from a snapshot where the log does not reach it (paper, figure 13; etcd raft, restore).

    A log that holds its last entry already is kept, and known to be committed up to there.  etcd refuses a
    snapshot whose configuration lacks this node; here it is taken like any other: a node that applies the log up
    to that entry would stand at the same place, and one that was removed and added again could not catch up.
    """
    raft.follow(message.sender)
    log, meta = raft.log, message.snapshot
    if meta.index <= log.committed:
        acknowledge(raft, log.committed)
        return
    if log.holds(meta.index, meta.term):
        log.commit_to(meta.index)
    else:
        log.restore(meta.index, meta.term)
        raft.restored = raft.snapshot = meta
        raft.set_configuration(meta.index, meta.configuration)
    acknowledge(raft, meta.index)
