"""When what a leader says cannot go together with what this node knows to be committed.

That happens when a majority has lost its logs and has begun anew, say.  Raft has nothing for it: the leader takes a
follower that is ahead for a broken one and ignores its answers, and the follower would serve what it has for ever.
"""

from __future__ import annotations

from common_raft.core import LogDamaged, RawNode
from common_raft.core.messages import AppendEntries


def check_history(core: RawNode, message: AppendEntries) -> None:
    """Raises LogDamaged when ``message`` shows that its sender lacks what is committed here.

    A leader has everything that was committed in earlier terms (leader completeness; paper, 5.4).  So once it has
    committed an entry of its own term, all of those lie before that one.
    """
    commit = core.commit
    if message.term < core.term or message.commit >= commit:
        return
    place = message.commit - message.prev_index - 1
    if not 0 <= place < len(message.entries) or message.entries[place].term != message.term:
        return  # it does not say whose the entry is that it knows to be committed
    if core.log.term(commit) < message.term:
        raise LogDamaged(
            f"entries up to {commit} are committed here, but leader {message.sender:x} of term {message.term} has "
            f"entry {message.commit} of its own term: the others have lost their logs, and begun anew; stop them and "
            "start from this member's directory, or empty it and add this member to them again"
        )
