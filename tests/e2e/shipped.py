"""Assert that every shipped alert fires with a complete text, and that every shipped expression has an answer."""

import re
import sys
from collections.abc import Collection, Mapping
from typing import NamedTuple

from tests.e2e.answers import as_table, count_answers
from tests.e2e.scene import Scene
from tests.support.alert_rules import rules
from tests.support.waiting import until

#: Parts of annotations that come from queries; at least one alert of the name must have each of them.
FROM_PROMETHEUS = {
    "DatabaseConnectionLeak": (
        r"All sites of .+: \d+\.\d more per minute\.",
        r"Leaking since 20\d\d-",
        r"In the code: pgwatch_sessions/demo/service\.py:\d+ in orders_leaking \(\d+\)\.",
        r"Out of connections in \d",
        r"Out of connections in 0s",
    ),
    "DatabaseConnectionsExhausted": (
        r"Most connections belong to .+ \(\d+\),? ?.*\.",
        r"Sessions in open findings: \d+\.",
    ),
    "DatabaseConnectionsExhaustionPredicted": (r"In use: \d+ of \d+\.",),
    "DatabaseRoleLimitNear": (r"of its CONNECTION LIMIT: \d+ of \d+\.",),
    "DatabasePoolSaturated": (r", currently 3, are busy",),
    "DatabasePoolTimeouts": (
        r"orders-api: \d+ calls? got no connection from the pool orders in",
        r"Most connections are out at pgwatch_sessions/demo/service\.py:\d+ in orders_leaking \(12\)\.",
        r"The server shows leaked sessions of it: 12\.",
        r"\nhttp://127\.0\.0\.1:\d+/\n",
    ),
    "DatabaseSessionsBlocked": (r", for up to \d",),
    "DatabaseTransactionHoldsVacuum": (r"in a transaction open for \d",),
    "PgwatchSessionsBlind": (
        r"ledger cannot be polled: network\.",
        r"Grant pg_monitor",
        r"has not polled archive for \d",
        r"No daemon reports .+; the last report was \d",
    ),
}
#: Alerts that this run cannot cause, with the reason; `promtool test rules` covers them.
BY_PROMTOOL_ONLY = {
    ("DatabaseTransactionHoldsVacuum", "critical"): "a hundred million transactions behind one snapshot",
}


class AlertText(NamedTuple):
    """The name and the annotations of an alert."""

    alert: str
    annotations: Mapping[str, str]


def firing_alerts(scene: Scene) -> list[AlertText]:
    """Return the alerts that fire in Prometheus now, including suppressed ones."""
    alerts = scene.prometheus.http.get("/api/v1/alerts").raise_for_status().json()["data"]["alerts"]
    return [AlertText(each["labels"]["alertname"], each["annotations"]) for each in alerts if each["state"] == "firing"]


def sent_alerts(scene: Scene) -> list[AlertText]:
    """Return the firing alerts that the webhook received in the whole run."""
    return [AlertText(page.labels["alertname"], page.annotations) for page in scene.pages.all("firing")]


def wait_until_every_alert_fired(scene: Scene) -> None:
    """Wait until every alert has fired with every severity at some time of the run."""
    wanted = {(rule.name, rule.content["labels"]["severity"]) for rule in rules() if rule.is_alert}

    def missing() -> set[tuple[str, str]]:
        fired = scene.prometheus.query('max_over_time(ALERTS{alertstate="firing"}[10m])')
        return wanted - {(labels["alertname"], labels["severity"]) for labels, _ in fired}

    try:
        until(lambda: missing() == BY_PROMTOOL_ONLY.keys(), within=60)
    except AssertionError:
        raise AssertionError(f"never fired: {sorted(missing() - BY_PROMTOOL_ONLY.keys())}") from None
    scene.timeline.report(f"{len(wanted) - len(BY_PROMTOOL_ONLY)} of {len(wanted)} alerts have fired")


def assert_texts_are_complete(alerts: Collection[AlertText]) -> None:
    """Assert that no template failed, and that each query in a template had an answer."""
    texts: dict[str, list[str]] = {}
    for alert, annotations in alerts:
        text = "\n".join(annotations.values())
        assert not re.search(r"<error |<no value>|%!", text), text
        texts.setdefault(alert, []).append(text)
    for name, patterns in FROM_PROMETHEUS.items():
        for pattern in patterns:
            assert any(re.search(pattern, text) for text in texts[name]), (name, pattern, texts[name])


def print_answers(scene: Scene) -> None:
    """Print how many series answered each expression in each phase. Fail if an expression never had an answer."""
    phases = scene.timeline.phases
    counts = list(count_answers(scene.prometheus, phases))
    sys.stdout.write("\nhighest number of series in each phase\n")
    sys.stdout.write(as_table(counts, [name for name, _, _ in phases]) + "\n")
    promtool_only = {f"{name} ({severity})" for name, severity in BY_PROMTOOL_ONLY}
    for (name, severity), reason in BY_PROMTOOL_ONLY.items():
        sys.stdout.write(f"tested by promtool only: {name} ({severity}): {reason}\n")
    unanswered = [
        f"{each.kind}: {each.place}" for each in counts if not each.series and each.place not in promtool_only
    ]
    assert not unanswered, f"without an answer in the whole run: {unanswered}"
