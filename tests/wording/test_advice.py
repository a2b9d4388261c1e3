"""The advice on findings. Most rows show one rule: a finding, the client's software, and a part of the text."""

import math
import re
from collections.abc import Iterable
from dataclasses import replace
from itertools import product

import pytest

from pgwatch_sessions.core.findings import Finding, Harm, LeakKind, Severity
from pgwatch_sessions.core.judging.detection import UNKNOWN_SITE, VARIOUS_SITES
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.model import NONE, Client, Session, SessionId, SessionState
from pgwatch_sessions.core.statements import parse_statement
from pgwatch_sessions.wording.advice import RUNBOOK, advice_of
from pgwatch_sessions.wording.causes import cause_of
from pgwatch_sessions.wording.remedies import remedies_of
from pgwatch_sessions.wording.stacks.neutral import NEUTRAL
from pgwatch_sessions.wording.stacks.python import ASYNCPG, ASYNCPG_POOL, FASTAPI, SQLALCHEMY
from pgwatch_sessions.wording.stacks.recognition import STACKS
from pgwatch_sessions.wording.stacks.stack import Stack, Words, combined
from pgwatch_sessions.wording.termination import MAX_TERMINATED, termination_sql
from tests.support.findings import finding
from tests.support.states import END, SERVER, after, polls_at_a_leak
from tests.support.values import NOW, ORDERS, session, snapshot

SELECT = "SELECT * FROM orders WHERE id = 4711 AND secret = 'swordfish'"
TRANSACTION, CONNECTION, GROWTH = LeakKind.TRANSACTION_HELD, LeakKind.CONNECTION_HELD, LeakKind.ORIGIN_GROWTH
PSQL = Client("shop", "ann", "psql")

UNKNOWN = NEUTRAL
ON_ASYNCPG = combined(ASYNCPG.words, NEUTRAL)
ON_ASYNCPG_POOL = combined(ASYNCPG_POOL.words, ASYNCPG.words, NEUTRAL)
ON_SQLALCHEMY = combined(SQLALCHEMY.words, NEUTRAL)
ON_FASTAPI = combined(FASTAPI.words, ASYNCPG.words, NEUTRAL)


def held(pid: int = 1, state: SessionState = SessionState.IDLE_IN_TRANSACTION, query: str = SELECT) -> Session:
    """Return a session that has been held for two minutes."""
    return session(pid, state, since=NOW - 120, query=query)


ABORTED, IDLE = held(state=SessionState.ABORTED), held(state=SessionState.IDLE)
UPDATE = parse_statement("UPDATE stock SET n = 1 /*route='/orders/%7Bid%7D'*/")
RETURNED = held(state=SessionState.IDLE, query="ROLLBACK")


def harmful(**harm: int) -> Finding:
    """Return a finding that may still end by itself and does this harm."""
    return finding(held(), is_leak=False, harm=Harm(slots=1, **harm))  # type: ignore[arg-type]  # counts


