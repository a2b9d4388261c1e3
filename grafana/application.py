"""The dashboard *One application*: the pools of an application, beside what the server sees of it."""

from grafana_foundation_sdk.models import dashboard

from grafana.frame import (
    APPLICATION,
    Section,
    build_dashboard,
    choice_variable,
    finding_links,
    firing_alerts,
    leak_url,
)
from grafana.panels import (
    FULL,
    NO_FINDING,
    ORANGE,
    RED,
    SOON,
    SOON_LINES,
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
    thresholds,
    timeline_panel,
    verdict_mapping,
)
from grafana.queries import (
    PER_MINUTE,
    POOL,
    RATE,
    findings_by_severity,
    leaked_sessions,
    matches_variable,
    max_by,
    or_zero,
    pools,
    select,
    sum_by,
    time_left,
    verdict_code,
)

_CLIENT = ("server", "database", "user", "application")
_TO_LEAK = (link("Investigate this client", leak_url(prefix="__field.labels.")),)
_POOL = f"{{{{{POOL}}}}}"
#: Instead of "No data", where no data may have two reasons.
_NONE_OUT = "None, or not scraped"


def application() -> dashboard.Dashboard:
    """Return the dashboard."""
    return build_dashboard(
        APPLICATION,
        "PostgreSQL sessions: one application",
        "One application: its connection pools as it counts them itself, beside what the server sees of it.",
        variables=(
            choice_variable(
                "application",
                "Application",
                "Its application_name, and the label `application` of its own metrics.",
                metric="connections",
                multi=False,
            ),
            choice_variable(
                "server",
                "Server",
                "The servers that it uses.",
                metric="connections",
                where=("application",),
                multi=True,
            ),
            choice_variable(
                "database",
                "Database",
                "The databases that it uses.",
                metric="connections",
                where=("application", "server"),
                multi=True,
            ),
        ),
        sections=(
            Section(title="Now", panels=_now()),
            Section(title="Its pools", panels=(*_pools(), *_times(), *_borrowers())),
            Section(title="What the server sees of it", panels=_sessions()),
        ),
        alerts=_alerts(),
    )


def _alerts() -> str:
    """Select the alerts on the application, which may name no server, and those on its servers as a whole."""
    of_servers = firing_alerts('application=""')
    return f"{firing_alerts(matches_variable('application'))} or {of_servers} and on (server) {select('connections')}"


def _now() -> tuple[Panel, ...]:
    return (
        stat_panel(
            PanelText(
                title="Connections out",
                description="Connections checked out of the fullest pool, as a share of the most that it may open. At "
                "100 %, further calls wait.",
                unit="percentunit",
            ),
            PanelStyle(width=4, height=4, steps=FULL, no_value="Not scraped"),
            Query(expr=f"max({_used()} / {pools('max')})"),
        ),
        stat_panel(
            PanelText(title="Waiting calls", description="Calls that wait for a connection from one of its pools."),
            PanelStyle(width=4, height=4, steps=((1, YELLOW),), no_value="Not scraped"),
            Query(expr=f"sum({pools('pending_requests')})"),
        ),
        stat_panel(
            PanelText(
                title="Time-outs per minute",
                description="Calls that got no connection in time, over the last minutes. Their requests failed.",
                unit="cpm",
            ),
            PanelStyle(width=4, height=4, steps=((0.1, ORANGE),), decimals=1, no_value="Not scraped"),
            Query(expr=f"sum({pools('timeouts_total', change=PER_MINUTE)})"),
        ),
        stat_panel(
            PanelText(
                title="Diagnosis",
                description="By the server. *leaking*: it does not return connections; *saturated*: its pool is too "
                "small, all connections are busy; *blocked*: it waits for the locks of one session; *slow*: long "
                "queries; *unknown*: too little is visible.",
            ),
            PanelStyle(width=4, height=4, mappings=(verdict_mapping(),)),
            Query(expr=verdict_code("client_diagnosis", "application")),
        ),
        stat_panel(
            PanelText(title="Leaked sessions", description="Sessions of this application in open findings."),
            PanelStyle(width=4, height=4, steps=((1, ORANGE),)),
            Query(expr=or_zero(sum_by(leaked_sessions(), "application"), max_by(select("connections"), "application"))),
        ),
        stat_panel(
            PanelText(
                title="Limit reached in",
                description="Time until the nearest limit of the servers, roles and databases that it uses is reached "
                "at the present growth.",
                unit="s",
            ),
            PanelStyle(width=4, height=4, steps=SOON, mappings=(no_forecast_mapping(),)),
            Query(expr=f"min({_time_left()})"),
        ),
    )


