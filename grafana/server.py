"""The dashboard *Server*: one server's sessions, limits, ages, blocked sessions and churn."""

from grafana_foundation_sdk.models import dashboard

from grafana.frame import SERVER, Section, application_url, build_dashboard, choice_variable, leak_url
from grafana.panels import (
    ACTIVE_LONG,
    FULL,
    HELD_LONG,
    MANY_BLOCKED,
    ORANGE,
    RED,
    SOON,
    SOON_LINES,
    VACUUM_HELD,
    YELLOW,
    Panel,
    PanelStyle,
    PanelText,
    Query,
    Steps,
    graph_panel,
    heatmap_panel,
    link,
    name_panel,
    no_forecast_mapping,
    stat_panel,
    timeline_panel,
    verdict_mapping,
)
from grafana.queries import (
    PER_MINUTE,
    RATE,
    client_values,
    leaked_sessions,
    max_by,
    monitored_servers,
    or_zero,
    select,
    sum_by,
    time_left,
    used_share,
    verdict_code,
)

_CLIENT = ("server", "database", "user", "application")
_CLIENT_LEGEND = "{{application}} ({{user}}, {{database}})"
_TO_CLIENT = (
    link("Investigate this client", leak_url(prefix="__field.labels.")),
    link("This application", application_url("__field.labels.application")),
)
_HELD = ("idle in transaction", "idle in transaction (aborted)")


def server() -> dashboard.Dashboard:
    """Return the dashboard."""
    return build_dashboard(
        SERVER,
        "PostgreSQL sessions: server",
        "One server: its sessions by state and client, its limits, ages, blocked sessions and churn.",
        variables=(
            choice_variable("server", "Server", "The server shown.", metric="up", multi=False),
            choice_variable(
                "database",
                "Database",
                "Databases of clients and churn.",
                metric="connections",
                where=("server",),
                multi=True,
            ),
            choice_variable(
                "application",
                "Application",
                "The application_name of clients.",
                metric="connections",
                where=("server", "database"),
                multi=True,
            ),
        ),
        sections=(
            Section(title="Now", panels=_now()),
            Section(title="Sessions", panels=_sessions()),
            Section(title="Capacity", panels=_capacity()),
            Section(title="Ages", panels=_ages()),
            Section(title="Harm to others", panels=_harm()),
            Section(title="Churn and holds", panels=_churn()),
            Section(title="Monitoring", panels=_monitoring()),
        ),
    )


def _now() -> tuple[Panel, ...]:
    held = " or ".join(select("connections", f'state="{state}"') for state in _HELD)
    return (
        stat_panel(
            PanelText(
                title="Diagnosis",
                description="*leaking*: a client does not return connections; *saturated*: a pool or the server is too "
                "small, all connections are busy; *blocked*: sessions wait for the locks of one; *slow*: long queries; "
                "*unknown*: too little is visible.",
            ),
            PanelStyle(width=3, height=4, mappings=(verdict_mapping(),)),
            Query(expr=verdict_code("diagnosis", "server")),
        ),
        stat_panel(
            PanelText(
                title="In use", description="Share of the connections for ordinary roles in use.", unit="percentunit"
            ),
            PanelStyle(width=3, height=4, steps=FULL),
            Query(expr=max_by(used_share('scope="server"'), "server")),
        ),
        stat_panel(
            PanelText(
                title="Limit reached in",
                description="Time until the nearest limit of the server, a role or a database is reached at the "
                "present growth.",
                unit="s",
            ),
            PanelStyle(width=3, height=4, steps=SOON, mappings=(no_forecast_mapping(),)),
            Query(expr=f"min by (server) ({time_left()})"),
        ),
        stat_panel(
            PanelText(
                title="Leaked sessions", description="Sessions in open findings: held for long, or never used again."
            ),
            PanelStyle(width=3, height=4, steps=((1, ORANGE),)),
            Query(expr=or_zero(sum_by(leaked_sessions(), "server"), monitored_servers())),
        ),
        stat_panel(
            PanelText(
                title="Idle in transaction",
                description="Sessions with an open transaction that are not running a statement. Many short ones are "
                "normal.",
            ),
            PanelStyle(width=3, height=4),
            Query(expr=sum_by(held, "server")),
        ),
        stat_panel(
            PanelText(title="Waiting for locks", description="Sessions that wait for a lock of another session."),
            PanelStyle(width=3, height=4, steps=((1, YELLOW), (5, RED))),
            Query(expr=sum_by(select("lock_waiting"), "server")),
        ),
        stat_panel(
            PanelText(
                title="Exhausted",
                description="1: ordinary roles are refused now, with `FATAL: sorry, too many clients already`.",
            ),
            PanelStyle(width=3, height=4, steps=((1, RED),)),
            Query(expr=select("exhausted")),
        ),
        name_panel(
            PanelText(title="PostgreSQL", description="The server's version, and whether it is a standby."),
            PanelStyle(width=3, height=4),
            Query(expr=select("server_info"), legend="{{version}}, standby: {{in_recovery}}"),
        ),
    )


