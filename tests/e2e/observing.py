"""What the run does and sees of the one leak, told as it happens."""

import time
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from tests.e2e.alertmanager import Page
from tests.e2e.asked import query_of
from tests.e2e.scene import APPLICATION, CLIENT, ORDERS, SITE, Scene, matchers
from tests.grafana.expressions import expressions
from tests.support.waiting import until

LEAK = {"alertname": "DatabaseConnectionLeak", **CLIENT, "site": SITE}


def lose(scene: Scene, count: int, *, every: int) -> float:
    """Lose so many sessions, one every so many polls, beside healthy requests; return when it began."""
    scene.service.work()
    begun = time.time()
    scene.timeline.tell(f"leak starts: {APPLICATION} loses a session at {SITE}")
    while scene.held() < count:
        scene.service.leak()
        scene.service.work()
        scene.next_polls(every)
    return begun


def logged(scene: Scene, event: str, *, since: float, **wanted: str) -> None:
    """Wait until a daemon has logged this of the leak, and tell it."""
    about = {"server": ORDERS, "application": APPLICATION, "site": SITE, **wanted}

    def found() -> list[dict[str, Any]]:
        return [
            each
            for watcher in scene.watchers
            for each in watcher.events(event)
            if about.items() <= each.items() and _time_of(each) >= since
        ]

    first = min(until(found, within=20), key=_time_of)
    text = (
        f"{event} ({first['severity']}): {first['application']} at {first['site']}, {len(first['sessions'])} sessions"
    )
    scene.timeline.tell(f"finding in the daemon's log: {text}", at=_time_of(first))


def _time_of(event: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(event["timestamp"]).timestamp()


def arrived(scene: Scene, status: str, *, since: float, severity: str, within: float = 20.0) -> Page:
    """Wait for the page about the leak; tell when the alert fired, if it does, and when the page came."""
    page = scene.pages.first(status, {**LEAK, "severity": severity}, since=since, within=within)
    if status == "firing":
        query = f'ALERTS{{{matchers({**LEAK, "severity": severity})},alertstate="firing"}}'
        at = since_when(scene, query, since)
        scene.timeline.tell(f"firing in Prometheus: DatabaseConnectionLeak ({severity})", at=at)
        text = page.annotations["summary"]
    else:
        text = f"DatabaseConnectionLeak ({severity})"
    scene.timeline.tell(f"{status} at the webhook /{page.receiver}: {text}", at=page.at)
    return page


def since_when(scene: Scene, query: str, since: float) -> float:
    """Wait until something answers, or did since then; return when it first did, to a tenth of a second."""

    def answered() -> Mapping[float, int]:
        return scene.prometheus.counted(query, start=since, end=time.time(), step=0.1)

    return min(until(answered, within=20))


def inhibited(scene: Scene, **labels: str) -> bool:
    """Tell whether Alertmanager keeps the leak's alert with these labels quiet."""
    wanted = {**LEAK, **labels}
    known = scene.alertmanager.get("/api/v2/alerts").raise_for_status().json()
    return any(each["status"]["inhibitedBy"] for each in known if wanted.items() <= each["labels"].items())


def nothing_resolved(scene: Scene) -> None:
    """Fail if the leak's critical alert was ever resolved."""
    assert scene.pages.all("resolved", {**LEAK, "severity": "critical"}) == []


def until_all_answer(scene: Scene, but: Collection[str] = ()) -> None:
    """Wait until every panel has an answer, but for these, under healthy requests."""
    for expression in expressions():
        if expression.place not in but:
            query = query_of(expression)

            def answered(query: str = query) -> bool:
                scene.service.work()
                return bool(scene.prometheus.ask(query))

            until(answered, within=30)


def leaked_as_shown(scene: Scene) -> set[float | None]:
    """Return what the dashboards give as the number of leaked sessions, of two daemons' words."""
    shown = [each for each in expressions() if each.place in {"server: Leaked sessions", "leak: Leaked sessions"}]
    assert len(shown) == 2
    return {scene.prometheus.one(query_of(each)) for each in shown}
