"""The mapped classes: what is in the database, and how it is told apart.

Keys and values are bytes to etcd, so they are bytes here: nothing has to be text in any encoding, a NUL is a byte
like another, and the database's order of keys is the order of their bytes.
"""

from sqlalchemy import BigInteger, LargeBinary, SmallInteger, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """All that is kept, as one set of tables."""


class NodeRow(Base):
    """One key and what it holds: see `common_raft.keyspace.Node`."""

    __tablename__ = "raftstacks_nodes"

    id: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)  #: `rank` of the key
    parent: Mapped[bytes] = mapped_column(LargeBinary, index=True)  #: `rank` of the parent
    key: Mapped[bytes] = mapped_column(LargeBinary)
    value: Mapped[bytes | None] = mapped_column(LargeBinary)
    modified_index: Mapped[int] = mapped_column(BigInteger)
    created_index: Mapped[int] = mapped_column(BigInteger)
    dir: Mapped[bool]
    expiration: Mapped[int | None] = mapped_column(BigInteger, index=True)  #: nanoseconds since 1970


class MarksRow(Base):
    """How far the nodes are, and whose they are: one row, changed in the transactions that change nodes."""

    __tablename__ = "raftstacks_marks"

    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)  #: always 1
    etcd_index: Mapped[int] = mapped_column(BigInteger)
    applied_index: Mapped[int] = mapped_column(
        BigInteger
    )  #: Raft's, of the last entry that changed something
    cluster: Mapped[str] = mapped_column(String(64))
    member: Mapped[str] = mapped_column(String(64))