def _sessions() -> tuple[Panel, ...]:
    return (
        graph_panel(
            PanelText(
                title="Sessions by state",
                description="A leak raises *idle in transaction* or *idle*, which never fall again. A rush raises "
                "*active*, which falls again.",
            ),
            PanelStyle(width=12),
            Query(expr=f"{sum_by(select('connections'), 'state')}", legend="{{state}}"),
            stacked=True,
        ),
        graph_panel(
            PanelText(
                title="Sessions by client", description="Sessions of each client. Click a client to investigate it."
            ),
            PanelStyle(width=12, links=_TO_CLIENT),
            Query(expr=sum_by(select("connections"), *_CLIENT), legend=_CLIENT_LEGEND),
            stacked=True,
        ),
        timeline_panel(
            PanelText(title="Diagnosis of each client", description="What was wrong with each client, and when."),
            PanelStyle(width=24, height=7, mappings=(verdict_mapping(),), links=_TO_CLIENT),
            Query(expr=verdict_code("client_diagnosis", *_CLIENT), legend=_CLIENT_LEGEND),
        ),
    )


def _capacity() -> tuple[Panel, ...]:
    of_server = 'scope="server"'
    return (
        graph_panel(
            PanelText(
                title="Connections of the server",
                description="Connections in use, including the daemon's, and the limit for ordinary roles: "
                "max_connections minus the reserved ones.",
            ),
            PanelStyle(width=8),
            Query(expr=select("used_slots", of_server, filtered=("server",)), legend="in use"),
            Query(expr=select("capacity_slots", of_server, filtered=("server",)), legend="limit"),
        ),
        graph_panel(
            PanelText(
                title="Use of every limit",
                description="Use of the server's limit and of each CONNECTION LIMIT of a role or database. At 100 %, "
                "new connections are refused, even if the server has free ones.",
                unit="percentunit",
            ),
            PanelStyle(width=8, steps=FULL),
            Query(expr=used_share(), legend="{{scope}} {{name}}"),
        ).axis_soft_max(1),
        graph_panel(
            PanelText(
                title="Time until each limit is reached",
                description="At the present growth. A line at one day means no growth.",
                unit="s",
            ),
            PanelStyle(width=8, steps=SOON_LINES),
            Query(expr=time_left(), legend="{{scope}} {{name}}"),
            logarithmic=True,
        ),
    )


def _ages() -> tuple[Panel, ...]:
    def ages(title: str, description: str, metric: str, state: str, steps: Steps) -> Panel:
        return graph_panel(
            PanelText(title=title, description=description, unit="s"),
            PanelStyle(width=8, steps=steps, links=_TO_CLIENT),
            Query(expr=client_values(metric, state=state), legend=_CLIENT_LEGEND),
        )

    return (
        ages(
            "Longest idle in transaction",
            "A steady rise is one session that stays idle: a leak, or somebody's open console.",
            "idle_in_transaction_age_max_seconds",
            "idle in transaction",
            HELD_LONG,
        ),
        ages(
            "Oldest transaction",
            "Includes transactions that work, such as a long batch of short statements.",
            "transaction_age_max_seconds",
            "active",
            ACTIVE_LONG,
        ),
        ages(
            "Oldest running query",
            "A report, or a query that waits for a lock. Its connection is in use, not leaked.",
            "query_age_max_seconds",
            "active",
            ACTIVE_LONG,
        ),
    )


