"""Who this node is: what its disk says, or else what the cluster says that it joins, or else its flags.

Ids and the members that a node began with are written beside its log, once there is one.  From then on the flags that
describe the cluster are not looked at any more (as in etcd): members may have come, gone and moved since.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from zlib import crc32

import msgspec
from msgspec import Struct

from common_raft.drivers.membership import MemberInfo, Members
from common_raft.service.cluster import Cluster, FlagError, Url
from common_raft.service.flags import EXISTING, Settings
from common_raft.storage.segment import sync_directory
from common_raft.storage.wal import LOCK_NAME
from common_raft.transport.codec import FrameError
from common_raft.transport.inquiry import ask
from common_raft.transport.links import address_of

log = logging.getLogger("raftstacks")

FILE_NAME = "member"
#: How long a node that joins goes on asking: what it needs to hear may be on its way to those it asks.
JOIN_SECONDS = 2.0
_ASK_SECONDS = 1.0
_PAUSE_SECONDS = 0.25
_VERSION = 1
_CRC = re.compile(rb"[0-9a-f]{8}").fullmatch


class _Stored(Struct, frozen=True):
    """What the file holds, as JSON, behind a line with its CRC-32.  ``table``: what the node began with."""

    version: int
    cluster: str
    member: str
    name: str
    table: bytes


def identify(settings: Settings) -> Settings:
    """The settings, with the cluster as it is.  Raises FlagError; changes nothing."""
    if settings.standalone or settings.listen_application_urls:
        return settings
    path = settings.data_dir / FILE_NAME
    if path.exists():
        return replace(settings, cluster=_read(path, settings.name))
    if settings.initial_cluster_state == EXISTING:
        return replace(settings, cluster=_join(settings))
    if not (settings.data_dir / LOCK_NAME).exists():
        _refuse_second_beginning(settings)
    return settings


def remember(settings: Settings) -> None:
    """Writes down who this node is, unless that has been done.  Its log is open, and so is locked."""
    path = settings.data_dir / FILE_NAME
    if path.exists():
        return
    cluster = settings.cluster
    stored = _Stored(_VERSION, f"{cluster.id:x}", f"{cluster.own_id:x}", settings.name, cluster.table)
    body = msgspec.json.encode(stored)
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        file.write(b"%08x\n%s\n" % (crc32(body), body))
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    sync_directory(settings.data_dir)


def _read(path: Path, name: str) -> Cluster:
    try:
        stored = _stored(path.read_bytes())
        cluster_id, own_id = int(stored.cluster, 16), int(stored.member, 16)
        cluster = cluster_of(cluster_id, own_id, Members.decode(stored.table))
    except ValueError as error:
        why = str(error) if isinstance(error, _Damaged) else "it does not say who this member is"
        raise FlagError(
            f"--data-dir: {path} is damaged ({why}): bring it back from a copy, or remove the member and add it again"
        ) from None
    if stored.name != name:
        raise FlagError(
            f"--data-dir {path.parent} is of member {stored.name!r} of cluster {cluster_id:x}, but --name is "
            f"{name!r}: start it as {stored.name!r}, or choose another directory"
        )
    return cluster


class _Damaged(ValueError):
    """Why a file is not what `remember` wrote."""


def _stored(data: bytes) -> _Stored:
    """Raises ValueError."""
    crc, _, body = data.partition(b"\n")
    body = body.rstrip(b"\n")
    if _CRC(crc) is None:
        raise _Damaged("it does not begin with a checksum")
    if int(crc, 16) != crc32(body):
        raise _Damaged("its checksum does not match")
    stored = msgspec.json.decode(body, type=_Stored)
    if stored.version != _VERSION:
        raise _Damaged(f"it is of version {stored.version}, and this program knows version {_VERSION}")
    return stored


def cluster_of(cluster_id: int, own_id: int, members: Members) -> Cluster:
    urls = {member.id: _urls(member) for member in members.all()}
    return Cluster(cluster_id, own_id, urls, members.encode())


def _urls(member: MemberInfo) -> Sequence[Url]:
    return [Url(text, *address_of([text])) for text in member.peer_urls]


# --- a new cluster -------------------------------------------------------------------------------------------------


def _refuse_second_beginning(settings: Settings) -> None:
    """A member that has run has promised things that only its disk remembers: without that it must not go on.

    As etcd ("has already been bootstrapped").  Members that do not answer at once are not waited for.
    """
    own_id = settings.cluster.own_id
    others = {
        url.text: url for id_, urls in settings.cluster.members.items() if id_ != own_id for url in urls[:1]
    }
    answers, _ = _ask_all(others)
    for cluster_id, members in answers.values():
        known = members.get(own_id)
        if cluster_id != settings.cluster.id:
            continue  # said when they meet
        if own_id in members.removed or (known is not None and known.client_urls):
            raise FlagError(
                f"--data-dir {settings.data_dir} is empty, but member {own_id:x} ({settings.name}) has run before: "
                "bring its directory back, or remove the member, add it again and start it with "
                "--initial-cluster-state existing"
            )


# --- a cluster that exists -----------------------------------------------------------------------------------------


def _join(settings: Settings) -> Cluster:
    own = _texts(settings.cluster.members[settings.cluster.own_id])
    others = {
        url.text: url for urls in settings.cluster.members.values() for url in urls if url.text not in own
    }
    if not others:
        raise FlagError(
            "--initial-cluster names nobody but this member: --initial-cluster-state existing needs those that run"
        )
    deadline = time.monotonic() + JOIN_SECONDS
    while True:
        try:
            return _joined(settings, own, *_ask_all(others))
        except FlagError:
            if time.monotonic() > deadline:
                raise
        time.sleep(_PAUSE_SECONDS)


def _joined(
    settings: Settings,
    own: frozenset[str],
    answers: Mapping[str, tuple[int, Members]],
    problems: Mapping[str, str],
) -> Cluster:
    if not answers:
        said = "; ".join(f"{url}: {problem}" for url, problem in problems.items())
        raise FlagError(f"--initial-cluster: no member answers that could be joined ({said})")
    if len(ids := {cluster_id for cluster_id, _ in answers.values()}) > 1:
        raise FlagError(
            f"--initial-cluster: {', '.join(answers)} are of different clusters "
            f"({', '.join(f'{each:x}' for each in sorted(ids))}): leave one out"
        )
    cluster_id, members = max(answers.values(), key=lambda answer: answer[1].index)
    wanted = ",".join(sorted(own))
    found = [member for member in members.all() if frozenset(member.peer_urls) == own]
    if not found:
        raise FlagError(
            f"--initial-advertise-peer-urls {wanted} is no member of cluster {cluster_id:x}: "
            "add it there first, with POST /v2/members"
        )
    if found[0].started:
        raise FlagError(
            f"--data-dir {settings.data_dir} is empty, but the member at {wanted} ({found[0].id:x}) has run before: "
            "bring its directory back, or remove the member and add it again"
        )
    named = {url for urls in settings.cluster.members.values() for url in _texts(urls)}
    if named != {url for member in members.all() for url in member.peer_urls}:
        raise FlagError(
            f"--initial-cluster does not name the members of cluster {cluster_id:x}: write "
            f"{_initial_cluster(members, found[0].id, settings.name)}"
        )
    return cluster_of(cluster_id, found[0].id, members)


def _initial_cluster(members: Members, own_id: int, own_name: str) -> str:
    """What the flag should have been."""
    return ",".join(
        f"{own_name if member.id == own_id else member.name or 'NAME'}={url}"
        for member in members.all()
        for url in member.peer_urls
    )


def _texts(urls: Iterable[Url]) -> frozenset[str]:
    return frozenset(url.text for url in urls)


def _ask_all(others: Mapping[str, Url]) -> tuple[dict[str, tuple[int, Members]], dict[str, str]]:
    """What each answers, by URL: its cluster and its table; and why others do not.

    In threads that nobody waits for longer than that: looking a host up may take its time.
    """
    said: SimpleQueue[tuple[str, tuple[int, Members] | str]] = SimpleQueue()

    def ask_one(url: Url) -> None:
        try:
            told = ask(url.address, _ASK_SECONDS)
            said.put((url.text, (told.cluster_id, Members.decode(told.members))))
        except (OSError, FrameError, ValueError) as error:
            said.put((url.text, str(error) or type(error).__name__))

    for url in others.values():
        threading.Thread(target=ask_one, args=(url,), name=f"ask-{url.text}", daemon=True).start()
    answers: dict[str, tuple[int, Members]] = {}
    problems = dict.fromkeys(others, f"no answer within {_ASK_SECONDS:g} s")
    deadline = time.monotonic() + 2 * _ASK_SECONDS
    try:
        for _ in others:
            url_text, answer = said.get(timeout=max(deadline - time.monotonic(), 0.001))
            if isinstance(answer, str):
                problems[url_text] = answer
            else:
                answers[url_text] = answer
    except Empty:
        pass
    return answers, problems
