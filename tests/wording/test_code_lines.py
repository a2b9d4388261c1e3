from dataclasses import replace

import pytest

from pgwatch_sessions.core.findings import Finding
from pgwatch_sessions.core.model import Session
from pgwatch_sessions.core.statements import parse_statement
from pgwatch_sessions.wording.advice import advice_of
from pgwatch_sessions.wording.events import finding_fields
from pgwatch_sessions.wording.sentences import finding_sentence
from tests.support.findings import finding
from tests.support.values import NOW, session

READ = "file='shop/orders.py',line='41',func='read_order'"


def held(*tags: str) -> Finding:
    """Return a finding with one session for each of these tags."""
    return finding(*(_held(pid, each) for pid, each in enumerate(tags)), site="/orders")


def _held(pid: int, tags: str) -> Session:
    return session(pid, since=NOW - 300, query=f"/*route='/orders',{tags}*/ SELECT * FROM orders WHERE id = 'secret'")


def test_the_line_of_code_follows_the_site() -> None:
    """One line for all sessions needs no number."""
    sentence = finding_sentence(held(READ, READ), at=NOW)
    assert "2 sessions idle in transaction at /orders (shop/orders.py:41 in read_order), the longest" in sentence


def test_each_line_of_code_has_its_number_of_sessions() -> None:
    """Most sessions first. At most three are in the sentence; sessions without a line are not counted."""
    lines = [READ, READ, "n=1", *(f"file='{name}.py',line='1'" for name in "abc")]
    sentence = finding_sentence(held(*lines), at=NOW)
    assert "at /orders (2 at shop/orders.py:41 in read_order, 1 at a.py:1, 1 at b.py:1, …), the longest" in sentence
    assert "at /orders (1 at a.py:1), the longest" in finding_sentence(held("n=1", "file='a.py',line='1'"), at=NOW)


def test_without_tags_for_it_there_is_no_line() -> None:
    """Nothing is said, and the field is left out."""
    assert "at /orders, the longest" in finding_sentence(held("n=1", "n=2"), at=NOW)
    assert "code_lines" not in finding_fields(held("n=1"))


def test_the_fields_have_each_part_of_a_line() -> None:
    """A program need not take the text apart."""
    found = held(READ, READ, "file='a.py'")
    assert finding_fields(found)["code_lines"] == [
        {"text": "shop/orders.py:41 in read_order", "file": "shop/orders.py", "line": 41, "func": "read_order",
         "sessions": 2},
        {"text": "a.py", "file": "a.py", "line": None, "func": None, "sessions": 1},
    ]  # fmt: skip


def test_a_line_is_named_after_the_sessions_are_gone() -> None:
    """The sessions that were held last are the evidence."""
    recovering = replace(held(READ), sessions=(), closes_at=NOW + 60)
    assert finding_fields(recovering)["code_lines"][0]["text"] == "shop/orders.py:41 in read_order"


def test_the_last_write_names_the_line_if_the_last_statement_has_no_tags() -> None:
    """SAVEPOINT and FETCH of drivers have no tags."""
    untagged = session(1, query="SAVEPOINT s")
    write = parse_statement(f"/*route='/orders',{READ}*/ UPDATE orders SET paid = true")
    assert str(finding(untagged, write=write).code_lines[0].code_line) == "shop/orders.py:41 in read_order"


def test_the_advice_says_where_to_look() -> None:
    """The step on the code names the line of most sessions, and no text has a literal."""
    found = held(READ, READ, "file='a.py',line='1'")
    advice = advice_of(found, found.sessions)
    code = next(step for step in advice.steps if step.startswith("Code:"))
    assert "every way out of the route `/orders` (shop/orders.py:41 in read_order)" in code
    assert "secret" not in repr((advice, finding_fields(found), finding_sentence(found, at=NOW)))


@pytest.mark.promise("Names from the server cannot become markup, and cannot control a terminal.")
def test_control_characters_in_a_path_reach_no_terminal() -> None:
    """An application writes its own tags."""
    assert "\x1b" not in finding_sentence(held("file='%1B[2Ja.py',line='1'"), at=NOW)
