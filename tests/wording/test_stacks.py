"""Which stack is recognised by which evidence. `test_on_servers.py` shows that real drivers send such statements."""

import re

import pytest

from pgwatch_sessions.core.model import Client, Session
from pgwatch_sessions.wording.advice import RUNBOOK, advice_of
from pgwatch_sessions.wording.stacks.recognition import STACKS, recognise
from tests.support.alert_rules import ALERTS
from tests.support.findings import finding
from tests.support.values import session

NONE, SELECT = "(none)", "SELECT * FROM orders WHERE id = $1"


def sessions_of(application: str, *queries: str) -> list[Session]:
    """Return sessions of one client with these last statements."""
    client = Client("shop", "app", application)
    return [session(pid, client=client, query=query) for pid, query in enumerate(queries or (SELECT,), start=1)]


@pytest.mark.parametrize(
    ("application", "query", "names"),
    [
        # nothing shows it
        (NONE, SELECT, ""),
        ("orders-api", "COMMIT", ""),
        (NONE, "BEGIN", ""),
        (NONE, "SELECT o.id FROM orders AS o WHERE id = $1::int4", ""),
        ("node-3", SELECT, ""),
        ("railsback", SELECT, ""),
        # names that drivers and frameworks set, or that people give
        ("PostgreSQL JDBC Driver", SELECT, "JDBC and HikariCP"),
        ("HikariPool-1", SELECT, "JDBC and HikariCP"),
        ("Rails: shop", SELECT, "Rails"),
        ("bin/rails", SELECT, "Rails"),
        ("/srv/shop/bin/rails", SELECT, "Rails"),
        ("puma: cluster worker 0: 10 [shop]", SELECT, "Rails"),
        ("sidekiq 7.2.4 shop [0 of 5 busy]", SELECT, "Rails"),
        ("node", SELECT, "node-postgres"),
        ("shop-knex", SELECT, "node-postgres"),
        ("orders-pgx", SELECT, "Go (database/sql, pgx)"),
        ("Npgsql", SELECT, "Npgsql"),
        ("psycopg", SELECT, "psycopg"),
        ("orders-asyncpg", SELECT, "asyncpg"),
        ("django", SELECT, "Django"),
        # statements
        (NONE, "BEGIN;", "asyncpg"),
        (NONE, "ROLLBACK;", "asyncpg"),
        (NONE, "SAVEPOINT __asyncpg_savepoint_1__;", "asyncpg"),
        (NONE, "SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;", "asyncpg's pool"),
        (NONE, "SELECT * FROM orders WHERE id = $1::INTEGER", "SQLAlchemy"),
        (NONE, "SELECT count(*) AS count_1 \nFROM orders", "SQLAlchemy"),
        (NONE, "SELECT orders.id AS orders_id FROM orders", "SQLAlchemy"),
        (NONE, "DEALLOCATE ALL", "psycopg"),
        (NONE, 'SAVEPOINT "s140544917724032_x1"', "Django"),
        (NONE, 'SELECT "django_session"."session_key" FROM "django_session"', "Django"),
        (NONE, "SAVEPOINT active_record_1", "Rails"),
        (NONE, "SHOW TRANSACTION ISOLATION LEVEL", "JDBC and HikariCP"),
        (NONE, "select ue1_0.ID,ue1_0.EMAIL from USER_ENTITY ue1_0 where ue1_0.ID=$1", "JDBC and HikariCP"),
        (NONE, 'select * from "items" where "id" = $1 limit $2', "node-postgres"),
        (NONE, "begin isolation level serializable", "Go (database/sql, pgx)"),
        (NONE, "commit", "Go (database/sql, pgx)"),
        (NONE, "DISCARD ALL", "PgBouncer"),
        # tags
        (NONE, "SELECT 1 + 1 /*framework='fastapi%3A0.165',db_driver='asyncpg'*/", "FastAPI, asyncpg"),
        (NONE, "SELECT 1 + 1 /*framework='Django%3A5.2'*/", "Django"),
        (NONE, "SELECT 1 + 1 /*db_framework='sqlalchemy%3A2.0.58',db_driver='psycopg2%3A2.9'*/", "SQLAlchemy, psycopg"),
        (NONE, "SELECT 1 + 1 /*action='index',controller='orders'*/", "Rails"),
        (NONE, "SELECT 1 + 1 /*application:Shop,controller:orders,action:index*/", "Rails"),
        (NONE, "SELECT 1 + 1 /*action='index',controller='orders',framework='spring'*/", "JDBC and HikariCP"),
        (NONE, "SELECT 1 + 1 /*action='index',controller='orders',framework='laravel-9'*/", ""),
        (NONE, "SELECT 1 + 1 /*db_driver='knex%3A0.0.1'*/", "node-postgres"),
    ],
)
def test_a_stack_is_recognised_by_names_statements_and_tags(application: str, query: str, names: str) -> None:
    """Sessions that are not held count too."""
    found = recognise(sessions_of(application, "SELECT 1", query))
    assert ", ".join(stack.name for stack in found.stacks) == names
    assert bool(found.evidence) == bool(names)


