"""The dashboard *Server*: what the sessions of one server do, and what they leave for others."""

from grafana_foundation_sdk.models import dashboard

from grafana.frame import SERVER, Section, choice, dashboard_of, leak_url
from grafana.panels import (
    AT_WORK_LONG,
    FULL,
    HELD_LONG,
    MANY_WAIT,
    ORANGE,
    RED,
    SOON,
    SOON_LINES,
    VACUUM_HELD,
    YELLOW,
    Panel,
    PanelStyle,
    Query,
    Steps,
    Words,
    graph,
    heat,
    link,
    name_panel,
    no_forecast_mapping,
    stat_panel,
    timeline,
    verdict_mapping,
)
from grafana.queries import (
    PER_MINUTE,
    RATE,
    greatest,
    leaked,
    of_clients,
    or_zero,
    seen,
    time_left,
    total,
    used_share,
    verdict,
    watched,
)

_CLIENT = ("server", "database", "user", "application")
_CLIENT_LEGEND = "{{application}} ({{user}}, {{database}})"
_TO_LEAK = (link("Investigate this client", leak_url(prefix="__field.labels.")),)
_HELD = ("idle in transaction", "idle in transaction (aborted)")


def server() -> dashboard.Dashboard:
    """Build it."""
    return dashboard_of(
        SERVER,
        "PostgreSQL sessions: server",
        "One server: its sessions by state and client, their ages, its limits, its churn, and who waits for whom.",
        variables=(
            choice("server", "Server", "The server shown.", of="up", several=False),
            choice("database", "Database", "Of clients and churn.", of="connections", where=("server",), several=True),
            choice(
                "application",
                "Application",
                "Of clients: their application_name.",
                of="connections",
                where=("server", "database"),
                several=True,
            ),
        ),
        sections=(
            Section(title="Now", panels=_now()),
            Section(title="Sessions", panels=_sessions()),
            Section(title="Capacity", panels=_capacity()),
            Section(title="Ages", panels=_ages()),
            Section(title="Harm to others", panels=_harm()),
            Section(title="Churn and holds", panels=_churn()),
            Section(title="The watcher", panels=_watcher()),
        ),
    )


def _now() -> tuple[Panel, ...]:
    held = " or ".join(seen("connections", f'state="{state}"') for state in _HELD)
    return (
        stat_panel(
            Words(
                title="Diagnosis",
                means="*leaking*: somebody keeps connections; *saturated*: too small, all busy and turning over; "
                "*blocked*: all wait for one; *slow*: long queries; *unknown*: too little sight.",
            ),
            PanelStyle(width=3, height=4, mappings=(verdict_mapping(),)),
            Query(expr=verdict("diagnosis", "server")),
        ),
        stat_panel(
            Words(
                title="In use", means="Part of the connections for ordinary roles that is taken.", unit="percentunit"
            ),
            PanelStyle(width=3, height=4, steps=FULL),
            Query(expr=greatest(used_share('scope="server"'), "server")),
        ),
        stat_panel(
            Words(
                title="Full in",
                means="Until the nearest limit (the server's, a role's or a database's) at the present growth.",
                unit="s",
            ),
            PanelStyle(width=3, height=4, steps=SOON, mappings=(no_forecast_mapping(),)),
            Query(expr=f"min by (server) ({time_left()})"),
        ),
        stat_panel(
            Words(title="Leaked sessions", means="Sessions in open findings: held, and not coming back by themselves."),
            PanelStyle(width=3, height=4, steps=((1, ORANGE),)),
            Query(expr=or_zero(total(leaked(), "server"), watched())),
        ),
        stat_panel(
            Words(
                title="Idle in transaction",
                means="Sessions that hold a transaction and do nothing. Many short ones are normal life.",
            ),
            PanelStyle(width=3, height=4),
            Query(expr=total(held, "server")),
        ),
        stat_panel(
            Words(title="Waiting", means="Sessions that wait for a lock of somebody else."),
            PanelStyle(width=3, height=4, steps=((1, YELLOW), (5, RED))),
            Query(expr=total(seen("lock_waiting"), "server")),
        ),
        stat_panel(
            Words(
                title="Exhausted",
                means="1: ordinary roles get `FATAL: sorry, too many clients already` now.",
            ),
            PanelStyle(width=3, height=4, steps=((1, RED),)),
            Query(expr=seen("exhausted")),
        ),
        name_panel(
            Words(title="PostgreSQL", means="The server's version, and whether it is a standby."),
            PanelStyle(width=3, height=4),
            Query(expr=seen("server_info"), legend="{{version}}, standby: {{in_recovery}}"),
        ),
    )