def _pools() -> tuple[Panel, ...]:
    return (
        graph_panel(
            PanelText(
                title="Connections of its pools",
                description="By state, of all processes together. *used*: checked out. Where *used* stays at *max*, "
                "calls wait. A leak raises *used* in steps, and it does not fall when traffic stops.",
            ),
            PanelStyle(width=12),
            Query(
                expr=pools("count", by=("db_client_connection_state",)),
                legend=f"{_POOL} {{{{db_client_connection_state}}}}",
            ),
            Query(expr=pools("max"), legend=f"max {_POOL}"),
        ).override_by_regexp("/^max /", [dashes(10, 4), colour(RED)]),
        graph_panel(
            PanelText(title="Waiting calls", description="Calls that wait for a connection, by pool."),
            PanelStyle(width=6),
            Query(expr=pools("pending_requests"), legend=_POOL),
            stacked=True,
        ),
        graph_panel(
            PanelText(
                title="Calls without a connection",
                description="*timed out*: no connection came back in time. *cancelled*: the caller gave up waiting. "
                "*failed*: connecting was refused, or the pool was closed.",
                unit="cpm",
            ),
            PanelStyle(width=6),
            Query(expr=pools("timeouts_total", change=PER_MINUTE), legend=f"{_POOL} timed out"),
            Query(expr=pools("cancelled_waits_total", change=PER_MINUTE), legend=f"{_POOL} cancelled"),
            Query(expr=pools("failed_waits_total", change=PER_MINUTE), legend=f"{_POOL} failed"),
        ),
    )


def _times() -> tuple[Panel, ...]:
    def times(title: str, description: str, metric: str) -> Panel:
        buckets = pools(f"{metric}_seconds_bucket", by=("le",), change=RATE)
        return graph_panel(
            PanelText(title=title, description=f"{description} 50 % and 95 % took at most this long.", unit="s"),
            PanelStyle(width=8),
            Query(expr=f"histogram_quantile(0.5, {buckets})", legend=f"{_POOL} 50 %"),
            Query(expr=f"histogram_quantile(0.95, {buckets})", legend=f"{_POOL} 95 %"),
        )

    return (
        times("Wait time", "How long calls waited until they had a connection; time-outs are not in it.", "wait_time"),
        times(
            "Use time",
            "How long connections were out, counted when they came back. A connection that leaks is not in it.",
            "use_time",
        ),
        times("Time to connect", "How long it took to open a connection.", "create_time"),
    )


def _borrowers() -> tuple[Panel, ...]:
    names = {POOL: "Pool", "site": "Line"}
    out = pools("borrowed", by=("site",))
    return (
        table_panel(
            PanelText(
                title="Lines whose connections are out",
                description="The line that borrowed each connection. *Overdue*: out for longer than the application's "
                "`leak_threshold`. A line that keeps its connections leaks.",
            ),
            PanelStyle(width=12, no_value=_NONE_OUT),
            Query(expr=out, column="Out"),
            Query(expr=or_zero(pools("overdue", by=("site",)), out), column="Overdue"),
            names=names,
            columns={
                "Line": (("custom.inspect", True),),
                "Overdue": (
                    ("thresholds", thresholds(((1, ORANGE),)).build()),
                    ("custom.cellOptions", {"type": "color-text"}),
                ),
            },
        ),
        graph_panel(
            PanelText(
                title="Idle and overflow",
                description="*idle*: open, and in the pool. *overflow*: open above the pool's size; they are closed "
                "when they come back, so much overflow means much connecting. The limits for idle connections are "
                "dashed.",
            ),
            PanelStyle(width=6),
            Query(expr=pools("count", 'db_client_connection_state="idle"'), legend=f"{_POOL} idle"),
            Query(expr=pools("overflow"), legend=f"{_POOL} overflow"),
            Query(expr=_idle_limits(), legend=f"{{{{limit}}}} idle {_POOL}"),
        ).override_by_regexp("/^(most|fewest) idle/", [dashes(4, 8)]),
        graph_panel(
            PanelText(
                title="Not returned by their borrowers",
                description="*collected*: the garbage collector returned them, which is a leak that was lucky. "
                "*detached*: taken out of the pool for good.",
                unit="cpm",
            ),
            PanelStyle(width=6),
            Query(expr=pools("collected_total", change=PER_MINUTE), legend=f"{_POOL} collected"),
            Query(expr=pools("detached_total", change=PER_MINUTE), legend=f"{_POOL} detached"),
        ),
    )


