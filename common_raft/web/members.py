"""``/v2/members`` and ``/v2/machines``: who the members are, and how that is changed, byte for byte as etcd does.

Checks and words are those of etcd (server/etcdserver/api/v2http/client.go, httptypes/member.go).
"""

import re
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec

from common_raft.web.api import Respond
from common_raft.web.golang import GoError, json_text, quote, unescape_path
from common_raft.web.response import (
    Response,
    json_of_cluster,
    method_not_allowed,
    method_not_allowed_of_cluster,
    no_content,
    plain,
)

MEMBERS: Final = "/v2/members"
MEMBERS_METHODS: Final = frozenset(("GET", "POST", "PUT", "DELETE"))
MACHINES: Final = "/v2/machines"

_MEMBERS_ONLY = method_not_allowed(b"GET,POST,DELETE,PUT")
_MACHINES_ONLY = method_not_allowed(b"GET,HEAD")
_HEX = re.compile(r"[0-9A-Fa-f]+").fullmatch
_MAX_ID = 2**64 - 1
#: Go's name for what a body is decoded into, as its errors tell it.
_STRUCT = 'struct { PeerURLs []string "json:\\"peerURLs\\"" }'
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):").match
_CONTROL = re.compile(r"[\x00-\x1f\x7f]").search
_BAD_HOST = re.compile(r"[ \\^`{|}]").search
_HOST_PORT = re.compile(r"(?:\[[^\[\]]*\]|[^:\[\]]*):[^:\[\]]*").fullmatch
_SCHEMES = frozenset(("http", "https", "unix", "unixs"))


class Member(Protocol):
    @property
    def id(self) -> int: ...
    @property
    def name(self) -> str:
        """Empty until it has run."""

    @property
    def peer_urls(self) -> Sequence[str]: ...
    @property
    def client_urls(self) -> Sequence[str]: ...


class MembersFailure(Protocol):
    """Why the members were not changed; ``status`` is etcd's for it."""

    @property
    def status(self) -> int:
        """404 no such member, 410 removed for good, 409 a URL or id that another one has, 500 anything else.

        501: a service without members.
        """

    @property
    def cause(self) -> str: ...


class Membership(Protocol):
    """What is asked of the node.  A ``done`` is called exactly once, on the caller's loop or thread."""

    @property
    def cluster_id(self) -> int: ...
    @property
    def leader(self) -> int: ...
    @property
    def members(self) -> Sequence[Member]:
        """In ascending order of their ids."""

    def add_member(
        self, peer_urls: Sequence[str], done: Callable[[Member | None, MembersFailure | None], None], /
    ) -> None:
        """``done`` gets the new member, or why there is none."""

    def remove_member(self, member_id: int, done: Callable[[MembersFailure | None], None], /) -> None: ...
    def move_member(
        self, member_id: int, peer_urls: Sequence[str], done: Callable[[MembersFailure | None], None], /
    ) -> None: ...


class _Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class MembersApi:
    def __init__(self, node: Membership) -> None:
        self._node = node

    def machines(self, method: str, respond: Respond) -> None:
        """The client URLs of all members, as text."""
        if method not in ("GET", "HEAD"):
            respond(_MACHINES_ONLY)
            return
        urls = sorted(url for member in self._node.members for url in member.client_urls)
        respond(plain(", ".join(urls)))

    def members(
        self, method: str, path: str, content_type: bytes | None, body: bytes, respond: Respond
    ) -> None:
        """``path`` begins with MEMBERS."""
        if method not in MEMBERS_METHODS:
            respond(_MEMBERS_ONLY)
            return
        rest = path[len(MEMBERS) :].removeprefix("/")
        try:
            if method == "GET":
                respond(self._get(rest))
            elif method == "POST":
                self._add(_peer_urls(content_type, body), respond)
            elif not rest:
                respond(method_not_allowed_of_cluster(self._node.cluster_id))
            elif method == "DELETE":
                self._remove(_member_id(rest), respond)
            else:
                self._move(_member_id(rest), content_type, body, respond)
        except _Refused as refused:
            respond(self._error(refused.status, str(refused)))

    def _get(self, rest: str) -> Response:
        node = self._node
        if rest == "leader":
            leader = next((member for member in node.members if member.id == node.leader), None)
            if leader is None:
                raise _Refused(503, "During election")
            return json_of_cluster(200, node.cluster_id, f"{_render(leader)}\n")
        if rest:
            raise _Refused(404, "Not found")
        members = ",".join(map(_render, node.members))
        return json_of_cluster(200, node.cluster_id, f'{{"members":[{members}]}}\n')

    def _add(self, urls: Sequence[str], respond: Respond) -> None:
        def done(member: Member | None, failure: MembersFailure | None) -> None:
            if failure is not None:
                respond(self._failed(failure, 0))
            else:
                assert member is not None
                respond(json_of_cluster(201, self._node.cluster_id, f"{_render(member)}\n"))

        self._node.add_member(urls, done)

    def _remove(self, member_id: int, respond: Respond) -> None:
        self._node.remove_member(member_id, lambda failure: respond(self._changed(failure, member_id)))

    def _move(self, member_id: int, content_type: bytes | None, body: bytes, respond: Respond) -> None:
        def done(failure: MembersFailure | None) -> None:
            if failure is not None and failure.status == 410:  # which etcd tells of a removal alone
                respond(self._error(500, _INTERNAL))
            else:
                respond(self._changed(failure, member_id))

        self._node.move_member(member_id, _peer_urls(content_type, body), done)

    def _changed(self, failure: MembersFailure | None, member_id: int) -> Response:
        if failure is None:
            return no_content(self._node.cluster_id)
        return self._failed(failure, member_id)

    def _failed(self, failure: MembersFailure, member_id: int) -> Response:
        message = {
            404: f"No such member: {member_id:x}",
            410: f"Member permanently removed: {member_id:x}",
            409: failure.cause,
            501: failure.cause,
        }.get(failure.status)
        if message is None:
            return self._error(500, _INTERNAL)
        return self._error(failure.status, message)

    def _error(self, status: int, message: str) -> Response:
        return json_of_cluster(status, self._node.cluster_id, f'{{"message":"{json_text(message)}"}}')


