"""v1.reactive: asyncio driver, SQLAlchemy's AsyncSession over aiosqlite; Starlette."""
