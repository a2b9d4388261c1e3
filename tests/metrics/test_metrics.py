import shutil
import subprocess
from collections import Counter
from dataclasses import replace

import pytest
from prometheus_client import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from pgwatch_sessions import __version__
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.model import (
    Client,
    ConnectionLimit,
    DatabaseCounters,
    Failure,
    FailureReason,
    LimitScope,
    ServerInfo,
    Session,
    SessionId,
    SessionState,
    Snapshot,
)
from pgwatch_sessions.core.state import ServerState, advance
from pgwatch_sessions.metrics.collector import StateCollector, registry_of
from pgwatch_sessions.metrics.daemon_metrics import (
    DAEMON_METRICS,
    LATENESS,
    ConfigReload,
    DaemonFigures,
    HttpCounts,
    Punctuality,
    SourceFigures,
)
from pgwatch_sessions.metrics.samples import MAX_CODE_LINES, MAX_SITES, MAX_SITES_OF_CLIENT
from pgwatch_sessions.metrics.table import METRICS, PREFIX
from tests.support.values import NOW, session, snapshot

SERVER = ServerInfo(version_num=160014, in_recovery=True, max_connections=10, role_limits=(ConnectionLimit("app", 4),))
COUNTERS = DatabaseCounters(
    database="shop",
    established=7,
    abandoned=1,
    fatal=2,
    killed=3,
    session_seconds=100.5,
    active_seconds=10.5,
    idle_in_transaction_seconds=1.5,
)
BUSY = snapshot(
    session(1, SessionState.ACTIVE, since=NOW - 5, wait_event_type="Lock", backend_xmin_age=9),
    session(2, SessionState.IDLE_IN_TRANSACTION, since=NOW - 30),
    session(3, SessionState.ABORTED, since=NOW - 40),
    server=SERVER,
    databases=[COUNTERS],
)
LATER = snapshot(session(4, SessionState.IDLE), server=SERVER, at=NOW + 10)
FIGURES = DaemonFigures(
    config_reload=ConfigReload(success=True, at=7.0),
    loop_lag=LATENESS,
    punctuality={"db": Punctuality(lateness=LATENESS.observe([0.5, 20]), skipped=3, reconnects=1)},
    sources={"targets.json": SourceFigures(servers=2, failures=1)},
    http=HttpCounts(refused={"too_many": 4, "no_descriptors": 0}, failed_logins=5),
)
REFUSED = Failure(reason=FailureReason.NETWORK, detail="connecting: refused")


def states_after(*outcomes: Snapshot | Failure, policy: Policy | None = None) -> ServerState:
    """Return the state after these polls."""
    state = ServerState(server="db")
    for outcome in outcomes:
        state, _ = advance(state, outcome, policy=policy or Policy(), at=NOW, duration=0.003)
    return state


