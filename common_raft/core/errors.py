"""What a core refuses, and what it cannot survive."""

from __future__ import annotations


class RaftError(Exception):
    """Base of all errors of the core."""


class ProposalDropped(RaftError):
    """The proposal was not appended anywhere; the reason is the message.  Trying again is safe."""


class NoLeader(RaftError):
    """No leader is known to this node, so that nobody can confirm a read."""


class NotLeader(RaftError):
    """Only the leader can do this."""


class LogDamaged(RaftError):
    """This node's log contradicts what the cluster agreed on.  Fatal: the node must stop, and serve nothing."""


class InvalidConfChange(RaftError, ValueError):
    """The change of configuration is against the rules; nothing was proposed."""


class Compacted(RaftError):
    """Entries that are asked for are only in a snapshot any more: restore that, and go on behind it."""