@pytest.mark.parametrize(
    ("application", "queries", "names"),
    [
        # stacks of one family are combined, the most specific first
        (NONE, ["BEGIN;", "SELECT $1::INTEGER"], ["SQLAlchemy", "asyncpg"]),
        (NONE, ["SELECT 1 + 1 /*framework='fastapi'*/", "SELECT $1::INTEGER"], ["FastAPI", "SQLAlchemy"]),
        # a name is more reliable than a statement
        ("PostgreSQL JDBC Driver", ["SELECT $1::UUID", "BEGIN;"], ["JDBC and HikariCP"]),
        ("node", ["begin"], ["node-postgres"]),
        # Knex sends `BEGIN;` as asyncpg does
        (NONE, ["BEGIN;", 'select * from "items" limit $1'], ["node-postgres"]),
        # a pooler is in front of any of them
        ("node", ["DISCARD ALL"], ["node-postgres", "PgBouncer"]),
    ],
)
def test_several_signs_are_weighed(application: str, queries: list[str], names: list[str]) -> None:
    """Statements of another language are left out."""
    assert [stack.name for stack in recognise(sessions_of(application, *queries)).stacks] == names


@pytest.mark.parametrize("stack", STACKS, ids=lambda stack: str(stack.name))
def test_every_stack_has_a_section_in_the_runbook(stack: object) -> None:
    """Its anchor is a heading there, and the section has wrong code, right code and settings."""
    anchor = next(each.anchor for each in STACKS if each is stack)
    text = (ALERTS / "runbooks" / "DatabaseConnectionLeak.md").read_text(encoding="utf-8")
    sections = {
        re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-"): body
        for heading, body in re.findall(r"^### ([^\n]+)\n(.*?)(?=^###? |\Z)", text, re.MULTILINE | re.DOTALL)
    }
    assert anchor in sections
    for part in ("**Settings**", "**Confirm**:"):
        assert part in sections[anchor], f"{anchor} lacks {part}"
    if anchor != "pgbouncer-in-front":
        assert re.search(r"^(?:#|//) before", sections[anchor], re.MULTILINE)
        assert re.search(r"^(?:#|//) after", sections[anchor], re.MULTILINE)


def test_the_advice_names_the_stack_and_what_shows_it() -> None:
    """Its link leads to the section of the runbook. A maintenance tool has no stack."""
    held = sessions_of("PostgreSQL JDBC Driver")
    stack = advice_of(finding(*held)).stack
    assert stack == ("JDBC and HikariCP", "its application name", f"{RUNBOOK}#jdbc-and-hikaricp")
    assert advice_of(finding(*held, is_tool=True)).stack is None
    assert advice_of(finding(*sessions_of("orders"))).stack is None
