"""Recognises a client's driver and framework by the statements that its sessions ran last.

Measured on real servers: asyncpg ends its own BEGIN, COMMIT and ROLLBACK with `;` and names its savepoints. Its pool
resets a connection with a block of statements of its own. SQLAlchemy 2 casts parameters to type names in capitals
(`$1::INTEGER`) with every driver.
A person at a console writes `BEGIN;` too, so maintenance tools are told apart by name before this is used.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from pgwatch_sessions.core.model import Session

_ASYNCPG = re.compile(r"(?:BEGIN|COMMIT|ROLLBACK)(?: [A-Z ,]+)?;|.*__asyncpg_", re.DOTALL)
_ASYNCPG_RESET = re.compile(r"SELECT pg_advisory_unlock_all\(\); ?CLOSE ALL; ?UNLISTEN \*; ?RESET ALL;")
_SQLALCHEMY_CAST = re.compile(r"\$\d+::[A-Z]{3}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSoftware:
    """The software of a client, as far as its statements show it. False means that nothing shows it."""

    asyncpg: bool
    #: Whether the client returns its sessions to asyncpg's own pool.
    asyncpg_pool: bool
    sqlalchemy: bool
    #: Frameworks and drivers named in comment tags, in lower case, for example `fastapi:0.165`.
    tagged: frozenset[str]

    @property
    def may_be_fastapi(self) -> bool:
        """Whether the framework is FastAPI or not known."""
        frameworks = [name for name in self.tagged if not name.startswith(("asyncpg", "psycopg", "sqlalchemy"))]
        return not frameworks or any("fastapi" in name for name in frameworks)


def recognise_software(sessions: Iterable[Session]) -> ClientSoftware:
    """Return the software that the last statements of a client's sessions show."""
    statements = {session.statement for session in sessions}
    texts = [statement.text for statement in statements]
    tags = ((key, value.lower()) for statement in statements for key, value in statement.tags)
    tagged = frozenset(value for key, value in tags if key in {"framework", "db_driver"})
    pool = any(map(_ASYNCPG_RESET.fullmatch, texts))
    return ClientSoftware(
        asyncpg=pool or any(map(_ASYNCPG.match, texts)) or any("asyncpg" in name for name in tagged),
        asyncpg_pool=pool,
        sqlalchemy=any(map(_SQLALCHEMY_CAST.search, texts)) or any("sqlalchemy" in name for name in tagged),
        tagged=tagged,
    )
