"""The copy of users and roles: read once, kept as changes come, unknown when its source is replaced."""

from collections.abc import Callable

import pytest

from common_raft.keyspace import Code, EtcdError, Event, Node, Query, StoreUnavailable, Tree
from common_raft.web.auth.accounts import AUTH, ENABLED, Accounts, role_key, user_key
from common_raft.web.auth.models import Role, User

Done = Callable[[Event | EtcdError | StoreUnavailable], None]
Notify = Callable[[Event | None], None]


class FakeWatch:
    def close(self) -> None:
        raise AssertionError("nobody closes it")


class FakeSource:
    """A keyspace whose reads end, and whose changes come, when the test says so."""

    def __init__(self) -> None:
        self.watchers = self
        self.reads: list[Done] = []
        self.notify: list[Notify] = []
        self.index = 10

    def watch(self, key: str, *, recursive: bool, stream: bool, since: int, notify: Notify) -> FakeWatch:
        assert (key, recursive, stream, since) == (AUTH, True, True, 0)
        self.notify.append(notify)
        return FakeWatch()

    def read(self, query: Query, done: Done) -> None:
        assert query == Query(AUTH, recursive=True)
        self.reads.append(done)

    def change(self, key: str, value: str | None, index: int | None = None) -> None:
        self.index = self.index + 1 if index is None else index
        node = Node(key, value, self.index, self.index)
        self.notify[-1](Event("delete" if value is None else "set", node, None, self.index))

    def answer(self, *nodes: Node, index: int | None = None) -> None:
        trees = [Tree(node) for node in nodes]
        users = Tree(Node("//auth/users", None, 2, 2, dir=True), trees)
        at = self.index if index is None else index
        self.reads.pop(0)(Event("get", Node(AUTH, None, 1, 1, dir=True), None, at, [users]))


class ClosedSource(FakeSource):
    """Whose watchers end at once."""

    def watch(self, key: str, *, recursive: bool, stream: bool, since: int, notify: Notify) -> FakeWatch:
        notify(None)
        return FakeWatch()


@pytest.fixture
def source() -> FakeSource:
    return FakeSource()


@pytest.fixture
def changes() -> list[str]:
    return []


@pytest.fixture
def accounts(source: FakeSource, changes: list[str]) -> Accounts:
    return Accounts(source, lambda: changes.append("changed"))


def load(accounts: Accounts) -> list[str | None]:
    outcomes: list[str | None] = []
    accounts.load(outcomes.append)
    return outcomes


def user_node(user: User, index: int) -> Node:
    return Node(user_key(user.name), user.render(), index, index)


def test_nothing_is_known_before_it_is_read(source: FakeSource, accounts: Accounts) -> None:
    outcomes = load(accounts)
    assert not accounts.known and outcomes == []
    source.answer(user_node(User("ann", "hash", ("a",)), 7))
    assert outcomes == [None]
    assert accounts.known and accounts.prepared is False
    found = accounts.user("ann")
    assert found is not None
    assert found == (User("ann", "hash", ("a",)), 7)
    assert load(accounts) == [None] and source.reads == []


def test_where_nothing_was_ever_stored_authentication_is_off(source: FakeSource, accounts: Accounts) -> None:
    outcomes = load(accounts)
    source.reads.pop()(EtcdError(Code.KEY_NOT_FOUND, AUTH, 10))
    assert outcomes == [None]
    assert (accounts.known, accounts.prepared, accounts.enabled) == (True, False, False)
    assert accounts.user_names() == () and accounts.role_names() == ("root",)


def test_a_read_that_fails_says_why_and_is_made_again(source: FakeSource, accounts: Accounts) -> None:
    outcomes = load(accounts)
    source.reads.pop()(StoreUnavailable("the disk is away"))
    assert outcomes == ["the disk is away"] and not accounts.known
    again = load(accounts)
    source.answer()
    assert again == [None] and accounts.known and len(source.notify) == 1


