"""Amounts, failures, findings and diagnoses as text for people."""

import pytest

from pgwatch_sessions.core.findings import Diagnosis, Finding, Harm, LeakKind, Recurrence, Severity, Verdict
from pgwatch_sessions.core.limits import LimitId
from pgwatch_sessions.core.model import NONE, Client, Failure, FailureReason, LimitScope
from pgwatch_sessions.wording.amounts import counted, duration, moment, until_full
from pgwatch_sessions.wording.events import client_fields, grant_statement
from pgwatch_sessions.wording.failures import FAILURES, failure_text
from pgwatch_sessions.wording.labels import HOW_HELD, VERDICTS, client_name, limit_name, printable
from pgwatch_sessions.wording.sentences import diagnosis_text, finding_sentence, finding_text
from tests.support.findings import finding
from tests.support.values import NOW, session

HELD = session(1, since=NOW - 300)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 s"), (0, "0 s"), (119.4, "119 s"), (120, "2 min"), (7300, "2 h 1 min"), (200_000, "2 d 7 h")],
)
def test_durations_have_two_units_at_most(seconds: float, text: str) -> None:
    """Seconds do not matter to a person when something lasts for hours."""
    assert duration(seconds) == text


@pytest.mark.parametrize(("seconds", "text"), [(float("inf"), "not at this rate"), (0.0, "now"), (90.0, "in 90 s")])
def test_a_forecast_without_a_time_is_said_in_words(seconds: float, text: str) -> None:
    """Nobody reads `in inf s`."""
    assert until_full(seconds) == text


def test_moments_are_utc_and_counts_agree_with_their_noun() -> None:
    """A person on call compares them with other logs."""
    assert moment(NOW) == "2027-01-15 08:00:00 UTC"
    assert [counted(number, "session") for number in (0, 1, 1200)] == ["0 sessions", "1 session", "1,200 sessions"]
    assert counted(2, "client is", "clients are") == "2 clients are"


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (
            finding(HELD, HELD),
            (
                "2 sessions idle in transaction at SELECT orders, the longest for 5 min, 12 more per minute, "
                "out of connections in 5 min"
            ),
        ),
        (
            finding(HELD, is_leak=False, rate_per_minute=0.0, exhaustion_seconds=float("inf")),
            "1 session idle in transaction at SELECT orders for 5 min; it may still end by itself",
        ),
        (
            finding(
                HELD,
                kind=LeakKind.CONNECTION_HELD,
                rate_per_minute=0.4,
                exhaustion_seconds=0.3,
                harm=Harm(slots=1, blocked=1, xmin_age_max=25_000),
            ),
            (
                "1 session idle and not returned to the pool at SELECT orders for 5 min, 24 more per hour, "
                "out of connections now, blocks 1 other session, holds back vacuum by 25,000 transactions"
            ),
        ),
        (
            finding(HELD, severity=Severity.CRITICAL, rate_per_minute=0.0, exhaustion_seconds=float("inf")),
            "1 session idle in transaction at SELECT orders for 5 min",
        ),
        (
            finding(
                HELD,
                HELD,
                severity=Severity.CRITICAL,
                rate_per_minute=0.0,
                exhaustion_seconds=float("inf"),
                harm=Harm(slots=2, own_pool=15),
            ),
            (
                "2 sessions idle in transaction at SELECT orders, the longest for 5 min, no new ones for 5 min, "
                "its own pool of 15 is full"
            ),
        ),
        (
            finding(
                HELD,
                is_leak=False,
                rate_per_minute=0.0,
                exhaustion_seconds=float("inf"),
                harm=Harm(slots=1, blocked=14, blocked_seconds=130, stopped=Client("shop", "app", "billing")),
            ),
            (
                "1 session idle in transaction at SELECT orders for 5 min, blocks 14 other sessions for 2 min, "
                "every running session of billing (shop, app) waits; it may still end by itself"
            ),
        ),
        (
            finding(HELD, is_leak=False, rate_per_minute=0.0, recurrence=Recurrence(12, 3600, 130, 310)),
            (
                "idle in transaction at SELECT orders for 2 to 5 min, 12 times in the last hour, 1 session now; each "
                "ends by itself: an external call, a stream or background work inside the transaction"
            ),
        ),
        (
            finding(site="a\x1b[2J", total=12, harm=Harm(slots=0), closes_at=NOW + 90),
            "all 12 sessions at a?[2J have ended or are used again; closes in 90 s unless it leaks again",
        ),
    ],
)
def test_a_finding_is_one_line(found: Finding, text: str) -> None:
    """The line says how many sessions are held where, for how long, how fast they grow, and what they cost."""
    assert finding_text(found, at=NOW) == text


def test_a_diagnosis_shows_its_reason() -> None:
    """A verdict without a reason stands alone."""
    assert diagnosis_text(Diagnosis(client=None, verdict=Verdict.LEAKING, reason="3 held")) == "leaking (3 held)"
    assert diagnosis_text(Diagnosis(client=None, verdict=Verdict.OK)) == "ok"


def test_a_failure_says_why_in_words_and_in_the_servers_own() -> None:
    """The reason in brackets is the label of the metric."""
    refused = Failure(reason=FailureReason.NETWORK, detail="connecting: refused")
    assert failure_text(refused) == "it cannot be reached (network: connecting: refused)"
    assert failure_text(Failure(reason=FailureReason.EXHAUSTED)).endswith("refuses new connections (exhausted)")


def test_the_grant_quotes_the_role() -> None:
    """A recording may not name the role."""
    assert grant_statement('a"b') == 'GRANT pg_monitor TO "a""b";'
    assert grant_statement(None) == "GRANT pg_monitor TO <monitoring role>;"


def test_every_kind_verdict_and_reason_has_a_text() -> None:
    """A new one needs a text too."""
    assert list(HOW_HELD) == list(LeakKind)
    assert list(VERDICTS) == list(Verdict)
    assert list(FAILURES) == list(FailureReason)


def test_a_client_without_application_name_is_named_by_its_role_and_database() -> None:
    """`(none)` stays the label and the JSON key's value; a person needs to know whose sessions these are."""
    nameless = Client("shop", "app\x1b", NONE)
    assert client_name(Client("shop", "app", "orders")) == "orders (shop, app)"
    assert client_name(nameless) == "app?@shop"
    assert finding_sentence(finding(HELD, client=nameless), at=NOW).startswith("app?@shop: 1 session idle in ")
    assert client_fields(nameless)["application"] == NONE


@pytest.mark.promise("Names from the server cannot become markup, and cannot control a terminal.")
def test_names_cannot_control_a_terminal() -> None:
    """Every client of a server chooses its own name."""
    assert printable("orders\x1b[2J\u202e") == "orders?[2J?"
    assert limit_name(LimitId(LimitScope.SERVER, "db")) == "the server"
    assert limit_name(LimitId(LimitScope.ROLE, "app")) == "role app"
