"""One run of all real programs, from the first leaked session to the notification and back to normal.

The shipped configuration runs 60 times as fast (a minute becomes a second) and with other addresses: `scaled.py`.
"""

import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from pgwatch_sessions.core.findings import LeakKind
from pgwatch_sessions.core.model import Client
from pgwatch_sessions.demo import service_process
from pgwatch_sessions.demo.postgres import SUPERUSER
from pgwatch_sessions.wording.labels import HOW_HELD, client_name
from tests.e2e import alertmanager, prometheus
from tests.e2e.answers import fill_query
from tests.e2e.leak_steps import (
    LEAK,
    assert_nothing_resolved,
    first_answer_time,
    is_inhibited,
    leak_sessions,
    leaked_sessions_on_dashboards,
    wait_for_log_event,
    wait_for_page,
    wait_for_time_outs,
    wait_until_all_panels_answer,
)
from tests.e2e.problems import LEAKER, LEAKY_SITE, all_other_problems
from tests.e2e.scene import (
    APPLICATION,
    BILLING,
    CLIENT,
    ORDERS,
    ROOMY,
    SITE,
    Scene,
    matchers,
    running_scene,
    set_connection_limits,
)
from tests.e2e.shipped import (
    assert_texts_are_complete,
    firing_alerts,
    print_answers,
    sent_alerts,
    wait_until_every_alert_fired,
)
from tests.support.dashboard_expressions import expressions
from tests.support.restartable_daemon import RestartableDaemon
from tests.support.servers import OwnPostgresFactory
from tests.support.situations import idle_in_transaction
from tests.support.waiting import until

LEAKED = 5
#: Panels that are empty before the first finding.
PANELS_OF_FINDINGS = {
    "fleet: Who leaks",
    "fleet: Sessions leaked per minute",
    "leak: Findings",
    "leak: Leaked sessions by line of code",
    "leak: Leaked sessions by site",
    "leak: Sessions leaked per minute",
    "leak: Findings opened and closed",
    "application: Findings",
    "application: Leaked sessions by line of code",
}
#: Empty until a poll has seen a transaction between two statements, a scrape has seen a connection out, and the pool
#: has opened a connection since the first scrape.
PANELS_OF_THE_MOMENT = {
    "server: Time idle in transaction",
    "application: Lines whose connections are out",
    "application: Time to connect",
}
needs_programs = pytest.mark.skipif(
    None in {prometheus.PROGRAM, alertmanager.PROGRAM},
    reason="Prometheus or Alertmanager is not installed: apt install prometheus prometheus-alertmanager",
)


@pytest.mark.e2e
@needs_programs
@pytest.mark.timeout(300)
def test_a_leak_is_notified_and_resolved_and_every_expression_has_data(
    own_postgres: OwnPostgresFactory, tmp_path: Path
) -> None:
    """The notification names the client and the site. Stopped polling resolves nothing. Every query has an answer."""
    with running_scene(own_postgres, tmp_path) as scene:
        run_without_problems(scene)
        with all_other_problems(scene):
            leak_slowly(scene)
            deploy_fix(scene)
            leak_until_critical(scene)
            texts = [*firing_alerts(scene)]
            kill_daemons(scene)
            texts += firing_alerts(scene)
            restart_daemons(scene)
            refuse_configuration(scene)
            deploy_final_fix(scene)
            wait_until_every_alert_fired(scene)
            scene.timeline.end()
        assert_texts_are_complete([*texts, *sent_alerts(scene)])
        print_answers(scene)


def run_without_problems(scene: Scene) -> None:
    """Check that only the panels of findings are empty, and that no alert is pending or firing."""
    scene.timeline.begin(
        "healthy", "two daemons watch six servers; one does not exist and one hides its session states"
    )
    wait_until_all_panels_answer(scene, but=PANELS_OF_FINDINGS | PANELS_OF_THE_MOMENT)
    empty = {each.place for each in expressions() if not scene.prometheus.query(fill_query(each))}
    assert empty - PANELS_OF_THE_MOMENT == PANELS_OF_FINDINGS
    assert scene.prometheus.query('ALERTS{alertname=~"Database.+"}') == []
    scene.timeline.report("only the panels of findings are empty, and no alert on a database is active")
    scene.timeline.begin("problems", "the other servers get all other problems")


