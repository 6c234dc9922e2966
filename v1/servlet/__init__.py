"""v1.servlet: threads, SQLAlchemy's ORM with blocking sessions; Flask on hypercorn or granian."""
