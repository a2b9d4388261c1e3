"""The dashboard *Leak investigation*: what one client holds, where in its code, since when, and how fast it grows."""

from grafana_foundation_sdk.models import dashboard

from grafana.frame import (
    LEAK,
    Section,
    application_url,
    build_dashboard,
    choice_variable,
    finding_links,
    server_url,
)
from grafana.panels import (
    ACTIVE_LONG,
    HELD_LONG,
    NO_FINDING,
    ORANGE,
    RED,
    SOON,
    VACUUM_HELD,
    YELLOW,
    Panel,
    PanelStyle,
    PanelText,
    Query,
    colour,
    dashes,
    graph_panel,
    link,
    no_forecast_mapping,
    stat_panel,
    table_panel,
    text_panel,
    timeline_panel,
    verdict_mapping,
)
from grafana.queries import (
    OVER_RANGE,
    PER_MINUTE,
    client_values,
    findings_by_severity,
    leaked_sessions,
    matches_variable,
    max_by,
    or_zero,
    select,
    sum_by,
    time_left,
    verdict_code,
)

_CLIENT = ("server", "database", "user", "application")
_USER = matches_variable("user")
_ELSEWHERE = (link("The server", server_url("server")), link("The application", application_url("application")))
#: The limits that this client's connections count against.
_LIMITS = (
    'scope="server"',
    f'scope="role", {matches_variable("user", "name")}',
    f'scope="database", {matches_variable("database", "name")}',
)
_HOUR = 3600

_WHAT_TO_DO = """\
1. Read the finding on **[the daemon's page](${page:raw}/)**: it has the likely cause, and SQL to paste.
   As JSON: [leaks](${page:raw}/api/v1/leaks?server=${server:percentencode}&application=${application:percentencode}),
   [sessions](${page:raw}/api/v1/sessions?server=${server:percentencode}&application=${application:percentencode}).
2. Follow the [runbook](${runbooks:raw}/DatabaseConnectionLeak).
3. If *Limit reached in* is below one hour, or other sessions are blocked: terminate the held sessions with the guarded
   `pg_terminate_backend` from the page. `pg_cancel_backend` has no effect on an idle session. Then restart the process,
   because its pool may not recover.
4. Fix the code at the site, and check that *Leaked sessions* falls to 0. A larger pool only gains time.
"""


def leak() -> dashboard.Dashboard:
    """Return the dashboard."""
    client = ("server", "database", "user")
    return build_dashboard(
        LEAK,
        "PostgreSQL sessions: leak investigation",
        "One client: what it holds, where in its code, how fast it nears its limit, and the harm to others.",
        variables=(
            choice_variable("server", "Server", "The server of the client.", metric="up", multi=False),
            choice_variable(
                "database", "Database", "The client's database.", metric="connections", where=client[:1], multi=False
            ),
            choice_variable("user", "User", "The client's role.", metric="connections", where=client[:2], multi=False),
            choice_variable(
                "application",
                "Application",
                "The client's application_name.",
                metric="connections",
                where=client,
                multi=False,
            ),
        ),
        sections=(
            Section(title="Now", panels=(*_now(), *_findings())),
            Section(title="Growth", panels=_growth()),
            Section(title="What is held", panels=_held()),
            Section(title="Harm to others", panels=_harm()),
        ),
    )


def _now() -> tuple[Panel, ...]:
    return (
        stat_panel(
            PanelText(
                title="Diagnosis",
                description="*leaking*: it does not return connections; *saturated*: its pool is too small, all "
                "connections are busy; *blocked*: it waits for the locks of one session; *slow*: long queries; "
                "*unknown*: too little is visible.",
            ),
            PanelStyle(width=4, height=4, mappings=(verdict_mapping(),), links=_ELSEWHERE),
            Query(expr=verdict_code("client_diagnosis", *_CLIENT, where=(_USER,))),
        ),
        stat_panel(
            PanelText(title="Leaked sessions", description="Sessions of this client in open findings."),
            PanelStyle(width=4, height=4, steps=((1, ORANGE),)),
            Query(expr=or_zero(sum_by(leaked_sessions(_USER), *_CLIENT), _client_series())),
        ),
        stat_panel(
            PanelText(
                title="Leaked per minute",
                description="Sessions added to findings over the last minutes. 0 after traffic stopped does not mean "
                "that the leak is fixed.",
                unit="cpm",
            ),
            PanelStyle(width=4, height=4, steps=((0.1, ORANGE),), decimals=1),
            Query(expr=or_zero(sum_by(_leaked_per_minute(), *_CLIENT), _client_series())),
        ),
        stat_panel(
            PanelText(
                title="Limit reached in",
                description="Time until the nearest limit of the server, or of the client's role or database, is "
                "reached at the present growth.",
                unit="s",
            ),
            PanelStyle(width=4, height=4, steps=SOON, mappings=(no_forecast_mapping(),)),
            Query(expr=f"min by (server) ({' or '.join(time_left(limit) for limit in _LIMITS)})"),
        ),
        stat_panel(
            PanelText(
                title="Idle in transaction for",
                description="The longest time that one of its sessions has been idle in a transaction.",
                unit="s",
            ),
            PanelStyle(width=4, height=4, steps=((60, YELLOW), (600, ORANGE))),
            Query(expr=_age("idle_in_transaction_age_max_seconds", "idle in transaction")),
        ),
        stat_panel(
            PanelText(
                title="Blocks", description="Sessions of any client that wait for this client's idle transactions."
            ),
            PanelStyle(width=4, height=4, steps=((1, RED),)),
            Query(expr=select("blocked_by", _USER)),
        ),
    )


