import contextlib
import math
from dataclasses import replace
from itertools import product

import psycopg
import pytest

from pgwatch_sessions.core.findings import Finding, FindingKey, Harm, LeakKind, Severity
from pgwatch_sessions.core.judging.detection import UNKNOWN_SITE, VARIOUS_SITES
from pgwatch_sessions.core.model import NONE, Client, Session, SessionId, SessionState
from pgwatch_sessions.wording.advice import MAX_TERMINATED, RUNBOOK, advice_of, termination_of
from tests.support.servers import Database
from tests.support.values import NOW, ORDERS, session
from tests.support.waiting import until

SELECT = "SELECT * FROM orders WHERE id = 4711 AND secret = 'swordfish'"
RESET = "SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;"


def held(pid: int = 1, state: SessionState = SessionState.IDLE_IN_TRANSACTION, query: str = SELECT) -> Session:
    """Make a session that has been held for two minutes."""
    return session(pid, state, since=NOW - 120, query=query)


def finding(
    *sessions: Session,
    kind: LeakKind = LeakKind.TRANSACTION_HELD,
    client: Client = ORDERS,
    site: str = "SELECT orders",
    **fields: object,
) -> Finding:
    """Make a finding of these sessions, by default a leak that grows."""
    key = FindingKey(client, kind, site)
    values: dict[str, object] = {
        "key": key,
        "opened_as": key,
        "severity": Severity.WARNING,
        "is_leak": True,
        "is_tool": False,
        "sessions": sessions,
        "origins": ("10.0.0.7",),
        "since": NOW - 120,
        "opened_at": NOW,
        "total": len(sessions),
        "rate_per_minute": 12.0,
        "exhaustion_seconds": 300.0,
        "harm": Harm(slots=len(sessions)),
    }
    return Finding(**(values | fields))  # type: ignore[arg-type]  # the fields a test names


def words(told: Finding, *beside: Session) -> str:
    """Return all that a person reads of the advice."""
    advice = advice_of(told, beside)
    return "\n".join((advice.cause, *advice.steps))


def test_the_statement_ends_the_session_that_it_names_and_no_other(database: Database) -> None:
    """On a real server: a microsecond beside the session's start nobody is hit, with it the session is gone."""
    dsn = database.dsn()
    with psycopg.connect(dsn, autocommit=True) as console:

        def ended(identity: SessionId) -> int:
            statement = termination_of(identity)
            assert statement is not None
            return len(console.execute(statement.encode()).fetchall())

        def start_of(pid: int) -> float | None:
            query = b"SELECT extract(epoch FROM backend_start)::float8 FROM pg_stat_activity WHERE pid = %s"
            row = console.execute(query, [pid]).fetchone()
            return row[0] if row else None

        with contextlib.closing(psycopg.connect(dsn)) as connection:
            connection.execute("SELECT 1")
            pid = connection.info.backend_pid
            start = start_of(pid)
            assert start is not None
            assert ended(SessionId(pid, start + 1e-6)) == ended(SessionId(pid, start - 1e-6)) == 0
            assert start_of(pid) == start
            assert ended(SessionId(pid, start)) == 1
            until(lambda: start_of(pid) is None)


def test_the_statement_is_exact_to_the_microsecond() -> None:
    """As PostgreSQL writes times in UTC; where the start is not known there is no statement."""
    assert termination_of(SessionId(123, 1795238653.123456)) == (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE pid = 123 AND backend_start = '2026-11-21 05:24:13.123456+00';"
    )
    assert termination_of(SessionId(123, None)) is None


def test_the_longest_held_are_ended_first_and_no_more_than_somebody_pastes() -> None:
    """One statement a session in the finding's order, then how many are left, which is SQL still."""
    sessions = [held(pid) for pid in range(1, MAX_TERMINATED + 8)]
    statements = advice_of(finding(*sessions)).terminate
    assert [f"pid = {pid} " in sql for pid, sql in enumerate(statements[:-1], start=1)] == [True] * MAX_TERMINATED
    assert statements[-1] == "-- and 7 more"
    assert len(advice_of(finding(*sessions[:MAX_TERMINATED])).terminate) == MAX_TERMINATED


@pytest.mark.parametrize(
    ("told", "cause"),
    [
        (finding(held()), "neither committed, rolled back nor closed"),
        (finding(held()), "cancelled request"),
        (
            finding(held()),
            "lives through a StreamingResponse or a background task (FastAPI before 0.106 and from 0.118",
        ),
        (finding(held(), is_leak=False), "may still end: usually an external call"),
        (finding(held(state=SessionState.ABORTED)), "A statement failed"),
        (finding(held(query="BEGIN;")), "asyncpg's `transaction().start()`"),
        (finding(held(query="BEGIN")), "opened and nothing was done in them: a `begin`"),
        (finding(held(state=SessionState.IDLE), kind=LeakKind.CONNECTION_HELD), "AUTOCOMMIT session"),
        (finding(held(state=SessionState.IDLE), kind=LeakKind.ORIGIN_GROWTH), "`connect()` without a close"),
        (
            finding(held(state=SessionState.IDLE, query="ROLLBACK"), kind=LeakKind.ORIGIN_GROWTH),
            "pool made for each request",
        ),
        (finding(held(), client=Client("shop", "ann", "psql"), is_tool=True), "Somebody's tool (psql)"),
    ],
)
def test_the_cause_follows_from_what_the_server_shows(told: Finding, cause: str) -> None:
    """Kind, state, last statement, and whether it may still end."""
    assert cause in advice_of(told).cause


