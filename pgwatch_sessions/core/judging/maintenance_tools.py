"""Maintenance tools, recognised by their application_name: consoles, dumps, backups, replication.

They may be idle, or stay in one transaction, for hours. Their sessions are counted, but reported only when they block
others or hold back vacuum.
"""

from fnmatch import fnmatchcase
from functools import lru_cache

#: Programs in which a person types statements. Shell patterns that ignore case.
CONSOLES = (
    "psql",
    "pgcli",
    "pgadmin*",
    "dbeaver*",
    "datagrip*",
    "intellij*",
    "tableplus*",
    "navicat*",
    "azure data studio*",
)
#: The default patterns of maintenance tools.
KNOWN_TOOLS = (
    *CONSOLES,
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
#: The first words, in upper case, of statements that maintain or copy a database. Such statements may run for hours.
_WORK = ("VACUUM", "ANALYZE", "CREATE INDEX", "CREATE UNIQUE INDEX", "REINDEX", "CLUSTER", "REFRESH", "COPY", "ALTER")


@lru_cache(maxsize=4096)
def is_maintenance_tool(application: str, patterns: tuple[str, ...]) -> bool:
    """Return whether an application_name matches one of the shell patterns; case is ignored."""
    name = application.lower()
    return any(fnmatchcase(name, pattern.lower()) for pattern in patterns)


def is_maintenance_work(text: str) -> bool:
    """Return whether a redacted statement maintains a database or copies it."""
    return text[: len("CREATE UNIQUE INDEX")].upper().startswith(_WORK)
