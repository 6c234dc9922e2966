"""Users and roles from JSON, as lenient and as strict as Go's encoding/json is with a body.

A value is read and what follows it is not looked at; names of fields are taken in whatever case, unknown ones passed
over, the last of a name wins and parts that come twice are merged.  Bytes that are no UTF-8 become U+FFFD.
"""

import json
import re
from typing import NoReturn

from msgspec.structs import replace

from common_raft.web.auth.models import Names, Permissions, Role, User
from common_raft.web.golang import GoError

#: An object, as its fields came.
_Fields = list[tuple[str, object]]

_SPACE = " \t\r\n"
_NUMBER = object()
_LONE = re.compile("[\ud800-\udfff]")
#: Characters that Go's comparison of names without case takes for an ASCII letter, and which lower() does not.
_FOLD = str.maketrans({"ſ": "s", "\u212a": "k"})


def decode_user(body: bytes) -> User:
    """Raises GoError."""
    user = User("")
    for name, value in _object(_first_value(body)):
        if name == "user":
            user = replace(user, name=_text(value, user.name))
        elif name == "password":
            user = replace(user, password=_text(value, user.password))
        elif name in ("roles", "grant", "revoke"):
            user = replace(user, **{name: _names(value)})
    return user


def decode_role(body: bytes) -> Role:
    """Raises GoError."""
    role = Role("")
    for name, value in _object(_first_value(body)):
        if name == "role":
            role = replace(role, name=_text(value, role.name))
        elif name == "permissions":
            role = replace(role, permissions=_permissions(value, role.permissions))
        elif name in ("grant", "revoke"):
            before = role.grant if name == "grant" else role.revoke
            after = None if value is None else _permissions(value, before or Permissions())
            role = replace(role, **{name: after})
    return role


def _permissions(value: object, before: Permissions) -> Permissions:
    after = before
    for name, inner in _object(value):
        if name == "kv":
            for kind, patterns in _object(inner):
                if kind in ("read", "write"):
                    after = replace(after, **{kind: _names(patterns)})
    return after


def _object(value: object) -> _Fields:
    """The fields, their names folded; none of null."""
    if value is None:
        return []
    if not isinstance(value, _Object):
        raise GoError("json: cannot unmarshal into an object")
    return [(name.translate(_FOLD).lower(), inner) for name, inner in value.fields]


def _text(value: object, before: str) -> str:
    if value is None:
        return before
    if not isinstance(value, str):
        raise GoError("json: cannot unmarshal into a string")
    return _LONE.sub("\ufffd", value)


def _names(value: object) -> Names:
    if value is None:
        return None
    if not isinstance(value, list):
        raise GoError("json: cannot unmarshal into a list")
    return tuple(_text(each, "") for each in value)


class _Object:
    """Told apart from a list, which an object without names would look like."""

    def __init__(self, fields: _Fields) -> None:
        self.fields = fields


def _refuse(constant: str) -> NoReturn:
    raise GoError(f"invalid JSON: {constant}")  # NaN and Infinity, which Python's parser takes


_DECODER = json.JSONDecoder(
    object_pairs_hook=_Object,
    parse_constant=_refuse,
    parse_int=lambda _: _NUMBER,
    parse_float=lambda _: _NUMBER,
)


def _first_value(body: bytes) -> object:
    text = _LONE.sub("\ufffd", body.decode("utf-8", "surrogateescape")).lstrip(_SPACE)
    try:
        value: object
        value, _ = _DECODER.raw_decode(text)
    except (ValueError, RecursionError) as error:
        raise GoError(f"invalid JSON: {error}") from None
    return value