def test_an_aborted_transaction_among_others_is_no_cause_for_all() -> None:
    """Where the states differ, the cause that covers all is told."""
    mixed = finding(held(1), held(2, SessionState.ABORTED))
    assert "A statement failed" not in advice_of(mixed).cause


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ("SELECT * FROM orders /*route='/orders/%7Bid%7D'*/", "the route `SITE`"),
        ("SELECT * FROM orders /*controller='orders',action='show'*/", "the controller `SITE`"),
        ("SELECT * FROM orders /*job='nightly'*/", "the job `SITE`"),
        ("SELECT * FROM orders /*file='shop.py',func='show'*/", "the function `SITE`"),
        (SELECT, "the statement `SITE`"),
    ],
)
def test_the_place_is_named_by_what_the_tags_know(query: str, place: str) -> None:
    """Route, controller, job or function; else the statement, with the hint that tags would tell more."""
    told = words(finding(held(query=query), site="SITE"))
    assert told.count(place) == 2
    assert ("sqlcommenter" in told) == (query is SELECT)


@pytest.mark.parametrize(("site", "place"), [(UNKNOWN_SITE, "a place that is not shown"), (VARIOUS_SITES, "various")])
def test_a_site_that_names_none_is_not_quoted(site: str, place: str) -> None:
    """Its label is for metrics; people read a sentence."""
    told = words(finding(held(), site=site))
    assert place in told
    assert site not in told


@pytest.mark.parametrize(
    ("told", "beside", "pool"),
    [
        (finding(held()), (), "asyncpg's own recovers"),
        (finding(held()), (session(2, query=RESET),), "asyncpg's replaces the connections"),
        (finding(held(query="SELECT * FROM orders WHERE id = $1::INTEGER")), (), "Restart the application."),
        (finding(held(query="SELECT 1 + 1 /*db_driver='sqlalchemy'*/")), (), "Restart the application."),
    ],
)
def test_what_ending_sessions_does_to_the_pool_depends_on_the_pool(
    told: Finding, beside: tuple[Session, ...], pool: str
) -> None:
    """The client's other sessions may show which it is; where nothing does, both are told."""
    assert pool in words(told, *beside)


def test_another_framework_is_not_told_about_fastapi() -> None:
    """A tag that names one leaves no doubt."""
    tagged = finding(held(query="SELECT * FROM orders /*framework='django%3A5.2',route='/x'*/"))
    assert "FastAPI" not in words(tagged)
    assert "FastAPI" in words(finding(held(query="SELECT * FROM orders /*framework='fastapi%3A0.165'*/")))


@pytest.mark.parametrize(
    ("rate", "origins", "gone"),
    [
        (0.0, ("10.0.0.7",), True),
        (12.0, ("10.0.0.7",), False),
        (0.0, ("127.0.0.1",), False),
        (0.0, (), False),
        (0.0, ("10.0.0.7", "10.0.0.8"), False),
    ],
)
def test_a_host_that_is_gone_is_told_where_it_looks_the_same(
    rate: float, origins: tuple[str, ...], *, gone: bool
) -> None:
    """New holds come from a host that lives, and a socket or this machine is not lost; else it is possible."""
    told = finding(held(), rate_per_minute=rate, origins=origins)
    assert ("or its host is gone" in advice_of(told).cause) == gone


def test_harm_is_told() -> None:
    """Who waits, what vacuum cannot do, and that uncommitted changes are lost with the session."""
    harmful = finding(held(), is_leak=False, harm=Harm(slots=1, blocked=3, xmin_age_max=2_000_000, xid_age_max=5))
    told = words(harmful)
    assert "3 sessions of others wait for them" in told
    assert "hold vacuum back by 2,000,000 transactions" in told
    assert "What they have not committed is rolled back." in told
    assert "Ending them lets those go on that wait." in told
    assert "vacuum" not in words(finding(held(), harm=Harm(slots=1, xmin_age_max=12)))


def test_a_leak_whose_sessions_are_killed_while_it_goes_on_is_told_as_one() -> None:
    """The server polls better than the application is."""
    killed = finding(held(), held(2), total=20)
    assert "18 of its 20 sessions have ended while new ones came" in advice_of(killed).cause
    assert "have ended" not in advice_of(replace(killed, rate_per_minute=0.0)).cause


def test_a_tool_has_no_pool_and_no_code_to_mend() -> None:
    """Somebody runs it: ask them."""
    (step,) = advice_of(finding(held(), client=Client("shop", "ann", "psql"), is_tool=True)).steps
    assert "ask whoever runs it" in step


def test_the_backstop_names_the_role_as_sql_wants_it() -> None:
    """Quoted, whatever its name; and no role where none is known."""
    assert '`ALTER ROLE "a""b" SET ' in words(finding(held(), client=Client("shop", 'a"b', "orders")))
    assert "ALTER ROLE" not in words(finding(held(), client=Client("shop", NONE, "orders")))


def test_every_finding_has_advice_free_of_literals() -> None:
    """Whatever kind, state, statement, size and growth it has; with the anchor of its kind."""
    queries = (SELECT, "BEGIN;", "ROLLBACK", "", "UPDATE a SET b = 'swordfish' /*route='/x'*/")
    for kind, state, query, is_leak, rate, count in product(
        LeakKind, SessionState, queries, (True, False), (0.0, 3.0), (0, 1, 20)
    ):
        sessions = [held(pid, state, query) for pid in range(count)]
        advice = advice_of(
            finding(*sessions, kind=kind, is_leak=is_leak, rate_per_minute=rate, exhaustion_seconds=math.inf)
        )
        assert advice.cause.endswith(".")
        assert all(step.endswith((".", "`")) for step in advice.steps)
        assert len(advice.steps) == (4 if count else 3)
        told = "\n".join((advice.cause, *advice.steps, *advice.terminate))
        assert "swordfish" not in told
        assert "4711" not in told
        assert "  " not in told
        assert advice.runbook == f"{RUNBOOK}#{kind.replace('_', '-')}"