def leak_slowly(scene: Scene) -> None:
    """Leak slowly, far from any limit: a warning arrives at `attention`."""
    scene.timeline.begin("leaking", f"a session leaks every second; the role's limit is {ROOMY}")
    begin = leak_sessions(scene, LEAKED, every=6)
    wait_for_log_event(scene, "leak_opened", since=begin)
    wait_for_log_event(scene, "leak_changed", since=begin, severity="warning")
    page = wait_for_page(scene, "firing", since=begin, severity="warning")
    assert page.receiver == "attention"
    client = client_name(Client(service_process.DATABASE, service_process.ROLE, APPLICATION))
    summary = page.annotations["summary"]
    assert summary.startswith(f"{client}: ")
    assert summary.endswith(f" {HOW_HELD[LeakKind.TRANSACTION_HELD]} at {SITE} on {ORDERS}")
    assert httpx.get(page.annotations["page_url"]).status_code == 200
    assert "<title>DatabaseConnectionLeak " in httpx.get(page.annotations["runbook_url"]).text
    assert scene.pages.all("firing", {**LEAK, "severity": "critical"}) == []
    other_leak = scene.pages.first("firing", {"application": LEAKER, "site": LEAKY_SITE})
    assert other_leak.annotations["summary"].startswith(f"{LEAKER} (")
    assert other_leak.annotations["summary"].endswith(f" at {LEAKY_SITE} on {BILLING}")
    scene.timeline.report(
        f"firing at the webhook /{other_leak.receiver}: {other_leak.annotations['summary']}", at=other_leak.at
    )
    with idle_in_transaction(scene.servers[ORDERS].dsn(database=service_process.DATABASE)):  # this transaction ends
        age = f'pgwatch_sessions_idle_in_transaction_age_max_seconds{{user="{SUPERUSER}",database="shop"}}'
        until(lambda: scene.prometheus.query(age))
    wait_until_all_panels_answer(scene)
    until(lambda: leaked_sessions_on_dashboards(scene) == {float(LEAKED)})
    scene.timeline.report(f"every panel has data; with two daemons, the dashboards show {LEAKED} leaked sessions")


def deploy_fix(scene: Scene) -> None:
    """Deploy the fix: the finding closes, and the alert resolves."""
    begin = time.time()
    scene.timeline.begin("fixed", "the fixed service is deployed")
    set_connection_limits(scene.servers[ORDERS], service_process.CONNECTIONS)
    scene.service.deploy(fixed=True)
    scene.timeline.report("fixed: the old process has ended, and the new one serves")
    wait_for_log_event(scene, "leak_closed", since=begin)
    wait_for_page(scene, "resolved", since=begin, severity="warning", within=40)


def leak_until_critical(scene: Scene) -> None:
    """Leak until the role's limit is used up: a critical alert arrives at `wake`, and the warning is suppressed."""
    scene.timeline.begin("critical", f"the leak is back and faster; the role's limit is {service_process.CONNECTIONS}")
    capacity = f"max(pgwatch_sessions_capacity_slots{{{matchers({'server': ORDERS, 'scope': 'role'})}}})"
    until(lambda: scene.prometheus.value(capacity) == service_process.CONNECTIONS, within=40)
    scene.service.deploy(fixed=False)
    begin = leak_sessions(scene, service_process.CONNECTIONS, every=2)
    scene.timeline.report(f"the role {service_process.ROLE} has no free connections")
    wait_for_log_event(scene, "leak_opened", since=begin)
    page = wait_for_page(scene, "firing", since=begin, severity="critical")
    assert page.receiver == "wake"
    limit = {"alertname": "DatabaseRoleLimitNear", "server": ORDERS, "scope": "role", "severity": "critical"}
    for state in ("pending", "firing"):
        at = first_answer_time(scene, f'ALERTS{{{matchers(limit)},alertstate="{state}"}}', begin)
        scene.timeline.report(f"{state} in Prometheus: DatabaseRoleLimitNear (critical)", at=at)
    near = scene.pages.first("firing", limit, since=begin)
    scene.timeline.report(f"firing at the webhook /{near.receiver}: {near.annotations['summary']}", at=near.at)
    until(lambda: is_inhibited(scene, severity="warning"))
    assert scene.pages.all("firing", {**LEAK, "severity": "warning"}, since=begin) == []
    scene.timeline.report("the leak's warning is suppressed and was not sent")
    wait_for_time_outs(scene, since=begin)