def _findings() -> tuple[Panel, ...]:
    labels = ("site", "kind", "severity")
    return (
        table_panel(
            PanelText(
                title="Findings",
                description="The site of each leak: the route or controller named in the statement's comment, "
                "otherwise the verb and tables of the last statement. `transaction_held`: a transaction was not ended; "
                "`transaction_kept`: a session is used again and again in a transaction that nobody ends; "
                "`connection_held`: a connection was not returned to the pool; `origin_growth`: one process opens more "
                "and more sessions.",
            ),
            PanelStyle(width=12, height=7, no_value=NO_FINDING),
            Query(expr=sum_by(findings_by_severity(_USER), *labels), column="Sessions"),
            names={name: name.capitalize() for name in labels},
            columns={"Site": (("custom.inspect", True), ("links", finding_links()))},
        ),
        text_panel("What to do", "What to do until the service is fixed.", _WHAT_TO_DO, PanelStyle(width=12, height=7)),
    )


def _growth() -> tuple[Panel, ...]:
    sessions = sum_by(select("connections", _USER), *_CLIENT)
    used = " or ".join(select("used_slots", limit, filtered=("server",)) for limit in _LIMITS)
    capacity = " or ".join(select("capacity_slots", limit, filtered=("server",)) for limit in _LIMITS)
    left = " or ".join(select("exhaustion_seconds", limit, filtered=("server",), merge="min") for limit in _LIMITS)
    # If the limit is already reached, the time left is 0 s; clamp_min avoids dividing by 0.
    growth = f"{_HOUR} * clamp_min(({capacity}) - ({used}), 0) / clamp_min({left}, 1)"
    expected = f"({used}) + {growth}"
    return (
        graph_panel(
            PanelText(
                title="Leaked sessions by site",
                description="A line that only rises, in steps, is a leak. It stays up when traffic stops.",
            ),
            PanelStyle(width=12, height=9, no_value=NO_FINDING),
            Query(
                expr=sum_by(leaked_sessions(_USER), "kind", "site"),
                legend="{{site}} ({{kind}})",
            ),
            stacked=True,
        ),
        graph_panel(
            PanelText(
                title="Growth towards its limits",
                description="The client's sessions, the use of each limit that they count against, and that use in one "
                "hour at the present growth. Where *in one hour* meets *limit*, connections will be refused within the "
                "hour.",
            ),
            PanelStyle(width=12, height=9),
            Query(expr=sessions, legend="sessions of this client"),
            Query(expr=used, legend="in use: {{scope}} {{name}}"),
            Query(expr=f"({expected}) < ({capacity}) or ({capacity})", legend="in one hour: {{scope}} {{name}}"),
            Query(expr=capacity, legend="limit: {{scope}} {{name}}"),
        )
        .override_by_regexp("/^in one hour/", [dashes(4, 8)])
        .override_by_regexp("/^limit/", [dashes(10, 4), colour(RED)]),
        graph_panel(
            PanelText(
                title="Leaked sessions by line of code",
                description="The file, line and function in the comments of statements: where the connection was "
                "borrowed, or the query was made. No data: the statements have no such tags.",
            ),
            PanelStyle(width=6, no_value=NO_FINDING),
            Query(expr=sum_by(select("leaked_sessions_by_line", _USER), "code_line"), legend="{{code_line}}"),
            stacked=True,
        ),
        graph_panel(
            PanelText(
                title="Sessions leaked per minute",
                description="By kind of leak. Compare it with the requests or errors of a route: a leaking route has a "
                "similar curve.",
                unit="cpm",
            ),
            PanelStyle(width=6, no_value=NO_FINDING),
            Query(expr=sum_by(_leaked_per_minute(), "kind"), legend="{{kind}}"),
        ),
        graph_panel(
            PanelText(
                title="Findings opened and closed",
                description="Findings opened and closed, counted over a window as long as the time range shown. "
                "Findings that open and close again and again are sessions that are held long but do end.",
            ),
            PanelStyle(width=6, no_value=NO_FINDING),
            Query(
                expr=sum_by(select("leaks_opened_total", _USER, change=OVER_RANGE), "kind"), legend="{{kind}} opened"
            ),
            Query(
                expr=sum_by(select("leaks_closed_total", _USER, change=OVER_RANGE), "kind"), legend="{{kind}} closed"
            ),
        ),
        timeline_panel(
            PanelText(
                title="Diagnosis",
                description="What was wrong with this client, and since when. Compare it with deploys.",
            ),
            PanelStyle(width=6, mappings=(verdict_mapping(),), links=_ELSEWHERE),
            Query(expr=verdict_code("client_diagnosis", *_CLIENT, where=(_USER,)), legend="{{application}}"),
        ),
    )


