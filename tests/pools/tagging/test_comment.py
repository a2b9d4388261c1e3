import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgwatch_sessions.core.statements import parse_statement
from pgwatch_sessions.pools.tagging.comment import KEYS, comment_of, takes_comment
from pgwatch_sessions.pools.tagging.context import job, tags, tags_now


@given(st.dictionaries(st.sampled_from(KEYS), st.text()))
def test_any_value_makes_one_harmless_comment(values: dict[str, str]) -> None:
    """No value ends the comment, has a placeholder of a driver, or differs when the daemon reads it."""
    comment = comment_of(values)
    assert not set(comment) & set('%?$;\\"\n')
    assert comment.count("*/") == comment.count("/*") == bool(comment)
    statement = parse_statement(f"{comment}SELECT 1 FROM orders")
    assert statement.text == "SELECT ? FROM orders"
    assert {key for key, _ in statement.tags} <= values.keys()


def test_the_daemon_reads_what_is_written() -> None:
    """Braces and slashes need no escape."""
    values = {
        "application": "orders-api", "route": "/orders/{id}", "file": "shop/orders.py", "line": "41",
        "func": "Orders.read",
    }  # fmt: skip
    statement = parse_statement(f"{comment_of(values)}SELECT 1")
    assert dict(statement.tags) == values
    assert statement.site == "/orders/{id}"
    assert str(statement.code_line) == "shop/orders.py:41 in Orders.read"


def test_only_known_keys_are_written_and_lengths_are_bounded() -> None:
    """A traceparent or a value of a request would make a new text each time. Of a path the end is kept."""
    assert comment_of({"traceparent": "00-1", "user": "7"}) == ""
    comment = comment_of({"file": f"{'x' * 300}/a.py", "route": "y" * 300})
    assert len(comment) < 300
    assert "/a.py'" in comment


@pytest.mark.parametrize(
    ("statement", "takes"),
    [
        ("SELECT 1", True),
        ("  /* other */ SELECT 1", True),
        ("ROLLBACK TO SAVEPOINT a", True),
        ("SAVEPOINT a", True),
        ("ENDPOINT", True),
        ("/*+ SeqScan(a) */ SELECT 1", False),
        ("BEGIN;", False),
        ("begin isolation level serializable", False),
        ("COMMIT;", False),
        ("ROLLBACK;", False),
        ("SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;", False),
        (";", False),
        ("", False),
    ],
)
def test_what_takes_a_comment(statement: str, takes: bool) -> None:
    """Not a hint, which must be the first comment, not the ends of transactions, and not a reset."""
    assert takes_comment(statement) is takes


def test_tags_nest_and_end() -> None:
    """The inner ones count, and the outer ones come back."""
    with tags(route="/import", controller="a"):
        with job("nightly"), tags(controller="b"):
            assert tags_now() == {"route": "/import", "controller": "b", "job": "nightly"}
        assert tags_now() == {"route": "/import", "controller": "a"}
    assert tags_now() == {}