def samples(*states: ServerState) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return what Prometheus reads: values by name without the prefix and labels without the server."""
    families = text_string_to_metric_families(generate_latest(registry_of(lambda: states)).decode())
    return {
        (
            s.name.removeprefix("pgwatch_sessions_"),
            frozenset(item for item in s.labels.items() if item[0] != "server"),
        ): s.value
        for family in families
        for s in family.samples
    }


def key(metric: str, /, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    """Return the key of one sample of `samples`."""
    return metric, frozenset(labels.items())


ORDERS = {"database": "shop", "user": "app", "application": "orders"}


def test_every_metric_of_a_poll_that_succeeded() -> None:
    """The numbers are those of the snapshot. A client has a series for every state, zeros included."""
    read = samples(states_after(BUSY))
    for state in SessionState:
        expected = state in {SessionState.ACTIVE, SessionState.IDLE_IN_TRANSACTION, SessionState.ABORTED}
        assert read[key("connections", **ORDERS, state=state)] == expected
    assert read[key("state_age_max_seconds", **ORDERS, state="active")] == 5
    assert key("state_age_max_seconds", **ORDERS, state="idle") not in read
    assert read[key("idle_in_transaction_age_max_seconds", **ORDERS)] == 40
    assert read[key("transaction_age_max_seconds", **ORDERS)] == 30
    assert read[key("query_age_max_seconds", **ORDERS)] == 5
    assert read[key("lock_waiting", **ORDERS)] == 1
    assert read[key("xmin_age_max_transactions", **ORDERS)] == 9
    assert read[key("capacity_slots", scope="server", name="db")] == 10
    assert read[key("used_slots", scope="server", name="db")] == 4
    assert read[key("capacity_slots", scope="role", name="app")] == 4
    assert read[key("used_slots", scope="role", name="app")] == 3
    assert read[key("exhausted")] == 0
    assert read[key("established_total", database="shop")] == 7
    assert read[key("abandoned_total", database="shop")] == 1
    assert read[key("fatal_total", database="shop")] == 2
    assert read[key("killed_total", database="shop")] == 3
    assert read[key("session_seconds_total", database="shop")] == 100.5
    assert read[key("active_seconds_total", database="shop")] == 10.5
    assert read[key("idle_in_transaction_seconds_total", database="shop")] == 1.5
    assert read[key("up")] == 1
    assert read[key("last_poll_timestamp_seconds")] == NOW
    assert read[key("poll_duration_seconds_count")] == 1
    assert read[key("poll_failures_total", reason="network")] == 0
    assert read[key("hidden_sessions")] == 0
    assert read[key("folded_clients")] == 0
    assert read[key("server_info", version="16.14", in_recovery="true")] == 1


def test_a_state_without_sessions_is_zero() -> None:
    """It does not keep its last value."""
    read = samples(states_after(BUSY, LATER))
    assert read[key("connections", **ORDERS, state="idle in transaction")] == 0
    assert read[key("connections", **ORDERS, state="idle")] == 1
    assert key("idle_in_transaction_age_max_seconds", **ORDERS) not in read


def test_ended_holds_are_a_histogram() -> None:
    """Two transactions are idle at the first poll and gone at the second."""
    read = samples(states_after(BUSY, LATER))
    assert read[key("transaction_hold_seconds_count", database="shop")] == 2
    assert read[key("transaction_hold_seconds_sum", database="shop")] == 70
    assert read[key("transaction_hold_seconds_bucket", database="shop", le="30.0")] == 1
    assert read[key("transaction_hold_seconds_bucket", database="shop", le="60.0")] == 2


def test_after_a_failed_poll_session_metrics_disappear() -> None:
    """The metrics of the daemon itself and the counters stay."""
    read = samples(states_after(BUSY, LATER, REFUSED))
    assert read[key("up")] == 0
    assert read[key("poll_failures_total", reason="network")] == 1
    assert {name for name, _ in read if not name.startswith(("process_", "poll_", "transaction_hold_"))} == {
        "up",
        "last_poll_timestamp_seconds",
        "recording_failures_total",
        "build_info",
        "diagnosis",
    }
    assert read[key("diagnosis", pgwatch_sessions_diagnosis="unknown")] == 1


def test_a_server_that_refuses_for_lack_of_slots_is_exhausted() -> None:
    """A refusal by the limit of a role or a database proves nothing about the server."""
    refused = Failure(reason=FailureReason.EXHAUSTED, exhausted_scope=LimitScope.SERVER)
    assert samples(states_after(refused))[key("exhausted")] == 1
    own_limit = samples(states_after(Failure(reason=FailureReason.OWN_LIMIT, exhausted_scope=LimitScope.ROLE)))
    assert key("exhausted") not in own_limit
    assert own_limit[key("poll_failures_total", reason="own_limit")] == 1


def test_a_client_with_hidden_sessions_has_no_numbers() -> None:
    """The numbers of the visible sessions alone would look like those of all. The slots are still right."""
    read = samples(states_after(snapshot(session(1, None), session(2, SessionState.IDLE), server=SERVER)))
    assert {name for name, labels in read if ("application", "orders") in labels} == {"client_diagnosis"}
    assert read[key("client_diagnosis", **ORDERS, pgwatch_sessions_client_diagnosis="unknown")] == 1
    assert read[key("hidden_sessions")] == 1
    assert read[key("used_slots", scope="server", name="db")] == 3


LEAKING = snapshot(
    *(
        session(
            i, SessionState.IDLE_IN_TRANSACTION, since=NOW - 100 - 10 * i, query="SELECT * FROM orders WHERE id = 7"
        )
        for i in range(3)
    ),
    session(9, SessionState.ACTIVE, wait_event_type="Lock", blocked_by=(1,), client=Client("shop", "app", "batch")),
    server=SERVER,
)
LEAK = {**ORDERS, "kind": "transaction_held"}


def test_the_sessions_of_a_finding_are_counted_by_client_kind_severity_and_site() -> None:
    """They disappear when the finding closes, not when a poll fails."""
    for outcomes in ((LEAKING,), (LEAKING, REFUSED)):
        read = samples(states_after(*outcomes))
        assert read[key("leaked_sessions", **LEAK, severity="critical", site="SELECT orders")] == 3
        assert read[key("leaks_opened_total", **LEAK)] == 1
        assert read[key("leaks_closed_total", **LEAK)] == 0
        assert read[key("sessions_leaked_total", **LEAK)] == 3
    moved = [snapshot(session(1), server=SERVER, at=NOW + seconds) for seconds in (10, 140)]
    read = samples(states_after(LEAKING, *moved))
    assert not {labels for name, labels in read if name == "leaked_sessions"}
    assert read[key("leaks_closed_total", **LEAK)] == 1


def test_sessions_of_findings_are_counted_by_line_of_code() -> None:
    """Lines beyond the budget have no series, and no finding has more than five."""

    def held(pid: int, site: str, line: int) -> Session:
        tags = f"/*route='/{site}',file='orders.py',line='{line}',func='read'*/"
        return session(pid, SessionState.IDLE_IN_TRANSACTION, since=NOW - 900, query=f"{tags} SELECT * FROM orders")

    few = samples(states_after(snapshot(held(1, "a", 41), held(2, "a", 41), held(3, "a", 8), server=SERVER)))
    assert few[key("leaked_sessions_by_line", **ORDERS, site="/a", code_line="orders.py:41 in read")] == 2
    assert few[key("leaked_sessions_by_line", **ORDERS, site="/a", code_line="orders.py:8 in read")] == 1
    many = samples(states_after(snapshot(*(held(pid, "x" * (1 + pid % 30), pid) for pid in range(1, 600)))))
    lines = [labels for name, labels in many if name == "leaked_sessions_by_line"]
    assert len(lines) == MAX_CODE_LINES
    assert max(Counter(dict(labels)["site"] for labels in lines).values()) == 5


def test_blocked_sessions_are_counted_for_the_client_that_blocks_them() -> None:
    """The client that waits has zero."""
    read = samples(states_after(LEAKING))
    assert read[key("blocked_by", **ORDERS)] == 1
    assert read[key("blocked_by", database="shop", user="app", application="batch")] == 0


def test_a_limit_that_is_not_growing_is_never_reached() -> None:
    """The series is +Inf, which Prometheus can compare."""
    read = samples(states_after(LEAKING))
    assert read[key("exhaustion_seconds", scope="server", name="db")] == float("inf")


def test_exactly_one_verdict_is_true() -> None:
    """This holds for the server and for each client."""
    read = samples(states_after(LEAKING, LEAKING))
    assert sum(value for (name, _), value in read.items() if name == "diagnosis") == 1
    assert sum(value for (name, _), value in read.items() if name == "client_diagnosis") == 2


@pytest.mark.promise("Labels and memory are bounded, whatever applications are called.")
@pytest.mark.parametrize(
    ("clients", "most"),
    [pytest.param(1, MAX_SITES_OF_CLIENT, id="of a client"), pytest.param(12, MAX_SITES, id="of the server")],
)
def test_sites_beyond_the_budget_are_other(clients: int, most: int) -> None:
    """An application may have any number of different statements, and does not use up the sites of others."""
    held = [
        session(
            i,
            SessionState.IDLE_IN_TRANSACTION,
            client=Client("shop", "app", f"orders-{i % clients}"),
            since=NOW - 900,
            query=f"SELECT * FROM table_{i}",
        )
        for i in range(1, 250)
        for _ in range(3)
    ]
    numbered = [replace(each, id=SessionId(pid, NOW - 1000)) for pid, each in enumerate(held)]
    leaked = {
        labels: value
        for (name, labels), value in samples(states_after(snapshot(*numbered))).items()
        if name == "leaked_sessions"
    }
    assert most <= len(leaked) <= most + clients
    assert sum(leaked.values()) == len(held)


def test_before_the_first_poll_a_server_is_neither_up_nor_down() -> None:
    """There is no series of `up`."""
    read = samples(ServerState(server="db"))
    assert key("up") not in read
    assert key("exhausted") not in read


@pytest.mark.promise("Labels and memory are bounded, whatever applications are called.")
def test_clients_beyond_the_budget_are_other() -> None:
    """No session is lost, and a metric counts the folded clients."""
    sessions = [session(i, client=Client("shop", "app", f"app{i % 5}")) for i in range(10)]
    read = samples(states_after(snapshot(*sessions), policy=Policy(max_clients=2)))
    other = {"database": "other", "user": "other", "application": "other"}
    assert read[key("connections", **other, state="idle")] == 6
    assert read[key("folded_clients")] == 3
    assert sum(value for (name, _), value in read.items() if name == "connections") == 10


def test_hostile_names_are_read_back_as_they_are() -> None:
    """Quotes, backslashes and line breaks do not break the format."""
    name = 'a"b\\c\nd{e="f"}'
    state = states_after(snapshot(session(1, client=Client(name, name, name))))
    registry = registry_of(lambda: [state])
    for families in (
        text_string_to_metric_families(generate_latest(registry).decode()),
        parse_openmetrics(generate_openmetrics(registry).decode()),
    ):
        applications = {s.labels["application"] for f in families for s in f.samples if "application" in s.labels}
        assert applications == {'a"b\\c?d{e="f"}'}


def test_what_is_described_is_what_is_collected() -> None:
    """The registry selects by the description for `name[]`."""
    collector = StateCollector(lambda: [states_after(BUSY, LATER)], lambda: FIGURES)
    described = {sample for family in collector.describe() for sample in [(family.name, family.type)]}
    assert described == {(family.name, family.type) for family in collector.collect()}
    names = [*(spec.name for spec in METRICS), *(spec.name for spec in DAEMON_METRICS)]
    assert len(set(names)) == len(names)


def test_the_daemon_says_how_it_keeps_the_schedule() -> None:
    """Its own metrics have the label of a server only where they are about one."""
    text = generate_latest(registry_of(list, lambda: FIGURES)).decode()
    assert [line for line in text.splitlines() if line.startswith(PREFIX) and "_created" not in line] == [
        "pgwatch_sessions_config_reload_success 1.0",
        "pgwatch_sessions_config_reload_timestamp_seconds 7.0",
        *(
            f'pgwatch_sessions_loop_lag_seconds_bucket{{le="{le}"}} 0.0'
            for le in ("0.01", "0.1", "1.0", "10.0", "+Inf")
        ),
        "pgwatch_sessions_loop_lag_seconds_count 0.0",
        "pgwatch_sessions_loop_lag_seconds_sum 0.0",
        *(
            f'pgwatch_sessions_poll_lateness_seconds_bucket{{le="{le}",server="db"}} {count}'
            for le, count in (("0.01", 0.0), ("0.1", 0.0), ("1.0", 1.0), ("10.0", 1.0), ("+Inf", 2.0))
        ),
        'pgwatch_sessions_poll_lateness_seconds_count{server="db"} 2.0',
        'pgwatch_sessions_poll_lateness_seconds_sum{server="db"} 20.5',
        'pgwatch_sessions_polls_skipped_total{server="db"} 3.0',
        'pgwatch_sessions_reconnects_total{server="db"} 1.0',
        'pgwatch_sessions_discovered_servers{source="targets.json"} 2.0',
        'pgwatch_sessions_discovery_failures_total{source="targets.json"} 1.0',
        'pgwatch_sessions_http_connections_refused_total{reason="too_many"} 4.0',
        'pgwatch_sessions_http_connections_refused_total{reason="no_descriptors"} 0.0',
        "pgwatch_sessions_http_logins_failed_total 5.0",
        f'pgwatch_sessions_build_info{{version="{__version__}"}} 1.0',
    ]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed: apt-get install prometheus")
def test_promtool_has_no_complaints() -> None:
    """Names, types and help texts follow Prometheus' own rules."""
    page = generate_latest(registry_of(lambda: [states_after(BUSY, LATER)], lambda: FIGURES))
    checked = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, check=False)
    assert (checked.stdout + checked.stderr).decode() == ""
    assert checked.returncode == 0
