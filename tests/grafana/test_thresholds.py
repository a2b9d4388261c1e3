import re

import pytest

from pgwatch_sessions.metrics.table import PREFIX
from tests.support.dashboard_expressions import FOLDER, load_dashboards, panels_of

#: Panels without a good or bad value: it depends on the service, or a panel next to it shows it.
WITHOUT_THRESHOLDS = {
    "fleet": {
        "Servers",
        "Sessions leaked per minute",
        "Leaked sessions",
        "Failed polls",
        "Duration of polls",
        "Polls left out, and reconnects",
        "Memory",
        "HTTP clients refused",
    },
    "server": {
        "Idle in transaction",
        "PostgreSQL",
        "Sessions by state",
        "Sessions by client",
        "Connections of the server",
        "Who waits for locks",
        "Sessions opened",
        "Sessions that ended badly",
        "What sessions do on average",
        "Time idle in transaction",
        "Failed polls, and polls not recorded",
        "Duration of polls",
    },
    "leak": {
        "Leaked sessions by line of code",
        "Leaked sessions by site",
        "Sessions leaked per minute",
        "Findings opened and closed",
        "Its sessions by state",
        "Longest time in each state",
        "Who waits for locks",
        "Sessions of its database that ended badly",
    },
    "application": {
        "Waiting calls",
        "Calls without a connection",
        "Wait time",
        "Use time",
        "Time to connect",
        "Not returned by their borrowers",
        "Its sessions by state",
        "Leaked sessions by line of code",
    },
}
#: Panels with lines at alert thresholds, and prefixes of the metrics that these alerts compare.
LINES_AT_ALERTS = {
    ("fleet", "Time until a limit is reached"): ("exhaustion_seconds",),
    ("server", "Time until each limit is reached"): ("exhaustion_seconds",),
    ("server", "Longest idle in transaction"): ("idle_in_transaction_age",),
    ("server", "Oldest transaction"): ("query_age",),  # no alert is about old transactions that are working
    ("server", "Oldest running query"): ("query_age",),
    ("server", "Who blocks others"): ("blocked_by",),
    ("server", "Who holds back vacuum"): ("xmin_age",),
    ("leak", "Oldest transaction and query"): ("idle_in_transaction_age", "query_age"),
    ("leak", "Vacuum held back"): ("xmin_age",),
    ("application", "Time until its limits are reached"): ("exhaustion_seconds",),
}


@pytest.mark.parametrize("name", WITHOUT_THRESHOLDS)
def test_a_panel_shows_which_values_are_good_or_bad(name: str) -> None:
    """A panel has thresholds, value mappings or overrides, except the panels that only inform."""
    without = set()
    for panel in panels_of(load_dashboards()[name]):
        if panel["type"] != "text":
            defaults, overrides = panel["fieldConfig"]["defaults"], panel["fieldConfig"]["overrides"]
            if len(defaults["thresholds"]["steps"]) < 2 and not defaults.get("mappings") and not overrides:
                without.add(panel["title"])
    assert without == WITHOUT_THRESHOLDS[name]


@pytest.mark.parametrize(
    ("place", "metrics"), LINES_AT_ALERTS.items(), ids=[": ".join(place) for place in LINES_AT_ALERTS]
)
def test_lines_are_at_the_alert_thresholds(place: tuple[str, str], metrics: tuple[str, ...]) -> None:
    """A panel draws lines at exactly the numbers in the alerts' conditions. A condition `> 0` needs no line."""
    name, title = place
    [panel] = [panel for panel in panels_of(load_dashboards()[name]) if panel["title"] == title]
    drawn = {step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]} - {None}
    rules = (FOLDER.parents[1] / "alerts" / "alert_rules.yml").read_text(encoding="utf-8")
    compared = rf"\b{PREFIX}(?:{'|'.join(metrics)})[\w:]*(?:{{[^}}]*}})?\s+[<>]=?\s+(\d+)"
    assert drawn == {int(number) for number in re.findall(compared, rules)} - {0}
    assert panel["fieldConfig"]["defaults"]["custom"]["thresholdsStyle"]["mode"] == "dashed"
