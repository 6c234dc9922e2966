"""What a member of a cluster is told when it is made, whoever drives it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf

from common_raft.core.configuration import is_id
from common_raft.transport.links import Address

MAX_PORT = 2**16 - 1


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """Who a node is and how it keeps time.  Times are in seconds.  Raises ValueError for what cannot be."""

    id: int
    name: str
    cluster_id: int
    listen: Sequence[Address]
    #: The other members: with this one, the first configuration.  Nothing keeps that: it is believed anew at each
    #: start, until the log holds a snapshot, or a change of members that this node knows to be committed.  So all
    #: members must be given the same (each of them all but itself) at every start: a node that is started with fewer
    #: could elect itself, and decide, without those that are left out, and one with none leads at once.  With
    #: ``members``, of which all of this is true instead, nobody looks here.
    peers: Mapping[int, Address]
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

    def __post_init__(self) -> None:
        _check_id("id", self.id)
        _check_id("cluster_id", self.cluster_id)
        _check_listen(self.listen)
        # A table may have members whose URLs name no port: `links.NOWHERE`.
        _check_peers(self.peers, self.id, 0 if self.members else 1)
        if not 0 < self.heartbeat_interval < inf:
            raise ValueError(
                f"heartbeat_interval is {self.heartbeat_interval}; it must be above 0, in seconds"
            )
        if not self.heartbeat_interval <= self.election_timeout < inf:
            raise ValueError(
                f"election_timeout is {self.election_timeout}; it must be at least heartbeat_interval, "
                f"{self.heartbeat_interval} seconds"
            )
        for name, count in (("snapshot_count", self.snapshot_count), ("max_snapshots", self.max_snapshots)):
            if count < 0:
                raise ValueError(f"{name} is {count}; it must not be negative")

    @property
    def request_timeout(self) -> float:
        """As etcd's ReqTimeout: 5 s for the work, and twice an election timeout for a leader to be found."""
        return 5.0 + 2 * self.election_timeout


# Types are checked as well: what is written in a program need not have gone through a type checker.


def _check_id(name: str, value: object) -> None:
    if not is_id(value):
        raise ValueError(f"{name} is {value!r}; it must be from 1 to 2**64 - 1")


def _check_listen(value: object) -> None:
    match value:
        case [*addresses]:  # no text, which would be one of characters
            for place, address in enumerate(addresses):
                _check_address(f"listen[{place}]", address, 0)  # 0: the system chooses one
        case _:
            raise ValueError(f"listen is {value!r}; it must be a list of (host, port)")


def _check_peers(value: object, own_id: int, lowest_port: int) -> None:
    match value:
        case Mapping():
            for peer, address in value.items():
                _check_id("an id in peers", peer)
                _check_address(f"peers[{peer}]", address, lowest_port)
            if own_id in value:
                raise ValueError(f"peers has the node's own id, {own_id}; it must name the others only")
        case _:
            raise ValueError(f"peers is {value!r}; it must map ids to (host, port)")


def _check_address(name: str, value: object, lowest_port: int) -> None:
    match value:
        case (str(), int(port)) if lowest_port <= port <= MAX_PORT:
            return
    raise ValueError(
        f"{name} is {value!r}; it must be (host, port), the port from {lowest_port} to {MAX_PORT}"
    )
