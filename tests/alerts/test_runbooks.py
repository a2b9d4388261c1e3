import re
import textwrap
from pathlib import Path

import psycopg
import pytest

from pgwatch_sessions.core.findings import Kind
from pgwatch_sessions.core.model import Reason
from pgwatch_sessions.demo.postgres import Postgres
from tests.alerts.rules import ALERTS, rules

PAGES = tuple(sorted((ALERTS / "runbooks").glob("*.md")))
_BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)


def blocks(language: str) -> list[tuple[str, str]]:
    """Return the code blocks of all pages in a language, each with its page's name."""
    return [
        (page.stem, textwrap.dedent(text))
        for page in PAGES
        for _, spoken, text in _BLOCK.findall(page.read_text())
        if spoken == language
    ]


def test_every_page_belongs_to_an_alert() -> None:
    """And every alert to a page, which test_rules.py holds."""
    assert {page.stem for page in PAGES} == {rule.name for rule in rules() if rule.is_alert}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.stem))
def test_a_page_says_how_to_confirm_what_to_do_now_and_how_to_mend_it(page: Path) -> None:
    """In this order, under the same headings on each, so that a tired person finds them."""
    headings = re.findall(r"^## (.+)$", page.read_text(), re.MULTILINE)
    assert headings[:2] == ["Confirm it", "Stop the bleeding"]
    assert headings[2] in {"Mend it", "Mend the code"}


def test_links_go_to_what_is_there() -> None:
    """Files beside them or elsewhere in the project, and headings in them; the advice's anchors too."""
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            path, _, anchor = target.partition("#")
            file = page if not path else (page.parent / path).resolve()
            assert file.exists(), f"{page.name}: {target}"
            assert not anchor or anchor in anchors(file.read_text()), f"{page.name}: {target}"
    leak = anchors((ALERTS / "runbooks/DatabaseConnectionLeak.md").read_text())
    assert {kind.replace("_", "-") for kind in Kind} <= leak


def anchors(markdown: str) -> set[str]:
    """Return the anchors that headings get when a page is rendered."""
    headings = re.findall(r"^#+ (.+)$", markdown, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_reason_of_a_failed_look_has_its_line() -> None:
    """In the table of PgwatchSessionsBlind."""
    text = (ALERTS / "runbooks/PgwatchSessionsBlind.md").read_text()
    assert all(f"| `{reason}` |" in text for reason in Reason)


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
