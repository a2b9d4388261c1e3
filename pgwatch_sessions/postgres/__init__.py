"""The poll: one held connection to one PostgreSQL server, and rows made into a Snapshot."""