@pytest.mark.parametrize(
    ("found", "words", "text"),
    [
        # the main cause
        (finding(held()), UNKNOWN, "never committed, rolled back or closed"),
        (finding(held()), UNKNOWN, "an exception, an early return or a cancelled request"),
        (finding(held()), ON_SQLALCHEMY, "StreamingResponse or a background task (with FastAPI before 0.106"),
        (finding(held()), ON_FASTAPI, "(FastAPI before 0.106 and from 0.118 on)"),
        (finding(held(), is_leak=False), UNKNOWN, "may still end by themselves. Usual causes: an external call"),
        (finding(ABORTED), UNKNOWN, "A transaction failed at the statement `SELECT orders` and was not rolled back"),
        (finding(held(1), held(2, SessionState.ABORTED)), UNKNOWN, "never committed, rolled back or closed"),
        (finding(held(query="BEGIN")), UNKNOWN, "no statement followed: a `BEGIN` whose end is skipped"),
        (finding(held(query="BEGIN;")), ON_ASYNCPG, "no statement followed: asyncpg's `transaction().start()` outside"),
        (finding(IDLE, kind=CONNECTION), UNKNOWN, "although this client normally returns them"),
        (finding(IDLE, kind=CONNECTION), ON_SQLALCHEMY, "or an AUTOCOMMIT session that is kept open"),
        (
            finding(IDLE, kind=CONNECTION),
            ON_ASYNCPG_POOL,
            "Usual causes: asyncpg's `pool.acquire()` without a release.",
        ),
        (finding(IDLE, kind=GROWTH), ON_SQLALCHEMY, "a close, or an AUTOCOMMIT session that is kept open."),
        (
            finding(IDLE, kind=GROWTH),
            ON_ASYNCPG_POOL,
            "`connect()` without a close, or asyncpg's `pool.acquire()` without",
        ),
        (finding(RETURNED, kind=GROWTH), UNKNOWN, "no longer used: a pool made for each request"),
        (finding(RETURNED, kind=GROWTH), ON_SQLALCHEMY, "no longer used: an engine made for each request"),
        (finding(held(), client=PSQL, is_tool=True), UNKNOWN, "psql is a maintenance tool"),
        (finding(held(), client=PSQL, is_tool=False), UNKNOWN, "never committed, rolled back or closed"),
        # harm
        (harmful(blocked=1), UNKNOWN, "Harm: 1 other session is blocked."),
        (harmful(blocked=3, xid_age_max=5), UNKNOWN, "Harm: 3 other sessions are blocked; uncommitted changes keep"),
        (harmful(xmin_age_max=2_000_000), UNKNOWN, "Harm: vacuum is held back by 2,000,000 transactions."),
        (finding(held(), write=UPDATE), UNKNOWN, "opened at the route `/orders/{id}` and never committed"),
        (finding(held(), write=UPDATE), UNKNOWN, "in them; their last statement is `SELECT orders`."),
        # sessions that are terminated while new ones come
        (finding(held(1), held(2), total=20), UNKNOWN, "18 of its 20 sessions have ended, but new ones keep coming."),
        # where they come from
        (finding(held(), origins=("10.0.0.7",)), UNKNOWN, "All sessions come from 10.0.0.7: one process,"),
        (finding(held(), rate_per_minute=0.0), UNKNOWN, "one host or one pooler, or its host is gone from the network"),
        (finding(held(), origins=("10.0.0.7", "10.0.0.8")), UNKNOWN, "from 2 addresses, so suspect the code"),
    ],
)
def test_the_cause_names_what_usually_leaves_such_sessions(found: Finding, words: Words, text: str) -> None:
    """It follows from the kind, the states, the last statements, the growth and the harm."""
    assert text in cause_of(found, words)


@pytest.mark.parametrize(
    ("found", "words", "absent"),
    [
        (finding(held(1), held(2, SessionState.ABORTED)), UNKNOWN, "A transaction failed"),
        (finding(IDLE, kind=GROWTH), ON_ASYNCPG_POOL, "AUTOCOMMIT"),
        (harmful(xmin_age_max=12), UNKNOWN, "vacuum"),
        (finding(held(), total=2), UNKNOWN, "have ended"),
        (finding(held(), total=20, rate_per_minute=0.0), UNKNOWN, "have ended"),
        (finding(held(), rate_per_minute=12.0), UNKNOWN, "host is gone"),
        (finding(held(), rate_per_minute=0.0, origins=("127.0.0.1",)), UNKNOWN, "host is gone"),
        (finding(held(), rate_per_minute=0.0, origins=("10.0.0.7", "10.0.0.8")), UNKNOWN, "host is gone"),
        (finding(held(), rate_per_minute=0.0, origins=()), UNKNOWN, "come from"),
    ],
)
def test_the_cause_leaves_out_what_cannot_be(found: Finding, words: Words, absent: str) -> None:
    """For example, a host that still opens sessions is not gone."""
    assert absent not in cause_of(found, words)


