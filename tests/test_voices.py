"""The log, `check`, the page, the JSON documents, the metrics and a replay say the same about the same minutes."""

import contextlib
import html
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import yaml

from tests.support.daemons import daemon, logged
from tests.support.programs import finished
from tests.support.servers import OwnPostgres, OwnPostgresFactory
from tests.support.situations import active, idle, idle_in_transaction, role
from tests.support.voices import (
    Said,
    Voice,
    of_api,
    of_check,
    of_events,
    of_metrics,
    replayed,
    text_of_check,
    text_of_page,
)
from tests.support.waiting import until

#: So short that a leak is one after a few seconds, and long enough for several polls on a machine that is busy.
JUDGED = ("--hold-limit", "2s", "--growth-window", "60s")
#: A pool that is too small is seen in several polls within one hold limit.
POLLS = ("--polls", "5", "--interval", "250ms")
ORDER = "SELECT 1 /*route='/orders/{id}'*/"
#: Ten short transactions. The next statement comes so soon that a poll rarely sees the session idle.
WORK = "DO $$ BEGIN FOR i IN 1..10 LOOP PERFORM pg_sleep(0.05); COMMIT; END LOOP; END $$"
LOCK = "SELECT pg_advisory_xact_lock(42)"
BILL = f"{LOCK} /*route='/bills'*/"
REPORT = "SELECT 1 /*route='/reports'*/"
#: The events that a log and a replay share.
EVENTS = ("leak_", "diagnosis_")

EXPECTED = Voice(
    findings=frozenset(
        {
            Said("leak", "critical", "orders", "/orders/{id}", "transaction_held"),
            Said("outage", "critical", "reports", "/reports", "transaction_held"),
            Said("blocker", "critical", "billing", "/bills", "transaction_held"),
        }
    ),
    sentences=None,
    verdicts={
        ("leak", ""): "leaking",
        ("leak", "orders"): "leaking",
        ("outage", ""): "leaking",
        ("outage", "reports"): "leaking",
        ("blocker", ""): "blocked",
        ("blocker", "billing"): "leaking",
        ("blocker", "mailer"): "blocked",
        ("pool", ""): "saturated",
        ("pool", "checkout"): "saturated",
    },
)


@contextlib.contextmanager
def running(step: threading.Event, body: threading.Thread) -> Iterator[None]:
    """Run a thread until the block ends."""
    body.start()
    try:
        yield
    finally:
        step.set()
        body.join(timeout=10)
        assert not body.is_alive()


@contextlib.contextmanager
def leaking(dsn: str) -> Iterator[None]:
    """Leak five sessions in two seconds, until the block ends."""
    ended = threading.Event()

    def leak() -> None:
        with contextlib.ExitStack() as leaked:
            while not ended.wait(0.4):
                leaked.enter_context(idle_in_transaction(dsn, ORDER))

    with running(ended, threading.Thread(target=leak)):
        yield


@contextlib.contextmanager
def busy_pool(dsn: str, size: int = 3) -> Iterator[None]:
    """Keep all sessions of a pool busy with short transactions, until the block ends."""
    ended = threading.Event()

    def work() -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            while not ended.is_set():
                connection.execute(WORK)

    with contextlib.ExitStack() as sessions:
        for _ in range(size):
            sessions.enter_context(running(ended, threading.Thread(target=work)))
        yield
        ended.set()


@contextlib.contextmanager
def full(dsn: str) -> Iterator[None]:
    """Hold 34 sessions; with the daemon's and that of a check, 36 of 37 slots are used."""
    with contextlib.ExitStack() as held:
        for _ in range(34):
            held.enter_context(idle_in_transaction(dsn, REPORT))
        yield


@contextlib.contextmanager
def scenes(servers: Mapping[str, OwnPostgres]) -> Iterator[None]:
    """Play all situations at once, each on a server of its own."""
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        enter(full(servers["outage"].dsn(application_name="reports")))
        enter(idle_in_transaction(servers["blocker"].dsn(application_name="billing"), BILL))
        enter(active(servers["blocker"].dsn(application_name="mailer"), LOCK))
        enter(busy_pool(servers["pool"].dsn(application_name="checkout")))
        enter(idle(servers["healthy"].dsn(application_name="shop"), 3))
        enter(leaking(servers["leak"].dsn(application_name="orders")))
        yield


