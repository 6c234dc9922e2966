"""What a store does with a session, written once: `SqlStore` calls these, `AsyncSqlStore` runs them in its loop.

Statements are made once, with parameters, so that the ORM compiles each a single time; those that depend on how
many keys there are come in sizes that are powers of two, so that a database has few of them to prepare.  Results are
rows of the mapped attributes, not objects: an identity map would cost half as much again, and has nothing to track.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple, cast

from sqlalchemy import (
    CursorResult,
    Table,
    and_,
    bindparam,
    delete,
    func,
    insert,
    inspect,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from common_raft.keyspace.node import Node, parent_of, to_bytes, to_text
from common_raft.keyspace.store import MAX_PLAIN, StoreError, rank
from common_raft.stores.models import Base, MarksRow, NodeRow

#: Parameters of one statement: SQLite takes 32,766 and PostgreSQL's drivers 32,767; beyond this, size gains nothing.
CHUNK = 512
#: Bytes of keys and values that are read at once for a view.
PAGE_SIZE = 256 << 10


#: In both columns: a database whose member has not said yet who it is.
UNCLAIMED = ""


class Owner(NamedTuple):
    """Whose state a database holds; both in the words of an operator's log, for instance hexadecimal ids."""

    cluster: str
    member: str


class Marks(NamedTuple):
    etcd_index: int
    applied: int


_NODE = (
    NodeRow.key,
    NodeRow.value,
    NodeRow.modified_index,
    NodeRow.created_index,
    NodeRow.dir,
    NodeRow.expiration,
)
_IS_NODE = NodeRow.id == bindparam("node_id")
_IS_CHILD = NodeRow.parent == bindparam("parent_id")
_IS_BELOW = and_(  # by the index, and then exactly: ranks of long keys only begin as the keys do
    NodeRow.id >= bindparam("first_id"),
    NodeRow.id < bindparam("end_id"),
    NodeRow.key > bindparam("first"),
    NodeRow.key < bindparam("end"),
)
_ONE = select(*_NODE).where(_IS_NODE)
_CHILDREN = select(*_NODE).where(_IS_CHILD).order_by(NodeRow.key)
_SOME_CHILDREN = select(*_NODE).where(_IS_CHILD).limit(bindparam("number"))
_BELOW = select(*_NODE).where(_IS_BELOW).order_by(NodeRow.key)
_WITH_CHILDREN = select(*_NODE).where(or_(_IS_NODE, _IS_CHILD)).order_by(NodeRow.key)
_WITH_BELOW = select(*_NODE).where(or_(_IS_NODE, _IS_BELOW)).order_by(NodeRow.key)
_PLACES = (
    select(NodeRow.id, func.length(NodeRow.key), func.coalesce(func.length(NodeRow.value), 0))
    .where(NodeRow.id > bindparam("after"))
    .order_by(NodeRow.id)
    .limit(CHUNK)
)
_PAGE = (
    select(*_NODE).where(NodeRow.id > bindparam("after"), NodeRow.id <= bindparam("end")).order_by(NodeRow.id)
)
_EXPIRED = (
    select(*_NODE).where(NodeRow.expiration <= bindparam("before")).order_by(NodeRow.expiration, NodeRow.key)
)
_NEXT_EXPIRATION = select(func.min(NodeRow.expiration)).where(NodeRow.expiration > bindparam("after"))
_CLEAR = delete(NodeRow).execution_options(synchronize_session=False)
_INSERT = insert(NodeRow).execution_options(dml_strategy="raw")
_MARKS = select(MarksRow.etcd_index, MarksRow.applied_index)
# Of the mapped class's table: for a single row, the ORM's bookkeeping around an update costs five times the update.
_MOVE = update(cast(Table, MarksRow.__table__)).values(
    etcd_index=bindparam("to_index"), applied_index=bindparam("to_applied")
)
_MOVE_FROM = _MOVE.where(
    MarksRow.etcd_index == bindparam("from_index"), MarksRow.applied_index == bindparam("from_applied")
)


def _upsert(insert: Callable[..., Any]) -> Any:
    statement = insert(NodeRow)
    replaced = ("value", "modified_index", "created_index", "dir", "expiration")
    # "raw": the parameters go to the driver as they are, and not through the unit of work.
    return statement.on_conflict_do_update(
        index_elements=[NodeRow.id], set_={name: statement.excluded[name] for name in replaced}
    ).execution_options(dml_strategy="raw")