def kill_daemons(scene: Scene) -> None:
    """Kill both daemons: a notification arrives, and firing alerts keep firing."""
    scene.timeline.begin("killed", "the daemons are killed, one after the other")
    leak = f"site:pgwatch_sessions_leaked_sessions:critical{{{matchers(CLIENT)},{matchers({'site': SITE})}}}"
    before = scene.prometheus.value(leak)
    for daemon, severity in zip(scene.daemons, ("warning", "critical"), strict=True):
        daemon.kill()
        scene.timeline.report(f"killed the daemon at {daemon.address}")
        down = scene.pages.first("firing", {"alertname": "PgwatchSessionsDown", "severity": severity})
        scene.timeline.report(f"firing at the webhook /{down.receiver}: {down.annotations['summary']}", at=down.at)
    gone = {"alertname": "PgwatchSessionsBlind", "reason": "gone", "server": ORDERS, "alertstate": "firing"}
    until(lambda: scene.prometheus.query(f"ALERTS{{{matchers(gone)}}}"))
    scene.timeline.report("firing in Prometheus: PgwatchSessionsBlind (gone), suppressed by PgwatchSessionsDown")
    # Longer than `keep_firing_for` alone would keep it firing.
    seconds = f"server:pgwatch_sessions_blind:seconds{{{matchers({'server': ORDERS})}}}"
    until(lambda: (scene.prometheus.value(seconds) or 0) > 11, within=30)
    assert scene.prometheus.value(leak) == before
    assert_nothing_resolved(scene)
    scene.timeline.report("the leak still fires after 11 s (11 minutes) without polls, and nothing was resolved")


def restart_daemons(scene: Scene) -> None:
    """Restart the daemons: they report the same leak, nothing was resolved meanwhile, and nobody is paged again.

    The first one goes on with its finding. The other one has no state, and opens it again.
    """
    scene.timeline.begin("restarted", "the daemons are started again")
    begin = time.time()
    opened = [len(openings(daemon)) for daemon in scene.daemons]
    for daemon in scene.daemons:
        daemon.start()
    found = f'pgwatch_sessions_leaked_sessions{{{matchers(CLIENT)},severity="critical"}} > 0'
    until(lambda: len(scene.prometheus.query(found)) == len(scene.daemons), within=30)
    assert_nothing_resolved(scene)
    assert [len(openings(daemon)) for daemon in scene.daemons] == [opened[0], opened[1] + 1]
    assert scene.pages.all("firing", {**LEAK, "severity": "critical"}, since=begin) == []
    scene.timeline.report("both daemons report the leak as critical again, one without opening a finding again")
    down = scene.pages.first("resolved", {"alertname": "PgwatchSessionsDown", "severity": "critical"}, within=30)
    scene.timeline.report("resolved: PgwatchSessionsDown (critical)", at=down.at)


def refuse_configuration(scene: Scene) -> None:
    """Break the configuration file: the daemon keeps its settings, and an alert fires until the file is valid again."""
    daemon = scene.daemons[0]
    scene.timeline.begin("refused", "the configuration file has a mistake")
    text = scene.configuration.read_text()
    alert = f'ALERTS{{alertname="PgwatchSessionsConfigReloadFailed",alertstate="firing",instance="{daemon.address}"}}'
    scene.configuration.write_text(f"hold_limt: 1s\n{text}")
    daemon.reload()
    # Four evaluations are a second: long enough for the table at the end, which looks every half second.
    until(lambda: scene.prometheus.query(f"count_over_time({alert}[10s]) >= 4"), within=40)
    scene.timeline.report("firing in Prometheus: PgwatchSessionsConfigReloadFailed")
    scene.configuration.write_text(text)
    daemon.reload()
    until(lambda: not scene.prometheus.query(alert), within=40)
    scene.timeline.report("the daemon has loaded the corrected file, and the alert is resolved")


def openings(daemon: RestartableDaemon) -> list[dict[str, Any]]:
    """Return the events with which a daemon opened a finding on the leak."""
    fields = {"server": ORDERS, "application": APPLICATION, "site": SITE}
    return [event for event in daemon.events("leak_opened") if fields.items() <= event.items()]


def deploy_final_fix(scene: Scene) -> None:
    """Deploy the fix for good: all alerts on the leak resolve."""
    scene.timeline.begin("ended", "the fixed service is deployed for good")
    begin = time.time()
    scene.service.deploy(fixed=True)
    scene.timeline.report("fixed: the old process has ended, and the new one serves")
    wait_for_log_event(scene, "leak_closed", since=begin)
    wait_for_page(scene, "resolved", since=begin, severity="critical", within=40)
