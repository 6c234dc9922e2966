"""From a request's target, content type and body to what it asks of the keyspace.

Checks and their order are etcd's (``server/etcdserver/api/v2http/client.go``, parseKeyRequest): a request with
several faults gets the same error from both. What etcd would do and this service cannot yet is refused after them,
by name.
"""

import re
from typing import Final

from msgspec import Struct

from common_raft.keyspace import Code, Command, Create, Delete, EtcdError, Set, Update
from common_raft.web.golang import (
    GoError,
    parse_bool,
    parse_media_type,
    parse_query,
    parse_uint,
    unescape_path,
)

KEYS: Final = "/v2/keys"
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
    """GET or HEAD of a plain key; ``quorum``: only once the cluster has confirmed that this replica is up to date."""

    key: str
    quorum: bool


class Write(Struct, frozen=True, gc=False):
    """A command for the log. With ``terse`` only its action is told (noValueOnSuccess)."""

    command: Command
    terse: bool


class Forbidden(Struct, frozen=True, gc=False):
    """A change of the root, which is refused whatever it holds."""

    code: Code
    cause: str


class Parameters(Struct, frozen=True, gc=False):
    """The parameters of a request on keys that have a meaning to it, checked."""

    value: str
    flags: dict[str, bool]
    prev_index: int
    prev_value: str
    prev_exist: bool | None
    refresh: bool
    ttl: bool
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
    method: str, path: str, query: bytes, content_type: bytes | None, body: bytes
) -> Read | Write | Forbidden:
    """What a request on keys asks for. ``path`` is what follows ``/v2/keys``.

    Raises EtcdError.
    """
    form = _parse_form(method, query, content_type, body)
    parameters = _check(method, form)
    key = path.rstrip("/")
    if not key:
        return _root(method, parameters)
    if "/" in key[1:]:
        raise not_served("keys in directories")
    if method in ("GET", "HEAD"):
        if parameters.flags["wait"]:
            raise not_served('"wait"')
        # HEAD is never a quorum read in etcd.
        return Read(key, parameters.flags["quorum"] and method == "GET")
    return Write(_command(method, key, parameters), parameters.terse)


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
    _uint(form, "waitIndex", Code.INDEX_NAN)
    flags = {name: _bool(form, name) for name in _BOOLEANS}
    if flags["wait"] and method != "GET":
        raise EtcdError(Code.INVALID_FIELD, '"wait" can only be used with GET requests')
    prev_value = form.get("prevValue")
    if prev_value == "":
        raise EtcdError(Code.PREV_VALUE_REQUIRED, '"prevValue" cannot be empty')
    terse = _bool(form, "noValueOnSuccess")
    ttl = bool(form.get("ttl"))
    if ttl:
        _uint(form, "ttl", Code.TTL_NAN)
    prev_exist = _bool(form, "prevExist", quoted=False) if "prevExist" in form else None
    refresh = _bool(form, "refresh", quoted=False)
    if refresh and form.get("value"):
        raise EtcdError(Code.REFRESH_VALUE, "A value was provided on a refresh")
    if refresh and not ttl:
        raise EtcdError(Code.REFRESH_TTL_REQUIRED, "No TTL value set")
    return Parameters(
        form.get("value", ""), flags, prev_index, prev_value or "", prev_exist, refresh, ttl, terse
    )


def _command(method: str, key: str, parameters: Parameters) -> Command:
    conditional = '"prevValue"' if parameters.prev_value else '"prevIndex"' if parameters.prev_index else None
    if method == "POST":
        raise not_served("POST (in-order keys)")
    if method == "DELETE":
        if conditional:
            raise not_served(conditional)
        return Delete(key)
    if parameters.flags["dir"]:
        raise not_served('"dir"')
    if parameters.ttl:
        raise not_served('"ttl"')
    if parameters.prev_exist is False:
        return Create(key, parameters.value)
    if conditional:
        raise not_served(conditional)
    return Update(key, parameters.value) if parameters.prev_exist else Set(key, parameters.value)


def _root(method: str, parameters: Parameters) -> Forbidden:
    conditional = bool(parameters.prev_value or parameters.prev_index)
    if method == "DELETE" and conditional:
        return Forbidden(Code.NOT_FILE, "")  # etcd cuts its own prefix off the cause, which here is all of it
    if method in ("PUT", "DELETE"):
        return Forbidden(Code.ROOT_READ_ONLY, "/")
    if method == "POST":
        raise not_served("POST (in-order keys)")
    raise not_served('"wait"' if parameters.flags["wait"] else "listing of directories")


def not_served(feature: str) -> EtcdError:
    """The answer to what etcd serves and this service does not."""
    return EtcdError(Code.NOT_IMPLEMENTED, f"this service does not serve {feature} yet")


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