@cache
def _select(number: int) -> Any:
    return select(*_NODE).where(_among(number))


@cache
def _delete(number: int) -> Any:
    return delete(NodeRow).where(_among(number)).execution_options(synchronize_session=False)


def _among(number: int) -> Any:
    # One parameter each: an "expanding" one is compiled again whenever it is used.
    return NodeRow.id.in_([bindparam(name) for name in _names(number)])


@cache
def _names(number: int) -> list[str]:
    return [f"id_{position}" for position in range(number)]


_UPSERT = {"sqlite": _upsert(sqlite.insert), "postgresql": _upsert(postgresql.insert)}


# --- reading ------------------------------------------------------------------------------------------------------


def read_one(session: Session, key: str) -> Node | None:
    row = session.execute(_ONE, {"node_id": rank(to_bytes(key))}).first()
    return None if row is None else _node(key, row)


def read_many(session: Session, keys: Collection[str]) -> dict[str, Node | None]:
    by_bytes = {to_bytes(key): key for key in keys}
    found: dict[str, Node | None] = dict.fromkeys(keys)
    for ids in _chunks([rank(key) for key in by_bytes]):
        for row in session.execute(_select(len(ids)), _named(ids)).all():
            key = by_bytes[row[0]]
            found[key] = _node(key, row)
    return found


class Children(NamedTuple):
    """What is right below a key: all of it, or any ``limit`` of it."""

    key: str
    limit: int | None


class Listing(NamedTuple):
    """What is at a key, and right below it; or all below, if ``recursive``."""

    key: str
    recursive: bool


def read_children(session: Session, wanted: Children) -> list[Node]:
    parameters: dict[str, object] = {"parent_id": rank(to_bytes(wanted.key))}
    if wanted.limit is None:
        return _nodes(session, _CHILDREN, parameters)
    return _nodes(session, _SOME_CHILDREN, {**parameters, "number": wanted.limit})


def read_descendants(session: Session, key: str) -> list[Node]:
    return _nodes(session, _BELOW, _bounds(key))


def read_listing(session: Session, wanted: Listing) -> list[Node]:
    """One statement, and so of one moment."""
    node_id = rank(to_bytes(wanted.key))
    if wanted.recursive:
        return _nodes(session, _WITH_BELOW, {"node_id": node_id, **_bounds(wanted.key)})
    return _nodes(session, _WITH_CHILDREN, {"node_id": node_id, "parent_id": node_id})


def _bounds(key: str) -> dict[str, object]:
    """Between which keys, and ranks, all are that lie below ``key``."""
    first = to_bytes(key.rstrip("/")) + b"/"
    end = first[:-1] + b"0"  # the byte after "/"
    if len(first) <= MAX_PLAIN:
        first_id, end_id = first, end
    else:
        first_id = first[:MAX_PLAIN]
        end_id = first_id + b"\xff" * 33  # longer than any digest
    return {"first": first, "end": end, "first_id": first_id, "end_id": end_id}


def read_next_expiration(session: Session, after: int) -> int | None:
    found: int | None = session.execute(_NEXT_EXPIRATION, {"after": after}).scalar_one()
    return found


def read_expired(session: Session, before: int) -> list[Node]:
    return _nodes(session, _EXPIRED, {"before": before})


def _nodes(session: Session, statement: Any, parameters: dict[str, object]) -> list[Node]:
    return [_node(to_text(row[0]), row) for row in session.execute(statement, parameters).all()]


class Page(NamedTuple):
    """Nodes behind a place in the order of ``rank``; ``end`` is the last place looked at, None at the end of all."""

    nodes: list[Node]
    end: bytes | None


def read_page(session: Session, after: bytes) -> Page:
    """Some nodes behind ``after``, as many as make up `PAGE_SIZE`, or one."""
    places = session.execute(_PLACES, {"after": after}).all()
    count = size = 0
    while count < len(places) and (not count or size + sum(places[count][1:]) <= PAGE_SIZE):
        size += sum(places[count][1:])
        count += 1
    if not count:
        return Page([], None)
    end = places[count - 1][0]
    nodes = _nodes(session, _PAGE, {"after": after, "end": end})
    return Page(nodes, end if count < len(places) or count == CHUNK else None)


# --- writing ------------------------------------------------------------------------------------------------------


class Write(NamedTuple):
    """One transaction.  ``expected``: the marks that the database must be at; None if anything will do."""

    upserts: Iterable[Node]
    deletes: Iterable[str]
    marks: Marks
    expected: Marks | None