def test_all_voices_agree(own_postgres: OwnPostgresFactory, tmp_path: Path) -> None:
    """A live leak, a server full of held sessions, a blocker, a pool that is too small, and a healthy server."""
    limits = {"outage": "40", "leak": "300"}
    servers = {
        name: own_postgres(settings={"max_connections": limits.get(name, "100")})
        for name in ("leak", "outage", "blocker", "pool", "healthy")
    }
    file, recordings = tmp_path / "five.yaml", tmp_path / "recordings"
    file.write_text(yaml.dump({"servers": [{"name": name, "dsn": own.dsn()} for name, own in servers.items()]}))
    configured = ("--config", str(file), *JUDGED)
    with scenes(servers), daemon(*configured, "--record-dir", str(recordings), interval="200ms") as watching:
        until(lambda: replace(of_api(watching), sentences=None) == EXPECTED, within=60)
        # A check, which knows no history, is certain once the first holds have lasted for some limits.
        agreed = until(lambda: _expected_check(*configured), within=60)
        assert agreed
        checked, document = agreed
        in_text = text_of_check(*configured, *POLLS)
        page, metrics, api = text_of_page(watching), of_metrics(watching), of_api(watching)
        watching.end_by(signal.SIGTERM)
        log = [event for event in logged(watching.log) if event["event"].startswith(EVENTS)]
    again = [event for event in replayed(recordings, *JUDGED) if event["event"].startswith(EVENTS)]
    voices = {"check": checked, "api": api, "log": of_events(log), "replay": of_events(again)}
    assert {name: replace(voice, sentences=None) for name, voice in voices.items()} == dict.fromkeys(voices, EXPECTED)
    assert page == in_text == checked.sentences == api.sentences
    assert {(each.server, each.label) for each in page} == {(each.server, each.severity) for each in EXPECTED.findings}
    assert metrics == EXPECTED.findings
    assert {server["server"]: server["exit_code"] for server in document["servers"]} == {
        **dict.fromkeys(("leak", "outage", "blocker"), 1),
        **dict.fromkeys(("pool", "healthy"), 0),
    }
    assert {name: _facts(again, name) for name in servers} == {name: _facts(log, name) for name in servers}


def _expected_check(*configured: str) -> tuple[Voice, Mapping[str, Any]] | None:
    """Return what a check says if it says what is expected."""
    voice, document = of_check(*configured, *POLLS, "--fail-on", "warning")
    return (voice, document) if replace(voice, sentences=None) == EXPECTED else None


def test_one_poll_of_a_full_server_is_enough(own_postgres: OwnPostgresFactory) -> None:
    """34 sessions are held for longer than the limit, and 36 of 37 slots are used: critical, and exit 1."""
    server = own_postgres(settings={"max_connections": "40"})
    once = ("--dsn", server.dsn(), "--name", "outage", *JUDGED, "--polls", "1", "--fail-on", "warning")
    with full(server.dsn(application_name="reports")), idle(server.dsn(application_name="shop")):
        until(lambda: of_check(*once)[0].findings)
        voice, document = of_check(*once)
    assert document["exit_code"] == 1
    assert [(each["used"], each["capacity"]) for each in document["servers"][0]["slots"]] == [(36, 37)]
    assert voice.findings == {each for each in EXPECTED.findings if each.server == "outage"}


def test_all_voices_tell_the_present(own_postgres: OwnPostgresFactory, tmp_path: Path) -> None:
    """The outage comes first while it lasts, then the leak recovers; what is hidden is never called healthy."""
    server = own_postgres(settings={"max_connections": "40"})
    file = tmp_path / "two.yaml"
    with contextlib.ExitStack() as stack:
        stack.enter_context(role(server.dsn(), "nobody"))
        targets = [{"name": "shop", "dsn": server.dsn()}, {"name": "blind", "dsn": server.dsn(user="nobody")}]
        file.write_text(yaml.dump({"servers": targets}))
        held = stack.enter_context(contextlib.ExitStack())
        held.enter_context(full(server.dsn(application_name="reports")))
        watching = stack.enter_context(daemon("--config", str(file), *JUDGED, interval="200ms"))

        def headline() -> str:
            document = watching.get("/api/v1/diagnosis").raise_for_status().json()
            text: str = document["headline"]["text"]
            return text

        until(lambda: "critical" in {each.severity for each in of_api(watching).findings}, within=30)
        assert headline().endswith("sessions are hidden from the monitoring role: leaks among them cannot be seen")

        server.stop()
        until(lambda: headline().startswith("shop cannot be polled: it cannot be reached; blind cannot be polled: "))
        assert "reports holds connections at /reports on shop" in headline()
        assert f'<h1 class="bad">{html.escape(headline())}</h1>' in watching.get("/").text
        down = watching.events("server_down")
        assert {(event["server"], event["level"]) for event in down} == {("shop", "error"), ("blind", "error")}
        code = finished("check", "--config", str(file), *JUDGED, "--polls", "1").returncode
        assert (code, watching.scrape().all("up")) == (3, [0, 0])

        with contextlib.suppress(psycopg.OperationalError):  # the server has ended their sessions
            held.close()
        server.start()
        recovering = until(lambda: [each for each in watching.events("leak_changed") if each["state"] == "recovering"])
        assert (recovering[0]["level"], recovering[0]["session_count"]) == ("info", 0)
        assert of_metrics(watching) == frozenset()
        assert "reports" not in headline()
        closed = until(lambda: watching.events("leak_closed"))
        assert [each["event"] for each in watching.events("leak_opened")] == ["leak_opened"]
        assert (closed[0]["site"], len(closed)) == (recovering[0]["site"], 1)
        assert "Nothing is leaking" not in watching.get("/").text


def _facts(events: Iterable[Mapping[str, Any]], server: str) -> Sequence[Mapping[str, Any]]:
    """Return what the events of one server say, without what a log line adds to its sentence and fields."""
    added = {"at", "timestamp", "level"}
    return [
        {name: value for name, value in event.items() if name not in added}
        for event in events
        if event["server"] == server
    ]
