"""The dashboard *Leak investigation*: one client, what it holds, where in its code, since when, and until when."""

from grafana_foundation_sdk.models import dashboard

from grafana.frame import LEAK, Section, choice, dashboard_of, from_finding, server_url
from grafana.panels import (
    AT_WORK_LONG,
    HELD_LONG,
    NO_FINDING,
    ORANGE,
    RED,
    SOON,
    VACUUM_HELD,
    YELLOW,
    Panel,
    PanelStyle,
    Query,
    Words,
    graph,
    link,
    no_forecast_mapping,
    rows,
    stat_panel,
    timeline,
    verdict_mapping,
    words_panel,
)
from grafana.queries import (
    OVER_RANGE,
    PER_MINUTE,
    chosen,
    found,
    greatest,
    leaked,
    of_clients,
    or_zero,
    seen,
    time_left,
    total,
    verdict,
)

_CLIENT = ("server", "database", "user", "application")
_USER = chosen("user")
_TO_SERVER = (link("The server", server_url("server")),)
#: The limits that the client counts against.
_LIMITS = (
    'scope="server"',
    f'scope="role", {chosen("user", "name")}',
    f'scope="database", {chosen("database", "name")}',
)
_HOUR = 3600

_WHAT_TO_DO = """\
1. Read the finding on **[the daemon's page](${page:raw}/)**: the likely cause, and the statements to paste.
   As JSON: [leaks](${page:raw}/api/v1/leaks?server=${server:percentencode}&application=${application:percentencode}),
   [sessions](${page:raw}/api/v1/sessions?server=${server:percentencode}&application=${application:percentencode}).
2. Follow the [runbook](${runbooks:raw}/DatabaseConnectionLeak.md).
3. *Full in* below an hour, or others blocked: end the held sessions with the guarded `pg_terminate_backend` from the
   page. `pg_cancel_backend` does nothing to an idle session. Then restart the process: its pool may not recover.
4. Mend the code at the site, then see *Leaked sessions* come down. A larger pool only buys time.
"""


def leak() -> dashboard.Dashboard:
    """Build it."""
    earlier = ("server", "database", "user")
    return dashboard_of(
        LEAK,
        "PostgreSQL sessions: leak investigation",
        "One client: what it holds, where in its code, how fast it grows towards its limit, and whom that harms.",
        variables=(
            choice("server", "Server", "Where the client leaks.", of="up", several=False),
            choice("database", "Database", "The client's.", of="connections", where=earlier[:1], several=False),
            choice("user", "User", "The client's role.", of="connections", where=earlier[:2], several=False),
            choice(
                "application",
                "Application",
                "The client's application_name.",
                of="connections",
                where=earlier,
                several=False,
            ),
        ),
        sections=(
            Section(title="Now", panels=(*_now(), *_findings())),
            Section(title="Growth", panels=_growth()),
            Section(title="What is held", panels=_held()),
            Section(title="Harm", panels=_harm()),
        ),
    )


def _now() -> tuple[Panel, ...]:
    return (
        stat_panel(
            Words(
                title="Diagnosis",
                means="*leaking*: it keeps connections; *saturated*: its pool is too small, all busy and turning over; "
                "*blocked*: it waits for one; *slow*: long queries; *unknown*: too little sight.",
            ),
            PanelStyle(width=4, height=4, mappings=(verdict_mapping(),), links=_TO_SERVER),
            Query(expr=verdict("client_diagnosis", *_CLIENT, where=(_USER,))),
        ),
        stat_panel(
            Words(title="Leaked sessions", means="Sessions of this client in open findings."),
            PanelStyle(width=4, height=4, steps=((1, ORANGE),)),
            Query(expr=or_zero(total(leaked(_USER), *_CLIENT), _nothing())),
        ),
        stat_panel(
            Words(
                title="Leaked a minute",
                means="Sessions that joined a finding, over the last minutes. 0 after traffic stopped does not mean "
                "mended.",
                unit="cpm",
            ),
            PanelStyle(width=4, height=4, steps=((0.1, ORANGE),), decimals=1),
            Query(expr=or_zero(total(_leaked_a_minute(), *_CLIENT), _nothing())),
        ),
        stat_panel(
            Words(
                title="Full in",
                means="Until the nearest limit that this client counts against (the server's, its role's, its "
                "database's) at the present growth.",
                unit="s",
            ),
            PanelStyle(width=4, height=4, steps=SOON, mappings=(no_forecast_mapping(),)),
            Query(expr=f"min by (server) ({' or '.join(time_left(limit) for limit in _LIMITS)})"),
        ),
        stat_panel(
            Words(
                title="Idle in transaction for",
                means="The longest that any of its sessions has been idle in a transaction.",
                unit="s",
            ),
            PanelStyle(width=4, height=4, steps=((60, YELLOW), (600, ORANGE))),
            Query(expr=_age("idle_in_transaction_age_max_seconds", "idle in transaction")),
        ),
        stat_panel(
            Words(title="Makes wait", means="Sessions of anybody that wait for its idle transactions: they hang now."),
            PanelStyle(width=4, height=4, steps=((1, RED),)),
            Query(expr=seen("blocked_by", _USER)),
        ),
    )