@pytest.mark.parametrize(
    ("found", "words", "step"),
    [
        # the server
        (finding(held()), UNKNOWN, "Now: terminate the sessions."),
        (finding(held()), UNKNOWN, "ends these sessions only: it checks pid and backend_start."),
        (finding(held()), UNKNOWN, "It needs the role of these sessions, or `pg_signal_backend`"),
        (finding(held()), UNKNOWN, "pg_cancel_backend has no effect, because no statement is running."),
        (finding(held(), is_leak=False, severity=Severity.CRITICAL), UNKNOWN, "until then others cannot work."),
        (finding(held(), is_leak=False), UNKNOWN, "Now: check again in a few minutes, because the sessions may end"),
        (harmful(blocked=3), UNKNOWN, "Terminating them unblocks the waiting sessions."),
        (harmful(xid_age_max=5), UNKNOWN, "Uncommitted changes are rolled back."),
        (finding(held(), client=PSQL, is_tool=True), UNKNOWN, "Now: ask the person who runs it to commit, roll back"),
        # the pool
        (finding(held()), UNKNOWN, "Pool: Many pools still count terminated connections as in use."),
        (finding(held()), UNKNOWN, "Which driver it is does not show; the runbook has a section for each."),
        (finding(held()), ON_ASYNCPG, "asyncpg's own pool replaces terminated connections. SQLAlchemy's pool, if"),
        (finding(held()), ON_ASYNCPG_POOL, "Pool: asyncpg's pool replaces terminated connections."),
        (finding(held()), ON_SQLALCHEMY, "connections as checked out. Restart the application."),
        # the code
        (finding(held()), UNKNOWN, "Code: check every way out of the statement `SELECT orders`:"),
        (
            finding(held()),
            UNKNOWN,
            "To see the route and the line of code here, add them to each statement as a comment",
        ),
        (finding(IDLE, kind=CONNECTION), UNKNOWN, "Code: look for code that opens connections or takes them"),
        (finding(IDLE, kind=CONNECTION), ON_SQLALCHEMY, "Code: look for `connect()` and AUTOCOMMIT sessions near"),
        (finding(IDLE, kind=CONNECTION), ON_ASYNCPG_POOL, "Code: look for `pool.acquire()` near the statement"),
        (finding(IDLE, kind=GROWTH), UNKNOWN, "Make them once, or close them."),
        # prevention
        (finding(held()), ON_FASTAPI, '(FastAPI from 0.121 on: `Depends(get_db, scope="function")`)'),
        (finding(held()), UNKNOWN, "`ALTER ROLE \"app\" SET idle_in_transaction_session_timeout = '5min'`"),
        (finding(held(), client=Client("shop", 'a"b', "orders")), UNKNOWN, '`ALTER ROLE "a""b" SET '),
        (finding(held(), client=Client("shop", NONE, "orders")), UNKNOWN, "backstop, idle_in_transaction_session_time"),
        (finding(IDLE, kind=CONNECTION), ON_ASYNCPG, "Prevention: `async with pool.acquire()`"),
        (finding(IDLE, kind=CONNECTION), ON_SQLALCHEMY, "Prevention: a `with` block around each connection"),
        (finding(IDLE, kind=CONNECTION), UNKNOWN, "Prevention: a block that returns the connection"),
        (finding(IDLE, kind=GROWTH), UNKNOWN, "Do not use idle_session_timeout as a backstop"),
    ],
)
def test_the_steps_fit_the_finding_and_the_software(found: Finding, words: Words, step: str) -> None:
    """The first step is for the server, then come the pool, the code, and how to prevent it."""
    assert step in "\n".join(remedies_of(found, words))


@pytest.mark.parametrize(
    ("site", "query", "place"),
    [
        ("SITE", "SELECT * FROM orders /*route='/orders/%7Bid%7D'*/", "the route `SITE`"),
        ("SITE", "SELECT * FROM orders /*controller='orders',action='show'*/", "the controller `SITE`"),
        ("SITE", "SELECT * FROM orders /*job='nightly'*/", "the job `SITE`"),
        ("SITE", "SELECT * FROM orders /*file='shop.py',func='show'*/", "the function `SITE`"),
        ("SITE", SELECT, "the statement `SITE`"),
        (UNKNOWN_SITE, SELECT, "an unknown place"),
        (VARIOUS_SITES, SELECT, "various statements"),
    ],
)
def test_the_place_is_named_by_what_the_tags_show(site: str, query: str, place: str) -> None:
    """Cause and steps name it. Labels such as `(not shown)` are for metrics and are not quoted."""
    advice = advice_of(finding(held(query=query), site=site))
    text = "\n".join((advice.cause, *advice.steps))
    assert text.count(place) == 2
    assert ("sqlcommenter" in text) == (query is SELECT)
    assert UNKNOWN_SITE not in text
    assert VARIOUS_SITES not in text


@pytest.mark.parametrize(
    ("client", "tools", "text"),
    [
        (PSQL, (), "never committed, rolled back or closed"),
        (PSQL, Policy().tools, "psql is a maintenance tool"),
        (ORDERS, (), "never committed, rolled back or closed"),
        (ORDERS, ("ord*",), "orders is a maintenance tool"),
    ],
    ids=["psql is no tool", "psql by default", "orders by default", "orders is a tool"],
)
def test_the_configured_tools_decide_which_clients_are_tools(client: Client, tools: tuple[str, ...], text: str) -> None:
    """From the snapshots to the advice: with no tools configured, a leak in psql is explained as a leak."""
    waiting = session(900, SessionState.ACTIVE, blocked_by=(100,), wait_event_type="Lock", client=Client("b", "b", "b"))
    *earlier, last = polls_at_a_leak(client)
    blocked = snapshot(*last.sessions[:-1], waiting, at=END, server=SERVER)
    (found,) = after(*earlier, blocked, policy=Policy(tools=tools)).findings
    advice = advice_of(found)
    assert text in advice.cause
    assert len(advice.steps) == (1 if "maintenance tool" in text else 4)


