"""The dashboard *Fleet*: every server, what is wrong with it, and when it is full."""

from grafana_foundation_sdk.models import dashboard

from grafana.frame import FLEET, Section, choice, dashboard_of, from_finding, leak_url, server_url
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
    Query,
    Steps,
    Words,
    graph,
    link,
    no_forecast_mapping,
    rows,
    stat_panel,
    thresholds,
    timeline,
    verdict_mapping,
)
from grafana.queries import (
    OVER_RANGE,
    PER_MINUTE,
    RATE,
    findings,
    found,
    greatest,
    leaked,
    or_zero,
    seen,
    time_left,
    total,
    used_share,
    verdict,
    watched,
)
from pgwatch_sessions.core.findings import Severity

_TO_SERVER = (link("This server", server_url("__field.labels.server")),)


def fleet() -> dashboard.Dashboard:
    """Build it."""
    return dashboard_of(
        FLEET,
        "PostgreSQL sessions: fleet",
        "Every watched server: what is wrong with it, how full it is, when nobody can connect, and who leaks.",
        variables=(
            choice("server", "Server", "Servers shown.", of="up", several=True),
            choice(
                "database", "Database", "Of clients: their database.", of="connections", where=("server",), several=True
            ),
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
            Section(title="Watched", panels=(_servers(),)),
            Section(title="Leaks", panels=_leaks()),
            Section(title="Over time", panels=_over_time()),
            Section(title="The watchers", panels=_watchers()),
        ),
    )


