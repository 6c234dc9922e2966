"""v3.reactive: asyncio driver, SQLAlchemy's blocking Session in a pool of threads; Starlette."""
