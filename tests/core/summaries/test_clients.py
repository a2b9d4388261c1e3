import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgwatch_sessions.core.client_names import client_of
from pgwatch_sessions.core.model import OTHER_CLIENT, Client, SessionState
from pgwatch_sessions.core.summaries.clients import empty_summary, summarise
from pgwatch_sessions.core.summaries.label_budget import NO_CLIENTS, LabelledClients
from tests.support.values import NOW, ORDERS, session


@pytest.mark.parametrize(
    ("application_name", "tagged", "expected"),
    [
        ("orders", None, "orders"),
        ("orders", "tagged", "orders"),
        ("", "tagged", "tagged"),
        ("", None, "(none)"),
        (None, None, "(none)"),
        ("   ", None, "(none)"),
        ("orders - 10.0.0.7:41234", None, "orders"),
        ("orders - [::1]:41234", None, "orders"),
        ("orders - db-1.internal:5432", None, "orders"),
        (" - 10.0.0.7:41234", "tagged", "tagged"),
        ("left - right", None, "left - right"),
        ("a\nb\x00c", None, "a?b?c"),
    ],
)
def test_an_application_is_named_by_itself_else_by_its_tags(
    application_name: str | None, tagged: str | None, expected: str
) -> None:
    """A pooler's suffix and control characters are not part of a name."""
    assert client_of("shop", "app", application_name, tagged) == Client("shop", "app", expected)


def test_a_session_without_database_and_user_has_a_name_for_them() -> None:
    """PostgreSQL 18 shows sessions that are still authenticating. An empty label value means no label in Prometheus."""
    assert client_of(None, None, "", None) == Client("(none)", "(none)", "(none)")


def test_ages_are_by_state_and_by_what_they_measure() -> None:
    """Ages count from state_change, xact_start, and, while a query runs, from query_start."""
    summary = summarise(
        ORDERS,
        [
            session(
                1, SessionState.ACTIVE, since=NOW - 5, xact_start=NOW - 50, query_start=NOW - 6, backend_xmin_age=7
            ),
            session(2, SessionState.IDLE, since=NOW - 900, query_start=NOW - 1000),
            session(3, SessionState.IDLE_IN_TRANSACTION, since=NOW - 20, xact_start=NOW - 30, backend_xmin_age=3),
            session(4, SessionState.ABORTED, since=NOW - 40, xact_start=None),
            session(5, SessionState.ACTIVE, since=NOW - 1, wait_event_type="Lock", query_start=NOW - 1),
        ],
        at=NOW,
    )
    assert summary.state_age_max == {
        SessionState.ACTIVE: 5,
        SessionState.IDLE: 900,
        SessionState.IDLE_IN_TRANSACTION: 20,
        SessionState.ABORTED: 40,
    }
    assert summary.idle_in_transaction_age_max == 40
    assert summary.transaction_age_max == 50
    assert summary.query_age_max == 6
    assert summary.xmin_age_max == 7
    assert summary.lock_waiting == 1


def test_what_has_no_age_is_absent_and_every_state_is_counted() -> None:
    """A client without sessions has zero counts and no ages."""
    summary = empty_summary(ORDERS)
    assert summary.states == dict.fromkeys(SessionState, 0)
    assert summary.state_age_max == {}
    assert summary.idle_in_transaction_age_max is None
    assert summary.transaction_age_max is None
    assert summary.query_age_max is None
    assert summary.xmin_age_max is None


def test_hidden_sessions_are_counted_but_never_as_a_state() -> None:
    """A hidden session is not a session without a state."""
    summary = summarise(ORDERS, [session(1, None), session(2, SessionState.IDLE)], at=NOW)
    assert (summary.sessions, summary.hidden, sum(summary.states.values())) == (2, 1, 1)


def _named(name: str) -> Client:
    return Client("shop", "app", name)


def _admit(labelled: LabelledClients, *, at: float = NOW, budget: int = 2, **counts: int) -> LabelledClients:
    return labelled.admit({_named(name): n for name, n in counts.items()}, at=at, budget=budget, remember=60)


def test_the_largest_clients_get_the_labels() -> None:
    """Clients beyond the budget are shown as other."""
    labelled = _admit(NO_CLIENTS, a=1, b=5, c=9)
    assert [labelled.label(_named(name)) for name in "abc"] == [OTHER_CLIENT, _named("b"), _named("c")]


def test_a_client_keeps_its_labels_until_one_is_more_than_twice_its_size() -> None:
    """Small changes of the ranking do not move labels from client to client."""
    labelled = _admit(_admit(NO_CLIENTS, a=4, b=5), a=4, b=5, c=8)
    assert set(labelled.seen_at) == {_named("a"), _named("b")}
    labelled = _admit(labelled, a=4, b=5, c=9)
    assert set(labelled.seen_at) == {_named("b"), _named("c")}


def test_a_client_without_sessions_is_remembered_for_a_while() -> None:
    """A client that connects per request keeps its series between requests, and loses them when it stays away."""
    labelled = _admit(NO_CLIENTS, a=1)
    assert _named("a") in _admit(labelled, at=NOW + 59).seen_at
    assert _named("a") not in _admit(labelled, at=NOW + 60).seen_at


@pytest.mark.promise("Labels and memory are bounded, whatever applications are called.")
@given(
    st.lists(st.tuples(st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 20)), st.integers(1, 4)), max_size=8)
)
def test_there_are_never_more_labels_than_the_budget(polls: list[tuple[dict[str, int], int]]) -> None:
    """There are never more labelled clients than the budget, which a reload may change, and no place stays free."""
    labelled = NO_CLIENTS
    for i, (counts, budget) in enumerate(polls):
        labelled = _admit(labelled, at=NOW + i, budget=budget, **counts)
        assert len(labelled.seen_at) <= budget
        assert len(labelled.seen_at) >= min(budget, len(counts))
