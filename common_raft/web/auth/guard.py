"""What stands before every request while authentication is on: who asks, and whether they may.

Sources: server/etcdserver/api/v2http/client_auth.go (hasKeyPrefixAccess, hasRootAccess, hasWriteRootAccess) and
client.go, which asks after the request's form was found right: a request that is wrong is told so, whoever asks.
"""

from functools import partial
from typing import Final, NamedTuple

from common_raft.keyspace import Code, EtcdError
from common_raft.web.auth.accounts import Accounts
from common_raft.web.auth.basic import Credentials, parse_basic
from common_raft.web.auth.changes import Changes, Unavailable
from common_raft.web.auth.flow import Flow, wait
from common_raft.web.auth.models import GUEST, ROOT, User
from common_raft.web.auth.passwords import Passwords, TooBusy
from common_raft.web.auth.permissions import allows
from common_raft.web.auth.routes import ENABLE, Route, route
from common_raft.web.golang import clean_path
from common_raft.web.members import MEMBERS, MEMBERS_METHODS
from common_raft.web.request import KEYS, KEYS_METHODS, BadTargetError, Target, asks_recursively, parse_target
from common_raft.web.response import KeyResponses, Response, json_error

_READS = frozenset(("GET", "HEAD"))
_REFUSED: Final = json_error(401, "Insufficient credentials")


class Demand(NamedTuple):
    """What a request needs: the use of ``key``, as it was sent behind ``/v2/keys``, or the role root for None."""

    key: str | None
    write: bool
    recursive: bool = False


def demand(method: str, target: bytes, content_type: bytes | None, body: bytes) -> Demand | None:
    """None for a request that needs nothing, or is answered with what is wrong about it."""
    try:
        parsed = parse_target(target)
    except BadTargetError:
        return None
    path = parsed.path
    if method == "HEAD" and body:
        return None
    if method == "OPTIONS" or path == "*" or (method != "CONNECT" and clean_path(path) != path):
        return None
    if path == KEYS or path.startswith(KEYS + "/"):
        return _key_demand(method, parsed, content_type, body)
    if path == MEMBERS or path.startswith(MEMBERS + "/"):
        changes = method in MEMBERS_METHODS and method not in _READS
        return Demand(None, write=True) if changes else None
    found = route(path)
    if not isinstance(found, Route) or method not in found.methods:
        return None
    return None if found.kind == ENABLE and method == "GET" else Demand(None, write=method != "GET")


def _key_demand(method: str, target: Target, content_type: bytes | None, body: bytes) -> Demand | None:
    if method not in KEYS_METHODS:
        return None
    try:
        recursive = asks_recursively(method, target.query or b"", content_type, body)
    except EtcdError:
        return None
    return Demand(target.path[len(KEYS) :], method not in _READS, recursive)


class Guard:
    """Asked for each request as long as it is needed.

    That is while authentication is on; and at the start, until this replica knows what the cluster had decided by
    then.  A node that is yet to apply the end of its log may hold that authentication is off, and what it lets into
    the log would be carried out by all.  Reads are answered from what it holds, under the rules of that time.
    """

    def __init__(
        self, accounts: Accounts, changes: Changes, passwords: Passwords, responses: KeyResponses
    ) -> None:
        self._accounts = accounts
        self._changes = changes
        self._passwords = passwords
        self._responses = responses
        self._confirmed = False

    @property
    def needed(self) -> bool:
        return not self._confirmed or not self._accounts.known or self._accounts.enabled

    def settle(self) -> Flow[bool]:
        """Whether that is known now, if need be by asking the cluster."""
        if not self._confirmed:
            try:
                yield from self._changes.confirm()
            except Unavailable:
                return False
            self._confirmed = True
        return True

    def refuse(self, wanted: Demand, authorization: bytes | None) -> Flow[Response | None]:
        """What a request that needs ``wanted`` is answered by the guard; None: it may go on."""
        try:
            if wanted.write and not self._confirmed:
                yield from self._changes.confirm()
                self._confirmed = True
            yield from self._changes.load()
            if not self._accounts.enabled:
                return None
            may = yield from self._may(wanted, authorization)
        except (Unavailable, TooBusy) as error:
            return self._failed(wanted, error)
        if may:
            return None
        if wanted.key is None:
            return _REFUSED
        return self._responses.error(EtcdError(Code.UNAUTHORIZED, "Insufficient credentials"))

    def _failed(self, wanted: Demand, error: Unavailable | TooBusy) -> Response:
        if wanted.key is not None:
            return self._responses.error(EtcdError(Code.RAFT_INTERNAL, str(error)))
        busy = isinstance(error, TooBusy)
        return json_error(503, str(error)) if busy else json_error(500, "Internal Server Error")

    def _may(self, wanted: Demand, authorization: bytes | None) -> Flow[bool]:
        if wanted.key is None:
            user = yield from self._user(authorization or b"")
            return user is not None and ROOT in (user.roles or ())
        if not authorization:
            # etcd does not ask whether a guest's request is recursive.
            return self._allowed((GUEST,), wanted._replace(recursive=False))
        user = yield from self._user(authorization)
        return user is not None and self._allowed(user.roles or (), wanted)

    def _allowed(self, roles: tuple[str, ...], wanted: Demand) -> bool:
        assert wanted.key is not None
        held = map(self._accounts.role, roles)
        return allows(
            (role.value for role in held if role is not None),
            wanted.key,
            write=wanted.write,
            recursive=wanted.recursive,
        )

    def _user(self, authorization: bytes) -> Flow[User | None]:
        """Who asks, if the password is right."""
        credentials = parse_basic(authorization)
        if credentials is None:
            return None
        user = self._known(credentials)
        if user is None:
            return None
        check = partial(self._passwords.check, user.name, credentials.password, user.password)
        right = yield from wait(check)
        if isinstance(right, TooBusy):
            raise right
        now = self._known(credentials)  # a check takes its time
        return now if right and now is not None and now.password == user.password else None

    def _known(self, credentials: Credentials) -> User | None:
        kept = self._accounts.user(credentials.name)
        return None if kept is None else kept.value
