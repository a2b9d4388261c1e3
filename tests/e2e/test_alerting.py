"""One real run of all that takes part, from the first lost session to the page and back.

A minute passes in a second; `tests/e2e/scaled.py` shows what else differs from what is shipped, which is addresses.
"""

import time
from pathlib import Path

import httpx
import pytest

from pgwatch_sessions.demo import service_process
from pgwatch_sessions.demo.postgres import SUPERUSER
from tests.e2e import alertmanager, prometheus
from tests.e2e.asked import query_of
from tests.e2e.crises import LEAKER, LEAKY_SITE, everything_else
from tests.e2e.observing import (
    LEAK,
    arrived,
    inhibited,
    leaked_as_shown,
    logged,
    lose,
    nothing_resolved,
    since_when,
    until_all_answer,
)
from tests.e2e.scene import (
    APPLICATION,
    BILLING,
    CLIENT,
    ORDERS,
    ROOMY,
    SITE,
    Scene,
    let_orders_connect,
    matchers,
    played,
)
from tests.e2e.shipped import firing, paged, show_answers, texts_are_whole, until_everything_fired
from tests.grafana.expressions import expressions
from tests.support.servers import OwnPostgresFactory
from tests.support.situations import idle_in_transaction
from tests.support.waiting import until

RUNBOOK = "https://runbooks.example/pgwatch-sessions/DatabaseConnectionLeak.md"
LEAKED = 5
#: What has nothing to show while nothing is or was found, and says so in other words than "No data".
OF_FINDINGS = {
    "fleet: Who leaks",
    "fleet: Sessions leaked a minute",
    "leak: Findings",
    "leak: Leaked sessions by site",
    "leak: Sessions leaked a minute",
    "leak: Findings opened and closed",
}
#: Has something to show once a poll happened to see a transaction between two statements.
OF_HOLDS = "server: How long transactions sat idle"
needs_programs = pytest.mark.skipif(
    None in {prometheus.PROGRAM, alertmanager.PROGRAM},
    reason="Prometheus or Alertmanager is not installed: apt install prometheus prometheus-alertmanager",
)


@pytest.mark.e2e
@needs_programs
@pytest.mark.timeout(300)
def test_a_leak_is_paged_and_resolved_and_everything_has_its_data(
    own_postgres: OwnPostgresFactory, tmp_path: Path
) -> None:
    """The page names who leaks where; nothing resolves because nobody polls; every expression has an answer."""
    with played(own_postgres, tmp_path) as scene:
        healthy(scene)
        with everything_else(scene):
            leaking(scene)
            fixed(scene)
            critical(scene)
            texts = [*firing(scene)]
            blind(scene)
            texts += firing(scene)
            seeing_again(scene)
            ended(scene)
            until_everything_fired(scene)
            scene.timeline.end()
        texts_are_whole([*texts, *paged(scene)])
        show_answers(scene)


def healthy(scene: Scene) -> None:
    """See that only what is about findings has nothing to show, and that no alert is about to fire."""
    scene.timeline.begin("healthy", "two daemons watch six servers, of which one is absent and one hides its states")
    until_all_answer(scene, but={*OF_FINDINGS, OF_HOLDS})
    empty = {each.place for each in expressions() if not scene.prometheus.ask(query_of(each))}
    assert empty - {OF_HOLDS} == OF_FINDINGS
    assert scene.prometheus.ask('ALERTS{alertname=~"Database.+"}') == []
    scene.timeline.tell("every panel shows what it should, and no alert of a database is active")
    scene.timeline.begin("crises", "the other servers get into every other kind of trouble")


def leaking(scene: Scene) -> None:
    """Lose sessions slowly, far from any limit: a warning, one page at `attention`."""
    scene.timeline.begin("leaking", f"a session is lost every second; the role may have {ROOMY}")
    begun = lose(scene, LEAKED, every=6)
    logged(scene, "leak_opened", since=begun)
    logged(scene, "leak_changed", since=begun, severity="warning")
    page = arrived(scene, "firing", since=begun, severity="warning")
    assert page.receiver == "attention"
    assert page.annotations["summary"] == f"{APPLICATION} leaks connections of {ORDERS} at {SITE}"
    assert f"user {service_process.ROLE}, database {service_process.DATABASE}" in page.annotations["description"]
    assert page.annotations["runbook_url"] == RUNBOOK
    assert httpx.get(page.annotations["page_url"]).status_code == 200
    assert scene.pages.all("firing", {**LEAK, "severity": "critical"}) == []
    bitten = scene.pages.first("firing", {"application": LEAKER, "site": LEAKY_SITE})
    assert bitten.annotations["summary"] == f"{LEAKER} leaks connections of {BILLING} at {LEAKY_SITE}"
    scene.timeline.tell(f"firing at the webhook /{bitten.receiver}: {bitten.annotations['summary']}", at=bitten.at)
    with idle_in_transaction(
        scene.servers[ORDERS].dsn(database=service_process.DATABASE)
    ):  # which ends, unlike the leaks
        age = f'pgwatch_sessions_idle_in_transaction_age_max_seconds{{user="{SUPERUSER}",database="shop"}}'
        until(lambda: scene.prometheus.ask(age))
    until_all_answer(scene)
    until(lambda: leaked_as_shown(scene) == {float(LEAKED)})
    scene.timeline.tell(f"every panel has data, and shows {LEAKED} leaked sessions by two daemons' word")