def test_changes_are_taken_over_as_they_come(
    source: FakeSource, accounts: Accounts, changes: list[str]
) -> None:
    load(accounts)
    source.answer()
    changes.clear()
    source.change(ENABLED, "false")
    assert accounts.prepared and not accounts.enabled
    source.change(ENABLED, "true")
    assert accounts.enabled
    source.change(role_key("r"), Role("r").render())
    source.change(user_key("_u"), User("_u", "h").render())
    assert accounts.role("r") == (Role("r"), 13)
    assert accounts.user("_u") == (User("_u", "h"), 14)
    assert accounts.role_names() == ("r", "root") and accounts.user_names() == ()
    source.change(user_key("_u"), None)
    source.change(role_key("r"), None)
    assert accounts.user("_u") is None and accounts.role("r") is None
    assert len(changes) == 6


def test_no_change_falls_between_what_is_read_and_what_comes_then(
    source: FakeSource, accounts: Accounts
) -> None:
    load(accounts)
    source.change(user_key("old"), User("old", "before").render(), index=11)
    source.change(user_key("ann"), User("ann", "new").render(), index=12)
    source.change(user_key("bob"), None, index=13)
    # The read was made between the first change and the others.
    source.answer(
        user_node(User("ann", "h"), 3),
        user_node(User("bob", "h"), 4),
        user_node(User("old", "x"), 11),
        index=11,
    )
    assert accounts.user("ann") == (User("ann", "new"), 12)
    assert accounts.user("bob") is None
    assert accounts.user("old") == (User("old", "x"), 11)


def test_when_the_state_is_replaced_nothing_is_known_until_it_is_read_again(
    source: FakeSource, accounts: Accounts, changes: list[str]
) -> None:
    load(accounts)
    source.answer(user_node(User("ann", "h"), 3))
    changes.clear()
    source.notify[0](None)
    assert not accounts.known and changes == ["changed"]
    outcomes = load(accounts)
    assert len(source.notify) == 2
    source.answer()
    assert outcomes == [None] and accounts.known and accounts.user("ann") is None
    source.notify[0](None)  # late, from the watcher that has ended
    assert accounts.known


def test_a_read_from_before_a_replacement_is_not_believed_but_made_again(
    source: FakeSource, accounts: Accounts
) -> None:
    outcomes = load(accounts)
    source.notify[0](None)
    source.answer(user_node(User("ann", "h"), 3))
    assert outcomes == [] and not accounts.known and accounts.user("ann") is None
    source.answer(user_node(User("bob", "h"), 3))
    assert outcomes == [None] and accounts.known
    assert accounts.user("ann") is None and accounts.user("bob") is not None


def test_of_a_keyspace_that_tells_nobody_anything_more_each_request_reads_anew() -> None:
    closed = ClosedSource()
    accounts = Accounts(closed, lambda: None)
    for user in (User("ann", "h"), User("bob", "h")):
        outcomes = load(accounts)
        closed.answer(user_node(user, 3))
        assert outcomes == [None] and not accounts.known
        assert accounts.user(user.name) == (user, 3)
    assert accounts.user("ann") is None


def test_of_several_reads_at_once_the_first_counts(source: FakeSource, accounts: Accounts) -> None:
    first, second = load(accounts), load(accounts)
    assert len(source.notify) == 1
    source.answer(user_node(User("ann", "h"), 3))
    source.change(user_key("ann"), None)
    source.answer(user_node(User("ann", "h"), 3), index=10)
    assert first == second == [None]
    assert accounts.user("ann") is None


def test_the_user_and_the_role_root_are_what_etcd_makes_of_them(
    source: FakeSource, accounts: Accounts
) -> None:
    load(accounts)
    source.answer(user_node(User("root", "h", ()), 3))
    found, role = accounts.user("root"), accounts.role("root")
    assert found is not None and found.value.roles == ("root",)
    assert role is not None and role.value.permissions.read == ("/*",)


@pytest.mark.parametrize("name", ["ann", "_x", "=x", "==", "_", "="])
def test_no_listing_hides_a_name_and_no_two_names_are_one_key(name: str) -> None:
    part = user_key(name).rpartition("/")[2]
    assert part[:1] != "_"
    others = {user_key(each) for each in ("ann", "_x", "=x", "==", "_", "=") if each != name}
    assert user_key(name) not in others
