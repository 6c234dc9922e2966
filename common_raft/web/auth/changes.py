"""How users and roles are changed: what etcd's v2auth checks, in its order, and the commands that go into the log.

Source: server/etcdserver/api/v2auth/auth.go.  What etcd writes over whatever is there by then, after it has read and
merged, is a compare-and-swap here, and is merged anew if it fails, so that of two changes at once none is lost.
"""

from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from msgspec.structs import replace

from common_raft.keyspace import (
    Code,
    Command,
    CompareAndSwap,
    Create,
    Delete,
    EtcdError,
    Event,
    Expired,
    Result,
    Update,
)
from common_raft.web.auth.accounts import (
    AUTH,
    ENABLED,
    ROLES,
    USERS,
    Accounts,
    Failure,
    Kept,
    role_key,
    user_key,
)
from common_raft.web.auth.flow import Flow, Step, wait
from common_raft.web.auth.models import GUEST, GUEST_ROLE, ROOT, AuthError, Role, User
from common_raft.web.auth.passwords import Passwords, TooBusy

#: How often a change is merged anew because another one came first: each time somebody else has made one.
_ATTEMPTS: Final = 100


class Unavailable(Exception):
    """The cluster, or the store, gave no answer."""


class Proposer(Protocol):
    """What is asked of the node.  A ``done`` is called exactly once, on the caller's loop or thread."""

    def propose(self, command: Command, done: Callable[[Result | Failure], None], /) -> None: ...
    def read_index(self, done: Callable[[Failure | None], None], /) -> None: ...


class Changes:
    """All of them are flows that raise AuthError, Unavailable and TooBusy."""

    def __init__(self, node: Proposer, accounts: Accounts, passwords: Passwords) -> None:
        self._node = node
        self._accounts = accounts
        self._passwords = passwords

    def load(self) -> Flow[None]:
        """Until this replica knows what it holds."""
        cause = yield from wait(self._accounts.load)
        if cause is not None:
            raise Unavailable(cause)

    def confirm(self) -> Flow[None]:
        """Until this replica knows what the cluster had decided when this began."""
        failure = yield from wait(self._node.read_index)
        if failure is not None:
            raise Unavailable(failure.cause)
        yield from self.load()

    def create_or_update_user(self, change: User) -> Flow[tuple[User, bool]]:
        """For a change that grants and revokes nothing: the user as it is then, and whether it is new."""
        yield from self.confirm()
        if self._accounts.user(change.name) is not None:
            return (yield from self.update_user(change)), False
        return (yield from self.create_user(change)), True

    def create_user(self, user: User) -> Flow[User]:
        user = user.with_root_role()
        if not user.password:
            raise AuthError(400, f"Cannot create user {user.name} with an empty password")
        user = replace(user, password=(yield from self._hashed(user.password)))
        if not (yield from self._create(user_key(user.name), user.render())):
            raise AuthError(409, f"User {user.name} already exists.")
        return user

    def update_user(self, change: User) -> Flow[User]:
        hashed = ""
        for _ in range(_ATTEMPTS):
            yield from self.confirm()
            kept = self._user(change.name)
            if change.password and not hashed:
                hashed = yield from self._hashed(change.password)
            user = kept.value.merged(change, hashed or kept.value.password)
            if (yield from self._swap(user_key(user.name), user.render(), kept.modified)):
                return user
        raise Unavailable(f"{_ATTEMPTS} other changes of user {change.name} came first")

    def delete_user(self, name: str) -> Flow[None]:
        if name == ROOT and self._accounts.enabled:
            raise AuthError(403, "Cannot delete root user while auth is enabled.")
        if not (yield from self._delete(user_key(name))):
            raise AuthError(404, f"User {name} does not exist")

    def create_role(self, role: Role) -> Flow[None]:
        _refuse_root(role.name)
        if not (yield from self._create(role_key(role.name), role.render())):
            raise AuthError(409, f"Role {role.name} already exists.")

    def update_role(self, change: Role) -> Flow[Role]:
        _refuse_root(change.name)
        for _ in range(_ATTEMPTS):
            yield from self.confirm()
            kept = self._accounts.role(change.name)
            if kept is None:
                raise AuthError(404, f"Role {change.name} does not exist.")
            role = kept.value.merged(change)
            if (yield from self._swap(role_key(role.name), role.render(), kept.modified)):
                return role
        raise Unavailable(f"{_ATTEMPTS} other changes of role {change.name} came first")

    def delete_role(self, name: str) -> Flow[None]:
        _refuse_root(name)
        if not (yield from self._delete(role_key(name))):
            raise AuthError(404, f"Role {name} doesn't exist.")

    def enable(self) -> Flow[None]:
        if self._accounts.enabled:
            raise AuthError(409, "already enabled")
        yield from self.confirm()
        if self._accounts.user(ROOT) is None:
            raise AuthError(409, "No root user available, please create one")
        if self._accounts.role(GUEST) is None:
            yield from self.create_role(GUEST_ROLE)
        yield from self._switch("true")

    def disable(self) -> Flow[None]:
        if not self._accounts.enabled:
            raise AuthError(409, "already disabled")
        yield from self._switch("false")

    def _user(self, name: str) -> Kept[User]:
        kept = self._accounts.user(name)
        if kept is None:
            raise AuthError(404, f"User {name} does not exist.")
        return kept

    def _hashed(self, password: str) -> Flow[str]:
        hashing: Step[str | TooBusy] = partial(self._passwords.hash, password)
        stored = yield from wait(hashing)
        if isinstance(stored, TooBusy):
            raise stored
        return stored

    def _prepare(self) -> Flow[None]:
        """What etcd makes before its first change, so that the etcd index is the same afterwards."""
        yield from self.load()
        if self._accounts.prepared:
            return
        for key in (AUTH, USERS, ROLES):
            yield from self._done(Create(key, "", dir=True))
        yield from self._done(Create(ENABLED, "false"))

    def _create(self, key: str, value: str) -> Flow[bool]:
        yield from self._prepare()
        return (yield from self._done(Create(key, value)))

    def _delete(self, key: str) -> Flow[bool]:
        yield from self._prepare()
        return (yield from self._done(Delete(key)))

    def _swap(self, key: str, value: str, index: int) -> Flow[bool]:
        return (yield from self._done(CompareAndSwap(key, value, "", index)))

    def _switch(self, value: str) -> Flow[None]:
        yield from self._prepare()
        yield from self._done(Update(ENABLED, value))

    def _done(self, command: Command) -> Flow[bool]:
        """Whether it was carried out, rather than refused for what is there, or is not."""
        result = yield from wait(partial(self._node.propose, command))
        if isinstance(result, Event):
            return True
        if isinstance(result, EtcdError) and result.code in _REFUSED:
            return False
        assert not isinstance(result, Expired)  # which is no answer to these commands
        raise Unavailable(result.cause)


_REFUSED = frozenset((Code.KEY_NOT_FOUND, Code.NODE_EXISTS, Code.TEST_FAILED))


def _refuse_root(name: str) -> None:
    if name == ROOT:
        raise AuthError(403, f"Cannot modify role {name}: is root role.")