_INTERNAL = "Internal Server Error"


def _render(member: Member) -> str:
    return (
        f'{{"id":"{member.id:x}","name":"{json_text(member.name)}",'
        f'"peerURLs":[{_list(member.peer_urls)}],"clientURLs":[{_list(member.client_urls)}]}}'
    )


def _list(urls: Sequence[str]) -> str:
    return ",".join(f'"{json_text(url)}"' for url in urls)


def _member_id(text: str) -> int:
    """Raises _Refused with 404 for what is no id."""
    if _HEX(text) is None or (number := int(text, 16)) > _MAX_ID:
        raise _Refused(404, f"No such member: {text}")
    return number


def _peer_urls(content_type: bytes | None, body: bytes) -> list[str]:
    """The URLs of a request, in order.  Raises _Refused."""
    said = (content_type or b"").decode("latin-1")
    head, semicolon, _ = said.partition(";")
    if semicolon:
        said = head.lower().strip()
    if said != "application/json":
        raise _Refused(415, f"Bad Content-Type {said}, accept application/json")
    try:
        urls = _decode(body)
        if not urls:
            raise GoError("no valid URLs given")
        return sorted(map(_checked_url, urls))
    except GoError as error:
        raise _Refused(400, str(error)) from None


def _checked_url(text: str) -> str:
    """A URL as etcd takes it for a peer's (client/pkg/types/urls.go, NewURLs), and that can be dialled from here.

    Raises GoError.
    """
    text = text.strip()
    scheme, authority, path = _parse_url(text)
    if scheme not in _SCHEMES:
        raise GoError(f"URL scheme must be http, https, unix, or unixs: {text}")
    if scheme in ("http", "https"):
        if _HOST_PORT(authority) is None:
            raise GoError(f'URL address does not have the form "host:port": {text}')
        if path:
            raise GoError(f"URL must not contain a path: {text}")
    # etcd would go on, and find out when it dials; such a member counts as a voter all the same.
    if scheme != "http":
        raise GoError(f"members are reached without TLS, by http://host:port: {text}")
    host, _, port = authority.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise GoError(f"URL must name a host and a port from 1 to 65535: {text}")
    return text


def _parse_url(text: str) -> tuple[str, str, str]:
    """Scheme, authority and path (net/url, Parse), as far as they matter here.  Raises GoError."""
    try:
        if _CONTROL(text):
            raise GoError("net/url: invalid control character in URL")
        if text.startswith(":"):
            raise GoError("missing protocol scheme")
        match = _SCHEME(text)
        scheme, rest = (match[1].lower(), text[match.end() :]) if match else ("", text)
        rest = rest.partition("#")[0].partition("?")[0]
        if not rest.startswith("//"):
            return scheme, "", rest
        authority, slash, path = rest[2:].partition("/")
        authority = authority.rpartition("@")[2]
        _check_host(authority)
        unescape_path(path.encode("utf-8", "surrogateescape"))
    except GoError as error:
        raise GoError(f"parse {quote(text.encode('utf-8', 'surrogateescape'))}: {error}") from None
    return scheme, authority, slash + path


def _check_host(authority: str) -> None:
    _, colon, port = authority.rpartition(":")
    if colon and "]" not in port and not (port == "" or (port.isascii() and port.isdigit())):
        raise GoError(f"invalid port {quote((':' + port).encode('utf-8', 'surrogateescape'))} after host")
    unescape_path(authority.encode("utf-8", "surrogateescape"))
    found = _BAD_HOST(authority)
    if found:
        raise GoError(f"invalid character {quote(found[0].encode())} in host name")


def _decode(body: bytes) -> list[str]:
    """The field peerURLs, its name in whatever case (encoding/json).  Raises GoError."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeError) as error:
        if "truncated" in str(error):
            raise GoError("unexpected end of JSON input") from None
        raise GoError(f"invalid JSON: {error}") from None
    if value is None:
        return []
    if not isinstance(value, dict):
        raise GoError(f"json: cannot unmarshal {_kind(value)} into Go value of type {_STRUCT}")
    urls: list[str] = []
    for name, given in value.items():
        if name.lower() == "peerurls" and given is not None:
            urls = _strings(given)
    return urls


def _strings(value: object) -> list[str]:
    if not isinstance(value, list):
        raise GoError(
            f"json: cannot unmarshal {_kind(value)} into Go struct field .peerURLs of type []string"
        )
    for each in value:
        if each is not None and not isinstance(each, str):
            raise GoError(
                f"json: cannot unmarshal {_kind(each)} into Go struct field .peerURLs of type string"
            )
    return [each or "" for each in value]


def _kind(value: object) -> str:
    """Go's word for a JSON value."""
    kinds: dict[type, str] = {bool: "bool", str: "string", list: "array", dict: "object"}
    return kinds.get(type(value), "number")
