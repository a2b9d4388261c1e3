"""What the server shows of the sessions of a test."""

from typing import NamedTuple

import psycopg

from pgwatch_sessions.core.client_names import tagged_application
from pgwatch_sessions.core.statements import Statement, parse_statement
from tests.support.servers import Database


class Shown(NamedTuple):
    """One session, as the daemon reads it."""

    application_name: str
    text: str
    statement: Statement

    @property
    def tags(self) -> dict[str, str]:
        """The tags of its last statement."""
        return dict(self.statement.tags)

    @property
    def application(self) -> str | None:
        """The application in its tags."""
        return tagged_application(self.statement)


def shown(database: Database) -> list[Shown]:
    """Return the sessions of a database, without the one that asks, the latest statement first."""
    with psycopg.connect(database.dsn()) as connection:
        rows = connection.execute(
            "SELECT application_name, query FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid() AND backend_type = 'client backend' ORDER BY query_start DESC NULLS LAST"
        ).fetchall()
    return [Shown(name, text, parse_statement(text)) for name, text in rows]


def line_of(function: object, text: str) -> int:
    """Return the number of the first line of a function that has this text."""
    code = function.__code__  # type: ignore[attr-defined]  # every plain function has it
    with open(code.co_filename, encoding="utf-8") as source:  # noqa: PTH123  # a name, as Python keeps it
        lines = source.read().splitlines()
    first = code.co_firstlineno
    return next(number for number, line in enumerate(lines[first - 1 :], first) if text in line)
