"""Version 1: the keyspace in a SQL database, through SQLAlchemy's ORM; SQLite in memory by default."""