def _sessions() -> tuple[Panel, ...]:
    return (
        graph(
            Words(
                title="Sessions by state",
                means="A leak raises *idle in transaction*, or *idle*, and never comes down; a rush raises *active* "
                "and does. What counts is what stays.",
            ),
            PanelStyle(width=12),
            Query(expr=f"{total(seen('connections'), 'state')}", legend="{{state}}"),
            stacked=True,
        ),
        graph(
            Words(title="Sessions by client", means="Who has the connections. Click a client to investigate it."),
            PanelStyle(width=12, links=_TO_LEAK),
            Query(expr=total(seen("connections"), *_CLIENT), legend=_CLIENT_LEGEND),
            stacked=True,
        ),
        timeline(
            Words(title="Diagnosis of each client", means="What was wrong with each client, and when."),
            PanelStyle(width=24, height=7, mappings=(verdict_mapping(),), links=_TO_LEAK),
            Query(expr=verdict("client_diagnosis", *_CLIENT), legend=_CLIENT_LEGEND),
        ),
    )


def _capacity() -> tuple[Panel, ...]:
    of_server = 'scope="server"'
    return (
        graph(
            Words(
                title="Connections of the server",
                means="Taken, ours included, and those there are for ordinary roles: max_connections without the "
                "reserved ones.",
            ),
            PanelStyle(width=8),
            Query(expr=seen("used_slots", of_server, filtered=("server",)), legend="taken"),
            Query(expr=seen("capacity_slots", of_server, filtered=("server",)), legend="limit"),
        ),
        graph(
            Words(
                title="Use of every limit",
                means="Of the server, and of each role and database that has a CONNECTION LIMIT. At 100 % its "
                "connections are refused, whatever room the server has.",
                unit="percentunit",
            ),
            PanelStyle(width=8, steps=FULL),
            Query(expr=used_share(), legend="{{scope}} {{name}}"),
        ).axis_soft_max(1),
        graph(
            Words(
                title="Time until each limit",
                means="At the present growth. A line at a day is no growth.",
                unit="s",
            ),
            PanelStyle(width=8, steps=SOON_LINES),
            Query(expr=time_left(), legend="{{scope}} {{name}}"),
            logarithmic=True,
        ),
    )


def _ages() -> tuple[Panel, ...]:
    def ages(title: str, means: str, metric: str, state: str, steps: Steps) -> Panel:
        return graph(
            Words(title=title, means=means, unit="s"),
            PanelStyle(width=8, steps=steps, links=_TO_LEAK),
            Query(expr=of_clients(metric, state=state), legend=_CLIENT_LEGEND),
        )

    return (
        ages(
            "Longest idle in transaction",
            "A straight rise is a session that nobody comes back to: a leak, or somebody's open console.",
            "idle_in_transaction_age_max_seconds",
            "idle in transaction",
            HELD_LONG,
        ),
        ages(
            "Oldest transaction",
            "Work in small steps shows here too: a long batch is old, and moves.",
            "transaction_age_max_seconds",
            "active",
            AT_WORK_LONG,
        ),
        ages(
            "Oldest running query",
            "A report, or a query that waits for a lock. Its connection is in use, not leaked.",
            "query_age_max_seconds",
            "active",
            AT_WORK_LONG,
        ),
    )