def _findings() -> tuple[Panel, ...]:
    labels = ("site", "kind", "severity")
    return (
        rows(
            Words(
                title="Findings",
                means="Where its code leaks: the route or controller that the statement's comment names, else the "
                "verb and tables of the last statement. `transaction_held`: a session was not closed; "
                "`connection_held`: not given back to the pool; `origin_growth`: one process opens more and more. "
                "Empty: nothing is open.",
            ),
            PanelStyle(width=12, height=7, nothing=NO_FINDING),
            Query(expr=total(found(_USER), *labels), column="Sessions"),
            names={name: name.capitalize() for name in labels},
            columns={"Site": (("custom.inspect", True), ("links", from_finding()))},
        ),
        words_panel(
            "What to do", "The way from here to a mended service.", _WHAT_TO_DO, PanelStyle(width=12, height=7)
        ),
    )


def _growth() -> tuple[Panel, ...]:
    sessions = total(seen("connections", _USER), *_CLIENT)
    used = " or ".join(seen("used_slots", limit, filtered=("server",)) for limit in _LIMITS)
    capacity = " or ".join(seen("capacity_slots", limit, filtered=("server",)) for limit in _LIMITS)
    left = " or ".join(seen("exhaustion_seconds", limit, filtered=("server",), fold="min") for limit in _LIMITS)
    # Full already is 0 seconds from full.
    growth = f"{_HOUR} * clamp_min(({capacity}) - ({used}), 0) / clamp_min({left}, 1)"
    expected = f"({used}) + {growth}"
    return (
        graph(
            Words(
                title="Leaked sessions by site",
                means="Stairs that only go up are a leak. It keeps its height when traffic stops.",
            ),
            PanelStyle(width=12, height=9, nothing=NO_FINDING),
            Query(
                expr=total(leaked(_USER), "kind", "site"),
                legend="{{site}} ({{kind}})",
            ),
            stacked=True,
        ),
        graph(
            Words(
                title="Growth against its limits",
                means="Its sessions, the use of every limit they count against, and what the present growth makes of "
                "that use in an hour. Where *in an hour* touches *limit*, connections are refused within the hour.",
            ),
            PanelStyle(width=12, height=9),
            Query(expr=sessions, legend="sessions of this client"),
            Query(expr=used, legend="taken: {{scope}} {{name}}"),
            Query(expr=f"({expected}) < ({capacity}) or ({capacity})", legend="in an hour: {{scope}} {{name}}"),
            Query(expr=capacity, legend="limit: {{scope}} {{name}}"),
        )
        .override_by_regexp("/^in an hour/", [_dashes(4, 8)])
        .override_by_regexp("/^limit/", [_dashes(10, 4), _colour(RED)]),
        graph(
            Words(
                title="Sessions leaked a minute",
                means="By kind. A steady rate points at a route with steady traffic; compare it with that route's "
                "requests or errors.",
                unit="cpm",
            ),
            PanelStyle(width=8, nothing=NO_FINDING),
            Query(expr=total(_leaked_a_minute(), "kind"), legend="{{kind}}"),
        ),
        graph(
            Words(
                title="Findings opened and closed",
                means="In the time range shown, up to each moment. Opened again and again at the same place: holds "
                "that do end, only late.",
            ),
            PanelStyle(width=8, nothing=NO_FINDING),
            Query(expr=total(seen("leaks_opened_total", _USER, change=OVER_RANGE), "kind"), legend="{{kind}} opened"),
            Query(expr=total(seen("leaks_closed_total", _USER, change=OVER_RANGE), "kind"), legend="{{kind}} closed"),
        ),
        timeline(
            Words(title="Diagnosis", means="What was wrong with this client, and when it began: compare with deploys."),
            PanelStyle(width=8, mappings=(verdict_mapping(),), links=_TO_SERVER),
            Query(expr=verdict("client_diagnosis", *_CLIENT, where=(_USER,)), legend="{{application}}"),
        ),
    )


