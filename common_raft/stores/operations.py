"""What a store does with a session, written once: `SqlStore` calls these, `AsyncSqlStore` runs them in its loop.

Statements are made once, with parameters, so that the ORM compiles each a single time; those that depend on how
many keys there are come in sizes that are powers of two, so that a database has few of them to prepare.  Results are
rows of the mapped attributes, not objects: an identity map would cost half as much again, and has nothing to track.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, cast

from sqlalchemy import CursorResult, Table, bindparam, delete, inspect, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from common_raft.keyspace.node import Node
from common_raft.keyspace.store import StoreError, parent_of
from common_raft.stores.models import MAX_PLAIN, Base, MarksRow, NodeRow, identity

#: Parameters of one statement: SQLite takes 32,766 and PostgreSQL's drivers 32,767; beyond this, size gains nothing.
CHUNK = 512


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
_ONE = select(*_NODE).where(NodeRow.id == bindparam("node_id"))
_MANY = select(*_NODE).where(NodeRow.id.in_(bindparam("ids", expanding=True)))
_CHILDREN = select(*_NODE).where(NodeRow.parent == bindparam("parent_id")).order_by(NodeRow.key)
_BELOW = (  # by the index, and then exactly: identities of long keys only begin as the keys do
    select(*_NODE)
    .where(NodeRow.id >= bindparam("first_id"), NodeRow.id < bindparam("end_id"))
    .where(NodeRow.key > bindparam("first"), NodeRow.key < bindparam("end"))
    .order_by(NodeRow.key)
)
_EXPIRED = (
    select(*_NODE).where(NodeRow.expiration <= bindparam("before")).order_by(NodeRow.expiration, NodeRow.key)
)
_DELETE = (
    delete(NodeRow)
    .where(NodeRow.id.in_(bindparam("ids", expanding=True)))
    .execution_options(synchronize_session=False)
)
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


_UPSERT = {"sqlite": _upsert(sqlite.insert), "postgresql": _upsert(postgresql.insert)}


# --- reading ------------------------------------------------------------------------------------------------------


def read_one(session: Session, key: str) -> Node | None:
    row = session.execute(_ONE, {"node_id": identity(_bytes(key))}).first()
    return None if row is None else _node(key, row)


def read_many(session: Session, keys: Collection[str]) -> dict[str, Node | None]:
    by_bytes = {_bytes(key): key for key in keys}
    found: dict[str, Node | None] = dict.fromkeys(keys)
    for ids in _chunks([identity(key) for key in by_bytes]):
        for row in session.execute(_MANY, {"ids": ids}).all():
            key = by_bytes[row[0]]
            found[key] = _node(key, row)
    return found


def read_children(session: Session, key: str) -> list[Node]:
    return _nodes(session, _CHILDREN, {"parent_id": identity(_bytes(key))})


def read_descendants(session: Session, key: str) -> list[Node]:
    first = _bytes(key.rstrip("/")) + b"/"
    end = first[:-1] + b"0"  # the byte after "/"
    if len(first) <= MAX_PLAIN:
        first_id, end_id = first, end
    else:
        first_id = first[:MAX_PLAIN]
        end_id = first_id + b"\xff" * 33  # longer than any digest
    return _nodes(session, _BELOW, {"first": first, "end": end, "first_id": first_id, "end_id": end_id})


def read_expired(session: Session, before: int) -> list[Node]:
    return _nodes(session, _EXPIRED, {"before": before})


def _nodes(session: Session, statement: Any, parameters: dict[str, object]) -> list[Node]:
    return [_node(_text(row[0]), row) for row in session.execute(statement, parameters).all()]


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
    for ids in _chunks([identity(_bytes(key)) for key in work.deletes]):
        session.execute(_DELETE, {"ids": ids})
    session.commit()


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


def prepare(session: Session, owner: Owner) -> Marks:
    """Makes the tables in a database that has none, for ``owner``; refuses another's.

    Raises StoreError, and has changed nothing then.
    """
    connection = session.connection()
    if not inspect(connection).has_table(MarksRow.__tablename__):
        Base.metadata.create_all(connection)
        session.add(MarksRow(id=1, etcd_index=0, applied_index=0, cluster=owner.cluster, member=owner.member))
        session.commit()
    marks = session.scalars(select(MarksRow)).one()
    held = Owner(marks.cluster, marks.member)
    if held != owner:
        raise StoreError(
            f"the database belongs to member {held.member} of cluster {held.cluster}, and this is "
            f"member {owner.member} of cluster {owner.cluster}: give each its own"
        )
    return Marks(marks.etcd_index, marks.applied_index)


# --- between nodes and rows ---------------------------------------------------------------------------------------


def _node(key: str, row: Sequence[Any]) -> Node:
    _, value, modified_index, created_index, is_dir, expiration = row
    text = None if value is None else _text(value)
    return Node(key, text, modified_index, created_index, is_dir, expiration)


def _row(node: Node) -> dict[str, object]:
    key = _bytes(node.key)
    return {
        "id": identity(key),
        "parent": identity(_bytes(parent_of(node.key))),
        "key": key,
        "value": None if node.value is None else _bytes(node.value),
        "modified_index": node.modified_index,
        "created_index": node.created_index,
        "dir": node.dir,
        "expiration": node.expiration,
    }


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _chunks(ids: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """At most ``CHUNK`` at a time, the last one filled up with its last id to a power of two."""
    for start in range(0, len(ids), CHUNK):
        chunk = ids[start : start + CHUNK]
        missing = (1 << (len(chunk) - 1).bit_length()) - len(chunk)
        yield [*chunk, *[chunk[-1]] * missing]
