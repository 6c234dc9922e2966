"""The members that a cluster begins with, named by their flags, and the ids that follow from them.

Ids are computed as etcd does for a new cluster (server/etcdserver/api/membership: computeMemberId, genID), so that
the same ``--initial-cluster`` and ``--initial-cluster-token`` give the same ids, and ``X-Etcd-Cluster-Id``, as etcd.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha1
from urllib.parse import urlsplit

from common_raft.drivers.membership import MemberInfo, Members


class FlagError(Exception):
    """A flag that cannot be: the message is one line that names it, its value and the way out."""


@dataclass(frozen=True, slots=True)
class Url:
    """One of etcd's listen or advertise URLs: ``http://host:port``."""

    text: str
    host: str
    port: int

    @property
    def address(self) -> tuple[str, int]:
        return self.host, self.port


@dataclass(frozen=True, slots=True)
class Cluster:
    """``members`` maps each member's id to the URLs at which its peers reach it.

    ``table`` is what this node begins with (`drivers.membership.Members`, encoded).
    """

    id: int
    own_id: int
    members: Mapping[int, Sequence[Url]]
    table: bytes

    @property
    def peers(self) -> dict[int, tuple[str, int]]:
        """Where to dial the other members: the first URL of each."""
        return {member: urls[0].address for member, urls in self.members.items() if member != self.own_id}


def parse_urls(flag: str, text: str) -> list[Url]:
    """A comma-separated list of URLs.  Raises FlagError."""
    urls = [_parse_url(flag, part.strip()) for part in text.split(",") if part.strip()]
    if not urls:
        raise FlagError(f"--{flag}: no URL given; it takes a list like http://127.0.0.1:2379")
    return urls


def _parse_url(flag: str, text: str) -> Url:
    try:
        split = urlsplit(text)
        host, port = split.hostname, split.port
    except ValueError as error:
        raise FlagError(f"--{flag}: {text!r} is no URL ({error}); write http://host:port") from None
    if split.scheme == "https":
        raise FlagError(f"--{flag}: {text!r}: TLS is not served yet; use http://")
    if split.scheme != "http":
        raise FlagError(f"--{flag}: {text!r} must start with http://")
    if not host or port is None:
        raise FlagError(f"--{flag}: {text!r} must name a host and a port, as http://host:port")
    if split.path not in ("", "/") or split.query or split.fragment or split.username:
        raise FlagError(f"--{flag}: {text!r} must be http://host:port and nothing more")
    return Url(text.rstrip("/"), host, port)


def parse_initial_cluster(text: str) -> dict[str, list[Url]]:
    """``n1=http://a:2380,n2=http://b:2380``; a name may stand several times, with a URL each."""
    members: dict[str, list[Url]] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, url = part.partition("=")
        if not equals or not name or not url:
            raise FlagError(f"--initial-cluster: {part!r} must be name=http://host:port")
        members.setdefault(name, []).append(_parse_url("initial-cluster", url))
    taken: dict[str, str] = {}
    for name, urls in members.items():
        for member_url in urls:
            if member_url.text in taken:
                raise FlagError(
                    f"--initial-cluster: {member_url.text} is given twice, for {taken[member_url.text]} and {name}"
                )
            taken[member_url.text] = name
    return members


def build_cluster(name: str, advertised: Sequence[Url], members: dict[str, list[Url]], token: str) -> Cluster:
    """The cluster as member ``name`` sees it.  Raises FlagError when the flags contradict each other."""
    if name not in members:
        raise FlagError(
            f"--initial-cluster does not name this member: --name is {name!r}, "
            f"it has {', '.join(members) or 'nobody'}"
        )
    own = {url.text for url in members[name]}
    if own != {url.text for url in advertised}:
        raise FlagError(
            f"--initial-cluster has {name}={','.join(sorted(own))}, but --initial-advertise-peer-urls is "
            f"{','.join(url.text for url in advertised)}; they must be the same"
        )
    ids = {member: _member_id(urls, token) for member, urls in members.items()}
    table = Members(
        MemberInfo(ids[member], member, tuple(sorted(url.text for url in urls)))
        for member, urls in members.items()
    )
    by_id = {ids[member]: urls for member, urls in members.items()}
    return Cluster(_cluster_id(ids.values()), ids[name], by_id, table.encode())


def _member_id(urls: Sequence[Url], token: str) -> int:
    joined = "".join(sorted(url.text for url in urls)) + token
    return int.from_bytes(sha1(joined.encode()).digest()[:8], "big")


def _cluster_id(members: Iterable[int]) -> int:
    joined = b"".join(member.to_bytes(8, "big") for member in sorted(members))
    return int.from_bytes(sha1(joined).digest()[:8], "big")
