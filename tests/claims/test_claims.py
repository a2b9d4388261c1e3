"""One experiment as a whole, and the document of all of them."""

import re

import pytest

from pgwatch_sessions.demo.postgres import Postgres
from tests.claims import pool_settings
from tests.claims.__main__ import DOCUMENT
from tests.claims.catalogue import CLAIMS
from tests.claims.claim import Claim, Outcome, Verdict, verdict_of
from tests.claims.document import document, section
from tests.claims.laboratory import Laboratory

PAGE = DOCUMENT.read_text(encoding="utf-8")
ONE_LINE = " ".join(PAGE.split())


def test_an_experiment_measures_and_asks_the_daemon(postgres: Postgres) -> None:
    """Leaked connections stay held whatever the pool's settings are, and the daemon names them from its recording."""
    claim = next(claim for claim in pool_settings.CLAIMS if claim.name == "protection")
    outcome = claim.attempt(Laboratory(server=postgres, report=lambda _: None))
    assert outcome.verdict is Verdict.FAILS
    assert [row[2] for row in outcome.rows] == [
        "3 still held after 4 s",
        "pool time-out",
        "gave 30; the next one waits",
    ]
    (said,) = outcome.said["protected"]
    assert "3 sessions idle in transaction at SELECT orders" in said
    assert section(claim, outcome).endswith(f" {outcome.reason.rsplit(maxsplit=1)[-1]}\n")


def test_the_document_has_every_claim_and_no_other() -> None:
    """In the order of the catalogue; each name is a heading and a row of the table."""
    names = [claim.name for claim in CLAIMS]
    assert re.findall(r"^## (.+)$", PAGE, re.MULTILINE) == names, "run make claims"
    assert re.findall(r"^\| \[(.+)\]\(#\1\) \|", PAGE, re.MULTILINE) == names
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_the_document_says_what_is_tried_and_what_came_of_it(claim: Claim) -> None:
    """The texts are those of the code, there is a table, and the verdict is a known one, the same in both places."""
    part = PAGE.split(f"\n## {claim.name}\n")[1].split("\n## ")[0]
    text = " ".join(part.split())
    assert f"**Claim.** {claim.text} **Experiment.** {claim.experiment} **Measured.** |" in text, "run make claims"
    (verdict,) = re.findall(r"^\*\*Verdict: (.+?)\.\*\* \S", part, re.MULTILINE)
    assert f"| [{claim.name}](#{claim.name}) | {Verdict(verdict)} |" in PAGE


def test_the_document_names_machine_versions_and_load() -> None:
    """Figures are worth little without them."""
    head = ONE_LINE.split("| claim | verdict |")[0]
    assert re.search(
        r"Measured on \d{4}-\d\d-\d\d: \d+ cores \(\w+\), load average [\d.]+ before and [\d.]+ after, Linux \S+, "
        r"CPython 3\.\d+\.\d+, postgres \(PostgreSQL\) 18\.\d+, fastapi \S+, sqlalchemy \S+, "
        r"psycopg \S+, asyncpg \S+\.",
        head,
    )


def test_a_page_is_written_whole() -> None:
    """Head, table of verdicts, and a part for each claim with what the daemon said where it was asked."""
    claim = Claim(name="a-claim", text="It is claimed.", experiment="It is tried.", attempt=lambda _: outcome)
    outcome = Outcome(
        header=("run", "figure"),
        rows=[("one", 1.0), ("two", 2.5)],
        said={"one": ("nothing",)},
        verdict=Verdict.PARTLY,
        reason="One is one.",
    )
    page = document([(claim, outcome)], date="2026-01-02", machine="a machine")
    assert page.startswith("# Claims about connection leaks, tried\n")
    assert "Measured on 2026-01-02: a machine.\n\n| claim | verdict |\n| --- | --- |\n| [a-claim](#a-claim) |" in page
    assert page.endswith(
        "## a-claim\n\n**Claim.** It is claimed.\n\n**Experiment.** It is tried.\n\n**Measured.**\n\n"
        "| run | figure |\n| --- | --- |\n| one | 1 |\n| two | 2.5 |\n\n"
        "**The daemon said.**\n\n* one: nothing\n\n**Verdict: holds in part.** One is one.\n"
    )


@pytest.mark.parametrize(
    ("parts", "verdict"),
    [((True, True), Verdict.HOLDS), ((True, False), Verdict.PARTLY), ((False, False), Verdict.FAILS)],
)
def test_a_verdict_follows_from_the_parts_of_a_claim(parts: tuple[bool, ...], verdict: Verdict) -> None:
    """A claim holds if all of it does, and in part if some of it does."""
    assert verdict_of(*parts) is verdict
