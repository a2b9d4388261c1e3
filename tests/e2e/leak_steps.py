"""Steps of the run that cause the leak or wait for its effects; each reports to the timeline."""

import time
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

from tests.e2e.alertmanager import Page
from tests.e2e.answers import fill_query
from tests.e2e.scene import APPLICATION, CLIENT, ORDERS, SITE, Scene, matchers
from tests.support.dashboard_expressions import expressions
from tests.support.waiting import until

LEAK = {"alertname": "DatabaseConnectionLeak", **CLIENT, "site": SITE}


def leak_sessions(scene: Scene, count: int, *, every: int) -> float:
    """Leak `count` sessions, one every `every` polls, between healthy requests. Return the time of the start."""
    scene.service.work()
    begin = time.time()
    scene.timeline.report(f"leak starts: {APPLICATION} leaks a session at {SITE}")
    while scene.held_sessions() < count:
        scene.service.leak()
        scene.service.work()
        scene.wait_for_polls(every)
    return begin


def wait_for_log_event(scene: Scene, event: str, *, since: float, **wanted: str) -> None:
    """Wait until a daemon has logged this event about the leak, and report it."""
    fields = {"server": ORDERS, "application": APPLICATION, "site": SITE, **wanted}

    def matching_events() -> list[dict[str, Any]]:
        return [
            each
            for daemon in scene.daemons
            for each in daemon.events(event)
            if fields.items() <= each.items() and _time_of(each) >= since
        ]

    first = min(until(matching_events, within=20), key=_time_of)
    text = (
        f"{event} ({first['severity']}): {first['application']} at {first['site']}, {len(first['sessions'])} sessions"
    )
    scene.timeline.report(f"finding in the daemon's log: {text}", at=_time_of(first))


def _time_of(event: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(event["timestamp"]).timestamp()


def wait_for_page(scene: Scene, status: str, *, since: float, severity: str, within: float = 20.0) -> Page:
    """Wait for the page about the leak, and report when it arrived. If the alert fires, also report since when."""
    page = scene.pages.first(status, {**LEAK, "severity": severity}, since=since, within=within)
    if status == "firing":
        query = f'ALERTS{{{matchers({**LEAK, "severity": severity})},alertstate="firing"}}'
        at = first_answer_time(scene, query, since)
        scene.timeline.report(f"firing in Prometheus: DatabaseConnectionLeak ({severity})", at=at)
        text = page.annotations["summary"]
    else:
        text = f"DatabaseConnectionLeak ({severity})"
    scene.timeline.report(f"{status} at the webhook /{page.receiver}: {text}", at=page.at)
    return page


def wait_for_time_outs(scene: Scene, *, since: float) -> None:
    """Make requests that get no connection, until the alert on them has arrived, and report it."""
    labels = {"alertname": "DatabasePoolTimeouts", "application": APPLICATION, "severity": "critical"}

    def pages() -> list[Page]:
        with ThreadPoolExecutor() as executor:
            list(executor.map(lambda _: scene.service.work(), range(4)))
        return scene.pages.all("firing", labels, since=since)

    page = until(pages, within=30)[0]
    scene.timeline.report(f"firing at the webhook /{page.receiver}: {page.annotations['summary']}", at=page.at)


def first_answer_time(scene: Scene, query: str, since: float) -> float:
    """Wait until the query has an answer at some time after `since`, and return the first such time, to 0.1 s."""

    def answer_times() -> Mapping[float, int]:
        return scene.prometheus.count_series(query, start=since, end=time.time(), step=0.1)

    return min(until(answer_times, within=20))


def is_inhibited(scene: Scene, **labels: str) -> bool:
    """Return whether Alertmanager suppresses the leak's alert with these labels."""
    wanted = {**LEAK, **labels}
    alerts = scene.alertmanager.get("/api/v2/alerts").raise_for_status().json()
    return any(each["status"]["inhibitedBy"] for each in alerts if wanted.items() <= each["labels"].items())


def assert_nothing_resolved(scene: Scene) -> None:
    """Assert that the leak's critical alert was never resolved."""
    assert scene.pages.all("resolved", {**LEAK, "severity": "critical"}) == []


def wait_until_all_panels_answer(scene: Scene, but: Collection[str] = ()) -> None:
    """Wait until every panel has an answer, except those in `but`, while the service gets healthy requests."""
    for expression in expressions():
        if expression.place not in but:
            query = fill_query(expression)

            def answered(query: str = query) -> bool:
                scene.service.work()
                return bool(scene.prometheus.query(query))

            until(answered, within=30)


def leaked_sessions_on_dashboards(scene: Scene) -> set[float | None]:
    """Return the number of leaked sessions on the dashboards, which merge the values of two daemons."""
    panels = [each for each in expressions() if each.place in {"server: Leaked sessions", "leak: Leaked sessions"}]
    assert len(panels) == 2
    return {scene.prometheus.value(fill_query(each)) for each in panels}
