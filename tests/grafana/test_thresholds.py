import re

import pytest

from pgwatch_sessions.metrics.table import PREFIX
from tests.grafana.expressions import FOLDER, loaded, panels_of

#: What informs and is good or bad by no number: it depends on the service, or the panel beside says it.
INFORMING = {
    "fleet": {
        "Servers",
        "Sessions leaked a minute",
        "Leaked sessions",
        "Failed polls",
        "Duration of polls",
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
        "How long transactions sat idle",
        "Failed polls",
        "Duration of polls",
    },
    "leak": {
        "Leaked sessions by site",
        "Sessions leaked a minute",
        "Findings opened and closed",
        "Its sessions by state",
        "Longest time in each state",
        "Who waits",
        "Sessions of its database that ended badly",
    },
}
#: Lines that stand where alerts begin: the panel, and how the metrics begin that the alerts' conditions compare.
ALERTED = {
    ("fleet", "Time until full"): ("exhaustion_seconds",),
    ("server", "Time until each limit"): ("exhaustion_seconds",),
    ("server", "Longest idle in transaction"): ("idle_in_transaction_age",),
    ("server", "Oldest transaction"): ("query_age",),  # no alert is about transactions that are old and work
    ("server", "Oldest running query"): ("query_age",),
    ("server", "Who makes others wait"): ("blocked_by",),
    ("server", "Who holds back vacuum"): ("xmin_age",),
    ("leak", "Oldest transaction and query"): ("idle_in_transaction_age", "query_age"),
    ("leak", "Vacuum held back"): ("xmin_age",),
}


@pytest.mark.parametrize("name", INFORMING)
def test_a_panel_says_what_is_good_and_what_is_bad(name: str) -> None:
    """By a threshold, words for its values, or columns of their own; but for those that only inform."""
    silent = set()
    for panel in panels_of(loaded()[name]):
        if panel["type"] != "text":
            defaults, overrides = panel["fieldConfig"]["defaults"], panel["fieldConfig"]["overrides"]
            if len(defaults["thresholds"]["steps"]) < 2 and not defaults.get("mappings") and not overrides:
                silent.add(panel["title"])
    assert silent == INFORMING[name]


@pytest.mark.parametrize(("place", "metrics"), ALERTED.items(), ids=[": ".join(place) for place in ALERTED])
def test_lines_stand_where_alerts_begin(place: tuple[str, str], metrics: tuple[str, ...]) -> None:
    """What is drawn as too much is the number that somebody is told at; `> 0` needs no line."""
    name, title = place
    [panel] = [panel for panel in panels_of(loaded()[name]) if panel["title"] == title]
    drawn = {step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]} - {None}
    rules = (FOLDER.parents[1] / "alerts" / "alert_rules.yml").read_text(encoding="utf-8")
    compared = rf"\b{PREFIX}(?:{'|'.join(metrics)})[\w:]*(?:{{[^}}]*}})?\s+[<>]=?\s+(\d+)"
    assert drawn == {int(number) for number in re.findall(compared, rules)} - {0}
    assert panel["fieldConfig"]["defaults"]["custom"]["thresholdsStyle"]["mode"] == "dashed"