def _held() -> tuple[Panel, ...]:
    return (
        graph_panel(
            PanelText(
                title="Its sessions by state",
                description="Leaked sessions are *idle in transaction* or *idle*. If all are *active*, the pool is too "
                "small, which is not a leak.",
            ),
            PanelStyle(width=8),
            Query(expr=sum_by(select("connections", _USER), "state"), legend="{{state}}"),
            stacked=True,
        ),
        graph_panel(
            PanelText(
                title="Longest time in each state",
                description="A steady rise without end is one session that stays idle. Small saw teeth are normal.",
                unit="s",
            ),
            PanelStyle(width=8),
            Query(expr=max_by(select("state_age_max_seconds", _USER), "state"), legend="{{state}}"),
        ),
        graph_panel(
            PanelText(
                title="Oldest transaction and query",
                description="0 if there is none. An aborted transaction has no transaction age, but shows as idle in "
                "transaction.",
                unit="s",
            ),
            PanelStyle(width=8, steps=(*HELD_LONG, *ACTIVE_LONG)),
            Query(expr=_age("transaction_age_max_seconds", "active"), legend="transaction"),
            Query(expr=_age("query_age_max_seconds", "active"), legend="query"),
            Query(
                expr=_age("idle_in_transaction_age_max_seconds", "idle in transaction"), legend="idle in transaction"
            ),
        ),
    )


def _harm() -> tuple[Panel, ...]:
    all_clients = ("server",)
    return (
        graph_panel(
            PanelText(
                title="Who waits for locks",
                description="*for this client*: sessions blocked by its idle transactions. The other lines: sessions "
                "of each application on this server that wait for any lock.",
            ),
            PanelStyle(width=8),
            Query(expr=select("blocked_by", _USER), legend="for this client"),
            Query(
                expr=sum_by(select("lock_waiting", filtered=all_clients), "application"), legend="{{application}} waits"
            ),
        ),
        graph_panel(
            PanelText(
                title="Vacuum held back",
                description="Age of its oldest snapshot, in transactions. Vacuum cannot remove rows deleted since "
                "then.",
                unit="short",
            ),
            PanelStyle(width=8, steps=VACUUM_HELD),
            Query(expr=client_values("xmin_age_max_transactions", where=(_USER,)), legend="{{application}}"),
        ),
        graph_panel(
            PanelText(
                title="Sessions of its database that ended badly",
                description="If *fatal* rises while leaked sessions fall, a time-out terminates them, and the pool "
                "stays empty. *killed*: somebody terminates sessions. *abandoned*: clients disappear.",
                unit="cpm",
            ),
            PanelStyle(width=8),
            Query(expr=select("fatal_total", change=PER_MINUTE), legend="fatal"),
            Query(expr=select("killed_total", change=PER_MINUTE), legend="killed"),
            Query(expr=select("abandoned_total", change=PER_MINUTE), legend="abandoned"),
        ),
    )


def _leaked_per_minute() -> str:
    return select("sessions_leaked_total", _USER, change=PER_MINUTE)


def _age(metric: str, state: str) -> str:
    return client_values(metric, state=state, where=(_USER,))


def _client_series() -> str:
    """Return one series for the client, if it is monitored."""
    return max_by(select("connections", _USER), *_CLIENT)