def _held() -> tuple[Panel, ...]:
    return (
        graph(
            Words(
                title="Its sessions by state",
                means="Leaked sessions sit *idle in transaction*, or *idle*. All *active* and turning over is a pool "
                "that is too small, not a leak.",
            ),
            PanelStyle(width=8),
            Query(expr=total(seen("connections", _USER), "state"), legend="{{state}}"),
            stacked=True,
        ),
        graph(
            Words(
                title="Longest time in each state",
                means="A straight rise without end is a session that nobody comes back to. A saw with small teeth is "
                "health.",
                unit="s",
            ),
            PanelStyle(width=8),
            Query(expr=greatest(seen("state_age_max_seconds", _USER), "state"), legend="{{state}}"),
        ),
        graph(
            Words(
                title="Oldest transaction and query",
                means="0 where there is none. An aborted transaction has no age here; its state has.",
                unit="s",
            ),
            PanelStyle(width=8, steps=(*HELD_LONG, *AT_WORK_LONG)),
            Query(expr=_age("transaction_age_max_seconds", "active"), legend="transaction"),
            Query(expr=_age("query_age_max_seconds", "active"), legend="query"),
            Query(
                expr=_age("idle_in_transaction_age_max_seconds", "idle in transaction"), legend="idle in transaction"
            ),
        ),
    )


def _harm() -> tuple[Panel, ...]:
    everybody = ("server",)
    return (
        graph(
            Words(
                title="Who waits",
                means="*for this client*: sessions that its idle transactions hold up. The others: who waits for "
                "locks on this server, whoever holds them.",
            ),
            PanelStyle(width=8),
            Query(expr=seen("blocked_by", _USER), legend="for this client"),
            Query(expr=total(seen("lock_waiting", filtered=everybody), "application"), legend="{{application}} waits"),
        ),
        graph(
            Words(
                title="Vacuum held back",
                means="How many transactions back its oldest snapshot reaches: dead rows younger than that stay.",
                unit="short",
            ),
            PanelStyle(width=8, steps=VACUUM_HELD),
            Query(expr=of_clients("xmin_age_max_transactions", where=(_USER,)), legend="{{application}}"),
        ),
        graph(
            Words(
                title="Sessions of its database that ended badly",
                means="*fatal* that rises while leaked sessions fall: a time-out ends them, and the pool stays empty. "
                "*killed*: somebody terminates them. *abandoned*: processes vanish.",
                unit="cpm",
            ),
            PanelStyle(width=8),
            Query(expr=seen("fatal_total", change=PER_MINUTE), legend="fatal"),
            Query(expr=seen("killed_total", change=PER_MINUTE), legend="killed"),
            Query(expr=seen("abandoned_total", change=PER_MINUTE), legend="abandoned"),
        ),
    )


def _leaked_a_minute() -> str:
    return seen("sessions_leaked_total", _USER, change=PER_MINUTE)


def _age(metric: str, state: str) -> str:
    return of_clients(metric, state=state, where=(_USER,))


def _nothing() -> str:
    """Return one value for the client, where it is seen."""
    return greatest(seen("connections", _USER), *_CLIENT)


def _dashes(*pattern: int) -> dashboard.DynamicConfigValue:
    return dashboard.DynamicConfigValue(id_val="custom.lineStyle", value={"fill": "dash", "dash": list(pattern)})


def _colour(colour: str) -> dashboard.DynamicConfigValue:
    return dashboard.DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": colour})
