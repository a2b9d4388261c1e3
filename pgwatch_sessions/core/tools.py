"""Programs that are known by their application_name: people's consoles, dumps, backups, replication.

They sit idle, or in one transaction for hours, as they should. They are counted like everybody, and judged by their
harm only.
"""

from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from functools import lru_cache

#: Shell patterns, matched without regard to case.
KNOWN_TOOLS = (
    "psql",
    "pgcli",
    "pgadmin*",
    "dbeaver*",
    "datagrip*",
    "intellij*",
    "tableplus*",
    "navicat*",
    "azure data studio*",
    "pg_dump",
    "pg_dumpall",
    "pg_restore",
    "pg_basebackup",
    "pg_receivewal",
    "pg_recvlogical",
    "pg_repack",
    "pg_squeeze*",
    "pgbackrest*",
    "barman*",
    "wal-g*",
    "walreceiver",
    "vacuumdb",
    "reindexdb",
    "clusterdb",
    "postgres_exporter*",
    "pgwatch*",
)


def recognise(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Return a function that tells whether an application_name is one of a tool."""
    lowered = tuple(pattern.lower() for pattern in patterns)

    @lru_cache(maxsize=4096)
    def is_tool(application: str) -> bool:
        name = application.lower()
        return any(fnmatchcase(name, pattern) for pattern in lowered)

    return is_tool
