import contextlib
import re
import textwrap
from pathlib import Path

import psycopg
import pytest

from pgwatch_sessions.core.findings import LeakKind
from pgwatch_sessions.core.model import FailureReason
from pgwatch_sessions.demo.postgres import Postgres
from tests.alerts.rules import ALERTS, rules
from tests.alerts.runbooks import PAGES, blocks
from tests.support.servers import Database
from tests.support.situations import active, idle_in_transaction
from tests.support.waiting import until


def test_every_page_belongs_to_an_alert() -> None:
    """And every alert to a page, which test_rules.py holds."""
    assert {page.stem for page in PAGES} == {rule.name for rule in rules() if rule.is_alert}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.stem))
def test_a_page_says_how_to_confirm_what_to_do_now_and_how_to_mend_it(page: Path) -> None:
    """In this order, under the same headings on each, so that a tired person finds them."""
    headings = re.findall(r"^## (.+)$", page.read_text(), re.MULTILINE)
    assert headings[:2] == ["Confirm it", "Stop the bleeding"]
    assert headings[2] in {"Mend it", "Mend the code"}


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.stem.startswith("Database")], ids=lambda page: page.stem
)
def test_a_page_on_a_database_names_all_three_ways_to_confirm_it(page: Path) -> None:
    """The daemon's page, the command line, and SQL that runs; whichever of them is reached."""
    [confirm] = re.findall(r"^## Confirm it\n(.*?)^## ", page.read_text(), re.DOTALL | re.MULTILINE)
    ways = ("The daemon's page", "`pgwatch-sessions check", "```sql\n")
    assert [way for way in ways if way not in confirm] == []


def test_links_go_to_what_is_there() -> None:
    """Files beside them or elsewhere in the project, and headings in them; the advice's anchors too."""
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            path, _, anchor = target.partition("#")
            file = page if not path else (page.parent / path).resolve()
            assert file.exists(), f"{page.name}: {target}"
            assert not anchor or anchor in anchors(file.read_text()), f"{page.name}: {target}"
    leak = anchors((ALERTS / "runbooks/DatabaseConnectionLeak.md").read_text())
    assert {kind.replace("_", "-") for kind in LeakKind} <= leak


def anchors(markdown: str) -> set[str]:
    """Return the anchors that headings get when a page is rendered."""
    headings = re.findall(r"^#+ (.+)$", markdown, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_reason_of_a_failed_poll_has_its_line() -> None:
    """In the table of PgwatchSessionsBlind."""
    text = (ALERTS / "runbooks/PgwatchSessionsBlind.md").read_text()
    assert all(f"| `{reason}` |" in text for reason in FailureReason)


@pytest.mark.parametrize(("page", "code"), blocks("python"))
def test_python_is_python(page: str, code: str) -> None:
    """Every example compiles; a snippet may stand inside of a coroutine."""
    compile("async def snippet():\n" + textwrap.indent(code, "    "), page, "exec")


def test_sql_runs_on_a_real_server(any_postgres: Postgres) -> None:
    """Every statement of every page, as it stands, in a transaction that is rolled back."""
    with psycopg.connect(any_postgres.dsn()) as connection:
        connection.execute("CREATE ROLE app; CREATE ROLE pgwatch_sessions")
        for page, sql in blocks("sql"):
            try:
                connection.execute(sql)
            except psycopg.Error as error:
                pytest.fail(f"{page}: {error}\n{sql}")
        connection.rollback()


def test_the_root_of_a_queue_is_listed_once_with_all_who_wait_for_it(any_database: Database) -> None:
    """The statement of DatabaseSessionsBlocked, over a queue in which each waits for those before it as well."""
    [queue] = [sql for page, sql in blocks("sql") if page == "DatabaseSessionsBlocked" and "pg_blocking_pids" in sql]
    lock = "SELECT pg_advisory_xact_lock(42)"
    with (
        idle_in_transaction(any_database.dsn(), lock) as holder,
        active(any_database.dsn(), lock),
        active(any_database.dsn(), lock),
        active(any_database.dsn(), lock),
        psycopg.connect(any_database.dsn(), autocommit=True, row_factory=psycopg.rows.dict_row) as person,
    ):
        waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        until(lambda: len(person.execute(waiting).fetchall()) == 3)
        listed = person.execute(queue.encode()).fetchall()
    assert [(row["pid"], row["state"], row["waiting"]) for row in listed] == [(holder, "idle in transaction", 3)]


def test_the_statements_that_are_written_end_the_leaked_sessions_and_no_others(any_database: Database) -> None:
    """The statement of DatabaseConnectionLeak names the old ones, each guarded by its start."""
    [written] = [sql for page, sql in blocks("sql") if page == "DatabaseConnectionLeak" and "format(" in sql]
    leaking = any_database.dsn(application_name="orders-api")
    with (
        contextlib.suppress(psycopg.OperationalError),  # its connection is closed when it has ended
        idle_in_transaction(leaking) as leaked,
        idle_in_transaction(any_database.dsn(application_name="carts")),
        psycopg.connect(any_database.dsn(), autocommit=True) as person,
    ):
        assert person.execute(written.encode()).fetchall() == [], "nothing is held for so long yet"
        at_once = written.replace("5 minutes", "0 s").encode()
        [[statement, state, *_]] = person.execute(at_once).fetchall()
        assert state == "idle in transaction"
        somebody_else_by_now = re.sub(r"(?<=backend_start = ')\d{4}", "1999", statement)
        assert person.execute(somebody_else_by_now.encode()).fetchall() == []
        assert person.execute(statement.encode()).fetchall() == [(True,)]
        ended = f"SELECT 1 FROM pg_stat_activity WHERE pid = {leaked}".encode()
        until(lambda: not person.execute(ended).fetchall())