def _now() -> tuple[Panel, ...]:
    return (
        stat_panel(
            Words(title="Servers", means="Servers that a daemon watches, seen or not."),
            PanelStyle(width=4, height=4),
            Query(expr=f"count({seen('up')})"),
        ),
        stat_panel(
            Words(
                title="Not seen",
                means="Servers of which the last poll failed in every daemon. Of these nothing else here is fresh; "
                "open leaks stay open, since not seeing is not gone.",
            ),
            PanelStyle(width=4, height=4, steps=((1, RED),)),
            Query(expr=f"sum(1 - {seen('up')})"),
        ),
        stat_panel(
            Words(
                title="Open findings",
                means="Critical: nobody can connect soon or now, or others are blocked; act now. Warning: a leak; "
                "mend it today. Notice: evidence only, nobody is paged.",
            ),
            PanelStyle(width=8, height=4, steps=((1, ORANGE),)),
            Query(expr=findings(Severity.CRITICAL), legend="critical"),
            Query(expr=findings(Severity.WARNING), legend="warning"),
            Query(expr=findings(Severity.NOTICE), legend="notice"),
        )
        .override_by_name("critical", [_property("thresholds", thresholds(((1, RED),)).build())])
        .override_by_name("notice", [_property("thresholds", thresholds(((1, YELLOW),)).build())]),
        stat_panel(
            Words(
                title="Full soonest",
                means="Time until the first limit of any server, role or database is reached at the present growth.",
                unit="s",
            ),
            PanelStyle(width=4, height=4, steps=SOON, mappings=(no_forecast_mapping(),)),
            Query(expr=f"min({time_left()})"),
        ),
        stat_panel(
            Words(
                title="Exhausted",
                means="Servers on which ordinary roles get `FATAL: sorry, too many clients already` now.",
            ),
            PanelStyle(width=4, height=4, steps=((1, RED),)),
            Query(expr=total(seen("exhausted"))),
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
    return rows(
        Words(
            title="Servers",
            means="One line a server. *leaking*: somebody keeps connections; *saturated*: pool or server too small, "
            "all busy; *blocked*: all wait for one; *slow*: long queries; *unknown*: too little sight. Click for the "
            "server.",
        ),
        PanelStyle(width=24, height=9),
        Query(expr=verdict("diagnosis", "server"), column="Diagnosis"),
        Query(expr=greatest(used_share('scope="server"'), "server"), column="In use"),
        Query(expr=f"min by (server) ({time_left()})", column="Full in"),
        Query(expr=or_zero(total(leaked(), "server"), watched()), column="Leaked sessions"),
        Query(expr=findings(Severity.CRITICAL, "server"), column="Critical"),
        Query(expr=findings(Severity.WARNING, "server"), column="Warning"),
        Query(expr=seen("hidden_sessions"), column="Hidden sessions"),
        Query(expr=total(seen("poll_failures_total", change=OVER_RANGE), "server"), column="Failed polls"),
        Query(expr=f"time() - {seen('last_poll_timestamp_seconds')}", column="Last seen"),
        names={"server": "Server"},
        columns={
            "Server": (("links", [link("This server", server_url("__data.fields.Server")).build()]),),
            "Diagnosis": verdict_cell,
            "In use": (*share, _steps(FULL)),
            "Full in": (("unit", "s"), ("mappings", [no_forecast_mapping()]), _steps(SOON), coloured),
            "Leaked sessions": (_steps(((1, ORANGE),)), coloured),
            "Critical": (_steps(((1, RED),)), coloured),
            "Warning": (_steps(((1, ORANGE),)), coloured),
            "Hidden sessions": (_steps(((1, ORANGE),)), coloured),
            "Failed polls": (("decimals", 0), _steps(((1, YELLOW),)), coloured),
            "Last seen": (("unit", "s"), _steps(((60, ORANGE), (300, RED))), coloured),
        },
    )


def _leaks() -> tuple[Panel, ...]:
    client_and_site = ("server", "database", "user", "application", "kind", "severity", "site")
    names = ("Server", "Database", "User", "Application")
    to_leak = link("Investigate", leak_url(prefix="__data.fields.", names=names)).build()
    return (
        rows(
            Words(
                title="Who leaks",
                means="Open findings: who, where in the code as closely as the server shows it, and how many "
                "sessions are held. Empty is good. Click an application to investigate.",
            ),
            PanelStyle(width=16, height=9, nothing=NO_FINDING),
            Query(expr=total(found(), *client_and_site), column="Sessions"),
            names={name: name.capitalize() for name in client_and_site},
            columns={
                "Application": (("links", [to_leak]),),
                "Severity": (
                    ("mappings", [_severity_mapping()]),
                    ("custom.cellOptions", {"type": "color-background"}),
                ),
                "Site": (("custom.inspect", True), ("links", from_finding())),
            },
        ),
        graph(
            Words(
                title="Sessions leaked a minute",
                means="Sessions that joined a finding, by application. A steady rate is a code path that forgets; "
                "a spike that ends was an incident. Rates need two scrapes: a leak's very first sessions do not show.",
                unit="cpm",
            ),
            PanelStyle(
                width=8,
                height=9,
                links=(link("Investigate", leak_url(prefix="__field.labels.")),),
                nothing=NO_FINDING,
            ),
            Query(
                expr=total(
                    seen("sessions_leaked_total", change=PER_MINUTE), "server", "database", "user", "application"
                ),
                legend="{{server}} {{application}} ({{user}}, {{database}})",
            ),
        ),
    )


def _over_time() -> tuple[Panel, ...]:
    return (
        timeline(
            Words(
                title="Diagnosis",
                means="What was wrong with each server, and when. A gap or *not seen* means that nobody polled or "
                "could.",
            ),
            PanelStyle(width=24, height=7, mappings=(verdict_mapping(),), links=_TO_SERVER),
            Query(expr=verdict("diagnosis", "server"), legend="{{server}}"),
        ),
        graph(
            Words(
                title="In use",
                means="Part of the connections for ordinary roles that is taken. At 100 % they are refused.",
                unit="percentunit",
            ),
            PanelStyle(width=8, steps=FULL, links=_TO_SERVER),
            Query(expr=greatest(used_share('scope="server"'), "server"), legend="{{server}}"),
        ).axis_soft_max(1),
        graph(
            Words(
                title="Time until full",
                means="Until the server's nearest limit (its own, a role's or a database's) at the present growth. "
                "A line at a day is no growth; one that falls is a leak or a rush. Below an hour somebody should act.",
                unit="s",
            ),
            PanelStyle(width=8, steps=SOON_LINES, links=_TO_SERVER),
            Query(expr=f"min by (server) ({time_left()})", legend="{{server}}"),
            logarithmic=True,
        ),
        graph(
            Words(
                title="Leaked sessions",
                means="Sessions in open findings. It keeps its height when traffic stops: what leaked stays until the "
                "process ends or somebody terminates it.",
            ),
            PanelStyle(width=8, links=_TO_SERVER),
            Query(expr=or_zero(total(leaked(), "server"), watched()), legend="{{server}}"),
            stacked=True,
        ),
    )


def _watchers() -> tuple[Panel, ...]:
    polls = seen("poll_duration_seconds", change=RATE, suffix="_bucket")
    return (
        graph(
            Words(
                title="Failed polls",
                means="By reason. `exhausted`: the server is full, which proves it; `authentication` and `privilege`: "
                "mend the monitoring role; `timeout` and `network`: the way there, or a server that hangs.",
                unit="cpm",
            ),
            PanelStyle(width=6),
            Query(
                expr=total(seen("poll_failures_total", change=PER_MINUTE), "server", "reason"),
                legend="{{server}} {{reason}}",
            ),
            stacked=True,
        ),
        graph(
            Words(
                title="Duration of polls",
                means="95 of 100 polls took at most this. It rises when the server is short of CPU or memory.",
                unit="s",
            ),
            PanelStyle(width=6),
            Query(expr=f"histogram_quantile(0.95, {polls})", legend="{{server}}"),
        ),
        graph(
            Words(
                title="Hidden sessions",
                means="Sessions whose state the monitoring role may not see. Not 0: run "
                "`GRANT pg_monitor TO` that role, or leaks stay unseen.",
            ),
            PanelStyle(width=6, steps=((1, ORANGE),)),
            Query(expr=seen("hidden_sessions"), legend="{{server}}"),
        ),
        graph(
            Words(
                title="Clients shown as other",
                means="Clients beyond `max_clients`, added up as `other` everywhere. Not 0: somebody sets a new "
                "application_name again and again, or the limit is too low. Who leaks is never folded.",
            ),
            PanelStyle(width=6, steps=((1, YELLOW),)),
            Query(expr=seen("folded_clients"), legend="{{server}}"),
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
