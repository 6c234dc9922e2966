"""What a member of a cluster is told when it is made, whoever drives it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from common_raft.transport.links import Address


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """Who a node is and how it keeps time.  Times are in seconds."""

    id: int
    name: str
    cluster_id: int
    listen: Sequence[Address]
    peers: Mapping[int, Address]  #: the other members
    heartbeat_interval: float = 0.1
    election_timeout: float = 1.0
    #: How long a machine that is awaited may have nothing to do before it is asked to apply nothing, which tells
    #: whether it can be reached and still has what it had; None for a machine that cannot be lost.
    idle_check: float | None = None
    #: A snapshot is taken after so many entries; 0: none is, and log and memory grow.
    snapshot_count: int = 0
    max_snapshots: int = 5  #: files that are kept; 0: all
    client_urls: Sequence[str] = ()  #: where clients find this node; the others are told
    #: The table that the node begins with (`membership.Members.encode`); without one it is made of ``peers``.
    members: bytes = b""
    #: Whether this node, as the leader, refuses changes of the members that the cluster cannot afford just now.
    strict_reconfig_check: bool = True
    #: A leader answers reads by its lease, which trusts all members' clocks: see `core.reads.Lease`.  All members
    #: must have it set, since all of them make the promises that it rests on.
    lease_reads: bool = False

    @property
    def request_timeout(self) -> float:
        """As etcd's ReqTimeout: 5 s for the work, and twice an election timeout for a leader to be found."""
        return 5.0 + 2 * self.election_timeout
