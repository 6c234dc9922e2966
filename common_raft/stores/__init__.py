"""Stores for the keyspace in a SQL database, through SQLAlchemy's ORM.

`SqlStore` blocks (``Session``), `AsyncSqlStore` awaits (``AsyncSession``); both have the same mapped classes
(``models.py``) and the same statements (``operations.py``).  `PooledKeyspace` makes a keyspace over a blocking store
awaitable, through a bounded pool of threads.
"""

from common_raft.stores.asynchronous import AsyncSqlStore
from common_raft.stores.blocking import SqlStore
from common_raft.stores.database import Database
from common_raft.stores.operations import Owner
from common_raft.stores.pooled import PooledKeyspace

__all__ = ["AsyncSqlStore", "Database", "Owner", "PooledKeyspace", "SqlStore"]
