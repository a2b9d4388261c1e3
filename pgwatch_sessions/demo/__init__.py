"""The demo: an embedded PostgreSQL and a small service that leaks on it."""