def fixed(scene: Scene) -> None:
    """Deploy the fix: the finding closes, the alert resolves."""
    begun = time.time()
    scene.timeline.begin("fixed", "the fixed service is deployed")
    let_orders_connect(scene.servers[ORDERS], service_process.CONNECTIONS)
    scene.service.deploy(fixed=True)
    scene.timeline.tell("fixed: the old process has ended, the new one serves")
    logged(scene, "leak_closed", since=begun)
    arrived(scene, "resolved", since=begun, severity="warning", within=40)


def critical(scene: Scene) -> None:
    """Lose sessions until the role has no connection left: somebody is woken, and not told of the warning."""
    scene.timeline.begin(
        "critical", f"the mistake is back, and faster; the role may have {service_process.CONNECTIONS}"
    )
    capacity = f"max(pgwatch_sessions_capacity_slots{{{matchers({'server': ORDERS, 'scope': 'role'})}}})"
    until(lambda: scene.prometheus.one(capacity) == service_process.CONNECTIONS, within=40)
    scene.service.deploy(fixed=False)
    begun = lose(scene, service_process.CONNECTIONS, every=2)
    scene.timeline.tell(f"the role {service_process.ROLE} has no connection left")
    logged(scene, "leak_opened", since=begun)
    page = arrived(scene, "firing", since=begun, severity="critical")
    assert page.receiver == "wake"
    limit = {"alertname": "DatabaseRoleLimitNear", "server": ORDERS, "scope": "role", "severity": "critical"}
    for state in ("pending", "firing"):
        at = since_when(scene, f'ALERTS{{{matchers(limit)},alertstate="{state}"}}', begun)
        scene.timeline.tell(f"{state} in Prometheus: DatabaseRoleLimitNear (critical)", at=at)
    near = scene.pages.first("firing", limit, since=begun)
    scene.timeline.tell(f"firing at the webhook /{near.receiver}: {near.annotations['summary']}", at=near.at)
    until(lambda: inhibited(scene, severity="warning"))
    assert scene.pages.all("firing", {**LEAK, "severity": "warning"}, since=begun) == []
    scene.timeline.tell("the warning of the leak is inhibited, and was not sent")


def blind(scene: Scene) -> None:
    """Kill both daemons: that is paged, and what fired goes on firing for as long as nobody polls."""
    scene.timeline.begin("blind", "the daemons are killed, one after the other")
    leak = f"site:pgwatch_sessions_leaked_sessions:critical{{{matchers(CLIENT)},{matchers({'site': SITE})}}}"
    before = scene.prometheus.one(leak)
    for watcher, severity in zip(scene.watchers, ("warning", "critical"), strict=True):
        watcher.kill()
        scene.timeline.tell(f"killed the daemon at {watcher.address}")
        down = scene.pages.first("firing", {"alertname": "PgwatchSessionsDown", "severity": severity})
        scene.timeline.tell(f"firing at the webhook /{down.receiver}: {down.annotations['summary']}", at=down.at)
    gone = {"alertname": "PgwatchSessionsBlind", "reason": "gone", "server": ORDERS, "alertstate": "firing"}
    until(lambda: scene.prometheus.ask(f"ALERTS{{{matchers(gone)}}}"))
    scene.timeline.tell("firing in Prometheus: PgwatchSessionsBlind (gone), which PgwatchSessionsDown inhibits")
    # Longer than `keep_firing_for` would have held it.
    seconds = f"server:pgwatch_sessions_blind:seconds{{{matchers({'server': ORDERS})}}}"
    until(lambda: (scene.prometheus.one(seconds) or 0) > 11, within=30)
    assert scene.prometheus.one(leak) == before
    nothing_resolved(scene)
    scene.timeline.tell("the leak still fires after 11 s (11 minutes) without sight, and nothing was resolved")


def seeing_again(scene: Scene) -> None:
    """Start the daemons again, which know nothing and find the same leak: nothing was resolved meanwhile."""
    scene.timeline.begin("back", "the daemons are started again")
    for watcher in scene.watchers:
        watcher.start()
    found = f'pgwatch_sessions_leaked_sessions{{{matchers(CLIENT)},severity="critical"}} > 0'
    until(lambda: len(scene.prometheus.ask(found)) == len(scene.watchers), within=30)
    nothing_resolved(scene)
    scene.timeline.tell("both say again that it is critical, and nothing was resolved")
    down = scene.pages.first("resolved", {"alertname": "PgwatchSessionsDown", "severity": "critical"}, within=30)
    scene.timeline.tell("resolved: PgwatchSessionsDown (critical)", at=down.at)


def ended(scene: Scene) -> None:
    """Deploy the fix for good: everything about the leak resolves."""
    scene.timeline.begin("ended", "the fixed service is deployed for good")
    begun = time.time()
    scene.service.deploy(fixed=True)
    scene.timeline.tell("fixed: the old process has ended, the new one serves")
    logged(scene, "leak_closed", since=begun)
    arrived(scene, "resolved", since=begun, severity="critical", within=40)
