import contextlib
import re
import textwrap
from pathlib import Path

import psycopg
import pytest

from pgwatch_sessions.core.findings import LeakKind
from pgwatch_sessions.core.model import FailureReason
from pgwatch_sessions.demo.postgres import Postgres
from tests.support.alert_rules import ALERTS, rules
from tests.support.runbooks import PAGES, blocks
from tests.support.servers import Database
from tests.support.situations import active, idle_in_transaction
from tests.support.waiting import until


def test_every_alert_has_a_page_and_every_page_an_alert() -> None:
    """Pages are named like their alerts."""
    assert {page.stem for page in PAGES} == {rule.name for rule in rules() if rule.is_alert}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.stem))
def test_a_page_says_how_to_confirm_it_what_to_do_now_and_how_to_fix_it(page: Path) -> None:
    """Every page has the same headings in the same order, so that a tired person finds them."""
    headings = re.findall(r"^## (.+)$", page.read_text(), re.MULTILINE)
    assert headings[:2] == ["Confirm it", "Stop the bleeding"]
    assert headings[2] in {"Fix it", "Fix the code"}


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.stem.startswith("Database")], ids=lambda page: page.stem
)
def test_a_page_on_a_database_names_three_ways_to_confirm_it(page: Path) -> None:
    """The daemon's page, the command line and SQL: at least one of them should be within reach."""
    [confirm] = re.findall(r"^## Confirm it\n(.*?)^## ", page.read_text(), re.DOTALL | re.MULTILINE)
    ways = ("The daemon's page", "`pgwatch-sessions check", "```sql\n")
    assert [way for way in ways if way not in confirm] == []


def test_links_lead_to_existing_files_and_headings() -> None:
    """The same holds for the anchors in the daemon's advice: each kind of leak has a heading."""
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            path, _, anchor = target.partition("#")
            file = page if not path else (page.parent / path).resolve()
            assert file.exists(), f"{page.name}: {target}"
            assert not anchor or anchor in anchors(file.read_text()), f"{page.name}: {target}"
    leak = anchors((ALERTS / "runbooks/DatabaseConnectionLeak.md").read_text())
    assert {kind.replace("_", "-") for kind in LeakKind} <= leak


def anchors(markdown: str) -> set[str]:
    """Return the anchors that the headings of a rendered page have."""
    headings = re.findall(r"^#+ (.+)$", markdown, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_failure_reason_has_a_line_in_the_runbook() -> None:
    """The table in PgwatchSessionsBlind lists every reason of a failed poll."""
    text = (ALERTS / "runbooks/PgwatchSessionsBlind.md").read_text()
    assert all(f"| `{reason}` |" in text for reason in FailureReason)


@pytest.mark.parametrize(("page", "code"), blocks("python"))
def test_python_examples_compile(page: str, code: str) -> None:
    """An example may be the body of a coroutine."""
    compile("async def snippet():\n" + textwrap.indent(code, "    "), page, "exec")


def test_sql_runs_on_a_real_server(any_postgres: Postgres) -> None:
    """Every statement of every page runs unchanged, in a transaction that is rolled back."""
    with psycopg.connect(any_postgres.dsn()) as connection:
        connection.execute("CREATE ROLE app; CREATE ROLE pgwatch_sessions")
        for page, sql in blocks("sql"):
            try:
                connection.execute(sql)
            except psycopg.Error as error:
                pytest.fail(f"{page}: {error}\n{sql}")
        connection.rollback()


def test_the_root_of_a_lock_queue_is_listed_once_with_all_waiting_sessions(any_database: Database) -> None:
    """The statement of DatabaseSessionsBlocked, for a queue in which each session also waits for the ones before it."""
    [queue] = [sql for page, sql in blocks("sql") if page == "DatabaseSessionsBlocked" and "pg_blocking_pids" in sql]
    lock = "SELECT pg_advisory_xact_lock(42)"
    with (
        idle_in_transaction(any_database.dsn(), lock) as holder,
        active(any_database.dsn(), lock),
        active(any_database.dsn(), lock),
        active(any_database.dsn(), lock),
        psycopg.connect(any_database.dsn(), autocommit=True, row_factory=psycopg.rows.dict_row) as observer,
    ):
        waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        until(lambda: len(observer.execute(waiting).fetchall()) == 3)
        listed = observer.execute(queue.encode()).fetchall()
    assert [(row["pid"], row["state"], row["waiting"]) for row in listed] == [(holder, "idle in transaction", 3)]


def test_the_generated_statement_terminates_the_leaked_sessions_only(any_database: Database) -> None:
    """The query of DatabaseConnectionLeak writes one statement for all old sessions, which checks backend_start."""
    [generator] = [sql for page, sql in blocks("sql") if page == "DatabaseConnectionLeak" and "string_agg(" in sql]
    leaking = any_database.dsn(application_name="orders-api")
    with (
        contextlib.suppress(psycopg.OperationalError),  # the clients of the terminated sessions raise it
        idle_in_transaction(leaking) as first,
        idle_in_transaction(leaking) as second,
        idle_in_transaction(any_database.dsn(application_name="carts")),
        psycopg.connect(any_database.dsn(), autocommit=True) as observer,
    ):
        assert observer.execute(generator.encode()).fetchall() == [], "no session is held for 5 minutes yet"
        [[statement]] = observer.execute(generator.replace("5 minutes", "0 s").encode()).fetchall()
        with_reused_pids = re.sub(r"(?<=, ')\d{4}", "1999", statement)
        assert observer.execute(with_reused_pids.encode()).fetchall() == []
        assert set(observer.execute(statement.encode()).fetchall()) == {(first, True), (second, True)}
        leaked_sessions = f"SELECT 1 FROM pg_stat_activity WHERE pid IN ({first}, {second})".encode()
        until(lambda: not observer.execute(leaked_sessions).fetchall())
