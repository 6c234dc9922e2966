"""Requests on ``/v2/auth``: what they ask for, and their answers, byte for byte etcd's.

Checks, their order and words are those of etcd (server/etcdserver/api/v2http/client_auth.go).  Who may ask is the
guard's to say, before any of this.
"""

import re
from typing import Final, NamedTuple

from msgspec.structs import replace

from common_raft.web.api import Respond
from common_raft.web.auth.accounts import Accounts
from common_raft.web.auth.changes import Changes, Unavailable
from common_raft.web.auth.decoding import decode_role, decode_user
from common_raft.web.auth.flow import Flow, run
from common_raft.web.auth.models import AuthError, Permissions, Role, render_user
from common_raft.web.auth.passwords import TooBusy
from common_raft.web.golang import GoError, json_text, parse_query
from common_raft.web.response import (
    Response,
    json_error,
    json_of_cluster,
    method_not_allowed,
)

AUTH_PATH: Final = re.compile(r"/v2/auth/(?:(users|roles)(?:/(.*))?|enable)", re.DOTALL).fullmatch

ENABLE: Final = "enable"
ROLES: Final = "roles"
USERS: Final = "users"

_LIST_METHODS = ("GET",)
_METHODS = ("GET", "PUT", "DELETE")
_INVALID_JSON: Final = "Invalid JSON in request body."
_INVALID_PATH = json_error(400, "Invalid path")
#: For whatever is neither a client's fault nor told by name.
_INTERNAL: Final = "Internal Server Error"


class Route(NamedTuple):
    """``kind`` is one of ENABLE, ROLES and USERS; ``name`` is None for all of them together."""

    kind: str
    name: str | None
    methods: tuple[str, ...]


class BadRequest(Exception):
    """What etcd's HTTP layer refuses, with 400."""


def route(path: str) -> Route | Response | None:
    """What a clean path means; a Response if etcd refuses it, None for what it does not know."""
    match = AUTH_PATH(path)
    if match is None:
        return None
    kind, rest = match.groups()
    if kind is None:
        return Route(ENABLE, None, _METHODS)
    name = (rest or "").rstrip("/")
    if "/" in name:
        return _INVALID_PATH
    return Route(kind, name, _METHODS) if name else Route(kind, None, _LIST_METHODS)


def allowed(methods: tuple[str, ...]) -> Response:
    """To any other method."""
    return method_not_allowed(",".join(methods).encode())


class AuthApi:
    def __init__(self, cluster_id: int, accounts: Accounts, changes: Changes) -> None:
        self._cluster_id = cluster_id
        self._accounts = accounts
        self._changes = changes

    def handle(self, method: str, path: str, query: bytes, body: bytes, respond: Respond) -> bool:
        """Answer a request that the guard has let through, if its path is one of these; whether it is."""
        found = route(path)
        if found is None:
            return False
        if isinstance(found, Response):
            respond(found)
        elif method not in found.methods:
            respond(allowed(found.methods))
        else:
            run(self._answer(found, method, query, body), respond)
        return True

    def _answer(self, asked: Route, method: str, query: bytes, body: bytes) -> Flow[Response]:
        try:
            yield from self._changes.load()
            return (yield from self._carry_out(asked, method, query, body))
        except AuthError as error:
            return self._error(error.status, str(error))
        except BadRequest as error:
            return self._error(400, str(error))
        except TooBusy as error:
            return self._error(503, str(error))
        except Unavailable:
            return self._error(500, _INTERNAL)

    def _carry_out(self, asked: Route, method: str, query: bytes, body: bytes) -> Flow[Response]:
        kind, name = asked.kind, asked.name
        if kind == ENABLE:
            return (yield from self._enable(method))
        if name is None:
            return self._users(query) if kind == USERS else self._roles(query)
        if method == "GET":
            return self._user(name, query) if kind == USERS else self._role(name)
        if method == "PUT":
            return (yield from (self._put_user if kind == USERS else self._put_role)(name, body))
        yield from (self._changes.delete_user if kind == USERS else self._changes.delete_role)(name)
        return self._json(200, "")

    def _enable(self, method: str) -> Flow[Response]:
        if method == "GET":
            return self._json(200, f'{{"enabled":{"true" if self._accounts.enabled else "false"}}}\n')
        yield from (self._changes.enable if method == "PUT" else self._changes.disable)()
        return self._json(200, "")

    def _users(self, query: bytes) -> Response:
        _check_form(query)
        shown = []
        for name in self._accounts.user_names():
            user = self._accounts.user(name)
            if user is not None:
                roles = map(self._accounts.role, user.value.roles or ())
                shown.append(render_user(user.value, (each.value for each in roles if each is not None)))
        return self._json(200, f'{{"users":{"[" + ",".join(shown) + "]" if shown else "null"}}}\n')

    def _roles(self, query: bytes) -> Response:
        _check_form(query)
        roles = map(self._accounts.role, self._accounts.role_names())
        shown = ",".join(each.value.render() for each in roles if each is not None)
        return self._json(200, f'{{"roles":[{shown}]}}\n')

    def _user(self, name: str, query: bytes) -> Response:
        user = self._accounts.user(name)
        if user is None:
            raise AuthError(404, f"User {name} does not exist.")
        _check_form(query)
        return self._json(200, render_user(user.value, map(self._held, user.value.roles or ())) + "\n")

    def _role(self, name: str) -> Response:
        return self._json(200, self._held(name).render() + "\n")

    def _held(self, name: str) -> Role:
        """Also for a user's: etcd does not show one of whose roles is gone."""
        role = self._accounts.role(name)
        if role is None:
            raise AuthError(404, f"Role {name} does not exist.")
        return role.value

    def _put_user(self, name: str, body: bytes) -> Flow[Response]:
        try:
            user = decode_user(body)
        except GoError:
            raise BadRequest(_INVALID_JSON) from None
        if user.name != name:
            raise BadRequest("User JSON name does not match the name in the URL")
        created = False
        if user.grant or user.revoke:
            if user.roles:
                raise BadRequest("User JSON contains both roles and grant/revoke")
            user = yield from self._changes.update_user(user)
        elif user.roles:  # etcd answers 200 to this one, although the user is new
            user = yield from self._changes.create_user(user)
        else:
            user, created = yield from self._changes.create_or_update_user(user)
        return self._json(201 if created else 200, replace(user, password="").render() + "\n")

    def _put_role(self, name: str, body: bytes) -> Flow[Response]:
        try:
            role = decode_role(body)
        except GoError:
            raise BadRequest(_INVALID_JSON) from None
        if role.name != name:
            raise BadRequest("Role JSON name does not match the name in the URL")
        if _empty(role.grant) and _empty(role.revoke):
            yield from self._changes.create_role(role)
            return self._json(201, role.render() + "\n")
        if not role.permissions.empty:
            raise BadRequest("Role JSON contains both permissions and grant/revoke")
        role = yield from self._changes.update_role(role)
        return self._json(200, role.render() + "\n")

    def _json(self, status: int, body: str) -> Response:
        return json_of_cluster(status, self._cluster_id, body)

    def _error(self, status: int, message: str) -> Response:
        return self._json(status, f'{{"message":"{json_text(message)}"}}')


def _check_form(query: bytes) -> None:
    """etcd takes a query that it cannot read for a fault of its own."""
    error = parse_query({}, query)
    if error is not None:
        raise Unavailable(str(error))


def _empty(permissions: Permissions | None) -> bool:
    return permissions is None or permissions.empty
