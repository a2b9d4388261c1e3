"""The dashboard *Fleet*: all servers, what is wrong with each, and when it will be full."""

from grafana_foundation_sdk.models import dashboard

from grafana.frame import (
    FLEET,
    Section,
    application_url,
    build_dashboard,
    choice_variable,
    finding_links,
    leak_url,
    server_url,
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
    Steps,
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
    OVER_RANGE,
    PER_MINUTE,
    RATE,
    count_findings,
    findings_by_severity,
    leaked_sessions,
    max_by,
    monitored_servers,
    of_daemons,
    or_zero,
    select,
    sum_by,
    time_left,
    used_share,
    verdict_code,
)
from pgwatch_sessions.core.findings import Severity

_TO_SERVER = (link("This server", server_url("__field.labels.server")),)


def fleet() -> dashboard.Dashboard:
    """Return the dashboard."""
    return build_dashboard(
        FLEET,
        "PostgreSQL sessions: fleet",
        "All watched servers: what is wrong, how full each is, when it will refuse connections, and who leaks.",
        variables=(
            choice_variable("server", "Server", "The servers shown.", metric="up", multi=True),
            choice_variable(
                "database", "Database", "Databases of clients.", metric="connections", where=("server",), multi=True
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
            Section(title="Servers", panels=(_servers(),)),
            Section(title="Leaks", panels=_leaks()),
            Section(title="Over time", panels=_over_time()),
            Section(title="Monitoring", panels=_monitoring()),
            Section(title="The daemon itself", panels=_daemon()),
        ),
    )


def _now() -> tuple[Panel, ...]:
    return (
        stat_panel(
            PanelText(title="Servers", description="Servers that a daemon watches, whether polls succeed or not."),
            PanelStyle(width=4, height=4),
            Query(expr=f"count({select('up')})"),
        ),
        stat_panel(
            PanelText(
                title="Not monitored",
                description="Servers whose last poll failed in every daemon. Their session metrics are missing here. "
                "Open findings stay open.",
            ),
            PanelStyle(width=4, height=4, steps=((1, RED),)),
            Query(expr=f"sum(1 - {select('up')})"),
        ),
        stat_panel(
            PanelText(
                title="Open findings",
                description="*critical*: connections run out soon or now, or other sessions are blocked; act now. "
                "*warning*: a leak; fix it today. *notice*: evidence only, no alert.",
            ),
            PanelStyle(width=8, height=4, steps=((1, ORANGE),)),
            Query(expr=count_findings(Severity.CRITICAL), legend="critical"),
            Query(expr=count_findings(Severity.WARNING), legend="warning"),
            Query(expr=count_findings(Severity.NOTICE), legend="notice"),
        )
        .override_by_name("critical", [_property("thresholds", thresholds(((1, RED),)).build())])
        .override_by_name("notice", [_property("thresholds", thresholds(((1, YELLOW),)).build())]),
        stat_panel(
            PanelText(
                title="First limit reached in",
                description="Time until the first connection limit of any server, role or database is reached at the "
                "present growth.",
                unit="s",
            ),
            PanelStyle(width=4, height=4, steps=SOON, mappings=(no_forecast_mapping(),)),
            Query(expr=f"min({time_left()})"),
        ),
        stat_panel(
            PanelText(
                title="Exhausted",
                description="Servers that refuse ordinary roles now: `FATAL: sorry, too many clients already`.",
            ),
            PanelStyle(width=4, height=4, steps=((1, RED),)),
            Query(expr=sum_by(select("exhausted"))),
        ),
    )


def _servers() -> Panel:
    verdict_cell = [
        ("mappings", [verdict_mapping()]),
        ("custom.cellOptions", {"type": "color-background"}),
    ]
    share = [
        ("unit", "percentunit"),
        ("min", 0),
        ("max", 1),
        ("custom.cellOptions", {"type": "gauge", "mode": "basic"}),
    ]
    coloured = ("custom.cellOptions", {"type": "color-text"})
    return table_panel(
        PanelText(
            title="Servers",
            description="*leaking*: a client does not return connections; *saturated*: the pool or server is too "
            "small, all connections are busy; *blocked*: sessions wait for the locks of one; *slow*: long queries; "
            "*unknown*: too little is visible. Click a server for its dashboard.",
        ),
        PanelStyle(width=24, height=9),
        Query(expr=verdict_code("diagnosis", "server"), column="Diagnosis"),
        Query(expr=max_by(used_share('scope="server"'), "server"), column="In use"),
        Query(expr=f"min by (server) ({time_left()})", column="Limit reached in"),
        Query(expr=or_zero(sum_by(leaked_sessions(), "server"), monitored_servers()), column="Leaked sessions"),
        Query(expr=count_findings(Severity.CRITICAL, "server"), column="Critical"),
        Query(expr=count_findings(Severity.WARNING, "server"), column="Warning"),
        Query(expr=select("hidden_sessions"), column="Hidden sessions"),
        Query(expr=sum_by(select("poll_failures_total", change=OVER_RANGE), "server"), column="Failed polls"),
        Query(expr=f"time() - {select('last_poll_timestamp_seconds')}", column="Last poll"),
        names={"server": "Server"},
        columns={
            "Server": (("links", [link("This server", server_url("__data.fields.Server")).build()]),),
            "Diagnosis": verdict_cell,
            "In use": (*share, _steps(FULL)),
            "Limit reached in": (("unit", "s"), ("mappings", [no_forecast_mapping()]), _steps(SOON), coloured),
            "Leaked sessions": (_steps(((1, ORANGE),)), coloured),
            "Critical": (_steps(((1, RED),)), coloured),
            "Warning": (_steps(((1, ORANGE),)), coloured),
            "Hidden sessions": (_steps(((1, ORANGE),)), coloured),
            "Failed polls": (("decimals", 0), _steps(((1, YELLOW),)), coloured),
            "Last poll": (("unit", "s"), _steps(((60, ORANGE), (300, RED))), coloured),
        },
    )


def _leaks() -> tuple[Panel, ...]:
    client_and_site = ("server", "database", "user", "application", "kind", "severity", "site")
    names = ("Server", "Database", "User", "Application")
    to_client = [
        link("Investigate", leak_url(prefix="__data.fields.", names=names)).build(),
        link("This application", application_url("__data.fields.Application")).build(),
    ]
    return (
        table_panel(
            PanelText(
                title="Who leaks",
                description="Open findings: the client, the site in its code (as far as the server shows it), and the "
                "number of sessions held. Click an application to investigate.",
            ),
            PanelStyle(width=16, height=9, no_value=NO_FINDING),
            Query(expr=sum_by(findings_by_severity(), *client_and_site), column="Sessions"),
            names={name: name.capitalize() for name in client_and_site},
            columns={
                "Application": (("links", to_client),),
                "Severity": (
                    ("mappings", [_severity_mapping()]),
                    ("custom.cellOptions", {"type": "color-background"}),
                ),
                "Site": (("custom.inspect", True), ("links", finding_links())),
            },
        ),
        graph_panel(
            PanelText(
                title="Sessions leaked per minute",
                description="Sessions added to findings, by application. A steady rate is a code path that does not "
                "return connections; a spike that ends was an incident. A rate needs two scrapes, so the first "
                "sessions of a leak do not show.",
                unit="cpm",
            ),
            PanelStyle(
                width=8,
                height=9,
                links=(link("Investigate", leak_url(prefix="__field.labels.")),),
                no_value=NO_FINDING,
            ),
            Query(
                expr=sum_by(
                    select("sessions_leaked_total", change=PER_MINUTE), "server", "database", "user", "application"
                ),
                legend="{{server}} {{application}} ({{user}}, {{database}})",
            ),
        ),
    )


def _over_time() -> tuple[Panel, ...]:
    return (
        timeline_panel(
            PanelText(
                title="Diagnosis",
                description="What was wrong with each server, and when. *not monitored*: polls failed. A gap: no "
                "daemon ran.",
            ),
            PanelStyle(width=24, height=7, mappings=(verdict_mapping(),), links=_TO_SERVER),
            Query(expr=verdict_code("diagnosis", "server"), legend="{{server}}"),
        ),
        graph_panel(
            PanelText(
                title="In use",
                description="Share of the connections for ordinary roles in use. At 100 %, new ones are refused.",
                unit="percentunit",
            ),
            PanelStyle(width=8, steps=FULL, links=_TO_SERVER),
            Query(expr=max_by(used_share('scope="server"'), "server"), legend="{{server}}"),
        ).axis_soft_max(1),
        graph_panel(
            PanelText(
                title="Time until a limit is reached",
                description="Time until the nearest limit of the server, a role or a database is reached at the "
                "present growth. A line at one day means no growth; a falling line is a leak or a rush. Below one "
                "hour, act.",
                unit="s",
            ),
            PanelStyle(width=8, steps=SOON_LINES, links=_TO_SERVER),
            Query(expr=f"min by (server) ({time_left()})", legend="{{server}}"),
            logarithmic=True,
        ),
        graph_panel(
            PanelText(
                title="Leaked sessions",
                description="Sessions in open findings. The line stays up when traffic stops: leaked sessions remain "
                "until their process ends or somebody terminates them.",
            ),
            PanelStyle(width=8, links=_TO_SERVER),
            Query(expr=or_zero(sum_by(leaked_sessions(), "server"), monitored_servers()), legend="{{server}}"),
            stacked=True,
        ),
    )


def _monitoring() -> tuple[Panel, ...]:
    polls = select("poll_duration_seconds", change=RATE, suffix="_bucket")
    return (
        graph_panel(
            PanelText(
                title="Failed polls",
                description="By reason. `exhausted`: the server refuses connections because it is full; "
                "`own_limit`: the limit of the monitoring role or its database is reached; "
                "`authentication` and `privilege`: check the monitoring role; `timeout` and `network`: check the "
                "network, and whether the server hangs.",
                unit="cpm",
            ),
            PanelStyle(width=6),
            Query(
                expr=sum_by(select("poll_failures_total", change=PER_MINUTE), "server", "reason"),
                legend="{{server}} {{reason}}",
            ),
            stacked=True,
        ),
        graph_panel(
            PanelText(
                title="Duration of polls",
                description="95 % of polls took at most this long. It rises if the server lacks CPU or memory.",
                unit="s",
            ),
            PanelStyle(width=6),
            Query(expr=f"histogram_quantile(0.95, {polls})", legend="{{server}}"),
        ),
        graph_panel(
            PanelText(
                title="Hidden sessions",
                description="Sessions whose state the monitoring role may not see. If it is not 0, grant `pg_monitor` "
                "to that role; otherwise leaks are not found.",
            ),
            PanelStyle(width=6, steps=((1, ORANGE),)),
            Query(expr=select("hidden_sessions"), legend="{{server}}"),
        ),
        graph_panel(
            PanelText(
                title="Clients shown as other",
                description="Clients beyond `max_clients`, summed as `other` everywhere. If it is not 0, a service "
                "uses ever new application names, or the limit is too low. Clients that leak are never in `other`.",
            ),
            PanelStyle(width=6, steps=((1, YELLOW),)),
            Query(expr=select("folded_clients"), legend="{{server}}"),
        ),
    )


def _daemon() -> tuple[Panel, ...]:
    lateness = select("poll_lateness_seconds", change=RATE, suffix="_bucket")
    lag = select("loop_lag_seconds", change=RATE, suffix="_bucket")
    return (
        graph_panel(
            PanelText(
                title="Lateness",
                description="95 % of polls began at most this long after their time, and 95 % of the time the event "
                "loop was at most this late. Both rise if the daemon lacks CPU.",
                unit="s",
            ),
            PanelStyle(width=6, steps=((1, ORANGE),)),
            Query(expr=f"histogram_quantile(0.95, {lateness})", legend="{{server}}"),
            Query(expr=f"histogram_quantile(0.95, {lag})", legend="event loop"),
        ),
        graph_panel(
            PanelText(
                title="Polls left out, and reconnects",
                description="A poll is left out if the one before has not ended, or if the daemon is late by an "
                "interval. Reconnects show an unstable network, or a server that ends the session.",
                unit="cpm",
            ),
            PanelStyle(width=6),
            Query(expr=select("polls_skipped_total", change=PER_MINUTE), legend="{{server}} left out"),
            Query(expr=select("reconnects_total", change=PER_MINUTE), legend="{{server}} reconnects"),
        ),
        graph_panel(
            PanelText(
                title="Memory",
                description="Resident memory of each daemon. It grows with the number of sessions, and not with time.",
                unit="bytes",
            ),
            PanelStyle(width=6),
            Query(expr=of_daemons("process_resident_memory_bytes"), legend="{{instance}}"),
        ),
        graph_panel(
            PanelText(
                title="Open files",
                description="Share of the files and sockets that each daemon may have open. It needs one for each "
                "server and each HTTP client.",
                unit="percentunit",
            ),
            PanelStyle(width=6, steps=FULL),
            Query(expr=of_daemons("process_open_fds / process_max_fds"), legend="{{instance}}"),
        ),
        graph_panel(
            PanelText(
                title="HTTP clients refused",
                description="Connections that were closed or answered 503, because there were too many or no file "
                "descriptors left, and requests with a wrong user or password.",
                unit="cpm",
            ),
            PanelStyle(width=6),
            Query(expr=select("http_connections_refused_total", change=PER_MINUTE), legend="{{reason}}"),
            Query(expr=select("http_logins_failed_total", change=PER_MINUTE), legend="wrong login"),
        ),
    )


def _severity_mapping() -> dashboard.ValueMap:
    colours = {"critical": RED, "warning": ORANGE, "notice": YELLOW}
    return dashboard.ValueMap(
        options={
            severity: dashboard.ValueMappingResult(text=severity, color=colour, index=place)
            for place, (severity, colour) in enumerate(colours.items())
        }
    )


def _steps(steps: Steps) -> tuple[str, object]:
    return "thresholds", thresholds(steps).build()


def _property(name: str, value: object) -> dashboard.DynamicConfigValue:
    return dashboard.DynamicConfigValue(id_val=name, value=value)
