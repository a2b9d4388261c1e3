"""All metrics in one table: names, types, labels and help texts. They are a contract. README.md shows the table."""

from dataclasses import dataclass
from typing import Literal

from pgwatch_sessions.metrics.samples import (
    Samples,
    client_diagnoses,
    exhausted,
    exhaustion,
    last_success,
    leaked_sessions,
    leaked_sessions_by_line,
    of_clients,
    of_databases,
    of_leaks,
    of_slots,
    of_states,
    of_summary,
    poll_failures,
    polls,
    recording_failures,
    server_diagnosis,
    server_info,
    transaction_holds,
    up,
)

PREFIX = "pgwatch_sessions_"
CLIENT_LABELS = ("database", "user", "application")

MetricKind = Literal["gauge", "counter", "histogram", "info", "stateset"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSpec:
    """One metric. Its labels come after the label `server`, which every metric has."""

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
        help="Sessions now, by client and state. Our own session is not counted.",
        samples=of_states(lambda client: client.states),
    ),
    MetricSpec(
        name="state_age_max_seconds",
        kind="gauge",
        labels=(*CLIENT_LABELS, "state"),
        help="Longest time that any session of the client has been in this state.",
        samples=of_states(lambda client: client.state_age_max),
    ),
    MetricSpec(
        name="idle_in_transaction_age_max_seconds",
        kind="gauge",
        labels=CLIENT_LABELS,
        help="Longest time that any session of the client has been idle in transaction, aborted or not.",
        samples=of_clients(lambda client: client.idle_in_transaction_age_max),
    ),
    MetricSpec(
        name="transaction_age_max_seconds",
        kind="gauge",
        labels=CLIENT_LABELS,
        help="Age of the client's oldest open transaction. Aborted transactions do not count.",
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
        help="Sessions of any client that wait for sessions of this client that are idle in transaction.",
        samples=of_clients(lambda client: client.blocked_sessions),
    ),
    MetricSpec(
        name="xmin_age_max_transactions",
        kind="gauge",
        labels=CLIENT_LABELS,
        help="By how many transactions the client's oldest snapshot holds back vacuum.",
        samples=of_clients(lambda client: client.xmin_age_max),
    ),
    MetricSpec(
        name="capacity_slots",
        kind="gauge",
        labels=("scope", "name"),
        help="Limit on connections: of all ordinary roles together, of a role, or of a database. No limit, no series.",
        samples=of_slots(lambda slots: slots.capacity),
    ),
    MetricSpec(
        name="used_slots",
        kind="gauge",
        labels=("scope", "name"),
        help="Connections that count against this limit, our own included.",
        samples=of_slots(lambda slots: slots.used),
    ),
    MetricSpec(
        name="exhaustion_seconds",
        kind="gauge",
        labels=("scope", "name"),
        help="Time until this limit is reached at the present growth; +Inf if use does not grow.",
        samples=exhaustion,
    ),
    MetricSpec(
        name="exhausted",
        kind="gauge",
        labels=(),
        help="1 if all connections of ordinary roles are in use, also if the server refuses ours for that reason.",
        samples=exhausted,
    ),
    MetricSpec(
        name="leaked_sessions",
        kind="gauge",
        labels=(*CLIENT_LABELS, "kind", "severity", "site"),
        help="Sessions in open findings. If a poll fails, they stay, because the sessions may still be there.",
        samples=leaked_sessions,
    ),
    MetricSpec(
        name="leaked_sessions_by_line",
        kind="gauge",
        labels=(*CLIENT_LABELS, "site", "code_line"),
        help="Sessions in open findings by the line of code in their statements' tags; at most 100 lines per server.",
        samples=leaked_sessions_by_line,
    ),
    MetricSpec(
        name="leaks_opened_total",
        kind="counter",
        labels=(*CLIENT_LABELS, "kind"),
        help="Findings that were opened.",
        samples=of_leaks(lambda leaks: leaks.opened),
    ),
    MetricSpec(
        name="leaks_closed_total",
        kind="counter",
        labels=(*CLIENT_LABELS, "kind"),
        help="Findings that were closed: their sessions have ended or are used again.",
        samples=of_leaks(lambda leaks: leaks.closed),
    ),
    MetricSpec(
        name="sessions_leaked_total",
        kind="counter",
        labels=(*CLIENT_LABELS, "kind"),
        help="Sessions that became part of a finding.",
        samples=of_leaks(lambda leaks: leaks.sessions),
    ),
    MetricSpec(
        name="diagnosis",
        kind="stateset",
        labels=(),
        help="What is wrong with the server. Exactly one verdict is 1.",
        samples=server_diagnosis,
    ),
    MetricSpec(
        name="client_diagnosis",
        kind="stateset",
        labels=CLIENT_LABELS,
        help="What is wrong with the client. Exactly one verdict is 1.",
        samples=client_diagnoses,
    ),
    MetricSpec(
        name="transaction_hold_seconds",
        kind="histogram",
        labels=("database",),
        help="How long transactions were idle. Observed when a hold that a poll has seen ends.",
        samples=transaction_holds,
    ),
    MetricSpec(
        name="established_total",
        kind="counter",
        labels=("database",),
        help="Sessions that were established (pg_stat_database.sessions).",
        samples=of_databases(lambda counters: counters.established),
    ),
    MetricSpec(
        name="abandoned_total",
        kind="counter",
        labels=("database",),
        help="Sessions that ended because the client vanished (pg_stat_database.sessions_abandoned).",
        samples=of_databases(lambda counters: counters.abandoned),
    ),
    MetricSpec(
        name="fatal_total",
        kind="counter",
        labels=("database",),
        help="Sessions that ended by a fatal error, for example a time-out (pg_stat_database.sessions_fatal).",
        samples=of_databases(lambda counters: counters.fatal),
    ),
    MetricSpec(
        name="killed_total",
        kind="counter",
        labels=("database",),
        help="Sessions that an operator terminated (pg_stat_database.sessions_killed).",
        samples=of_databases(lambda counters: counters.killed),
    ),
    MetricSpec(
        name="session_seconds_total",
        kind="counter",
        labels=("database",),
        help="Time that sessions were open (pg_stat_database.session_time).",
        samples=of_databases(lambda counters: counters.session_seconds),
    ),
    MetricSpec(
        name="active_seconds_total",
        kind="counter",
        labels=("database",),
        help="Time that sessions executed statements (pg_stat_database.active_time).",
        samples=of_databases(lambda counters: counters.active_seconds),
    ),
    MetricSpec(
        name="idle_in_transaction_seconds_total",
        kind="counter",
        labels=("database",),
        help="Time that sessions were idle in transaction (pg_stat_database.idle_in_transaction_time).",
        samples=of_databases(lambda counters: counters.idle_in_transaction_seconds),
    ),
    MetricSpec(
        name="up",
        kind="gauge",
        labels=(),
        help="1 if the last poll of the server succeeded, 0 if it failed.",
        samples=up,
    ),
    MetricSpec(
        name="last_poll_timestamp_seconds",
        kind="gauge",
        labels=(),
        help="Time of the last successful poll, by the daemon's clock.",
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
        help="Failed polls, by reason.",
        samples=poll_failures,
    ),
    MetricSpec(
        name="recording_failures_total",
        kind="counter",
        labels=(),
        help="Polls that could not be written to the recording, or not within 2 s.",
        samples=recording_failures,
    ),
    MetricSpec(
        name="hidden_sessions",
        kind="gauge",
        labels=(),
        help="Sessions whose state the monitoring role may not see. To show them, grant pg_monitor to it.",
        samples=of_summary(lambda summary: summary.hidden),
    ),
    MetricSpec(
        name="folded_clients",
        kind="gauge",
        labels=(),
        help="Clients that are counted together as `other`.",
        samples=of_summary(lambda summary: summary.folded),
    ),
    MetricSpec(
        name="server_info",
        kind="info",
        labels=(),
        help="Version of the server, and whether it is in recovery.",
        samples=server_info,
    ),
)
