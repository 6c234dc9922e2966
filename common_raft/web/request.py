"""From a request's target, content type and body to what it asks of the keyspace.

Checks and their order are etcd's (``server/etcdserver/api/v2http/client.go``, parseKeyRequest): a request with
several faults gets the same error from both.
"""

import re
import time
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from common_raft.keyspace import (
    Code,
    Command,
    CompareAndDelete,
    CompareAndSwap,
    Create,
    CreateInOrder,
    Delete,
    EtcdError,
    Query,
    Update,
    put,
)
from common_raft.web.golang import (
    GoError,
    parse_bool,
    parse_media_type,
    parse_query,
    parse_uint,
    unescape_path,
    wrap_int64,
)

KEYS: Final = "/v2/keys"
KEYS_METHODS: Final = frozenset(("HEAD", "GET", "PUT", "POST", "DELETE"))
FORM: Final = b"application/x-www-form-urlencoded"

_MAX_FORM = 10 << 20  # Go's net/http reads no more of a form than this
_SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://[^/?]*")
_CONTROL = re.compile(rb"[\x00-\x20\x7f]")
_BOOLEANS = ("recursive", "sorted", "wait", "dir", "quorum", "stream")


class BadTargetError(Exception):
    """A request target that Go's server refuses before any handler sees it."""


class Target(Struct, frozen=True, gc=False):
    """A request target in parts: decoded path; query as sent, None without it; ``http://host`` of a proxy's form."""

    path: str
    query: bytes | None
    origin: bytes


class Read(Struct, frozen=True, gc=False):
    """GET or HEAD; ``quorum``: only once the cluster has confirmed that this replica is up to date."""

    query: Query
    quorum: bool


class Watching(Struct, frozen=True, gc=False):
    """GET with ``wait``: the first event on ``key`` (and below it, if ``recursive``) from index ``since`` on.

    ``since`` is 0 for what comes from now on.  With ``stream`` all further events as well.
    """

    key: str
    recursive: bool
    since: int
    stream: bool


class Write(Struct, frozen=True, gc=False):
    """A command for the log. With ``terse`` only its action is told (noValueOnSuccess)."""

    command: Command
    terse: bool


class Parameters(Struct, frozen=True, gc=False):
    """The parameters of a request on keys that have a meaning to it, checked.  ``ttl`` is in seconds."""

    value: str
    flags: dict[str, bool]
    prev_index: int
    wait_index: int
    prev_value: str
    prev_exist: bool | None
    refresh: bool
    ttl: int | None
    terse: bool


def parse_target(raw: bytes) -> Target:
    """Raises BadTargetError."""
    if _CONTROL.search(raw):
        raise BadTargetError
    origin = b""
    if raw[:1] != b"/":
        if raw == b"*":
            return Target("*", None, b"")
        match = _SCHEME.match(raw)
        if match is None:
            raise BadTargetError
        origin = match.group()
        raw = raw[match.end() :]
    path, mark, query = raw.partition(b"?")
    try:
        return Target(unescape_path(path), query if mark else None, origin)
    except GoError as error:
        raise BadTargetError from error


def parse_key_request(
    method: str,
    path: str,
    query: bytes,
    content_type: bytes | None,
    body: bytes,
    clock: Callable[[], int] = time.time_ns,
) -> Read | Watching | Write:
    """What a request on keys asks for. ``path`` is what follows ``/v2/keys``; it is clean.

    ``clock`` (nanoseconds since 1970) says from when on a ttl counts.  Raises EtcdError.
    """
    form = _parse_form(method, query, content_type, body)
    parameters = _check(method, form)
    key = path.rstrip("/") or "/"
    flags = parameters.flags
    if method not in ("GET", "HEAD"):
        return Write(_command(method, key, parameters, clock), parameters.terse)
    quorum = flags["quorum"] and method == "GET"  # HEAD is never a quorum read in etcd
    if flags["wait"] and not quorum:  # and such a read does not wait
        return Watching(key, flags["recursive"], parameters.wait_index, flags["stream"])
    return Read(Query(key, flags["recursive"], flags["sorted"]), quorum)