def test_the_statement_to_paste_names_each_session_to_the_microsecond() -> None:
    """Times are written as PostgreSQL writes them in UTC. A session whose start is not known is left out."""
    known, unknown = replace(held(), id=SessionId(123, 1795238653.123456)), replace(held(), id=SessionId(4, None))
    assert termination_sql([known, unknown, held(7)]) == (
        "SELECT pid, pg_terminate_backend(pid)\n"
        "FROM pg_stat_activity\n"
        "WHERE (pid, backend_start) IN (VALUES\n"
        "  (123, '2026-11-21 05:24:13.123456+00'::timestamptz),\n"
        "  (7, '2027-01-15 07:58:20.000000+00'::timestamptz));"
    )
    assert termination_sql([unknown]) is termination_sql([]) is None


def test_one_statement_terminates_all_sessions_longest_held_first() -> None:
    """It keeps the finding's order. Beyond a thousand sessions, a comment says how many are left out."""
    sessions = [held(pid) for pid in range(1, MAX_TERMINATED + 8)]
    statement = advice_of(finding(*sessions)).terminate
    assert statement is not None
    comment, *lines = statement.splitlines()
    assert comment == "-- The 1,000 sessions held longest; 7 more are left out."
    assert [int(pid) for pid in re.findall(r"^  \((\d+),", "\n".join(lines), re.MULTILINE)] == [*range(1, 1001)]
    assert (advice_of(finding(*sessions[:MAX_TERMINATED])).terminate or "").startswith("SELECT ")


def every_finding() -> Iterable[Finding]:
    """Yield findings of every kind, state, statement, growth and size."""
    queries = (SELECT, "BEGIN;", "ROLLBACK", "", "UPDATE a SET b = 'swordfish' /*route='/x'*/")
    for kind, state, query, is_leak, rate, count in product(
        LeakKind, SessionState, queries, (True, False), (0.0, 3.0), (0, 1, 20)
    ):
        sessions = [held(pid, state, query) for pid in range(count)]
        yield finding(*sessions, kind=kind, is_leak=is_leak, rate_per_minute=rate, exhaustion_seconds=math.inf)


def test_advice_is_neutral_unless_something_shows_the_stack() -> None:
    """A finding without evidence is told about no driver, pool or framework, whatever its kind and state."""
    names = re.compile(
        "fastapi|sqlalchemy|asyncpg|psycopg|django|hikari|rails|npgsql|node|pgx|engine|depends", re.IGNORECASE
    )
    for found in every_finding():
        if found.evidence and found.evidence[0].statement.text == "BEGIN;":
            continue
        advice = advice_of(found)
        assert advice.stack is None
        assert names.findall("\n".join((advice.cause, *advice.steps))) == []


@pytest.mark.parametrize("stack", STACKS, ids=lambda stack: str(stack.name))
def test_every_stack_makes_whole_sentences(stack: Stack) -> None:
    """Its words fit into every cause and every step."""
    words = combined(stack.words, NEUTRAL)
    for found in every_finding():
        for text in (cause_of(found, words), *remedies_of(found, words)):
            assert text.endswith(".")
            assert not re.search(r"  |\.\.|[,;:]\.|\.,| \.| ,", text), text
            assert text.count("`") % 2 == 0


def test_every_finding_has_advice_without_literals() -> None:
    """The advice is whole sentences and links to the part of the runbook about its kind."""
    for found in every_finding():
        advice = advice_of(found)
        assert advice.cause.endswith(".")
        assert all(step.endswith(".") for step in advice.steps)
        assert [step.partition(":")[0] for step in advice.steps][-3:] == ["Pool", "Code", "Prevention"]
        assert len(advice.steps) == (4 if found.sessions else 3)
        text = "\n".join((advice.cause, *advice.steps, advice.terminate or ""))
        assert "swordfish" not in text
        assert "4711" not in text
        assert "  " not in text.partition("SELECT pid, pg_terminate")[0]
        assert advice.runbook == f"{RUNBOOK}#{found.key.kind.replace('_', '-')}"