def write(session: Session, work: Write) -> None:
    """Carries it out and commits.  Raises StoreError when the database is not where it was left."""
    _move(session, work)  # first: it locks out everybody else who would write
    rows = [_row(node) for node in work.upserts]
    if rows:
        session.execute(_UPSERT[session.get_bind().dialect.name], rows)
    for ids in _chunks([rank(to_bytes(key)) for key in work.deletes]):
        session.execute(_delete(len(ids)), _named(ids))
    session.commit()


def clear(session: Session, marks: Marks) -> None:
    """Begins to replace everything: with no nodes yet, and other marks.  Not committed."""
    _move(session, Write((), (), marks, None))
    session.execute(_CLEAR)


def insert_new(session: Session, nodes: Sequence[Node]) -> None:
    """Nodes that are not there yet.  Not committed."""
    if nodes:
        session.execute(_INSERT, [_row(node) for node in nodes])


def _move(session: Session, work: Write) -> None:
    parameters = {"to_index": work.marks.etcd_index, "to_applied": work.marks.applied}
    if work.expected is None:
        moved: Any = session.execute(_MOVE, parameters)
    else:
        expected = {"from_index": work.expected.etcd_index, "from_applied": work.expected.applied}
        moved = session.execute(_MOVE_FROM, parameters | expected)
    if isinstance(moved, CursorResult) and moved.rowcount != 1:
        raise StoreError(
            f"the database is not as this node left it, at entry {work.expected and work.expected.applied}: "
            "somebody else writes to it, or has restored it; see to that and start the node again"
        )


# --- marks --------------------------------------------------------------------------------------------------------


def settle(session: Session, before: Marks | None) -> Marks:
    """The marks as they are, once no transaction under way can move them any more.

    Raises StoreError when they lie behind ``before``: what was committed is gone.
    """
    marks = Marks(*session.execute(_MARKS.with_for_update()).one())
    session.rollback()
    if before is not None and marks.applied < before.applied:
        raise StoreError(
            f"the database is back at entry {marks.applied}, and was at {before.applied}: start the node again, so "
            "that it applies what is missing"
        )
    return marks


def prepare(session: Session, owner: Owner | None) -> Marks:
    """Makes the tables in a database that has none, and claims it for ``owner``; None: that is done later.

    Raises StoreError, and has changed nothing then.
    """
    connection = session.connection()
    if not inspect(connection).has_table(MarksRow.__tablename__):
        Base.metadata.create_all(connection)
        session.add(MarksRow(id=1, etcd_index=0, applied_index=0, cluster=UNCLAIMED, member=UNCLAIMED))
        session.commit()
    if owner is not None:
        claim(session, owner)
    return Marks(*session.execute(_MARKS).one())


def claim(session: Session, owner: Owner) -> None:
    """From now on the database is ``owner``'s.  Raises StoreError when it is another's."""
    marks = session.scalars(select(MarksRow).with_for_update()).one()
    held = Owner(marks.cluster, marks.member)
    if held == (UNCLAIMED, UNCLAIMED):
        marks.cluster, marks.member = owner
        session.commit()
    elif held != owner:
        raise StoreError(
            f"the database belongs to member {held.member} of cluster {held.cluster}, and this is "
            f"member {owner.member} of cluster {owner.cluster}: give each its own"
        )


# --- between nodes and rows ---------------------------------------------------------------------------------------


def _node(key: str, row: Sequence[Any]) -> Node:
    _, value, modified_index, created_index, is_dir, expiration = row
    text = None if value is None else to_text(value)
    return Node(key, text, modified_index, created_index, is_dir, expiration)


def _row(node: Node) -> dict[str, object]:
    key = to_bytes(node.key)
    return {
        "id": rank(key),
        "parent": rank(to_bytes(parent_of(node.key))),
        "key": key,
        "value": None if node.value is None else to_bytes(node.value),
        "modified_index": node.modified_index,
        "created_index": node.created_index,
        "dir": node.dir,
        "expiration": node.expiration,
    }


def _named(ids: Sequence[bytes]) -> dict[str, bytes]:
    return dict(zip(_names(len(ids)), ids, strict=True))


def _chunks(ids: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """At most ``CHUNK`` at a time, the last one filled up with its last id to a power of two."""
    for start in range(0, len(ids), CHUNK):
        chunk = ids[start : start + CHUNK]
        missing = (1 << (len(chunk) - 1).bit_length()) - len(chunk)
        yield [*chunk, *[chunk[-1]] * missing]