def _harm() -> tuple[Panel, ...]:
    return (
        graph(
            Words(title="Who waits for locks", means="Sessions that wait, by client: the victims."),
            PanelStyle(width=8, links=_TO_LEAK),
            Query(expr=seen("lock_waiting"), legend=_CLIENT_LEGEND),
            stacked=True,
        ),
        graph(
            Words(
                title="Who makes others wait",
                means="Sessions that wait for sessions of this client which are idle in transaction: the cause. End "
                "these and the others go on.",
            ),
            PanelStyle(width=8, steps=MANY_WAIT, links=_TO_LEAK),
            Query(expr=seen("blocked_by"), legend=_CLIENT_LEGEND),
        ),
        graph(
            Words(
                title="Who holds back vacuum",
                means="How many transactions back the client's oldest snapshot reaches: dead rows younger than that "
                "stay. Millions mean bloat; a rise without end is a transaction left open.",
                unit="short",
            ),
            PanelStyle(width=8, steps=VACUUM_HELD, links=_TO_LEAK),
            Query(expr=of_clients("xmin_age_max_transactions"), legend=_CLIENT_LEGEND),
        ),
    )


def _churn() -> tuple[Panel, ...]:
    def ended(metric: str, how: str) -> Query:
        return Query(expr=seen(metric, change=PER_MINUTE), legend=f"{{{{database}}}} {how}")

    def spent(metric: str, how: str) -> Query:
        return Query(expr=seen(metric, change=RATE), legend=f"{{{{database}}}} {how}")

    holds = seen("transaction_hold_seconds", change=RATE, suffix="_bucket")
    return (
        graph(
            Words(
                title="Sessions opened",
                means="A steady stream means that no pool keeps them, or that lost ones are replaced.",
                unit="cpm",
            ),
            PanelStyle(width=6),
            ended("established_total", "opened"),
        ),
        graph(
            Words(
                title="Sessions that ended badly",
                means="*fatal* rises when a time-out ends idle transactions: it hides a leak from view while the pool "
                "stays empty. *abandoned*: the client vanished. *killed*: somebody terminated them.",
                unit="cpm",
            ),
            PanelStyle(width=6),
            ended("fatal_total", "fatal"),
            ended("abandoned_total", "abandoned"),
            ended("killed_total", "killed"),
        ),
        graph(
            Words(
                title="What sessions do on average",
                means="Sessions at a time, from PostgreSQL's own counters: exact between polls, added when a session's "
                "state changes, so a leaked session's time comes late.",
            ),
            PanelStyle(width=6, decimals=1),
            spent("session_seconds_total", "connected"),
            spent("active_seconds_total", "active"),
            spent("idle_in_transaction_seconds_total", "idle in transaction"),
        ),
        heat(
            Words(
                title="How long transactions sat idle",
                means="Holds that have ended, by length. What never ends is not here: see the leaks.",
                unit="s",
            ),
            PanelStyle(width=6, nothing="No hold that a poll saw has ended"),
            Query(expr=total(holds, "le"), legend="{{le}}"),
        ),
    )


def _watcher() -> tuple[Panel, ...]:
    polls = seen("poll_duration_seconds", change=RATE, suffix="_bucket")
    return (
        graph(
            Words(
                title="Duration of polls",
                means="Half of the polls, and 95 of 100, took at most this. It rises when the server is short of CPU "
                "or memory.",
                unit="s",
            ),
            PanelStyle(width=8),
            Query(expr=f"histogram_quantile(0.5, {polls})", legend="half"),
            Query(expr=f"histogram_quantile(0.95, {polls})", legend="95 %"),
        ),
        graph(
            Words(
                title="Failed polls",
                means="By reason. `exhausted` proves that the server is full; `authentication` and `privilege`: mend "
                "the monitoring role; `timeout` and `network`: the way there, or a server that hangs.",
                unit="cpm",
            ),
            PanelStyle(width=8),
            Query(expr=seen("poll_failures_total", change=PER_MINUTE), legend="{{reason}}"),
            stacked=True,
        ),
        graph(
            Words(
                title="What is not seen",
                means="*hidden*: sessions whose state the monitoring role may not see; `GRANT pg_monitor` to it. "
                "*folded*: clients shown together as `other`.",
            ),
            PanelStyle(width=8, steps=((1, ORANGE),)),
            Query(expr=seen("hidden_sessions"), legend="hidden sessions"),
            Query(expr=seen("folded_clients"), legend="folded clients"),
        ),
    )
