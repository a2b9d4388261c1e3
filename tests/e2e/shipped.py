"""What the run proves of everything that ships: each alert fires with whole texts, each expression has an answer."""

import re
import sys
from collections.abc import Collection, Mapping
from typing import NamedTuple

from tests.alerts.rules import rules
from tests.e2e.asked import answers, as_table
from tests.e2e.scene import Scene
from tests.support.waiting import until

#: What annotations must have got from Prometheus in some alert of that name.
FROM_PROMETHEUS = {
    "DatabaseConnectionLeak": (
        r", \d+\.\d more a minute of all its sites",
        r", seen since 20\d\d-",
        r"A limit on connections is reached in \d",
        r"reached in 0s",
    ),
    "DatabaseConnectionsExhausted": (r"Most are held by .+ \(\d+\),? ?.*\.", r"Leaked or held: \d+\."),
    "DatabaseConnectionsExhaustionPredicted": (r"In use: \d+ of \d+\.",),
    "DatabaseRoleLimitNear": (r"used: \d+ of \d+\.",),
    "DatabasePoolSaturated": (r", 3 at present, are busy",),
    "DatabaseSessionsBlocked": (r", for up to \d",),
    "DatabaseTransactionHoldsVacuum": (r"in a transaction open for \d",),
    "PgwatchSessionsBlind": (
        r"Looks at ledger fail: network\.",
        r"GRANT pg_monitor",
        r"has not looked at archive for \d",
        r"No daemon tells of .+; the last was \d",
    ),
}
#: What no run brings about, with the reason; `promtool test rules` proves these.
BY_PROMTOOL_ONLY = {
    ("DatabaseTransactionHoldsVacuum", "critical"): "a hundred million transactions behind one snapshot",
}


class Text(NamedTuple):
    """What an alert says: its name and its annotations."""

    alert: str
    annotations: Mapping[str, str]


def firing(scene: Scene) -> list[Text]:
    """Return the alerts that fire now, those that nobody is told of among them."""
    alerts = scene.prometheus.http.get("/api/v1/alerts").raise_for_status().json()["data"]["alerts"]
    return [Text(each["labels"]["alertname"], each["annotations"]) for each in alerts if each["state"] == "firing"]


def paged(scene: Scene) -> list[Text]:
    """Return the alerts that somebody was told of in the whole run."""
    return [Text(page.labels["alertname"], page.annotations) for page in scene.pages.all("firing")]


def until_everything_fired(scene: Scene) -> None:
    """Wait until every alert of every severity has fired at some time of the run."""
    wanted = {(rule.name, rule.content["labels"]["severity"]) for rule in rules() if rule.is_alert}

    def missing() -> set[tuple[str, str]]:
        ever = scene.prometheus.ask('max_over_time(ALERTS{alertstate="firing"}[10m])')
        return wanted - {(labels["alertname"], labels["severity"]) for labels, _ in ever}

    try:
        until(lambda: missing() == BY_PROMTOOL_ONLY.keys(), within=60)
    except AssertionError:
        raise AssertionError(f"never fired: {sorted(missing() - BY_PROMTOOL_ONLY.keys())}") from None
    scene.timeline.tell(f"{len(wanted) - len(BY_PROMTOOL_ONLY)} of {len(wanted)} alerts have fired")


def texts_are_whole(found: Collection[Text]) -> None:
    """Fail if a template failed, or did not get from Prometheus what it asks for."""
    texts: dict[str, list[str]] = {}
    for alert, annotations in found:
        text = "\n".join(annotations.values())
        assert not re.search(r"<error |<no value>|%!", text), text
        texts.setdefault(alert, []).append(text)
    for name, patterns in FROM_PROMETHEUS.items():
        for pattern in patterns:
            assert any(re.search(pattern, text) for text in texts[name]), (name, pattern, texts[name])


def show_answers(scene: Scene) -> None:
    """Print how many series answered each expression in each phase; fail if one was never answered."""
    phases = scene.timeline.phases
    found = list(answers(scene.prometheus, phases))
    sys.stdout.write("\nseries that answered, at most, in each phase\n")
    sys.stdout.write(as_table(found, [name for name, _, _ in phases]) + "\n")
    promtool_only = {f"{name} ({severity})" for name, severity in BY_PROMTOOL_ONLY}
    for (name, severity), reason in BY_PROMTOOL_ONLY.items():
        sys.stdout.write(f"by promtool only: {name} ({severity}): {reason}\n")
    assert {
        f"{each.kind}: {each.place}" for each in found if not each.series and each.place not in promtool_only
    } == set()
