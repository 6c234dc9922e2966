"""What the keyspace holds of users and roles, and whether authentication is on: a copy, kept as it changes.

It lies in nodes that belong to the service itself, so that it is replicated, in snapshots and in every store like all
else: ``//auth/enabled`` (``true`` or ``false``), ``//auth/users/NAME`` and ``//auth/roles/NAME``, each JSON as etcd
stores it below ``/2``.  A watcher on them is told of every change before the client that made it is answered.  When
that watcher is ended (a snapshot took the place of the state), nothing is known until all is read again.
"""

import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from common_raft.keyspace import Code, EtcdError, Event, Expired, Query, Result, Tree, Watchers
from common_raft.web.auth.decoding import decode_role, decode_user
from common_raft.web.auth.models import ROOT, ROOT_ROLE, Role, User, in_order

T = TypeVar("T")

AUTH: Final = "//auth"
USERS: Final = "//auth/users"
ROLES: Final = "//auth/roles"
ENABLED: Final = "//auth/enabled"

_GONE = frozenset(("delete", "expire", "compareAndDelete"))


def user_key(name: str) -> str:
    return f"{USERS}/{_escape(name)}"


def role_key(name: str) -> str:
    return f"{ROLES}/{_escape(name)}"


def _escape(name: str) -> str:
    """A name as a part of a key that no listing hides, as it does those that begin with ``_``."""
    return f"={name}" if name[:1] in ("_", "=") else name


def _unescape(part: str) -> str:
    return part.removeprefix("=")


class Failure(Protocol):
    @property
    def cause(self) -> str: ...


class Source(Protocol):
    """What is asked of the keyspace."""

    @property
    def watchers(self) -> Watchers: ...
    def read(self, query: Query, done: Callable[[Result | Failure], None], /) -> None: ...


class Kept(NamedTuple, Generic[T]):
    """A user or a role, and the index of its last change."""

    value: T
    modified: int


class _State(NamedTuple):
    """All of it at one moment.  Not changed in place once it is the accounts' own, since other threads read it."""

    users: dict[str, Kept[User]]
    roles: dict[str, Kept[Role]]
    enabled: bool | None  #: None: nothing was ever stored

    def after(self, event: Event) -> "_State":
        users, roles = dict(self.users), dict(self.roles)
        node = event.node
        value = None if event.action in _GONE else node.value
        return _State(users, roles, self.enabled)._put(node.key, value, node.modified_index)

    def _put(self, key: str, value: str | None, index: int) -> "_State":
        """In place, but for what cannot be."""
        where, _, part = key.rpartition("/")
        data = None if value is None else value.encode("utf-8", "surrogateescape")
        if where == USERS:
            _keep(self.users, _unescape(part), None if data is None else Kept(decode_user(data), index))
        elif where == ROLES:
            _keep(self.roles, _unescape(part), None if data is None else Kept(decode_role(data), index))
        elif key == ENABLED:
            return self._replace(enabled=None if value is None else value == "true")
        return self


def _keep(kept: dict[str, Kept[T]], name: str, entry: Kept[T] | None) -> None:
    if entry is None:
        kept.pop(name, None)
    else:
        kept[name] = entry


def _read(trees: Iterable[Tree]) -> _State:
    state = _State({}, {}, None)
    left = list(trees)
    while left:
        tree = left.pop()
        left += tree.nodes or ()
        if not tree.node.dir:
            state = state._put(tree.node.key, tree.node.value, tree.node.modified_index)
    return state


class Accounts:
    """The copy.  Reads are for any thread; ``changed`` is called, where changes are applied, after each of them."""

    def __init__(self, keyspace: Source, changed: Callable[[], None]) -> None:
        self._keyspace = keyspace
        self._changed = changed
        self._state = _State({}, {}, None)
        self.known = False  #: whether the copy is one: it is not before the first ``load``
        self._lock = threading.Lock()  # around all that follows; never held while the keyspace is called
        self._watching: object | None = None
        self._since_loading: list[Event] = []
        self._starting = threading.Lock()

    @property
    def enabled(self) -> bool:
        return bool(self._state.enabled)

    @property
    def prepared(self) -> bool:
        """Whether anything was ever stored."""
        return self._state.enabled is not None

    def user(self, name: str) -> Kept[User] | None:
        kept = self._state.users.get(name)
        return kept and Kept(kept.value.with_root_role(), kept.modified)

    def role(self, name: str) -> Kept[Role] | None:
        """The role root is always there, at no index."""
        return Kept(ROOT_ROLE, 0) if name == ROOT else self._state.roles.get(name)

    def user_names(self) -> tuple[str, ...]:
        """Those that etcd lists, in its order: it hides what begins with ``_``."""
        return in_order(name for name in self._state.users if name[:1] != "_")

    def role_names(self) -> tuple[str, ...]:
        """The same; root among them."""
        return in_order([ROOT, *(name for name in self._state.roles if name[:1] != "_")])

    def load(self, done: Callable[[str | None], None]) -> None:
        """Reads all, unless it is known; ``done`` gets why that was impossible, or None."""
        if self.known:
            done(None)
            return
        with self._starting:
            if self._watching is None:
                self._follow()
        watching = self._watching
        self._keyspace.read(Query(AUTH, recursive=True), partial(self._loaded, watching, done))

    def _follow(self) -> None:
        """Changes are noted from here on, so that none falls between what is read and what comes then."""
        watching = object()
        with self._lock:
            self._watching, self._since_loading = watching, []
        try:
            self._keyspace.watchers.watch(
                AUTH, recursive=True, stream=True, since=0, notify=partial(self._notice, watching)
            )
        except BaseException:
            self._watching = None
            raise

    def _loaded(
        self,
        watching: object | None,
        done: Callable[[str | None], None],
        result: Result | Failure,
    ) -> None:
        if isinstance(result, Event):
            index, state = result.index, _read(result.nodes or ())
        elif isinstance(result, EtcdError) and result.code == Code.KEY_NOT_FOUND:
            index, state = result.index, _State({}, {}, None)
        else:
            assert not isinstance(result, Expired)  # which no read gives
            done(result.cause)
            return
        with self._lock:
            current = watching is self._watching
            if watching is None:
                self._state = state  # the keyspace tells nobody anything more: read again for each request
            elif current and not self.known:
                for event in self._since_loading:
                    if event.index > index:
                        state = state.after(event)
                self._state, self.known, self._since_loading = state, True, []
        self._changed()
        if current:
            done(None)
        else:
            self.load(done)  # the state was replaced meanwhile

    def _notice(self, watching: object, event: Event | None) -> None:
        """A change, or None for the end of the watcher."""
        with self._lock:
            if watching is not self._watching:
                return
            if event is None:
                self._watching, self.known = None, False
            elif self.known:
                self._state = self._state.after(event)
            else:
                self._since_loading.append(event)
        self._changed()
