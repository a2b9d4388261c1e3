"""The metrics as users know them: one table of names, types, labels and meanings."""

from dataclasses import dataclass
from typing import Literal

from pgwatch_sessions.metrics.samples import (
    Samples,
    client_diagnoses,
    exhausted,
    exhaustion,
    holds,
    last_success,
    leaked_sessions,
    of_clients,
    of_databases,
    of_leaks,
    of_states,
    of_view,
    poll_failures,
    polls,
    server_diagnosis,
    server_info,
    slots,
    up,
)

PREFIX = "pgwatch_sessions_"
CLIENT_LABELS = ("database", "user", "application")

MetricKind = Literal["gauge", "counter", "histogram", "info", "stateset"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSpec:
    """One metric: what users see of it, and where it comes from. Every one has the label `server` first."""

    name: str
    kind: MetricKind
    labels: tuple[str, ...]
    help: str
    samples: Samples


METRICS: tuple[MetricSpec, ...] = (
    MetricSpec(
        name="connections",
        kind="gauge",
        labels=(*CLIENT_LABELS, "state"),
        help="Sessions now, by client and state. Our own session is left out.",
        samples=of_states(lambda client: client.states),
    ),
    MetricSpec(
        name="state_age_max_seconds",
        kind="gauge",
        labels=(*CLIENT_LABELS, "state"),
        help="Longest time any session of the client has been in that state.",
        samples=of_states(lambda client: client.state_age_max),
    ),
    MetricSpec(
        name="idle_in_transaction_age_max_seconds",
        kind="gauge",
        labels=CLIENT_LABELS,
        help="Longest time any session of the client has been idle in transaction, aborted or not.",
        samples=of_clients(lambda client: client.idle_in_transaction_age_max),
    ),
    MetricSpec(
        name="transaction_age_max_seconds",
        kind="gauge",
        labels=CLIENT_LABELS,
        help="Age of the client's oldest open transaction. An aborted transaction has none.",
        samples=of_clients(lambda client: client.transaction_age_max),
    ),
    MetricSpec(
        name="query_age_max_seconds",
        kind="gauge",
        labels=CLIENT_LABELS,
        help="Age of the client's oldest running query.",
        samples=of_clients(lambda client: client.query_age_max),
    ),
    MetricSpec(
        name="lock_waiting",
        kind="gauge",
        labels=CLIENT_LABELS,
        help="Sessions of the client that wait for a heavyweight lock.",
        samples=of_clients(lambda client: client.lock_waiting),
    ),
    MetricSpec(
        name="blocked_by",
        kind="gauge",
        labels=CLIENT_LABELS,
        help="Sessions of anybody that wait for sessions of this client which are idle in transaction.",
        samples=of_clients(lambda client: client.blocked_sessions),
    ),
    MetricSpec(
        name="xmin_age_max_transactions",
        kind="gauge",
        labels=CLIENT_LABELS,
        help="How many transactions back the client's oldest snapshot holds vacuum.",
        samples=of_clients(lambda client: client.xmin_age_max),
    ),
    MetricSpec(
        name="capacity_slots",
        kind="gauge",
        labels=("scope", "name"),
        help="Connections allowed: to ordinary roles together, to a role, to a database. Unlimited ones are absent.",
        samples=slots("capacity"),
    ),
    MetricSpec(
        name="used_slots",
        kind="gauge",
        labels=("scope", "name"),
        help="Connections that count against that limit, our own included.",
        samples=slots("used"),
    ),
    MetricSpec(
        name="exhaustion_seconds",
        kind="gauge",
        labels=("scope", "name"),
        help="Time until that limit is reached at the present growth; +Inf when it is not growing.",
        samples=exhaustion,
    ),
    MetricSpec(
        name="exhausted",
        kind="gauge",
        labels=(),
        help="1 while all slots of ordinary roles are in use, or connecting is refused for lack of slots.",
        samples=exhausted,
    ),
    MetricSpec(
        name="leaked_sessions",
        kind="gauge",
        labels=(*CLIENT_LABELS, "kind", "severity", "site"),
        help="Sessions in open findings. A poll that fails leaves them: not seeing is not gone.",
        samples=leaked_sessions,
    ),
    MetricSpec(
        name="leaks_opened_total",
        kind="counter",
        labels=(*CLIENT_LABELS, "kind"),
        help="Findings opened.",
        samples=of_leaks(lambda leaks: leaks.opened),
    ),
    MetricSpec(
        name="leaks_closed_total",
        kind="counter",
        labels=(*CLIENT_LABELS, "kind"),
        help="Findings closed: their sessions are gone, or move again.",
        samples=of_leaks(lambda leaks: leaks.closed),
    ),
    MetricSpec(
        name="sessions_leaked_total",
        kind="counter",
        labels=(*CLIENT_LABELS, "kind"),
        help="Sessions that joined a finding.",
        samples=of_leaks(lambda leaks: leaks.sessions),
    ),
    MetricSpec(
        name="diagnosis",
        kind="stateset",
        labels=(),
        help="What is wrong with the server; exactly one verdict is 1.",
        samples=server_diagnosis,
    ),
    MetricSpec(
        name="client_diagnosis",
        kind="stateset",
        labels=CLIENT_LABELS,
        help="What is wrong with the client; exactly one verdict is 1.",
        samples=client_diagnoses,
    ),
    MetricSpec(
        name="transaction_hold_seconds",
        kind="histogram",
        labels=("database",),
        help="How long transactions sat idle, observed when a hold that a poll saw has ended.",
        samples=holds,
    ),
    MetricSpec(
        name="established_total",
        kind="counter",
        labels=("database",),
        help="Sessions established (pg_stat_database.sessions).",
        samples=of_databases(lambda counters: counters.established),
    ),
    MetricSpec(
        name="abandoned_total",
        kind="counter",
        labels=("database",),
        help="Sessions ended because the client was gone (pg_stat_database.sessions_abandoned).",
        samples=of_databases(lambda counters: counters.abandoned),
    ),
    MetricSpec(
        name="fatal_total",
        kind="counter",
        labels=("database",),
        help="Sessions ended by a fatal error, time-outs of idle transactions among them (sessions_fatal).",
        samples=of_databases(lambda counters: counters.fatal),
    ),
    MetricSpec(
        name="killed_total",
        kind="counter",
        labels=("database",),
        help="Sessions terminated by an operator (pg_stat_database.sessions_killed).",
        samples=of_databases(lambda counters: counters.killed),
    ),
    MetricSpec(
        name="session_seconds_total",
        kind="counter",
        labels=("database",),
        help="Time spent by sessions (pg_stat_database.session_time).",
        samples=of_databases(lambda counters: counters.session_seconds),
    ),
    MetricSpec(
        name="active_seconds_total",
        kind="counter",
        labels=("database",),
        help="Time sessions spent executing statements (pg_stat_database.active_time).",
        samples=of_databases(lambda counters: counters.active_seconds),
    ),
    MetricSpec(
        name="idle_in_transaction_seconds_total",
        kind="counter",
        labels=("database",),
        help="Time sessions spent idle in transaction (pg_stat_database.idle_in_transaction_time).",
        samples=of_databases(lambda counters: counters.idle_in_transaction_seconds),
    ),
    MetricSpec(
        name="up",
        kind="gauge",
        labels=(),
        help="1 when the last poll the server succeeded.",
        samples=up,
    ),
    MetricSpec(
        name="last_poll_timestamp_seconds",
        kind="gauge",
        labels=(),
        help="When a poll last succeeded, by the clock of this process.",
        samples=last_success,
    ),
    MetricSpec(
        name="poll_duration_seconds",
        kind="histogram",
        labels=(),
        help="Duration of polls, failed ones included.",
        samples=polls,
    ),
    MetricSpec(
        name="poll_failures_total",
        kind="counter",
        labels=("reason",),
        help="Polls that failed.",
        samples=poll_failures,
    ),
    MetricSpec(
        name="hidden_sessions",
        kind="gauge",
        labels=(),
        help="Sessions whose state the monitoring role may not see. GRANT pg_monitor to it.",
        samples=of_view(lambda view: view.hidden),
    ),
    MetricSpec(
        name="folded_clients",
        kind="gauge",
        labels=(),
        help="Clients shown together as `other`.",
        samples=of_view(lambda view: view.folded),
    ),
    MetricSpec(
        name="server_info",
        kind="info",
        labels=(),
        help="Version of the server and whether it is in recovery.",
        samples=server_info,
    ),
)
