"""What sessions' statements give away about the software that sent them; nothing that they do not show.

Read off real servers: asyncpg ends its own BEGIN, COMMIT and ROLLBACK with `;` and names its savepoints; its pool
resets with a block of its own; SQLAlchemy 2 casts parameters to type names in capitals (`$1::INTEGER`), whichever
the driver.
A person at a console writes `BEGIN;` as well, which is why tools are told apart first.
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
    """What is known of a client's software."""

    asyncpg: bool
    #: Sessions go back into asyncpg's own pool.
    asyncpg_pool: bool
    sqlalchemy: bool
    #: As the comment tags name them, in lower case.
    named: frozenset[str]


def recognise_software(sessions: Iterable[Session]) -> ClientSoftware:
    """Read the last statements of a client's sessions."""
    statements = {session.statement for session in sessions}
    texts = [statement.text for statement in statements]
    tags = ((key, value.lower()) for statement in statements for key, value in statement.tags)
    named = frozenset(value for key, value in tags if key in {"framework", "db_driver"})
    pool = any(map(_ASYNCPG_RESET.fullmatch, texts))
    return ClientSoftware(
        asyncpg=pool or any(map(_ASYNCPG.match, texts)) or any("asyncpg" in name for name in named),
        asyncpg_pool=pool,
        sqlalchemy=any(map(_SQLALCHEMY_CAST.search, texts)) or any("sqlalchemy" in name for name in named),
        named=named,
    )