def _sessions() -> tuple[Panel, ...]:
    finding = ("server", "site", "kind", "severity")
    return (
        graph_panel(
            PanelText(
                title="Its sessions by state",
                description="More sessions than connections in its pools: another program uses its name, or a pool is "
                "not instrumented or not scraped. Leaked sessions are *idle in transaction* or *idle*.",
            ),
            PanelStyle(width=8),
            Query(expr=sum_by(select("connections"), "state"), legend="{{state}}"),
            stacked=True,
        ),
        graph_panel(
            PanelText(
                title="Leaked sessions by line of code",
                description="The file, line and function in the comments of statements: where the connection was "
                "borrowed, or the query was made. No data: the statements have no such tags.",
            ),
            PanelStyle(width=8, no_value=NO_FINDING),
            Query(expr=sum_by(select("leaked_sessions_by_line"), "code_line"), legend="{{code_line}}"),
            stacked=True,
        ),
        timeline_panel(
            PanelText(
                title="Diagnosis of its clients",
                description="What was wrong with it by database and role, and when. Click one to investigate it.",
            ),
            PanelStyle(width=8, mappings=(verdict_mapping(),), links=_TO_LEAK),
            Query(expr=verdict_code("client_diagnosis", *_CLIENT), legend="{{server}} {{database}} {{user}}"),
        ),
        table_panel(
            PanelText(
                title="Findings",
                description="Open findings: the site of each leak, its kind and severity, and the number of sessions "
                "held.",
            ),
            PanelStyle(width=12, no_value=NO_FINDING),
            Query(expr=sum_by(findings_by_severity(), *finding), column="Sessions"),
            names={name: name.capitalize() for name in finding},
            columns={"Site": (("custom.inspect", True), ("links", finding_links()))},
        ),
        graph_panel(
            PanelText(
                title="Time until its limits are reached",
                description="The limits of its servers, roles and databases, at the present growth. A line at one day "
                "means no growth.",
                unit="s",
            ),
            PanelStyle(width=12, steps=SOON_LINES),
            Query(expr=_time_left(), legend="{{server}} {{scope}} {{name}}"),
            logarithmic=True,
        ),
    )


def _used() -> str:
    return pools("count", 'db_client_connection_state="used"')


def _idle_limits() -> str:
    """Return the limits for idle connections. A pool may lack one or both."""
    limits = (("idle_max", "most"), ("idle_min", "fewest"))
    return " or ".join(f'label_replace({pools(name)}, "limit", "{limit}", "", "")' for name, limit in limits)


def _time_left() -> str:
    """Return the seconds until each limit is reached that the application's sessions count against."""
    clients = select("connections")
    left = {scope: time_left(f'scope="{scope}"') for scope in ("server", "role", "database")}
    named = {
        scope: f'label_join({sum_by(clients, "server", label)}, "name", "", "{label}")'
        for scope, label in (("role", "user"), ("database", "database"))
    }
    of_server = f"{left['server']} and on (server) {clients}"
    return " or ".join((of_server, *(f"{left[scope]} and on (server, name) {named[scope]}" for scope in named)))