def _harm() -> tuple[Panel, ...]:
    return (
        graph_panel(
            PanelText(
                title="Who waits for locks", description="Sessions that wait for a lock, by the client that waits."
            ),
            PanelStyle(width=8, links=_TO_CLIENT),
            Query(expr=select("lock_waiting"), legend=_CLIENT_LEGEND),
            stacked=True,
        ),
        graph_panel(
            PanelText(
                title="Who blocks others",
                description="Sessions blocked by each client's idle transactions: the cause. Terminating the client's "
                "held sessions unblocks the waiting sessions.",
            ),
            PanelStyle(width=8, steps=MANY_BLOCKED, links=_TO_CLIENT),
            Query(expr=select("blocked_by"), legend=_CLIENT_LEGEND),
        ),
        graph_panel(
            PanelText(
                title="Who holds back vacuum",
                description="Age of each client's oldest snapshot, in transactions. Vacuum cannot remove rows deleted "
                "since then. Millions mean bloat; a rise without end is a transaction left open.",
                unit="short",
            ),
            PanelStyle(width=8, steps=VACUUM_HELD, links=_TO_CLIENT),
            Query(expr=client_values("xmin_age_max_transactions"), legend=_CLIENT_LEGEND),
        ),
    )


def _churn() -> tuple[Panel, ...]:
    def per_minute(metric: str, how: str) -> Query:
        return Query(expr=select(metric, change=PER_MINUTE), legend=f"{{{{database}}}} {how}")

    def average_sessions(metric: str, what: str) -> Query:
        return Query(expr=select(metric, change=RATE), legend=f"{{{{database}}}} {what}")

    holds = select("transaction_hold_seconds", change=RATE, suffix="_bucket")
    return (
        graph_panel(
            PanelText(
                title="Sessions opened",
                description="A steady rate means that no pool keeps connections, or that lost connections are "
                "replaced.",
                unit="cpm",
            ),
            PanelStyle(width=6),
            per_minute("established_total", "opened"),
        ),
        graph_panel(
            PanelText(
                title="Sessions that ended badly",
                description="*fatal* rises if a time-out terminates idle transactions, which hides a leak while the "
                "pool stays empty. *abandoned*: the client disappeared. *killed*: somebody terminated the session.",
                unit="cpm",
            ),
            PanelStyle(width=6),
            per_minute("fatal_total", "fatal"),
            per_minute("abandoned_total", "abandoned"),
            per_minute("killed_total", "killed"),
        ),
        graph_panel(
            PanelText(
                title="What sessions do on average",
                description="Average number of sessions, from PostgreSQL's own counters. They also count what happens "
                "between polls, but only when a session changes its state, so a leaked session counts late.",
            ),
            PanelStyle(width=6, decimals=1),
            average_sessions("session_seconds_total", "connected"),
            average_sessions("active_seconds_total", "active"),
            average_sessions("idle_in_transaction_seconds_total", "idle in transaction"),
        ),
        heatmap_panel(
            PanelText(
                title="Time idle in transaction",
                description="How long sessions were idle in transaction, counted when it ended. Leaked sessions are "
                "not here, because theirs has not ended.",
                unit="s",
            ),
            PanelStyle(width=6, no_value="No session was seen idle in transaction until it ended"),
            Query(expr=sum_by(holds, "le"), legend="{{le}}"),
        ),
    )


def _monitoring() -> tuple[Panel, ...]:
    polls = select("poll_duration_seconds", change=RATE, suffix="_bucket")
    return (
        graph_panel(
            PanelText(
                title="Duration of polls",
                description="50 % and 95 % of polls took at most this long. It rises if the server lacks CPU or "
                "memory.",
                unit="s",
            ),
            PanelStyle(width=8),
            Query(expr=f"histogram_quantile(0.5, {polls})", legend="50 %"),
            Query(expr=f"histogram_quantile(0.95, {polls})", legend="95 %"),
        ),
        graph_panel(
            PanelText(
                title="Failed polls, and polls not recorded",
                description="By reason. `exhausted`: the server refuses connections because it is full; "
                "`own_limit`: the limit of the monitoring role or its database is reached; "
                "`authentication` and `privilege`: check the monitoring role; `timeout` and `network`: check the "
                "network, and whether the server hangs. *not recorded*: the disk refuses; the log says why.",
                unit="cpm",
            ),
            PanelStyle(width=8),
            Query(expr=select("poll_failures_total", change=PER_MINUTE), legend="{{reason}}"),
            Query(expr=select("recording_failures_total", change=PER_MINUTE), legend="not recorded"),
            stacked=True,
        ),
        graph_panel(
            PanelText(
                title="Hidden sessions and folded clients",
                description="*hidden sessions*: the monitoring role may not see their state; grant it `pg_monitor`. "
                "*folded clients*: shown together as `other`.",
            ),
            PanelStyle(width=8, steps=((1, ORANGE),)),
            Query(expr=select("hidden_sessions"), legend="hidden sessions"),
            Query(expr=select("folded_clients"), legend="folded clients"),
        ),
    )
