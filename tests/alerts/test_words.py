"""Alerts say the same words as the daemon: its log, its page and `check` are read beside them."""

import re
from collections.abc import Mapping

import pytest

from pgwatch_sessions.core.findings import Diagnosis, Harm, LeakKind, Severity, Verdict
from pgwatch_sessions.core.model import Failure, FailureReason
from pgwatch_sessions.wording.labels import HOW_HELD, client_name
from pgwatch_sessions.wording.sentences import FULL, diagnosis_change_text, down_text, finding_text, hidden_text
from tests.support.alert_rules import rules
from tests.support.findings import finding
from tests.support.values import NOW, ORDERS, session

ANNOTATIONS = {rule.name: rule.content["annotations"] for rule in rules() if rule.is_alert}
NAMES: Mapping[str, str] = {"application": "orders", "database": "shop", "user": "app"}
HARMFUL = finding(session(), harm=Harm(slots=1, blocked=2, xmin_age_max=2_000_000))


def text_of(alert: str) -> str:
    """Return summary and description of an alert, with the names of `orders` in the place of its labels."""
    text = " ".join(ANNOTATIONS[alert][part] for part in ("summary", "description"))
    return re.sub(r"{{ \$labels\.(\w+) }}", lambda match: NAMES.get(match[1], match[0]), text)


@pytest.mark.parametrize("kind", LeakKind)
def test_a_leak_is_described_by_its_kind(kind: LeakKind) -> None:
    """For example `idle in transaction`; the last kind needs no condition."""
    text = text_of("DatabaseConnectionLeak")
    assert f"}}}}{HOW_HELD[kind]}" in text
    assert (f'eq $kind "{kind}"' in text) is (kind is not list(LeakKind)[-1])


@pytest.mark.parametrize(
    ("alert", "words", "sentence"),
    [
        ("DatabaseConnectionLeak", "more per minute", finding_text(HARMFUL, at=NOW)),
        ("DatabaseConnectionLeak", "out of connections in", finding_text(HARMFUL, at=NOW)),
        ("DatabaseConnectionsExhaustionPredicted", "out of connections in", finding_text(HARMFUL, at=NOW)),
        ("DatabaseConnectionsExhausted", FULL, FULL),
        ("DatabaseSessionsBlocked", "blocks", finding_text(HARMFUL, at=NOW)),
        ("DatabaseSessionsBlocked", "other", finding_text(HARMFUL, at=NOW)),
        ("DatabaseTransactionHoldsVacuum", "holds back vacuum by", finding_text(HARMFUL, at=NOW)),
        ("DatabaseIdleInTransactionTooLong", "idle in transaction", finding_text(HARMFUL, at=NOW)),
        (
            "DatabasePoolSaturated",
            "orders (shop, app) has too few connections for its load",
            diagnosis_change_text(Diagnosis(client=ORDERS, verdict=Verdict.SATURATED), None),
        ),
        ("PgwatchSessionsBlind", "hidden from the monitoring role", hidden_text(2, 3)),
        ("PgwatchSessionsBlind", "cannot be seen", hidden_text(2, 3)),
        ("PgwatchSessionsBlind", "cannot be polled", down_text(Failure(reason=FailureReason.OTHER))),
    ],
)
def test_an_alert_and_the_daemon_use_the_same_words(alert: str, words: str, sentence: str) -> None:
    """The words are in the sentence of the daemon and in the texts of the alert."""
    assert words in sentence
    assert words in text_of(alert).replace("Out of", "out of")


@pytest.mark.parametrize(
    "alert", [name for name, texts in ANNOTATIONS.items() if "{{ $labels.application }}" in texts["summary"]]
)
def test_alerts_name_a_client_as_the_daemon_does(alert: str) -> None:
    """The application, with the database and the user in brackets."""
    assert client_name(ORDERS) in text_of(alert)


def test_alerts_have_the_severities_of_findings() -> None:
    """A notice alerts nobody."""
    severities = {rule.content["labels"]["severity"] for rule in rules() if rule.is_alert}
    assert severities == {str(severity) for severity in Severity} - {Severity.NOTICE}