def asks_recursively(method: str, query: bytes, content_type: bytes | None, body: bytes) -> bool:
    """Whether a request on keys says so, whatever it is good for.  Raises EtcdError if anything about it is wrong."""
    return _check(method, _parse_form(method, query, content_type, body)).flags["recursive"]


def _parse_form(method: str, query: bytes, content_type: bytes | None, body: bytes) -> dict[str, str]:
    """The body's fields, if it is a form, before the query's; the first of a name wins."""
    form: dict[str, str] = {}
    error: GoError | None = None
    if method in ("PUT", "POST") and content_type:
        try:
            if parse_media_type(content_type.decode("latin-1")) == FORM.decode():
                if len(body) > _MAX_FORM:
                    raise GoError("http: POST too large")
                error = parse_query(form, body)
        except GoError as failure:
            error = failure
    error = error or parse_query(form, query)
    if error is not None:
        raise EtcdError(Code.INVALID_FORM, str(error))
    return form


def _check(method: str, form: dict[str, str]) -> Parameters:
    """All parameters, in etcd's order."""
    prev_index = _uint(form, "prevIndex", Code.INDEX_NAN)
    wait_index = _uint(form, "waitIndex", Code.INDEX_NAN)
    flags = {name: _bool(form, name) for name in _BOOLEANS}
    if flags["wait"] and method != "GET":
        raise EtcdError(Code.INVALID_FIELD, '"wait" can only be used with GET requests')
    prev_value = form.get("prevValue")
    if prev_value == "":
        raise EtcdError(Code.PREV_VALUE_REQUIRED, '"prevValue" cannot be empty')
    terse = _bool(form, "noValueOnSuccess")
    ttl = _uint(form, "ttl", Code.TTL_NAN) if form.get("ttl") else None
    prev_exist = _bool(form, "prevExist", quoted=False) if "prevExist" in form else None
    refresh = _bool(form, "refresh", quoted=False)
    if refresh and form.get("value"):
        raise EtcdError(Code.REFRESH_VALUE, "A value was provided on a refresh")
    if refresh and ttl is None:
        raise EtcdError(Code.REFRESH_TTL_REQUIRED, "No TTL value set")
    return Parameters(
        form.get("value", ""),
        flags,
        prev_index,
        wait_index,
        prev_value or "",
        prev_exist,
        refresh,
        ttl,
        terse,
    )


def _command(method: str, key: str, parameters: Parameters, clock: Callable[[], int]) -> Command:
    """Which of the store's operations it is (server/etcdserver/apply_v2.go)."""
    p, is_dir = parameters, parameters.flags["dir"]
    conditional = bool(p.prev_index or p.prev_value)
    if method == "DELETE":
        if conditional:
            return CompareAndDelete(key, p.prev_value, p.prev_index)
        return Delete(key, is_dir, p.flags["recursive"])
    expiration = None if p.ttl is None else _expiration(p.ttl, clock())
    if method == "POST":
        return CreateInOrder(key, p.value, expiration, is_dir)
    if p.prev_exist is False:
        return Create(key, p.value, expiration, is_dir)
    if conditional:
        return CompareAndSwap(key, p.value, p.prev_value, p.prev_index, expiration, p.refresh)
    if p.prev_exist:
        return Update(key, p.value, expiration, p.refresh)
    return put(key, p.value, expiration, is_dir=is_dir, refresh=p.refresh)


def _expiration(ttl: int, now: int) -> int | None:
    """When a ttl of so many seconds ends: as etcd's own arithmetic, whose 64 bits a large one exceeds."""
    return wrap_int64(now + wrap_int64(ttl * 10**9)) or None


def _uint(form: dict[str, str], name: str, code: Code) -> int:
    try:
        return parse_uint(form[name]) if name in form else 0
    except ValueError:
        raise EtcdError(code, f'invalid value for "{name}"') from None


def _bool(form: dict[str, str], name: str, *, quoted: bool = True) -> bool:
    try:
        return parse_bool(form[name]) if name in form else False
    except ValueError:
        shown = f'"{name}"' if quoted else name
        raise EtcdError(Code.INVALID_FIELD, f"invalid value for {shown}") from None
